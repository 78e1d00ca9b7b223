"""Whether a call was slow is judged by when its answer began."""

from __future__ import annotations

import asyncio

from tests.answers import chat_chunk, sse
from tests.proxy import Proxy
from tests.resilience.flocks import ask, one
from tests.upstream import EVENT_STREAM, Call, Chunk, End, Head, Upstream

ROLE = chat_chunk(None) | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
BREAKER = {"min_calls": 2, "slow_call_s": 0.1, "slow_rate": 0.5, "open_s": 30.0}


async def test_a_stream_is_slow_when_its_first_token_is_whatever_came_before() -> None:
    async def think(call: Call) -> None:
        await call.play(Head(200, EVENT_STREAM), Chunk(sse(ROLE, done=False)))
        await asyncio.sleep(0.15)  # longer than `slow_call_s`
        await call.play(Chunk(sse(chat_chunk("hello"), chat_chunk(None, finish="stop"))), End())

    async with Upstream(think) as a, Proxy(one(a, breaker=BREAKER, retries={"max_retries": 0})) as proxy:
        assert [(await ask(proxy, stream=True)).status for _ in range(3)] == [200, 200, 503]
