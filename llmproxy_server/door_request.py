"""The head of a request as it came in, whatever server read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from llmproxy_core.headers import Headers

if TYPE_CHECKING:
    from llmproxy_server.call import Call


class ClientGone(Exception):
    """The client's connection is lost: nobody is there to be answered."""


class Incoming:
    """
    The head of a request. Made per call.

    *target* is the request target as it stands on the wire, with the query; *peer* the address of the other end of
    the connection; *secure* says that it came over TLS. Header values are text of one character a byte (Latin-1), so
    that any bytes can be looked at, compared and logged.
    """

    __slots__ = ("headers", "method", "path", "peer", "query", "secure", "target", "version")

    def __init__(
        self, method: str, target: str, version: tuple[int, int], headers: Headers, *, peer: str, secure: bool
    ) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.peer = peer
        self.secure = secure
        self.path, _, self.query = target.partition("?")

    @property
    def has_body(self) -> bool:
        """Whether a body is announced (RFC 9112 section 6.3)."""
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0"


def fields(raw: Sequence[tuple[bytes, bytes]]) -> Headers:
    """Header fields from their bytes."""
    return Headers([(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw])


class BodySource(Protocol):
    """The body of a request as it arrives."""

    @property
    def complete(self) -> bool:
        """Whether all of it is here already."""
        ...

    async def read(self) -> bytes:
        """What has come; b"" at the end. BadRequest when it is malformed, ClientGone when it will not come."""
        ...

    def fail(self, error: Exception) -> None:
        """Have the reader, now or next time, raise *error*."""
        ...


class Client(Protocol):
    """The way back to a client, over whatever server holds the connection."""

    @property
    def pushes(self) -> bool:
        """Whether an answer may go on when nothing of its call runs: it then tells the call to hold and to go on."""
        ...

    def over(self, call: Call) -> None:
        """Told once, when *call* has been answered as far as it ever will be."""
        ...

    def write(self, *data: bytes) -> None:
        """Send *data*, as one write where they are small. ClientGone when the connection is lost."""
        ...

    @property
    def blocked(self) -> bool:
        """Whether the client does not take what was written, so that `drain` would wait."""
        ...

    async def drain(self) -> None:
        """Wait until the client has taken enough for more to be written. ClientGone when it is lost meanwhile."""
        ...
