"""A second member is asked while the first is slow: who begins first answers, and both are paid for."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from math import ceil
from typing import Any

import llmproxy_anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import ConfigError, End, Money, Request
from llmproxy_core.dialect import Operation
from llmproxy_core.effects import has_effects
from llmproxy_core.group_config import RaceConfig
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from llmproxy_core.groups.race import Pace, Share, Times
from llmproxy_openai.responses import ResponsesDialect
from tests.answers import chat_chunk, completion, reply, sse, stream, usage_chunk
from tests.exact import WAIT_S, post
from tests.llmproxy_core.conversation import CHAT, DIALECT, exchange, question
from tests.proxy import Proxy
from tests.resilience.flocks import ask, fails, group, says, told
from tests.script import Reached, Wait
from tests.upstream import EVENT_STREAM, Call, Chunk, Cut, Head, Stall, Step, Upstream
from tests.upstream import End as Last

PRICED = {"prices": {"*": {"input": "1.00", "output": "2.00"}}}
AT_ONCE: dict[str, Any] = {"after_ms": 0, "max_extra": 1.0}
"""The second is asked as soon as the first has been sent its request, or nearly: whoever is silent is slow."""
GOOD = stream(chat_chunk("good"), chat_chunk(None, finish="stop"), usage_chunk(9, 3))


def race(*upstreams: Upstream, llm: dict[str, Any] | None = None, **keys: Any) -> Any:
    """Prices need not be looked up, so that a member that is asked is sent its request at once."""
    return group("race", *upstreams, llm={**PRICED, **(llm or {})}, **{**AT_ONCE, **keys})


def silent_stream(*texts: str) -> list[Step]:
    """A stream that says *texts* and then nothing more."""
    return [Head(200, EVENT_STREAM), *(Chunk(sse(chat_chunk(text), done=False)) for text in texts), Stall()]


async def closed(*upstreams: Upstream) -> None:
    """Nobody asks *upstreams* any more, within a second."""
    async with asyncio.timeout(1):
        for upstream in upstreams:
            await upstream.until(lambda at=upstream: at.connections_open == 0)  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------ who begins first


async def test_the_next_member_answers_where_the_first_is_slow() -> None:
    async with Upstream([Stall()]) as a, Upstream(says("from b")) as b, Proxy(race(a, b, after_ms=50)) as proxy:
        seen = await ask(proxy)

        assert seen.status == 200
        assert b"from b" in seen.body
        assert [attempt.llm for attempt in proxy.exchanges[0].attempts] == ["a", "b"]
        assert "(slow: the next member too), b 200 " in told(seen)
        await closed(a)


async def test_both_are_paid_for() -> None:
    async with (
        Upstream([Stall()]) as a,
        Upstream(reply(completion("hi", prompt=9, completion=3))) as b,
        Proxy(race(a, b, after_ms=50)) as proxy,
    ):
        assert (await ask(proxy)).status == 200
        outcome = await proxy.outcome()

        lost, won = [attempt.outcome for attempt in proxy.exchanges[0].attempts]
        assert lost is not None
        assert won is not None
        assert (lost.end, won.end, outcome.end) == (End.ABANDONED, End.COMPLETED, End.COMPLETED)
        assert lost.usage is not None
        assert lost.usage.input_tokens > 0
        assert lost.cost is not None
        assert won.cost == Money(9 * 1_000 + 3 * 2_000)
        assert outcome.cost == won.cost + lost.cost
        assert (outcome.model, outcome.finish) == ("gpt-4o-mini", ("stop",))


async def test_no_second_is_asked_before_the_first_is_slow() -> None:
    async with Upstream(says("from a")) as a, Upstream(says("from b")) as b:
        async with Proxy(race(a, b, after_ms=60_000)) as proxy:
            for _ in range(5):
                assert b"from a" in (await ask(proxy)).body

        assert (len(a.requests), len(b.requests)) == (5, 0)


async def test_the_first_may_win_though_it_is_slow() -> None:
    go_on = asyncio.Event()
    slow = [Wait(go_on), *says("from a")]
    async with Upstream(slow) as a, Upstream([Stall()]) as b, Proxy(race(a, b)) as proxy:
        async with asyncio.TaskGroup() as calls:
            call = calls.create_task(ask(proxy))
            await b.received()
            go_on.set()

        assert b"from a" in call.result().body
        await closed(b)
        # The last attempt is the one that was answered with, whenever it began.
        assert [attempt.llm for attempt in proxy.exchanges[0].attempts] == ["b", "a"]
        assert told(call.result()).startswith("a 200 ")
        lost = proxy.exchanges[0].attempts[0].outcome
        assert lost is not None
        assert lost.cost != Money()


async def test_a_stream_wins_by_its_first_token_and_not_by_its_head() -> None:
    role = chat_chunk(None) | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    headed: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(role, done=False)), Stall()]
    async with Upstream(headed) as a, Upstream(GOOD) as b, Proxy(race(a, b, commit="headers")) as proxy:
        seen = await ask(proxy, stream=True)

        assert b"good" in seen.body
        assert seen.body.endswith(b"data: [DONE]\n\n")
        outcome = await proxy.outcome()
        lost, won = [attempt.outcome for attempt in proxy.exchanges[0].attempts]
        assert lost is not None
        assert won is not None
        assert (lost.end, won.end) == (End.ABANDONED, End.COMPLETED)
        assert lost.cost is not None
        assert outcome.cost == Money(9 * 1_000 + 3 * 2_000) + lost.cost
        await closed(a)


async def test_a_stream_that_has_begun_is_not_raced() -> None:
    go_on, begun = asyncio.Event(), asyncio.Event()
    slow_on: list[Step] = [
        Head(200, EVENT_STREAM),
        Chunk(sse(chat_chunk("first"), done=False)),
        Reached(begun),
        Wait(go_on),
        Chunk(sse(chat_chunk("last"))),
        Last(),
    ]
    async with Upstream(slow_on) as a, Upstream(GOOD) as b, Proxy(race(a, b, after_ms=300)) as proxy:
        async with asyncio.TaskGroup() as calls:
            call = calls.create_task(ask(proxy, stream=True))
            await asyncio.wait_for(begun.wait(), WAIT_S)
            with pytest.raises(TimeoutError):  # longer than what is slow
                await asyncio.wait_for(b.received(), 0.5)
            go_on.set()

        assert b"first" in call.result().body
        assert b"last" in call.result().body
        assert b.requests == []


async def test_a_stream_that_breaks_after_it_has_won_is_told() -> None:
    broken: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(chat_chunk("bad"), done=False)), Cut()]
    async with Upstream([Stall()]) as a, Upstream(broken) as b, Proxy(race(a, b)) as proxy:
        seen = await ask(proxy, stream=True)

        assert b"bad" in seen.body
        assert b'"error"' in seen.body
        assert (await proxy.outcome()).end is End.FAILED
        await closed(a)


@pytest.mark.parametrize("transport", ["wire", "aiohttp"])
async def test_every_transport_gives_up_the_loser_at_once(transport: str) -> None:
    async with (
        Upstream([Stall()]) as a,
        Upstream(GOOD) as b,
        Proxy(race(a, b, llm={"transport": transport}, after_ms=50)) as proxy,
    ):
        assert b"good" in (await ask(proxy, stream=True)).body
        await closed(a)


@pytest.mark.parametrize("streams", [False, True])
async def test_the_answer_belongs_to_the_call_itself(streams: bool) -> None:
    """Whoever shares answers knows by that who pays for them."""
    async with Upstream([Stall()]) as a, Upstream(GOOD if streams else says("hi")) as b, Proxy(race(a, b)) as proxy:
        call = exchange(proxy.gateway.services.tasks, body=question(stream=streams))
        async with asyncio.timeout(WAIT_S), call:
            response = await proxy.gateway.llms["all"].send(call)

            assert response.exchange is call
            assert call.outcome is None


async def test_what_the_loser_changed_is_not_told_to_the_client() -> None:
    """The first speaks another protocol, in which `logit_bias` cannot be said and is dropped."""
    async with Upstream([Stall()]) as a, Upstream(says("from b")) as b:
        mapping = race(a, b, after_ms=50)
        mapping["llm"]["a"] |= {"provider": "anthropic"}
        mapping["route"][0]["on_unsupported"] = "drop"
        async with Proxy(mapping, plugins=[llmproxy_anthropic]) as proxy:
            seen = await ask(proxy, logit_bias={"1": 2})

            assert b"from b" in seen.body
            assert seen.header("x-llmproxy-changed") is None
            assert "changed" not in proxy.exchanges[0].log_fields


async def test_each_gets_the_model_of_its_own_map() -> None:
    async with Upstream([Stall()]) as a, Upstream(says("hello")) as b:
        mapping = race(a, b, after_ms=50)
        mapping["llm"]["a"]["models"] = {"smart": "gpt-9"}
        mapping["llm"]["b"]["models"] = {"smart": "llama-3"}
        async with Proxy(mapping) as proxy:
            assert (await ask(proxy, model="smart")).status == 200
            assert [json.loads(it.requests[0].body)["model"] for it in (a, b)] == ["gpt-9", "llama-3"]


async def test_each_attempt_names_its_own_key() -> None:
    """The first has keys that are taken in turn, and its second one is asked while the other member is."""
    again, late = asyncio.Event(), asyncio.Event()
    limited: list[Step] = [Wait(again), *fails(429, ("retry-after", "60"))]
    async with Upstream([Wait(late), *says("from a")]) as a, Upstream([Stall()]) as b:
        a.then(limited)
        mapping = race(a, b)
        mapping["llm"]["a"]["token_env"] = ["KEY", "KEY_2"]
        async with Proxy(mapping, env={"KEY_2": "sk-2"}) as proxy:
            async with asyncio.TaskGroup() as calls:
                call = calls.create_task(ask(proxy))
                await b.received()
                again.set()
                await a.received(2)
                late.set()

            assert b"from a" in call.result().body
            assert [(it.llm, it.key) for it in proxy.exchanges[0].attempts] == [
                ("b", None),
                ("a", "KEY"),
                ("a", "KEY_2"),
            ]


# ------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_a_member_that_fails_early_gives_way_as_in_a_fallback_group(status: int) -> None:
    async with (
        Upstream(fails(status)) as a,
        Upstream(says("from b")) as b,
        Proxy(race(a, b, after_ms=60_000)) as proxy,
    ):
        seen = await ask(proxy)

        assert b"from b" in seen.body
        assert told(seen).startswith(f"a {status} ")
        assert "the next member)" in told(seen)
        assert (len(a.requests), len(b.requests)) == (1, 1)


async def test_what_no_provider_would_take_is_told_at_once() -> None:
    go_on = asyncio.Event()
    async with Upstream([Wait(go_on), *fails(400)]) as a, Upstream([Stall()]) as b, Proxy(race(a, b)) as proxy:
        async with asyncio.TaskGroup() as calls:
            call = calls.create_task(ask(proxy))
            await b.received()
            go_on.set()

        assert call.result().status == 400
        await closed(b)


@pytest.mark.parametrize("first_to_fail", ["a", "b"])
async def test_where_one_of_two_fails_the_other_is_waited_for(first_to_fail: str) -> None:
    failed, later = asyncio.Event(), asyncio.Event()
    steps = {"a": [Wait(later), *says("hello")], "b": [Wait(later), *says("hello")]}
    steps[first_to_fail] = [Wait(failed), *fails(503)]
    async with Upstream(steps["a"]) as a, Upstream(steps["b"]) as b, Upstream() as c, Proxy(race(a, b, c)) as proxy:
        async with asyncio.TaskGroup() as calls:
            call = calls.create_task(ask(proxy))
            await b.received()
            failed.set()
            await (a if first_to_fail == "a" else b).requests[0].finished.wait()
            later.set()

        assert b"hello" in call.result().body
        assert (len(a.requests), len(b.requests), len(c.requests)) == (1, 1, 0)


async def test_when_both_have_failed_the_third_is_asked_and_nobody_twice() -> None:
    both = asyncio.Event()
    failing = [Wait(both), *fails(503)]
    async with Upstream(failing) as a, Upstream(failing) as b, Upstream(says("from c")) as c, Proxy(race(a, b, c)) as p:
        async with asyncio.TaskGroup() as calls:
            call = calls.create_task(ask(p))
            await b.received()
            both.set()

        assert b"from c" in call.result().body
        assert (len(a.requests), len(b.requests), len(c.requests)) == (1, 1, 1)


async def test_when_all_fail_the_caller_is_told() -> None:
    both = asyncio.Event()
    failing = [Wait(both), *fails(503)]
    async with Upstream(failing) as a, Upstream(failing) as b, Proxy(race(a, b, retries={"max_retries": 1})) as proxy:
        async with asyncio.TaskGroup() as calls:
            call = calls.create_task(ask(proxy))
            await b.received()
            both.set()

        assert call.result().status == 503
        assert (await proxy.outcome()).end is End.FAILED
        assert (len(a.requests), len(b.requests)) == (1, 1)


async def test_a_member_that_cannot_be_asked_now_is_passed_over_for_the_next() -> None:
    async with Upstream([Stall()]) as a, Upstream() as b, Upstream(says("from c")) as c:
        mapping = race(a, b, c, after_ms=50)
        mapping["llm"]["b"] |= {"provider": "anthropic"}
        async with Proxy(mapping, plugins=[llmproxy_anthropic]) as proxy:
            assert b"from c" in (await ask(proxy, logit_bias={"1": 2})).body
            assert [it.llm for it in proxy.exchanges[0].passed_over] == ["b"]


async def test_no_second_is_asked_where_no_try_is_left() -> None:
    go_on = asyncio.Event()
    async with Upstream([Wait(go_on), *says("from a")]) as a, Upstream() as b:
        async with Proxy(race(a, b, retries={"max_retries": 0})) as proxy, asyncio.TaskGroup() as calls:
            call = calls.create_task(ask(proxy))
            await a.received()
            go_on.set()

        assert b"from a" in call.result().body
        assert b.requests == []


# ------------------------------------------------------------------------------------------------ nested


async def test_a_race_in_a_fallback_group_gives_way_when_both_fail() -> None:
    both = asyncio.Event()
    failing = [Wait(both), *fails(503)]
    async with Upstream(failing) as a, Upstream(failing) as b, Upstream(says("from c")) as c:
        mapping = group("fallback", a, b, c, members=["inner", "c"])
        mapping["llm"]["inner"] = {"provider": "race", "members": ["a", "b"], **AT_ONCE}
        async with Proxy(mapping) as proxy, asyncio.TaskGroup() as calls:
            call = calls.create_task(ask(proxy))
            await b.received()
            both.set()

        assert b"from c" in call.result().body
        assert [len(it.requests) for it in (a, b, c)] == [1, 1, 1]


async def test_groups_race_each_other_each_with_the_request_as_it_asks_it() -> None:
    """The first falls over to its second member, for another model, while the other group is asked."""
    go_on = asyncio.Event()
    async with Upstream([Wait(go_on), *fails(503)]) as a, Upstream(says("from b")) as b, Upstream([Stall()]) as c:
        mapping = group("race", a, b, c, members=["left", "right"], **AT_ONCE)
        mapping["llm"]["left"] = {"provider": "fallback", "members": ["a", "b"], "model": "left-model"}
        mapping["llm"]["right"] = {"provider": "fallback", "members": ["c"], "model": "right-model"}
        async with Proxy(mapping) as proxy:
            async with asyncio.TaskGroup() as calls:
                call = calls.create_task(ask(proxy))
                await c.received()
                go_on.set()

            assert b"from b" in call.result().body
            models = [json.loads(it.requests[0].body)["model"] for it in (a, b, c)]
            assert models == ["left-model", "left-model", "right-model"]
            assert [it.llm for it in proxy.exchanges[0].attempts] == ["c", "a", "b"]
            await closed(c)


async def test_a_race_of_races_ends_with_one_answer_and_nothing_open() -> None:
    async with Upstream([Stall()]) as a, Upstream([Stall()]) as b, Upstream([Stall()]) as c, Upstream(GOOD) as d:
        mapping = group("race", a, b, c, d, members=["left", "right"], **AT_ONCE)
        mapping["llm"]["left"] = {"provider": "race", "members": ["a", "b"], **AT_ONCE}
        mapping["llm"]["right"] = {"provider": "race", "members": ["c", "d"], **AT_ONCE, "after_ms": 100}
        async with Proxy(mapping) as proxy:
            assert b"good" in (await ask(proxy, stream=True)).body
            assert proxy.exchanges[0].attempts[-1].llm == "d"
            await closed(a, b, c)


# ------------------------------------------------------------------------------------------------ who leaves


@pytest.mark.parametrize("streams", [False, True])
async def test_a_client_that_leaves_ends_both(streams: bool) -> None:
    script = silent_stream() if streams else [Stall()]
    async with Upstream(script) as a, Upstream(script) as b, Proxy(race(a, b)) as proxy:
        call = asyncio.get_running_loop().create_task(ask(proxy, stream=streams))
        await a.received()
        await b.received()
        call.cancel()

        await closed(a, b)
        outcome = await proxy.outcome()
        costs = [it.outcome and it.outcome.cost for it in proxy.exchanges[0].attempts]
        assert outcome.end is End.ABANDONED
        assert all(costs)
        assert outcome.cost == sum((cost for cost in costs if cost), Money())


async def test_a_client_that_leaves_the_winner_ends_that_too() -> None:
    async with Upstream(silent_stream()) as a, Upstream(silent_stream("good")) as b, Proxy(race(a, b)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        body = question(stream=True)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:{proxy.port}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        async with asyncio.timeout(WAIT_S):
            await reader.readuntil(b'"good"')
        await closed(a)
        writer.close()

        await closed(b)
        assert (await proxy.outcome()).end is End.ABANDONED


async def test_an_answer_that_is_read_on_without_its_client_is_read_on_in_a_race() -> None:
    go_on = asyncio.Event()
    async with Upstream([Stall()]) as a, Upstream([Wait(go_on), *says("from b")]) as b:
        mapping = race(a, b)
        mapping["route"][0]["on_disconnect"] = "drain"
        async with Proxy(mapping) as proxy:
            call = asyncio.get_running_loop().create_task(ask(proxy))
            await b.received()
            call.cancel()
            await asyncio.wait([call], timeout=WAIT_S)
            go_on.set()

            assert (await proxy.outcome()).end is End.ABANDONED
            won = proxy.exchanges[0].attempts[-1]
            assert won.llm == "b"
            assert won.outcome is not None
            assert won.outcome.end is End.COMPLETED


async def test_many_races_at_once_leave_nothing_behind() -> None:
    """Each outcome is one exchange's, places are given back, and the loop has the tasks that it had."""
    chance = random.Random(7)  # any seed: both upstreams answer, fail, break or are silent by lot

    async def whatever(call: Call) -> None:
        steps: Sequence[Sequence[Step]] = [says("hi"), fails(503), fails(400), [Cut()], GOOD, silent_stream()]
        await call.play(*chance.choice(steps))

    async with Upstream(whatever) as a, Upstream(whatever) as b, Upstream(whatever) as c:
        retries = {"max_retries": 2, "initial_backoff_s": 0.01}
        mapping = race(a, b, c, retries=retries, llm={"max_in_flight": 1000, "timeouts": {"first_token_s": 0.3}})
        before = asyncio.all_tasks()
        async with Proxy(mapping) as proxy:
            loop = asyncio.get_running_loop()
            calls = [loop.create_task(ask(proxy, stream=bool(index % 2))) for index in range(200)]
            for call in calls[::5]:
                loop.call_later(chance.random() / 2, call.cancel)
            await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), WAIT_S)

            await proxy.outcome(len(proxy.exchanges))
            assert len(proxy.outcomes) == len(proxy.exchanges)
            assert all(exchange.outcome is not None for exchange in proxy.exchanges)
            assert not proxy.gateway.background
            assert [task for task in asyncio.all_tasks() if task.get_name() == "race"] == []
            guards = [it for llm in proxy.gateway.llms.values() for it in layers(llm) if isinstance(it, Guarded)]
            assert [guard.places.in_flight for guard in guards] == [0, 0, 0]
            assert any(len(exchange.attempts) > 2 for exchange in proxy.exchanges)
        await closed(a, b, c)
        assert asyncio.all_tasks() <= before


