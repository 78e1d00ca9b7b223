"""`/api/metrics` for Prometheus, `/metrics` for people. Any worker says what all have counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_server.metrics.exposition import text, wants_text
from llmproxy_server.metrics.metering import Metering
from llmproxy_server.metrics.summary import summary

PROMETHEUS_PATH, SUMMARY_PATH = "/api/metrics", "/metrics"


def metrics_endpoints(metering: Metering, providers: Mapping[str, str], version: str) -> Iterator[Endpoint]:
    """*providers*: the provider of each configured LLM by its name."""
    pages = _Pages(metering, providers, version)
    yield Endpoint("GET", PROMETHEUS_PATH, pages.prometheus)
    yield Endpoint("GET", SUMMARY_PATH, pages.summary)


class _Pages:
    """Adding up and writing take milliseconds where there are many series: they are done in a thread, one at a time."""

    def __init__(self, metering: Metering, providers: Mapping[str, str], version: str) -> None:
        self._metering = metering
        self._providers = providers
        self._version = version
        self._one = asyncio.Lock()

    async def prometheus(self, request: EndpointRequest) -> EndpointReply:
        async with self._one:
            self._metering.sample()
            return await asyncio.to_thread(self._text, _accept(request))

    async def summary(self, request: EndpointRequest) -> EndpointReply:
        if wants_text(_accept(request)):
            return await self.prometheus(request)
        async with self._one:
            return await asyncio.to_thread(self._json)

    def _text(self, accept: str) -> EndpointReply:
        metering = self._metering
        snapshot = metering.snapshot()
        body, content_type = text(snapshot, accept=accept, version=self._version, used=metering.values.used)
        return EndpointReply(body, content_type=content_type)

    def _json(self) -> EndpointReply:
        return EndpointReply(summary(self._metering.snapshot(), self._providers))


def _accept(request: EndpointRequest) -> str:
    return ",".join(request.headers.get_all("accept"))
