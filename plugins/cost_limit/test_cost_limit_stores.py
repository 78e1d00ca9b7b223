"""A store that cannot be asked: closed unless told otherwise, and nothing that was spent is forgotten."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import pytest
from llmproxy_cost_limit.books import Books, Closing
from test_cost_limit_shared import INPUT, OUTPUT, Limited, asking, bound, limited, usd

from llmproxy_core import (
    Balance,
    Counter,
    End,
    KeyValue,
    Ledger,
    Limit,
    Money,
    OverLimit,
    Services,
    StoreType,
    StoreUnavailable,
    UsageRecord,
    Window,
    hookimpl,
)
from tests.answers import completion, reply
from tests.script import Reached, Wait
from tests.upstream import Upstream

BOUND = bound(asking())
TRUE_COST = 9 * INPUT + 3 * OUTPUT
LOGGER = "llmproxy"


@attrs.frozen
class NoConfig:
    """No keys."""


class FlakyStore:
    """The store `memory`, behind a network that a test cuts. It is a plugin too: `type = "flaky"`."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.fails_after = False
        """Whether it fails, or hangs, only when it has done what it was asked."""
        self.hangs: asyncio.Event | None = None
        """Set when somebody waits, for ever, to reserve."""
        self._services: Services | None = None

    @hookimpl
    def llmproxy_stores(self) -> Iterable[StoreType[Any]]:
        def build(config: NoConfig, services: Services) -> FlakyStore:
            self._services = services
            return self

        return [StoreType("flaky", NoConfig, build)]

    def cut(self, *, after: bool = False) -> None:
        self.fails, self.fails_after = StoreUnavailable("connection to 10.0.0.7:6379 refused"), after

    def mend(self) -> None:
        self.fails = None

    def ledger(self, space: str) -> FlakyLedger:
        assert self._services is not None
        return FlakyLedger(self, self._services.store("memory").ledger(space))

    def key_value(self, space: str, *, max_bytes: int) -> KeyValue:
        raise LookupError("not here")

    def counter(self, space: str) -> Counter:
        raise LookupError("not here")

    async def aclose(self) -> None:
        """Nothing is open."""


class FlakyLedger:
    def __init__(self, store: FlakyStore, inner: Ledger) -> None:
        self._store = store
        self._inner = inner

    def _pass(self, *, after: bool) -> None:
        if self._store.fails is not None and self._store.fails_after is after:
            raise self._store.fails

    async def _hang(self, *, after: bool) -> None:
        if self._store.hangs is not None and self._store.fails_after is after:
            self._store.hangs.set()
            await asyncio.Event().wait()

    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        self._pass(after=False)
        await self._hang(after=False)
        over = await self._inner.reserve(id, amount, limits)
        self._pass(after=True)
        await self._hang(after=True)
        return over

    async def settle(self, id: str, record: UsageRecord, limits: Sequence[Limit]) -> None:
        self._pass(after=False)
        await self._inner.settle(id, record, limits)
        self._pass(after=True)

    async def release(self, id: str) -> None:
        self._pass(after=False)
        await self._inner.release(id)
        self._pass(after=True)

    async def balance(self, limit: Limit) -> Balance:
        return await self._inner.balance(limit)

    async def records(self, *, last: int = 100) -> Sequence[UsageRecord]:
        return await self._inner.records(last=last)


def flaky(base_url: str, **keys: object) -> dict[str, Any]:
    mapping = limited(base_url, {"total_usd": usd(2 * BOUND), "store": "flaky", **keys})
    return {**mapping, "store": {"memory": {"type": "memory"}, "flaky": {"type": "flaky"}}}


AFTER = pytest.mark.parametrize("after", [False, True], ids=["before it is done", "after it is done"])


@AFTER
async def test_without_its_store_nothing_is_admitted(after: bool) -> None:
    store = FlakyStore()
    async with (
        Upstream(reply(completion("yes"))) as upstream,
        Limited(flaky(upstream.base_url), plugins=[store]) as proxy,
    ):
        store.cut(after=after)
        refused = [await proxy.ask() for _ in range(3)]
        assert not upstream.requests
        store.mend()
        again = [await proxy.ask() for _ in range(2)]
        figures = await proxy.figures()

    assert [it.status for it in refused] == [503] * 3
    assert [it.status for it in again] == [200] * 2
    assert figures == (2 * TRUE_COST, 0)
    error = json.loads(refused[0].body)["error"]
    assert error["code"] == "store_unavailable"
    assert b"10.0.0.7" not in refused[0].body


@AFTER
async def test_without_its_store_everything_is_admitted_where_that_is_allowed(after: bool) -> None:
    store = FlakyStore()
    async with (
        Upstream(reply(completion("yes"))) as upstream,
        Limited(flaky(upstream.base_url, on_store_error="allow"), plugins=[store]) as proxy,
    ):
        store.cut(after=after)
        passed = [await proxy.ask() for _ in range(3)]
        store.mend()
        last = await proxy.ask()
        figures, records = await proxy.figures(), await proxy.records()

    assert [it.status for it in passed] == [200] * 3
    assert last.status == 200
    assert figures == (4 * TRUE_COST, 0)  # what was spent meanwhile is booked
    assert len(records) == 4


