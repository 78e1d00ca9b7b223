"""
A client connection over aiohttp's server, with what that lacks: time-outs of heads, of idle clients, of clients that do
not read, and errors of its own in our form.

The bytes of answers are written here, not by aiohttp: it would add fields of its own, and always end a stream well.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from llmproxy_core.errors import ProxyError
from llmproxy_server.call import Call
from llmproxy_server.client_socket import SMALL_BYTES, Stall, has_left, has_unread, part
from llmproxy_server.door_body import BodyTimeout
from llmproxy_server.door_request import ClientGone, Incoming
from llmproxy_server.log_events import get_logger
from llmproxy_server.wire.chunked import malformed_body
from llmproxy_server.wire.request_head import malformed, too_much_head

if TYPE_CHECKING:
    from llmproxy_server.edge import Edge

_log = get_logger()

_NEVER_S = 10.0**8  # aiohttp's own idle time-out, which knows neither heads nor writes; ours come first


class Phase(Enum):
    """What the connection waits for."""

    HEAD = "head"
    IDLE = "idle"
    BUSY = "busy"
    PARTED = "parted"


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
    """A client connection. It is the `Client` of the calls that come over it."""

    __slots__ = (
        "_begun",
        "_broken",
        "_edge",
        "_got_bytes",
        "_head_bytes",
        "_lingering",
        "_phase",
        "_since_s",
        "_stall",
        "address",
        "call",
        "incoming",
        "is_secure",
        "socket",
    )

    pushes = False

    def __init__(self, manager: web.Server, edge: Edge, *, loop: asyncio.AbstractEventLoop) -> None:
        config = edge.door.shared.config
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=_NEVER_S,
            access_log=None,  # type: ignore[arg-type] # aiohttp's own word for none
            max_line_size=config.max_header_bytes,
            max_field_size=config.max_header_bytes,
            max_headers=config.max_header_count,
            lingering_time=0,
            auto_decompress=False,
        )
        self._edge = edge
        self._broken = False
        self._begun = 0  # calls, of the requests that aiohttp has counted
        self._phase = Phase.HEAD
        self._since_s = loop.time()
        self._head_bytes = 0
        self._got_bytes = False
        self._stall = Stall()
        self._lingering: asyncio.TimerHandle | None = None
        self.address = ""
        self.is_secure = False
        self.call: Call | None = None
        self.incoming: Incoming | None = None
        """The head of the request that is being served."""
        self.socket: asyncio.Transport | None = None
        """The transport, also when aiohttp has let go of it and it is closing."""

    # -- the connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.socket = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of asyncio's
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self.is_secure = transport.get_extra_info("sslcontext") is not None
        self._edge.opened(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        if self.call is not None:
            self.call.leave()
        self._edge.closed(self)
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client sends nothing more: it is taken as gone, since few mean anything else by it."""
        if self._phase is Phase.BUSY and self.socket is not None:
            self.socket.abort()

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        of_head = self._phase is not Phase.BUSY and not self._about_to_begin
        if data and of_head:  # aiohttp also calls with nothing, to have kept bytes parsed
            if self._phase is Phase.IDLE:
                self._wait(Phase.HEAD)
            self._got_bytes = True
            self._head_bytes += len(data)
        super().data_received(data)
        if self._request_count == before:
            if of_head and self._head_bytes > self.max_field_size and not self._force_close:
                self.refuse(too_much_head())
        elif self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
            self._broken = True
            if self.call is not None:
                self.call.break_body(malformed_body())

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp asks for it after each read of a body, and would parse nothing and resume what was not paused."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    @property
    def _about_to_begin(self) -> bool:
        """A head is complete but not yet a call, which takes aiohttp some turns of the loop; what comes is its body."""
        return self._request_count > self._begun

    def begin(self, call: Call | None) -> None:
        """*call* is being served from now on; None: a page is."""
        self._phase, self.call = Phase.BUSY, call
        self._begun += 1
        if self._broken and call is not None:  # before it was a call
            call.break_body(malformed_body())

    def over(self, call: Call) -> None:
        """It has been; the next head is waited for."""
        self.call = None
        self._edge.over(call)
        self.idle()

    def idle(self) -> None:
        """Nothing is being served any more."""
        self._wait(Phase.IDLE)

    def part(self) -> None:
        """Take no more requests, and say so; close when the client has, or a moment later."""
        self._phase = Phase.PARTED
        self._force_close = True  # of aiohttp's: nothing that comes is looked at, and the transport is left to us
        if self._waiter is not None:
            self._waiter.cancel()
        self._lingering = part(self.socket, self._resume_transport_reading, self._loop) or self._lingering

    def _wait(self, phase: Phase) -> None:
        self._phase, self._since_s = phase, self._loop.time()
        self._got_bytes = False
        self._head_bytes = 0

    # -- the Client of a call ------------------------------------------------------------------------------------

    def write(self, *data: bytes) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ClientGone
        if len(data) == 1:
            transport.write(data[0])
        elif sum(map(len, data)) <= SMALL_BYTES:
            transport.write(b"".join(data))
        else:
            for piece in data:
                transport.write(piece)

    def pass_on(self, data: bytes) -> None:
        with suppress(ClientGone):
            self.write(data)

    @property
    def blocked(self) -> bool:
        return self._paused

    @property
    def unsent_bytes(self) -> int:
        return 0 if self.socket is None else self.socket.get_write_buffer_size()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.over()

    async def drain(self) -> None:
        try:
            await self._drain_helper()
        except ConnectionError as error:
            raise ClientGone from error
        if self.transport is None:
            raise ClientGone

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Called now and then: end what took too long. *now* is of the loop's clock."""
        transport = self.socket
        if transport is None:
            return
        if self._phase is Phase.BUSY and (self._reading_paused or self._buffer_paused) and has_left(transport):
            transport.abort()
            return
        if self._paused or (transport.is_closing() and transport.get_write_buffer_size()):
            server = self._edge.door.shared.config
            self._stall.check(transport, now, server.write_timeout_s, server.write_min_bytes_per_s)
            return
        self._stall.over()
        config = self._edge.door.shared.config
        waited_s = now - self._since_s
        if transport.is_closing() or self._about_to_begin:
            return
        if self._phase is Phase.HEAD and waited_s > config.header_timeout_s:
            if self._got_bytes:
                self.refuse(BodyTimeout("The head of the request came too slowly (header_timeout_s)"))
            elif not has_unread(transport):
                self.force_close()
        elif self._phase is Phase.IDLE and waited_s > config.idle_timeout_s and not has_unread(transport):
            self.force_close()

    def close(self) -> None:
        """Close once what was written has reached the client."""
        if self.socket is not None:
            self.socket.close()

    def abort(self) -> None:
        """Close now."""
        if self.socket is not None:
            self.socket.abort()

    def retire(self) -> None:
        """Close, unless a call is being served: that one closes when it has been answered."""
        if self._phase is not Phase.BUSY and not self._about_to_begin:
            self.force_close()

    # -- errors of aiohttp's -------------------------------------------------------------------------------------

    def refuse(self, error: ProxyError) -> None:
        """Answer what is no request, and close."""
        with suppress(ClientGone):  # it did not wait for it
            self.write(*self._edge.refusal(error, self.address))
        self.part()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused, without a word of what it was."""
        if exc is not None and status < 500:
            exc.__traceback__ = None  # its frames hold us, and we hold it
        error = too_much_head() if isinstance(exc, LineTooLong) else malformed()
        if status >= 500 and exc is not None:
            broke(exc)
        elif self._phase is not Phase.PARTED:
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
