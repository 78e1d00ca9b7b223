"""The dialect and the provider in a real proxy: paths, keys, bytes."""

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import llmproxy_gemini
import pytest

from llmproxy_core import Carried, seal
from tests.proxy import SECRET, Proxy
from tests.recordings import recording
from tests.upstream import Upstream, replay, reply

ASK: dict[str, list[Any]] = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
KEY = {"x-goog-api-key": "the-callers-own"}
MODEL = "/v1beta/models/gemini-2.5-flash"
SSE = recording("streamGenerate-stream-google-model-web-search-tool-stream-0")
ARRAY = recording("streamGenerate-json-gemini-tools-1")
PLAIN = recording("generate-json-call-google-encodes-messages-and-all-params-0")
each = pytest.mark.parametrize


def gemini_at(url: str, **llm: object) -> dict[str, Any]:
    return {
        "llm": {"main": {"provider": "gemini", "base_url": url, "token_env": "KEY", **llm}},
        "route": [{"path_prefix": "/", "target_llm": "main"}],
    }


def proxy_at(url: str, **llm: object) -> Proxy:
    return Proxy(gemini_at(url, **llm), plugins=[llmproxy_gemini])


async def ask(
    proxy: Proxy, path: str, body: object = ASK, headers: Mapping[str, str] = KEY, method: str = "POST"
) -> tuple[int, bytes, Mapping[str, str]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method,
            proxy.url + path,
            data=data if method == "POST" else None,
            headers={"content-type": "application/json", **headers},
        ) as answer,
    ):
        return answer.status, await answer.read(), answer.headers


@each("size", [1, 7, 1000])
async def test_a_stream_of_events_passes_byte_for_byte(size: int) -> None:
    async with (
        Upstream(replay(SSE, size)) as upstream,
        proxy_at(upstream.url) as proxy,
    ):
        status, body, headers = await ask(proxy, MODEL + ":streamGenerateContent?alt=sse&key=the-callers-own")

        received = await upstream.received()
        outcome = await proxy.outcome()
    assert (status, body) == (200, SSE.response_body)
    assert headers["content-type"].startswith("text/event-stream")
    assert received.target == MODEL + ":streamGenerateContent?alt=sse"
    assert received.header("x-goog-api-key") == SECRET
    assert received.body == json.dumps(ASK).encode()
    assert outcome.usage is not None
    assert (outcome.usage.input_tokens, outcome.usage.reasoning_tokens) == (119, 412)


async def test_a_stream_that_is_an_array_passes_byte_for_byte() -> None:
    async with (
        Upstream(replay(ARRAY, 7)) as upstream,
        proxy_at(upstream.url) as proxy,
    ):
        status, body, headers = await ask(proxy, MODEL + ":streamGenerateContent")

        received = await upstream.received()
        outcome = await proxy.outcome()
    assert (status, body) == (200, ARRAY.response_body)
    assert headers["content-type"].startswith("application/json")
    assert received.target == MODEL + ":streamGenerateContent"
    assert outcome.usage is not None
    assert outcome.usage.total_tokens == 118


@each("path", [MODEL, "/v1/models/gemini-2.5-flash", "/v1beta/tunedModels/mine"])
async def test_a_plain_call_finds_its_path_at_the_provider(path: str) -> None:
    async with (
        Upstream(reply(PLAIN.response_body)) as upstream,
        proxy_at(upstream.url) as proxy,
    ):
        status, body, _ = await ask(proxy, path + ":generateContent")

        received = await upstream.received()
    assert (status, body) == (200, PLAIN.response_body)
    assert received.target == "/v1beta/" + path.split("/", 2)[2] + ":generateContent"


async def test_the_callers_key_stays_here() -> None:
    async with Upstream(reply(PLAIN.response_body)) as upstream, proxy_at(upstream.url) as proxy:
        await ask(
            proxy, MODEL + ":generateContent?key=the-callers-own", headers={"authorization": "Bearer the-callers-own"}
        )

        received = await upstream.received()
    assert "the-callers-own" not in received.target
    assert all("the-callers-own" not in value for _, value in received.headers)


