"""LLMs stand in for each other."""

from __future__ import annotations

import json
from collections import Counter

import llmproxy_anthropic
import pytest

from llmproxy_core import ConfigError
from tests.proxy import Proxy
from tests.resilience.flocks import ask, fails, group, says, told
from tests.upstream import Upstream, refusing_url


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503, 529])
async def test_the_next_member_answers_for_one_that_fails(status: int) -> None:
    async with Upstream(fails(status)) as a, Upstream(says("hello")) as b, Proxy(group("fallback", a, b)) as proxy:
        seen = await ask(proxy)

        assert (seen.status, len(a.requests), len(b.requests)) == (200, 1, 1)
        assert [attempt.llm for attempt in proxy.exchanges[0].attempts] == ["a", "b"]
        assert "the next member" in told(seen)


async def test_a_member_that_cannot_be_reached_is_no_reason_to_wait() -> None:
    with refusing_url() as url:
        async with Upstream(says("hello")) as b:
            mapping = group("fallback", b, b, retries={"initial_backoff_s": 30.0, "jitter": 1.0})
            mapping["llm"]["a"]["base_url"] = url
            async with Proxy(mapping) as proxy:
                assert (await ask(proxy)).status == 200


async def test_members_are_asked_again_when_all_have_failed() -> None:
    async with Upstream(says("from a")) as a, Upstream(fails(503)) as b, Proxy(group("fallback", a, b)) as proxy:
        a.then(fails(503))

        assert b"from a" in (await ask(proxy)).body
        assert (len(a.requests), len(b.requests)) == (2, 1)


async def test_tries_are_counted_over_all_members() -> None:
    async with Upstream(fails(503)) as a, Upstream(fails(503)) as b, Proxy(group("fallback", a, b)) as proxy:
        assert (await ask(proxy)).status == 503
        assert len(a.requests) + len(b.requests) == 4


async def test_what_no_provider_would_take_is_told_by_the_first() -> None:
    async with Upstream(fails(400)) as a, Upstream(says("hello")) as b, Proxy(group("fallback", a, b)) as proxy:
        assert (await ask(proxy)).status == 400
        assert b.requests == []


KINDS = [
    ("on_context_window", fails(400, code="context_length_exceeded")),
    ("on_context_window", fails(400, message="prompt is too long: 210000 tokens > 200000 maximum")),
    ("on_content_policy", fails(400, code="content_filter")),
    ("on_model_not_found", fails(404, code="model_not_found", message="The model `x` does not exist")),
]


@pytest.mark.parametrize(("key", "answer"), KINDS)
async def test_some_refusals_fall_over_where_the_table_says_so(key: str, answer: list[object]) -> None:
    async with Upstream(answer) as a, Upstream(says("hello")) as b:  # type: ignore[arg-type]
        mapping = group("fallback", a, b, members=["a"])
        async with Proxy(mapping) as proxy:
            assert (await ask(proxy)).status in (400, 404)
        mapping["llm"]["all"][key] = "b"
        async with Proxy(mapping) as proxy:
            assert (await ask(proxy)).status == 200


async def test_groups_nest_and_share_their_tries() -> None:
    async with Upstream(fails(503)) as a, Upstream(fails(503)) as b, Upstream(says("hello")) as c:
        mapping = group("fallback", a, b, c, members=["inner", "c"])
        mapping["llm"]["inner"] = {"provider": "fallback", "members": ["a", "b"]}
        async with Proxy(mapping) as proxy:
            assert (await ask(proxy)).status == 200
            assert [len(it.requests) for it in (a, b, c)] == [1, 1, 1]


async def test_a_member_that_cannot_say_the_request_is_passed_over() -> None:
    async with Upstream() as a, Upstream(says("hello")) as b:
        mapping = group("fallback", a, b)
        mapping["llm"]["a"] |= {"provider": "anthropic"}
        async with Proxy(mapping, plugins=[llmproxy_anthropic]) as proxy:
            seen = await ask(proxy, logit_bias={"1": 2})

            assert (seen.status, a.requests) == (200, [])
            assert [it.llm for it in proxy.exchanges[0].passed_over] == ["a"]
            assert "a unsupported -" in told(seen)


async def test_a_request_that_no_member_can_say_is_refused() -> None:
    async with Upstream() as a:
        mapping = group("fallback", a)
        mapping["llm"]["a"] |= {"provider": "anthropic"}
        async with Proxy(mapping, plugins=[llmproxy_anthropic]) as proxy:
            seen = await ask(proxy, logit_bias={"1": 2})

            assert seen.status == 400
            assert json.loads(seen.body)["error"]["param"] == "logit_bias"