# ------------------------------------------------------------------------------------------------ how many


async def test_no_more_calls_have_a_second_one_than_the_share_allows() -> None:
    async with Upstream(says("from a")) as a, Upstream([Stall()]) as b, Proxy(race(a, b, max_extra=0.05)) as proxy:
        for _ in range(200):
            assert (await ask(proxy)).status == 200

        doubled = [len(exchange.attempts) == 2 for exchange in proxy.exchanges]
        assert sum(doubled) == 10
        assert max(sum(doubled[begin : begin + 100]) for begin in range(101)) == 5


async def test_a_crowd_of_slow_calls_has_no_larger_share() -> None:
    go_on = asyncio.Event()
    slow = [Wait(go_on), *says("from a")]
    async with Upstream(slow) as a, Upstream([Stall()]) as b, Proxy(race(a, b, max_extra=0.05, after_ms=20)) as proxy:
        async with asyncio.TaskGroup() as calls:
            for _ in range(200):
                calls.create_task(ask(proxy))
            await a.received(200)
            await b.received()
            go_on.set()

        attempts = [attempt.llm for exchange in proxy.exchanges for attempt in exchange.attempts]
        assert attempts.count("a") == 200
        assert 1 <= attempts.count("b") <= 10


@pytest.mark.parametrize(
    "asked",
    [
        {"store": True},
        {"tools": [{"type": "web_search_preview"}]},
    ],
)
async def test_what_does_more_than_to_answer_is_asked_once(asked: dict[str, object]) -> None:
    go_on = asyncio.Event()
    async with Upstream([Wait(go_on), *says("from a")]) as a, Upstream() as b, Proxy(race(a, b)) as proxy:
        async with asyncio.TaskGroup() as calls:
            call = calls.create_task(ask(proxy, **asked))
            await a.received()
            go_on.set()

        assert b"from a" in call.result().body
        assert b.requests == []


