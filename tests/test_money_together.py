"""
The three first-party processors on one route, in every order: what a call may cost, what it did cost, and who pays.

What each order means for the money is said once, in `Order`; the tests hold all of them to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import permutations
from types import TracebackType
from typing import Any, Self

import attrs
import llmproxy_cache
import llmproxy_cost_limit
import llmproxy_enhance_query
import pytest
from llmproxy_cost_limit import CostLimit

from llmproxy_core import Caller, End, Exchange, Handler, Limit, Money, Response, UsageRecord, UsageSource, Window
from tests.answers import chat_chunk, completion, reply, stream, usage_chunk
from tests.exact import Seen, post
from tests.llmproxy_server.edging import Processing
from tests.llmproxy_server.edging import post as post_bytes
from tests.proxy import Proxy
from tests.rawclient import Client, connected
from tests.script import Call, Script, Stall, Step, Wait
from tests.upstream import Upstream

PLUGINS = (llmproxy_cache, llmproxy_cost_limit, llmproxy_enhance_query)
INPUT, OUTPUT = 1_000, 2_000
"""Nanodollars for a token of the model `m`, which answers."""
E_INPUT, E_OUTPUT = 10_000, 20_000
"""For one of the model `e`, which rewrites."""
MAIN, CHILD = 9 * INPUT + 3 * OUTPUT, 9 * E_INPUT + 3 * E_OUTPUT
"""What an answer costs, and a rewriting."""
CAP, REWRITTEN = 100, 50
"""The longest answer and the longest rewriting, in tokens."""
PLENTY = 10**15
WAIT_S = 10
MODES = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
ANN, BOB = Caller("ann", "acme"), Caller("bob", "acme")


@attrs.frozen
class Order:
    """The three, the outermost first."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.names)

    def is_above(self, one: str, other: str) -> bool:
        return self.names.index(one) < self.names.index(other)

    @property
    def rewrites_hits(self) -> bool:
        """Whether a question is rewritten before the cache is asked."""
        return self.is_above("enhance", "cache")

    @property
    def rewrites_refused(self) -> bool:
        """Whether a question is rewritten before it is admitted."""
        return self.is_above("enhance", "limit")

    @property
    def admits_hits(self) -> bool:
        """Whether what the cache could answer must be admitted all the same."""
        return self.is_above("limit", "cache")

    @property
    def sees_rewriting(self) -> bool:
        """Whether the limit counts what rewriting costs. Below the cache it learns of nothing that stands above."""
        return self.names != ("enhance", "cache", "limit")

    def cost(self, *, calls: int = 1) -> int:
        """What is booked for *calls* of one question, of which a model answers the first."""
        if not self.sees_rewriting:
            return MAIN
        return MAIN + CHILD * (calls if self.rewrites_hits else 1)

    def cost_of_joining(self, *, calls: int = 1) -> int:
        """What is booked for *calls* that others than the first make while the model works."""
        return calls * CHILD if self.rewrites_hits and self.sees_rewriting else 0


ORDERS = [Order(names) for names in permutations(("limit", "enhance", "cache"))]
EVERY_ORDER = pytest.mark.parametrize("order", ORDERS, ids=str)


async def know(exchange: Exchange, call_next: Handler) -> Response:
    """Takes the caller from a header, as keys will."""
    exchange.caller = {"ann": ANN, "bob": BOB}.get(exchange.request.headers.get("x-who", ""), exchange.caller)
    return await call_next(exchange)


def question(*, streamed: bool = False, said: str = "hi", **more: object) -> bytes:
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": said}], "max_tokens": CAP, **more}
    return json.dumps(asked | ({"stream": True} if streamed else {})).encode()


def answer(*, streamed: bool = False) -> Sequence[Step]:
    if streamed:
        return stream(chat_chunk("Hello "), chat_chunk("you", finish="stop"), usage_chunk())
    return reply(completion("Hello you"))


def usd(nanodollars: int) -> str:
    return f"{nanodollars // 10**9}.{nanodollars % 10**9:09}"


