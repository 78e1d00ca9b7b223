"""How many calls an LLM serves at once, over all of its keys, who waits for a place, and whether it takes any."""

from __future__ import annotations

import asyncio
from collections import deque

import attrs

from llmproxy_core.resilience.failure import Unavailable

FULL_S = 1.0
"""When to come again to an LLM that is full: nobody knows when one of its calls will end."""


@attrs.frozen
class Room:
    """*most* calls at a time, 0: no bound; what does not fit waits, *most_waiting* calls, *wait_s* seconds each."""

    most: int = 0
    most_waiting: int = 0
    wait_s: float = 1.0


class Places:
    """
    The calls of the LLM *name* that are in flight, as far as there is `room`; the others wait, the first first.

    `turn`, where there `is_queue`. Else, if there is no `refusal`, `enter`. Who has a place gives it back by `leave`.
    It outlives configurations: whoever is about to call sets the room that it was configured with.
    """

    __slots__ = ("_waiting", "drained", "in_flight", "name", "room")

    def __init__(self, name: str, room: Room) -> None:
        self.name = name
        self.room = room
        self.in_flight = 0
        self.drained = False
        """An operator has taken it out of service: what is under way ends, nothing new begins."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_queue(self) -> bool:
        """Whether a call that comes now must wait for its turn, and may."""
        return self._is_full and len(self._waiting) < self.room.most_waiting and not self.drained

    @property
    def _is_full(self) -> bool:
        return 0 < self.room.most <= self.in_flight + len(self._waiting)

    def refusal(self, *, holds: bool = False) -> Unavailable | None:
        """Why a call, which perhaps *holds* a place, cannot begin now; None where it can."""
        if self.drained:
            return Unavailable(f"The LLM '{self.name}' is out of service", code="llm_drained")
        if self._is_full and not holds:
            said = f"The LLM '{self.name}' serves as many calls as it may"
            return Unavailable(said, retry_after_s=FULL_S, code="llm_full")
        return None

    async def turn(self, most_s: float | None) -> bool:
        """Wait for a place, at most *most_s* seconds; whether there is one now, which is the caller's to `leave`."""
        turn, wait_s = asyncio.get_running_loop().create_future(), self.room.wait_s
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(wait_s if most_s is None else min(wait_s, most_s)):
                await turn
        except TimeoutError:
            pass  # unless it came in the same moment
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(turn)
            else:
                self.leave()
            raise
        if turn.cancelled():
            self._waiting.remove(turn)
        return not turn.cancelled()

    def enter(self) -> None:
        """Take a place without waiting."""
        self.in_flight += 1

    def leave(self) -> None:
        """Give the place back, or to who waits longest."""
        self.in_flight -= 1
        while self._waiting and (not self.room.most or self.in_flight < self.room.most):
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)