async def test_what_is_no_chat_is_asked_once_and_falls_over() -> None:
    vectors = {"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    async with Upstream(fails(503)) as a, Upstream(reply(vectors)) as b, Proxy(race(a, b)) as proxy:
        seen = await post(f"{proxy.base_url}/embeddings", b'{"model":"m","input":"hi"}')

        assert seen.status == 200
        assert (len(a.requests), len(b.requests)) == (1, 1)


RESPONSES = ResponsesDialect()


@pytest.mark.parametrize(
    ("members", "has"),
    [
        ({}, False),
        ({"background": False}, False),
        ({"background": True}, True),
        ({"conversation": "conv_1"}, True),
        ({"store": True}, True),
        ({"store": False}, False),
        ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, False),
        ({"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://example.com"}]}, True),
    ],
)
def test_what_a_provider_would_do_twice_is_known(members: dict[str, object], has: bool) -> None:
    body = json.dumps({"model": "m", "input": "hi", **members}).encode()
    api = next(api for api in RESPONSES.apis if api.operation is Operation.CHAT)
    request = Request(operation=Operation.CHAT, dialect=RESPONSES, api=api, body=body)

    assert has_effects(request) is has


def test_what_cannot_be_read_may_do_anything() -> None:
    assert has_effects(Request(operation=Operation.CHAT, dialect=DIALECT, api=CHAT, body=b'{"messages":1}'))