class Together:
    """The three in *order* on a route, between the model that answers (*main*) and the one that rewrites."""

    def __init__(
        self,
        order: Order,
        main: Script | None = None,
        rewriter: Script | None = None,
        *,
        limit: int = PLENTY,
        **tables: Any,
    ) -> None:
        """*limit*: nanodollars in all, for each caller. *tables* add keys to a processor's table."""
        self._order = order
        self._limit = limit
        self._tables = tables
        self.main = Upstream(answer() if main is None else main)
        self.rewriter = Upstream(reply(completion("hello?")) if rewriter is None else rewriter)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for upstream in (self.main, self.rewriter):
            await self._stack.enter_async_context(upstream)
        self.proxy = Proxy(self._mapping(), plugins=[*PLUGINS, Processing(know)])
        await self._stack.enter_async_context(self.proxy)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def _mapping(self) -> dict[str, Any]:
        def llm(upstream: Upstream, *prices: str) -> dict[str, Any]:
            asked, said = prices
            prices_of = {"*": {"input": asked, "output": said}}
            return {"provider": "openai", "base_url": upstream.base_url, "prices": prices_of}

        own: dict[str, dict[str, Any]] = {
            "know": {"type": "test"},
            "limit": {"type": "cost_limit", "total_usd": usd(self._limit)},
            "enhance": {"type": "enhance_query", "llm": "small", "model": "e", "max_output_tokens": REWRITTEN},
            "cache": {"type": "cache", "share": "tenant"},
        }
        route = {"path_prefix": "/v1", "target_llm": "large", "processors": ["know", *self._order.names]}
        return {
            "llm": {"large": llm(self.main, "1.00", "2.00"), "small": llm(self.rewriter, "10.00", "20.00")},
            "processor": {
                name: {**own.get(name, {}), **self._tables.get(name, {})} for name in {**own, **self._tables}
            },
            "route": [{**route, "operations": ["chat"]}],
        }

    async def ask(self, body: bytes | None = None, who: str = "ann") -> Seen:
        url = f"{self.proxy.base_url}/chat/completions"
        return await post(url, question() if body is None else body, [("x-who", who)])

    async def send(self, client: Client, body: bytes, who: str) -> None:
        """Ask on a connection that the test can leave."""
        client.send(post_bytes(body, "/v1/chat/completions", f"x-who: {who}"))

    @property
    def limiter(self) -> CostLimit:
        (found,) = self.proxy.gateway.processors("cost_limit")
        assert isinstance(found, CostLimit)
        return found

    async def figures(self, who: str = "ann") -> tuple[int, int]:
        """Nanodollars that are spent and reserved."""
        key = json.dumps(["limit", "caller", "acme", who], separators=(",", ":"))
        ledger = self.proxy.gateway.stores["memory"].ledger("cost_limit")
        balance = await ledger.balance(Limit(key, Window.TOTAL, Money(0)))
        return balance.spent.nanodollars, balance.reserved.nanodollars

    async def records(self) -> Sequence[UsageRecord]:
        return await self.proxy.gateway.stores["memory"].ledger("cost_limit").records()

    async def bound(self, body: bytes) -> int:
        """The most that the call *body* may cost, as it was told in the log."""
        before = len(self.proxy.exchanges)
        await self.ask(body)
        return Money.usd(str(self.proxy.exchanges[before].log_fields["cost_bound"])[1:]).nanodollars

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not await holds():  # noqa: ASYNC110 - in a turn of the loop all goes on that is waited for
                await asyncio.sleep(0)

    async def marked(self, count: int) -> None:
        """Wait until *count* calls are past the cache's door: each has a flight."""

        async def are() -> bool:
            return [it.log_fields.get("cache") in ("miss", "shared") for it in self.proxy.exchanges] == [True] * count

        await self.until(are)

    async def billed(self, spent: int, who: str = "ann") -> None:
        """Wait until nothing is reserved for *who*; it has then paid *spent*."""

        async def is_over() -> bool:
            return (await self.figures(who))[1] == 0 and (await self.figures(who))[0] == spent

        try:
            await self.until(is_over)
        except TimeoutError:
            assert await self.figures(who) == (spent, 0)  # says what it is instead


# -- what a call may cost ----------------------------------------------------------------------------------------------


