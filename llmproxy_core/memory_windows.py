"""What is kept for the current window of each kind, and forgotten with it."""

from __future__ import annotations

from typing import Generic, TypeVar

from llmproxy_core.stores import Window

V = TypeVar("V")


class Period(Generic[V]):
    """One calendar window, and what is held under its keys. *resets_at*: seconds since the epoch; None for `total`."""

    __slots__ = ("held", "resets_at")

    def __init__(self, resets_at: float | None) -> None:
        self.resets_at = resets_at
        self.held: dict[str, V] = {}


class CurrentPeriods(Generic[V]):
    """
    The current period of each kind of window; a past one is dropped with all that it holds.

    The latest one seen stays the current one when the clock goes back: no window is ever opened again.
    """

    def __init__(self) -> None:
        self._current: dict[Window, Period[V]] = {}

    def at(self, now: float, window: Window) -> Period[V]:
        """The period of *window* that *now* (seconds since the epoch) is in, or the latest one seen."""
        period = self._current.get(window)
        if period is None or (period.resets_at is not None and now >= period.resets_at):
            period = self._current[window] = Period(window.bounds(now)[1])
        return period

    def forget(self, window: Window, key: str, value: V) -> None:
        """Hold *value* no longer; nothing happens when its period is past."""
        period = self._current.get(window)
        if period is not None and period.held.get(key) is value:
            del period.held[key]
