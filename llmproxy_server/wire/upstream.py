"""
HTTP/1.1 to the upstreams, on protocols of asyncio.

    upstream             `open` and `aclose`: the Transport
    upstream_target      URL -> where it goes
    upstream_pool        which connections there are, and who is next
    upstream_names, upstream_connect, upstream_tls    a new connection
    upstream_connection  bytes of one connection -> its call
    upstream_call        one call: its request, its clocks, what becomes of its connection
    upstream_body        whoever reads, or the sink
    upstream_answer, upstream_head, upstream_shape      bytes -> head and body, strictly
"""

from __future__ import annotations

import asyncio
import copy
import ssl
from math import inf

from llmproxy_core.errors import ProxyError, UpstreamCut
from llmproxy_core.llm import Timeouts, UpstreamRequest, UpstreamResponse
from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server import transport_words
from llmproxy_server.transport_pooled import PooledTransport
from llmproxy_server.transport_request import request_head
from llmproxy_server.wire.upstream_call import UpstreamCall
from llmproxy_server.wire.upstream_connect import Connector
from llmproxy_server.wire.upstream_connection import UpstreamConnection
from llmproxy_server.wire.upstream_head import HeadReader
from llmproxy_server.wire.upstream_pool import Connections, Origin
from llmproxy_server.wire.upstream_shape import Shapes
from llmproxy_server.wire.upstream_target import Target, Targets

_CLOSE_S = 1.0


class WireTransport(PooledTransport):
    """
    The Transport of llmproxy_core.llm; one pool of connections, one event loop.

    A request is sent once, but for one case: a connection that was kept turns out to be closed, with not a byte said.
    Then it is sent once more, on a new connection, unless its body came from an iterator. The proxies and the netrc of
    the environment are not read.
    """

    def __init__(self, pool: Pool, tasks: Tasks, *, tls: ssl.SSLContext | None = None) -> None:
        """*tls* says whom to trust; None trusts whom the system does. Certificates are always verified."""
        super().__init__(pool)
        self._tasks = tasks
        self._tls = tls
        self._parts: _Parts | None = None  # made late: they belong to the event loop
        self._closed = False

    @property
    def connections_in_use(self) -> int:
        return 0 if self._parts is None else self._parts.connections.in_use

    @property
    def connections_open(self) -> int:
        return 0 if self._parts is None else self._parts.connections.open

    @property
    def calls_under_way(self) -> int:
        return 0 if self._parts is None else len(self._parts.connections.calls)

    @property
    def urls_known(self) -> int:
        return 0 if self._parts is None else len(self._parts.targets)

    async def open(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """
        Send *request* and wait for the head of its answer.

        Raises as the Transport says. What the caller's own body iterator raises passes as it is; the answer may come
        before that iterator is at its end, and then it is `read` that raises it.
        """
        parts = self._parts or self._made()
        began, url = parts.time(), request.url
        target = parts.targets.known(url) or parts.targets.of(url)
        head = request_head(request, target.begin)
        heads = target.origin.heads or parts.heads_of(target.origin)
        connection = parts.connections.take(target.origin, began)
        if connection is None:
            connection = await self._connect(parts, target, request, timeouts, began)
        repeats = False
        while True:
            call = UpstreamCall()
            call.expect(heads, target.host, request.method)
            try:
                await call.send(request, head, connection, timeouts, began, tasks=self._tasks)
            except BaseException:
                call.close()
                raise
            if call.failure is None:
                assert call.headers is not None
                return UpstreamResponse(call.status, call.headers, call)
            if repeats or self._closed or not _may_repeat(request, call, connection):
                raise _raisable(call.failure)
            repeats = request.repeated = True
            connection = await self._connect(parts, target, request, timeouts, began, new=True)

    async def aclose(self) -> None:
        """Close every connection, also those of bodies that are still read; these fail as cut."""
        self._closed = True
        parts = self._parts
        if parts is None:
            return
        parts.connections.close()
        parts.connections.under_way.stop()
        for call in parts.connections.calls:
            call.cut()
        await parts.connections.wait_closed(_CLOSE_S)
        await parts.connector.aclose()

    def _made(self) -> _Parts:
        self._parts = _Parts(self._pool, self._tasks, self._tls)
        return self._parts

    async def _connect(
        self,
        parts: _Parts,
        target: Target,
        request: UpstreamRequest,
        timeouts: Timeouts,
        began: float,
        *,
        new: bool = False,
    ) -> UpstreamConnection:
        """A new connection; unless it must be *new*, perhaps one that became idle while we waited for our turn."""
        if self._closed:
            raise RuntimeError("the transport is closed")
        connect_s, total_s = timeouts.connect_s or inf, min(timeouts.total_s or inf, request.left_s)
        total_s += began - parts.time()
        total_ends_first = total_s < connect_s
        failure: ProxyError
        limit = asyncio.timeout(total_s if total_ends_first else timeouts.connect_s or None)
        has_place = False
        try:
            async with limit:
                free = await parts.connections.place(target.origin)
                has_place = True
                connection = await parts.connected(target, free, new=new)
        except OSError as error:
            if parts.connections.closed:
                failure = transport_words.cut(target.host)
            elif limit.expired():
                failure = transport_words.not_connected_in_time(
                    target.host, timeouts, request, has_place=has_place, total_ends_first=total_ends_first
                )
            else:
                failure = transport_words.no_connection(target.host, error)
        else:
            if connection.is_open and not parts.connections.closed:
                return connection
            connection.abort()
            failure = transport_words.spoke_first(target.host) if connection.spoke else transport_words.cut(target.host)
        raise failure from None


class _Parts:
    """What a transport is made of."""

    def __init__(self, pool: Pool, tasks: Tasks, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        self.time = loop.time
        self.connections = Connections(pool, loop)
        self.targets = Targets(self.connections)
        self.connector = Connector(loop, tasks, tls)
        self.heads = HeadReader()

    def heads_of(self, origin: Origin) -> Shapes:
        """What reads the heads of the answers from there."""
        origin.heads = heads = Shapes(self.heads)
        return heads

    async def connected(
        self, target: Target, connection: UpstreamConnection | None, *, new: bool
    ) -> UpstreamConnection:
        """A connection: *connection*, which had become idle, or one that is made in the place that we have."""
        origin, connections = target.origin, self.connections
        if connection is not None and not new:
            return connection
        if connection is not None:
            connections.renounce(connection)
        if connections.closed:
            connections.give_back(origin)
            raise ConnectionAbortedError
        try:
            connection = await self.connector.connect(connections, origin)
        except BaseException:
            connections.give_back(origin)
            raise
        connections.add(connection)
        return connection


def _may_repeat(request: UpstreamRequest, call: UpstreamCall, connection: UpstreamConnection) -> bool:
    """Whether *call* has failed as it does where its *connection* was closed while it was kept."""
    if not (connection.reused and call.unheard and isinstance(call.failure, UpstreamCut)):
        return False
    return (request.body is None or isinstance(request.body, bytes)) and request.may_repeat()


def _raisable(failure: BaseException) -> BaseException:
    """What is raised has a traceback; the call must not hold it, since its frames hold the call."""
    return copy.copy(failure) if isinstance(failure, ProxyError) else failure
