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
import llmproxy_anthropic
import llmproxy_cache
import llmproxy_chaos
import llmproxy_cost_limit
import llmproxy_enhance_query
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core import End, Headers, Limit, Money, Window
from llmproxy_core.chat import Finish, Finished, FinishReason, TextDelta
from llmproxy_core.plugins import Registry
from llmproxy_core.testing.grammar import check_stream
from tests.answering import Answering
from tests.exact import Seen, post
from tests.llmproxy_server.edging import post as post_bytes
from tests.matrix import AXES, BLOCK_MESSAGE, BLOCKED, CELLS, REWRITTEN, Cell, Group, Plugin
from tests.overheard import overheard
from tests.proxy import Proxy
from tests.rawclient import connected
from tests.speaking import SPEAKERS, said
from tests.upstream import Upstream

PROCESSORS = (llmproxy_cache, llmproxy_chaos, llmproxy_cost_limit, llmproxy_enhance_query)
DIALECTS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)
SOON_S = 10
ENHANCED = "hi there"


@attrs.frozen
class Stage:
    """A cell, set up: a proxy between a client and two fake providers. *model* is asked for in this cell alone."""

    cell: Cell
    proxy: Proxy
    upstream: Upstream
    plugin: Plugin
    model: str
    before: int
    """How many exchanges there were."""

    @property
    def exchanges(self) -> list[object]:
        return list(self.proxy.exchanges[self.before :])

    @property
    def path(self) -> str:
        return self.cell.group.speaker.path(stream=self.cell.streams, model=self.model)

    @property
    def question(self) -> bytes:
        return self.cell.group.speaker.body(stream=self.cell.streams, model=self.model)

    async def ask(self) -> Seen:
        return await post(self.proxy.url + self.path, self.question, self.cell.group.speaker.headers())

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON_S):
            while not holds():  # noqa: ASYNC110 - in a turn of the loop all goes on that is waited for
                await asyncio.sleep(0)


@asynccontextmanager
async def staged(group: Group, plugin: Plugin) -> AsyncIterator[tuple[Proxy, Upstream]]:
    rewriting = Answering(group.enhancer, False, [TextDelta(0, ENHANCED), Finished(0, Finish(FinishReason.STOP))])
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        enhancer = await stack.enter_async_context(Upstream(rewriting.complete()))
        mapping = group.mapping(upstream.url, enhancer.url)
        proxy = await stack.enter_async_context(Proxy(mapping, plugins=[*DIALECTS, *PROCESSORS, plugin]))
        yield proxy, upstream


def test_every_first_party_processor_is_in_the_matrix() -> None:
    registered = {
        name
        for (kind, name), origin in Registry.load().origins.items()
        if kind == "processor" and origin.distribution == "llmproxy"
    }

    assert set(AXES["processor"]) == registered
    assert set(AXES["client"]) == {str(speaker) for speaker in SPEAKERS}


@pytest.mark.parametrize("group", [group for group in CELLS if CELLS[group]], ids=str)
async def test_a_canary_never_reaches_a_client(group: Group) -> None:
    plugin = Plugin()
    failures: list[Exception] = []
    async with staged(group, plugin) as (proxy, upstream):
        for number, cell in enumerate(CELLS[group]):
            try:
                await _play(Stage(cell, proxy, upstream, plugin, f"a-model-{number}", len(proxy.exchanges)))
                failures += upstream.take_errors()
            except Exception as failure:  # noqa: BLE001 - each cell is a test of its own: the others are played too
                failure.add_note(f"in the cell {cell}")
                failures.append(failure)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(CELLS[group])} cells", failures)


async def _play(stage: Stage) -> None:
    cell, plugin = stage.cell, stage.plugin
    plugin.go_on, plugin.rejects, plugin.blocks = asyncio.Event(), False, 0
    if cell.comes == "hit":
        stage.upstream.script = cell.answering().complete()
        _check_text(await stage.ask())
    plugin.rejects = cell.end == "rejected later"
    stage.upstream.script = cell.script(plugin.go_on)
    seen = await (_shared(stage) if cell.comes == "shared" else _alone(stage))

    for each in seen:
        _check(cell, each)
    if any(BLOCK_MESSAGE.encode() in each.body for each in seen):
        assert cell.canary == "blocked"
        assert plugin.blocks
    _check_question(stage)
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
    await stage.until(lambda: _cache_statuses(stage) == ["miss"])
    second = asyncio.create_task(stage.ask())  # noqa: TID251
    await stage.until(lambda: _cache_statuses(stage) == ["miss", "shared"])
    if stage.cell.end == "client gone":
        await first
    stage.plugin.go_on.set()
    done = await asyncio.gather(first, second)
    return [seen for seen in done if isinstance(seen, Seen)]


