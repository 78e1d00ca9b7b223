"""The head of a request as it came in, whatever server read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from llmproxy_core.headers import Headers
from llmproxy_core.node import record

if TYPE_CHECKING:
    from llmproxy_core.routing import Match


class ClientGone(Exception):
    """The client's connection is lost: nobody is there to be answered."""


CHUNKED = -1
"""As a length: that of a body whose length is told as it comes."""


@record(eq=False, repr=False)
class Incoming:
    """
    The head of a request. Made per call.

    *target* is the request target as it stands on the wire, with the query; *peer* the address of the other end of
    the connection; *secure* says that it came over TLS. Header values are text of one character a byte (Latin-1), so
    that any bytes can be looked at, compared and logged. *length* is that of the body in bytes, 0 for none, or
    `CHUNKED`; *keep_alive* says whether the client wants the connection kept.
    """

    method: str
    target: str
    path: str
    """Of the target."""
    query: str
    version: tuple[int, int]
    headers: Headers
    peer: str
    secure: bool
    length: int = 0
    keep_alive: bool = True
    usual: Match | None = None
    """What it asks of the routes, once a door has found it in order: for whoever gets the same head again."""


class BodySource(Protocol):
    """The body of a request as it arrives."""

    @property
    def complete(self) -> bool:
        """Whether all of it is here already."""
        ...

    def take(self) -> bytes:
        """What has come, without waiting: all the rest of one that is complete."""
        ...

    async def more(self) -> int:
        """
        Wait until there is something to take that was not told of before; how many bytes, 0 at the end.

        BadRequest when it is malformed, ClientGone when it will not come.
        """
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

    def over(self) -> None:
        """Told once, when its call has been answered as far as it ever will be."""
        ...

    def write(self, data: bytes, more: bytes = b"", /) -> None:
        """Send *data* and *more*, as one write where they are small. ClientGone when the connection is lost."""
        ...

    def pass_on(self, data: bytes) -> None:
        """Send *data*, if the connection is not lost."""
        ...

    @property
    def blocked(self) -> bool:
        """Whether the client does not take what was written, so that `drain` would wait."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """How much of what was written the client has not taken, as far as is known here."""
        ...

    async def drain(self) -> None:
        """Wait until the client has taken enough for more to be written. ClientGone when it is lost meanwhile."""
        ...

    def abort(self) -> None:
        """Cut the connection: the client gets no more, and the call is told that it has left."""
        ...
