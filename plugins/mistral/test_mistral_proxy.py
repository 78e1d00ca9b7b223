"""Mistral behind the proxy and before it, over real sockets."""

import json
from typing import Any

import llmproxy_mistral
import pytest

from llmproxy_core.testing.grammar import check_stream
from tests.answers import chat_chunk, completion, error, replay, reply, stream
from tests.exact import post
from tests.proxy import SECRET, Proxy
from tests.recordings import recording
from tests.upstream import Upstream

ENV = {"MISTRAL_TEST_KEY": SECRET}
HI = [{"role": "user", "content": "hi"}]
OPENAI_AGENT = [("user-agent", "OpenAI/Python 2.54.0")]
MISTRAL_AGENT = [("user-agent", "mistral-client-python/3.7.0")]


def proxy_of(provider: str, base_url: str, **route: object) -> Proxy:
    llm = {"provider": provider, "base_url": base_url, "token_env": "MISTRAL_TEST_KEY"}
    mapping = {"llm": {"it": llm}, "route": [{"path_prefix": "/v1", "target_llm": "it", **route}]}
    return Proxy(mapping, plugins=[llmproxy_mistral], env=ENV)


def ask_for(**members: Any) -> bytes:
    return json.dumps({"model": "mistral-large-latest", "messages": HI, **members}).encode()


async def test_a_client_of_openai_is_answered_by_mistral_in_its_own_words() -> None:
    recorded = recording("mistral/chat-stream-mistral-model-thinking-part-iter-0")
    async with Upstream(replay(recorded)) as upstream, proxy_of("mistral", upstream.base_url) as proxy:
        body = ask_for(stream=True, stream_options={"include_usage": True}, temperature=1.9, max_completion_tokens=5)
        seen = await post(proxy.base_url + "/chat/completions", body, OPENAI_AGENT)
        sent = upstream.requests[0]

    assert check_stream("openai", seen.body, usage=True) == []
    assert json.loads(sent.body) == {
        "model": "mistral-large-latest",
        "messages": HI,
        "stream": True,
        "max_tokens": 5,
        "temperature": 1.5,
    }
    assert seen.header("x-llmproxy-changed") == "temperature=clamped"
    assert dict(sent.headers)["authorization"] == f"Bearer {SECRET}"


async def test_a_client_of_mistral_gets_mistrals_bytes() -> None:
    recorded = recording("mistral/chat-stream-mistral-chat-model-few-shot-prompt-0")
    async with Upstream(replay(recorded)) as upstream, proxy_of("mistral", upstream.base_url) as proxy:
        seen = await post(proxy.base_url + "/chat/completions", recorded.request_body, MISTRAL_AGENT)
        sent = upstream.requests[0]

    assert seen.body == recorded.response_body.rstrip(b"\n") + b"\n\n"
    assert sent.body == recorded.request_body


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_client_of_mistral_is_answered_by_openai(streamed: bool) -> None:
    told = stream(chat_chunk("Hello"), chat_chunk(None, finish="stop")) if streamed else reply(completion("Hello"))
    async with Upstream(told) as upstream, proxy_of("openai", upstream.base_url) as proxy:
        body = ask_for(stream=streamed, random_seed=7, tool_choice="auto")
        seen = await post(proxy.base_url + "/chat/completions", body, MISTRAL_AGENT)
        sent = json.loads(upstream.requests[0].body)

    assert (sent["seed"], sent["stream"] if streamed else None) == (7, True if streamed else None)
    assert "random_seed" not in sent
    if streamed:
        assert check_stream("mistral", seen.body) == []
        assert b"Hello" in seen.body
    else:
        assert json.loads(seen.body)["choices"][0]["message"]["content"] == "Hello"


async def test_what_openai_cannot_say_is_refused_in_mistrals_words_or_dropped() -> None:
    async with Upstream(reply(completion("Hello"))) as upstream:
        async with proxy_of("openai", upstream.base_url) as proxy:
            refused = await post(proxy.base_url + "/chat/completions", ask_for(safe_prompt=True), MISTRAL_AGENT)
        async with proxy_of("openai", upstream.base_url, on_unsupported="drop") as proxy:
            dropped = await post(proxy.base_url + "/chat/completions", ask_for(safe_prompt=True), MISTRAL_AGENT)

    told = json.loads(refused.body)
    assert (refused.status, told["object"], told["param"]) == (400, "error", "safe_prompt")
    assert "'it'" in told["message"]
    assert (dropped.status, dropped.header("x-llmproxy-changed")) == (200, "safe_prompt=dropped")


async def test_an_error_of_mistrals_is_told_in_openais_words() -> None:
    recorded = recording("mistral/chat-json-made-error422-validation")
    async with Upstream(replay(recorded)) as upstream, proxy_of("mistral", upstream.base_url) as proxy:
        seen = await post(proxy.base_url + "/chat/completions", ask_for(), OPENAI_AGENT)

    assert seen.status == 422
    assert "less than or equal to 1.5" in json.loads(seen.body)["error"]["message"]


async def test_an_error_of_openais_is_told_in_mistrals_words() -> None:
    async with (
        Upstream(reply(error("Slow down", code="rate_limit_exceeded"), 429, [("retry-after", "7")])) as upstream,
        proxy_of("openai", upstream.base_url) as proxy,
    ):
        seen = await post(proxy.base_url + "/chat/completions", ask_for(), MISTRAL_AGENT)

    assert (seen.status, seen.header("retry-after")) == (429, "7")
    assert json.loads(seen.body)["object"] == "error"
    assert json.loads(seen.body)["type"] == "rate_limited"


async def test_embeddings_cross_between_the_two() -> None:
    recorded = recording("mistral/embeddings-json-embeddings-mistral-legacy-0")
    async with Upstream(replay(recorded)) as upstream, proxy_of("mistral", upstream.base_url) as proxy:
        body = json.dumps({"model": "mistral-embed", "input": ["a"], "dimensions": 8, "encoding_format": "base64"})
        seen = await post(proxy.base_url + "/embeddings", body.encode(), OPENAI_AGENT)
        sent = json.loads(upstream.requests[0].body)

    assert sent == {"model": "mistral-embed", "input": ["a"], "output_dimension": 8}
    assert isinstance(json.loads(seen.body)["data"][0]["embedding"], str)


def test_the_provider_knows_where_it_is() -> None:
    (provider,) = llmproxy_mistral.llmproxy_providers()

    assert provider.config(name="m", provider="mistral").base_url == "https://api.mistral.ai/v1"


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]], ids=str)
async def test_tokens_to_embed_are_refused_by_the_name_of_their_member(tokens: object) -> None:
    async with Upstream(reply({})) as upstream, proxy_of("mistral", upstream.base_url) as proxy:
        body = json.dumps({"model": "mistral-embed", "input": tokens}).encode()
        seen = await post(proxy.base_url + "/embeddings", body, OPENAI_AGENT)

        assert upstream.requests == []
    error = json.loads(seen.body)["error"]
    assert (seen.status, error["param"]) == (400, "input")
    assert "texts as tokens" in error["message"]
    assert "'it'" in error["message"]
