"""What every client connection does with its socket, whoever reads it: how it parts, and how long it waits."""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable

from llmproxy_server.pace import behind

SMALL_BYTES = 1 << 16
"""What is worth a copy to save a system call."""
LINGER_S = 1.0
"""How long a client may take to read our last answer before we close."""


def part(
    transport: asyncio.Transport | None, resume: Callable[[], None], loop: asyncio.AbstractEventLoop
) -> asyncio.TimerHandle | None:
    """
    Say that no more requests are taken; close when the client has, or a moment later: the timer of that.

    To close at once could cost the client what it has not read: whatever it sends then is answered by a reset. It is
    read on, so that we hear of its end: *resume* sees to that.
    """
    if transport is None or transport.is_closing():
        return None
    if not transport.can_write_eof():  # TLS has no half of a connection
        transport.close()
        return None
    try:
        transport.write_eof()
    except OSError:  # reset by the client, of which we are about to hear
        transport.close()
        return None
    resume()
    return loop.call_later(LINGER_S, transport.close)


def has_left(transport: asyncio.Transport) -> bool:
    """Whether the client has closed its end: nothing tells us of it while we do not read."""
    return _holds(transport, "POLLRDHUP")


def has_unread(transport: asyncio.Transport) -> bool:
    """
    Whether something of the client's has come that is not read yet.

    Who is late looks at the time before it reads: a request came in time then, and to close would reset it.
    """
    return _holds(transport, "POLLIN")


def _holds(transport: asyncio.Transport, event: str) -> bool:
    """Whether *event* is true of the socket now; False where nobody can tell."""
    if sys.platform == "win32":  # pragma: no cover - it has no poll
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), getattr(select, event, 0))
    return bool(poll.poll(0))


class Stall:
    """How far a client is behind with taking what was written."""

    __slots__ = ("_behind_s", "_bytes", "_since_s")

    def __init__(self) -> None:
        self._behind_s = 0.0
        self._bytes = 0
        self._since_s: float | None = None

    def over(self) -> None:
        """It has taken what was written, or so much of it that more is."""
        self._since_s = None

    def check(self, transport: asyncio.Transport, now: float, most_s: float, min_bytes_per_s: int) -> None:
        """Something waits to be taken: cut the client when it is more than *most_s* behind that rate."""
        size = transport.get_write_buffer_size()
        if self._since_s is None:
            self._behind_s = 0.0
        else:
            took = max(self._bytes - size, 0)
            self._behind_s = behind(self._behind_s, now - self._since_s, took, min_bytes_per_s)
        self._bytes, self._since_s = size, now
        if self._behind_s > most_s:
            transport.abort()
