"""An event loop in which waiting takes no time: where nothing is left to do, its clock leaps to what is due next."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

GRACE_S = 0.001
"""So long nothing must have come from a socket before the clock leaps: what was sent on loopback is there by then."""
_BEGINS_S = 1000.0  # not 0, which stands for "never" in places


class _Leaping(selectors.DefaultSelector):
    """Waits for sockets only; what would be a wait for a timer is added to *leapt_s* instead."""

    def __init__(self) -> None:
        super().__init__()
        self.leapt_s = 0.0
        self.threads = 0
        """Those that work for the loop: while one does, no time passes."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(min(timeout, GRACE_S))
        if not events and not self.threads:
            self.leapt_s += timeout
        return events


class LeapingLoop(asyncio.SelectorEventLoop):
    """
    Its time passes only while everything waits for a timer, and then at once: a silence of 300 s takes a millisecond.

    Only what takes part in the loop may be waited for: sockets whose both ends are served here, and threads of its
    executors. Work takes no time by this clock, so that what happens when does not depend on the machine.
    """

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return _BEGINS_S + self._leaping.leapt_s

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._leaping.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self._leaping.threads -= 1
