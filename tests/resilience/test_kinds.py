"""Whatever way a provider says what it refuses, its kind decides who is asked next, and whose fault it is."""

from __future__ import annotations

import json
from typing import Any

import llmproxy_gemini
import pytest

from llmproxy_core import End, Money
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from llmproxy_core.resilience.breaker_state import State
from tests.answers import chat_chunk, error, reply, stream
from tests.proxy import Proxy
from tests.resilience.flocks import ask, fails, group, one, says, told
from tests.upstream import Script, Upstream

GOOD = stream(chat_chunk("good"), chat_chunk(None, finish="stop"))
TOO_LONG = {"message": "Too long", "type": "invalid_request_error", "code": "context_length_exceeded"}
FILTERED = {"message": "No", "type": "invalid_request_error", "code": "content_filter"}
NO_MODEL = {"message": "No such model", "type": "invalid_request_error", "code": "model_not_found"}
LIMITED = {"message": "Slow down", "type": "tokens", "code": "rate_limit_exceeded"}
BLOCKED = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 5}}
UNSAID = {"candidates": [{"finishReason": "SAFETY", "index": 0}], "usageMetadata": {"promptTokenCount": 5}}
SAID: dict[str, Any] = {
    "finishReason": "SAFETY",
    "index": 0,
    "content": {"role": "model", "parts": [{"text": "So far"}]},
}
PLUGINS = (llmproxy_gemini,)


def falling_over(a: Upstream, b: Upstream, kind: str, provider: str = "openai") -> Any:
    """A group of `a`, of that provider, with `b` for failures of that kind."""
    keys: dict[str, Any] = {kind: "b"}
    mapping = group("fallback", a, b, members=["a"], **keys)
    mapping["llm"]["a"]["provider"] = provider
    return mapping


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("on_context_window", TOO_LONG),
        ("on_content_policy", FILTERED),
        ("on_model_not_found", NO_MODEL),
        ("on_rate_limit", LIMITED),
    ],
)
async def test_an_error_with_a_status_of_200_is_of_the_kind_that_it_names(
    kind: str, said: dict[str, str], streamed: bool
) -> None:
    script = stream({"error": said}, done=False) if streamed else reply({"error": said})
    async with (
        Upstream(script) as a,
        Upstream(GOOD if streamed else says("good")) as b,
        Proxy(falling_over(a, b, kind)) as proxy,
    ):
        seen = await ask(proxy, stream=streamed)

        assert b"good" in seen.body
        assert len(a.requests) == 1


@pytest.mark.parametrize("script", [stream({"error": TOO_LONG}, done=False), reply({"error": TOO_LONG})])
async def test_what_is_the_callers_fault_is_asked_once_and_leaves_the_breaker_shut(script: Script) -> None:
    async with Upstream(script) as a, Proxy(one(a, breaker={"min_calls": 2})) as proxy:
        seen = [await ask(proxy, stream=True) for _ in range(3)]

        assert [it.status for it in seen] == [400, 400, 400]
        assert len(a.requests) == 3
        guarded = next(it for it in layers(proxy.gateway.llms["a"]) if isinstance(it, Guarded))
        assert guarded.breaker is not None
        assert guarded.breaker.state is State.CLOSED


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("answer", [BLOCKED, UNSAID], ids=["the question", "all of the answer"])
async def test_a_question_that_gemini_blocks_is_put_to_the_llm_for_that(answer: object, streamed: bool) -> None:
    async with (
        Upstream(stream(answer, done=False) if streamed else reply(answer)) as a,
        Upstream(GOOD if streamed else says("good")) as b,
    ):
        async with Proxy(falling_over(a, b, "on_content_policy", "gemini"), plugins=PLUGINS) as proxy:
            seen = await ask(proxy, stream=streamed)

        assert b"good" in seen.body
        assert "content_policy: b" in told(seen)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_an_answer_that_is_blocked_behind_its_beginning_is_the_callers(streamed: bool) -> None:
    answer = {"candidates": [SAID], "usageMetadata": {"promptTokenCount": 5}}
    async with (
        Upstream(stream(answer, done=False) if streamed else reply(answer)) as a,
        Upstream(says("good")) as b,
        Proxy(falling_over(a, b, "on_content_policy", "gemini"), plugins=PLUGINS) as proxy,
    ):
        assert b"So far" in (await ask(proxy, stream=streamed)).body


async def test_a_question_that_is_blocked_is_answered_so_where_no_llm_is_named_for_it() -> None:
    async with Upstream(reply(BLOCKED)) as a, Upstream(says("good")) as b:
        mapping = group("fallback", a, b)
        mapping["llm"]["a"]["provider"] = "gemini"
        async with Proxy(mapping, plugins=PLUGINS) as proxy:
            seen = await ask(proxy)

        assert seen.status == 200
        assert json.loads(seen.body)["choices"][0]["finish_reason"] == "content_filter"


async def test_a_provider_that_reports_an_error_first_bills_nothing() -> None:
    prices = {"*": {"input": "1000", "output": "1000"}}
    broken = stream({"error": {"message": "Overloaded", "type": "server_error"}}, done=False)
    costs: list[Money | None] = []
    for script in (fails(503), broken):
        async with Upstream(script) as a, Proxy(one(a, prices=prices, tried=False)) as proxy:
            await ask(proxy, stream=True)
            outcome = await proxy.outcome()
            assert outcome.end is End.FAILED
            costs.append(outcome.cost)

    assert costs[0] in (None, Money())
    assert costs[1] == Money()


async def test_a_code_without_end_does_not_make_a_header_without_end() -> None:
    bad = reply(error("Sorry", code="c" * 30_000), 503)
    async with Upstream(bad) as a, Upstream(says("good")) as b, Proxy(group("fallback", a, b)) as proxy:
        assert len(told(await ask(proxy))) < 200
    bad = stream(error("Sorry", code="c" * 30_000), done=False)
    async with Upstream(bad) as a, Upstream(GOOD) as b, Proxy(group("fallback", a, b)) as proxy:
        assert len(told(await ask(proxy, stream=True))) < 200
