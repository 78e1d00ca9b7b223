"""Clients that leave where `on_disconnect` says drain: what the cache then has, and what the budget paid."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import llmproxy_cache
import llmproxy_cost_limit
import pytest

from llmproxy_core import End, Limit, Money, Window
from tests.answers import DONE, chat_chunk, completion, reply, sse, stream, usage_chunk
from tests.exact import Seen, post
from tests.llmproxy_server.edging import HELLO, STREAM
from tests.llmproxy_server.edging import post as post_bytes
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.script import Chunk, Head, Script, Stall, Step, Wait
from tests.script import End as Close
from tests.upstream import Upstream

PLUGINS = (llmproxy_cache, llmproxy_cost_limit)
COST = 9 * 1_000 + 3 * 2_000  # nanodollars of what `completion` and `usage_chunk` tell
ONE = sse(chat_chunk("one"), done=False)
REST = sse(chat_chunk("two", finish="stop"), usage_chunk())
MODES = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
CHAINS = pytest.mark.parametrize(
    "chain", [["limit"], ["limit", "cache"], ["cache", "limit"]], ids=["limit", "limit, cache", "cache, limit"]
)
WAIT_S = 10


def mapping(base_url: str, chain: Sequence[str], policy: object = "drain") -> dict[str, Any]:
    tables: dict[str, dict[str, Any]] = {
        "limit": {"type": "cost_limit", "total_usd": "100"},
        "cache": {"type": "cache"},
    }
    return {
        **openai_at(
            base_url,
            route={"processors": list(chain), "on_disconnect": policy, "operations": ["chat"]},
            prices={"*": {"input": "1.00", "output": "2.00"}},
        ),
        "processor": {name: tables[name] for name in chain},
    }


def asked(*, streamed: bool) -> dict[str, Any]:
    return STREAM if streamed else HELLO


async def ask(proxy: Proxy, *, streamed: bool) -> Seen:
    return await post(f"{proxy.base_url}/chat/completions", json.dumps(asked(streamed=streamed)).encode())


async def figures(proxy: Proxy) -> tuple[int, int]:
    """Nanodollars that are spent and reserved."""
    key = json.dumps(["limit", "caller", "", "anonymous"], separators=(",", ":"))
    balance = await proxy.gateway.stores["memory"].ledger("cost_limit").balance(Limit(key, Window.TOTAL, Money(0)))
    return balance.spent.nanodollars, balance.reserved.nanodollars


async def over(proxy: Proxy) -> None:
    """Wait until no call, flight or settlement is left."""
    async with asyncio.timeout(WAIT_S):
        while proxy.server.edges[0].calls or proxy.gateway.background or len(proxy.server.tasks):  # noqa: ASYNC110
            await asyncio.sleep(0)


@asynccontextmanager
async def left(proxy: Proxy, upstream: Upstream, *, streamed: bool) -> AsyncIterator[None]:
    """A client asked, got the beginning if it is a stream, and has left."""
    async with connected(proxy.port) as client:
        client.send(post_bytes(asked(streamed=streamed)))
        await upstream.received()
        if streamed:
            await client.until(b"one")
    async with asyncio.timeout(WAIT_S):
        while proxy.server.edges[0].connections:  # noqa: ASYNC110
            await asyncio.sleep(0)
    yield


def held(go_on: asyncio.Event, *, streamed: bool) -> list[Step]:
    """An answer whose end waits for *go_on*."""
    if streamed:
        return [Head(), Chunk(ONE), Wait(go_on), Chunk(REST), Close()]
    return [Wait(go_on), *reply(completion("one two"))]


@CHAINS
@MODES
async def test_a_drained_call_is_booked_as_the_upstream_told_it(chain: list[str], streamed: bool) -> None:
    go_on = asyncio.Event()
    async with (
        Upstream(held(go_on, streamed=streamed)) as upstream,
        Proxy(mapping(upstream.base_url, chain), plugins=PLUGINS) as proxy,
        left(proxy, upstream, streamed=streamed),
    ):
        spent, reserved = await figures(proxy)
        assert (spent, reserved > 0) == (0, True)

        go_on.set()
        assert (await proxy.outcome()).end is End.ABANDONED
        await over(proxy)

        assert await figures(proxy) == (COST, 0)


@MODES
async def test_who_asks_what_another_has_left_gets_the_drained_answer(streamed: bool) -> None:
    go_on = asyncio.Event()
    async with (
        Upstream(held(go_on, streamed=streamed)) as upstream,
        Proxy(mapping(upstream.base_url, ["cache"]), plugins=PLUGINS) as proxy,
        left(proxy, upstream, streamed=streamed),
    ):
        go_on.set()
        await proxy.outcome()
        await over(proxy)

        seen = await ask(proxy, streamed=streamed)

        assert (seen.status, seen.whole, seen.header("x-llmproxy-cache")) == (200, True, "hit")
        assert b"one" in seen.body
        assert b"two" in seen.body
        assert not streamed or seen.body.endswith(DONE)
        assert len(upstream.requests) == 1


async def test_who_comes_while_a_call_is_drained_shares_it() -> None:
    go_on = asyncio.Event()
    async with (
        Upstream(held(go_on, streamed=True)) as upstream,
        Proxy(mapping(upstream.base_url, ["cache"]), plugins=PLUGINS) as proxy,
        left(proxy, upstream, streamed=True),
        connected(proxy.port) as client,
    ):
        client.send(post_bytes(STREAM))
        await client.until(b"one")
        go_on.set()
        await client.until(DONE)

        assert len(upstream.requests) == 1


async def test_a_drained_answer_that_breaks_is_not_kept() -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Head(), Chunk(ONE), Wait(go_on), Close()]) as upstream,
        Proxy(mapping(upstream.base_url, ["cache"]), plugins=PLUGINS) as proxy,
        left(proxy, upstream, streamed=True),
    ):
        go_on.set()
        await proxy.outcome()
        await over(proxy)
        upstream.script = stream(chat_chunk("whole", finish="stop"))

        assert (await ask(proxy, streamed=True)).header("x-llmproxy-cache") == "miss"


async def test_who_only_joined_a_call_is_not_kept_waiting_for_it() -> None:
    """It pays nothing, and the one who pays drains."""
    go_on = asyncio.Event()
    async with (
        Upstream(held(go_on, streamed=True)) as upstream,
        Proxy(mapping(upstream.base_url, ["cache"]), plugins=PLUGINS) as proxy,
        connected(proxy.port) as first,
    ):
        first.send(post_bytes(STREAM))
        await first.until(b"one")
        async with connected(proxy.port) as second:
            second.send(post_bytes(STREAM))
            await second.until(b"one")

        assert (await proxy.outcome()).end is End.ABANDONED
        assert len(proxy.server.edges[0].calls) == 1
        go_on.set()
        await first.until(DONE)


@pytest.mark.parametrize("chain", [["limit"], ["limit", "cache"]], ids=["alone", "shared"])
async def test_an_amount_counts_what_the_shared_call_has_cost(chain: list[str]) -> None:
    """Some 10 tokens of question and one of answer stay below 0.1 cent; 1,000 more are twice that."""
    go_on = asyncio.Event()
    more = sse(chat_chunk("word"), done=False) * 1_000
    script: Script = [Head(), Chunk(ONE), Wait(go_on), Chunk(more), Stall()]
    async with (
        Upstream(script) as upstream,
        Proxy(mapping(upstream.base_url, chain, {"drain_up_to_usd": "0.001"}), plugins=PLUGINS) as proxy,
        left(proxy, upstream, streamed=True),
    ):
        assert len(proxy.server.edges[0].calls) == 1
        go_on.set()
        await asyncio.wait_for(upstream.requests[0].gone.wait(), WAIT_S)
        await over(proxy)

        spent, reserved = await figures(proxy)
        assert (spent > 1_000_000, reserved) == (True, 0)
        assert proxy.outcomes[0].end is End.ABANDONED
