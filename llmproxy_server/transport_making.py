"""Which transport calls an LLM."""

from __future__ import annotations

from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server.transport_pooled import PooledTransport
from llmproxy_server.wire.upstream import WireTransport


def make_transport(pool: Pool, tasks: Tasks) -> PooledTransport:
    """
    The transport for *pool*: what it names, else the wire, unless it needs what only aiohttp does.

    ConfigError where that needs what is not installed.
    """
    if pool.transport == "aiohttp" or pool.proxy is not None or pool.unix_socket is not None:
        from llmproxy_server.transport import AiohttpTransport  # imported only when it is configured

        return AiohttpTransport(pool, tasks)
    return WireTransport(pool, tasks)
