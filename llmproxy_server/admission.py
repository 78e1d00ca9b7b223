"""How much is served at once: calls in flight, and the bytes of their request bodies."""

from __future__ import annotations

from typing import Self

import attrs

from llmproxy_core.config import ServerConfig
from llmproxy_core.errors import Overloaded
from llmproxy_core.node import record

RETRY_AFTER_S = 1.0


class Admission:
    """Lets calls in while there is room. One event loop; nothing here waits, what does not fit is refused."""

    def __init__(self, *, max_in_flight: int, max_buffered_bytes: int) -> None:
        """*max_in_flight*: 0 for no bound."""
        self.in_flight = 0
        self.buffered_bytes = 0
        self._max_in_flight = max_in_flight
        self._max_buffered_bytes = max_buffered_bytes

    @classmethod
    def of(cls, server: ServerConfig) -> Self:
        return cls(max_in_flight=server.max_in_flight, max_buffered_bytes=server.max_buffered_bytes)

    def follow(self, server: ServerConfig) -> None:
        """The bounds of *server* from now on. Who is inside stays, also where there are more than that now."""
        self._max_in_flight = server.max_in_flight
        self._max_buffered_bytes = server.max_buffered_bytes

    def enter(self) -> Ticket:
        """A place, until `Ticket.leave`. Overloaded when there is none."""
        if self._max_in_flight and self.in_flight >= self._max_in_flight:
            raise Overloaded("Too many calls are being served; try again soon", retry_after_s=RETRY_AFTER_S)
        self.in_flight += 1
        return Ticket(self)

    def check(self, size: int) -> None:
        if self.buffered_bytes + size > self._max_buffered_bytes:
            raise Overloaded("Too many request bodies are held; try again soon", retry_after_s=RETRY_AFTER_S)


@record(eq=False, repr=False)
class Ticket:
    """The place of one call."""

    _admission: Admission
    _held: int = attrs.field(init=False, default=0)
    _inside: bool = attrs.field(init=False, default=True)

    def check(self, size: int) -> None:
        """Overloaded when *size* more bytes do not fit now. Nothing is held: who announces much need not send it."""
        self._admission.check(size)

    def reserve(self, size: int) -> None:
        """Hold *size* more bytes until `leave`. Overloaded when they do not fit."""
        self._admission.check(size)
        self._admission.buffered_bytes += size
        self._held += size

    def leave(self) -> None:
        """Give everything back. May be called again."""
        if self._inside:
            self._inside = False
            self._admission.in_flight -= 1
            self._admission.buffered_bytes -= self._held
