"""What ends an upstream call that several share, and who is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from test_cache_kit import (
    ONE,
    SOON_S,
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

from llmproxy_core import End, Exchange, Handler, Response
from tests.answers import completion, error, reply
from tests.llmproxy_core.conversation import question
from tests.llmproxy_server.edging import Processing
from tests.script import Chunk, Cut, Head, Reached, Stall, Step, Wait
from tests.upstream import Upstream

# -- what ends it ------------------------------------------------------------------------------------------------------


async def test_the_time_that_the_llm_has_ends_it_for_all() -> None:
    async with (
        Upstream([Head(), ONE, Stall()]) as upstream,
        Cached(caching(upstream.base_url, llm={"timeouts": {"total_s": 0.3}})) as proxy,
        listening(proxy, question(stream=True)) as first,
    ):
        await first.until(b"one ")
        async with listening(proxy, question(stream=True)) as other:
            seen = [await first.rest(), await other.rest()]
        await soon(upstream.requests[0].gone)

    for it in seen:
        assert not it.whole
        assert b"one " in it.body
        assert b"upstream_timeout" in it.body
    assert [it.end for it in proxy.outcomes] == [End.FAILED] * 2


BROKEN: dict[str, tuple[Sequence[Step], int, bytes]] = {
    "an error": (reply(error("the model is gone", code="model_gone"), 404), 404, b"model_gone"),
    "an overload": (reply(error("busy"), 503), 503, b"busy"),
    "cut before an answer": ([Cut()], 502, b"upstream_"),
    "cut in a plain answer": ([Head(framing=100), Chunk(b'{"id":'), Cut()], 502, b"upstream_cut"),
}


@pytest.mark.parametrize(("steps", "code", "text"), BROKEN.values(), ids=BROKEN.keys())
async def test_what_the_upstream_says_instead_reaches_all(steps: Sequence[Step], code: int, text: bytes) -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *steps]) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
        asyncio.TaskGroup() as group,
    ):
        asked = [group.create_task(proxy.ask(question(stream=it))) for it in (False, True, False, True)]
        await waiting(proxy, 4)
        go_on.set()

    assert [it.result().status for it in asked] == [code] * 4
    assert all(text in it.result().body for it in asked)
    assert Counter(status(it.result()) for it in asked) == {"miss": 1, "shared": 3}
    assert len(upstream.requests) == 1


async def test_a_cut_in_the_middle_reaches_all_after_what_was_good() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    steps: list[Step] = [Head(), ONE, TWO, Reached(reached), Wait(go_on), Cut()]
    async with (
        Upstream(steps) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
        listening(proxy, question(stream=True)) as first,
        listening(proxy, question(stream=True)) as other,
        asyncio.TaskGroup() as group,
    ):
        await first.until(b"two ")
        plain = group.create_task(proxy.ask(question()))
        await waiting(proxy, 3)
        go_on.set()
        seen = [await it.rest() for it in (first, other)]

    for it in seen:
        assert not it.whole
        assert it.body.index(b"one ") < it.body.index(b"two ") < it.body.index(b"upstream_cut")
    assert plain.result().status == 502
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("bug", [ZeroDivisionError("a bug"), asyncio.CancelledError()], ids=["bug", "cancelled"])
async def test_a_bug_below_is_told_to_all(bug: BaseException) -> None:
    go_on = asyncio.Event()

    async def around(exchange: Exchange, call_next: Handler) -> Response:
        await soon(go_on)
        raise bug

    async with (
        Upstream() as upstream,
        Cached(caching(upstream.base_url, chain=["cache", "around"]), plugins=[Processing(around)]) as proxy,
        asyncio.TaskGroup() as group,
    ):
        asked = [group.create_task(proxy.ask(question())) for _ in range(3)]
        await waiting(proxy, 3)
        go_on.set()

    assert [it.result().status for it in asked] == [500] * 3
    assert [it.end for it in proxy.outcomes] == [End.FAILED] * 3


async def test_the_proxy_may_end_in_the_middle_of_it() -> None:
    async with Upstream([Head(), ONE, Stall()]) as upstream:
        proxy = Cached({**caching(upstream.base_url), "server": {"drain_timeout_s": 0.1}})
        async with (
            proxy,
            listening(proxy, question(stream=True)) as first,
            listening(proxy, question(stream=True)) as other,
        ):
            await first.until(b"one ")
            await other.until(b"one ")
            async with asyncio.timeout(SOON_S):
                await proxy.server.stop()
            seen = [await it.rest() for it in (first, other)]
        await soon(upstream.requests[0].gone)

    assert all(not it.whole and b"shutting_down" in it.body for it in seen)
    assert [it.end for it in proxy.outcomes] == [End.FAILED] * 2


# -- until when somebody waits -----------------------------------------------------------------------------------------


def within(ms: int) -> tuple[str, str]:
    return "x-llmproxy-timeout-ms", str(ms)


@pytest.mark.parametrize("is_first", [True, False], ids=["the first", "a later one"])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
async def test_each_waits_until_its_own_deadline_and_cuts_nobody_else(streamed: bool, is_first: bool) -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *reply(completion("x"))]) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
        asyncio.TaskGroup() as group,
    ):
        short = [within(100)]
        asked = [group.create_task(proxy.ask(question(stream=streamed), *(short if is_first else [])))]
        await waiting(proxy, 1)
        asked.append(group.create_task(proxy.ask(question(stream=streamed), *([] if is_first else short))))
        cut, served = asked if is_first else reversed(asked)
        async with asyncio.timeout(SOON_S):
            seen = await cut
        assert (seen.status, b"deadline_exceeded" in seen.body) == (504, True)
        assert not served.done()
        go_on.set()

    assert (served.result().status, served.result().whole) == (200, True)
    assert len(upstream.requests) == 1
    assert not proxy.gateway.background


async def test_a_stream_that_is_read_ends_for_each_at_its_own_deadline() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    async with (
        Upstream(half_way(reached, go_on)) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
        asyncio.TaskGroup() as group,
    ):
        cut = group.create_task(proxy.ask(question(stream=True), within(600)))
        await soon(reached)
        served = group.create_task(proxy.ask(question(stream=True)))
        async with asyncio.timeout(SOON_S):
            seen = await cut
        assert (seen.status, seen.whole, b"deadline_exceeded" in seen.body) == (200, False, True)
        assert not served.done()
        go_on.set()

    assert (served.result().whole, reply_in(served.result()).text) == (True, TEXT)
    assert len(upstream.requests) == 1


async def test_when_the_last_deadline_is_over_the_upstream_is_let_go_of() -> None:
    async with Upstream([Stall()]) as upstream, Cached(caching(upstream.base_url)) as proxy:
        seen = await proxy.ask(question(), within(100))
        await soon(upstream.requests[0].gone)
        await proxy.until(lambda: not proxy.gateway.background)

    assert seen.status == 504


RETRIED = {"retries": {"max_retries": 3, "initial_backoff_s": 0.001}}


async def test_a_wait_is_judged_by_the_latest_deadline_of_those_that_wait() -> None:
    """None is begun that all of them would give up in; one that only the first would give up in is."""
    go_on = asyncio.Event()
    busy = [Wait(go_on), *reply(error("slow down"), 429, headers=[("retry-after-ms", "1200")])]
    async with (
        Upstream(reply(completion("x"))) as upstream,
        Cached(caching(upstream.base_url, llm=RETRIED)) as proxy,
        asyncio.TaskGroup() as group,
    ):
        upstream.then(busy)
        asked = [group.create_task(proxy.ask(question(), within(ms))) for ms in (800, 60_000)]
        await waiting(proxy, 2)
        go_on.set()

    assert [it.result().status for it in asked] == [504, 200]
    assert len(upstream.requests) == 2


async def test_who_has_no_time_for_a_wait_is_told_at_once() -> None:
    busy = reply(error("slow down"), 429, headers=[("retry-after", "20")])
    async with Upstream(busy) as upstream, Cached(caching(upstream.base_url, llm=RETRIED)) as proxy:
        async with asyncio.timeout(SOON_S):
            seen = await proxy.ask(question(), within(10_000))

    assert (seen.status, seen.header("retry-after")) == (429, "20")
    assert len(upstream.requests) == 1


async def test_no_other_try_is_begun_for_clients_that_have_all_left() -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *reply(error("busy"), 503)]) as upstream,
        Cached(caching(upstream.base_url, llm=RETRIED, route={"on_disconnect": "drain"})) as proxy,
    ):
        async with listening(proxy, question()):
            await upstream.received()
        await proxy.until(lambda: not proxy.server.edges[0].connections)
        go_on.set()
        await proxy.outcome()
        await proxy.until(lambda: not proxy.gateway.background)

    assert len(upstream.requests) == 1


async def test_for_one_that_stays_the_tries_of_the_others_go_on() -> None:
    go_on = asyncio.Event()
    async with (
        Upstream(reply(completion("x"))) as upstream,
        Cached(caching(upstream.base_url, llm=RETRIED, route={"on_disconnect": "drain"})) as proxy,
        asyncio.TaskGroup() as group,
    ):
        upstream.then([Wait(go_on), *reply(error("busy"), 503)])
        async with listening(proxy, question()):
            await upstream.received()
            stays = group.create_task(proxy.ask(question()))
            await waiting(proxy, 2)
        await proxy.until(lambda: len(proxy.server.edges[0].connections) == 1)
        go_on.set()

    assert stays.result().status == 200
    assert len(upstream.requests) == 2
