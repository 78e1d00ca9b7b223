"""Up to a point of its answer the failure of an LLM is hidden; behind it the client is told."""

from __future__ import annotations

import asyncio
import json

import pytest

from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from tests.answers import chat_chunk, sse, stream
from tests.exact import post
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy
from tests.resilience.flocks import ask, group, one, says
from tests.upstream import EVENT_STREAM, Call, Chunk, Cut, Head, Stall, Step, Upstream

GOOD = stream(chat_chunk("good"), chat_chunk(None, finish="stop"))


def broken(*texts: str) -> list[Step]:
    """A stream that says *texts* and is cut."""
    return [Head(200, EVENT_STREAM), *(Chunk(sse(chat_chunk(text), done=False)) for text in texts), Cut()]


@pytest.mark.parametrize(
    ("commit", "said", "hidden"),
    [
        ("headers", [], False),
        ("first-token", [], True),
        ("first-token", ["bad"], False),
        ({"chars": 10}, ["bad"], True),
        ({"chars": 10}, ["bad", "very bad"], False),
    ],
)
async def test_a_failure_before_the_point_is_hidden(commit: object, said: list[str], hidden: bool) -> None:
    async with (
        Upstream(broken(*said)) as a,
        Upstream(GOOD) as b,
        Proxy(group("fallback", a, b, commit=commit)) as proxy,
    ):
        seen = await ask(proxy, stream=True)

        assert (b"good" in seen.body, b"bad" in seen.body) == (hidden, bool(said) and not hidden)
        assert (b'"error"' in seen.body) is not hidden
        assert seen.body.endswith(b"data: [DONE]\n\n") is hidden


async def test_an_answer_that_is_shorter_than_the_point_is_passed_on() -> None:
    async with Upstream(GOOD) as a, Proxy(group("fallback", a, commit={"chars": 1000})) as proxy:
        assert (await ask(proxy, stream=True)).body.endswith(b"data: [DONE]\n\n")


async def test_text_is_held_for_so_long_and_no_longer() -> None:
    slow: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(chat_chunk("slow"), done=False)), Stall()]
    async with Upstream(slow) as a:
        commit = {"chars": 1000, "ms": 100}
        async with Proxy(group("fallback", a, commit=commit)) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:{proxy.port}\r\n"
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            async with asyncio.timeout(5):
                assert b"slow" in await reader.readuntil(b'"slow"')
            writer.close()


async def test_the_first_token_has_a_clock_of_its_own() -> None:
    role = chat_chunk(None) | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    silent: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(role, done=False)), Stall()]
    clock = {"timeouts": {"first_token_s": 0.1}}
    async with Upstream(silent) as a, Proxy(one(a, tried=False, **clock)) as proxy:
        seen = await ask(proxy, stream=True)

        assert (seen.status, json.loads(seen.body)["error"]["code"]) == (504, "upstream_timeout_first_token")
        await a.until(lambda: a.connections_open == 0)


async def test_a_stream_that_begins_in_time_goes_on_for_as_long_as_it_likes() -> None:
    async with Upstream(GOOD) as a, Proxy(one(a, tried=False, timeouts={"first_token_s": 5.0})) as proxy:
        assert (await ask(proxy, stream=True)).body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("api", ["chat/completions", "responses"], ids=["one protocol", "translated"])
async def test_the_silence_between_tokens_has_a_clock_that_pings_do_not_stop(api: str) -> None:
    empty = chat_chunk(None) | {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}]}

    async def drip(call: Call) -> None:
        await call.play(Head(200, EVENT_STREAM), Chunk(sse(chat_chunk("hel"), done=False)))
        while not call.closed:
            await call.play(Chunk(b": ping\n\n" + sse(empty, done=False)))
            await asyncio.sleep(0.02)  # its pace: ten within the time

    async with Upstream(drip) as a, Proxy(one(a, tried=False, timeouts={"between_tokens_s": 0.2})) as proxy:
        asked = {"model": "m", "stream": True, "input": "hi", "messages": [{"role": "user", "content": "hi"}]}
        del asked["messages" if api == "responses" else "input"]
        seen = await post(f"{proxy.base_url}/{api}", json.dumps(asked).encode())

        assert b"hel" in seen.body
        assert b"upstream_timeout_between_tokens" in seen.body
        await a.until(lambda: a.connections_open == 0)


async def test_tokens_that_keep_coming_stop_the_clock() -> None:
    async with Upstream(GOOD) as a, Proxy(one(a, tried=False, timeouts={"between_tokens_s": 5.0})) as proxy:
        assert (await ask(proxy, stream=True)).body.endswith(b"data: [DONE]\n\n")


async def test_a_member_without_a_first_token_gives_way_to_the_next() -> None:
    silent: list[Step] = [Head(200, EVENT_STREAM), Stall()]
    clock = {"timeouts": {"first_token_s": 0.1}}
    async with Upstream(silent) as a, Upstream(GOOD) as b, Proxy(group("fallback", a, b, llm=clock)) as proxy:
        assert b"good" in (await ask(proxy, stream=True)).body


