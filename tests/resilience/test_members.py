"""What a group is to others: its prices, its models, who of its members may be left alone, and who seems to be idle."""

from __future__ import annotations

import json

import llmproxy_cost_limit
import pytest

from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from llmproxy_core.resilience.breaker_state import State
from tests.answers import reply
from tests.exact import ask as exact_ask
from tests.exact import post
from tests.llmproxy_core.conversation import question
from tests.proxy import Proxy
from tests.resilience.flocks import ask, fails, group, one, says
from tests.upstream import Upstream

QUICK = {"max_retries": 2, "initial_backoff_s": 0.001}


# -- money -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prices", [{"*": {"input": "100", "output": "100"}}, None], ids=["dear", "unknown"])
async def test_a_budget_knows_the_llm_that_is_asked_after_a_kind_of_failure(prices: object) -> None:
    too_long = fails(400, code="context_length_exceeded")
    async with Upstream(too_long) as a, Upstream(says("hello")) as b:
        mapping = group("fallback", a, b, members=["a"], on_context_window="b")
        mapping["llm"]["a"]["prices"] = {"*": {"input": "0.01", "output": "0.01"}}
        if prices is not None:
            mapping["llm"]["b"]["prices"] = prices
        mapping["processor"] = {"limit": {"type": "cost_limit", "per_request_usd": "0.001"}}
        mapping["route"][0]["processors"] = ["limit"]
        async with Proxy(mapping, plugins=[llmproxy_cost_limit]) as proxy:
            seen = await ask(proxy, model="a-model-that-nobody-knows", max_tokens=1000)

    assert seen.status == 402
    assert (a.requests, b.requests) == ([], [])


# -- models ----------------------------------------------------------------------------------------------------------


async def test_a_group_whose_members_list_no_models_gives_the_list_of_the_first() -> None:
    listed = reply({"object": "list", "data": [{"id": "gpt-9", "object": "model", "created": 1, "owned_by": "x"}]})
    async with Upstream(fails(503)) as a, Upstream(listed) as b, Proxy(group("fallback", a, b)) as proxy:
        seen = await exact_ask("GET", f"{proxy.base_url}/models")

        assert [it["id"] for it in json.loads(seen.body)["data"]] == ["gpt-9"]


# -- who is left alone -----------------------------------------------------------------------------------------------


async def test_every_group_of_a_member_has_a_say_in_whether_it_is_left_alone() -> None:
    shut = {"breaker": {"min_calls": 2, "open_s": 60.0}}
    async with Upstream(fails(503)) as a, Upstream(fails(503)) as b:
        mapping = group("fallback", a, b, llm=shut, max_ejected_share=0.5, retries=QUICK)
        mapping["llm"]["pair"] = {"provider": "fallback", "members": ["a", "b"], "max_ejected_share": 1.0}
        mapping["route"].append({"path_prefix": "/pair", "target_llm": "pair", "dialect": "openai"})
        async with Proxy(mapping) as proxy:
            for _ in range(6):
                await ask(proxy)
                await post(f"{proxy.url}/pair/v1/chat/completions", question())

            guards = [it for name in "ab" for it in layers(proxy.gateway.llms[name]) if isinstance(it, Guarded)]
            assert [it.breaker is not None and it.breaker.state for it in guards].count(State.OPEN) == 1


# -- who seems to be idle --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["least_in_flight", "peak_ewma"])
async def test_a_member_that_fails_at_once_is_not_the_one_that_seems_to_be_idle(strategy: str) -> None:
    async with Upstream(fails(503)) as a, Upstream(says("hello")) as b:
        async with Proxy(group("balance", a, b, strategy=strategy, retries=QUICK)) as proxy:
            for _ in range(30):
                assert (await ask(proxy)).status == 200

        assert len(a.requests) < 5


async def test_callers_whose_fault_it_is_tell_nothing_of_a_member() -> None:
    async with Upstream(fails(400)) as a, Upstream(fails(400)) as b:
        async with Proxy(group("balance", a, b, strategy="peak_ewma", retries=QUICK)) as proxy:
            for _ in range(20):
                assert (await ask(proxy)).status == 400

        assert a.requests
        assert b.requests


# -- stickiness ------------------------------------------------------------------------------------------------------


async def test_a_conversation_that_cannot_be_read_is_passed_on_and_sticks_to_nobody() -> None:
    odd = [{"role": "oracle", "content": "hi"}]
    async with Upstream(says("hello")) as a, Upstream(says("hello")) as b:
        async with Proxy(group("sticky", a, b)) as proxy:
            for _ in range(30):
                assert (await ask(proxy, messages=odd)).status == 200

        assert a.requests
        assert b.requests


async def test_one_llm_lists_what_its_provider_does() -> None:
    listed = reply({"object": "list", "data": [{"id": "gpt-9", "object": "model", "created": 1, "owned_by": "x"}]})
    async with Upstream(listed) as a, Proxy(one(a)) as proxy:
        assert b"gpt-9" in (await exact_ask("GET", f"{proxy.base_url}/models")).body