def _cache_statuses(stage: Stage) -> list[object]:
    return [exchange.log_fields.get("cache") for exchange in stage.proxy.exchanges[stage.before :]]


async def _ask_and_leave(stage: Stage) -> None:
    """Ask, and go away: once the exchange is under way, or the first piece is there."""
    before = len(stage.proxy.exchanges)
    asked = len(stage.upstream.requests)
    headers = [f"{name}: {value}" for name, value in stage.cell.group.speaker.headers()]
    async with connected(stage.proxy.port) as client:
        client.send(post_bytes(stage.question, stage.path, *headers))
        await stage.until(lambda: len(stage.proxy.exchanges) > before)
        if stage.cell.comes != "hit" and not stage.plugin.rejects:
            await stage.until(lambda: len(stage.upstream.requests) > asked)
        if stage.cell.comes == "shared":
            await stage.until(lambda: _cache_statuses(stage) == ["miss", "shared"])
    await stage.until(lambda: stage.proxy.exchanges[before].outcome is not None)


def _check(cell: Cell, seen: Seen) -> None:
    _check_text(seen)
    served_from_store = seen.header("x-llmproxy-cache") == "hit"
    delivers = served_from_store or cell.end == "complete" or (cell.end == "client gone" and cell.comes == "shared")
    if delivers and cell.canary == "rewritten":
        _check_delivered(cell, seen)
    else:
        _check_failed(cell, seen)
    if delivers and cell.canary == "blocked":
        assert BLOCK_MESSAGE.encode() in seen.body
    if cell.comes == "hit" and cell.canary == "rewritten":
        assert served_from_store
    if cell.comes == "shared":
        assert seen.header("x-llmproxy-cache") in ("miss", "shared", None)


def _check_text(seen: Seen) -> None:
    """The law of the matrix."""
    for text in overheard(seen.body):
        assert BLOCKED not in text
        assert REWRITTEN not in text


def _check_delivered(cell: Cell, seen: Seen) -> None:
    """The answer is whole, in the client's protocol, and says what is left of the text."""
    speaker = cell.group.speaker
    assert (seen.status, seen.whole) == (200, True), seen.body
    if cell.streams:
        assert check_stream(str(speaker), seen.body) == [], seen.body
    reply = speaker.read(seen.body, stream=cell.streams)
    assert said(reply) == cell.text
    assert [choice.finish.reason for choice in reply.choices if choice.finish is not None] == [FinishReason.STOP]


def _check_failed(cell: Cell, seen: Seen) -> None:
    """The client is told of an error in its own protocol, and cannot believe the answer complete."""
    speaker = cell.group.speaker
    if seen.status != 200:
        error = speaker.dialect.read_error(seen.status, Headers(seen.headers), seen.body)
        assert seen.status >= 400
        assert seen.whole
        assert error.message
    else:
        assert cell.streams, seen.body
        assert not seen.whole
        assert check_stream(str(speaker), seen.body, failed=True) == [], seen.body


def _check_question(stage: Stage) -> None:
    """What the upstream was asked, in its own protocol."""
    group = stage.cell.group
    asked = [it for it in stage.upstream.requests if stage.model.encode() in it.target.encode() + it.body]
    expected = ENHANCED if group.processor in ("enhance_query", "openai_chat") else "hi"
    for received in asked:
        speaker = group.upstream
        chat = speaker.dialect.read_chat(speaker.api(stream=stage.cell.streams), received.body)
        assert chat.messages[-1].text == expected


async def _check_that_all_is_over(stage: Stage) -> None:
    """Every exchange has ended, nothing goes on in the background, nothing is reserved."""
    gateway = stage.proxy.gateway
    exchanges = stage.proxy.exchanges[stage.before :]
    await stage.until(lambda: all(exchange.outcome is not None for exchange in exchanges))
    await stage.until(lambda: not gateway.background)
    await gateway.services.tasks.drain(SOON_S)
    if stage.cell.group.processor == "cost_limit":
        ledger = gateway.stores["memory"].ledger("cost_limit")
        balance = await ledger.balance(Limit('["cost_limit","caller","","anonymous"]', Window.DAY, Money.usd(1)))
        assert balance.reserved == Money()
        delivered = [it for it in exchanges if it.outcome is not None and it.outcome.end is End.COMPLETED]
        booked = {it.exchange for it in await ledger.records(last=1000)} & {it.id for it in exchanges}
        assert len(booked) >= len(delivered) - (stage.cell.comes != "miss")
