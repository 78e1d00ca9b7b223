"""The ledger as a processor uses it: what the store did not take is kept and brought again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import attrs

from llmproxy_core import Ledger, Limit, Money, OverLimit, StoreUnavailable, UsageRecord

_log = logging.getLogger("llmproxy")

MAX_WAITING = 10_000
"""How many closings are kept for a store that is down; what is beyond that stands in the log alone."""


@attrs.frozen
class Closing:
    """The end of a reservation: *record* is what was spent, None when that is nothing."""

    id: str
    limits: tuple[Limit, ...]
    record: UsageRecord | None = None


class Books:
    """
    Reservations are made at once or not at all; their closings are never lost in silence.

    A closing that the store cannot take now is in the log, with all that it would have booked, and is brought again
    before the next reservation is made.
    """

    def __init__(self, ledger: Ledger, *, max_waiting: int = MAX_WAITING) -> None:
        self._ledger = ledger
        self._max_waiting = max_waiting
        self._waiting: dict[str, Closing] = {}

    @property
    def waiting(self) -> int:
        """How many closings the store has not taken yet."""
        return len(self._waiting)

    async def catch_up(self) -> None:
        """Close what waits; StoreUnavailable when the store still does not take it."""
        if not self._waiting:
            return
        for closing in list(self._waiting.values()):
            await self._write(closing)
            self._waiting.pop(closing.id, None)
        _log.info("cost_limit: the store is back, and has what it missed")

    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        """As the ledger's. Whatever becomes of it, *id* is to be closed."""
        return await self._ledger.reserve(id, amount, limits)

    async def close(self, closings: Sequence[Closing]) -> None:
        """Close each. Raises nothing but a cancellation."""
        for index, closing in enumerate(closings):
            try:
                await self._write(closing)
            except StoreUnavailable as error:
                self._keep(closing, error.message)
            except asyncio.CancelledError:
                for left in closings[index:]:
                    self._keep(left, "there was no time left")
                raise

    async def _write(self, closing: Closing) -> None:
        try:
            if closing.record is None:
                await self._ledger.release(closing.id)
            else:
                await self._ledger.settle(closing.id, closing.record, closing.limits)
        except StoreUnavailable:
            raise
        except Exception:  # noqa: BLE001 - a bug of the store's must not stand in the way of all that comes after
            _log.exception("cost_limit: the store failed, and is not asked again, to book %s", closing)

    def _keep(self, closing: Closing, reason: str) -> None:
        is_kept = len(self._waiting) < self._max_waiting
        if is_kept:
            self._waiting[closing.id] = closing
        fate = "kept until it can be" if is_kept else "given up: too many wait"
        _log.error("cost_limit: not booked (%s), %s: %s", reason, fate, closing)
