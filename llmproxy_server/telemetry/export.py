"""
Sending spans to a collector: a thread of its own, so that no trouble with it touches a call.

The exporters are OpenTelemetry's; their SDK is imported in that thread, once the ports are open. What does not fit into
the queue, or that the collector does not take, is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import attrs

from llmproxy_core.config import TelemetryConfig
from llmproxy_core.outcome import Outcome
from llmproxy_core.secret import Secret
from llmproxy_server.log_events import get_logger
from llmproxy_server.record import Ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

_log = get_logger()
MAKE_S = 0.2
"""How often spans are made of the calls that are over: until then a call's request is held."""
MOST_CALLS = 2048
MOST_HELD_BYTES = 64 << 20
"""Of the requests of calls whose spans are not made yet."""
COMPLAINT_S = 60.0
CLOSE_S = 2.0
"""How long the end of the process waits for the last spans to leave."""


class MakesSpans(Protocol):
    def of(self, ended: Ended, bill: Outcome, behind_ns: int) -> Iterator[ReadableSpan]: ...


@attrs.frozen
class Batching:
    """The bounds of the batch span processor, as the standard variables name them (OTEL_BSP_*)."""

    most_spans: int = 2048
    batch: int = 512
    delay_s: float = 5.0

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Batching:
        most = _positive(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2048)
        batch = _positive(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)
        return cls(most, min(batch, most), _positive(environ, "OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000)


def _positive(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    return int(text) if text.isdecimal() and int(text) > 0 else default


@attrs.frozen(eq=False)
class _Over:
    """A call that is over and whose spans are not made."""

    spans: MakesSpans
    ended: Ended
    bill: Outcome
    behind_ns: int
    size: int


@attrs.define
class Drops:
    """Spans that nobody has got, and calls whose spans were not even made: of all exports of a process."""

    count: int = 0


class Export:
    """
    The way to one collector, for all gateways with that configuration.

    `add` is called in the event loop and never waits. `start` begins the thread, `aclose` ends it.
    """

    def __init__(
        self, config: TelemetryConfig, drops: Drops, version: str, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._config = config
        self._drops = drops
        self._version = version
        self._resource: Resource | None = None
        self._batching = Batching.read(environ)
        self._over: deque[_Over] = deque()
        self._held_bytes = 0
        self._spans: deque[ReadableSpan] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._complained_s = float("-inf")
        self.ready = threading.Event()
        """The exporter is there, or cannot be made."""

    def start(self) -> None:
        """Import what is needed and begin to send, in a thread. May be called again."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="llmproxy-traces", daemon=True)
            self._thread.start()

    def add(self, spans: MakesSpans, ended: Ended, bill: Outcome) -> None:
        """A sampled call is over; in the event loop."""
        size = len(ended.exchange.request.body)
        if len(self._over) >= MOST_CALLS or self._held_bytes + size > MOST_HELD_BYTES:
            self._drops.count += 1
            return
        self._held_bytes += size
        self._over.append(_Over(spans, ended, bill, time.time_ns() - time.monotonic_ns(), size))

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Send what there is, and end; waits at most *timeout_s* seconds. Not in the event loop."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def resource(self) -> Resource:
        """Who the spans are from: the same for all of them. In the thread."""
        if self._resource is None:
            self._resource = _resource(self._config, self._version)
        return self._resource

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        _quieten()
        try:
            exporter = _exporter(self._config)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, calls go on without traces
            exporter = None
            _log.error("traces cannot be exported", reason=f"{type(error).__name__}: {self._redacted(str(error))}")
        self.ready.set()
        due_s = time.monotonic() + self._batching.delay_s
        while not self._closing:
            self._wake.wait(MAKE_S)
            self._make()
            if len(self._spans) >= self._batching.batch or time.monotonic() >= due_s:
                self._send(exporter, self._batching.batch)
                due_s = time.monotonic() + self._batching.delay_s
        self._make()
        while self._spans and self._send(exporter, self._batching.batch):
            pass
        if exporter is not None:
            exporter.shutdown()

    def _make(self) -> None:
        """Spans of the calls that are over."""
        while self._over:
            over = self._over.popleft()
            self._held_bytes -= over.size
            try:
                for span in over.spans.of(over.ended, over.bill, over.behind_ns):
                    self._keep(span)
            except Exception as bug:  # noqa: BLE001 - a span that cannot be made must not end all others
                self._lost(1, f"a span could not be made: {type(bug).__name__}", bug)

    def _keep(self, span: ReadableSpan) -> None:
        if len(self._spans) >= self._batching.most_spans:
            self._drops.count += 1
        else:
            self._spans.append(span)

    def _send(self, exporter: SpanExporter | None, most: int) -> bool:
        """Whether the collector took them; they are not sent again: the exporter has tried as often as it should."""
        batch = [self._spans.popleft() for _ in range(min(most, len(self._spans)))]
        if not batch:
            return True
        try:
            sent = exporter is not None and exporter.export(batch).name == "SUCCESS"
        except Exception as error:  # noqa: BLE001 - as the collector's answer, so what a library makes of it
            self._lost(len(batch), f"{type(error).__name__}: {self._redacted(str(error))}")
            return False
        if not sent:
            self._lost(len(batch), "the collector does not take them")
        return sent

    def _lost(self, count: int, reason: str, bug: BaseException | None = None) -> None:
        """Count them, and say so once a minute."""
        self._drops.count += count
        now = time.monotonic()
        if now - self._complained_s >= COMPLAINT_S:
            self._complained_s = now
            _log.warning("spans are dropped", reason=reason[:512], dropped=self._drops.count, exc_info=bug)

    def _redacted(self, text: str) -> str:
        for _, value in self._config.headers:
            if isinstance(value, Secret):
                text = text.replace(value.reveal(), "***")
        return text


def _quieten() -> None:
    """The exporters log each failure, with what the collector said; ours is one line a minute."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)


def _resource(config: TelemetryConfig, version: str) -> Resource:
    """Who the spans are from: the configuration, and OTEL_RESOURCE_ATTRIBUTES, which wins."""
    import uuid

    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    own: dict[str, str | int] = {
        "service.name": config.service_name,
        "service.version": version,
        "service.instance.id": str(uuid.uuid4()),
        "process.pid": os.getpid(),
        **config.resource,
    }
    # `create` adds what the SDK says of itself, and OTEL_RESOURCE_ATTRIBUTES, over which it lets us win: the other way
    # round it is meant, but for the name, which the configuration has from OTEL_SERVICE_NAME.
    named = Resource({"service.name": config.service_name})
    return Resource.create(own).merge(OTELResourceDetector().detect()).merge(named)


def _exporter(config: TelemetryConfig) -> SpanExporter:
    """OpenTelemetry's own; what *config* does not say it reads from the environment itself."""
    headers = {name: value.reveal() if isinstance(value, Secret) else value for name, value in config.headers} or None
    if config.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        endpoint = config.traces_endpoint or config.endpoint
        return OverGrpc(endpoint=endpoint, headers=headers)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    endpoint = config.traces_endpoint or (None if config.endpoint is None else f"{config.endpoint}/v1/traces")
    return OverHttp(endpoint=endpoint, headers=headers)
