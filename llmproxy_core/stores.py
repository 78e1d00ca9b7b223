"""
The three promises of a store: what may be forgotten, what is counted, and what is owed.

A `Store` offers all three; `memory` is the reference that every other one is tested against
(`llmproxy_core.testing.stores`). Methods raise StoreUnavailable when the store cannot be asked: whoever uses one says
whether it then fails open or closed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import floor
from typing import Protocol

import attrs

from llmproxy_core.money import Money
from llmproxy_core.outcome import End
from llmproxy_core.usage import Usage


class Window(StrEnum):
    """A calendar window in UTC, the same for everybody; `total` is the one that never ends."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"

    def bounds(self, now: float) -> tuple[float, float | None]:
        """The window that *now* (seconds since the epoch) is in: its first moment, and the next one's; None: never."""
        if self is Window.TOTAL:
            return 0.0, None
        at = datetime.fromtimestamp(floor(now), UTC).replace(second=0)  # floor: rounding leads to the next window
        if self is Window.MINUTE:
            return at.timestamp(), (at + timedelta(minutes=1)).timestamp()
        at = at.replace(minute=0)
        if self is Window.HOUR:
            return at.timestamp(), (at + timedelta(hours=1)).timestamp()
        at = at.replace(hour=0)
        if self is Window.DAY:
            return at.timestamp(), (at + timedelta(days=1)).timestamp()
        at = at.replace(day=1)
        return at.timestamp(), (at + timedelta(days=32)).replace(day=1).timestamp()


class KeyValue(Protocol):
    """Bytes under keys, for a time. It may forget anything at any time, so it never holds the only copy."""

    async def get(self, key: str) -> bytes | None:
        """What was set, unless it is expired, deleted or forgotten."""
        ...

    async def set(self, key: str, value: bytes, *, ttl_s: float, tags: Collection[str] = ()) -> None:
        """Keep *value* for *ttl_s* seconds in the place of what was there; *tags* are for `delete_tag`."""
        ...

    async def delete(self, key: str) -> int:
        """Forget *key*; how many there were (0 or 1)."""
        ...

    async def delete_tag(self, tag: str) -> int:
        """Forget everything that was set with *tag*; how many there were."""
        ...

    async def clear(self) -> int:
        """Forget everything of this space; how many there were."""
        ...


@attrs.frozen
class Count:
    """A counter after an addition. *resets_at*: seconds since the epoch; None for `total`."""

    value: int
    resets_at: float | None


class Counter(Protocol):
    """Sums within windows."""

    async def add(self, key: str, amount: int, window: Window) -> Count:
        """Add *amount* (0 only reads) to what *key* has in the window of now; atomic."""
        ...


@attrs.frozen
class Limit:
    """At most *amount* may be spent under *key* in each *window*."""

    key: str
    window: Window
    amount: Money


@attrs.frozen
class Balance:
    """What an account has in the window of now. *resets_at*: seconds since the epoch; None for `total`."""

    spent: Money
    reserved: Money
    resets_at: float | None


@attrs.frozen
class OverLimit:
    """Why a reservation was refused: the first limit that it would have passed, and the account as it was."""

    limit: Limit
    balance: Balance


@attrs.frozen(kw_only=True)
class UsageRecord:
    """One entry of the ledger, never changed once it is written. *at*: seconds since the epoch."""

    at: float
    exchange: str
    """The request id that the client was told."""
    caller: str
    route: str
    model: str | None
    end: End
    usage: Usage | None
    cost: Money | None
    """None: no price is known."""


class Ledger(Protocol):
    """
    Money that is owed: reserved before a call, settled to the truth after it.

    At every admission `spent + reserved <= amount` holds for every limit, however many reserve at once. An account is
    a limit's key with its window, whatever its amount. Windows never go back: while the clock does, the latest one
    seen stays the current one.

    Each id is reserved once and closed once, by `settle` or `release`; closing it again changes nothing. One that is
    closed before its reservation arrived (whoever asked for it was cancelled) makes the reservation void: a `reserve`
    may be cancelled at any moment, if its id is closed afterwards.
    """

    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        """Reserve *amount* under all *limits*, or under none: None when it is done, else what stands against it."""
        ...

    async def settle(self, id: str, record: UsageRecord, limits: Sequence[Limit]) -> None:
        """
        Close *id*: book the record's cost, whatever was reserved, and write the record.

        It is booked in the windows in which it was reserved; without a reservation in those of now, under *limits*.
        """
        ...

    async def release(self, id: str) -> None:
        """Close *id*: nothing was spent."""
        ...

    async def balance(self, limit: Limit) -> Balance: ...

    async def records(self, *, last: int = 100) -> Sequence[UsageRecord]:
        """The latest records, the newest first; at most *last*."""
        ...


class Store(Protocol):
    """
    A configured `[store.NAME]`.

    A *space* is a name that its user chooses; equal spaces are one and the same content. The gateway closes stores.
    """

    def key_value(self, space: str, *, max_bytes: int) -> KeyValue:
        """*max_bytes* bounds keys and values together: what was used least recently goes first."""
        ...

    def counter(self, space: str) -> Counter: ...

    def ledger(self, space: str) -> Ledger: ...

    async def aclose(self) -> None: ...
