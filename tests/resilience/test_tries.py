"""What counts as a try, what is waited for, and what is told of the way that a call took."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import llmproxy_anthropic
import pytest

from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from llmproxy_core.resilience.failure import Failure
from tests.answers import chat_chunk, reply, sse
from tests.exact import post
from tests.proxy import Proxy
from tests.resilience.flocks import QUICK, ask, fails, group, one, says, told
from tests.upstream import EVENT_STREAM, Call, Chunk, Cut, Head, Reached, Step, Upstream, Wait

TOO_LONG = fails(400, code="context_length_exceeded")
ROLE = chat_chunk(None) | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
BROKEN: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(ROLE, done=False)), Cut()]
TRANSLATED = json.dumps({"model": "m", "stream": True, "input": "hi"}).encode()
"""A request in another protocol than the upstream's."""
TWO_KEYS: dict[str, Any] = {"token_env": ["KEY", "KEY_2"]}
KEY_2 = {"KEY_2": "sk-2-0123456"}
SLOW = {"max_retries": 3, "initial_backoff_s": 20.0, "jitter": 1.0}


def reasons(proxy: Proxy, number: int = 0) -> list[tuple[str, str | None]]:
    """The attempts of the call with that *number*, and why there was another."""
    return [(attempt.llm, attempt.next) for attempt in proxy.exchanges[number].attempts]


# ------------------------------------------------------------------------------------------------ what ends it


@pytest.mark.parametrize("answer", [fails(400), fails(422), TOO_LONG])
async def test_a_refusal_ends_it_whoever_failed_before(answer: list[Step]) -> None:
    async with Upstream(fails(503)) as a, Upstream(answer) as b, Proxy(group("fallback", a, b)) as proxy:
        assert (await ask(proxy)).status in (400, 422)
        assert (len(a.requests), len(b.requests)) == (1, 1)


async def test_a_refusal_of_the_second_key_ends_it_too() -> None:
    async with Upstream(fails(400)) as upstream, Proxy(one(upstream, **TWO_KEYS), env=KEY_2) as proxy:
        upstream.then(fails(429))

        assert (await ask(proxy)).status == 400
        assert len(upstream.requests) == 2


# ------------------------------------------------------------------------------------------------ kinds


async def test_a_member_that_the_table_names_for_a_kind_is_asked_once() -> None:
    async with (
        Upstream(TOO_LONG) as a,
        Upstream(TOO_LONG) as b,
        Proxy(group("fallback", a, b, on_context_window="b")) as proxy,
    ):
        seen = await ask(proxy)

        assert (seen.status, len(a.requests), len(b.requests)) == (400, 1, 1)
        assert reasons(proxy) == [("a", "context_window: b"), ("b", None)]


@pytest.mark.parametrize("strategy", ["round_robin", "least_in_flight"])
async def test_the_same_holds_in_any_order(strategy: str) -> None:
    async with Upstream(TOO_LONG) as a, Upstream(TOO_LONG) as b:
        async with Proxy(group("balance", a, b, strategy=strategy, on_context_window="b")) as proxy:
            for _ in range(4):
                assert (await ask(proxy)).status == 400

        assert (len(a.requests), len(b.requests)) == (4, 4)


async def test_a_member_that_is_named_for_a_kind_and_is_down_is_what_the_caller_hears_of() -> None:
    """The request is none that nobody takes: who would take it may be well again soon, and is tried again."""
    async with Upstream(fails(503)) as a, Upstream(TOO_LONG) as b:
        async with Proxy(group("fallback", a, b, on_context_window="a")) as proxy:
            seen = await ask(proxy)
            a.script = says("hello")
            a.then(fails(503))
            again = await ask(proxy)

        assert (seen.status, again.status) == (503, 200)
        assert len(a.requests) == 4


# ------------------------------------------------------------------------------------------------ waits


async def test_while_a_breaker_is_open_calls_are_told_at_once_also_with_retries() -> None:
    breaker = {"min_calls": 2, "open_s": 20.0}
    quick = QUICK | {"max_retries": 1, "max_backoff_s": 30.0}
    async with Upstream(fails(503)) as upstream, Proxy(one(upstream, breaker=breaker, retries=quick)) as proxy:
        await ask(proxy)

        async with asyncio.timeout(10):
            seen = await asyncio.gather(*(ask(proxy) for _ in range(5)))

        assert {(it.status, json.loads(it.body)["error"]["code"]) for it in seen} == {(503, "upstream_unavailable")}
        assert {it.header("retry-after") is None for it in seen} == {False}
        assert len(upstream.requests) == 2


async def test_a_back_off_before_another_member_leaves_that_one_time_to_answer() -> None:
    async with (
        Upstream(fails(503)) as a,
        Upstream(says("hello")) as b,
        Proxy(group("fallback", a, b, retries=SLOW)) as proxy,
    ):
        assert (await ask(proxy, ("x-llmproxy-timeout-ms", "1500"))).status == 200


async def test_a_member_that_is_not_asked_takes_no_try_and_hides_no_wait() -> None:
    async with Upstream() as a, Upstream(says("hello")) as b, Proxy(group("fallback", a, b)) as proxy:
        b.then(*[fails(429, ("retry-after-ms", "20"))] * 3)
        next(it for it in layers(proxy.gateway.llms["a"]) if isinstance(it, Guarded)).places.drained = True

        assert (await ask(proxy)).status == 200
        assert (len(a.requests), len(b.requests)) == (0, 4)


