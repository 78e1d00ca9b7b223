"""OpenTelemetry's exporters, and who the spans are from: the configuration, and the standard variables over it."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import attrs

from llmproxy_core.config import TelemetryConfig
from llmproxy_core.secret import Secret
from llmproxy_server.telemetry.conventions import SCHEMA_URL

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

_BASE = "OTEL_EXPORTER_OTLP_"
_DEFAULT_NAME = attrs.fields(TelemetryConfig).service_name.default


def quieten() -> None:
    """The exporters log each failure, with what the collector said; ours is one line a minute."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)


class Exporter:
    """One of OpenTelemetry's exporters, for spans of one source."""

    def __init__(self, exporter: SpanExporter, source: bytes) -> None:
        """*source*: see encoding.encoded_source. *exporter* takes what is encoded."""
        self._exporter = exporter
        self._source = source

    def send(self, spans: Sequence[bytes]) -> bool:
        """Whether the collector took them; *spans* as EncodedSpans has them. Waits, for some seconds at most."""
        from llmproxy_server.telemetry.encoding import EncodedSpans

        batch = EncodedSpans(spans, self._source)
        return self._exporter.export(cast("Sequence[ReadableSpan]", batch)).name == "SUCCESS"

    def close(self) -> None:
        self._exporter.shutdown()


def make_exporter(config: TelemetryConfig, version: str, environ: Mapping[str, str]) -> Exporter:
    """What *config* does not say the exporter reads from the environment itself."""
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from llmproxy_server.telemetry.encoding import encoded_source

    scope = InstrumentationScope("llmproxy", version, SCHEMA_URL)
    return Exporter(_sdk_exporter(config, environ), encoded_source(make_resource(config, version, environ), scope))


def _sdk_exporter(config: TelemetryConfig, environ: Mapping[str, str]) -> SpanExporter:
    from llmproxy_server.telemetry.encoding import take_encoded

    headers = export_headers(config, environ) or None
    if config.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc

        take_encoded(over_grpc)
        return over_grpc.OTLPSpanExporter(endpoint=grpc_endpoint(config, environ), headers=headers)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http

    take_encoded(over_http)
    endpoint = config.traces_endpoint or (None if config.endpoint is None else f"{config.endpoint}/v1/traces")
    return over_http.OTLPSpanExporter(endpoint=endpoint, headers=headers)


def export_headers(config: TelemetryConfig, environ: Mapping[str, str]) -> dict[str, str]:
    """
    The headers of each export by their names in lower case: those of *config*, and over these the environment's.

    Of the environment's two variables that for traces alone counts, and the other one then not at all.
    """
    from opentelemetry.util.re import parse_env_headers

    found = {name.lower(): value.reveal() if isinstance(value, Secret) else value for name, value in config.headers}
    said = environ.get(f"{_BASE}TRACES_HEADERS") or environ.get(f"{_BASE}HEADERS") or ""
    return {**found, **parse_env_headers(said, liberal=True)}


def grpc_endpoint(config: TelemetryConfig, environ: Mapping[str, str]) -> str | None:
    """
    Where to; without TLS only when that is said.

    A variable may leave the scheme out: it was read as https, unless OTEL_EXPORTER_OTLP_INSECURE says otherwise.
    """
    endpoint = config.traces_endpoint or config.endpoint
    kind = "TRACES_" if config.traces_endpoint else ""
    said = environ.get(f"{_BASE}{kind}ENDPOINT", "").strip()
    insecure = environ.get(f"{_BASE}TRACES_INSECURE") or environ.get(f"{_BASE}INSECURE") or ""
    if said and endpoint == f"https://{said}" and insecure.strip().lower() == "true":
        return f"http://{said}"
    return endpoint


def make_resource(config: TelemetryConfig, version: str, environ: Mapping[str, str]) -> Resource:
    """
    Who the spans are from: *config*, and OTEL_RESOURCE_ATTRIBUTES, which wins.

    The service's name is OTEL_SERVICE_NAME's, else that of *config* unless it is the default, else as the others.
    """
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    own: dict[str, str | int] = {
        "service.name": config.service_name,
        "service.version": version,
        "service.instance.id": str(uuid.uuid4()),
        "process.pid": os.getpid(),
        **config.resource,
    }
    # `create` adds what the SDK says of itself, and OTEL_RESOURCE_ATTRIBUTES, over which it lets us win: the other way
    # round it is meant.
    found = Resource.create(own).merge(OTELResourceDetector().detect())
    if config.service_name != _DEFAULT_NAME and not environ.get("OTEL_SERVICE_NAME"):
        found = found.merge(Resource({"service.name": config.service_name}))
    return found
