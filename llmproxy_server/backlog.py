"""
Calls that are over, and not written down yet.

They wait a moment for others: what runs for one call behind the other takes half the time that it takes
between two of them, and by then their clients have their answers.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from llmproxy_core.errors import raise_unless_bug

_log = logging.getLogger("llmproxy")
WAIT_S = 0.02
"""How long the first one waits for others."""
MOST = 64
"""Then what else the loop has to do has its turn."""
SMALL_BYTES = 1 << 14
"""A call that holds more is not kept waiting: its memory is counted as free."""


class Over(Protocol):
    """A call that is over."""

    def write(self) -> None:
        """Write down what is not written down yet."""
        ...


class Backlog:
    """One for a process. Who shows what was written down calls `write` first."""

    __slots__ = ("_over", "_timer")

    def __init__(self) -> None:
        self._over: list[Over] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, over: Over, size: int = 0) -> None:
        """*over* is to be written down; it holds *size* bytes, or nobody knows how many (-1)."""
        waiting = self._over
        waiting.append(over)
        if self._timer is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:  # it is ended by somebody outside
                self.write()
                return
            self._timer = loop.call_later(WAIT_S, self.write)
        if len(waiting) >= MOST or not 0 <= size <= SMALL_BYTES:
            self.write()

    def write(self) -> None:
        """Write down all that is over by now. What one of them raises is logged."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        waiting, self._over = self._over, []
        for over in waiting:
            try:
                over.write()
            except BaseException as bug:  # noqa: BLE001 - one call's end must not lose the others', which wait behind it
                raise_unless_bug(bug)
                _log.exception("a call could not be written down")
