"""Which calls are traced: decided before anything of OpenTelemetry's SDK is run. Spans are made when all is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmproxy_core.config import TelemetryConfig
from llmproxy_core.exchange import Exchange
from llmproxy_core.gateway import Gateway
from llmproxy_core.outcome import Outcome
from llmproxy_core.trace_context import TraceContext, read_parent
from llmproxy_server.door_request import Incoming
from llmproxy_server.log_redact import Redaction
from llmproxy_server.logs import secrets_of
from llmproxy_server.record import Ended
from llmproxy_server.telemetry.export import Export

if TYPE_CHECKING:
    from llmproxy_server.telemetry.spans import Spans


class Tracer:
    """
    See record.Tracer. That of one configuration; what it finishes goes to the *export* of the process.

    The decision is that of OpenTelemetry's samplers: the caller's own where it has one and *follow_parent* is on, else
    the low 64 bits of the trace id against the ratio, so that all who sample by it agree.
    """

    def __init__(self, config: TelemetryConfig, export: Export, spans: LaterSpans) -> None:
        self._bound = round(config.sample_ratio * (1 << 64))
        self._follows = config.follow_parent
        self._export = export
        self._spans = spans

    def begin(self, incoming: Incoming, exchange: Exchange) -> None:
        written = incoming.headers.only("traceparent")  # of two, which one would it be?
        parent = None
        if written is not None:
            state = ",".join(incoming.headers.get_all("tracestate"))
            parent = read_parent(written, state)
        if parent is None:
            exchange.trace = TraceContext.begun(self._bound)
            return
        sampled = parent.sampled if self._follows else int(parent.trace_hex[16:], 16) < self._bound
        exchange.trace = TraceContext.under(parent, sampled=sampled)

    def billed(self, ended: Ended, bill: Outcome) -> None:
        trace = ended.exchange.trace
        if trace is not None and trace.sampled:
            self._export.add(self._spans, ended, bill)


class LaterSpans:
    """Spans of the calls of one gateway, made by what is imported with the first of them, in the export's thread."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._spans: Spans | None = None

    def of(self, ended: Ended, bill: Outcome, behind_ns: int) -> Iterator[bytes]:
        """See Spans."""
        if self._spans is None:
            self._spans = self._made()
        return self._spans.of(ended, bill, behind_ns)

    def _made(self) -> Spans:
        from llmproxy_server.telemetry.content import Content
        from llmproxy_server.telemetry.spans import Spans

        config, dialects = self._gateway.config.telemetry, self._gateway.registry.dialects.values()
        redact = Redaction(secrets_of(self._gateway.config))
        content = Content(dialects, config.max_content_bytes, redact) if config.capture_content else None
        return Spans(self._gateway, redact, content)
