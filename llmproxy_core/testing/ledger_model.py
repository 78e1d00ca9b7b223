"""The ledger's promises in their shortest form, and histories that hold a real one to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Literal

import attrs

from llmproxy_core.money import Money
from llmproxy_core.outcome import End
from llmproxy_core.stores import Balance, Ledger, Limit, UsageRecord, Window
from llmproxy_core.testing.clock import FakeClock

IDS = ("a", "b", "c", "d", "e", "f")
LIMITS = (
    Limit("ann", Window.MINUTE, Money(60)),
    Limit("ann", Window.DAY, Money(90)),
    Limit("ann", Window.DAY, Money(50)),  # the same account as the one before
    Limit("bob", Window.MONTH, Money(120)),
    Limit("all", Window.TOTAL, Money(300)),
)
WAITS_S = (0, 20, 70, 86_400, 86_400 * 31, -40, -86_400)
"""Clocks are set back, too."""


@attrs.frozen
class Step:
    """One thing that happens to a ledger: *amount* is reserved, or is the cost; *wait_s* passes."""

    verb: Literal["reserve", "settle", "release", "wait"]
    id: str = "a"
    amount: int = 0
    limits: Sequence[Limit] = ()
    wait_s: int = 0

    @classmethod
    def random(cls, random: Random) -> Step:
        return cls(
            random.choice(["reserve", "reserve", "settle", "release", "wait"]),
            random.choice(IDS) + str(random.randrange(4)),
            random.randrange(60),
            random.sample(LIMITS, random.randrange(len(LIMITS))),
            random.choice(WAITS_S),
        )


_Account = tuple[str, Window, float]


@attrs.define
class _Entry:
    accounts: frozenset[_Account]
    amount: int = 0
    cost: int = 0
    open: bool = True


class LedgerModel:
    """All entries for ever, and every figure a sum over them."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._latest: dict[Window, float] = {}
        self.settled: list[str] = []

    def _account(self, limit: Limit, now: float) -> _Account:
        self._latest[limit.window] = max(now, self._latest.get(limit.window, now))
        return limit.key, limit.window, limit.window.bounds(self._latest[limit.window])[0]

    def balance(self, limit: Limit, now: float) -> Balance:
        account = self._account(limit, now)
        here = [entry for entry in self._entries.values() if account in entry.accounts]
        return Balance(
            Money(sum(entry.cost for entry in here)),
            Money(sum(entry.amount for entry in here if entry.open)),
            limit.window.bounds(self._latest[limit.window])[1],
        )

    def reserve(self, step: Step, now: float) -> Limit | None:
        """The limit that stands against it."""
        if step.id in self._entries:
            return None
        for limit in step.limits:
            balance = self.balance(limit, now)
            if balance.spent + balance.reserved + Money(step.amount) > limit.amount:
                return limit
        accounts = frozenset(self._account(limit, now) for limit in step.limits)
        self._entries[step.id] = _Entry(accounts, step.amount)
        return None

    def settle(self, step: Step, now: float) -> None:
        accounts = frozenset(self._account(limit, now) for limit in step.limits)
        entry = self._entries.setdefault(step.id, _Entry(accounts))
        if entry.open:
            entry.cost, entry.open = step.amount, False
            self.settled.append(step.id)

    def release(self, step: Step) -> None:
        self._entries.setdefault(step.id, _Entry(frozenset())).open = False


async def follow(ledger: Ledger, clock: FakeClock, steps: Iterable[Step]) -> None:
    """Take *steps* on *ledger* and on a model: every answer and every balance after each step is the same."""
    model = LedgerModel()
    for step in steps:
        match step.verb:
            case "wait":
                clock.advance(step.wait_s)
            case "reserve":
                over = await ledger.reserve(step.id, Money(step.amount), step.limits)
                assert (None if over is None else over.limit) == model.reserve(step, clock()), step
            case "settle":
                record = UsageRecord(
                    at=clock(),
                    exchange=step.id,
                    caller="",
                    route="",
                    model=None,
                    end=End.COMPLETED,
                    usage=None,
                    cost=Money(step.amount),
                )
                await ledger.settle(step.id, record, step.limits)
                model.settle(step, clock())
            case "release":
                await ledger.release(step.id)
                model.release(step)
        for limit in LIMITS:
            assert await ledger.balance(limit) == model.balance(limit, clock()), (step, limit)
    told = [record.exchange for record in await ledger.records(last=1000)]
    assert told == model.settled[::-1]
