"""Starting a worker's process, and hearing of its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2) if sys.platform != "win32" else ()
"""Signals that a terminal or a service manager sends to all processes: what they mean is the parent's to say."""
_OF_THE_PARENT = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Process(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int: ...

    @property
    def ended(self) -> asyncio.Future[int]:
        """Its exit code, negative for a signal, once it has ended."""
        ...

    def kill(self) -> None:
        """End it at once, unless it has ended."""
        ...


Spawn = Callable[[int, Sequence[int]], Process]
"""Starts a worker, given its end of the channel, and the descriptors that it inherits with it. OSError: it cannot."""


class ChildProcess:
    """See Process. Waited for by a thread, which is there on every system and under every event loop."""

    def __init__(self, process: subprocess.Popen[bytes], *, name: str) -> None:
        """*name* is the thread's."""
        self._process = process
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        threading.Thread(target=self._wait, name=name, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _wait(self) -> None:
        code = self._process.wait()
        with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            self._loop.call_soon_threadsafe(self._is_over, code)

    def _is_over(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)

    def terminate(self) -> None:
        """Have it drain and end."""
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def spawn_worker(channel: int, descriptors: Sequence[int]) -> ChildProcess:
    """
    See Spawn: our own worker.

    Until it says otherwise the process hears no signal of HELD_BACK, so that a Ctrl-C while it starts is not lost
    calls for the others; and it knows nothing of the service manager.
    """
    env = {name: value for name, value in os.environ.items() if name not in _OF_THE_PARENT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "llmproxy_server.process.worker", str(channel)],
            pass_fds=[channel, *descriptors],
            stdin=subprocess.DEVNULL,
            env=env,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return ChildProcess(process, name=f"worker {process.pid}")
