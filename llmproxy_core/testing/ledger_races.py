"""A ledger that many use at once, and over any history: see `testing_stores`."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

from llmproxy_core.money import Money
from llmproxy_core.stores import Ledger, Limit, Window
from llmproxy_core.testing.ledger import figures, record, reserve, settle
from llmproxy_core.testing.ledger_model import Step, follow
from llmproxy_core.testing.stores import SPACE, StoreSuite

DAY = Limit("ann", Window.DAY, Money(1000))
TOTAL = Limit("all", Window.TOTAL, Money(1500))


class _Callers:
    """Many calls on one ledger, each of which reserves, waits, and ends somehow."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self._ledger = ledger
        self._random = Random(seed)  # noqa: S311 - a test's choices, the same each time
        self.spent = 0
        self.settled: list[str] = []
        self.refused = 0
        self.over = asyncio.Event()

    async def calls(self, name: str) -> None:
        for index in range(10):
            await self._call(f"{name} {index}")
            await asyncio.sleep(0)

    async def _call(self, id: str) -> None:
        amount = self._random.randrange(1, 60)
        if await reserve(self._ledger, id, amount, DAY, TOTAL) is not None:
            self.refused += 1
            return
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        if self._random.random() < 0.5:
            await self._ledger.release(id)
            return
        cost = self._random.randrange(amount + 1)
        self.spent += cost
        self.settled.append(id)
        await settle(self._ledger, id, cost, DAY, TOTAL)

    async def read(self, limit: Limit) -> int:
        """Until all calls are over: no read is above *limit*, and none goes back. How many there were."""
        reads, latest = 0, 0
        while not self.over.is_set():
            spent, reserved = await figures(self._ledger, limit)
            assert spent + reserved <= limit.amount.nanodollars
            assert spent >= latest
            latest = spent
            reads += 1
            await asyncio.sleep(0)
        return reads


class LedgerRaceSuite(StoreSuite):
    """Races, cancellation, and histories against a model."""

    async def test_a_stampede_admits_exactly_what_fits(self) -> None:
        async with self.store() as (store, _):
            ledger = store.ledger(SPACE)
            answers = await asyncio.gather(*(reserve(ledger, f"{index}", 7, DAY, TOTAL) for index in range(400)))

            assert answers.count(None) == 1000 // 7
            assert await figures(ledger, DAY) == await figures(ledger, TOTAL) == (0, 1000 // 7 * 7)

    async def test_racing_calls_never_pass_a_limit_and_leave_it_fully_usable(self) -> None:
        async with self.store() as (store, _):
            ledger = store.ledger(SPACE)
            callers = _Callers(ledger, seed=20)
            async with asyncio.TaskGroup() as readers:
                reads = [readers.create_task(callers.read(limit)) for limit in (DAY, TOTAL)]
                async with asyncio.TaskGroup() as calls:
                    for index in range(200):
                        calls.create_task(callers.calls(f"caller {index}"))
                callers.over.set()

            assert callers.refused > 0
            assert len(callers.settled) > 0
            assert min(task.result() for task in reads) > 0
            assert await figures(ledger, DAY) == await figures(ledger, TOTAL) == (callers.spent, 0)
            told = Counter(entry.exchange for entry in await ledger.records(last=10_000))
            assert told == Counter(callers.settled)
            assert await reserve(ledger, "rest", 1000 - callers.spent, DAY) is None
            assert await reserve(ledger, "more", 1, DAY) is not None

    async def test_of_many_ends_of_one_call_one_counts(self) -> None:
        async with self.store() as (store, _):
            ledger = store.ledger(SPACE)
            for index in range(20):
                await reserve(ledger, f"{index}", 10, TOTAL)
            ends = [settle(ledger, f"{index}", cost, TOTAL) for index in range(20) for cost in (1, 2, 3)]
            releases = [ledger.release(f"{index}") for index in range(20)]
            await asyncio.gather(*ends, *releases)

            records = await ledger.records()
            costs = [entry.cost.nanodollars for entry in records if entry.cost is not None]
            assert len({entry.exchange for entry in records}) == len(records)
            assert await figures(ledger, TOTAL) == (sum(costs), 0)

    async def test_a_reserve_may_be_cancelled_at_any_moment_if_its_id_is_closed(self) -> None:
        async with self.store() as (store, _):
            ledger = store.ledger(SPACE)
            for turns in range(40):
                id = f"{turns}"
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(reserve(ledger, id, 10, TOTAL))
                    for _ in range(turns % 20):
                        await asyncio.sleep(0)
                    task.cancel()
                    if turns < 20:
                        await ledger.release(id)
                    else:
                        await ledger.settle(id, record(id, Money(1)), [TOTAL])

            # A store elsewhere may still be at work for one that was cancelled; no later answer may change this.
            assert await figures(ledger, TOTAL) == (20, 0)
            assert await reserve(ledger, "rest", 1480, TOTAL) is None

    async def test_any_history_ends_as_the_model_says(self) -> None:
        for seed in range(20):
            async with self.store() as (store, clock):
                random = Random(seed)  # noqa: S311 - as above
                await follow(store.ledger(SPACE), clock, [Step.random(random) for _ in range(60)])
