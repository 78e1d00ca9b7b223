"""
The edge over aiohttp's server: the one module that knows both it and calls.

aiohttp parses heads, frames bodies, and cancels the task of a request whose client left; all else is ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import chain

from aiohttp import http_parser, web

from llmproxy_core.config import ServerConfig
from llmproxy_core.errors import ConfigError, Problem, ProxyError
from llmproxy_server.call import Call
from llmproxy_server.door import Door
from llmproxy_server.door_answer import error_answer
from llmproxy_server.door_id import REQUEST_ID
from llmproxy_server.door_request import ClientGone, Incoming, fields
from llmproxy_server.edge_body import AiohttpBody
from llmproxy_server.edge_protocol import CLOSE, KEEP, EdgeProtocol, too_much_head
from llmproxy_server.log_events import get_logger

_log = get_logger()
_SWEEP_S = 1.0
_CLOSE_S = 1.0
_COMPLAINT_S = 1.0


def require_c_parser() -> None:
    """ConfigError where aiohttp runs on its Python parser, which reads some requests otherwise than proxies do."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        message = (
            "aiohttp runs without its C parser, and its Python one lets smuggled requests through; install a wheel of "
            "aiohttp for this platform, and unset AIOHTTP_NO_EXTENSIONS"
        )
        raise ConfigError([Problem("", message)])


class Server(web.Server):
    """aiohttp's low-level server, with our protocol."""

    def __init__(self, edge: Edge) -> None:
        super().__init__(edge.handle, handler_cancellation=True)
        self._edge = edge

    def __call__(self) -> EdgeProtocol:
        return EdgeProtocol(self, self._edge, loop=self._loop)


class Edge:
    """All connections that come in by one door. Made in a running event loop."""

    def __init__(self, door: Door, *, closed: Callable[[], None] | None = None) -> None:
        """*closed* is called when a connection has ended."""
        self.door = door
        """Whose rules the calls to come follow."""
        self.connections: set[EdgeProtocol] = set()
        self.calls: set[Call] = set()
        self._on_closed = closed
        self._server = Server(self)
        self._loop = asyncio.get_running_loop()
        self._quiet = asyncio.Event()
        self._empty = asyncio.Event()
        self._complained_s = float("-inf")
        self._unsaid = 0
        self._period_s = _period_s(door.shared.config)
        self._sweep = self._loop.call_later(self._period_s, self._tick)

    def lead_to(self, door: Door) -> None:
        """From now on calls come in by *door*; those that are being served go on with theirs."""
        self.door = door
        self._period_s = _period_s(door.shared.config)

    def protocol(self) -> EdgeProtocol:
        """A protocol for a new connection: what `loop.create_server` is given."""
        return self._server()

    # -- calls ---------------------------------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """aiohttp's handler: serve one request."""
        protocol = request.protocol
        assert isinstance(protocol, EdgeProtocol)
        raw = request.raw_headers
        if sum(map(len, chain.from_iterable(raw))) + len(request.raw_path) > protocol.max_field_size:
            protocol.refuse(too_much_head())
            return CLOSE
        peer = protocol.peername
        incoming = Incoming(
            request.method,
            request.raw_path,
            request.version,
            fields(raw),
            peer=peer[0] if isinstance(peer, tuple) else "",
            secure=protocol.ssl_context is not None,
        )
        keep_alive = request.keep_alive
        door = self.door
        call = Call(door, incoming, AiohttpBody(request.content), protocol, keep_alive=keep_alive)
        door.shared.use.enter()
        self.calls.add(call)
        protocol.begin(call)
        try:
            await call.run(asyncio.current_task(self._loop))  # who does not name the loop pays a system call
        except ClientGone:
            return CLOSE
        finally:
            protocol.ended()
            self.calls.discard(call)
            door.shared.use.leave()
            if not self.calls:
                self._quiet.set()
        if call.answer.keep_alive and not door.shared.life.draining:
            return KEEP
        protocol.part()
        return CLOSE

    # -- connections ---------------------------------------------------------------------------------------------

    def opened(self, protocol: EdgeProtocol) -> None:
        self.connections.add(protocol)

    def closed(self, protocol: EdgeProtocol) -> None:
        self.connections.discard(protocol)
        self._empty.set()
        if self._on_closed is not None:
            self._on_closed()

    def _tick(self) -> None:
        self._sweep = self._loop.call_later(self._period_s, self._tick)
        now, clock = self._loop.time(), self.door.shared.gateway.services.clock()
        for protocol in list(self.connections):
            protocol.tick(now)
            if protocol.call is not None:
                protocol.call.tick(clock)

    def refusal(self, error: ProxyError, protocol: EdgeProtocol) -> tuple[bytes, bytes]:
        """The answer, head and body, to what did not become a call. Logged, but no more than a line a second."""
        shared = self.door.shared
        request_id = shared.ids.new()
        self._complain(error, request_id, protocol)
        whole = error_answer(error, shared.dialect, request_id)
        head = shared.heads.head(
            whole.status,
            [(REQUEST_ID, request_id), *whole.headers],
            whole.content_type,
            now=shared.gateway.services.now(),
            length=len(whole.body),
            connection="close",
        )
        return head, whole.body

    def _complain(self, error: ProxyError, request_id: str, protocol: EdgeProtocol) -> None:
        now = self._loop.time()
        if now - self._complained_s < _COMPLAINT_S:
            self._unsaid += 1
            return
        peer = protocol.peername
        address = peer[0] if isinstance(peer, tuple) else ""
        _log.info(
            "refused what was no request",
            status=error.status,
            error_message=error.message,
            client=address,
            request_id=request_id,
            unsaid_since=self._unsaid,
        )
        self._complained_s, self._unsaid = now, 0

    def broke(self, error: BaseException) -> None:
        """Something failed that should not have, outside of any call."""
        _log.error("a client connection failed", exc_info=error)

    # -- the end -------------------------------------------------------------------------------------------------

    def retire(self) -> None:
        """Close the connections on which nothing is being served; the others close after their answer."""
        for protocol in list(self.connections):
            protocol.retire()

    async def finish(self, timeout_s: float) -> int:
        """Wait until all calls have ended; after *timeout_s* end those that are left, and say how many they were."""
        if await self._is_quiet(timeout_s):
            return 0
        left = list(self.calls)
        for call in left:
            call.stop()
        await self._is_quiet(self.door.shared.config.settle_timeout_s + _CLOSE_S)
        return len(left)

    async def _is_quiet(self, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        due = loop.time() + timeout_s
        while self.calls:
            self._quiet.clear()
            try:
                async with asyncio.timeout_at(due):
                    await self._quiet.wait()
            except TimeoutError:
                return not self.calls
        return True

    async def aclose(self) -> None:
        """Close every connection, whatever it carries, once what was written has reached the client, or soon after."""
        self._sweep.cancel()
        for protocol in list(self.connections):
            if protocol.socket is not None:
                protocol.socket.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._all_closed()
        for protocol in list(self.connections):
            if protocol.socket is not None:
                protocol.socket.abort()
        await self._all_closed()
        await self._server.shutdown(_CLOSE_S)

    async def _all_closed(self) -> None:
        while self.connections:
            self._empty.clear()
            await self._empty.wait()


def _period_s(config: ServerConfig) -> float:
    """How often it is looked at what takes too long."""
    shortest = min(config.header_timeout_s, config.idle_timeout_s, config.body_timeout_s, config.write_timeout_s)
    return min(_SWEEP_S, shortest / 4)
