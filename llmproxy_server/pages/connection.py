"""
A client connection over aiohttp's server, with what that lacks: a time-out of clients that do not read, and errors of
its own in our form.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from llmproxy_core.errors import InternalError, ProxyError
from llmproxy_server.client_socket import Stall, has_left, part
from llmproxy_server.door_request import CHUNKED, Incoming
from llmproxy_server.log_events import get_logger
from llmproxy_server.transport_request import LAST_CHUNK
from llmproxy_server.wire.chunked import ChunkReader
from llmproxy_server.wire.connection import MOST_KEPT_BYTES
from llmproxy_server.wire.request_head import malformed, too_much_head
from llmproxy_server.wire_head import chunk

if TYPE_CHECKING:
    from llmproxy_server.edge import Edge, TakeBack

_log = get_logger()

_NEVER_S = 10.0**8  # aiohttp's own idle time-out, which knows nothing of writes


class Written(web.StreamResponse):
    """What aiohttp is given when the answer has been written already; it says whether the connection is kept."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self._keep = keep

    @property
    def keep_alive(self) -> bool | None:
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing to do."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing to do."""


KEEP, CLOSE = Written(keep=True), Written(keep=False)


class PageConnection(RequestHandler):
    """
    A client connection while a page is asked for on it.

    aiohttp sees that request alone, which the wire has checked, its body framed anew. What comes behind it is kept, and
    is the wire's again with the connection, once the page is shown: unless the connection ends with that, or the page
    has made a WebSocket of it.
    """

    __slots__ = (
        "_back",
        "_body",
        "_chunks",
        "_edge",
        "_held_back",
        "_is_malformed",
        "_keeps",
        "_left",
        "_lingering",
        "_parted",
        "_rest",
        "_stall",
        "_taken",
        "address",
        "socket",
    )

    call = None
    """None is ever served here."""

    def __init__(self, manager: web.Server, edge: Edge, incoming: Incoming, back: TakeBack) -> None:
        """*incoming* asks for the page; *back* is told when the connection is free again."""
        config = edge.door.shared.config
        super().__init__(
            manager,
            loop=edge.loop,
            keepalive_timeout=_NEVER_S,
            access_log=None,  # type: ignore[arg-type] # aiohttp's own word for none
            max_line_size=config.max_header_bytes,
            max_field_size=config.max_header_bytes,
            max_headers=config.max_header_count,
            lingering_time=0,
            auto_decompress=False,
        )
        self._edge = edge
        self._back = back
        self._keeps = incoming.keep_alive
        self._chunks = ChunkReader() if incoming.length == CHUNKED else None
        self._body: StreamReader
        """As the page reads it."""
        self._left = max(incoming.length, 0)
        """Bytes of a body that is not in chunks."""
        self._rest = b""
        self._held_back = False
        self._is_malformed = False
        """Whether what came is no body in chunks; then the rest is not looked at."""
        self._taken = False
        self._parted = False
        self._stall = Stall()
        self._lingering: asyncio.TimerHandle | None = None
        self.address = incoming.peer
        self.socket: asyncio.Transport | None = None
        """The transport, also when aiohttp has let go of it and it is closing."""

    @property
    def unsent_bytes(self) -> int:
        return 0 if self.socket is None else self.socket.get_write_buffer_size()

    # -- the connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.socket = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of asyncio's
        self._edge.opened(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        self.socket = None
        self._edge.closed(self)
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client sends nothing more: it is taken as gone, since few mean anything else by it."""
        if not self._parted and self.socket is not None:
            self.socket.abort()

    # -- what comes ----------------------------------------------------------------------------------------------

    def ask(self, head: bytes, more: bytes) -> None:
        """The request has come: *head*, checked, and *more* behind it."""
        super().data_received(head)
        self._body = self._messages[-1][1]
        if more:
            self.data_received(more)

    def data_received(self, data: bytes) -> None:
        if not data or self._payload_parser is not None:  # aiohttp's own call, to have kept bytes parsed; a WebSocket
            super().data_received(data)
        elif self._parted or self._is_malformed:
            return
        elif self._chunks is not None:
            self._feed(self._chunks, data)
        else:
            end = min(self._left, len(data))
            self._left -= end
            if end:
                super().data_received(data[:end])
            self._keep(data[end:])

    def _feed(self, chunks: ChunkReader, data: bytes) -> None:
        if chunks.ended:
            self._keep(data)
            return
        pieces: list[bytes] = []
        try:
            while data and not chunks.ended:
                data = data[chunks.feed(data, pieces) :]
        except ProxyError as error:
            self._is_malformed = True
            self._body.set_exception(error)
            return
        super().data_received(b"".join(map(chunk, pieces)) + (LAST_CHUNK if chunks.ended else b""))
        self._keep(data)

    def _keep(self, data: bytes) -> None:
        """What follows the request waits until it is answered, and the client with what is too much."""
        self._rest += data
        if len(self._rest) > MOST_KEPT_BYTES and not self._held_back and self.socket is not None:
            self._held_back = True
            self.socket.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp asks for it after each read of a body, and would parse nothing and resume what was not paused."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    # -- what is shown -------------------------------------------------------------------------------------------

    def take(self) -> bool:
        """Whether the request that aiohttp has read is the one for the page: there is no other one."""
        was_taken, self._taken = self._taken, True
        return not was_taken

    def shown(self, *, keep: bool) -> web.StreamResponse:
        """The answer is written, and the page would *keep* the connection; gives what aiohttp is told."""
        is_whole = not self._left and (self._chunks is None or self._chunks.ended)
        if not (keep and self._keeps and is_whole) or self._edge.door.shared.life.draining:
            self.part()
            return CLOSE
        self._loop.call_soon(self._give_back)  # from outside of what aiohttp runs
        return KEEP

    def _give_back(self) -> None:
        transport = self.socket
        if transport is None or transport.is_closing():
            return
        is_held_back = self._held_back or self._reading_paused or self._buffer_paused
        blocked, self.transport = self._paused, None  # aiohttp would close it
        self.connection_lost(None)
        if is_held_back:
            transport.resume_reading()
        self._back(transport, self._rest, blocked)

    def part(self) -> None:
        """Take no more requests, and say so; close when the client has, or a moment later."""
        self._parted = True
        self._force_close = True  # of aiohttp's: nothing that comes is looked at, and the transport is left to us
        if self._waiter is not None:
            self._waiter.cancel()
        self._lingering = part(self.socket, self._resume_transport_reading, self._loop) or self._lingering

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.over()

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Called now and then: end what took too long. *now* is of the loop's clock."""
        transport = self.socket
        if transport is None:
            return
        if (self._held_back or self._reading_paused or self._buffer_paused) and has_left(transport):
            transport.abort()
        elif self._paused or (transport.is_closing() and transport.get_write_buffer_size()):
            server = self._edge.door.shared.config
            self._stall.check(transport, now, server.write_timeout_s, server.write_min_bytes_per_s)
        else:
            self._stall.over()

    def close(self) -> None:
        """Close once what was written has reached the client."""
        if self.socket is not None:
            self.socket.close()

    def abort(self) -> None:
        """Close now."""
        if self.socket is not None:
            self.socket.abort()

    def retire(self) -> None:
        """It closes when the page is shown."""

    # -- errors of aiohttp's -------------------------------------------------------------------------------------

    def refuse(self, error: ProxyError) -> None:
        """Answer what is no request, and close."""
        if self.socket is not None and not self.socket.is_closing():
            self.socket.writelines(self._edge.refusal(error, self.address))
        self.part()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused, without a word of what it was; a body that is none; a bug of the page."""
        error: ProxyError
        if status >= 500 and not isinstance(exc, ProxyError):
            error = InternalError("The page could not be shown; the log says why")
            if exc is not None:
                broke(exc)
        else:
            if exc is not None:
                exc.__traceback__ = None  # its frames hold us, and we hold it
            found = too_much_head() if isinstance(exc, LineTooLong) else malformed()
            error = exc if isinstance(exc, ProxyError) else found
        if self._parted or request.writer.output_size:  # something else was told before
            self.part()
        else:
            self.refuse(error)
        return CLOSE

    def log_exception(self, *args: object, **kw: object) -> None:
        """aiohttp would log a traceback for whatever a stranger sends; ours are logged where they are known."""
        exc = kw.get("exc_info")
        if isinstance(exc, BaseException):
            broke(exc)


def broke(error: BaseException) -> None:
    """Something failed that should not have, outside of any call."""
    _log.error("a client connection failed", exc_info=error)
