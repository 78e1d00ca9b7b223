"""Keys and LLMs that a provider does not want to be used for a time, and calls that say nothing of a provider."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.exact import ask as raw_ask
from tests.exact import post
from tests.llmproxy_core.conversation import question
from tests.llmproxy_server.reloading import Reloadable
from tests.proxy import SECRET, Proxy
from tests.resilience.flocks import QUICK, ask, fails, group, one, says, told
from tests.upstream import Call, Stall, Upstream

NAMES = ("KEY", "KEY_2", "KEY_3", "KEY_4")
TOKENS = {name: SECRET if name == "KEY" else f"sk-{name}-0123456789" for name in NAMES}


def with_keys(mapping: Any, *names: str) -> Proxy:
    """A proxy whose LLM `a` has the keys *names*."""
    mapping["llm"]["a"]["token_env"] = list(names)
    return Proxy(mapping, env={name: TOKENS[name] for name in names if name != "KEY"})


class Limits:
    """A provider that answers 429 to some keys; *time* says for how long, if it does."""

    def __init__(self, *limited: str, time: tuple[str, str] | None = None) -> None:
        self.limited = set(limited)
        self._time = () if time is None else (time,)

    async def __call__(self, call: Call) -> None:
        token = (call.received.header("authorization") or "").removeprefix("Bearer ")
        key = next(name for name, it in TOKENS.items() if it == token)
        await call.play(*(fails(429, *self._time) if key in self.limited else says("hello")))


# ------------------------------------------------------------------------------------------------ keys


async def test_a_key_without_quota_costs_no_call_its_answer() -> None:
    """It says for no time how long: the retry budget of the LLM must not be spent on asking the other key instead."""
    async with Upstream(Limits("KEY")) as upstream, with_keys(one(upstream), "KEY", "KEY_2") as proxy:
        seen = Counter([(await ask(proxy)).status for _ in range(40)])

    assert seen == {200: 40}
    assert len(upstream.requests) <= 43  # asked last once it is known, but for once a second or less


async def test_keys_that_are_all_limited_without_a_time_are_asked_no_more_than_the_retry_budget_allows() -> None:
    async with Upstream(fails(429)) as upstream, with_keys(one(upstream), "KEY", "KEY_2") as proxy:
        seen = [await ask(proxy) for _ in range(20)]

    assert {it.status for it in seen} == {429}
    assert len(upstream.requests) <= 20 * 1.2 + 3 + 1  # and the other key of the first call


async def test_keys_that_rest_take_no_tries() -> None:
    limits = Limits(time=("retry-after", "60"))
    async with Upstream(limits) as a, Upstream(says("from b")) as b:
        mapping = group("fallback", a, b, retries={**QUICK, "max_retries": 1})
        async with with_keys(mapping, *NAMES) as proxy:
            for name in NAMES[:3]:
                limits.limited.add(name)
                for _ in NAMES:  # once each is the first
                    assert (await ask(proxy)).status == 200
            for _ in NAMES[:3]:  # so that the next call begins with the fourth
                await ask(proxy)
            limits.limited.add("KEY_4")
            before = len(a.requests)
            assert b"from b" in (await ask(proxy)).body

    assert len(a.requests) == before + 1


async def test_a_body_that_can_be_read_but_once_is_sent_with_one_key() -> None:
    async with Upstream(says("hello")) as upstream:
        upstream.then(fails(401))
        mapping = one(upstream)
        mapping["route"][0]["operations"] = ["opaque", "chat"]
        async with with_keys(mapping, "KEY", "KEY_2") as proxy:
            headers = [("content-type", "application/octet-stream")]
            seen = await raw_ask("POST", f"{proxy.base_url}/files/upload", b"x" * 1000, headers)

    assert seen.status == 502
    assert [len(request.body) for request in upstream.requests] == [1000]


async def test_a_model_that_a_key_may_not_use_is_not_the_keys_failure() -> None:
    async def by_model(call: Call) -> None:
        is_secret = json.loads(call.received.body)["model"] == "secret"
        no = fails(403, code="model_not_found", message="Project does not have access to model secret")
        await call.play(*(no if is_secret else says("hello")))

    async with Upstream(by_model) as upstream, Proxy(one(upstream)) as proxy:
        assert (await ask(proxy, model="secret")).status == 403
        assert (await ask(proxy, model="usual")).status == 200

    assert len(upstream.requests) == 2


# ------------------------------------------------------------------------------------------------ rests


async def test_the_llm_named_for_rate_limits_is_asked_while_a_member_rests_for_one() -> None:
    async with Upstream(fails(429, ("retry-after", "60"))) as a, Upstream(says("hello")) as b:
        mapping = group("fallback", a, b, members=["a"], on_rate_limit="b")
        async with Proxy(mapping) as proxy:
            seen = [(await ask(proxy)).status for _ in range(3)]

    assert (seen, len(a.requests)) == ([200] * 3, 1)


@pytest.mark.parametrize("keys", [None, ["KEY", "KEY_2"]], ids=["one key", "two keys"])
async def test_a_rest_outlives_a_reload(tmp_path: Path, keys: list[str] | None) -> None:
    async with Upstream(fails(429, ("retry-after", "60"))) as upstream:
        mapping = one(upstream, **({} if keys is None else {"token_env": keys}))
        async with Reloadable(tmp_path, mapping, env=TOKENS) as proxy:
            url = f"http://127.0.0.1:{proxy.port}/v1/chat/completions"
            assert (await post(url, question())).status == 429
            before = len(upstream.requests)
            mapping["route"][0]["deadline_s"] = 100.0
            mapping["llm"]["a"]["models"] = ["gpt-*"]
            await proxy.reload(mapping)

            assert (await post(url, question())).status == 429

    assert len(upstream.requests) == before


async def test_a_rest_is_not_cut_short_by_a_call_that_began_before() -> None:
    go_on = asyncio.Event()

    async def late(call: Call) -> None:
        async with asyncio.timeout(10):
            await go_on.wait()
        await call.play(*fails(429))

    once = {**QUICK, "max_retries": 0}
    async with Upstream(says("hello")) as upstream, Proxy(one(upstream, retries=once)) as proxy:
        upstream.then(late, fails(429, ("retry-after", "60")))
        async with asyncio.TaskGroup() as asking:
            first = asking.create_task(ask(proxy))
            await upstream.received(1)
            assert (await ask(proxy)).status == 429
            go_on.set()
        third = await ask(proxy)

    assert (third.status, len(upstream.requests)) == (429, 2)
    assert int(first.result().header("retry-after") or "") > 50  # the longer time is told to both


@pytest.mark.parametrize("status", [503, 529])
async def test_a_provider_that_asks_for_a_pause_gets_it(status: int) -> None:
    async with (
        Upstream(fails(status, ("retry-after", "60"))) as a,
        Upstream(fails(503)) as b,
        Proxy(group("fallback", a, b)) as proxy,
    ):
        await ask(proxy)
        asked = len(a.requests)
        await ask(proxy)

    assert (asked, len(a.requests)) == (1, 1)


async def test_a_pause_is_one_of_all_keys() -> None:
    async with (
        Upstream(fails(503, ("retry-after", "60"))) as upstream,
        with_keys(one(upstream), "KEY", "KEY_2") as proxy,
    ):
        seen = [await ask(proxy) for _ in range(3)]

    assert len(upstream.requests) == 1
    assert json.loads(seen[1].body)["error"]["code"] == "llm_resting"
    assert 50 <= int(seen[1].header("retry-after") or "") <= 60


async def test_another_caller_is_not_told_what_the_provider_wrote_to_the_first() -> None:
    async with (
        Upstream(fails(429, ("retry-after", "60"), message="Slow down, alice")) as upstream,
        Proxy(one(upstream)) as proxy,
    ):
        first, second = await ask(proxy), await ask(proxy)

    assert b"alice" in first.body
    assert (second.status, b"alice" in second.body) == (429, False)
    assert "a llm_resting -" in told(second)


@pytest.mark.parametrize("waits", [("35", "3600"), ("3600", "35")])
async def test_callers_are_told_the_soonest_time(waits: tuple[str, str]) -> None:
    scripts = [fails(429, ("retry-after", wait_s)) for wait_s in waits]
    async with Upstream(scripts[0]) as a, Upstream(scripts[1]) as b, Proxy(group("fallback", a, b)) as proxy:
        seen = [await ask(proxy) for _ in range(2)]  # asked, and at rest

    assert all(30 <= int(it.header("retry-after") or "") <= 35 for it in seen)


async def test_no_time_is_told_where_a_member_may_answer_at_any() -> None:
    async with (
        Upstream(fails(503)) as a,
        Upstream(fails(429, ("retry-after", "3600"))) as b,
        Proxy(group("fallback", a, b, retries={**QUICK, "max_retries": 1})) as proxy,
    ):
        seen = await ask(proxy)

    assert (seen.status, seen.header("retry-after")) == (429, None)


# ------------------------------------------------------------------------------------------------ what says nothing


async def test_the_deadlines_of_callers_open_no_breaker() -> None:
    async with (
        Upstream([Stall()]) as upstream,
        Proxy(one(upstream, tried=False, breaker={"min_calls": 2, "open_s": 60.0})) as proxy,
    ):
        for _ in range(4):
            seen = await ask(proxy, ("x-llmproxy-timeout-ms", "20"))
            assert json.loads(seen.body)["error"]["code"] == "deadline_exceeded"
        upstream.script = says("hello")

        assert (await ask(proxy)).status == 200


async def test_a_deadline_ends_the_call_and_no_member_is_asked_for_nobody() -> None:
    async with Upstream([Stall()]) as a, Upstream(says("hello")) as b, Proxy(group("fallback", a, b)) as proxy:
        seen = await ask(proxy, ("x-llmproxy-timeout-ms", "100"))

    assert (seen.status, b.requests) == (504, [])


async def test_a_pool_that_is_full_says_nothing_of_the_provider() -> None:
    go_on = asyncio.Event()

    async def held(call: Call) -> None:
        async with asyncio.timeout(10):
            await go_on.wait()
        await call.play(*says("hello"))

    keys = {"pool": {"max_connections_per_host": 1}, "timeouts": {"connect_s": 0.05}}
    breaker = {"min_calls": 2, "open_s": 60.0}
    async with Upstream(says("hello")) as upstream:
        upstream.then(held)
        async with Proxy(one(upstream, tried=False, breaker=breaker, **keys)) as proxy, asyncio.TaskGroup() as asking:
            first = asking.create_task(ask(proxy))
            await upstream.received(1)
            for _ in range(4):
                seen = await ask(proxy)
                assert (seen.status, json.loads(seen.body)["error"]["code"]) == (503, "pool_full")
                assert seen.header("retry-after") == "1"
            go_on.set()
            assert (await first).status == 200
            assert (await ask(proxy)).status == 200