# ------------------------------------------------------------------------------------------------ how many at once


async def test_a_member_that_is_full_gives_way_to_the_next() -> None:
    async with (
        Upstream([Stall()]) as a,
        Upstream(says("from b")) as b,
        Proxy(group("fallback", a, b, llm={"max_in_flight": 1})) as proxy,
        asyncio.TaskGroup() as both,
    ):
        first = both.create_task(ask(proxy))
        await a.received()

        assert b"from b" in (await ask(proxy)).body
        first.cancel()


async def test_an_llm_that_is_full_is_told_so_and_free_again_afterwards() -> None:
    async with Upstream([Stall()]) as a, Proxy(one(a, tried=False, max_in_flight=1)) as proxy:
        async with asyncio.TaskGroup() as both:
            first = both.create_task(ask(proxy))
            await a.received()
            seen = await ask(proxy)
            first.cancel()

        assert (seen.status, json.loads(seen.body)["error"]["code"]) == (503, "llm_full")
        assert seen.header("retry-after") == "1"
        await proxy.outcome(2)
        a.script = says("hello")
        assert (await ask(proxy)).status == 200


async def test_keys_of_a_full_llm_have_one_queue_and_one_refusal() -> None:
    keys = {"token_env": ["KEY", "KEY_2"], "max_in_flight": 1, "retries": {"max_retries": 0}}
    async with Upstream([Stall()]) as a, Proxy(one(a, **keys), env={"KEY_2": "sk-2-0123456"}) as proxy:
        async with asyncio.TaskGroup() as both:
            first = both.create_task(ask(proxy))
            await a.received()
            seen = await ask(proxy)
            first.cancel()

        assert json.loads(seen.body)["error"]["code"] == "llm_full"
        refused = next(it for it in proxy.exchanges if it.passed_over)
        assert len(refused.passed_over) == 1


async def test_calls_of_one_caller_wait_for_a_place_of_a_full_llm_the_first_first() -> None:
    go_on = asyncio.Event()

    async def hold(call: Call) -> None:
        async with asyncio.timeout(10):
            await go_on.wait()
        await call.play(*says("hello"))

    queue = {"max_in_flight": 1, "max_queued": 2, "queue_timeout_s": 10.0}
    async with Upstream(hold) as a, Proxy(one(a, tried=False, **queue)) as proxy:
        async with asyncio.TaskGroup() as all_of_them:
            asked = []
            for number in range(3):
                asked.append(all_of_them.create_task(ask(proxy, user=f"u{number}")))
                await until(lambda number=number: _places(proxy) == (1, number))  # type: ignore[misc]
            too_many = await ask(proxy)
            go_on.set()

        assert (too_many.status, [task.result().status for task in asked]) == (503, [200] * 3)
        assert [json.loads(request.body)["user"] for request in a.requests] == ["u0", "u1", "u2"]
        assert _places(proxy) == (0, 0)


async def test_who_leaves_while_it_waits_takes_no_place() -> None:
    queue = {"max_in_flight": 1, "max_queued": 2, "queue_timeout_s": 10.0}
    async with Upstream([Stall()]) as a, Proxy(one(a, tried=False, **queue)) as proxy:
        async with asyncio.TaskGroup() as both:
            first = both.create_task(ask(proxy))
            await a.received()
            second = both.create_task(ask(proxy))
            await until(lambda: _places(proxy) == (1, 1))
            second.cancel()
            await until(lambda: _places(proxy) == (1, 0))
            first.cancel()

        await until(lambda: _places(proxy) == (0, 0))
        assert len(a.requests) == 1


@pytest.mark.parametrize(
    ("queue_timeout_s", "headers", "statuses"),
    [
        (0.1, [], {503}),
        (10.0, [("x-llmproxy-timeout-ms", "100")], {503, 504}),  # the queue, or the whole call, is over first
    ],
    ids=["the queue", "the deadline"],
)
async def test_nobody_waits_longer_than_the_queue_lets_them_or_their_deadline(
    queue_timeout_s: float, headers: list[tuple[str, str]], statuses: set[int]
) -> None:
    queue = {"max_in_flight": 1, "max_queued": 2, "queue_timeout_s": queue_timeout_s}
    async with Upstream([Stall()]) as a, Proxy(one(a, tried=False, **queue)) as proxy, asyncio.TaskGroup() as both:
        first = both.create_task(ask(proxy))
        await a.received()

        async with asyncio.timeout(5):
            assert (await ask(proxy, *headers)).status in statuses
        await until(lambda: _places(proxy) == (1, 0))
        first.cancel()


def _places(proxy: Proxy) -> tuple[int, int]:
    """How many calls of the LLM `a` are in flight, and wait."""
    places = next(it.places for it in layers(proxy.gateway.llms["a"]) if isinstance(it, Guarded))
    return places.in_flight, places.waiting
