"""Traces of real calls, received by a real OTLP receiver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import llmproxy_anthropic
import pytest

from llmproxy_core import Api, Dialect, builtin_stores
from llmproxy_core.chat import ChatRequest
from llmproxy_core.exchange import Exchange
from llmproxy_core.processor import Handler
from llmproxy_core.response import Response
from llmproxy_openai import OpenAIDialect
from tests.exact import ask
from tests.llmproxy_server.edging import Processing, processed
from tests.otlp_receiver import Collector, Span, collector
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.resilience.flocks import QUICK, fails, group
from tests.script import Step
from tests.upstream import (
    DONE,
    EVENT_STREAM,
    Chunk,
    End,
    Head,
    Upstream,
    Wait,
    chat_chunk,
    completion,
    reply,
    sse,
    stream,
    usage_chunk,
)

SECRET = "sk-proxy-test-0123456789"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TOLD = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1", "baggage": "team=a"}
HELLO = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a canary?"}],
    "temperature": 0.5,
    "max_tokens": 64,
    "stop": ["END"],
}
pytestmark = pytest.mark.timeout(90)


def traced(
    upstream: Upstream, receiver: Collector, protocol: str = "http/protobuf", **telemetry: object
) -> dict[str, Any]:
    made = openai_at(upstream.base_url, token_env="KEY", models=["gpt-4o-mini"])
    table = {"traces": True, "endpoint": receiver.endpoint, "protocol": protocol, **telemetry}
    return {**made, "telemetry": table}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")


async def post(proxy: Proxy, body: object = HELLO, headers: Mapping[str, str] | None = None) -> Any:
    given = {"content-type": "application/json", **(headers or {})}.items()
    return await ask("POST", f"{proxy.base_url}/chat/completions", json.dumps(body).encode(), given)


def streaming() -> bytes:
    """A request for a stream, as bytes."""
    body = json.dumps({**HELLO, "stream": True}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def bird(*, streamed: bool) -> list[Step]:
    """An answer, in either form."""
    if streamed:
        return stream(chat_chunk("A bird."), chat_chunk(None, finish="stop"))
    return reply(completion("A bird."))


def one(spans: list[Span], kind: str) -> Span:
    [found] = [it for it in spans if it.kind == kind]
    return found


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_call_is_a_span_of_ours_with_one_of_each_attempt_inside(protocol: str) -> None:
    async with (
        collector(protocol) as receiver,
        Upstream(reply(completion("A bird."), headers={"x-request-id": "up-1"})) as upstream,
        Proxy(traced(upstream, receiver, protocol)) as proxy,
    ):
        got = await post(proxy, headers=TOLD)
        spans = await receiver.received(2)
        sent = await upstream.received()

    server, client = one(spans, "SERVER"), one(spans, "CLIENT")
    assert got.status == 200
    assert (server.trace_id, server.parent_id, server.state) == (TRACE, PARENT, "vendor=1")
    assert (client.trace_id, client.parent_id) == (TRACE, server.span_id)
    assert sent.header("traceparent") == f"00-{TRACE}-{client.span_id}-01"
    assert (sent.header("tracestate"), sent.header("baggage")) == ("vendor=1", "team=a")
    assert server.start_ns <= client.start_ns <= client.end_ns <= server.end_ns
    assert server.name == "POST /v1"
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["url.path"] == "/v1/chat/completions"
    assert server.attributes["llmproxy.end"] == "completed"
    assert client.name == "chat gpt-4o-mini"
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.stop_sequences": ["END"],
        "gen_ai.response.model": "gpt-4o-mini",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 3,
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "llmproxy.llm": "openai",
        "llmproxy.upstream.request_id": "up-1",
    }
    assert {name: client.attributes.get(name) for name in expected} == expected
    assert (server.failed, client.failed) == (False, False)
    assert server.resource["service.name"] == "llmproxy"


async def test_a_streams_attempt_lasts_to_its_last_chunk() -> None:
    goes_on = asyncio.Event()
    first, rest = sse(chat_chunk("A"), done=False), sse(chat_chunk(None, finish="stop"), usage_chunk(), done=False)
    script: list[Step] = [Head(200, EVENT_STREAM), Chunk(first), Wait(goes_on), Chunk(rest), Chunk(DONE), End()]
    async with (
        collector() as receiver,
        Upstream(script) as upstream,
        Proxy(traced(upstream, receiver)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(streaming())
        await client.until(b'"A"')
        assert receiver.spans == []
        goes_on.set()
        await client.until(b"[DONE]")
        spans = await receiver.received(2)

    attempt = one(spans, "CLIENT")
    assert attempt.attributes["gen_ai.request.stream"] is True
    assert attempt.attributes["gen_ai.usage.output_tokens"] == 3
    until_first_ns = attempt.attributes["gen_ai.response.time_to_first_chunk"] * 1e9
    assert 0 < until_first_ns < attempt.end_ns - attempt.start_ns


async def test_an_error_of_the_upstream_marks_both_spans() -> None:
    async with (
        collector() as receiver,
        Upstream(reply({"error": {"message": "overloaded"}}, 503)) as upstream,
        Proxy(traced(upstream, receiver)) as proxy,
    ):
        assert (await post(proxy)).status == 503
        spans = await receiver.received(2)

    server, client = one(spans, "SERVER"), one(spans, "CLIENT")
    assert server.failed
    assert client.failed
    assert client.attributes["http.response.status_code"] == 503
    assert server.attributes["error.type"] == client.attributes["error.type"]


async def test_a_mistake_of_the_callers_is_not_an_error_of_ours() -> None:
    async with collector() as receiver, Upstream() as upstream, Proxy(traced(upstream, receiver)) as proxy:
        assert (await post(proxy, {**HELLO, "model": "another"})).status == 404
        [server] = await receiver.received(1)

    assert not server.failed
    assert server.attributes["error.type"] == "model_not_found"


async def test_a_client_that_leaves_ends_its_spans_as_abandoned() -> None:
    script: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(chat_chunk("A"), done=False)), Wait(asyncio.Event())]
    async with collector() as receiver, Upstream(script) as upstream, Proxy(traced(upstream, receiver)) as proxy:
        async with connected(proxy.port) as client:
            client.send(streaming())
            await client.until(b'"A"')
        spans = await receiver.received(2)
        upstream.take_errors()

    assert one(spans, "SERVER").attributes["llmproxy.end"] == "abandoned"
    assert one(spans, "SERVER").attributes["http.response.status_code"] == 499


# -- sampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("telemetry", "flags", "recorded"),
    [
        ({}, "01", True),
        ({}, "00", False),
        ({"sample_ratio": 0.0}, "01", True),
        ({"sample_ratio": 0.0, "follow_parent": False}, "01", False),
        ({"sample_ratio": 1.0, "follow_parent": False}, "00", True),
    ],
)
async def test_a_call_is_recorded_as_its_caller_or_the_ratio_says(
    telemetry: dict[str, Any], flags: str, *, recorded: bool
) -> None:
    async with (
        collector() as receiver,
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(traced(upstream, receiver, **telemetry)) as proxy,
    ):
        await post(proxy, headers={"traceparent": f"00-{TRACE}-{PARENT}-{flags}"})
        sent = await upstream.received()
        told = sent.header("traceparent")
        assert told is not None
        assert told.startswith(f"00-{TRACE}-")
        assert told.endswith("-01" if recorded else "-00")
        await post(proxy, headers={"traceparent": f"00-{'1' * 32}-{PARENT}-01"})
        if recorded or telemetry.get("follow_parent", True):
            await receiver.received(2)

    traces = {it.trace_id for it in receiver.spans}
    assert (TRACE in traces) is recorded


async def test_without_a_caller_the_ratio_decides_and_the_upstream_is_told() -> None:
    async with (
        collector() as receiver,
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(traced(upstream, receiver, sample_ratio=0.5)) as proxy,
    ):
        for _ in range(40):
            await post(proxy, headers={"traceparent": "garbage"})
        sent = [(await upstream.received(number)).header("traceparent") or "" for number in range(1, 41)]
        recorded = [it for it in sent if it.endswith("-03")]
        await receiver.received(2 * len(recorded))

    assert 5 <= len(recorded) <= 35  # one time in two hundred million it is another
    assert {it.endswith(("-03", "-02")) for it in sent} == {True}
    assert {it.trace_id for it in receiver.spans} == {it.split("-")[1] for it in recorded}


# -- processors ------------------------------------------------------------------------------------------------------


async def test_a_processor_that_calls_another_model_has_a_span_around_that_call() -> None:
    import llmproxy_enhance_query

    async with (
        collector() as receiver,
        Upstream(reply(completion("Better."))) as upstream,
        Proxy(_enhanced(traced(upstream, receiver)), plugins=[llmproxy_enhance_query]) as proxy,
    ):
        assert (await post(proxy)).status == 200
        spans = await receiver.received(4)

    server, inner = one(spans, "SERVER"), one(spans, "INTERNAL")
    own, asked = sorted((it for it in spans if it.kind == "CLIENT"), key=lambda it: it.parent_id != server.span_id)
    assert inner.name == "processor better"
    assert inner.parent_id == server.span_id
    assert (own.parent_id, asked.parent_id) == (server.span_id, inner.span_id)
    assert inner.start_ns <= asked.start_ns <= asked.end_ns <= inner.end_ns
    assert server.attributes["llmproxy.processors"] == ["better"]


async def test_attempts_tell_their_key_and_why_there_was_another() -> None:
    async with collector() as receiver, Upstream(reply(completion("Hi"))) as upstream:
        upstream.then(fails(429))
        made = traced(upstream, receiver)
        made["llm"]["openai"] |= {"token_env": ["KEY", "KEY_2"], "retries": QUICK}
        async with Proxy(made, env={"KEY_2": "sk-second-0123456789"}) as proxy:
            assert (await post(proxy)).status == 200
            spans = await receiver.received(3)

    first, second = sorted((it for it in spans if it.kind == "CLIENT"), key=lambda it: it.start_ns)
    assert [it.attributes["llmproxy.attempt.key"] for it in (first, second)] == ["KEY", "KEY_2"]
    assert "key" in first.attributes["llmproxy.attempt.next"]
    assert "llmproxy.attempt.next" not in second.attributes
    assert (first.failed, second.failed) == (True, False)


async def test_who_was_passed_over_is_told_with_the_call() -> None:
    async with collector() as receiver, Upstream() as a, Upstream(reply(completion("Hi"))) as b:
        made = {**group("fallback", a, b), "telemetry": traced(b, receiver)["telemetry"]}
        made["llm"]["a"] |= {"provider": "anthropic"}
        async with Proxy(made, plugins=[llmproxy_anthropic]) as proxy:
            assert (await post(proxy, {**HELLO, "logit_bias": {"1": 2}})).status == 200
            spans = await receiver.received(2)

    assert list(one(spans, "SERVER").attributes["llmproxy.passed_over"]) == ["a unsupported"]
    assert not {"llmproxy.attempt.key", "llmproxy.attempt.next"} & set(one(spans, "CLIENT").attributes)


def _enhanced(made: dict[str, Any]) -> dict[str, Any]:
    made["processor"] = {"better": {"type": "enhance_query", "llm": "openai", "model": "gpt-4o-mini"}}
    made["route"][0] |= {"processors": ["better"], "operations": ["chat"]}
    return made


async def test_an_answer_from_the_cache_has_no_attempt() -> None:
    import llmproxy_cache

    async with collector() as receiver, Upstream(reply(completion("Hi"))) as upstream:
        made = traced(upstream, receiver)
        made["processor"] = {"cache": {"type": "cache"}}
        made["route"][0] |= {"processors": ["cache"], "operations": ["chat"]}
        async with Proxy(made, plugins=[builtin_stores, llmproxy_cache]) as proxy:
            asked = {**HELLO, "temperature": 0}
            await post(proxy, asked)
            await post(proxy, asked)
            spans = await receiver.received(3)

    caches = [it.attributes["llmproxy.cache"] for it in spans if it.kind == "SERVER"]
    assert sorted(caches) == ["hit", "miss"]
    assert len([it for it in spans if it.kind == "CLIENT"]) == 1


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_only_a_stream_has_a_first_chunk(*, streamed: bool) -> None:
    async with (
        collector() as receiver,
        Upstream(bird(streamed=streamed)) as upstream,
        Proxy(traced(upstream, receiver)) as proxy,
    ):
        await post(proxy, {**HELLO, "stream": streamed})
        spans = await receiver.received(2)

    assert ("gen_ai.response.time_to_first_chunk" in one(spans, "CLIENT").attributes) is streamed


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"dimensions": 12, "encoding_format": "float"}, (12, ["float"])),
        ({"dimensions": "12", "encoding_format": None}, (None, None)),
        ({"dimensions": True}, (None, None)),
        ({}, (None, None)),
    ],
)
async def test_embeddings_tell_in_which_form_they_were_asked_for(asked: object, expected: object) -> None:
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
        "model": "gpt-4o-mini",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    assert isinstance(asked, dict)
    body = json.dumps({"model": "gpt-4o-mini", "input": "x", **asked}).encode()
    async with collector() as receiver, Upstream(reply(answer)) as upstream, Proxy(traced(upstream, receiver)) as proxy:
        await ask("POST", f"{proxy.base_url}/embeddings", body, [("content-type", "application/json")])
        spans = await receiver.received(2)

    found = one(spans, "CLIENT").attributes
    names = ("gen_ai.embeddings.dimension.count", "gen_ai.request.encoding_formats")
    assert tuple(found.get(name) for name in names) == expected


# -- content and secrets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_nothing_of_what_is_said_and_no_key_is_exported(streamed: bool) -> None:
    answer = (
        stream(chat_chunk("A bird."), chat_chunk(None, finish="stop")) if streamed else reply(completion("A bird."))
    )
    async with (
        collector() as receiver,
        Upstream(answer) as upstream,
        Proxy(traced(upstream, receiver, headers={"x-key": {"env": "KEY"}})) as proxy,
    ):
        await post(proxy, {**HELLO, "stream": streamed}, {"authorization": "Bearer sk-theirs-0123456789"})
        await receiver.received(2)

    data = b"".join(receiver.raw)
    for secret in (b"canary", b"Be brief", b"bird", SECRET.encode(), b"sk-theirs"):
        assert secret not in data
    assert receiver.headers[0]["x-key"] == SECRET, "only the collector gets it"


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_content_is_exported_as_the_conventions_write_it_when_that_is_switched_on(streamed: bool) -> None:
    answer = (
        stream(chat_chunk("A bird."), chat_chunk(None, finish="stop")) if streamed else reply(completion("A bird."))
    )
    async with (
        collector() as receiver,
        Upstream(answer) as upstream,
        Proxy(traced(upstream, receiver, capture_content=True)) as proxy,
    ):
        await post(
            proxy, {**HELLO, "stream": streamed, "tools": [{"type": "function", "function": {"name": "look_up"}}]}
        )
        spans = await receiver.received(2)

    found = one(spans, "CLIENT").attributes
    assert json.loads(found["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "What is a canary?"}]}
    ]
    assert json.loads(found["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief."}]
    assert json.loads(found["gen_ai.tool.definitions"]) == [{"type": "function", "name": "look_up"}]
    assert json.loads(found["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "A bird."}], "finish_reason": "stop"}
    ]


class Loud:
    """A filter."""

    def feed(self, text: str) -> str:
        return text.upper()

    def flush(self) -> str:
        return ""


async def test_what_a_processor_made_of_an_answer_is_what_the_client_got_not_what_the_model_said() -> None:
    async def around(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        response.rewrite(lambda _: Loud())
        return response

    async with (
        collector() as receiver,
        Upstream(reply(completion("A bird."))) as upstream,
        Proxy(processed(traced(upstream, receiver, capture_content=True)), plugins=[Processing(around)]) as proxy,
    ):
        assert b"A BIRD." in (await post(proxy)).body
        spans = await receiver.received(2)

    assert "A BIRD." in one(spans, "SERVER").attributes["gen_ai.output.messages"]
    assert "gen_ai.output.messages" not in one(spans, "CLIENT").attributes
    assert "What is a canary?" in one(spans, "CLIENT").attributes["gen_ai.input.messages"]


async def test_an_answer_that_a_processor_keeps_is_that_of_its_own_call() -> None:
    async def around(exchange: Exchange, call_next: Handler) -> Response:
        async with exchange.child(exchange.request) as child:
            response = await call_next(child)
            response.keep_body(1 << 20)
            await response.reply()
        return await call_next(exchange)

    async with (
        collector() as receiver,
        Upstream(reply(completion("A bird."))) as upstream,
        Proxy(processed(traced(upstream, receiver, capture_content=True)), plugins=[Processing(around)]) as proxy,
    ):
        upstream.then(reply(completion("A hint.")))
        assert (await post(proxy)).status == 200
        spans = await receiver.received(4)

    server, inner = one(spans, "SERVER"), one(spans, "INTERNAL")
    [own] = [it for it in spans if it.kind == "CLIENT" and it.parent_id == inner.span_id]
    assert "A bird." in server.attributes["gen_ai.output.messages"]
    assert "A hint." in own.attributes["gen_ai.output.messages"]


async def test_content_is_bounded_and_stays_json() -> None:
    long = {**HELLO, "messages": [{"role": "user", "content": f"{number} " + "x" * 5000} for number in range(50)]}
    async with (
        collector() as receiver,
        Upstream(reply(completion("y" * 50_000))) as upstream,
        Proxy(traced(upstream, receiver, capture_content=True, max_content_bytes=2000)) as proxy,
    ):
        await post(proxy, long)
        spans = await receiver.received(2)

    found = one(spans, "CLIENT").attributes
    for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
        assert json.loads(found[name])
        assert len(found[name]) < 3000
    assert json.loads(found["gen_ai.input.messages"])[-1]["parts"][0]["content"].startswith("49 ")


async def test_what_others_choose_is_bounded_where_it_should_be_a_word_too() -> None:
    long = "x" * 100_000
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": f"{number}{long}", "type": "function", "function": function} for number in range(50)]
    turns = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        *[{"role": "tool", "tool_call_id": it["id"], "content": "done"} for it in calls],
    ]
    answer = completion("Hi", finish="stop" + long)
    async with (
        collector() as receiver,
        Upstream(reply(answer)) as upstream,
        Proxy(traced(upstream, receiver, capture_content=True, max_content_bytes=2000)) as proxy,
    ):
        await post(proxy, {**HELLO, "messages": turns, "reasoning_effort": long})
        spans = await receiver.received(2)

    found = one(spans, "CLIENT").attributes
    assert found["gen_ai.request.reasoning.level"].startswith("xxx")
    assert max(len(value) for it in spans for value in it.attributes.values() if isinstance(value, str)) < 3000


async def test_of_two_callers_traces_neither_is_gone_on_with() -> None:
    body = json.dumps(HELLO).encode()
    twice = "".join(f"traceparent: 00-{digit * 32}-{PARENT}-01\r\n" for digit in "12")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{twice}"
    async with (
        collector() as receiver,
        Upstream(bird(streamed=False)) as upstream,
        Proxy(traced(upstream, receiver)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        spans = await receiver.received(2)

    assert not {it.trace_id for it in spans} & {"1" * 32, "2" * 32}
    assert one(spans, "SERVER").parent_id in ("", None)


async def test_what_was_asked_for_is_told_of_a_conversation_that_nobody_here_can_read() -> None:
    async with (
        collector() as receiver,
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(traced(upstream, receiver)) as proxy,
    ):
        await post(proxy, {**HELLO, "messages": [{"role": "user", "content": 7}]})
        spans = await receiver.received(2)

    assert one(spans, "CLIENT").attributes["gen_ai.request.temperature"] == 0.5


async def test_numbers_that_the_conventions_have_as_doubles_are_doubles_however_they_are_said() -> None:
    whole = {"temperature": 0, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 2}
    async with (
        collector() as receiver,
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(traced(upstream, receiver)) as proxy,
    ):
        await post(proxy, {**HELLO, **whole})
        found = one(await receiver.received(2), "CLIENT").attributes

    said = [found[f"gen_ai.request.{name}"] for name in whole]
    assert said == list(whole.values())
    assert {type(it) for it in said} == {float}


async def test_a_mistake_in_a_dialect_costs_a_span_nothing_but_the_parameters(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(dialect: Dialect, api: Api, body: bytes) -> ChatRequest:
        raise KeyError(api.name)

    monkeypatch.setattr(OpenAIDialect, "read_parameters", fail)
    async with collector() as receiver, Upstream(reply(completion("Hi"))) as upstream:
        upstream.then(fails(429))
        made = traced(upstream, receiver)
        made["llm"]["openai"]["retries"] = QUICK
        async with Proxy(made) as proxy:
            await post(proxy)
            spans = await receiver.received(3)

    assert sorted(it.kind for it in spans) == ["CLIENT", "CLIENT", "SERVER"]
    assert caplog.text.count("KeyError: 'openai.chat'") == 2  # once for each attempt


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"\\ud83d"}]}',
        b'{"model":"gpt-4o-mini","messages":"nothing","temperature":"hot"}',
        b'{"model":"gpt-4o-mini","messages":[],"seed":123456789012345678901234567890,"n":-1,"stop":[1,2]}',
        b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}',
    ],
)
async def test_whatever_is_asked_the_spans_are_made(body: bytes) -> None:
    async with (
        collector() as receiver,
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(traced(upstream, receiver, capture_content=True)) as proxy,
    ):
        await ask("POST", f"{proxy.base_url}/chat/completions", body, [("content-type", "application/json")])
        await post(proxy)
        await receiver.until(lambda: len(receiver.named("SERVER")) == len(proxy.exchanges))