@AFTER
async def test_what_was_spent_while_the_store_was_away_counts_before_the_next_call_is_admitted(
    after: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = FlakyStore()
    under_way, go_on = asyncio.Event(), asyncio.Event()
    dear = reply(completion("yes", prompt=(2 * BOUND) // INPUT))
    async with (
        Upstream([Reached(under_way), Wait(go_on), *dear]) as upstream,
        Limited(flaky(upstream.base_url), plugins=[store]) as proxy,
    ):
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(proxy.ask(x_request_id="the-dear-one"))
            await asyncio.wait_for(under_way.wait(), 10)
            store.cut(after=after)
            go_on.set()
        waiting = proxy.limiter.waiting
        refused = await proxy.ask()
        store.mend()
        too_dear = await proxy.ask()
        _, reserved = await proxy.figures()
        (record,) = await proxy.records()

    assert call.result().status == 200
    assert waiting == 1
    assert (refused.status, too_dear.status) == (503, 402)
    assert reserved == 0
    assert record.exchange == "the-dear-one"
    assert proxy.limiter.waiting == 0
    errors = [it.getMessage() for it in caplog.records if it.levelno == logging.ERROR]
    assert len([it for it in errors if it.startswith("cost_limit")]) == 1
    assert "the-dear-one" in errors[0]
    assert str(record.cost and record.cost.nanodollars) in errors[0]


@AFTER
async def test_a_client_that_leaves_while_its_call_is_admitted_leaves_nothing_reserved(after: bool) -> None:
    store = FlakyStore()
    store.fails_after, store.hangs = after, asyncio.Event()
    question = asking()
    async with Upstream() as upstream, Limited(flaky(upstream.base_url), plugins=[store]) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(question)}\r\n"
        writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + question)
        await asyncio.wait_for(store.hangs.wait(), 10)
        _, meanwhile = await proxy.figures()
        writer.close()
        await writer.wait_closed()
        outcome = await proxy.outcome()
        await proxy.exchanges[0].settled(5)
        figures = await proxy.figures()

    assert outcome.end is End.ABANDONED
    assert meanwhile == (BOUND if after else 0)
    assert figures == (0, 0)


async def test_a_bug_of_the_store_stands_in_the_log_with_what_it_lost_and_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FlakyStore()
    under_way, go_on = asyncio.Event(), asyncio.Event()
    async with Upstream(reply(completion("yes"))) as upstream:
        upstream.then([Reached(under_way), Wait(go_on), *reply(completion("yes"))])
        async with Limited(flaky(upstream.base_url), plugins=[store]) as proxy:
            async with asyncio.TaskGroup() as tasks:
                call = tasks.create_task(proxy.ask(x_request_id="the-lost-one"))
                await asyncio.wait_for(under_way.wait(), 10)
                store.fails = RuntimeError("a bug")
                go_on.set()
            store.mend()
            next_one = await proxy.ask()

    assert (call.result().status, next_one.status) == (200, 200)
    (error,) = [it for it in caplog.records if it.levelno == logging.ERROR]
    assert "the-lost-one" in error.getMessage()
    assert error.exc_info is not None


class Hanging:
    """A ledger whose closings wait for ever."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        return None

    async def settle(self, id: str, record: UsageRecord, limits: Sequence[Limit]) -> None:
        await self.release(id)

    async def release(self, id: str) -> None:
        self.reached.set()
        await asyncio.Event().wait()

    async def balance(self, limit: Limit) -> Balance:
        return Balance(Money(0), Money(0), None)

    async def records(self, *, last: int = 100) -> Sequence[UsageRecord]:
        return ()


def closing(id: str) -> Closing:
    record = UsageRecord(
        at=0, exchange=f"exchange-{id}", caller="c", route="r", model="m", end=End.COMPLETED, usage=None, cost=Money(7)
    )
    return Closing(id, (Limit("k", Window.DAY, Money(1)),), record)


async def test_a_process_that_ends_first_leaves_it_all_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Hanging()
    kept = Books(ledger)
    task = asyncio.get_running_loop().create_task(kept.close([closing("1"), closing("2")]))
    await asyncio.wait_for(ledger.reached.wait(), 10)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert kept.waiting == 2
    assert [f"exchange-{id}" in caplog.text for id in "12"] == [True, True]


async def test_what_waits_is_bounded_and_what_is_beyond_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Down(Hanging):
        async def release(self, id: str) -> None:
            raise StoreUnavailable("down")

    kept = Books(Down(), max_waiting=2)

    await kept.close([closing(str(number)) for number in range(3)])

    assert kept.waiting == 2
    assert [record.getMessage() for record in caplog.records if "given up" in record.getMessage()]
    assert "exchange-2" in caplog.records[-1].getMessage()
