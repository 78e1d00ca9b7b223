"""Coding agents with each provider behind the proxy: whole loops of tools, in the shapes of their requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import ClientSession

from llmproxy_core.testing.grammar import check_stream
from tests.clients import claude_code, codex
from tests.clients.cast import PROVIDERS
from tests.clients.stage import Stage
from tests.providers import agents
from tests.providers.scenario import COUNTED, TEXT, THOUGHT
from tests.providers.server import Received

JSON = dict[str, Any]

BEHIND = pytest.mark.parametrize("provider", PROVIDERS)
DROPS = pytest.mark.parametrize("drops", [False, True], ids=["error", "drop"])


def _received(stage: Stage, provider: str, count: int) -> list[Received]:
    """The last *count* requests that came to *provider*."""
    fake = stage.fakes[provider]
    return fake.requests[-count:]


# -- Claude Code -----------------------------------------------------------------------------------------------------


@BEHIND
@DROPS
async def test_claude_code_comes_to_the_end_of_its_task(provider: str, drops: bool, stage: Stage) -> None:
    """All that it says can be said to every provider, or is advice: it needs no `on_unsupported = "drop"`."""
    behind = PROVIDERS[provider]

    played = await claude_code.play(stage.agents_url(provider, drops=drops), behind.models.thinking)

    assert played.error is None
    assert (played.text, played.stop) == (TEXT, "end_turn")
    wanted = [agents.READ, agents.BASH, agents.LOOK, agents.EDIT]
    assert played.calls == [(call.name, call.arguments) for call in wanted]
    shows = behind.thinks and behind.shows_unasked
    assert played.thoughts == ([THOUGHT] * 2 if shows else [])
    for stream in played.streams if provider != "anthropic" else ():  # whose own it is
        assert check_stream("anthropic", stream) == []


async def test_claude_codes_requests_reach_its_own_provider_to_the_byte(stage: Stage) -> None:
    played = await claude_code.play(stage.agents_url("anthropic", drops=False), "claude-sonnet-4-6")

    came = _received(stage, "anthropic", len(played.sent))
    assert [each.body for each in came] == played.sent
    assert {each.headers["anthropic-beta"] for each in came} == {claude_code.BETAS}
    assert {each.headers["anthropic-version"] for each in came} == {"2023-06-01"}
    assert [each.query for each in came] == [{"beta": "true"}] * len(came)
    assert played.changed == [""] * len(came)


CLAUDE_CODE_LOSES = {
    "openai": {"context_management"},
    "openai-responses": {"context_management"},
    "gemini": {"context_management", "metadata.user_id"},
    "mistral": {"context_management", "metadata.user_id"},
}
"""Advice of its requests that a provider cannot be told."""


@pytest.mark.parametrize("provider", CLAUDE_CODE_LOSES)
async def test_claude_code_is_told_what_another_provider_was_not(provider: str, stage: Stage) -> None:
    played = await claude_code.play(stage.agents_url(provider, drops=False), PROVIDERS[provider].models.thinking)

    first = dict(each.split("=") for each in played.changed[0].split(", "))
    # How much a model of Mistral's that always thinks is to think is what it decides itself.
    thinking = {"thinking"} if provider == "mistral" else set()
    assert {place for place, word in first.items() if word == "dropped"} == CLAUDE_CODE_LOSES[provider] | thinking
    for each in _received(stage, provider, len(played.sent)):
        assert b"x-anthropic-billing-header" not in each.body
        assert b"cache_control" not in each.body
        assert not [name for name in each.headers if name.startswith("anthropic-")]


@BEHIND
async def test_claude_code_may_think_in_a_budget(provider: str, stage: Stage) -> None:
    """As it asks models that do not decide themselves how much to think."""
    behind = PROVIDERS[provider]
    budget: JSON = {"thinking": {"type": "enabled", "budget_tokens": 31999}, "output_config": None}

    played = await claude_code.play(stage.agents_url(provider, drops=False), behind.models.thinking, **budget)

    assert (played.text, played.stop) == (TEXT, "end_turn")
    assert played.thoughts == ([THOUGHT] * 2 if behind.thinks else [])


@BEHIND
async def test_claude_codes_tokens_are_counted(provider: str, stage: Stage) -> None:
    asked = claude_code.body(PROVIDERS[provider].models.chat, claude_code.task())
    body = {name: asked[name] for name in ("model", "messages", "system", "tools")}
    url = f"{stage.agents_url(provider, drops=False)}/v1/messages/count_tokens?beta=true"

    async with ClientSession() as session, session.post(url, json=body, headers=claude_code.HEADERS) as answer:
        counted = (await answer.json())["input_tokens"]

    assert counted == COUNTED if PROVIDERS[provider].counts else counted > 1000


@BEHIND
async def test_claude_code_finds_somebody_there(provider: str, stage: Stage) -> None:
    """Before its first request it asks for the head of the base URL; any answer will do, a broken connection not."""
    url = stage.agents_url(provider, drops=False)

    async with ClientSession() as session, session.head(url, headers=claude_code.HEADERS) as answer:
        assert answer.status < 500


# -- Codex -----------------------------------------------------------------------------------------------------------


@BEHIND
@DROPS
async def test_codex_comes_to_the_end_of_its_task(provider: str, drops: bool, stage: Stage) -> None:
    """Also where tools take no text: there its patch is the one argument of a tool."""
    behind = PROVIDERS[provider]

    played = await codex.play(stage.agents_url(provider, drops=drops), behind.models.thinking)

    assert played.error is None
    assert (played.text, played.stop) == (TEXT, "completed")
    patch = ("apply_patch", agents.PATCH)
    assert played.calls == [(agents.EXEC.name, agents.EXEC.arguments), patch, (agents.VIEW.name, agents.VIEW.arguments)]
    assert played.thoughts == ([THOUGHT] * 2 if behind.thinks else [])
    for stream in played.streams if provider != "openai-responses" else ():
        assert check_stream("openai-responses", stream) == []


async def test_codexs_requests_reach_its_own_provider_to_the_byte(stage: Stage) -> None:
    played = await codex.play(stage.agents_url("openai-responses", drops=False), "o4-mini")

    assert [each.body for each in _received(stage, "openai-responses", len(played.sent))] == played.sent
    assert played.changed == [""] * len(played.sent)


# The grammar of its patches is for the model to keep: a tool of another kind takes any text.
CODEX_LOSES = {
    "openai": {"client_metadata"},
    "anthropic": {"client_metadata", "prompt_cache_key", "tools[3].format"},
    "gemini": {"client_metadata", "prompt_cache_key", "tools[3].format"},
    "mistral": {"client_metadata", "tools[3].format"},
}


@pytest.mark.parametrize("provider", CODEX_LOSES)
async def test_codex_is_told_what_another_provider_was_not(provider: str, stage: Stage) -> None:
    played = await codex.play(stage.agents_url(provider, drops=False), PROVIDERS[provider].models.thinking)

    first = dict(each.split("=") for each in played.changed[0].split(", "))
    silent = {"store"} & first.keys()  # that nothing is to be stored goes without saying
    thinking = {"reasoning"} if provider == "mistral" else set()
    assert {place for place, word in first.items() if word == "dropped"} - silent == CODEX_LOSES[provider] | thinking
    assert first.get("tools[3]") == (None if provider == "openai" else "converted")


@pytest.mark.parametrize("provider", [name for name, behind in PROVIDERS.items() if behind.mark])
@pytest.mark.parametrize("agent", [claude_code, codex], ids=["claude_code", "codex"])
async def test_what_a_provider_thought_comes_back_to_it_through_an_agent(
    agent: Any, provider: str, stage: Stage
) -> None:
    behind = PROVIDERS[provider]
    assert behind.mark is not None

    played = await agent.play(stage.agents_url(provider, drops=False), behind.models.thinking)

    came = _received(stage, provider, len(played.sent))
    signed = 2 if provider == "gemini" else 1  # it signs what it says besides what it calls
    assert [each.body.decode().count(behind.mark) for each in came] == [0, signed, 2 * signed]


# -- what some provider cannot be told -------------------------------------------------------------------------------

WHOLE_CODEX: JSON = {
    "tools": [*codex.FUNCTIONS, codex.PATCH_TOOL, codex.SEARCH_TOOL],
    "text": {"verbosity": "low"},
    "parallel_tool_calls": False,
}
"""What it says to models that it knows: it knows how they search, how they are told to be brief, and that they wait."""

REFUSED = {
    "openai": {"tools[4]"},
    "anthropic": {"text.verbosity"},
    "gemini": {"text.verbosity", "parallel_tool_calls"},
    "mistral": {"text.verbosity", "tools[4]"},
}
"""What of it a provider cannot be told, at least."""


@pytest.mark.parametrize("provider", REFUSED)
async def test_what_codex_asks_of_its_own_models_alone_is_refused_by_name_or_left_out(
    provider: str, stage: Stage
) -> None:
    model = PROVIDERS[provider].models.thinking

    refused = await codex.play(stage.agents_url(provider, drops=False), model, **WHOLE_CODEX)
    played = await codex.play(stage.agents_url(provider, drops=True), model, **WHOLE_CODEX)

    assert (played.error, played.text) == (None, TEXT)
    dropped = {each.removesuffix("=dropped") for each in played.changed[0].split(", ") if each.endswith("=dropped")}
    assert REFUSED[provider] <= dropped
    assert refused.error is not None
    assert refused.error["error"]["param"] in dropped
    assert f"'{provider}'" in refused.error["error"]["message"]
    assert len(refused.sent) == 1


async def test_all_that_codex_asks_reaches_its_own_provider(stage: Stage) -> None:
    played = await codex.play(stage.agents_url("openai-responses", drops=False), "o4-mini", **WHOLE_CODEX)

    assert played.text == TEXT
    assert json.loads(_received(stage, "openai-responses", 1)[0].body)["text"] == {"verbosity": "low"}


SEARCH: JSON = {"tools": [*claude_code.TOOLS, {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]}


@pytest.mark.parametrize("provider", ["openai", "mistral"])
async def test_a_tool_of_anthropics_own_is_refused_by_name_or_left_out(provider: str, stage: Stage) -> None:
    model = PROVIDERS[provider].models.thinking

    refused = await claude_code.play(stage.agents_url(provider, drops=False), model, **SEARCH)
    played = await claude_code.play(stage.agents_url(provider, drops=True), model, **SEARCH)

    assert refused.error is not None
    assert (refused.error["type"], refused.error["error"]["type"]) == ("error", "invalid_request_error")
    assert "tools[5]" in refused.error["error"]["message"]
    assert (played.text, "tools[5]=dropped" in played.changed[0].split(", ")) == (TEXT, True)