async def spendthrift(call: Call) -> None:
    """Counts each byte that it was sent as a token, and answers with as many as it may."""
    asked = json.loads(call.received.body)
    most = asked.get("max_tokens") or asked["max_completion_tokens"]
    tokens = sum(len(message["content"].encode()) for message in asked["messages"])
    # What is rewritten is as long as can be: a word of 4 bytes for each token, on top of what was asked.
    said = "word" * most
    await call.play(*reply(completion(said, prompt=tokens, completion=most)))


@pytest.mark.parametrize("order", [order for order in ORDERS if not order.rewrites_refused], ids=str)
@pytest.mark.parametrize("said", ["hi", "🙂" * 200], ids=["short", "long"])
async def test_what_a_call_may_cost_covers_its_child_and_what_that_adds(order: Order, said: str) -> None:
    async with Together(order, spendthrift, spendthrift) as it:
        bound = await it.bound(question(said=said))
        spent, reserved = await it.figures()
        overruns = it.limiter.overruns

    assert overruns == 0
    assert REWRITTEN * E_OUTPUT + CAP * OUTPUT < spent <= bound
    assert reserved == 0


async def test_a_processor_may_rewrite_what_another_has_made_longer() -> None:
    """The first makes a short question long, and the second's own call holds all of it."""
    order = Order(("limit", "enhance", "again", "cache"))
    own = {"llm": "small", "model": "e", "system_prompt": "x"}
    tables: dict[str, Any] = {
        "enhance": {**own, "max_output_tokens": 1_000},
        "again": {**own, "type": "enhance_query", "max_output_tokens": 1},
    }
    async with Together(order, spendthrift, spendthrift, **tables) as it:
        bound = await it.bound(question())
        overruns, calls = it.limiter.overruns, len(it.rewriter.requests)

    first, second = 1_000, 1  # tokens of output, of which each may be 4 for the next model
    texts = len("x") + len("hi") + 128
    assert bound == (
        (len(question()) + 512 + 4 * first + 4 * second) * INPUT
        + CAP * OUTPUT
        + (texts + texts + 4 * first) * E_INPUT
        + (first + second) * E_OUTPUT
    )
    assert calls == 2
    assert overruns == 0


@EVERY_ORDER
@MODES
async def test_a_call_is_admitted_when_all_that_it_may_cost_fits_and_not_when_a_nanodollar_is_missing(
    order: Order, streamed: bool
) -> None:
    body = question(streamed=streamed)
    async with Together(order, answer(streamed=streamed)) as it:
        bound = await it.bound(body)
    async with Together(order, answer(streamed=streamed), limit=bound) as it:
        admitted = await it.ask(body)
        paid = await it.figures()
    async with Together(order, limit=bound - 1) as it:
        refused = await it.ask(body)
        rest = await it.figures()
        asked = len(it.main.requests), len(it.rewriter.requests)

    assert (admitted.status, refused.status) == (200, 402)
    assert [value for name, value in refused.headers if name == "x-should-retry"] == ["false"]
    assert paid == (order.cost(), 0)
    assert asked == (0, 1 if order.rewrites_refused else 0)
    # What it had spent before anybody looked.
    assert rest == (CHILD if order.rewrites_refused and order.sees_rewriting else 0, 0)


# -- hits --------------------------------------------------------------------------------------------------------------


@EVERY_ORDER
@MODES
async def test_a_hit_gives_back_what_was_reserved_for_it(order: Order, streamed: bool) -> None:
    body = question(streamed=streamed)
    async with Together(order, answer(streamed=streamed)) as it:
        marks = [(await it.ask(body)).header("x-llmproxy-cache") for _ in range(3)]
        figures, records = await it.figures(), await it.records()

    assert marks == ["miss", "hit", "hit"]
    assert figures == (order.cost(calls=3), 0)
    assert sum(record.cost.nanodollars for record in records if record.cost is not None) == figures[0]


@EVERY_ORDER
async def test_a_hit_of_who_has_nothing_left_is_given_where_the_cache_is_asked_first(order: Order) -> None:
    async with Together(order) as it:
        bound = await it.bound(question())
    async with Together(order, limit=bound) as it:
        answers = [await it.ask() for _ in range(2)]

    assert [seen.status for seen in answers] == [200, 402 if order.admits_hits else 200]


