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
        ({"OTEL_TRACES_SAMPLER_ARG": ".5"}, TelemetryConfig(sample_ratio=0.5)),
        ({"OTEL_TRACES_SAMPLER_ARG": "1e-3"}, TelemetryConfig(sample_ratio=0.001)),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"}, TelemetryConfig()),
        (
            {BASE + "ENDPOINT": "localhost:4317", BASE + "PROTOCOL": "grpc"},
            TelemetryConfig(traces=True, endpoint="https://localhost:4317", protocol="grpc"),
        ),
        (
            {BASE + "TRACES_ENDPOINT": "[::1]:4317", BASE + "PROTOCOL": "grpc"},
            TelemetryConfig(traces=True, traces_endpoint="https://[::1]:4317", protocol="grpc"),
        ),
    ],
)
def test_variables_win(env: dict[str, str], expected: TelemetryConfig) -> None:
    assert read(**env) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_EXPORTER", "pigeon"),
        ("OTEL_TRACES_SAMPLER_ARG", "all"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
        ("OTEL_SDK_DISABLED", "maybe"),
        (BASE + "PROTOCOL", "http/json"),
        (BASE + "TRACES_PROTOCOL", "http/json"),
    ],
)
def test_what_the_standard_does_not_know_is_warned_about_and_taken_as_not_set(
    name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    set_so = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_EXPORTER": "otlp", BASE + "PROTOCOL": "grpc"}
    others = {other: said for other, said in set_so.items() if other != name}

    assert read(**others, **{name: value}) == read(**others)

    [told] = [it.getMessage() for it in caplog.records]
    assert told.startswith(f"{name} in the environment is ignored")
    assert told.endswith(f'got "{value}"')


@pytest.mark.parametrize(
    ("value", "traces", "warned"),
    [
        ("otlp", True, 0),
        ("none", False, 0),
        ("console,otlp", True, 1),
        ("otlp, pigeon", True, 1),
        ("console", False, 1),
        ("zipkin,none", False, 1),
    ],
)
def test_exporters_are_a_list_of_which_ours_is_one(
    value: str, warned: int, caplog: pytest.LogCaptureFixture, *, traces: bool
) -> None:
    found = read(**{BASE + "ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": value})

    assert (found.traces, len(caplog.records)) == (traces, warned)


@pytest.mark.parametrize("value", ["collector:4318", "ftp://collector"])
def test_an_endpoint_that_is_no_url_is_a_problem_of_its_key_from_the_variable(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**{BASE + "ENDPOINT": value})

    [problem] = caught.value.problems
    assert problem.path == "telemetry.endpoint"
    assert f"{BASE}ENDPOINT" in problem.message
