"""How much is served at once: calls in flight, those that wait for a place, and the bytes that are held for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Literal, Self, get_args

from llmproxy_core.config import ServerConfig
from llmproxy_core.errors import Overloaded
from llmproxy_core.node import record
from llmproxy_core.resilience.turns import Refusal, Turns
from llmproxy_server.admission_limit import AdaptiveLimit, Looks
from llmproxy_server.unsent import Unsent

RETRY_AFTER_S = 1.0

Reason = Literal[Refusal, "bodies"]
"""Why a call was refused: see `_WORDS`."""
REASONS: tuple[Reason, ...] = get_args(Reason)

_WORDS: dict[Reason, str] = {
    "full": "Too many calls are being served; try again soon",
    "displaced": "Too many calls are being served, and too many of yours wait for it; try again soon",
    "waited": "Too many calls are being served, and none of them ended in time (queue_timeout_s); try again soon",
    "deadline": "Too many calls are being served, and none of them ended before the deadline of this one",
    "bodies": "Too many request bodies are held; try again soon",
}


class Admission:
    """
    Lets calls in while there is room. One event loop.

    Where there is none, some wait in a queue that is fair between callers, for a short while; what fits there neither
    is refused at once. A place that becomes free goes to who waits: nobody who comes later can take it. While nobody
    waits there is no future, no timer and no lock.
    """

    def __init__(
        self,
        *,
        max_in_flight: int,
        max_buffered_bytes: int,
        max_unsent_bytes: float = inf,
        max_queued: int = 0,
        queue_timeout_s: float = 1.0,
        adaptive_limit: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*max_in_flight*: 0 for no bound. *adaptive_limit* takes effect from `start` on."""
        self.in_flight = 0
        self.buffered_bytes = 0
        self.shed: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        """How many calls were refused so far, by why."""
        self.limit: float = max_in_flight or inf
        """How many calls may be in flight now. Where fewer are, nobody waits."""
        self.queue = Turns(self._take_back)
        """Those that wait for a place."""
        self.unsent = Unsent(max_unsent_bytes, clock)
        """Answers that wait for their clients."""
        self.max_buffered_bytes = max_buffered_bytes
        self._max_queued = max_queued
        self._queue_timeout_s = queue_timeout_s
        self._clock = clock
        self._adaptive = AdaptiveLimit(self.limit) if adaptive_limit else None
        self._looks = Looks(self._adapt, clock)

    @classmethod
    def of(cls, server: ServerConfig) -> Self:
        return cls(
            max_in_flight=server.max_in_flight,
            max_buffered_bytes=server.max_buffered_bytes,
            max_unsent_bytes=server.max_unsent_bytes,
            max_queued=server.max_queued,
            queue_timeout_s=server.queue_timeout_s,
            adaptive_limit=server.adaptive_limit,
        )

    def follow(self, server: ServerConfig) -> None:
        """
        The bounds of *server* from now on.

        Who is inside stays, also where there are more than that now; so does who waits, as long as it was told then.
        """
        most = server.max_in_flight or inf
        self.max_buffered_bytes = server.max_buffered_bytes
        self.unsent.most_bytes = server.max_unsent_bytes
        self._max_queued = server.max_queued
        self._queue_timeout_s = server.queue_timeout_s
        if not server.adaptive_limit:
            self._adaptive = None
            self._looks.stop()
        elif self._adaptive is None:
            self._adaptive = AdaptiveLimit(most)
            self._looks.start()
        else:
            self._adaptive.bound(most)
        self.limit = most if self._adaptive is None else self._adaptive.limit
        self._let_in()

    def start(self) -> None:
        """Adapt the limit to the running loop, where that is configured."""
        if self._adaptive is not None:
            self._looks.start()

    def stop(self) -> None:
        """The limit stays as it is. May be called again."""
        self._looks.stop()

    def _adapt(self, late_s: float) -> None:
        """The loop was *late_s* late."""
        if self._adaptive is not None:
            self._adaptive.look(late_s, self.in_flight)
            self.limit = self._adaptive.limit
            self._let_in()

    # -- places --------------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether there is no place now. Who comes then can only `wait`."""
        return self.in_flight >= self.limit

    def enter(self, size: int = 0) -> Ticket:
        """A place, and *size* bytes held, until `Ticket.leave`. Overloaded when there is none, or they do not fit."""
        if self.in_flight >= self.limit:
            raise self._refused("full")
        held = self.buffered_bytes + size
        if held > self.max_buffered_bytes:
            raise self.no_room()
        self.in_flight += 1
        self.buffered_bytes = held
        return Ticket(self, True, size)

    def outside(self, address: str) -> Ticket:
        """
        For a call from *address* whose body is still to come: it has no place while it does, but may hold bytes.

        Overloaded when it would be refused a place now, since there is none, nor one in the queue.
        """
        if self.in_flight >= self.limit and not self.queue.has_room(address, self._max_queued):
            raise self._refused("full")
        return Ticket(self, inside=False)

    async def wait(self, address: str, until: float | None = None) -> Ticket:
        """
        A place, until `Ticket.leave`, as soon as it is the turn of who calls from *address*.

        Overloaded after `queue_timeout_s`, or at *until* by the clock, if that is sooner; and else as `Turns.wait` has
        it. Who is cancelled leaves the queue and holds no place, also when its turn had just come.
        """
        left_s = inf if until is None else until - self._clock()
        why = await self.queue.wait(address, most=self._max_queued, wait_s=self._queue_timeout_s, left_s=left_s)
        if why is not None:
            raise self._refused(why)
        return Ticket(self)

    def _take_back(self) -> None:
        self.in_flight -= 1
        self._let_in()

    def _let_in(self) -> None:
        """Give the places that are free to those whose turn it is."""
        while self.in_flight < self.limit and self.queue.serve():
            self.in_flight += 1

    def _refused(self, why: Reason) -> Overloaded:
        self.shed[why] += 1
        return Overloaded(_WORDS[why], retry_after_s=RETRY_AFTER_S)

    # -- bodies --------------------------------------------------------------------------------------------------

    def no_room(self) -> Overloaded:
        """The error of a body that does not fit."""
        return self._refused("bodies")


@record(eq=False, repr=False)
class Ticket:
    """The place of one call, and the bytes that it holds."""

    _admission: Admission
    _inside: bool = True
    _held: int = 0

    def check(self, size: int) -> None:
        """Overloaded when *size* more bytes do not fit now. Nothing is held: who announces much need not send it."""
        admission = self._admission
        if admission.buffered_bytes + size > admission.max_buffered_bytes:
            raise admission.no_room()

    def reserve(self, size: int) -> None:
        """Hold *size* more bytes until `leave`. Overloaded when they do not fit."""
        admission = self._admission
        held = admission.buffered_bytes + size
        if held > admission.max_buffered_bytes:
            raise admission.no_room()
        admission.buffered_bytes = held
        self._held += size

    def take_over(self, other: Ticket) -> None:
        """Hold what *other*, of the same call, holds."""
        self._held, other._held = self._held + other._held, 0

    def leave(self) -> None:
        """Give everything back; the place goes to who waits for one. May be called again."""
        admission = self._admission
        if self._held:
            admission.buffered_bytes -= self._held
            self._held = 0
        if self._inside:
            self._inside = False
            admission.in_flight -= 1
            if admission.queue.size:
                admission._let_in()
