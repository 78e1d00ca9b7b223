"""Paths that several protocols share: what a client says of itself tells them apart, else its body, else the LLM."""

from __future__ import annotations

import json
from collections.abc import Mapping

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core.headers import Headers
from tests.proxy import Proxy
from tests.speaking import PROVIDERS, llm_at

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)
CHAT = ("POST", "/v1/chat/completions")
EMBED = ("POST", "/v1/embeddings")
LIST = ("GET", "/v1/models")
ENTRY = ("GET", "/v1/models/m-1")

OPENAI_SDK = {"user-agent": "AsyncOpenAI/Python 3.54.0"}
MISTRAL_SDK = {"user-agent": "mistral-client-python/3.7.0"}
AI_SDK = {"user-agent": "ai/7.0.173 ai-sdk-provider-utils/5.0.81 node.js/24"}
ANTHROPIC_SDK = {"anthropic-version": "2026-10-21", "user-agent": "Anthropic/JS 1.12.0"}
GOOGLE_SDK = {"x-goog-api-key": "k", "user-agent": "google-genai-sdk/3.4.0"}


def _proxy(llm: str, **route: object) -> Proxy:
    """The proxy before an LLM that speaks *llm*, with one route."""
    routes = [{"path_prefix": "/", "target_llm": "x", **route}]
    return Proxy({"llm": {"x": llm_at(llm, "http://127.0.0.1:1")}, "route": routes}, plugins=PLUGINS)


async def _spoken(
    proxy: Proxy, ask: tuple[str, str], headers: Mapping[str, str], *, query: str = "", body: object = None
) -> str:
    async with proxy:
        match = proxy.gateway.match(*ask).as_asked(Headers(list(headers.items())), query)
    return (match if body is None else match.as_said(json.dumps(body).encode())).dialect.name


@pytest.mark.parametrize("llm", PROVIDERS)
@pytest.mark.parametrize(
    ("ask", "headers", "query", "dialect"),
    [
        (CHAT, OPENAI_SDK, "", "openai"),
        (CHAT, MISTRAL_SDK, "", "mistral"),
        (EMBED, MISTRAL_SDK, "", "mistral"),
        (LIST, OPENAI_SDK, "", "openai"),
        (LIST, MISTRAL_SDK, "", "mistral"),
        (LIST, ANTHROPIC_SDK, "", "anthropic"),
        (LIST, GOOGLE_SDK, "", "gemini"),
        (LIST, {}, "key=k", "gemini"),
        (LIST, AI_SDK, "", "openai"),
        (ENTRY, ANTHROPIC_SDK, "", "anthropic"),
        (ENTRY, GOOGLE_SDK, "", "gemini"),
        (("POST", "/v1/messages"), {}, "", "anthropic"),
        (("POST", "/v1/models/m-1:generateContent"), {}, "", "gemini"),
    ],
)
async def test_a_client_is_known_by_what_it_says_of_itself(
    llm: str, ask: tuple[str, str], headers: Mapping[str, str], query: str, dialect: str
) -> None:
    assert await _spoken(_proxy(llm), ask, headers, query=query) == dialect


@pytest.mark.parametrize("llm", PROVIDERS)
@pytest.mark.parametrize(
    ("ask", "body", "dialect"),
    [
        (CHAT, {"model": "m", "messages": [], "stream_options": {"include_usage": True}}, "openai"),
        (CHAT, {"model": "m", "messages": [], "seed": 1}, "openai"),
        (CHAT, {"model": "m", "messages": [], "random_seed": 1}, "mistral"),
        (CHAT, {"model": "m", "messages": [], "safe_prompt": True}, "mistral"),
        (EMBED, {"model": "m", "input": "a", "dimensions": 4}, "openai"),
        (EMBED, {"model": "m", "input": "a", "output_dimension": 4}, "mistral"),
    ],
)
async def test_a_client_that_says_nothing_is_known_by_a_member_that_no_other_protocol_has(
    llm: str, ask: tuple[str, str], body: object, dialect: str
) -> None:
    spoken = await _spoken(_proxy(llm), ask, AI_SDK, body=body)

    assert spoken.removesuffix("-responses") == dialect  # OpenAI's two protocols have the same embeddings


@pytest.mark.parametrize("llm", PROVIDERS)
@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        # The caller's own words are no members of the request.
        {"model": "m", "messages": [], "tools": [{"seed": {}, "safe_prompt": {}, "user": {}}]},
    ],
)
async def test_a_client_that_nothing_tells_of_speaks_as_the_llm_does_or_as_openai(llm: str, body: object) -> None:
    dialect = "mistral" if llm == "mistral" else "openai"

    assert await _spoken(_proxy(llm), CHAT, AI_SDK, body=body) == dialect


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize("llm", PROVIDERS)
async def test_a_route_may_say_what_its_clients_speak(llm: str, dialect: str) -> None:
    proxy = _proxy(llm, dialect=dialect)

    assert await _spoken(proxy, CHAT, AI_SDK, body={"model": "m", "messages": []}) == dialect


async def test_a_body_that_is_no_json_tells_nothing() -> None:
    async with _proxy("anthropic") as proxy:
        match = proxy.gateway.match(*CHAT).as_asked(Headers([]), "")

    assert match.as_said(b'{"random_seed": ') is match