async def test_each_member_gets_the_model_of_its_own_map() -> None:
    async with Upstream(fails(503)) as a, Upstream(says("hello")) as b:
        mapping = group("fallback", a, b)
        mapping["llm"]["a"]["models"] = {"smart": "gpt-9"}
        mapping["llm"]["b"]["models"] = {"smart": "llama-3"}
        async with Proxy(mapping) as proxy:
            assert (await ask(proxy, model="smart")).status == 200
            assert [json.loads(it.requests[0].body)["model"] for it in (a, b)] == ["gpt-9", "llama-3"]


# ------------------------------------------------------------------------------------------------ orders


async def test_weights_are_shares() -> None:
    async with Upstream(says("a")) as a, Upstream(says("b")) as b, Upstream(says("c")) as c:
        mapping = group("balance", a, b, c)
        mapping["llm"]["a"]["weight"] = 3.0
        mapping["llm"]["c"]["weight"] = 0.0
        async with Proxy(mapping) as proxy:
            for _ in range(200):
                await ask(proxy)

            assert 120 <= len(a.requests) <= 175  # 150 are expected; chance gives other numbers once in 100,000 runs
            assert c.requests == []


async def test_round_robin_takes_turns() -> None:
    async with (
        Upstream(says("a")) as a,
        Upstream(says("b")) as b,
        Proxy(group("balance", a, b, strategy="round_robin")) as proxy,
    ):
        for _ in range(6):
            await ask(proxy)

        assert (len(a.requests), len(b.requests)) == (3, 3)


@pytest.mark.parametrize("strategy", ["least_in_flight", "peak_ewma"])
async def test_calls_go_where_least_is_going_on(strategy: str) -> None:
    async with (
        Upstream(says("a")) as a,
        Upstream(says("b")) as b,
        Proxy(group("balance", a, b, strategy=strategy)) as proxy,
    ):
        for _ in range(20):
            assert (await ask(proxy)).status == 200

        assert a.requests
        assert b.requests


async def test_lower_numbers_come_first() -> None:
    async with Upstream(says("a")) as a, Upstream(says("b")) as b:
        mapping = group("priority", a, b)
        mapping["llm"]["a"]["priority"] = 2
        async with Proxy(mapping) as proxy:
            for _ in range(5):
                await ask(proxy)

            assert (len(a.requests), len(b.requests)) == (0, 5)


@pytest.mark.parametrize("by", ["user", "conversation", "header:x-team"])
async def test_the_same_caller_stays_with_one_member(by: str) -> None:
    async with (
        Upstream(says("a")) as a,
        Upstream(says("b")) as b,
        Upstream(says("c")) as c,
        Proxy(group("sticky", a, b, c, by=by)) as proxy,
    ):
        served: dict[int, set[str]] = {}
        for who in list(range(24)) * 2:
            message = [{"role": "user", "content": f"I am {who}" if by == "conversation" else "hi"}]
            user = {"user": f"u{who}"} if by == "user" else {}
            seen = await ask(proxy, ("x-team", f"team {who}"), messages=message, **user)
            served.setdefault(who, set()).add(json.loads(seen.body)["choices"][0]["message"]["content"])

        assert all(len(members) == 1 for members in served.values())
        assert len(Counter(next(iter(members)) for members in served.values())) == 3


async def test_who_stays_with_a_member_that_fails_is_answered_by_another() -> None:
    async with Upstream(fails(503)) as a, Upstream(says("b")) as b, Proxy(group("sticky", a, b, by="user")) as proxy:
        for who in range(8):
            assert (await ask(proxy, user=f"u{who}")).status == 200


# ------------------------------------------------------------------------------------------------ ejection


@pytest.mark.parametrize(("share", "left"), [(0.5, 1), (1.0, 0)])
async def test_of_members_that_all_fail_no_more_are_shut_than_may_be(share: float, left: int) -> None:
    shut = {"breaker": {"min_calls": 2, "open_s": 60.0}}
    quick = {"max_retries": 1, "initial_backoff_s": 0.001}
    async with Upstream(fails(503)) as a, Upstream(fails(503)) as b:
        mapping = group("fallback", a, b, llm=shut, max_ejected_share=share, retries=quick)
        async with Proxy(mapping) as proxy:
            for _ in range(8):
                await ask(proxy)
            before = len(a.requests) + len(b.requests)
            await ask(proxy)

            assert (len(a.requests) + len(b.requests) > before) is bool(left)


# ------------------------------------------------------------------------------------------------ tables


def test_a_group_that_contains_itself_by_way_of_a_kind_is_a_problem() -> None:
    llms = {
        "a": {"provider": "openai", "base_url": "http://127.0.0.1:1/v1"},
        "all": {"provider": "fallback", "members": ["a"], "on_rate_limit": "all"},
    }
    with pytest.raises(ConfigError, match="contains itself: all -> all"):
        Proxy({"llm": llms, "route": [{"path_prefix": "/v1", "target_llm": "all"}]})
