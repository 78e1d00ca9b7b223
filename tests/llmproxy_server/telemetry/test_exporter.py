"""The standard variables that the exporter goes by, over the configuration."""

from __future__ import annotations

import pytest

from llmproxy_core.config import TelemetryConfig
from llmproxy_core.secret import Secret
from llmproxy_server.telemetry.exporter import export_headers, grpc_endpoint, make_resource
from tests.llmproxy_server.telemetry.test_traces import SECRET, one, post, quickly, traced
from tests.otlp_receiver import collector
from tests.proxy import Proxy
from tests.upstream import Upstream, completion, reply

__all__ = ["quickly"]  # a fixture, for every test here

pytestmark = pytest.mark.timeout(90)
HEADERS, TRACES_HEADERS = "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"


# -- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_headers_of_the_environment_are_added_and_win(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HEADERS, "X-Team=theirs,authorization=Bearer%20abc")
    given = {"x-team": "ours", "x-more": "more"}
    async with (
        collector(protocol) as receiver,
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(traced(upstream, receiver, protocol, headers=given)) as proxy,
    ):
        await post(proxy)
        await receiver.received(2)

    expected = {"x-team": "theirs", "x-more": "more", "authorization": "Bearer abc"}
    assert {name: receiver.headers[0].get(name) for name in expected} == expected


def test_headers_for_traces_alone_count_in_the_place_of_the_general_ones() -> None:
    config = TelemetryConfig(headers=(("X-Key", Secret("abc")), ("x-a", "1")))
    environ = {HEADERS: "x-a=2,x-b=2", TRACES_HEADERS: "X-A=3"}

    assert export_headers(config, environ) == {"x-key": "abc", "x-a": "3"}
    assert export_headers(config, {HEADERS: environ[HEADERS]}) == {"x-key": "abc", "x-a": "2", "x-b": "2"}


# -- where to --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("insecure", "scheme"), [("", "https"), ("false", "https"), ("true", "http"), ("TRUE", "http")], ids=repr
)
def test_an_endpoint_without_a_scheme_is_secure_unless_that_is_switched_off(insecure: str, scheme: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4317", "OTEL_EXPORTER_OTLP_INSECURE": insecure}
    config = TelemetryConfig(endpoint="https://localhost:4317", protocol="grpc")

    assert grpc_endpoint(config, environ) == f"{scheme}://localhost:4317"


# -- who -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configured", "variables", "expected"),
    [
        (TelemetryConfig(), {}, "llmproxy"),
        (TelemetryConfig(), {"OTEL_RESOURCE_ATTRIBUTES": "service.name=foo"}, "foo"),
        (TelemetryConfig(service_name="gate"), {"OTEL_RESOURCE_ATTRIBUTES": "service.name=foo"}, "gate"),
        (
            TelemetryConfig(service_name="gate"),
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=foo", "OTEL_SERVICE_NAME": "llmproxy"},
            "llmproxy",
        ),
    ],
)
def test_the_service_is_named_by_who_says_it_most_closely(
    configured: TelemetryConfig, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert make_resource(configured, "1", variables).attributes["service.name"] == expected


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"])
async def test_a_span_has_no_more_attributes_than_the_limit_and_the_first_ones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "3")
    async with (
        collector() as receiver,
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(traced(upstream, receiver)) as proxy,
    ):
        await post(proxy)
        spans = await receiver.received(2)

    assert {len(it.attributes) for it in spans} == {3}
    assert set(one(spans, "SERVER").attributes) == {"http.request.method", "http.response.status_code", "http.route"}


@pytest.mark.parametrize("name", ["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"])
async def test_a_value_is_no_longer_than_the_limit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "5")
    async with (
        collector() as receiver,
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(traced(upstream, receiver)) as proxy,
    ):
        await post(proxy)
        spans = await receiver.received(2)

    client = one(spans, "CLIENT").attributes
    assert client["gen_ai.response.model"] == "gpt-4"
    assert client["gen_ai.usage.input_tokens"] == 9
    assert max(len(it) for span in spans for it in span.attributes.values() if isinstance(it, str)) == 5


async def test_a_limit_that_cannot_be_read_is_that_of_the_standard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "many")
    async with (
        collector() as receiver,
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(traced(upstream, receiver)) as proxy,
    ):
        await post(proxy)
        await receiver.received(2)

    assert [it for it in caplog.records if "the limits of spans" in it.getMessage()]


# -- secrets ---------------------------------------------------------------------------------------------------------


async def test_a_secret_that_others_echo_is_cut_out_of_every_span() -> None:
    answer = {**completion(f"It is {SECRET}."), "id": f"id-{SECRET}", "model": "m" * 240 + SECRET}
    across = "i" * 240 + SECRET  # where an id is cut
    called = {"id": across, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": across, "content": "done"},
        {"role": "user", "content": "a " * 300 + SECRET},
    ]
    async with (
        collector() as receiver,
        Upstream(reply(answer, headers={"x-request-id": f"up-{SECRET}"})) as upstream,
        Proxy(traced(upstream, receiver, capture_content=True, max_content_bytes=1080)) as proxy,
    ):
        await post(proxy, {"model": "gpt-4o-mini", "messages": turns, "stop": [SECRET]})
        spans = await receiver.received(2)

    client = one(spans, "CLIENT").attributes
    assert client["gen_ai.response.id"] == "id-***"
    assert client["gen_ai.request.stop_sequences"] == ["***"]
    assert "It is ***." in client["gen_ai.output.messages"]
    data = b"".join(receiver.raw)
    for known in (SECRET, SECRET[:12]):  # what is cut at a bound, too
        assert known.encode() not in data
