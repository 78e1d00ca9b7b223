"""
HTTP to the upstreams, over aiohttp's pool of connections and its parser.

Not over its session: that serves browsers (cookies, redirects, proxies, encodings, retries), each of which would have
to be switched off, and costs more than all that we do.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import lru_cache
from math import inf
from time import monotonic

import aiohttp

from llmproxy_core.errors import ProxyError, UpstreamCut
from llmproxy_core.llm import Timeouts, UpstreamRequest, UpstreamResponse
from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server import transport_errors, transport_words
from llmproxy_server.transport_call import UpstreamCall
from llmproxy_server.transport_clock import UnderWay
from llmproxy_server.transport_head import Target, Targets
from llmproxy_server.transport_pooled import PooledTransport
from llmproxy_server.transport_protocol import UpstreamProtocol
from llmproxy_server.transport_request import request_head
from llmproxy_server.transport_way import Way


class AiohttpTransport(PooledTransport):
    """
    The Transport of llmproxy_core.llm; one pool of connections, one event loop.

    One `open` is one request on the wire, or two where a kept connection was closed with not a byte said. A proxy is
    the pool's, never one that aiohttp finds in the environment; nor is the netrc read.
    """

    def __init__(self, pool: Pool, tasks: Tasks, *, tls: ssl.SSLContext | None = None) -> None:
        """*tls* says whom to trust; None trusts whom the system does. Certificates are always verified."""
        super().__init__(pool)
        self._tasks = tasks
        self._tls = tls
        self._way = Way(pool)
        self._connector: aiohttp.BaseConnector | None = None
        self._targets: Targets | None = None
        self._calls: UnderWay[UpstreamCall] | None = None
        self._closed = False

    @property
    def connections_in_use(self) -> int:
        return 0 if self._connector is None else len(self._connector._acquired)

    @property
    def connections_open(self) -> int:
        connector = self._connector
        return 0 if connector is None else len(connector._acquired) + sum(map(len, connector._conns.values()))

    @property
    def calls_under_way(self) -> int:
        return 0 if self._calls is None else len(self._calls)

    @property
    def urls_known(self) -> int:
        return 0 if self._targets is None else len(self._targets)

    async def open(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        """
        Send *request* and wait for the head of its answer.

        Raises as the Transport says. What the caller's own body iterator raises passes as it is; the answer may come
        before that iterator is at its end, and then it is `read` that raises it.
        """
        targets, calls = self._targets, self._calls
        if targets is None or calls is None:  # made late, as the connector: they belong to the event loop
            loop = asyncio.get_running_loop()
            self._targets, self._calls = targets, calls = Targets(self._way, loop), UnderWay(loop)
        began = calls.loop.time()
        target = targets.of(request.url)
        head = request_head(request, target.begin)
        while True:
            connection, protocol = await self._connect(target, timeouts, request, calls.loop.time() - began)
            was_used = protocol is not None and protocol.begin()
            call = UpstreamCall(
                connection, target.host, timeouts, began, calls, left_s=request.left_s, tasks=self._tasks
            )
            try:
                call.send(request.method, head, request.body)
                request.sent_s = monotonic()
                status, headers = await call.head()
            except UpstreamCut:
                call.close()
                if self._closed or protocol is None or not was_used or protocol.heard or not _may_repeat(request):
                    raise
                request.repeated = True
            except BaseException:
                call.close()
                raise
            else:
                return UpstreamResponse(status, headers, call)

    async def aclose(self) -> None:
        """Close every connection, also those of bodies that are still read; these fail as cut."""
        self._closed = True
        if self._calls is not None:
            self._calls.stop()
            for call in self._calls:
                call.cut()
        if self._connector is not None:
            await self._connector.close()

    async def _connect(
        self, target: Target, timeouts: Timeouts, request: UpstreamRequest, spent_s: float
    ) -> tuple[aiohttp.connector.Connection, UpstreamProtocol | None]:
        """
        A connection; a new one where the request goes out again: others that are kept may be closed as well. *spent_s*
        of the call's time are over.

        (SOCKS has protocols of its own, of which we know nothing: no request goes out again there.)
        """
        connect_s, total_s = timeouts.connect_s or inf, min(timeouts.total_s or inf, request.left_s) - spent_s
        total_ends_first = total_s < connect_s
        limit_s = max(total_s, _LEAST_S) if total_ends_first else timeouts.connect_s or None
        failure: ProxyError
        connector = self._started_connector()
        try:
            while True:
                connection = await connector.connect(target.request, [], _connecting_within(limit_s))
                protocol = connection.protocol if isinstance(connection.protocol, UpstreamProtocol) else None
                if protocol is None or not (request.repeated and protocol.was_used):
                    return connection, protocol
                connection.close()
        except TimeoutError:
            # Who had a place has just given it back.
            has_place = connector._available_connections(target.request.connection_key) > 0
            failure = transport_words.not_connected_in_time(
                target.host, timeouts, request, has_place=has_place, total_ends_first=total_ends_first
            )
        except transport_errors.FAILURES as error:
            failure = transport_errors.connect_error(error, target.host)
        except self._way.failures:
            failure = transport_words.no_proxy(target.host)
        raise failure from None

    def _started_connector(self) -> aiohttp.BaseConnector:
        if self._closed:
            raise RuntimeError("the transport is closed")
        if self._connector is None:
            self._connector = self._way.connector(self._tls)
        return self._connector


def _may_repeat(request: UpstreamRequest) -> bool:
    if request.repeated or not (request.body is None or isinstance(request.body, bytes)):
        return False
    return request.may_repeat()


_LEAST_S = 0.001  # no time at all is none to aiohttp


@lru_cache(maxsize=64)
def _connecting_within(seconds: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=seconds)