async def test_a_member_that_rests_takes_no_try_of_the_others() -> None:
    async with Upstream(says("hello")) as a, Upstream(fails(401)) as b, Proxy(group("fallback", a, b)) as proxy:
        a.then(fails(503))
        assert (await ask(proxy)).status == 200  # of a's second try: from now on b rests
        a.then(fails(503), fails(503))

        assert (await ask(proxy)).status == 200
        assert (len(a.requests), len(b.requests)) == (5, 1)


# ------------------------------------------------------------------------------------------------ the reconnect


async def test_the_reconnect_of_a_kept_connection_is_a_try_also_where_it_fails() -> None:
    async def swallow(call: Call) -> None:
        await call.play(Cut())

    async with Upstream(swallow) as upstream:
        upstream.then(says("hello"))
        async with Proxy(one(upstream, retries=QUICK | {"max_retries": 1})) as proxy:
            assert (await ask(proxy)).status == 200
            seen = await ask(proxy)

        assert (seen.status, seen.header("x-should-retry")) == (502, "false")
        assert len(upstream.requests) == 3


# ------------------------------------------------------------------------------------------------ what is told


async def test_sdks_are_told_not_to_try_again_also_where_the_last_answer_fails_behind_its_head() -> None:
    """It has begun for us, and not for a client of another protocol, who gets a status."""
    async with (
        Upstream(fails(503)) as a,
        Upstream(BROKEN) as b,
        Proxy(group("fallback", a, b, commit="headers")) as proxy,
    ):
        seen = await post(f"{proxy.base_url}/responses", TRANSLATED)

        assert (seen.status, seen.header("x-should-retry")) == (502, "false")


async def test_the_first_answer_may_be_tried_again_by_the_sdk() -> None:
    async with Upstream(BROKEN) as a, Proxy(group("fallback", a, commit="headers")) as proxy:
        seen = await post(f"{proxy.base_url}/responses", TRANSLATED)

        assert (seen.status, seen.header("x-should-retry")) == (502, None)


async def test_each_attempt_says_what_followed_and_the_last_one_that_nothing_did() -> None:
    async with (
        Upstream(fails(503)) as a,
        Upstream(fails(503)) as b,
        Proxy(group("fallback", a, b, retries=QUICK | {"max_retries": 2})) as proxy,
    ):
        await ask(proxy)

        first, (second, again), last = reasons(proxy)
        assert [first, second, last] == [("a", "upstream: the next member"), "b", ("a", None)]
        assert (again or "").startswith("upstream: again after 0.0")


async def test_who_was_passed_over_says_what_followed_too() -> None:
    async with Upstream(says("hello")) as a, Upstream(says("hello")) as b, Proxy(group("fallback", a, b)) as proxy:
        a.then(fails(503))
        next(it for it in layers(proxy.gateway.llms["b"]) if isinstance(it, Guarded)).places.drained = True

        seen = await ask(proxy)

        first, passed, second = told(seen).split(", ")
        assert first.endswith("(upstream: the next member)")
        assert passed.startswith("b llm_drained - (upstream: again after ")
        assert second.startswith("a 200 ")


async def test_the_last_key_has_no_next() -> None:
    retries = {"retries": QUICK | {"max_retries": 1}}
    async with Upstream(fails(401)) as upstream, Proxy(one(upstream, **TWO_KEYS, **retries), env=KEY_2) as proxy:
        await ask(proxy)

        assert [next_one for _, next_one in reasons(proxy)] == [f"{Failure.AUTH.value}: next key", None]


async def test_of_two_that_were_raced_and_failed_the_second_has_no_next() -> None:
    begun = asyncio.Event()
    quick = QUICK | {"max_retries": 1}
    async with (
        Upstream([Wait(begun), *fails(503)]) as a,
        Upstream([Reached(begun), *fails(503)]) as b,
        Proxy(group("race", a, b, after_ms=1, retries=quick)) as proxy,
    ):
        assert (await ask(proxy)).status == 503
        assert reasons(proxy) == [("a", "slow: the next member too"), ("b", None)]


async def test_a_text_that_breaks_off_and_is_gone_on_with_by_nobody_has_no_next() -> None:
    cut: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(chat_chunk("Hel"), done=False)), Cut()]
    async with Upstream(cut) as a, Proxy(group("fallback", a, resume=True)) as proxy:
        assert b"error" in (await ask(proxy, stream=True)).body
        assert reasons(proxy) == [("a", None)]


async def test_only_what_was_changed_for_the_llm_that_answered_is_told() -> None:
    overloaded = reply({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 529)
    async with Upstream(overloaded) as a, Upstream(says("hello")) as b:
        mapping = group("fallback", a, b)
        mapping["llm"]["a"]["provider"] = "anthropic"
        mapping["route"][0]["on_unsupported"] = "drop"
        async with Proxy(mapping, plugins=[llmproxy_anthropic]) as proxy:
            answered = await ask(proxy, logit_bias={"1": 2})
            mapping["llm"]["all"]["members"] = ["a"]
            async with Proxy(mapping, plugins=[llmproxy_anthropic]) as alone:
                failed = await ask(alone, logit_bias={"1": 2})

                changed = [value for name, value in failed.headers if name == "x-llmproxy-changed"]
                assert len(changed) == 1  # of four tries
                assert "logit_bias=dropped" in changed[0]
            assert answered.header("x-llmproxy-changed") is None
            assert "changed" not in proxy.exchanges[0].log_fields
