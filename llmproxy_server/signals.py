"""Signals: whom they call, and the two meanings of SIGHUP."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class _Waits:
    """Remembers that a signal came before anybody handled it."""

    came = False

    def __call__(self, *_: object) -> None:
        self.came = True


class Terminated(KeyboardInterrupt):
    """SIGTERM, while the process starts. No Exception, and no SystemExit: nobody who plugins in takes it for a bug."""


def hear() -> None:
    """
    From now on SIGHUP and SIGUSR2 wait until they are `handled`, and SIGTERM raises Terminated.

    A process that starts would end by the first two; the third is ignored where nobody handles it, in a container. What
    is ignored stays so.
    """
    for name in ("SIGHUP", "SIGUSR2"):
        if (number := getattr(signal, name, None)) is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _Waits())
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)


def _terminated(*_: object) -> None:
    raise Terminated


@contextmanager
def handled(handlers: Mapping[int, Callable[[], object]]) -> Iterator[None]:
    """
    Inside, each of these signals calls its handler, in the running event loop; so does one that waits for it.

    Behind it, those that were heard before are of no use any more: the process ends, and is to end in order.
    """
    loop = asyncio.get_running_loop()
    before: dict[int, object] = {}
    heard: list[int] = []
    for number, handler in handlers.items():
        early = signal.getsignal(number)
        if isinstance(early, _Waits) or early is _terminated:
            heard.append(number)
        try:
            loop.add_signal_handler(number, handler)
        except NotImplementedError:  # pragma: no cover - Windows
            before[number] = signal.signal(number, lambda *_, it=handler: loop.call_soon_threadsafe(it))
        if isinstance(early, _Waits) and early.came:
            loop.call_soon(handler)
    try:
        yield
    finally:
        for number in handlers:
            if number in before:  # pragma: no cover - Windows
                signal.signal(number, before[number])  # type: ignore[arg-type]
            else:
                loop.remove_signal_handler(number)
            if number in heard:
                signal.signal(number, signal.SIG_IGN)


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
