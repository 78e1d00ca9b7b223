"""The header that tells what became of a request names what meant something: no default that an SDK always sends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import llmproxy_ollama
import pytest

from tests.exact import post
from tests.proxy import Proxy
from tests.speaking import PROVIDERS, Speaker, llm_at
from tests.upstream import Upstream, reply

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral, llmproxy_ollama)
LLMS = (*PROVIDERS, "ollama")
USUAL: Mapping[str, Mapping[str, Any]] = {
    "openai": {
        "store": False,
        "metadata": {},
        "service_tier": "auto",
        "logit_bias": {},
        "n": 1,
        "logprobs": False,
        "modalities": ["text"],
        "response_format": {"type": "text"},
        "parallel_tool_calls": True,
        "verbosity": "medium",
        "user": None,
    },
    "openai-responses": {
        "store": False,
        "metadata": {},
        "service_tier": "auto",
        "include": [],
        "truncation": "disabled",
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "parallel_tool_calls": True,
        "background": False,
        "top_logprobs": 0,
        "previous_response_id": None,
    },
    "anthropic": {"service_tier": "auto", "metadata": {}, "stop_sequences": []},
}
TOLD: Mapping[str, Mapping[str, Any]] = {
    "openai": {"store": True, "service_tier": "flex", "metadata": {"a": "b"}},
    "openai-responses": {"store": True, "service_tier": "flex", "metadata": {"a": "b"}},
}


async def changed(client: str, llm: str, fields: Mapping[str, Any]) -> str | None:
    """What the client is told that became of a request with *fields*."""
    speaker = Speaker(client)
    async with Upstream(reply({"error": {"message": "no"}}, 418)) as upstream:
        table = {"provider": "ollama", "base_url": upstream.url} if llm == "ollama" else llm_at(llm, upstream.url)
        mapping = {"llm": {"it": table}, "route": [{"path_prefix": "/", "target_llm": "it"}]}
        async with Proxy(mapping, plugins=PLUGINS) as proxy:
            body = json.loads(speaker.body(stream=False, model="m")) | fields
            path = speaker.path(stream=False, model="m")
            seen = await post(proxy.url + path, json.dumps(body).encode(), speaker.headers())
    assert seen.status == 418, seen.body
    return seen.header("x-llmproxy-changed")


@pytest.mark.parametrize("llm", LLMS)
@pytest.mark.parametrize(("client", "name"), [(client, name) for client, fields in USUAL.items() for name in fields])
async def test_what_comes_of_itself_is_neither_refused_nor_told(client: str, name: str, llm: str) -> None:
    assert await changed(client, llm, {name: USUAL[client][name]}) is None
    assert await changed(client, llm, {name: None}) is None


@pytest.mark.parametrize("llm", ["anthropic", "gemini", "ollama"])
@pytest.mark.parametrize(("client", "name"), [(client, name) for client, fields in TOLD.items() for name in fields])
async def test_what_meant_something_is_told(client: str, name: str, llm: str) -> None:
    assert await changed(client, llm, {name: TOLD[client][name]}) == f"{name}=dropped"
