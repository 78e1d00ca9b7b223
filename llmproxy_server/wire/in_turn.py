"""Work that others must not wait for: a little of it in each turn of the event loop, however much there is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class InTurn:
    """Does one of the things that wait in each turn of the loop, first come, first served."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, work: Callable[[], None]) -> None:
        """Do *work* when it is its turn, in a later turn of the loop. Whoever has more of it adds it again."""
        self._waiting.append(work)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        work = self._waiting[0]
        try:
            work()
        finally:
            self._waiting.popleft()  # only now: what it adds waits for the next turn
            if self._waiting:
                self._loop.call_soon(self._next)
