"""Sums within windows, in this process."""

from __future__ import annotations

from collections.abc import Callable

from llmproxy_core.memory_windows import CurrentPeriods
from llmproxy_core.stores import Count, Window


class MemoryCounter:
    """
    A Counter of one process. No method suspends, so on an event loop each is atomic.

    Sums of past windows are dropped. When the clock goes back, the latest window seen stays the current one.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._periods: CurrentPeriods[int] = CurrentPeriods()

    async def add(self, key: str, amount: int, window: Window) -> Count:
        period = self._periods.at(self._now(), window)
        value = period.held.get(key, 0) + amount
        if value:
            period.held[key] = value
        else:
            period.held.pop(key, None)  # absent is 0: what is only read leaves nothing behind
        return Count(value, period.resets_at)
