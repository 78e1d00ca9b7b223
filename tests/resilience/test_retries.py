"""A failed call is tried again, within what the caller, the operator and the provider allow."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref

import pytest

from llmproxy_core import End
from tests.answers import chat_chunk, sse, stream, usage_chunk
from tests.llmproxy_server.transporting import until
from tests.proxy import SECRET, Proxy
from tests.resilience.flocks import QUICK, ask, fails, one, says, told
from tests.upstream import EVENT_STREAM, Chunk, Cut, Head, Reset, Stall, Step, Upstream, Wait


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 529])
async def test_a_failure_of_the_provider_is_hidden_by_another_try(status: int) -> None:
    async with Upstream(says("hello")) as upstream, Proxy(one(upstream)) as proxy:
        upstream.then(fails(status))

        seen = await ask(proxy)

        assert (seen.status, len(upstream.requests)) == (200, 2)
        assert b"hello" in seen.body
        assert told(seen).startswith(f"a {status} ")
        (exchange,) = proxy.exchanges
        assert [attempt.status for attempt in exchange.attempts] == [status, 200]
        assert (await proxy.outcome()).end is End.COMPLETED


@pytest.mark.parametrize("how", [[Reset()], [Cut()]], ids=["reset", "closed"])
async def test_a_connection_that_breaks_before_the_answer_is_another_try(how: list[Reset | Cut]) -> None:
    async with Upstream(says("hello")) as upstream, Proxy(one(upstream)) as proxy:
        upstream.then(how)

        assert (await ask(proxy)).status == 200
        assert len(upstream.requests) == 2


async def test_tries_end_and_sdks_are_told_not_to_multiply_them() -> None:
    async with Upstream(fails(503, ("x-should-retry", "true"))) as upstream, Proxy(one(upstream)) as proxy:
        seen = await ask(proxy)

        assert (seen.status, len(upstream.requests)) == (503, 4)  # three after the first
        assert [value for name, value in seen.headers if name == "x-should-retry"] == ["false"]


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_what_no_provider_would_take_is_not_tried_again(status: int) -> None:
    async with Upstream(fails(status)) as upstream, Proxy(one(upstream)) as proxy:
        assert (await ask(proxy)).status == status
        assert len(upstream.requests) == 1


async def test_without_retries_there_are_none() -> None:
    async with Upstream(fails(503)) as upstream, Proxy(one(upstream, tried=False)) as proxy:
        seen = await ask(proxy)

        assert (seen.status, len(upstream.requests)) == (503, 1)
        assert seen.header("x-should-retry") != "false"


async def test_a_stream_that_fails_before_its_first_token_is_another_try() -> None:
    role = chat_chunk(None) | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    cut: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(role, done=False)), Cut()]
    good = stream(chat_chunk("hello"), chat_chunk(None, finish="stop"), usage_chunk())
    async with Upstream(good) as upstream, Proxy(one(upstream)) as proxy:
        upstream.then(cut)

        seen = await ask(proxy, stream=True)

        assert (seen.status, len(upstream.requests)) == (200, 2)
        assert seen.body.count(b"data: ") == 3  # nothing of the first is in it, nor the usage that nobody asked for
        assert seen.body.endswith(b"data: [DONE]\n\n")


async def test_a_stream_that_fails_behind_its_first_token_is_told_and_not_begun_anew() -> None:
    cut: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(chat_chunk("hel"), done=False)), Cut()]
    async with Upstream(cut) as upstream, Proxy(one(upstream)) as proxy:
        seen = await ask(proxy, stream=True)

        assert len(upstream.requests) == 1
        assert b'"error"' in seen.body
        assert b"[DONE]" not in seen.body


# ------------------------------------------------------------------------------------------------ waits


async def test_no_try_comes_before_the_provider_wants_it() -> None:
    async with Upstream(says("hello")) as upstream, Proxy(one(upstream)) as proxy:
        upstream.then(fails(429, ("retry-after-ms", "300")))
        began_s = time.monotonic()

        assert (await ask(proxy)).status == 200
        assert time.monotonic() - began_s >= 0.3


async def test_other_calls_do_not_come_before_that_either_and_are_told_so_at_once() -> None:
    """Who was not told itself does not wait: the proxy would fill with calls that sleep for somebody else's rest."""
    async with Upstream(says("hello")) as upstream, Proxy(one(upstream)) as proxy:
        upstream.then(fails(429, ("retry-after", "4")))
        async with asyncio.TaskGroup() as both:
            first = both.create_task(ask(proxy))
            await until_an_attempt_failed(proxy)
            second = await ask(proxy)
            assert not first.done()
            first.cancel()

        assert (second.status, second.header("retry-after")) == (429, "4")
        assert len(upstream.requests) == 1


