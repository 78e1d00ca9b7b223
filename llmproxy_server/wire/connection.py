"""
A client connection on the wire (RFC 9112).

    phase   waits for                      data                          over at
    IDLE    the first byte of a head       HEAD                          idle_timeout_s: closed
    HEAD    the end of the head            a call begins: BUSY           header_timeout_s: 408, or closed if none came
    BUSY    the answer to the call         its body, then what is kept   the call's own clocks
    PARTED  the client to close            dropped                       LINGER_S: closed

One call at a time: what a client sends behind a request is kept, a little of it, until that one is answered. A call
that is over leads to IDLE, or to PARTED where the connection cannot carry another. Every phase ends with the
connection. For a page it is lent: another protocol has it meanwhile, and what follows begins in IDLE.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, cast

from llmproxy_core.errors import ProxyError
from llmproxy_server.call import Call
from llmproxy_server.client_socket import SMALL_BYTES, Stall, has_left, has_unread, part
from llmproxy_server.door_body import BodyTimeout
from llmproxy_server.door_request import CHUNKED, ClientGone, Incoming
from llmproxy_server.life import GOODBYE_S
from llmproxy_server.wire import last_head
from llmproxy_server.wire.last_head import END, LastHead
from llmproxy_server.wire.request_body import Arrived, Arriving
from llmproxy_server.wire.request_head import check_begun, too_much_head

if TYPE_CHECKING:
    from llmproxy_server.edge import Borrower, Edge

MOST_KEPT_BYTES = 1 << 15
"""Of what follows a request, until that is answered; what one read brings beyond it is kept as well."""
HEAD_KEPT_S = 1.0
"""How long after a call its head, and the credential in it, is kept for the next one, or a tick longer."""


class Phase(Enum):
    """What the connection waits for."""

    HEAD = "head"
    IDLE = "idle"
    BUSY = "busy"
    PARTED = "parted"


# Looked up as globals: an attribute of the class is five times as dear, and these are asked for with each read.
HEAD, IDLE, BUSY, PARTED = Phase.HEAD, Phase.IDLE, Phase.BUSY, Phase.PARTED


class Connection(asyncio.Protocol):
    """A client connection. It is the `Client` of the calls that come over it."""

    __slots__ = (
        "_body",
        "_drained",
        "_edge",
        "_last",
        "_lingering",
        "_loop",
        "_peer",
        "_phase",
        "_reading_paused",
        "_rest",
        "_secure",
        "_since_s",
        "_stall",
        "blocked",
        "call",
        "socket",
    )

    pushes = True

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._loop = edge.loop
        self._phase = HEAD
        self._since_s = edge.loop.time()
        self._rest = b""  # what has come and belongs to no request yet
        self._last: LastHead | None = None  # while calls follow each other
        self._body: Arriving | None = None
        self.blocked = False
        self._drained: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._stall = Stall()
        self._lingering: asyncio.TimerHandle | None = None
        self._peer = ""
        self._secure = False
        self.call: Call | None = None
        self.socket: asyncio.Transport | None = None
        """None before the connection is made and after it is lost."""

    # -- the connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.socket = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of asyncio's
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        self._secure = transport.get_extra_info("sslcontext") is not None
        self._edge.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.socket = None
        if self._lingering is not None:
            self._lingering.cancel()
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ClientGone())
        if self._body is not None:
            self._body.lost()
            self._body = None  # it holds us: what has come of it would stay until the collector comes by
        if self.call is not None:
            self.call.leave()
        self._rest, self._last = b"", None  # a call that goes on without its client holds us
        self._edge.closed(self)

    def eof_received(self) -> None:
        """The client sends nothing more: it is taken as gone, since few mean anything else by it."""
        if self._phase is BUSY and self.socket is not None:
            self.socket.abort()

    # -- what comes ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase is IDLE or phase is HEAD:
            self._read(data)
        elif phase is BUSY:
            body = self._body
            if body is not None:
                self._feed(body, data)
            else:
                self._keep(data)

    def _feed(self, body: Arriving, data: bytes) -> None:
        if body is not self._body:  # its call is over, and it is read no more
            return
        rest = body.feed(data)
        if body.complete:
            self._body = None
            if rest:
                self._keep(rest)

    def feed_later(self, body: Arriving) -> None:
        self._edge.in_turn.add(partial(self._feed, body, b""))

    def _keep(self, data: bytes) -> None:
        """What follows a request waits for its answer, and the client with what is too much."""
        self._rest += data
        if len(self._rest) > MOST_KEPT_BYTES:
            self.pause_body()

    def _read(self, data: bytes) -> None:
        """Begin the call of the request that *data*, with what came before, holds."""
        edge, last, incoming = self._edge, self._last, None
        if last is not None and not self._rest and last.door is edge.door:
            incoming = last.incoming if data.startswith(last.head) else last.follow(data)
        if last is not None and incoming is not None:
            begin = len(last.head)
        elif (found := self._find_head(data, edge)) is not None:
            incoming, begin, data = found
        else:
            return
        length = incoming.length
        end = begin + length
        if length >= 0 and end <= len(data):
            source: Arrived | Arriving = Arrived(data[begin:end])
            self._rest = data[end:]
        else:
            self.resume_body()  # all that was kept is of this body, which paces its client itself
            source = body = Arriving(None if length == CHUNKED else length, self, self._loop)
            self._body = body
            if len(data) > begin:
                self._feed(body, data[begin:])
        self._phase = BUSY
        self.call = edge.admit(incoming, source, self)

    def _find_head(self, data: bytes, edge: Edge) -> tuple[Incoming, int, bytes] | None:
        """
        The head that *data*, with what came before, begins with: what it says, where it ends, and all that has come.

        None: it is not whole yet, refused, or for others to answer.
        """
        seen = len(self._rest)
        if seen:
            data = self._rest + data
            self._rest = b""
        begin = 2 if data.startswith(b"\r\n") else 0  # of the request before, as some clients have it (section 2.2)
        limit = edge.max_header_bytes
        end = data.find(END, max(seen - 3, begin), limit + len(END))
        if end < 0:
            self._wait_for_head(data, begin, seen, limit)
            return None
        after = end + len(END)
        try:
            incoming = edge.heads.read(data[begin:end], peer=self._peer, secure=self._secure)
            pages = edge.pages if edge.pages is not None and edge.pages.claims(incoming.path) else None
            if pages is not None:
                edge.door.check(incoming)
        except ProxyError as error:
            self.refuse(error)
            return None
        if pages is not None:
            self._lend(pages.protocol(incoming, self._take_back), data[begin:after], data[after:])
            return None
        longest = min(last_head.LONGEST, limit + len(END))
        self._last = LastHead(data[begin:after], incoming, edge.door, longest) if after - begin <= longest else None
        return incoming, after, data

    def _lend(self, other: Borrower, head: bytes, more: bytes) -> None:
        """For the request that *head* begins the connection is *other*'s, with what follows."""
        self.resume_body()  # what was kept has become a part of that, and nobody else knows that the client waits
        transport, self.socket = self.socket, None
        assert transport is not None
        self._edge.closed(self)
        transport.set_protocol(cast("asyncio.Protocol", other))
        other.connection_made(transport)
        if self.blocked:
            other.pause_writing()
        other.ask(head, more)

    def _take_back(self, transport: asyncio.Transport, rest: bytes, blocked: bool) -> None:
        """It has been answered."""
        self.socket, self.blocked = transport, blocked
        self._phase, self._since_s = IDLE, self._loop.time()
        transport.set_protocol(self)
        self._edge.opened(self)
        if rest:
            self._read(rest)

    def _wait_for_head(self, data: bytes, begin: int, seen: int, limit: int) -> None:
        if self._phase is IDLE and len(data) == begin:  # the empty line alone, and no head has begun with that
            return
        if self._phase is IDLE:
            self._phase, self._since_s = HEAD, self._loop.time()
        try:
            if len(data) > limit:
                raise too_much_head()
            check_begun(data[begin:], max(seen - begin, 0))
        except ProxyError as error:
            self.refuse(error)
        else:
            self._rest = data

    def pause_body(self) -> None:
        if not self._reading_paused and self.socket is not None:
            self._reading_paused = True
            self.socket.pause_reading()

    def resume_body(self) -> None:
        if self._reading_paused and self.socket is not None:
            self._reading_paused = False
            self.socket.resume_reading()

    # -- the Client of a call ------------------------------------------------------------------------------------

    def write(self, data: bytes, more: bytes = b"", /) -> None:
        transport = self.socket
        if transport is None or transport.is_closing():
            raise ClientGone
        if not more:
            transport.write(data)
        elif len(data) + len(more) <= SMALL_BYTES:
            transport.write(data + more)
        else:
            transport.writelines((data, more))

    def pass_on(self, data: bytes) -> None:
        transport = self.socket
        if transport is not None and not transport.is_closing():
            transport.write(data)

    async def drain(self) -> None:
        while self.blocked and self.socket is not None:
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None
        if self.socket is None:
            raise ClientGone

    def pause_writing(self) -> None:
        self.blocked = True
        if self.call is not None:
            self.call.hold()

    @property
    def unsent_bytes(self) -> int:
        return 0 if self.socket is None else self.socket.get_write_buffer_size()

    def resume_writing(self) -> None:
        self.blocked = False
        self._stall.over()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self.call is not None:
            self.call.go_on()

    def over(self) -> None:
        call, self.call, edge = self.call, None, self._edge
        assert call is not None
        edge.over(call)
        if self.socket is None:
            return
        if self._body is not None or not call.answer.keep_alive:
            self.part()
            return
        if edge.door.shared.life.draining:  # the answer had begun before, and does not say that the connection ends
            if not edge.door.shared.life.sockets_stay:
                self.part()
                return
            self._lingering = self._loop.call_later(GOODBYE_S, self._say_goodbye)
        self._phase, self._since_s = IDLE, self._loop.time()
        if self._rest and not self.socket.is_closing():
            rest, self._rest = self._rest, b""
            self._read(rest)
        if self._reading_paused and (self._phase is not BUSY or self._keeps_little):
            self.resume_body()

    @property
    def _keeps_little(self) -> bool:
        """Whether more may come, behind the request that is being answered."""
        return self._body is None and len(self._rest) <= MOST_KEPT_BYTES

    # -- its end -------------------------------------------------------------------------------------------------

    def part(self) -> None:
        """Take no more requests, and say so; close when the client has, or a moment later."""
        self._phase, self._rest, self._body = PARTED, b"", None
        if self._lingering is not None:
            self._lingering.cancel()
        self._lingering = part(self.socket, self.resume_body, self._loop)

    def _say_goodbye(self) -> None:
        self._lingering = None
        self.retire()

    def refuse(self, error: ProxyError) -> None:
        """Answer what is no request, and close."""
        with suppress(ClientGone):  # it did not wait for it
            self.write(*self._edge.refusal(error, self._peer))
        self.part()

    def retire(self) -> None:
        """Close, unless a call is being served, or was a moment ago: that one closes when it has been answered."""
        if self._phase is not BUSY and self._lingering is None:
            self.close()

    def close(self) -> None:
        """Close once what was written has reached the client."""
        if self.socket is not None:
            self.socket.close()

    def abort(self) -> None:
        """Close now."""
        if self.socket is not None:
            self.socket.abort()

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Called now and then: end what took too long. *now* is of the loop's clock."""
        transport = self.socket
        if transport is None:
            return
        if self._reading_paused and has_left(transport):
            transport.abort()
            return
        if self.blocked or (transport.is_closing() and transport.get_write_buffer_size()):
            server = self._edge.door.shared.config
            self._stall.check(transport, now, server.write_timeout_s, server.write_min_bytes_per_s)
            return
        self._stall.over()
        if transport.is_closing():
            return
        config = self._edge.door.shared.config
        waited_s = now - self._since_s
        if self._phase is HEAD and waited_s > config.header_timeout_s:
            if self._rest:
                self.refuse(BodyTimeout("The head of the request came too slowly (header_timeout_s)"))
            elif not has_unread(transport):
                transport.close()
        elif self._phase is IDLE:
            if waited_s > HEAD_KEPT_S:
                self._last = None
            if waited_s > config.idle_timeout_s and not has_unread(transport):
                transport.close()
