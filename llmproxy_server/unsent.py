"""Whole answers that were written and that their clients have yet to take: how much of them may be held."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs

from llmproxy_server.door_request import Client

USUAL_BYTES_PER_S = 1 << 16
"""Who takes less than that is the first to be cut."""


@attrs.define(eq=False)
class _Waiting:
    """An answer that *client* has not taken."""

    client: Client
    size: int
    since_s: float
    held: int
    """How much of it there was when it was last looked at."""

    def late_s(self, now: float) -> float:
        """How much longer it has been waited for than one waits for a usual client."""
        return now - self.since_s - (self.size - self.held) / USUAL_BYTES_PER_S


class Unsent:
    """
    The whole answers that wait for their clients, those that are longer than a socket takes at once. One event loop.

    An answer is paid for when it is here, so none is refused for want of room: who takes its own most slowly is cut.
    """

    def __init__(self, most_bytes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most_bytes = most_bytes
        """Held at once. A single answer may be longer: it is held while there is no other."""
        self._clock = clock
        self._waiting: set[_Waiting] = set()
        self._at_most = 0  # bytes of all, as far as was looked at: clients take them all the time

    @property
    def bytes(self) -> int:
        """What is held now."""
        return sum(it.client.unsent_bytes for it in self._waiting)

    async def taken(self, client: Client) -> None:
        """Wait until *client* has taken what was written to it; ClientGone when it is lost, or was cut."""
        size = client.unsent_bytes
        waiting = _Waiting(client, size, self._clock(), size)
        self._waiting.add(waiting)
        self._at_most += size
        if self._at_most > self.most_bytes:
            self._make_room(waiting)
        try:
            await client.drain()
        finally:
            self._let_go(waiting)

    def _let_go(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:  # else it was cut
            self._waiting.discard(waiting)
            self._at_most -= waiting.held

    def _make_room(self, last: _Waiting) -> None:
        """Cut the slowest until the rest fits; not *last*, of which nobody knows yet."""
        for it in self._waiting:
            it.held = it.client.unsent_bytes
        self._at_most = sum(it.held for it in self._waiting)
        now = self._clock()
        slowest_last = sorted(self._waiting - {last}, key=lambda it: it.late_s(now))
        while self._at_most > self.most_bytes and slowest_last:
            slowest = slowest_last.pop()
            self._let_go(slowest)
            slowest.client.abort()