# -- shared calls ------------------------------------------------------------------------------------------------------


@EVERY_ORDER
@MODES
async def test_a_shared_call_is_billed_once_and_to_its_first_caller(order: Order, streamed: bool) -> None:
    body, go_on = question(streamed=streamed), asyncio.Event()
    async with Together(order, [Wait(go_on), *answer(streamed=streamed)]) as it:
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(it.ask(body))]
            await it.marked(1)
            asking += [tasks.create_task(it.ask(body, "bob")) for _ in range(4)]
            await it.marked(5)
            go_on.set()
        marks = sorted(str(each.result().header("x-llmproxy-cache")) for each in asking)
        ann, bob = await it.figures("ann"), await it.figures("bob")
        calls = len(it.main.requests)

    assert marks == ["miss", *["shared"] * 4]
    assert calls == 1
    assert ann == (order.cost(), 0)
    assert bob == (order.cost_of_joining(calls=4), 0)


@EVERY_ORDER
@MODES
async def test_the_first_caller_pays_for_the_call_that_it_leaves_to_others(order: Order, streamed: bool) -> None:
    body, go_on = question(streamed=streamed), asyncio.Event()
    async with Together(order, [Wait(go_on), *answer(streamed=streamed)]) as it:
        async with asyncio.TaskGroup() as tasks:
            async with connected(it.proxy.port) as first:
                await it.send(first, body, "ann")
                await it.marked(1)
                second = tasks.create_task(it.ask(body, "bob"))
                await it.marked(2)
                await it.main.received()
            left = await it.proxy.outcome()
            under_way = await it.figures("ann")
            go_on.set()
        seen = second.result()
        await it.billed(order.cost(), "ann")
        bob = await it.figures("bob")
        records = [record for record in await it.records() if record.caller == "acme/ann"]

    assert left.end is End.ABANDONED
    assert under_way[1] > 0  # it is reserved until the call is over that it pays for
    assert seen.status == 200
    assert b"Hello" in seen.body
    assert bob == (order.cost_of_joining(), 0)
    assert sum(record.cost.nanodollars for record in records if record.cost is not None) == order.cost()


@EVERY_ORDER
@MODES
async def test_a_call_that_all_have_left_is_stopped_and_paid_for_by_its_first_caller(
    order: Order, streamed: bool
) -> None:
    body = question(streamed=streamed)
    async with Together(order, [Stall()]) as it:
        async with connected(it.proxy.port) as first, connected(it.proxy.port) as second:
            await it.send(first, body, "ann")
            await it.marked(1)
            await it.send(second, body, "bob")
            await it.marked(2)
            await it.main.received()

        async def are_over() -> bool:
            return (await it.figures("ann"))[1] == (await it.figures("bob"))[1] == 0 and bool(await it.records())

        await it.until(are_over)
        ann, bob = await it.figures("ann"), await it.figures("bob")
        (record, *others) = [record for record in await it.records() if record.caller == "acme/ann"]

    assert not others
    assert record.usage is not None
    assert record.usage.source is UsageSource.ESTIMATED
    # The rewriting as it was told, where the limit sees it, and the question as it is estimated.
    assert ann[0] > (CHILD if order.sees_rewriting else 0)
    assert bob == (order.cost_of_joining(), 0)


# -- when a child fails ------------------------------------------------------------------------------------------------


@EVERY_ORDER
@pytest.mark.parametrize("on_failure", ["original", "reject"])
async def test_a_rewriting_that_is_of_no_use_is_paid_for(order: Order, on_failure: str) -> None:
    """It was cut by its length."""
    cut = reply(completion("hello? My", finish="length"))
    async with Together(order, rewriter=cut, enhance={"on_failure": on_failure}) as it:
        seen = await it.ask()
        figures = await it.figures()

    assert seen.status == (200 if on_failure == "original" else 502)
    if on_failure == "original":
        assert figures == (order.cost(), 0)
    else:
        assert figures == (0 if order.rewrites_refused else CHILD, 0)  # above the limit: it never came to that
