"""Who asks the same at the same time shares one upstream call: who gets what, who pays, and what ends it."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from test_cache_kit import (
    COST,
    ONE,
    REST,
    TEXT,
    TWO,
    Cached,
    caching,
    half_way,
    listening,
    reply_in,
    soon,
    status,
    waiting,
)

from llmproxy_core import End, Exchange, Handler, Money, Response, Usage, UsageSource
from tests.answers import chat_chunk, completion, reply, sse
from tests.llmproxy_core.conversation import question
from tests.llmproxy_server.edging import Processing
from tests.script import Chunk, Flood, Head, Reached, Stall, Step, Wait
from tests.script import End as Close
from tests.upstream import Upstream

# -- one call for all --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [False, True], ids=["plain first", "stream first"])
async def test_a_hundred_who_ask_at_once_are_one_call(first: bool) -> None:
    go_on = asyncio.Event()
    whole: list[Step] = [Head(), ONE, TWO, REST, Close()] if first else list(reply(completion(TEXT)))
    async with (
        Upstream([Wait(go_on), *whole]) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
        asyncio.TaskGroup() as group,
    ):
        asked = [group.create_task(proxy.ask(question(stream=first)))]
        await proxy.until(lambda: bool(proxy.exchanges))
        forms = [it % 2 == 0 for it in range(99)]
        asked += [group.create_task(proxy.ask(question(stream=it))) for it in forms]
        await waiting(proxy, 100)
        go_on.set()

    seen = [it.result() for it in asked]
    assert len(upstream.requests) == 1
    assert Counter(map(status, seen)) == {"miss": 1, "shared": 99}
    assert {(it.status, it.whole, reply_in(it).text) for it in seen} == {(200, True, TEXT)}
    assert Counter((it.end, it.cost) for it in proxy.outcomes) == {
        (End.COMPLETED, Money(COST)): 1,
        (End.COMPLETED, Money(0)): 99,
    }
    assert sum(bill.cost.nanodollars for bill in proxy.bills.values() if bill.cost is not None) == COST
    assert Counter(len(it.attempts) for it in proxy.exchanges) == {1: 1, 0: 99}
    assert not proxy.gateway.background


async def test_other_questions_are_other_calls() -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *reply(completion(TEXT))]) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
        asyncio.TaskGroup() as group,
    ):
        asked = [group.create_task(proxy.ask(question(seed=seed))) for seed in range(5)]
        await waiting(proxy, 5)
        go_on.set()

    assert [status(it.result()) for it in asked] == ["miss"] * 5
    assert len(upstream.requests) == 5


async def test_who_comes_in_the_middle_sees_all_from_the_first_event_at_once() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    async with (
        Upstream(half_way(reached, go_on)) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
        listening(proxy, question(stream=True)) as first,
    ):
        await first.until(b"two ")
        await soon(reached)
        async with listening(proxy, question(stream=True)) as late:
            await late.until(b"one ")
            await late.until(b"two ")  # long before there is more
            assert len(proxy.exchanges) == 2
            assert not proxy.outcomes
            go_on.set()
            seen = [await it.rest() for it in (first, late)]

    assert [status(it) for it in seen] == ["miss", "shared"]
    assert seen[0].body == seen[1].body
    assert [reply_in(it).text for it in seen] == [TEXT] * 2
    assert len(upstream.requests) == 1


async def test_who_asks_for_a_plain_answer_in_the_middle_of_a_stream_waits_for_all_of_it() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    async with (
        Upstream(half_way(reached, go_on)) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
        listening(proxy, question(stream=True)) as first,
        asyncio.TaskGroup() as group,
    ):
        await first.until(b"two ")
        late = group.create_task(proxy.ask(question()))
        await waiting(proxy, 2)
        assert not late.done()
        go_on.set()
        await first.rest()

    assert status(late.result()) == "shared"
    assert reply_in(late.result()).text == TEXT
    assert reply_in(late.result()).usage == Usage(9, 3)


async def test_a_client_that_does_not_read_holds_nobody_up() -> None:
    text = "x" * 2000
    events = [Chunk(sse(chat_chunk(text), done=False)) for _ in range(200)]
    async with (
        Upstream([Head(), *events, REST, Close()]) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
        listening(proxy, question(stream=True)) as lazy,
    ):
        await lazy.until(b"data:")
        seen = await proxy.ask(question(stream=True))

    assert (seen.whole, status(seen)) == (True, "shared")
    assert reply_in(seen).text == text * 200 + "three"
    assert len(upstream.requests) == 1


# -- who leaves, and who pays ------------------------------------------------------------------------------------------


async def test_the_first_leaves_and_the_others_go_on_at_its_cost() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    async with Upstream(half_way(reached, go_on)) as upstream, Cached(caching(upstream.base_url)) as proxy:
        async with listening(proxy, question(stream=True)) as first:
            await first.until(b"two ")
            async with listening(proxy, question(stream=True)) as other:
                await other.until(b"two ")
                await first.leave()
                left = await proxy.outcome()
                assert not proxy.bills
                go_on.set()
                seen = await other.rest()
        await proxy.outcome(2)

    assert reply_in(seen).text == TEXT
    assert (left.end, left.cost) == (End.ABANDONED, None)
    paid, free = (proxy.bills[it.id] for it in proxy.exchanges)
    assert (paid.end, paid.usage, paid.cost) == (End.ABANDONED, Usage(9, 3), Money(COST))
    assert (free.end, free.usage, free.cost) == (End.COMPLETED, None, Money(0))
    assert len(upstream.requests) == 1
    assert not upstream.requests[0].gone.is_set()


async def test_what_the_others_finished_is_kept_though_the_first_left() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    async with Upstream(half_way(reached, go_on)) as upstream, Cached(caching(upstream.base_url)) as proxy:
        async with listening(proxy, question(stream=True)) as first:
            await first.until(b"two ")
            async with listening(proxy, question(stream=True)) as other:
                await other.until(b"two ")
                await first.leave()
                go_on.set()
                await other.rest()
        assert status(await proxy.ask(question())) == "hit"


async def test_when_all_have_left_the_upstream_is_let_go_of() -> None:
    steps: list[Step] = [Head(), ONE, Stall()]
    async with Upstream(steps) as upstream, Cached(caching(upstream.base_url)) as proxy:
        async with (
            listening(proxy, question(stream=True)) as first,
            listening(proxy, question(stream=True)) as other,
        ):
            await first.until(b"one ")
            await other.until(b"one ")
            await first.leave()
            await proxy.outcome()
            assert not upstream.requests[0].gone.is_set()
            await other.leave()
            await soon(upstream.requests[0].gone)
        await proxy.outcome(2)
        await proxy.until(lambda: len(proxy.bills) == 2)

        paid, free = (proxy.bills[it.id] for it in proxy.exchanges)
        assert paid.usage is not None
        assert paid.usage.source is UsageSource.ESTIMATED
        assert paid.cost is not None
        assert paid.cost > Money(0)
        assert (free.usage, free.cost) == (None, Money(0))
        assert not proxy.gateway.background


async def test_when_all_have_left_before_an_answer_came_the_upstream_is_let_go_of() -> None:
    async with Upstream([Stall()]) as upstream, Cached(caching(upstream.base_url)) as proxy:
        async with listening(proxy, question()) as first, listening(proxy, question(stream=True)) as other:
            await upstream.received()
            await waiting(proxy, 2)
            await first.leave()
            await proxy.outcome()
            assert not upstream.requests[0].gone.is_set()
            await other.leave()
            await soon(upstream.requests[0].gone)
        await proxy.outcome(2)

        assert [it.end for it in proxy.outcomes] == [End.ABANDONED] * 2
        assert not proxy.gateway.background


async def test_nobody_joins_what_all_have_left() -> None:
    async with Upstream([Head(), ONE, Stall()]) as upstream, Cached(caching(upstream.base_url)) as proxy:
        async with listening(proxy, question(stream=True)) as first:
            await first.until(b"one ")
        await proxy.outcome()
        upstream.script = reply(completion("again"))
        seen = await proxy.ask(question())

    assert (status(seen), reply_in(seen).text) == ("miss", "again")


async def test_leaving_and_coming_at_the_same_time_loses_nobody() -> None:
    """Clients that leave at any moment, and others that stay: each who stays has all of it."""
    go_on = asyncio.Event()

    async def paced(call: object) -> None:
        await soon(go_on)
        await call.play(Head(), ONE, TWO, REST, Close())  # type: ignore[attr-defined]

    async with Upstream(paced) as upstream, Cached(caching(upstream.base_url)) as proxy:

        async def leaves(turns: int) -> None:
            async with listening(proxy, question(stream=True)):
                for _ in range(turns):
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            stays = [group.create_task(proxy.ask(question(stream=it % 2 == 0))) for it in range(20)]
            for turns in range(30):
                group.create_task(leaves(turns))
            await proxy.until(lambda: len(proxy.exchanges) >= 20)
            go_on.set()

    assert {(it.result().whole, reply_in(it.result()).text) for it in stays} == {(True, TEXT)}
    assert len(upstream.requests) == 1


# -- its bound ---------------------------------------------------------------------------------------------------------


async def test_beyond_the_bound_nobody_joins_and_another_call_is_made() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    long = Chunk(sse(chat_chunk("x" * 5000), done=False))
    async with (
        Upstream([Head(), ONE, long, Reached(reached), Wait(go_on), REST, Close()]) as upstream,
        Cached(caching(upstream.base_url, max_entry_bytes=4096)) as proxy,
        listening(proxy, question(stream=True)) as first,
        listening(proxy, question(stream=True)) as early,
    ):
        await first.until(b"xxx")
        await early.until(b"xxx")
        await soon(reached)
        async with listening(proxy, question(stream=True)) as late:
            await late.until(b"xxx")
            go_on.set()
            seen = [await it.rest() for it in (first, early, late)]

    assert [status(it) for it in seen] == ["miss", "shared", "miss"]
    assert {reply_in(it).text for it in seen} == {"one " + "x" * 5000 + "three"}
    assert len(upstream.requests) == 2


async def test_beyond_the_bound_the_slowest_holds_the_upstream_until_it_leaves() -> None:
    text = "x" * 20_000
    left = asyncio.Event()
    flood = Flood(sse(chat_chunk(text), done=False), until=left)
    async with (
        Upstream([Head(), flood, REST, Close()], send_buffer_bytes=4096) as upstream,
        Cached(caching(upstream.base_url, max_entry_bytes=30_000)) as proxy,
        listening(proxy, question(stream=True)) as fast,
        listening(proxy, question(stream=True), read_buffer_bytes=4096) as lazy,
    ):
        await waiting(proxy, 2)
        await lazy.until(b"data:")
        reading = asyncio.get_running_loop().create_task(fast.rest())
        await upstream.requests[0].held_back()
        held_at = upstream.bytes_sent

        await lazy.leave()
        await proxy.until(lambda: upstream.bytes_sent > held_at + 10 * len(text))
        left.set()
        seen = await reading

    assert seen.whole
    assert reply_in(seen).text.endswith("xthree")
    assert len(upstream.requests) == 1
    assert [it.end for it in proxy.outcomes] == [End.ABANDONED, End.COMPLETED]


# -- what those below said -------------------------------------------------------------------------------------------


async def test_what_a_processor_below_tells_the_client_and_the_log_comes_to_all() -> None:
    go_on = asyncio.Event()

    async def around(exchange: Exchange, call_next: Handler) -> Response:
        exchange.response_headers.append(("x-below", "here"))
        exchange.log_fields["below"] = 1
        return await call_next(exchange)

    async with (
        Upstream([Wait(go_on), *reply(completion(TEXT))]) as upstream,
        Cached(caching(upstream.base_url, chain=["cache", "around"]), plugins=[Processing(around)]) as proxy,
        asyncio.TaskGroup() as group,
    ):
        asked = [group.create_task(proxy.ask(question())) for _ in range(3)]
        await waiting(proxy, 3)
        go_on.set()

    assert [it.result().header("x-below") for it in asked] == ["here"] * 3
    assert [it.log_fields["below"] for it in proxy.exchanges] == [1] * 3
    assert sorted(map(str, proxy.statuses())) == ["miss", "shared", "shared"]
    assert all([name for name, _ in it.result().headers].count("x-llmproxy-cache") == 1 for it in asked)


async def test_each_is_guarded_for_itself_around_it() -> None:
    """A time budget around the cache ends one of those who wait, and none of the others."""
    go_on = asyncio.Event()

    async def around(exchange: Exchange, call_next: Handler) -> Response:
        if "x-hurry" not in exchange.request.headers:
            return await call_next(exchange)
        async with asyncio.timeout(0.05):
            return await call_next(exchange)

    async with (
        Upstream([Wait(go_on), *reply(completion(TEXT))]) as upstream,
        Cached(caching(upstream.base_url, chain=["around", "cache"]), plugins=[Processing(around)]) as proxy,
        asyncio.TaskGroup() as group,
    ):
        hurry = group.create_task(proxy.ask(question(), ("x-hurry", "1")))
        await waiting(proxy, 1)
        patient = group.create_task(proxy.ask(question()))
        assert (await hurry).status == 500
        go_on.set()

    assert reply_in(patient.result()).text == TEXT
    assert len(upstream.requests) == 1