@given(
    most=st.sampled_from([0.0, 0.01, 0.05, 0.29, 0.5, 0.99, 1.0]),
    slow=st.lists(st.booleans(), min_size=1, max_size=400),
)
def test_of_any_100_calls_in_a_row_no_more_than_the_share_have_a_second_one(most: float, slow: list[bool]) -> None:
    share, doubled = Share(most), list[bool]()
    for is_slow in slow:
        share.called()
        doubled.append(is_slow and share.is_left)
        if doubled[-1]:
            share.take()

    for begin in range(len(slow)):
        assert sum(doubled[begin : begin + 100]) <= round(most * 100)
    if most == 1:
        assert doubled == slow


# ------------------------------------------------------------------------------------------------ what is slow


def pace(**keys: Any) -> Pace:
    return Pace(RaceConfig(name="all", provider="race", members=("a", "b"), **keys))


def test_slow_is_two_seconds_until_twenty_times_are_known() -> None:
    known = pace()
    for took_ms in range(1, 20):
        known.learn(0, took_ms / 1000)
    assert known.after_s(0) == 2.0

    known.learn(0, 0.020)

    assert known.after_s(0) == 0.019  # 19 of 20 were no slower
    assert known.after_s(1) == 2.0


def test_a_fixed_time_stays_unless_a_percentage_is_set_too() -> None:
    fixed, both = pace(after_ms=300), pace(after_ms=300, after_percentile=50.0)
    for known in (fixed, both):
        assert known.after_s(0) == 0.3
        for _ in range(20):
            known.learn(0, 0.1)

    assert (fixed.after_s(0), both.after_s(0)) == (0.3, 0.1)


