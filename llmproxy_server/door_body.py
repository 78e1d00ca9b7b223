"""Bodies of requests: which are let in, and how much of them is held."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import BadRequest, PayloadTooLarge, RequestRejected, UnsupportedMediaType
from llmproxy_core.headers import Headers
from llmproxy_core.routing import Match
from llmproxy_server.admission import Ticket
from llmproxy_server.door_request import BodySource, Incoming
from llmproxy_server.pace import behind

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)


def check_json(headers: Headers) -> None:
    """UnsupportedMediaType unless the body is JSON in UTF-8."""
    values = headers.get_all("content-type")
    if values == ["application/json"]:
        return
    if len(values) != 1 or values[0].partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("Send the body as Content-Type: application/json")
    if any(charset.lower() not in ("utf-8", "utf8") for charset in _CHARSET.findall(values[0])):
        raise UnsupportedMediaType("JSON is UTF-8 (RFC 8259 section 8.1): send no other charset")


def check_coding(headers: Headers) -> None:
    """UnsupportedMediaType for a compressed body: unpacking what a stranger packed has no bound."""
    for value in headers.get_all("content-encoding"):
        if value.strip().lower() not in ("", "identity"):
            raise UnsupportedMediaType("Send the body without a Content-Encoding")


def check_body(match: Match, incoming: Incoming) -> None:
    """Refuse a body that the operation of *match* does not take, before it is read."""
    if match.operation is Operation.OPAQUE:
        return
    check_coding(incoming.headers)
    if match.api is not None and match.api.has_body:
        check_json(incoming.headers)
    elif incoming.length:
        raise BadRequest("This operation takes no body")


def check_length(declared: int, max_bytes: int | None) -> None:
    """PayloadTooLarge when a length is announced that is over the bound; CHUNKED announces none."""
    if max_bytes is not None and declared > max_bytes:
        raise too_large(max_bytes)


def too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is longer than the {max_bytes} bytes that are accepted here (max_body_bytes)")


def taken(source: BodySource, max_bytes: int | None, ticket: Ticket) -> bytes:
    """A body that is complete, as `BodyReader.whole`; None: it may be as long as it is."""
    data = source.take()
    size = len(data)
    if max_bytes is not None and size > max_bytes:
        raise too_large(max_bytes)
    ticket.reserve(size)
    return data


class BodyTimeout(RequestRejected):
    """The client took too long to send its body."""

    status = 408
    code = "request_timeout"


class BodyClock:
    """
    How long a client keeps us waiting for its body.

    Only time in which we wait for the client counts: an upload that an upstream holds back is not the client's fault.
    """

    __slots__ = ("_behind_s", "_min_bytes_per_s", "_since", "_timeout_s")

    def __init__(self, timeout_s: float, min_bytes_per_s: int) -> None:
        """*timeout_s*: how far a client may be behind that rate; 0: it may send nothing for so long."""
        self._timeout_s = timeout_s
        self._min_bytes_per_s = min_bytes_per_s
        self._behind_s = 0.0
        self._since: float | None = None

    def wait(self, now: float) -> None:
        self._since = now

    def got(self, size: int, now: float) -> None:
        """The wait is over: *size* bytes came, or none will."""
        waited_s = 0.0 if self._since is None else now - self._since
        self._since = None
        self._behind_s = behind(self._behind_s, waited_s, size, self._min_bytes_per_s)

    def expired(self, now: float) -> bool:
        return self._since is not None and self._behind_s + now - self._since > self._timeout_s


class BodyReader:
    """Reads one body, bounded in length and in time."""

    __slots__ = ("_begin", "_clock", "_now", "_source")

    def __init__(
        self, source: BodySource, clock: BodyClock, now: Callable[[], float], begin: Callable[[], None] | None
    ) -> None:
        """*begin* is called before the first wait: it tells a client that waits for it to go on (`100 Continue`)."""
        self._source = source
        self._clock = clock
        self._now = now
        self._begin = begin

    def tick(self, now: float) -> None:
        """Called now and then: ends a wait that took too long."""
        if self._clock.expired(now):
            self._source.fail(BodyTimeout("The body came too slowly (body_timeout_s, body_min_bytes_per_s)"))

    async def read(self) -> bytes:
        """What has come; b"" at the end."""
        if not self._source.complete:
            await self._more()
        return self._source.take()

    async def _more(self) -> int:
        if self._begin is not None:
            self._begin()
            self._begin = None
        self._clock.wait(self._now())
        size = 0
        try:
            size = await self._source.more()
        finally:
            self._clock.got(size, self._now())
        return size

    async def whole(self, declared: int, max_bytes: int, ticket: Ticket) -> bytes:
        """All of it, paid for with *ticket* as it comes; PayloadTooLarge when it is longer than *max_bytes*."""
        check_length(declared, max_bytes)
        ticket.check(declared)
        if self._source.complete:
            return taken(self._source, max_bytes, ticket)
        size = 0
        while more := await self._more():
            size += more
            if size > max_bytes:
                raise too_large(max_bytes)
            ticket.reserve(more)
            if size == declared:
                break
        return self._source.take()

    async def short(self) -> bytes:
        """All of one that says that it is short: nobody pays for it."""
        pieces: list[bytes] = []
        while data := await self.read():
            pieces.append(data)
        return b"".join(pieces)

    def pieces(self, max_bytes: int | None) -> AsyncIterator[bytes]:
        """Piece by piece, none of it held; PayloadTooLarge from the piece that is over *max_bytes*."""
        return _Pieces(self, max_bytes)


class _Pieces:
    """A body as an iterator. Not a generator: who stops early leaves nothing to be closed."""

    __slots__ = ("_max_bytes", "_reader", "_size")

    def __init__(self, reader: BodyReader, max_bytes: int | None) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._size = 0

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        if not (data := await self._reader.read()):
            raise StopAsyncIteration
        self._size += len(data)
        if self._max_bytes is not None and self._size > self._max_bytes:
            raise too_large(self._max_bytes)
        return data
