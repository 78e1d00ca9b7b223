"""What the tests of cost_limit share: a proxy whose day a test moves, prices that are easy to count with, questions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
import llmproxy_cost_limit
from llmproxy_cost_limit import CostLimit, CostLimitConfig
from llmproxy_cost_limit.processor import build

from llmproxy_core import (
    Balance,
    Exchange,
    Ledger,
    Limit,
    ModelPrice,
    Money,
    Price,
    Reply,
    ReplyHead,
    Request,
    Response,
    Tasks,
    Usage,
    UsageRecord,
    Window,
)
from llmproxy_core import builtin_stores as stores
from llmproxy_core.testing import FakeClock, ScriptedLLM, scripted_services
from tests.exact import Seen, post
from tests.llmproxy_core.conversation import CHAT as CHAT_API
from tests.llmproxy_core.conversation import DIALECT
from tests.proxy import Proxy, openai_at

INPUT, OUTPUT = 1000, 2000
"""Nanodollars that a token of the model `m` costs."""
PRICES = {"m": {"input": "1.00", "output": "2.00"}}
PRICE = Price(INPUT * 1_000_000, OUTPUT * 1_000_000)
HIDDEN = 512
"""Tokens that are reserved for the model's chat template."""
CHAT, COMPLETIONS, EMBEDDINGS = "/chat/completions", "/completions", "/embeddings"


def epoch(text: str) -> float:
    """*text*, a time in UTC, as seconds since the epoch."""
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


NOON = epoch("2026-11-20T12:00:00")


class Wall:
    """The time of day."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Limited(Proxy):
    """A proxy with cost limits, whose wall clock is *wall*."""

    def __init__(self, mapping: Mapping[str, Any], *, plugins: Sequence[object] = (), wall: Wall | None = None) -> None:
        super().__init__(mapping, plugins=[stores, llmproxy_cost_limit, *plugins])
        self.wall = wall or Wall()
        self.server = self.make_server(adapt=lambda services: attrs.evolve(services, now=self.wall))

    @property
    def limiter(self) -> CostLimit:
        """The first one."""
        found = self.gateway.processors("cost_limit")[0]
        assert isinstance(found, CostLimit)
        return found

    @property
    def ledger(self) -> Ledger:
        return self.gateway.stores["memory"].ledger("cost_limit")

    async def balance(
        self, window: Window, *, table: str = "limit", payer: Sequence[str] = ("caller", "", "anonymous")
    ) -> Balance:
        """What is spent and reserved; *payer*: kind, tenant, name."""
        return await self.ledger.balance(Limit(account_key(table, *payer), window, Money(0)))

    async def figures(self, window: Window = Window.TOTAL, **which: Any) -> tuple[int, int]:
        """Nanodollars spent and reserved."""
        balance = await self.balance(window, **which)
        return balance.spent.nanodollars, balance.reserved.nanodollars

    async def records(self) -> Sequence[UsageRecord]:
        return await self.ledger.records(last=10_000)

    async def ask(self, question: bytes | None = None, path: str = CHAT, **headers: str) -> Seen:
        """An answer, and all its effects."""
        lines = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return await post(self.base_url + path, asking() if question is None else question, lines)


def account_key(table: str, *payer: str) -> str:
    """*payer*: kind, tenant, name."""
    return json.dumps([table, *payer], separators=(",", ":"))


class _Priced(ScriptedLLM):
    def __init__(self, prices: Mapping[str, Price | None], tasks: Tasks) -> None:
        super().__init__([], dialect=DIALECT, api=CHAT_API, tasks=tasks)
        self._prices = [None if price is None else ModelPrice(name, price) for name, price in prices.items()]

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return self._prices


class Direct:
    """
    A cost_limit without a server, around an LLM that may answer at any of *prices*, by name; None: nobody knows it.

    What it does answer, and at which price, each call says.
    """

    def __init__(self, prices: Mapping[str, Price | None], **keys: Any) -> None:
        self.tasks = Tasks()
        self.services = scripted_services(_Priced(prices, self.tasks), tasks=self.tasks)
        limits = {"total_usd": Money.usd(10**6), **keys}
        self.limiter = build(CostLimitConfig(**limits), self.services)

    async def __aenter__(self) -> Direct:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tasks.drain(5)

    def request(self) -> Request:
        return Request(operation=CHAT_API.operation, dialect=DIALECT, api=CHAT_API, body=asking())

    async def call(self, request: Request, usage: Usage, price: Price) -> Exchange:
        exchange = Exchange(request, id="1", route="/v1", tasks=self.tasks, clock=FakeClock())

        async def answer(exchange: Exchange) -> Response:
            api = request.api
            return Reply(exchange, b"{}", dialect=DIALECT, api=api, head=ReplyHead(usage), price=price)

        try:
            async with exchange:
                await self.limiter(exchange, answer)
        finally:
            await exchange.settled(5)
        return exchange

    async def figures(self, *payer: str) -> tuple[Money, Money]:
        """Spent and reserved; *payer*: kind, tenant, name."""
        limit = Limit(account_key("", *(payer or ("caller", "", "anonymous"))), Window.TOTAL, Money(0))
        balance = await self.services.store("memory").ledger("cost_limit").balance(limit)
        return balance.spent, balance.reserved


def limited(
    base_url: str,
    limit: Mapping[str, object] | None = None,
    *,
    tables: Mapping[str, Mapping[str, object]] | None = None,
    processors: Sequence[str] | None = None,
    prices: Mapping[str, object] = PRICES,
    **llm: Any,
) -> dict[str, Any]:
    """A route with the cost_limit table `limit`, or with *tables* of processors, and an LLM that has *prices*."""
    named = {"limit": limit} if tables is None else tables
    mapping = openai_at(
        base_url, route={"processors": list(named) if processors is None else processors}, prices=prices, **llm
    )
    return {**mapping, "processor": {name: {"type": "cost_limit", **(keys or {})} for name, keys in named.items()}}


def around(base_url: str, limit: dict[str, object], *, inside: bool = False) -> dict[str, Any]:
    """The limit with a function around it (or *inside* it)."""
    order = ["limit", "around"] if inside else ["around", "limit"]
    mapping = limited(base_url, limit, processors=order)
    mapping["processor"]["around"] = {"type": "test"}
    return mapping


def asking(text: str = "hi", *, stream: bool = False, cap: int | None = 100, model: str = "m", **more: object) -> bytes:
    """A chat question; *cap*: of the output."""
    chat: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": text}]}
    if stream:
        chat["stream"] = True
    if cap is not None:
        chat["max_tokens"] = cap
    return json.dumps(chat | more).encode()


def bound(question: bytes, output: int = 100) -> int:
    """The most that a chat question without media or tools may cost, in nanodollars."""
    return (len(question) + HIDDEN) * INPUT + output * OUTPUT


def usd(nanodollars: int) -> str:
    """As it is written in TOML."""
    return f"{nanodollars // 10**9}.{nanodollars % 10**9:09}"
