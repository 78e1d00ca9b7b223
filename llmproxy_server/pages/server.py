"""The aiohttp application behind the pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs
from aiohttp import http_parser, web

from llmproxy_core.errors import ConfigError, Problem
from llmproxy_server.door_request import Incoming
from llmproxy_server.edge import Edge, TakeBack
from llmproxy_server.pages.connection import CLOSE, PageConnection

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
    Shows pages, on connections that an edge lends for one request each.

    What else is asked for on them never comes here, also where it came in one piece with the request for a page.
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
        self._server: web.Server

    async def start(self) -> None:
        await self._runner.setup()
        made = self._runner.server
        assert made is not None
        self._server = web.Server(self._handle, request_factory=made.request_factory, handler_cancellation=True)

    async def aclose(self) -> None:
        await self._server.shutdown(0)
        await self._runner.cleanup()

    def claims(self, path: str) -> bool:
        """Whether *path* is that of a page."""
        return path in self._paths

    def protocol(self, incoming: Incoming, back: TakeBack) -> PageConnection:
        """What a connection is lent to, to answer *incoming*."""
        return PageConnection(self._server, self._edge, incoming, back)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Show the page here, and not after this as aiohttp does: the connection goes back when that is done."""
        connection, made = request.protocol, self._runner.server
        assert isinstance(connection, PageConnection)
        assert made is not None
        if not connection.take():
            connection.part()
            return CLOSE
        try:
            answer = await made.request_handler(request)
        except web.HTTPException as said:
            answer = said
        try:
            await answer.prepare(request)
            await answer.write_eof()
        except ConnectionError:  # the client has left
            return CLOSE
        return connection.shown(keep=bool(answer.keep_alive) and not isinstance(answer, web.WebSocketResponse))
