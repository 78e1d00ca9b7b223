"""Money that is owed, kept in this process."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import islice

from llmproxy_core.memory_windows import CurrentPeriods
from llmproxy_core.money import Money
from llmproxy_core.stores import Balance, Limit, OverLimit, UsageRecord, Window

MAX_CLOSED = 100_000
"""How many closed ids are remembered. One that so many were closed after is unknown again."""
MAX_RECORDS = 10_000


class _Account:
    """Nanodollars under one key in one window. *holders* counts the open reservations, those of nothing too."""

    __slots__ = ("holders", "key", "reserved", "spent", "window")

    def __init__(self, key: str, window: Window) -> None:
        self.key = key
        self.window = window
        self.spent = 0
        self.reserved = 0
        self.holders = 0


class _Reservation:
    """
    What an id holds, and where.

    It refers to the accounts themselves: its cost goes where it was reserved however many windows have passed since,
    and an account of a past window lives exactly as long as something is reserved there.
    """

    __slots__ = ("accounts", "amount")

    def __init__(self, amount: int, accounts: Sequence[_Account]) -> None:
        self.amount = amount
        self.accounts = accounts
        for account in accounts:
            account.reserved += amount
            account.holders += 1

    def close(self, cost: int) -> None:
        for account in self.accounts:
            account.reserved -= self.amount
            account.holders -= 1
            account.spent += cost


class MemoryLedger:
    """
    A Ledger of one process. No method suspends, so on an event loop each is atomic.

    Kept are the accounts of the current windows, what is reserved, and the latest records and closed ids.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """*now*: seconds since the epoch."""
        self._now = now
        self._periods: CurrentPeriods[_Account] = CurrentPeriods()
        self._open: dict[str, _Reservation] = {}
        self._closed: OrderedDict[str, None] = OrderedDict()  # a dict finds its oldest key in linear time
        self._records: deque[UsageRecord] = deque(maxlen=MAX_RECORDS)

    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        """As the protocol says; ValueError for a negative amount, which would make room for others."""
        if amount < Money(0):
            raise ValueError(f"cannot reserve a negative amount: {amount}")
        if id in self._open or id in self._closed:
            return None
        now = self._now()
        for limit in limits:
            balance = self._balance(limit, now)
            if balance.spent + balance.reserved + amount > limit.amount:
                return OverLimit(limit, balance)
        self._open[id] = _Reservation(amount.nanodollars, self._accounts(limits, now))
        return None

    async def settle(self, id: str, record: UsageRecord, limits: Sequence[Limit]) -> None:
        if id in self._closed:
            return
        reservation = self._open.pop(id, None)
        if reservation is None:
            reservation = _Reservation(0, self._accounts(limits, self._now()))
        self._close(id, reservation, 0 if record.cost is None else record.cost.nanodollars)
        self._records.append(record)

    async def release(self, id: str) -> None:
        if id not in self._closed:
            self._close(id, self._open.pop(id, None), 0)

    def _close(self, id: str, reservation: _Reservation | None, cost: int) -> None:
        self._closed[id] = None
        if len(self._closed) > MAX_CLOSED:
            self._closed.popitem(last=False)
        if reservation is None:
            return
        reservation.close(cost)
        for account in reservation.accounts:
            if not (account.spent or account.holders):
                self._periods.forget(account.window, account.key, account)

    async def balance(self, limit: Limit) -> Balance:
        return self._balance(limit, self._now())

    def _balance(self, limit: Limit, now: float) -> Balance:
        period = self._periods.at(now, limit.window)
        account = period.held.get(limit.key)
        if account is None:
            return Balance(Money(0), Money(0), period.resets_at)
        return Balance(Money(account.spent), Money(account.reserved), period.resets_at)

    def _accounts(self, limits: Sequence[Limit], now: float) -> Sequence[_Account]:
        """The accounts of *limits*, opened where there are none; one that several limits share is there once."""
        found: dict[_Account, None] = {}
        for limit in limits:
            held = self._periods.at(now, limit.window).held
            account = held.get(limit.key)
            if account is None:
                account = held[limit.key] = _Account(limit.key, limit.window)
            found[account] = None
        return tuple(found)

    async def records(self, *, last: int = 100) -> Sequence[UsageRecord]:
        return tuple(islice(reversed(self._records), max(last, 0)))
