"""Signals: whom they call, and the two meanings of SIGHUP."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def handled(handlers: Mapping[int, Callable[[], object]]) -> Iterator[None]:
    """Inside, each of these signals calls its handler, in the running event loop."""
    loop = asyncio.get_running_loop()
    before: dict[int, object] = {}
    for number, handler in handlers.items():
        try:
            loop.add_signal_handler(number, handler)
        except NotImplementedError:  # pragma: no cover - Windows
            before[number] = signal.signal(number, lambda *_, it=handler: loop.call_soon_threadsafe(it))
    try:
        yield
    finally:
        for number in handlers:
            if number in before:  # pragma: no cover - Windows
                signal.signal(number, before[number])  # type: ignore[arg-type]
            else:
                loop.remove_signal_handler(number)


class HangUp:
    """
    Called for each SIGHUP: reloads, but ends a process whose terminal was closed, as it would without us.

    One that was started to outlive its terminal (`nohup`, which has the signal ignored) never ends by it.
    """

    def __init__(self, end: Callable[[], object], reload: Callable[[], object]) -> None:
        self._end = end
        self._reload = reload
        self._lives_by_terminal = has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def __call__(self) -> None:
        if self._lives_by_terminal and not has_terminal():
            self._end()
        else:
            self._reload()


def has_terminal() -> bool:
    """Whether the process has a terminal that controls it (termios(3), "The controlling terminal")."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