@given(
    took=st.lists(st.floats(0, 100), min_size=1, max_size=250),
    percent=st.floats(1, 100),
)
def test_a_percentile_is_that_of_the_last_hundred_times(took: list[float], percent: float) -> None:
    times = Times()
    for seconds in took:
        times.add(seconds)

    last = sorted(took[-100:])
    assert len(times) == len(last)
    assert times.percentile(percent) == last[ceil(len(last) * percent / 100) - 1]


async def test_what_lost_a_race_counts_for_what_is_slow() -> None:
    """Else a member that is always slow would be measured by its quick calls alone."""
    clock = asyncio.get_running_loop().time
    async with (
        Upstream(says("from a")) as a,
        Upstream(says("from b")) as b,
        Proxy(race(a, b, after_ms=300, after_percentile=100)) as proxy,
    ):
        a.then([Stall()])  # which makes 300 ms the slowest that is known, beside twenty quick ones
        for _ in range(21):
            await ask(proxy)
        a.then([Stall()])
        began_s = clock()
        await ask(proxy)

        assert clock() - began_s >= 0.3
        assert len(b.requests) == 2


@pytest.mark.parametrize("keys", [{"after_ms": -1}, {"after_percentile": 101}, {"max_extra": 1.5}])
def test_numbers_that_mean_nothing_are_problems(keys: dict[str, object]) -> None:
    llms: dict[str, object] = {"a": {"provider": "openai", "base_url": "http://127.0.0.1:1/v1"}}
    llms["all"] = {"provider": "race", "members": ["a"], **keys}
    with pytest.raises(ConfigError, match=next(iter(keys))):
        Proxy({"llm": llms, "route": [{"path_prefix": "/v1", "target_llm": "all"}]})
