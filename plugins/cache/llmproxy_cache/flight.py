"""One upstream call for all who ask the same at the same time."""

from __future__ import annotations

import asyncio
from math import inf

from llmproxy_core import (
    End,
    Exchange,
    Handler,
    InternalError,
    Keep,
    KeptBody,
    Outcome,
    ProxyError,
    Response,
    Shared,
    Tasks,
    share,
)


class Flight:
    """
    A call under way that several exchanges wait for, or read.

    It has an exchange of its own, billed to the first caller, and belongs to none of those who wait: it ends early
    only when the last of them has left. Each of them waits until its own deadline, which cuts nobody else; no other try
    is begun that the last deadline would cut, nor one for clients that have all left.
    """

    def __init__(self, exchange: Exchange, call_next: Handler, *, max_bytes: int, tasks: Tasks) -> None:
        """*exchange* is detached from the first caller's; an answer of up to *max_bytes* can be `kept`."""
        self.exchange = exchange
        self.model = exchange.request.model
        """What was asked for; processors below may ask for another."""
        self.purged: set[str] = set()
        """Models whose answers were to be forgotten since it began."""
        self.response: Response | None = None
        self._keep: Keep | None = None
        self._call_next = call_next
        self._max_bytes = max_bytes
        self._tasks = tasks
        self._shared: Shared | None = None
        self._waiting: dict[asyncio.Future[Response], Exchange] = {}
        self._aboard: set[Exchange] = set()
        """Those that wait for it or read it."""
        self._is_under_way = False
        self._is_left = False
        """Whether all who waited have left, so that it is being stopped."""
        self._task = tasks.start(self._run(), name="cache flight")
        exchange.awaited = self._until_s
        exchange.on_finish(self._ended)

    def _until_s(self) -> float:
        return max((it.until_s() for it in self._aboard), default=-inf)

    @property
    def can_be_joined(self) -> bool:
        """Whether one more would get all of the answer."""
        if self._shared is not None:
            return self._shared.open
        return self.exchange.outcome is None and not self._is_left

    @property
    def kept(self) -> KeptBody | None:
        """The bytes of the complete answer; None when they are too many, or nobody can say what they are."""
        return None if self._keep is None else self._keep.body

    @property
    def models(self) -> set[str]:
        """Every name of the model so far: as asked for, as sent for, as answered."""
        answered = None if self.response is None else self.response.model
        return {name for name in (self.model, self.exchange.request.model, answered) if name is not None}

    async def join(self, exchange: Exchange) -> Response:
        """The answer for *exchange*, from its first event on. Raises what the call raises."""
        self._aboard.add(exchange)
        exchange.on_finish(lambda _: self._aboard.discard(exchange))
        if self._shared is not None:
            return self._shared.join(exchange)
        if self.exchange.outcome is not None:  # it was over before it began: nobody is left to be billed for it
            raise _stopped()
        seat: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting[seat] = exchange
        try:
            return await seat
        except asyncio.CancelledError:
            if seat.done() and not seat.cancelled() and seat.exception() is None:
                seat.result().finish(End.ABANDONED)  # nobody will read it, and it must not hold those who do
            raise
        finally:
            del self._waiting[seat]
            if not self._waiting and self._shared is None:
                self._leave()

    def _leave(self) -> None:
        """Stop the call that nobody waits for. Its exchange ends after it, so that what it has used is counted."""
        self._is_left = True
        if self._is_under_way:
            self._task.cancel()
        else:
            self.exchange.finish(End.ABANDONED)

    async def _run(self) -> None:
        self._is_under_way = True
        try:
            response = await self._call_next(self.exchange)
            self._land(response)
            self._board(await share(response, max_bytes=self._max_bytes, tasks=self._tasks))
        except asyncio.CancelledError:
            self.exchange.finish(End.ABANDONED)
            self._fail(_stopped())
            raise
        except ProxyError as error:
            self.exchange.finish(End.of(error), error)
            self._fail(error)
        except Exception as bug:  # noqa: BLE001 - whoever waits must learn of it, too
            failure = InternalError("The shared call failed")
            failure.__cause__ = bug
            self.exchange.finish(End.FAILED, failure)
            self._fail(failure)

    def _land(self, response: Response) -> None:
        self.response = response
        if response.api is not None:
            self._keep = response.keep_body(self._max_bytes)
        if response.exchange is not self.exchange:  # a processor answered with another call's, a child's say
            response.exchange.on_finish(lambda outcome: self.exchange.finish(outcome.end, outcome.error))

    def _board(self, shared: Shared) -> None:
        """Let all join who wait: here and now, before a byte is read, so that nobody comes too late."""
        self._shared = shared
        for seat, exchange in self._waiting.items():
            if not seat.done():
                seat.set_result(shared.join(exchange))
        shared.close()  # if all had left

    def _fail(self, error: ProxyError) -> None:
        for seat in self._waiting:
            if not seat.done():
                seat.set_exception(error)

    def _ended(self, outcome: Outcome) -> None:
        """Whoever abandons the exchange stops the call."""
        if outcome.end is End.ABANDONED and asyncio.current_task() is not self._task:
            self._task.cancel()  # of one that is over this does nothing
            self._fail(_stopped())  # here: a task that is cancelled before its first step tells nobody


def _stopped() -> InternalError:
    return InternalError("The shared call was stopped")
