"""A translated stream that fails before it has answered anything is an error with a status, as a plain answer is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core import End, Exchange, GuardrailBlocked, Handler, Response, UpstreamError
from llmproxy_core.testing.grammar import check_stream
from tests.exact import Seen, post
from tests.llmproxy_server.edging import Processing, processed
from tests.proxy import Proxy
from tests.rawclient import Client, connected
from tests.speaking import SPEAKERS, Speaker, llm_at
from tests.upstream import EVENT_STREAM, Chunk, Cut, Head, Script, Upstream, Wait
from tests.upstream import End as Over

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)


def _named(*events: Mapping[str, Any]) -> list[bytes]:
    return [b"event: %b\ndata: %b\n\n" % (it["type"].encode(), json.dumps(it).encode()) for it in events]


def _plain(*events: object) -> list[bytes]:
    return [b"data: %b\n\n" % json.dumps(it).encode() for it in events]


_MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
}
_RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "in_progress", "output": []}
_LIMIT = {"code": "rate_limit_exceeded", "message": "Slow down"}
_BROKEN = {"status": "failed", "error": _LIMIT}
_CHUNK = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
_ROLE = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
_TEXT = {"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}
_GOOGLES = {"code": 429, "message": "Slow down", "status": "RESOURCE_EXHAUSTED"}
_RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "6.5s"}

BEGUN: Mapping[str, list[bytes]] = {
    "anthropic": _named(
        {"type": "message_start", "message": {**_MESSAGE, "usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "ping"},
    ),
    "openai-responses": _named(
        {"type": "response.created", "sequence_number": 0, "response": _RESPONSE},
        {"type": "response.in_progress", "sequence_number": 1, "response": _RESPONSE},
    ),
    "gemini": _plain({"usageMetadata": {"promptTokenCount": 3}, "modelVersion": "m", "responseId": "r"}),
    "openai": _plain({**_CHUNK, "choices": [_ROLE]}),
}
FAILED: Mapping[str, list[bytes]] = {
    "anthropic": _named({"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}}),
    "openai-responses": _named(
        {"type": "error", "sequence_number": 2, "error": {"type": "tokens", "param": None, **_LIMIT}},
        {"type": "response.failed", "sequence_number": 3, "response": _RESPONSE | _BROKEN},
    ),
    "gemini": _plain({"error": {**_GOOGLES, "details": [_RETRY]}}),
    "openai": _plain({"error": {"message": "Slow down", "type": "requests", "code": 429}}),
}  # fmt: skip
SAID: Mapping[str, list[bytes]] = {
    "anthropic": _named(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    ),
    "openai": _plain({**_CHUNK, "choices": [_TEXT]}),
}


def foreign(*llms: str, speakers: Iterable[Speaker] = SPEAKERS) -> pytest.MarkDecorator:
    """Clients with LLMs of other protocols."""
    pairs = [(speaker, llm) for llm in llms for speaker in speakers if speaker.name != llm]
    return pytest.mark.parametrize(("speaker", "llm"), pairs, ids=[f"{speaker} of {llm}" for speaker, llm in pairs])


def mapping(llm: str, url: str, **keys: object) -> dict[str, Any]:
    route = {"path_prefix": "/", "target_llm": "it", **keys}
    return {"llm": {"it": llm_at(llm, url)}, "route": [route], "server": {"keepalive_s": 0.1}}


def script(*chunks: bytes, end: Any = None) -> Script:
    return [Head(200, EVENT_STREAM), *map(Chunk, chunks), end or Over()]


async def asked(proxy: Proxy, speaker: Speaker) -> Seen:
    path = speaker.path(stream=True, model="m")
    return await post(proxy.url + path, speaker.body(stream=True, model="m"), speaker.headers())


def send(client: Client, speaker: Speaker) -> None:
    body = speaker.body(stream=True, model="m")
    headers = [*speaker.headers(), ("content-type", "application/json"), ("content-length", str(len(body)))]
    fields = [f"{name}: {value}" for name, value in [("host", "127.0.0.1"), *headers]]
    head = [f"POST {speaker.path(stream=True, model='m')} HTTP/1.1", *fields]
    client.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)


@foreign(*BEGUN)
async def test_an_error_after_the_start_has_its_status(speaker: Speaker, llm: str) -> None:
    async with (
        Upstream(script(*BEGUN[llm], *FAILED[llm])) as upstream,
        Proxy(mapping(llm, upstream.url), plugins=PLUGINS) as proxy,
    ):
        seen = await asked(proxy, speaker)
        outcome = await proxy.outcome()

    assert (seen.status, seen.whole) == (429, True)
    assert seen.header("content-type") == "application/json"
    assert b"Slow down" in seen.body
    if llm == "gemini":
        assert seen.header("retry-after") == "7"
    assert outcome.end is End.FAILED
    assert isinstance(outcome.error, UpstreamError)
    assert (outcome.error.status, outcome.error.upstream_status) == (429, 200)


@foreign("anthropic", "openai-responses", "openai")
@pytest.mark.parametrize("end", [Over(), Cut()], ids=["over", "cut"])
async def test_an_end_after_the_start_has_a_status(speaker: Speaker, llm: str, end: Any) -> None:
    async with (
        Upstream(script(*BEGUN[llm], end=end)) as upstream,
        Proxy(mapping(llm, upstream.url), plugins=PLUGINS) as proxy,
    ):
        seen = await asked(proxy, speaker)

    assert seen.status in (502, 503)
    assert seen.whole


@foreign(*SAID)
async def test_what_has_been_said_goes_on_at_once_and_then_the_error_is_an_event(
    speaker: Speaker, llm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmproxy_server.call_stream.HEAD_HELD_S", 3600)
    go_on = asyncio.Event()
    steps: Script = [
        Head(200, EVENT_STREAM),
        *map(Chunk, [*BEGUN[llm], *SAID[llm]]),
        Wait(go_on),
        Chunk(FAILED[llm][0]),
        Over(),
    ]
    async with (
        Upstream(steps) as upstream,
        Proxy(mapping(llm, upstream.url), plugins=PLUGINS) as proxy,
        connected(proxy.port) as client,
    ):
        send(client, speaker)
        before = await client.until(b"Hello")
        go_on.set()
        after = await client.rest()

    assert before.startswith(b"HTTP/1.1 200 ")
    assert b"Slow down" in after
    assert not after.endswith(b"0\r\n\r\n")


@foreign("anthropic", "openai-responses", speakers=(Speaker("openai"), Speaker("mistral")))
async def test_a_provider_that_is_silent_after_the_start_keeps_no_head_back(speaker: Speaker, llm: str) -> None:
    """The head goes out after a second, what was held with it; signs of life follow, and the error is an event."""
    go_on = asyncio.Event()
    steps: Script = [Head(200, EVENT_STREAM), *map(Chunk, BEGUN[llm]), Wait(go_on), *map(Chunk, FAILED[llm]), Over()]
    sign = speaker.dialect.keepalive(speaker.api(stream=True))
    first = b'"role":"assistant"'
    async with Upstream(steps) as upstream, Proxy(mapping(llm, upstream.url), plugins=PLUGINS) as proxy:
        async with connected(proxy.port) as client:
            send(client, speaker)
            sent = await client.until(b"\r\n\r\n")
            sent += await client.until(first)
            sent += await client.until(sign)
            go_on.set()
            sent += await client.rest()
        outcome = await proxy.outcome()

    assert sent.startswith(b"HTTP/1.1 200 ")
    assert sent.count(first) == 1
    assert b"Slow down" in sent
    assert outcome.end is End.FAILED
    body = b"".join(sent.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])  # one chunk a write, and no CRLF inside
    assert check_stream(speaker.name, body, failed=True, strict=False) == []


async def test_what_a_guard_refuses_at_its_first_word_has_a_status() -> None:
    class Refusing:
        def feed(self, text: str) -> None:
            raise GuardrailBlocked("Not this word")

        def end(self) -> None:
            pass

    async def around(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        response.watch(lambda channel: Refusing())
        return response

    async with Upstream(script(*BEGUN["anthropic"], *SAID["anthropic"])) as upstream:
        table = processed(mapping("anthropic", upstream.url))
        async with Proxy(table, plugins=[*PLUGINS, Processing(around)]) as proxy:
            seen = await asked(proxy, Speaker("openai"))

    assert seen.status == 400
    assert b"Not this word" in seen.body
