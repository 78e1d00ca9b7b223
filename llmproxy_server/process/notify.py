"""What the service manager is told (sd_notify(3)): one datagram each, to the socket that it names."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmproxy_server.reload import Reloaded, Reloader

_MICRO = 1_000_000


class Notifier:
    """Tells the service manager how the process is. Without one, nothing; it never fails, and never waits."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog_s = _watchdog_s(environ) if self._address is not None else None
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False
        self._relieved = False

    @property
    def watchdog_s(self) -> float | None:
        """How long the process may be silent before it is restarted; None: nobody looks."""
        return self._watchdog_s

    def ready(self, status: str = "") -> None:
        """The ports are open, or a reload is over. From the first time on the watchdog is fed by the event loop."""
        if self._stopping:
            return  # a reload that nobody waits for any more
        self._send({"READY": "1", "STATUS": status})
        if self._watchdog_s is not None and self._timer is None:
            self._feed(self._watchdog_s / 2)

    def reloading(self) -> None:
        if not self._stopping:
            self._send({"RELOADING": "1", "MONOTONIC_USEC": str(time.monotonic_ns() // 1000)})

    def stopping(self) -> None:
        """The drain begins. The watchdog is fed on: the loop still turns."""
        if self._relieved:
            return
        self._stopping = True
        self._send({"STOPPING": "1", "STATUS": "draining"})

    def handed_over(self, pid: int) -> None:
        """The process *pid* is the service from now on. Whatever this one did besides say so would be about that."""
        if self._stopping:
            return
        self._send({"MAINPID": str(pid)})
        self._stopping = self._relieved = True
        self.close()

    def close(self) -> None:
        """The loop ends."""
        if self._timer is not None:
            self._timer.cancel()

    def _feed(self, period_s: float) -> None:
        self._send({"WATCHDOG": "1"})
        self._timer = asyncio.get_running_loop().call_later(period_s, self._feed, period_s)

    def _send(self, said: Mapping[str, str]) -> None:
        if self._address is None:
            return
        text = "\n".join(f"{name}={value}" for name, value in said.items() if value)
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto(text.encode(), self._address)


def _address(said: str) -> str | None:
    """A path, or, after "@", a name in the abstract namespace; None for anything else (a vsock say)."""
    if said.startswith("@"):
        return "\0" + said[1:]
    return said if said.startswith("/") else None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """How long we may be silent; None where nobody waits for us (sd_watchdog_enabled(3))."""
    said = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()) or not said.isdecimal() or not int(said):
        return None
    return int(said) / _MICRO


class Announced:
    """See Reloader: tells the service manager when a reload that somebody asked for begins and ends."""

    def __init__(self, reloader: Reloader, notifier: Notifier) -> None:
        self._reloader = reloader
        self._notifier = notifier

    async def reload(self, cause: str) -> Reloaded:
        self._notifier.reloading()
        try:
            return await self._reloader.reload(cause)
        finally:
            self._notifier.ready()

    def stop(self) -> None:
        self._reloader.stop()