async def until_an_attempt_failed(proxy: Proxy) -> None:
    await until(lambda: any(attempt.error for exchange in proxy.exchanges for attempt in exchange.attempts))


async def test_who_is_asked_to_wait_for_long_is_told_so_at_once() -> None:
    async with Upstream(fails(429, ("retry-after", "60"))) as upstream, Proxy(one(upstream)) as proxy:
        first, second = await ask(proxy), await ask(proxy)

        assert (first.status, second.status, len(upstream.requests)) == (429, 429, 1)
        assert 50 <= int(second.header("retry-after") or "") <= 60
        assert proxy.exchanges[1].passed_over[0].llm == "a"


async def test_the_callers_deadline_bounds_the_waits() -> None:
    slow = QUICK | {"initial_backoff_s": 4.0, "jitter": 1.0}
    async with Upstream(fails(503)) as upstream, Proxy(one(upstream, retries=slow)) as proxy:
        seen = await ask(proxy, ("x-llmproxy-timeout-ms", "500"))

        assert (seen.status, len(upstream.requests)) == (503, 1)


async def test_the_callers_deadline_ends_a_try() -> None:
    async with Upstream([Stall()]) as upstream, Proxy(one(upstream)) as proxy:
        seen = await ask(proxy, ("x-llmproxy-timeout-ms", "200"))

        assert (seen.status, json.loads(seen.body)["error"]["code"]) == (504, "deadline_exceeded")
        assert len(upstream.requests) == 1


async def test_a_client_that_leaves_during_a_wait_is_not_served_any_more() -> None:
    slow = QUICK | {"initial_backoff_s": 4.0, "jitter": 1.0}
    async with Upstream(fails(503)) as upstream, Proxy(one(upstream, retries=slow)) as proxy:
        async with asyncio.TaskGroup() as asking:
            asked = asking.create_task(ask(proxy))
            await until_an_attempt_failed(proxy)
            asked.cancel()

        assert (await proxy.outcome()).end is End.ABANDONED
        assert len(upstream.requests) == 1


async def test_in_an_outage_an_upstream_sees_little_more_than_its_calls() -> None:
    """20 percent and three more, whatever each call may: retries must not make an outage worse."""
    calls = 50
    quick = QUICK | {"initial_backoff_s": 0.001}
    async with Upstream(fails(503)) as upstream, Proxy(one(upstream, retries=quick)) as proxy:
        seen = await asyncio.gather(*(ask(proxy) for _ in range(calls)))

        assert {it.status for it in seen} == {503}
        assert calls < len(upstream.requests) <= calls * 1.2 + 3


# ------------------------------------------------------------------------------------------------ keys


async def test_in_an_outage_kept_connections_that_break_are_no_calls_beyond_that() -> None:
    """The request was read, so it may have been worked on: to send it over a new connection is a retry."""
    calls = 40
    all_there = asyncio.Event()
    async with Upstream([Wait(all_there), *says("good")]) as upstream, Proxy(one(upstream)) as proxy:
        async with asyncio.TaskGroup() as warm:
            for _ in range(calls):
                warm.create_task(ask(proxy))
            await upstream.received(calls)
            all_there.set()

        upstream.script, upstream.requests = [Cut()], []
        seen = await asyncio.gather(*(ask(proxy) for _ in range(calls)))

        assert {it.status for it in seen} == {502}
        assert calls < len(upstream.requests) <= calls + 3 + 0.2 * 2 * calls
        attempts = [it for exchange in proxy.exchanges for it in exchange.attempts]
        assert sum(1 + it.repeated for it in attempts) == calls + len(upstream.requests)
        assert any(it.repeated for it in attempts)


