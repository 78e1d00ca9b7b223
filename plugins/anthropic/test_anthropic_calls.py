"""Calls through a real proxy: our clients and others, in front of the provider and of another one."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import llmproxy_anthropic
import pytest

from llmproxy_core.testing.grammar import check_stream
from tests.providers.anthropic import Anthropic
from tests.providers.openai import OpenAI
from tests.providers.server import CALLERS_KEY
from tests.proxy import Proxy

VERSION = {"anthropic-version": "2023-06-01"}


class Stand:
    """A proxy with a route to each of the two providers."""

    def __init__(self, proxy: Proxy, anthropic: Anthropic, openai: OpenAI, session: aiohttp.ClientSession) -> None:
        self.proxy, self.anthropic, self.openai, self.session = proxy, anthropic, openai, session

    async def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> tuple[int, Any, bytes]:
        """Status, headers, body."""
        sent = {"authorization": f"Bearer {CALLERS_KEY}", **(headers or {})}
        async with self.session.post(self.proxy.url + path, json=body, headers=sent) as answer:
            return answer.status, answer.headers, await answer.read()

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Any:
        async with self.session.get(self.proxy.url + path, headers=headers) as answer:
            return json.loads(await answer.read())


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with Anthropic() as anthropic, OpenAI() as openai:
        keys = {"ANTHROPIC": anthropic.key, "OPENAI": openai.key}
        mapping = {
            "llm": {
                "claude": {"provider": "anthropic", "base_url": anthropic.base_url, "token_env": "ANTHROPIC"},
                "gpt": {"provider": "openai", "base_url": openai.base_url, "token_env": "OPENAI"},
            },
            "route": [
                {"path_prefix": "/claude", "target_llm": "claude"},
                {"path_prefix": "/gpt", "target_llm": "gpt"},
            ],
        }
        proxy = Proxy(mapping, plugins=[llmproxy_anthropic], env=keys)
        async with proxy, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
            yield Stand(proxy, anthropic, openai, session)


def message(**members: Any) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 2000,
        "messages": [{"role": "user", "content": "hello [chat]"}],
        **members,
    }


async def test_our_own_client_is_passed_through(stand: Stand) -> None:
    headers = {**VERSION, "anthropic-beta": "a-2026,b-2026", "x-api-key": CALLERS_KEY}

    status, answered, body = await stand.post("/claude/v1/messages?beta=true", message(), headers)

    assert status == 200, body
    assert json.loads(body)["type"] == "message"
    assert answered["request-id"]
    (came,) = stand.anthropic.requests
    assert came.headers["anthropic-beta"] == "a-2026,b-2026"
    assert came.query == {"beta": "true"}
    assert "authorization" not in came.headers


async def test_a_client_of_openai_gets_its_chunks(stand: Stand) -> None:
    asked = {
        "model": "claude-sonnet-4-5",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hello [chat]"}],
        "temperature": 1.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }

    status, answered, body = await stand.post("/claude/v1/chat/completions", asked)

    assert status == 200, body
    assert check_stream("openai", body, usage=True) == []
    assert answered["x-llmproxy-changed"] == "max_completion_tokens=defaulted, temperature=clamped"
    (came,) = stand.anthropic.requests
    assert came.headers["anthropic-version"] == "2023-06-01"
    assert came.json["temperature"] == 1


async def test_our_client_is_answered_by_openai(stand: Stand) -> None:
    asked = message(model="gpt-4o", system=[{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}])

    status, _, body = await stand.post("/gpt/v1/messages", asked | {"stream": True}, VERSION)

    assert status == 200, body
    assert check_stream("anthropic", body) == []
    assert stand.openai.refusals == []


async def test_an_error_of_openai_is_told_in_our_words(stand: Stand) -> None:
    status, _, body = await stand.post("/gpt/v1/messages", message(model="gpt-4o", top_k=3), VERSION)

    told = json.loads(body)
    assert (status, told["type"], told["error"]["type"]) == (400, "error", "invalid_request_error")
    assert "top_k" in told["error"]["message"]
    assert "'gpt'" in told["error"]["message"]


async def test_tokens_are_counted_by_the_provider_or_here(stand: Stand) -> None:
    asked = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "hello [chat]"}]}

    _, counted, there = await stand.post("/claude/v1/messages/count_tokens?beta=true", asked, VERSION)
    _, estimated, here = await stand.post("/gpt/v1/messages/count_tokens", asked | {"model": "gpt-4o"}, VERSION)

    assert json.loads(there)["input_tokens"] > 0
    assert "x-llmproxy-token-count" not in counted
    assert json.loads(here)["input_tokens"] > 0
    assert estimated["x-llmproxy-token-count"] == "estimated"


async def test_models_are_listed_in_the_form_of_who_asks(stand: Stand) -> None:
    ours = await stand.get("/claude/v1/models", VERSION)
    theirs = await stand.get("/claude/v1/models")

    assert ours["data"][0]["type"] == "model"
    assert theirs["object"] == "list"


async def test_there_are_no_embeddings(stand: Stand) -> None:
    status, _, body = await stand.post("/claude/v1/embeddings", {"model": "claude-sonnet-4-5", "input": "a"})

    assert status == 400
    assert "claude" in json.loads(body)["error"]["message"]
