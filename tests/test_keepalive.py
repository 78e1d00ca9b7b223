"""A client of a stream hears something while its provider is silent, and what it hears is no part of the answer."""

import asyncio

import pytest

from llmproxy_core import End
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import connected
from tests.script import Script
from tests.upstream import EVENT_STREAM, Call, Chunk, Head, Stall, Upstream, Wait, chat_chunk, sse
from tests.upstream import End as Over

BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
ASK = b"%sContent-Length: %d\r\n\r\n%s" % (HEAD, len(BODY), BODY)
SIGN = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
FIRST = sse(chat_chunk("a")).removesuffix(DONE)
LAST = sse(chat_chunk("b", finish="stop"))


async def test_a_silent_upstream_is_bridged_between_whole_events() -> None:
    go_on = asyncio.Event()
    half = LAST.index(b'"b"') + 3
    script: Script = [Head(200, EVENT_STREAM), Chunk(FIRST + LAST[:half]), Wait(go_on), Chunk(LAST[half:]), Over()]
    async with Upstream(script) as upstream, Proxy(with_server(openai_at(upstream.base_url), keepalive_s=0.1)) as proxy:
        async with connected(proxy.port) as client:
            client.send(ASK)
            before = await client.until(SIGN)
            await client.until(SIGN)  # and again
            go_on.set()
            after = await client.until(b"[DONE]\n\n")

        assert FIRST in before
        assert b'"b"' not in before  # an event that has begun is held back until it is whole
        assert LAST.removesuffix(DONE) in after
        assert (await proxy.outcome()).end is End.COMPLETED


@pytest.mark.parametrize("keepalive_s", [0, 3600])
async def test_a_stream_that_is_not_silent_for_so_long_is_the_upstreams_alone(keepalive_s: float) -> None:
    script: Script = [Head(200, EVENT_STREAM), Chunk(FIRST), Chunk(LAST), Over()]
    mapping = openai_at("http://127.0.0.1:9/v1")
    async with Upstream(script) as upstream:
        mapping["llm"]["openai"]["base_url"] = upstream.base_url
        async with Proxy(with_server(mapping, keepalive_s=keepalive_s)) as proxy, connected(proxy.port) as client:
            client.send(ASK)
            answer = await client.until(b"[DONE]\n\n")
            assert SIGN not in answer


async def test_a_stream_whose_events_pass_without_a_look_is_silent_from_the_last_of_them_on() -> None:
    usual = [Chunk(FIRST)] * 60  # of the first few events more than their mould is looked at

    async def answer(call: Call) -> None:
        await call.play(Head(200, EVENT_STREAM), *usual[:20])
        for chunk in usual[20:]:
            await asyncio.sleep(0.02)  # together longer than `keepalive_s`, each much shorter
            await call.play(chunk)
        await call.play(Stall())

    async with Upstream(answer) as upstream:
        mapping = with_server(openai_at(upstream.base_url), keepalive_s=0.3)
        async with Proxy(mapping) as proxy, connected(proxy.port) as client:
            client.send(ASK)
            received = [await client.until(FIRST) for _ in usual]
            assert SIGN not in b"".join(received)

            await client.until(SIGN)


async def test_nothing_is_sent_before_the_answer_has_begun() -> None:
    """A sign of life would be a status, and the provider may still say another."""
    go_on = asyncio.Event()

    async with Upstream([Wait(go_on), Head(429, {}, 2), Chunk(b"{}"), Over()]) as upstream:
        mapping = with_server(openai_at(upstream.base_url), keepalive_s=0.05)
        async with Proxy(mapping) as proxy, connected(proxy.port) as client:
            client.send(ASK)
            received = await upstream.received()
            assert received.body_complete
            go_on.set()
            assert b" 429 " in await client.until(b"\r\n")
