"""A real OTLP receiver for traces: gRPC and HTTP/protobuf, on loopback; it can refuse, stall and answer garbage."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent import futures
from contextlib import asynccontextmanager
from typing import Any

import attrs
import grpc  # type: ignore[import-untyped]
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

WAIT_S = 8.0


@attrs.frozen
class Span:
    """A span as it was received; ids are hexadecimal, "" for none; times nanoseconds of the epoch."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    failed: bool
    state: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


class Collector:
    """What was received, and how exports are answered."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw: list[bytes] = []
        """Every export, as bytes."""
        self.headers: list[dict[str, str]] = []
        self.endpoint = ""
        self.status = 200
        """What HTTP exports are answered."""
        self.body: bytes | None = None
        self.stalled = threading.Event()
        self.stalled.set()
        """While it is cleared nothing is answered."""
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def take(self, data: bytes, headers: Mapping[str, str]) -> None:
        """In any thread."""
        request = ExportTraceServiceRequest.FromString(data)
        spans = list(_spans(request))
        self._loop.call_soon_threadsafe(self._took, data, dict(headers), spans)

    def _took(self, data: bytes, headers: dict[str, str], spans: list[Span]) -> None:
        self.raw.append(data)
        self.headers.append(headers)
        if self.status == 200:
            self.spans += spans
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def received(self, count: int) -> list[Span]:
        """The spans, once there are *count*."""
        await self.until(lambda: len(self.spans) >= count)
        return self.spans

    def named(self, kind: str) -> list[Span]:
        return [it for it in self.spans if it.kind == kind]


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for part in request.resource_spans:
        resource = {it.key: _value(it.value) for it in part.resource.attributes}
        for scope in part.scope_spans:
            for it in scope.spans:
                yield Span(
                    it.name,
                    {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}.get(it.kind, str(it.kind)),
                    it.trace_id.hex(),
                    it.span_id.hex(),
                    it.parent_span_id.hex(),
                    it.start_time_unix_nano,
                    it.end_time_unix_nano,
                    it.status.code == 2,
                    it.trace_state,
                    {each.key: _value(each.value) for each in it.attributes},
                    resource,
                )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(it) for it in value.array_value.values]
    return None if kind is None else getattr(value, kind)


@asynccontextmanager
async def collector(protocol: str = "http/protobuf") -> AsyncIterator[Collector]:
    """A receiver of *protocol*, while it is entered."""
    found = Collector()
    async with _over_grpc(found) if protocol == "grpc" else _over_http(found):
        yield found
    found.stalled.set()


@asynccontextmanager
async def _over_http(found: Collector) -> AsyncIterator[None]:
    async def traces(request: web.Request) -> web.Response:
        data = await request.read()
        await asyncio.to_thread(found.stalled.wait, WAIT_S)
        found.take(data, {name.lower(): value for name, value in request.headers.items()})
        body = ExportTraceServiceResponse().SerializeToString() if found.body is None else found.body
        return web.Response(body=body, status=found.status, content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", traces)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        found.stalled.set()
        await runner.cleanup()


class _Service(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, found: Collector) -> None:
        self._found = found

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's own name
        self._found.stalled.wait(WAIT_S)
        self._found.take(request.SerializeToString(), dict(context.invocation_metadata()))
        return ExportTraceServiceResponse()


@asynccontextmanager
async def _over_grpc(found: Collector) -> AsyncIterator[None]:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Service(found), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    found.endpoint = f"http://127.0.0.1:{port}"
    try:
        yield
    finally:
        found.stalled.set()
        await asyncio.to_thread(server.stop(0.1).wait)
