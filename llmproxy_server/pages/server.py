"""The aiohttp application behind the pages: theirs are its routes, and all else is served as on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain

import attrs
from aiohttp import http_parser, web

from llmproxy_core.errors import ConfigError, Problem, ProxyError
from llmproxy_server.door_request import Incoming
from llmproxy_server.edge import Edge
from llmproxy_server.pages.body import AiohttpBody
from llmproxy_server.pages.connection import CLOSE, KEEP, PageConnection
from llmproxy_server.wire.request_head import too_much_head

Show = Callable[[web.Request], Awaitable[web.StreamResponse]]


@attrs.frozen
class Page:
    """What is shown at a path of our own, which wins over routes."""

    path: str
    show: Show


def require_c_parser() -> None:
    """ConfigError where aiohttp runs on its Python parser, which reads some requests otherwise than proxies do."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        message = (
            "aiohttp runs without its C parser, and its Python one lets smuggled requests through; install a wheel of "
            "aiohttp for this platform, and unset AIOHTTP_NO_EXTENSIONS"
        )
        raise ConfigError([Problem("", message)])


class PageServer:
    """
    Takes connections over from an edge when a page is asked for on them.

    They stay with it. What else is asked for on them goes through the same gateway: a request that follows, or came in
    one piece with that for the page, is served as if nothing had happened.
    """

    def __init__(self, edge: Edge, pages: Sequence[Page]) -> None:
        """ConfigError without aiohttp's C parser."""
        require_c_parser()
        self._edge = edge
        self._paths = frozenset(page.path for page in pages)
        self._app = web.Application()
        for page in pages:
            self._app.router.add_route("*", page.path, page.show)
        self._runner = web.AppRunner(self._app, handler_cancellation=True, access_log=None)
        self._server: _Server

    async def start(self) -> None:
        await self._runner.setup()
        made = self._runner.server
        assert made is not None
        self._server = _Server(self._edge, made, self._handle)

    async def aclose(self) -> None:
        await self._server.shutdown(0)
        await self._runner.cleanup()

    def claims(self, path: str) -> bool:
        """Whether *path* is that of a page."""
        return path in self._paths

    def protocol(self) -> PageConnection:
        """What takes a connection over."""
        return self._server()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """A request on a connection of ours, checked as strictly as on the wire."""
        connection = request.protocol
        assert isinstance(connection, PageConnection)
        raw = request.raw_headers
        size = sum(map(len, chain.from_iterable(raw))) + len(request.raw_path)
        try:
            if size > connection.max_field_size:
                raise too_much_head()
            lines = [f"{request.method} {request.raw_path} HTTP/{request.version.major}.{request.version.minor}"]
            lines += [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in raw]
            head = "\r\n".join(lines).encode("latin-1", "surrogateescape")
            connection.incoming = self._edge.heads.read(head, peer=connection.address, secure=connection.is_secure)
            if is_page := self.claims(connection.incoming.path):
                self._edge.door.check(connection.incoming)
        except ProxyError as error:
            connection.refuse(error)
            return CLOSE
        if not is_page:
            return await self._serve(request, connection, connection.incoming)
        made = self._runner.server
        assert made is not None
        connection.begin(None)
        try:
            return await made.request_handler(request)
        finally:
            connection.idle()

    async def _serve(
        self, request: web.BaseRequest, connection: PageConnection, incoming: Incoming
    ) -> web.StreamResponse:
        """Whatever is no page."""
        call = self._edge.admit(incoming, AiohttpBody(request.content), connection)
        connection.begin(call)
        await call.run()
        if call.answer.keep_alive and not self._edge.door.shared.life.draining:
            return KEEP
        connection.part()
        return CLOSE


class _Server(web.Server):
    """aiohttp's low-level server, with our protocol."""

    def __init__(self, edge: Edge, made: web.Server, handle: Callable[[web.BaseRequest], object]) -> None:
        super().__init__(handle, request_factory=made.request_factory, handler_cancellation=True)  # type: ignore[arg-type]
        self._edge = edge
        self._running_loop = asyncio.get_running_loop()

    def __call__(self) -> PageConnection:
        return PageConnection(self, self._edge, loop=self._running_loop)