async def test_a_model_that_is_mapped_is_shown_as_it_was_asked_for() -> None:
    async with (
        Upstream(reply(PLAIN.response_body)) as upstream,
        proxy_at(upstream.url, models={"fast": "gemini-2.5-flash"}) as proxy,
    ):
        _, body, _ = await ask(proxy, "/v1beta/models/fast:generateContent")

        received = await upstream.received()
    assert received.target.startswith("/v1beta/models/gemini-2.5-flash:")
    assert json.loads(body) == json.loads(PLAIN.response_body) | {"modelVersion": "fast"}


@each(
    ("headers", "member"),
    [(KEY, "models"), ({"authorization": "Bearer the-callers-own"}, "data"), ({}, "data")],
)
async def test_lists_of_models_have_the_form_of_who_asks(headers: Mapping[str, str], member: str) -> None:
    async with (
        Upstream(reply(b'{"models":[{"name":"models/gemini-2.5-flash"}]}')) as upstream,
        proxy_at(upstream.url, models=["gemini-2.5-flash"]) as proxy,
    ):
        status, body, _ = await ask(proxy, "/v1/models", headers=headers, method="GET")

    assert status == 200
    assert [it.get("name") or it.get("id") for it in json.loads(body)[member]] in (
        [["models/gemini-2.5-flash"]] if member == "models" else [["gemini-2.5-flash"]]
    )


async def test_a_client_of_openai_gets_an_answer_of_gemini() -> None:
    async with (
        Upstream(replay(SSE)) as upstream,
        proxy_at(upstream.url) as proxy,
    ):
        asked = {"model": "gemini-2.5-pro", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
        status, body, _ = await ask(proxy, "/v1/chat/completions", asked, {"authorization": "Bearer x"})

        received = await upstream.received()
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")
    assert b"San Francisco" in body
    assert received.target == "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    assert json.loads(received.body) == ASK


@each("tokens", [[1, 2, 3], [[1, 2], [3]], ["a", [1]]])
async def test_tokens_to_embed_are_refused_by_the_name_of_their_member(tokens: object) -> None:
    async with Upstream(reply(b"{}")) as upstream, proxy_at(upstream.url) as proxy:
        status, body, _ = await ask(
            proxy, "/v1/embeddings", {"model": "gemini-embedding-001", "input": tokens}, {"authorization": "Bearer x"}
        )

        assert upstream.requests == []
    error = json.loads(body)["error"]
    assert (status, error["param"]) == (400, "input")
    assert "texts as tokens" in error["message"]
    assert "'main'" in error["message"]


async def test_thinking_of_another_provider_in_the_history_is_not_sent() -> None:
    sealed = seal(Carried("anthropic", signature="sig"))
    thought = [{"text": "Hm", "thought": True}, {"text": "", "thought": True, "thoughtSignature": sealed}]
    history = {"role": "model", "parts": [*thought, {"text": "Hi", "x": 1.0}]}
    async with Upstream(reply(PLAIN.response_body)) as upstream, proxy_at(upstream.url) as proxy:
        status, _, _ = await ask(proxy, MODEL + ":generateContent", {"contents": [*ASK["contents"], history]})

        received = await upstream.received()
    assert status == 200
    assert json.loads(received.body) == {
        "contents": [*ASK["contents"], {"role": "model", "parts": [{"text": "Hi", "x": 1.0}]}]
    }


async def test_a_cut_stream_ends_in_an_error_and_not_in_silence() -> None:
    cut = SSE.response_body[: SSE.response_body.index(b"\r\n\r\n") + 4]
    async with (
        Upstream(replay(SSE, body=cut)) as upstream,
        proxy_at(upstream.url) as proxy,
        aiohttp.ClientSession() as session,
    ):
        url = proxy.url + MODEL + ":streamGenerateContent?alt=sse"
        async with session.post(url, json=ASK, headers=KEY) as answer:
            body = await _as_far_as_it_goes(answer)

    assert body.startswith(cut)
    error = json.loads(body[len(cut) :].removeprefix(b"data: "))["error"]
    assert (error["code"], error["status"]) == (502, "UNAVAILABLE")


async def _as_far_as_it_goes(answer: aiohttp.ClientResponse) -> bytes:
    """The body up to where the connection broke."""
    body = b""
    try:
        async for piece in answer.content.iter_any():
            body += piece
    except aiohttp.ClientPayloadError:
        return body
    raise AssertionError("the connection ended as if the answer were whole")
