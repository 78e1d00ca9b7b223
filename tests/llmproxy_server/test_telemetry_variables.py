"""The standard variables of OpenTelemetry win over `[telemetry]`."""

from __future__ import annotations

import pytest

from llmproxy_core.config import TelemetryConfig
from llmproxy_core.errors import ConfigError
from llmproxy_core.plugins import Registry
from llmproxy_server.loader import load

BASE = "OTEL_EXPORTER_OTLP_"


def read(**env: str) -> TelemetryConfig:
    return load(None, Registry.load(), env).config.telemetry


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, TelemetryConfig()),
        (
            {BASE + "ENDPOINT": "http://collector:4318"},
            TelemetryConfig(traces=True, endpoint="http://collector:4318"),
        ),
        (
            {BASE + "TRACES_ENDPOINT": "http://collector:4318/v1/traces"},
            TelemetryConfig(traces=True, traces_endpoint="http://collector:4318/v1/traces"),
        ),
        (
            {BASE + "ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"},
            TelemetryConfig(endpoint="http://collector:4318"),
        ),
        (
            {BASE + "ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"},
            TelemetryConfig(endpoint="http://collector:4318"),
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"}, TelemetryConfig(traces=True)),
        ({BASE + "PROTOCOL": "grpc"}, TelemetryConfig(protocol="grpc")),
        ({BASE + "PROTOCOL": "grpc", BASE + "TRACES_PROTOCOL": "http/protobuf"}, TelemetryConfig()),
        ({"OTEL_SERVICE_NAME": "gate"}, TelemetryConfig(service_name="gate")),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
            TelemetryConfig(sample_ratio=0.25, follow_parent=False),
        ),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_always_off", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
            TelemetryConfig(sample_ratio=0.0),
        ),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, TelemetryConfig(follow_parent=False)),
        ({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"}, TelemetryConfig(capture_content=True)),
        ({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "NO_CONTENT"}, TelemetryConfig()),
        (
            {"OTEL_SEMCONV_STABILITY_OPT_IN": "http,gen_ai_latest_experimental"},
            TelemetryConfig(newest_metric_names=True),
        ),
        ({"OTEL_SEMCONV_STABILITY_OPT_IN": "http"}, TelemetryConfig()),
    ],
)
def test_variables_win(env: dict[str, str], expected: TelemetryConfig) -> None:
    assert read(**env) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER_ARG", "all"),
        ("OTEL_SDK_DISABLED", "maybe"),
    ],
)
def test_what_cannot_be_meant_is_a_problem_that_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**{name: value})

    [problem] = caught.value.problems
    assert name in problem.path
    assert value in problem.message


@pytest.mark.parametrize("value", ["collector:4318", "ftp://collector"])
def test_an_endpoint_that_is_no_url_is_a_problem_of_its_key_from_the_variable(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**{BASE + "ENDPOINT": value})

    [problem] = caught.value.problems
    assert problem.path == "telemetry.endpoint"
    assert f"{BASE}ENDPOINT" in problem.message
