"""
Every policy holds on every path.

Two canaries go through every cell of the matrix: a word that a guard must stop, and one that a filter must rewrite.
Neither may reach a client anywhere, and wherever text is delivered they are seen stopped, and rewritten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import llmproxy_cache
import llmproxy_cost_limit
import llmproxy_enhance_query
import pytest

from llmproxy_core import End, Limit, Money, Window
from llmproxy_core.plugins import Registry
from tests.answers import completion, reply
from tests.exact import Seen, post
from tests.llmproxy_server.edging import post as post_bytes
from tests.matrix import AXES, BLOCKED, CELLS, REWRITE, REWRITTEN, Cell, Plugin, error_code_in, text_in
from tests.proxy import Proxy
from tests.rawclient import connected
from tests.upstream import Upstream

PLUGINS = (llmproxy_cache, llmproxy_cost_limit, llmproxy_enhance_query)
SOON_S = 10


@attrs.frozen
class Stage:
    """A cell, set up: a proxy between a client and two fake providers."""

    cell: Cell
    proxy: Proxy
    upstream: Upstream
    plugin: Plugin

    async def ask(self) -> Seen:
        return await post(f"{self.proxy.base_url}/chat/completions", self.cell.question())

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON_S):
            while not holds():  # noqa: ASYNC110 - in a turn of the loop all goes on that is waited for
                await asyncio.sleep(0)


@asynccontextmanager
async def staged(cell: Cell) -> AsyncIterator[Stage]:
    plugin = Plugin()
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        enhancer = await stack.enter_async_context(Upstream(reply(completion("hi there"))))
        mapping = cell.mapping(upstream.base_url, enhancer.base_url)
        proxy = await stack.enter_async_context(Proxy(mapping, plugins=[*PLUGINS, plugin]))
        yield Stage(cell, proxy, upstream, plugin)


def test_every_first_party_processor_is_in_the_matrix() -> None:
    registered = {
        name
        for (kind, name), origin in Registry.load().origins.items()
        if kind == "processor" and origin.distribution == "llmproxy"
    }

    assert set(AXES["processor"]) == registered


@pytest.mark.parametrize("cell", CELLS, ids=str)
async def test_a_canary_never_reaches_a_client(cell: Cell) -> None:
    async with staged(cell) as stage:
        if cell.comes == "hit":
            stage.upstream.then(cell.good())
            _check_text(cell, await stage.ask())
        stage.plugin.rejects = cell.end == "rejected later"
        stage.upstream.then(*[cell.script(stage.plugin.go_on)] * 2)
        seen = await (_shared(stage) if cell.comes == "shared" else _alone(stage))

        for each in seen:
            _check(cell, each)
        if cell.canary == "blocked" and any(error_code_in(each.body) == "guardrail_blocked" for each in seen):
            assert stage.plugin.blocks
        await _check_that_all_is_over(stage)


async def _alone(stage: Stage) -> list[Seen]:
    """One client asks."""
    stage.plugin.go_on.set()
    if stage.cell.end != "client gone":
        return [await stage.ask()]
    await _ask_and_leave(stage)
    return []


async def _shared(stage: Stage) -> list[Seen]:
    """Two clients ask for the same before the upstream has said a word."""
    first = asyncio.create_task(_ask_and_leave(stage) if stage.cell.end == "client gone" else stage.ask())  # noqa: TID251
    await stage.until(lambda: len(stage.proxy.exchanges) == 1 and _cache_status(stage, 0) == "miss")
    second = asyncio.create_task(stage.ask())  # noqa: TID251
    await stage.until(lambda: len(stage.proxy.exchanges) == 2 and _cache_status(stage, 1) == "shared")
    if stage.cell.end == "client gone":
        await first
    stage.plugin.go_on.set()
    done = await asyncio.gather(first, second)
    return [seen for seen in done if isinstance(seen, Seen)]


def _cache_status(stage: Stage, index: int) -> object:
    return stage.proxy.exchanges[index].log_fields.get("cache")


async def _ask_and_leave(stage: Stage) -> None:
    """Ask, and go away: once the exchange is under way, or the first piece is there."""
    before = len(stage.proxy.exchanges)
    asked = len(stage.upstream.requests)
    async with connected(stage.proxy.port) as client:
        client.send(post_bytes(stage.cell.question()))
        await stage.until(lambda: len(stage.proxy.exchanges) > before)
        if stage.cell.comes != "hit" and not stage.plugin.rejects:
            await stage.until(lambda: len(stage.upstream.requests) > asked)
        if stage.cell.comes == "shared":
            await stage.until(lambda: len(stage.proxy.exchanges) == 2 and _cache_status(stage, 1) == "shared")
    await stage.until(lambda: stage.proxy.exchanges[before].outcome is not None)


def _check(cell: Cell, seen: Seen) -> None:
    _check_text(cell, seen)
    code = error_code_in(seen.body)
    served_from_store = seen.header("x-llmproxy-cache") == "hit"
    delivers = served_from_store or cell.end == "complete" or (cell.end == "client gone" and cell.comes == "shared")
    if delivers and cell.canary == "blocked":
        assert code == "guardrail_blocked"
    elif delivers:
        assert (seen.status, code, seen.whole) == (200, None, True)
        assert REWRITE in text_in(seen.body)
    else:
        assert code is not None
    if cell.comes == "hit" and cell.canary == "rewritten":
        assert served_from_store
    if cell.comes == "shared":
        assert seen.header("x-llmproxy-cache") in ("miss", "shared", None)


def _check_text(cell: Cell, seen: Seen) -> None:
    """The law of the matrix."""
    for word in (BLOCKED, REWRITTEN):
        assert word.encode() not in seen.body
        assert word not in text_in(seen.body)


async def _check_that_all_is_over(stage: Stage) -> None:
    """Every exchange has ended, nothing goes on in the background, nothing is reserved."""
    gateway = stage.proxy.gateway
    await stage.until(lambda: all(exchange.outcome is not None for exchange in stage.proxy.exchanges))
    await stage.until(lambda: not gateway.background)
    await gateway.services.tasks.drain(SOON_S)
    if stage.cell.processor == "cost_limit":
        ledger = gateway.stores["memory"].ledger("cost_limit")
        balance = await ledger.balance(Limit('["cost_limit","caller","","anonymous"]', Window.DAY, Money.usd(1)))
        assert balance.reserved == Money()
        delivered = [it for it in stage.proxy.outcomes if it.end is End.COMPLETED]
        assert len(await ledger.records(last=1000)) >= len(delivered) - (stage.cell.comes != "miss")
