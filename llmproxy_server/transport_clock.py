"""The clocks of calls: one timer for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from math import inf
from typing import Generic, Protocol, TypeVar

GRAIN_S = 0.05
"""How often the calls are looked at, at most; so a wait may end that much late."""


class Timed(Protocol):
    """What must be over in time."""

    def check(self, now: float) -> float:
        """End what should have ended by *now*; say when to look again (inf: no need to)."""
        ...


T = TypeVar("T", bound=Timed)


class UnderWay(Generic[T]):
    """
    The calls that are under way.

    A timer for each would cost more than all else that a clock does. The one there is rings when the first of the
    waits that it was told of must end. Most are long over then: it looks what goes on, and rings again for the first
    of that.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        calls: set[T] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """
        *calls*: a set that somebody else keeps, of which some may have no end; else who is under way is added.

        *clock*: by which all waits are told; the loop's own where it is not given.
        """
        self.loop = loop
        self._clock = loop.time if clock is None else clock
        self.at = inf
        """When the calls are looked at next: who waits for longer need not tell."""
        self._calls: set[T] = set() if calls is None else calls
        self.add, self.discard = self._calls.add, self._calls.discard  # functions of C: no frame for either
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._calls))

    def look_by(self, due: float) -> None:
        """Have a call checked at *due*, by the clock, at the latest."""
        if due < self.at:
            self.stop()
            self.at = due
            self._timer = self.loop.call_later(max(due - self._clock(), 0.0), self._ring)

    def stop(self) -> None:
        """Ring no more, unless told of another wait."""
        self.at = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        now = self.at  # not the time of now: a loop may ring a little early, by the resolution of its clock
        self.at, self._timer = inf, None
        nearest = min([call.check(now) for call in self], default=inf)
        self.look_by(max(nearest, now + GRAIN_S) if nearest < inf else inf)
