"""The transport of a rehearsal: what was to go to a provider goes to its fake, and nothing leaves the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import attrs

from llmproxy_core.errors import UpstreamConnectError
from llmproxy_core.llm import Timeouts, Transport, UpstreamRequest, UpstreamResponse
from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server.rehearsal.provider import FakeProvider
from llmproxy_server.transport_making import make_transport

_PORTS = {"http": ":80", "https": ":443"}


def origin_of(url: str, unix_socket: str | None = None) -> str:
    """
    Whom a call to *url* reaches, as people name it: all LLMs that have the same fail together.

    >>> origin_of("https://API.example.com:443/v1"), origin_of("http://localhost:11434")
    ('api.example.com', 'localhost:11434')
    """
    if unix_socket is not None:
        return unix_socket
    parts = urlsplit(url)
    return parts.netloc.lower().removesuffix(_PORTS.get(parts.scheme, "\0"))


class Diverted:
    """
    A transport as *pool* asks for it, less its proxy and Unix socket, to the fakes of *providers*.

    Whatever URL is called: what is opened is a connection to a fake's port on loopback, or nothing.
    """

    def __init__(self, pool: Pool, tasks: Tasks, providers: Mapping[str, FakeProvider]) -> None:
        self._unix_socket = pool.unix_socket
        self._inner: Transport = make_transport(attrs.evolve(pool, proxy=None, unix_socket=None), tasks)
        self._providers = providers

    async def open(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        origin = origin_of(request.url, self._unix_socket)
        provider = self._providers.get(origin)
        if provider is None:
            raise UpstreamConnectError(f"The rehearsal has no provider at {origin}, and calls nobody else")
        parts = urlsplit(request.url)
        url = parts._replace(scheme="http", netloc=provider.where(request.method)).geturl()
        diverted = attrs.evolve(request, url=url)
        try:
            return await self._inner.open(diverted, timeouts)
        finally:
            if diverted.sent_s is not None:  # by the clock of the rehearsal, not by that of the machine
                request.sent_s = asyncio.get_running_loop().time()
            request.repeated = diverted.repeated

    async def aclose(self) -> None:
        await self._inner.aclose()
