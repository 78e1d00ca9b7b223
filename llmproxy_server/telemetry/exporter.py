"""OpenTelemetry's exporters, and who the spans are from: the configuration, and the standard variables over it."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from llmproxy_core.config import TelemetryConfig
from llmproxy_core.secret import Secret

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

_BASE = "OTEL_EXPORTER_OTLP_"
_DEFAULT_NAME = attrs.fields(TelemetryConfig).service_name.default


def quieten() -> None:
    """The exporters log each failure, with what the collector said; ours is one line a minute."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)


def make_exporter(config: TelemetryConfig, environ: Mapping[str, str]) -> SpanExporter:
    """OpenTelemetry's own; what *config* does not say it reads from the environment itself."""
    headers = export_headers(config, environ) or None
    if config.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc(endpoint=grpc_endpoint(config, environ), headers=headers)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    endpoint = config.traces_endpoint or (None if config.endpoint is None else f"{config.endpoint}/v1/traces")
    return OverHttp(endpoint=endpoint, headers=headers)


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