async def test_a_key_that_is_limited_gives_way_to_the_next_and_rests() -> None:
    keys = {"token_env": ["KEY", "KEY_2"]}
    async with (
        Upstream(says("hello")) as upstream,
        Proxy(one(upstream, **keys), env={"KEY_2": "sk-2-0123456"}) as proxy,
    ):
        upstream.then(fails(429, ("retry-after", "60")))
        for _ in range(3):
            assert (await ask(proxy)).status == 200

        used = [request.header("authorization") for request in upstream.requests]
        assert used == [f"Bearer {SECRET}", *["Bearer sk-2-0123456"] * 3]
        assert [attempt.key for attempt in proxy.exchanges[0].attempts] == ["KEY", "KEY_2"]


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_key_that_is_refused_gives_way_to_the_next(status: int) -> None:
    keys = {"token_env": ["KEY", "KEY_2"]}
    async with (
        Upstream(says("hello")) as upstream,
        Proxy(one(upstream, **keys), env={"KEY_2": "sk-2-0123456"}) as proxy,
    ):
        upstream.then(fails(status))

        assert (await ask(proxy)).status == 200
        assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    ("status", "calls", "hint"),
    [(500, 1, None), (429, 2, "false"), (401, 2, "false")],
    ids=["failed", "limited", "refused"],
)
async def test_without_retries_another_key_is_all_that_is_tried(status: int, calls: int, hint: str | None) -> None:
    keys = {"token_env": ["KEY", "KEY_2"]}
    async with (
        Upstream(fails(status)) as upstream,
        Proxy(one(upstream, tried=False, **keys), env={"KEY_2": "sk-2-0123456"}) as proxy,
    ):
        seen = await ask(proxy)

        assert seen.status == {401: 502}.get(status, status)
        assert len({request.header("authorization") for request in upstream.requests}) == calls
        assert len(upstream.requests) == calls
        assert seen.header("x-should-retry") == hint


async def test_keys_take_turns() -> None:
    keys = {"token_env": ["KEY", "KEY_2"]}
    async with (
        Upstream(says("hello")) as upstream,
        Proxy(one(upstream, **keys), env={"KEY_2": "sk-2-0123456"}) as proxy,
    ):
        for _ in range(4):
            await ask(proxy)

        used = [request.header("authorization") for request in upstream.requests]
        assert used == [f"Bearer {SECRET}", "Bearer sk-2-0123456"] * 2


async def test_where_all_keys_are_refused_the_operator_is_named_and_no_key() -> None:
    keys = {"token_env": ["KEY", "KEY_2"]}
    async with Upstream(fails(401)) as upstream, Proxy(one(upstream, **keys), env={"KEY_2": "sk-2-0123456"}) as proxy:
        for _ in range(2):  # the second while both rest
            seen = await ask(proxy)

            assert (seen.status, json.loads(seen.body)["error"]["code"]) == (502, "upstream_auth")
            assert SECRET.encode() not in seen.body
        assert len(upstream.requests) == 2


# ------------------------------------------------------------------------------------------------ the breaker


async def test_an_llm_that_fails_is_left_alone_until_a_probe_finds_it_well() -> None:
    breaker = {"min_calls": 4, "open_s": 0.2, "probes": 1}
    async with Upstream(fails(503)) as upstream, Proxy(one(upstream, tried=False, breaker=breaker)) as proxy:
        for _ in range(4):
            await ask(proxy)
        refused = await ask(proxy)

        assert (refused.status, json.loads(refused.body)["error"]["code"]) == (503, "upstream_unavailable")
        assert len(upstream.requests) == 4
        upstream.script = says("hello")
        async with asyncio.timeout(5):
            while (seen := await ask(proxy)).status == 503:
                pass
        assert seen.status == 200


async def test_refusals_of_requests_and_clients_that_leave_do_not_open_the_breaker() -> None:
    breaker = {"min_calls": 2}
    async with Upstream(fails(400)) as upstream, Proxy(one(upstream, breaker=breaker)) as proxy:
        for _ in range(6):
            assert (await ask(proxy)).status == 400


@pytest.mark.parametrize("again", [1, 5], ids=["hidden", "told"])
async def test_failed_tries_leave_no_cycle_that_keeps_bodies_in_memory(again: int) -> None:
    async with Upstream(says("hello")) as upstream, Proxy(one(upstream)) as proxy:
        upstream.then(*[fails(503)] * again)
        gc.disable()
        try:
            await ask(proxy)
            await proxy.outcome()
            left = weakref.ref(proxy.exchanges.pop())
            proxy.outcomes.clear()

            await until(lambda: left() is None)
        finally:
            gc.enable()
