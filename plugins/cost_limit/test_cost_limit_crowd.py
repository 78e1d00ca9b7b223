"""
Five hundred calls at once, on a real proxy and an upstream that does everything wrong an upstream can.

What must hold: nothing is ever admitted above the limit; what is reserved comes back to exactly nothing; what is booked
is what the upstream told; and then the limit can be used to its last nanodollar.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import attrs
import pytest
from test_cost_limit_shared import INPUT, OUTPUT, Limited, account_key, asking, bound, limited, usd

from llmproxy_core import (
    Balance,
    KeyValue,
    Ledger,
    Limit,
    Money,
    OverLimit,
    Services,
    StoreType,
    UsageRecord,
    UsageSource,
    Window,
    hookimpl,
)
from llmproxy_core import Counter as Sums
from tests.answers import chat_chunk, completion, error, reply, sse, stream, usage_chunk
from tests.exact import parse
from tests.script import Call, Chunk, Cut, Head, Reset, Stall
from tests.upstream import Upstream

CALLS = 500
ME = ("caller", "", "anonymous")


@attrs.frozen
class NoConfig:
    """No keys."""


class WatchedStore:
    """The store `memory`, which looks after every admission whether it was right. A plugin too: `type = "watched"`."""

    def __init__(self) -> None:
        self.admitted = 0
        self.refused = 0
        self.violations: list[tuple[Limit, Balance]] = []
        self._services: Services | None = None

    @hookimpl
    def llmproxy_stores(self) -> Iterable[StoreType[Any]]:
        def build(config: NoConfig, services: Services) -> WatchedStore:
            self._services = services
            return self

        return [StoreType("watched", NoConfig, build)]

    def ledger(self, space: str) -> WatchedLedger:
        assert self._services is not None
        return WatchedLedger(self, self._services.store("memory").ledger(space))

    def key_value(self, space: str, *, max_bytes: int) -> KeyValue:
        raise LookupError("not here")

    def counter(self, space: str) -> Sums:
        raise LookupError("not here")

    async def aclose(self) -> None:
        """Nothing is open."""


class WatchedLedger:
    """Takes a few turns of the loop for everything, as a store over a network would: cancellation can strike there."""

    def __init__(self, store: WatchedStore, inner: Ledger) -> None:
        self._store = store
        self._inner = inner
        self._turns = random.Random(7)

    async def _wait(self) -> None:
        for _ in range(self._turns.randrange(4)):
            await asyncio.sleep(0)

    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        await self._wait()
        over = await self._inner.reserve(id, amount, limits)
        for limit in limits:
            balance = await self._inner.balance(limit)
            if over is None and balance.spent + balance.reserved > limit.amount:
                self._store.violations.append((limit, balance))
        self._store.admitted += over is None
        self._store.refused += over is not None
        await self._wait()
        return over

    async def settle(self, id: str, record: UsageRecord, limits: Sequence[Limit]) -> None:
        await self._wait()
        await self._inner.settle(id, record, limits)

    async def release(self, id: str) -> None:
        await self._wait()
        await self._inner.release(id)

    async def balance(self, limit: Limit) -> Balance:
        return await self._inner.balance(limit)

    async def records(self, *, last: int = 100) -> Sequence[UsageRecord]:
        return await self._inner.records(last=last)


def watched(base_url: str, limit: int) -> dict[str, Any]:
    mapping = limited(base_url, {"total_usd": usd(limit), "daily_usd": usd(limit), "store": "watched"})
    return {**mapping, "store": {"memory": {"type": "memory"}, "watched": {"type": "watched"}}}


# -- all at once -----------------------------------------------------------------------------------------------------


async def test_of_all_that_come_at_once_exactly_those_are_admitted_that_fit() -> None:
    question = asking("x" * 100)
    room, everybody, answered = 37, asyncio.Event(), 0
    limit = room * bound(question) + bound(question) - 1
    store = WatchedStore()

    async def hold(call: Call) -> None:
        await call.hold(everybody, "an answer")
        await call.play(*reply(completion("yes", prompt=20, completion=10)))

    async with Upstream(hold) as upstream, Limited(watched(upstream.base_url, limit), plugins=[store]) as proxy:

        async def ask() -> int:
            nonlocal answered
            status = (await proxy.ask(question)).status
            answered += 1
            if answered == CALLS - room:  # all that can be refused were: the others are at the upstream
                everybody.set()
            return status

        statuses = Counter(await asyncio.gather(*(ask() for _ in range(CALLS))))
        figures = await proxy.figures()

    assert statuses == {200: room, 402: CALLS - room}
    assert not store.violations
    assert figures == (room * (20 * INPUT + 10 * OUTPUT), 0)


# -- everything that can go wrong ------------------------------------------------------------------------------------


WAYS = [
    "plain",
    "streamed",
    "streamed without usage",
    "plain without usage",
    "refused by the upstream",
    "an error in the stream",
    "cut",
    "reset",
    "cut before it begins",
    "a lie: below zero",
    "a lie: words",
    "a lie: too much",
    "garbage",
    "the client leaves at once",
    "the client leaves while it waits",
    "the client leaves in the middle",
]
HONEST = ("plain", "streamed")


@attrs.frozen
class Part:
    """What one of the five hundred does."""

    number: int
    way: str
    prompt: int
    said: int

    @property
    def name(self) -> str:
        return f"call-{self.number}"

    @property
    def streamed(self) -> bool:
        return self.way not in ("plain", "plain without usage", "refused by the upstream", "garbage") and not (
            self.way.startswith("a lie") and self.number % 2
        )

    @property
    def question(self) -> bytes:
        return asking(f"{self.number:04}" + "x" * 96, stream=self.streamed, cap=100)

    @property
    def cost(self) -> Money:
        return Money(self.prompt * INPUT + self.said * OUTPUT)


def parts(seed: int) -> list[Part]:
    chance = random.Random(seed)
    ways = [WAYS[number % len(WAYS)] for number in range(CALLS)]
    chance.shuffle(ways)
    return [Part(number, way, chance.randint(1, 120), chance.randint(1, 100)) for number, way in enumerate(ways)]


LIES: dict[str, dict[str, object]] = {
    "a lie: below zero": {"prompt_tokens": -5, "completion_tokens": -(10**9), "total_tokens": 0},
    "a lie: words": {"prompt_tokens": "many", "completion_tokens": None, "total_tokens": "NaN"},
    "a lie: too much": {"prompt_tokens": 900, "completion_tokens": 150, "total_tokens": 1050},
}


BEGUN = [Head(), *(Chunk(sse(chat_chunk("word " * 3), done=False)) for _ in range(3))]
YES = chat_chunk("yes", finish="stop")
SCRIPTS: dict[str, Callable[[Part], list[Any]]] = {
    "plain": lambda part: reply(completion("yes", prompt=part.prompt, completion=part.said)),
    "streamed": lambda part: stream(YES, usage_chunk(part.prompt, part.said)),
    "plain without usage": lambda _: reply({key: it for key, it in completion("yes").items() if key != "usage"}),
    "streamed without usage": lambda _: stream(YES),
    "refused by the upstream": lambda part: reply(error("no"), [400, 429, 500, 503][part.number % 4]),
    "an error in the stream": lambda _: stream(chat_chunk("yes"), error("overloaded"), done=False),
    "cut": lambda _: [*BEGUN, Cut()],
    "reset": lambda _: [*BEGUN, Reset()],
    "cut before it begins": lambda _: [Cut()],
    "garbage": lambda _: reply(b"<html>oops"),
    "the client leaves at once": lambda _: [Stall()],
    "the client leaves while it waits": lambda _: [Stall()],
    "the client leaves in the middle": lambda _: [*BEGUN, Stall()],
}


def script(part: Part) -> list[Any]:
    if (lie := LIES.get(part.way)) is None:
        return SCRIPTS[part.way](part)
    if part.streamed:
        return stream(YES, usage_chunk() | {"usage": lie})
    return reply(completion("yes") | {"usage": lie})


async def client(port: int, part: Part) -> int | None:
    """The status that the client saw; None when it left before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: localhost",
        "connection: close",
        "content-type: application/json",
        f"content-length: {len(part.question)}",
        f"x-request-id: {part.name}",
    ]
    try:
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + part.question)
        if part.way == "the client leaves at once":
            return None
        if part.way == "the client leaves while it waits":
            for _ in range(part.number % 60):
                await asyncio.sleep(0)
            return None
        if part.way == "the client leaves in the middle":
            async with asyncio.timeout(20):
                seen = await reader.read(100)
            return int(seen.split()[1])
        async with asyncio.timeout(20):
            return parse(await reader.read()).status
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def number_of(body: bytes) -> int:
    return int(json.loads(body)["messages"][0]["content"][:4])


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_goes_wrong_the_books_are_right(seed: int) -> None:
    crowd = parts(seed)
    most = bound(crowd[0].question)
    # Room for few at a time, and for all that they spend in the end: lies are dear, the others cheap.
    limit = 25 * most + sum(part.cost.nanodollars for part in crowd) + CALLS // 16 * 2 * most
    store = WatchedStore()

    async def serve(call: Call) -> None:
        await call.play(*script(crowd[number_of(call.received.body)]))

    async with Upstream(serve) as upstream:
        proxy = Limited(watched(upstream.base_url, limit), plugins=[store])
        await proxy.server.start()
        statuses = await asyncio.gather(*(client(proxy.port, part) for part in crowd))
        await proxy.server.stop()  # all calls are over, and all that they had to settle is settled
        sent = {number_of(received.body) for received in upstream.requests}
        upstream.take_errors()  # a script that the client's leaving ended is none

    spent, reserved = await proxy.figures()
    spent_today, reserved_today = await proxy.figures(Window.DAY)
    records = {record.exchange: record for record in await proxy.records()}

    # Both answers were seen, or it would prove nothing; and each way was gone by some.
    assert store.admitted > 100
    assert store.refused > 20
    assert {crowd[number].way for number in sent} >= set(WAYS) - {"the client leaves at once"}

    assert not store.violations
    assert (reserved, reserved_today) == (0, 0)
    assert proxy.limiter.waiting == 0
    booked = sum(record.cost.nanodollars for record in records.values() if record.cost is not None)
    assert spent == spent_today == booked
    assert len(records) == len(await proxy.records())  # nothing is booked twice

    for part, status in zip(crowd, statuses, strict=True):
        check(part, status, records.get(part.name), was_sent=part.number in sent, most=Money(most))

    # The rest of the limit can be used to its last nanodollar, and no further.
    ledger = proxy.ledger
    total = Limit(account_key("limit", *ME), Window.TOTAL, Money(limit))
    assert await ledger.reserve("rest", Money(limit - spent), [total]) is None
    assert await ledger.reserve("one more", Money(1), [total]) is not None


def check(part: Part, status: int | None, record: UsageRecord | None, *, was_sent: bool, most: Money) -> None:
    """What *part* did is what is booked for it."""
    if not was_sent:
        assert record is None, part
        assert status in (None, 402), part
    elif part.way in HONEST:
        assert status == 200
        assert (record and record.cost) == part.cost, part
        assert source(record) is UsageSource.REPORTED
    elif part.way in ("refused by the upstream", "cut before it begins"):
        assert record is None, part
    elif part.way in ("streamed without usage", "plain without usage", "cut", "reset", "an error in the stream"):
        assert record is not None, part
        assert record.cost is not None
        assert Money(0) < record.cost < most, part
        assert source(record) is UsageSource.ESTIMATED, part
    elif part.way == "a lie: too much":
        assert (record and record.cost) == Money(900 * INPUT + 150 * OUTPUT), part


def source(record: UsageRecord | None) -> UsageSource | None:
    return None if record is None or record.usage is None else record.usage.source
