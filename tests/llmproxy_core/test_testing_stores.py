"""No test of the conformance suites is worthless: for each there is a store that breaks a promise, and fails it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

import attrs
import pytest

from llmproxy_core.memory import MemoryConfig, MemoryStore
from llmproxy_core.memory_counter import MemoryCounter
from llmproxy_core.memory_key_value import MemoryKeyValue
from llmproxy_core.memory_ledger import MemoryLedger
from llmproxy_core.memory_windows import CurrentPeriods, Period
from llmproxy_core.money import Money
from llmproxy_core.stores import Count, Limit, OverLimit, Store, UsageRecord, Window
from llmproxy_core.testing.ledger import LedgerSuite
from llmproxy_core.testing.ledger_races import LedgerRaceSuite
from llmproxy_core.testing.stores import CounterSuite, KeyValueSuite, StoreSuite

Now = Callable[[], float]

# -- ledgers ---------------------------------------------------------------------------------------------------------


class ChecksThenReserves(MemoryLedger):
    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        for limit in limits:
            balance = await self.balance(limit)
            if balance.spent + balance.reserved + amount > limit.amount:
                return OverLimit(limit, balance)
        await asyncio.sleep(0)
        return await super().reserve(id, amount, [attrs.evolve(limit, amount=Money(10**20)) for limit in limits])


class RefusesAtTheLimit(MemoryLedger):
    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        return await super().reserve(
            id, amount, [attrs.evolve(limit, amount=limit.amount - Money(1)) for limit in limits]
        )


class ReservesSome(MemoryLedger):
    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        for index, limit in enumerate(limits):
            over = await super().reserve(f"{id} {index}", amount, [limit])
            if over is not None:
                return over
        return None


class CountsAnAccountTwice(MemoryLedger):
    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        shared = len({(limit.key, limit.window) for limit in limits}) < len(limits)
        return await super().reserve(id, amount + amount if shared else amount, limits)


class Rounds(MemoryLedger):
    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        return await super().reserve(id, Money(int(float(amount.nanodollars))), limits)


class ReservesAfterTheEnd(MemoryLedger):
    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        return await super().reserve(id + " again" if id in self._closed else id, amount, limits)


class ReservesTwice(MemoryLedger):
    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        return await super().reserve(id + " again" if id in self._open else id, amount, limits)


class NeverAboveTheReserve(MemoryLedger):
    async def settle(self, id: str, record: UsageRecord, limits: Sequence[Limit]) -> None:
        reserved = self._open.get(id)
        if reserved is not None and record.cost is not None:
            record = attrs.evolve(record, cost=min(record.cost, Money(reserved.amount)))
        await super().settle(id, record, limits)


class BooksWhereItIsNow(MemoryLedger):
    async def settle(self, id: str, record: UsageRecord, limits: Sequence[Limit]) -> None:
        if id not in self._closed:
            await super().release(id)
            await super().settle(id + " settled", record, limits)


class ForgetsWhatIsClosed(MemoryLedger):
    async def settle(self, id: str, record: UsageRecord, limits: Sequence[Limit]) -> None:
        self._closed.clear()
        await super().settle(id, record, limits)


class KeepsWhatIsReleased(MemoryLedger):
    async def release(self, id: str) -> None:
        """Nothing."""


class SettlesInTwoSteps(MemoryLedger):
    """Between them, the cost and what was reserved for it both count: a read may be above the limit."""

    async def settle(self, id: str, record: UsageRecord, limits: Sequence[Limit]) -> None:
        if id not in self._closed:
            await super().settle(id + " cost", record, limits)
            await asyncio.sleep(0)
            await super().release(id)


class SettlesOnlyWhatIsReserved(MemoryLedger):
    async def settle(self, id: str, record: UsageRecord, limits: Sequence[Limit]) -> None:
        await super().settle(id, record, ())


class ReservesOnceMoreWhenCancelled(MemoryLedger):
    async def reserve(self, id: str, amount: Money, limits: Sequence[Limit]) -> OverLimit | None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            await super().reserve(id + " again", amount, limits)
            raise
        return await super().reserve(id, amount, limits)


class BooksUnknownCosts(MemoryLedger):
    async def settle(self, id: str, record: UsageRecord, limits: Sequence[Limit]) -> None:
        reserved = self._open.get(id)
        if record.cost is None and reserved is not None:
            record = attrs.evolve(record, cost=Money(reserved.amount))
        await super().settle(id, record, limits)


class OldestRecordsFirst(MemoryLedger):
    async def records(self, *, last: int = 100) -> Sequence[UsageRecord]:
        return (await super().records(last=last))[::-1]


class _Reopening(CurrentPeriods[object]):
    def __init__(self) -> None:
        super().__init__()
        self._all: dict[tuple[Window, float], Period[object]] = {}

    def at(self, now: float, window: Window) -> Period[object]:
        starts, resets = window.bounds(now)
        self._current[window] = self._all.setdefault((window, starts), Period(resets))
        return self._current[window]


class WindowsOpenAgain(MemoryLedger):
    def __init__(self, now: Now) -> None:
        super().__init__(now)
        self._periods = _Reopening()  # type: ignore[assignment]


class _Monthly(CurrentPeriods[object]):
    def at(self, now: float, window: Window) -> Period[object]:
        return super().at(now, Window.MONTH if window is Window.TOTAL else window)


class BeginsTheTotalAgain(MemoryLedger):
    def __init__(self, now: Now) -> None:
        super().__init__(now)
        self._periods = _Monthly()  # type: ignore[assignment]


class DaysOfLocalTime(MemoryLedger):
    def __init__(self, now: Now) -> None:
        super().__init__(lambda: now() + 3600)


# -- values ----------------------------------------------------------------------------------------------------------


class NeverExpires(MemoryKeyValue):
    async def set(self, key: str, value: bytes, *, ttl_s: float, tags: Collection[str] = ()) -> None:
        await super().set(key, value, ttl_s=1e9, tags=tags)


class KeepsOldTags(MemoryKeyValue):
    async def set(self, key: str, value: bytes, *, ttl_s: float, tags: Collection[str] = ()) -> None:
        old = self._cache.get(key)
        await super().set(key, value, ttl_s=ttl_s, tags=[*tags, *(old.tags if old else ())])


class IsText(MemoryKeyValue):
    async def get(self, key: str) -> bytes | None:
        found = await super().get(key)
        return None if found is None else found.decode("utf-8", "replace").encode()


class IgnoresCase(MemoryKeyValue):
    async def get(self, key: str) -> bytes | None:
        return await super().get(key.lower())


class OldestGoesFirst(MemoryKeyValue):
    async def get(self, key: str) -> bytes | None:
        entry = dict(self._cache.items()).get(key)
        for name, other in list(self._cache.items()):
            self._cache[name] = other
        return None if entry is None else entry.value


class CountsValuesOnly(MemoryKeyValue):
    async def set(self, key: str, value: bytes, *, ttl_s: float, tags: Collection[str] = ()) -> None:
        self.resize(int(self._cache.maxsize) + len(key))
        await super().set(key, value, ttl_s=ttl_s, tags=tags)


class KeepsWhatATooLargeOneReplaced(MemoryKeyValue):
    async def set(self, key: str, value: bytes, *, ttl_s: float, tags: Collection[str] = ()) -> None:
        if len(value) < self._cache.maxsize:
            await super().set(key, value, ttl_s=ttl_s, tags=tags)


class KnowsTheFirstTagOnly(MemoryKeyValue):
    async def set(self, key: str, value: bytes, *, ttl_s: float, tags: Collection[str] = ()) -> None:
        await super().set(key, value, ttl_s=ttl_s, tags=list(tags)[:1])


class WritesInHalves(MemoryKeyValue):
    async def set(self, key: str, value: bytes, *, ttl_s: float, tags: Collection[str] = ()) -> None:
        await super().set(key, value[: len(value) // 2], ttl_s=ttl_s, tags=tags)
        await asyncio.sleep(0)
        await super().set(key, value, ttl_s=ttl_s, tags=tags)


class CountsTwiceWhatItClears(MemoryKeyValue):
    async def clear(self) -> int:
        return 2 * await super().clear()


class AlwaysOne(MemoryKeyValue):
    async def delete(self, key: str) -> int:
        await super().delete(key)
        return 1


# -- counters --------------------------------------------------------------------------------------------------------


class ReadsThenWrites(MemoryCounter):
    async def add(self, key: str, amount: int, window: Window) -> Count:
        before = await super().add(key, 0, window)
        await asyncio.sleep(0)
        now = await super().add(key, 0, window)
        return await super().add(key, before.value + amount - now.value, window)


class ThirtyDays(MemoryCounter):
    def __init__(self, now: Now) -> None:
        super().__init__(lambda: now() - now() % (86_400 * 30))


class TellsWhatWas(MemoryCounter):
    async def add(self, key: str, amount: int, window: Window) -> Count:
        before = await super().add(key, 0, window)
        await super().add(key, amount, window)
        return before


class CountsInFloats(MemoryCounter):
    async def add(self, key: str, amount: int, window: Window) -> Count:
        count = await super().add(key, amount, window)
        return attrs.evolve(count, value=int(float(count.value)))


class CountsTheTotalByTheMonth(MemoryCounter):
    async def add(self, key: str, amount: int, window: Window) -> Count:
        return await super().add(key, amount, Window.MONTH if window is Window.TOTAL else window)


class OneForAllWindows(MemoryCounter):
    async def add(self, key: str, amount: int, window: Window) -> Count:
        return await super().add(key, amount, Window.TOTAL)


# -- the stores, and what finds them out -----------------------------------------------------------------------------

Part = type[MemoryKeyValue] | type[MemoryCounter] | type[MemoryLedger]


class Broken(MemoryStore):
    """The store of this process with *part* in the place of its own; without one, all spaces are the same."""

    def __init__(self, now: Now, part: Part | None) -> None:
        super().__init__(MemoryConfig(), now)
        self._part = part

    def key_value(self, space: str, *, max_bytes: int) -> MemoryKeyValue:
        if self._part is None:
            return super().key_value("one", max_bytes=max_bytes)
        if space not in self._key_values and issubclass(self._part, MemoryKeyValue):
            self._key_values[space] = self._part(self._now, max_bytes=max_bytes)
        return super().key_value(space, max_bytes=max_bytes)

    def counter(self, space: str) -> MemoryCounter:
        if self._part is None:
            return super().counter("one")
        if space not in self._counters and issubclass(self._part, MemoryCounter):
            self._counters[space] = self._part(self._now)
        return super().counter(space)

    def ledger(self, space: str) -> MemoryLedger:
        if self._part is None:
            return super().ledger("one")
        if space not in self._ledgers and issubclass(self._part, MemoryLedger):
            self._ledgers[space] = self._part(self._now)
        return super().ledger(space)


SUITES: Sequence[type[StoreSuite]] = (KeyValueSuite, CounterSuite, LedgerSuite, LedgerRaceSuite)

FOUND: Sequence[tuple[Part | None, type[StoreSuite], str]] = [
    (IsText, KeyValueSuite, "every_byte_comes_back_as_it_was"),
    (IgnoresCase, KeyValueSuite, "any_text_is_a_key"),
    (AlwaysOne, KeyValueSuite, "what_was_never_set_is_not_there"),
    (NeverExpires, KeyValueSuite, "a_value_is_kept_for_its_time_and_no_longer"),
    (NeverExpires, KeyValueSuite, "setting_again_replaces_value_time_and_tags"),
    (KeepsOldTags, KeyValueSuite, "setting_again_replaces_value_time_and_tags"),
    (NeverExpires, KeyValueSuite, "no_time_at_all_keeps_nothing_not_even_what_was_there"),
    (AlwaysOne, KeyValueSuite, "deleting_forgets_one_key_once"),
    (KnowsTheFirstTagOnly, KeyValueSuite, "a_tag_deletes_all_that_was_set_with_it"),
    (CountsTwiceWhatItClears, KeyValueSuite, "clearing_forgets_everything_of_the_space"),
    (None, KeyValueSuite, "clearing_forgets_everything_of_the_space"),
    (None, KeyValueSuite, "equal_spaces_are_one_and_others_are_apart"),
    (CountsTwiceWhatItClears, KeyValueSuite, "the_kinds_of_content_do_not_meet_in_a_space"),
    (OldestGoesFirst, KeyValueSuite, "what_was_used_least_recently_goes_first"),
    (CountsValuesOnly, KeyValueSuite, "keys_and_values_together_stay_within_the_bound"),
    (KeepsWhatATooLargeOneReplaced, KeyValueSuite, "what_is_larger_than_the_bound_is_not_kept_and_costs_nobody_else"),
    (WritesInHalves, KeyValueSuite, "no_reader_sees_half_a_value"),
    (TellsWhatWas, CounterSuite, "an_addition_tells_the_sum_and_nothing_only_reads_it"),
    (CountsInFloats, CounterSuite, "large_sums_are_exact"),
    (OneForAllWindows, CounterSuite, "keys_windows_and_spaces_are_counted_apart"),
    (None, CounterSuite, "keys_windows_and_spaces_are_counted_apart"),
    (ThirtyDays, CounterSuite, "a_window_begins_with_nothing_and_says_when_it_ends"),
    (CountsTheTotalByTheMonth, CounterSuite, "the_total_never_begins_again"),
    (ReadsThenWrites, CounterSuite, "no_addition_of_many_at_once_is_lost_or_told_twice"),
    (BeginsTheTotalAgain, LedgerSuite, "an_account_that_nobody_used_has_nothing"),
    (RefusesAtTheLimit, LedgerSuite, "a_limit_may_be_reached_and_not_passed"),
    (ReservesSome, LedgerSuite, "what_is_spent_counts_as_what_is_reserved_does"),
    (ReservesSome, LedgerSuite, "nothing_is_reserved_where_one_of_several_limits_refuses"),
    (CountsAnAccountTwice, LedgerSuite, "limits_on_one_account_share_it_whatever_their_amounts"),
    (None, LedgerSuite, "keys_windows_and_spaces_are_accounts_of_their_own"),
    (Rounds, LedgerSuite, "large_amounts_are_exact"),
    (KeepsWhatIsReleased, LedgerSuite, "releasing_gives_everything_back"),
    (ReservesSome, LedgerSuite, "settling_books_the_cost_and_frees_the_rest"),
    (NeverAboveTheReserve, LedgerSuite, "a_cost_above_the_reserve_and_the_limit_is_booked_all_the_same"),
    (BooksUnknownCosts, LedgerSuite, "an_unknown_cost_books_nothing_and_is_recorded"),
    (SettlesOnlyWhatIsReserved, LedgerSuite, "without_a_reservation_the_cost_is_booked_under_the_limits_given"),
    (BooksWhereItIsNow, LedgerSuite, "the_cost_goes_where_it_was_reserved_whatever_limits_come_with_it"),
    (ForgetsWhatIsClosed, LedgerSuite, "closing_again_changes_nothing"),
    (ReservesAfterTheEnd, LedgerSuite, "a_reservation_that_comes_after_its_end_is_void"),
    (ReservesTwice, LedgerSuite, "an_id_that_is_open_reserves_nothing_more"),
    (DaysOfLocalTime, LedgerSuite, "a_window_begins_with_nothing_and_says_when_it_ends"),
    (BeginsTheTotalAgain, LedgerSuite, "the_total_never_begins_again"),
    (BooksWhereItIsNow, LedgerSuite, "a_cost_is_booked_in_the_windows_in_which_it_was_reserved"),
    (KeepsWhatIsReleased, LedgerSuite, "what_was_reserved_in_a_past_window_is_released_there"),
    (WindowsOpenAgain, LedgerSuite, "no_window_opens_again_when_the_clock_goes_back"),
    (OldestRecordsFirst, LedgerSuite, "records_come_back_as_they_were_the_newest_first"),
    (OldestRecordsFirst, LedgerSuite, "as_many_records_come_back_as_are_asked_for"),
    (ChecksThenReserves, LedgerRaceSuite, "a_stampede_admits_exactly_what_fits"),
    (ChecksThenReserves, LedgerRaceSuite, "racing_calls_never_pass_a_limit_and_leave_it_fully_usable"),
    (SettlesInTwoSteps, LedgerRaceSuite, "racing_calls_never_pass_a_limit_and_leave_it_fully_usable"),
    (ForgetsWhatIsClosed, LedgerRaceSuite, "of_many_ends_of_one_call_one_counts"),
    (ReservesOnceMoreWhenCancelled, LedgerRaceSuite, "a_reserve_may_be_cancelled_at_any_moment_if_its_id_is_closed"),
    (CountsAnAccountTwice, LedgerRaceSuite, "any_history_ends_as_the_model_says"),
    (WindowsOpenAgain, LedgerRaceSuite, "any_history_ends_as_the_model_says"),
]


@pytest.mark.parametrize(
    ("part", "suite", "test"),
    [pytest.param(*row, id=f"{row[0].__name__ if row[0] else 'OneSpace'}: {row[2]}") for row in FOUND],
)
async def test_a_broken_store_fails(part: Part | None, suite: type[StoreSuite], test: str) -> None:
    class Suite(suite):  # type: ignore[valid-type, misc]
        def make_store(self, now: Now) -> Store:
            return Broken(now, part)

    with pytest.raises((AssertionError, ExceptionGroup)) as failure:
        await getattr(Suite(), f"test_{test}")()
    if isinstance(failure.value, ExceptionGroup):
        assert failure.group_contains(AssertionError)


def test_every_test_of_the_suites_fails_for_a_broken_store() -> None:
    tests = {(suite, name.removeprefix("test_")) for suite in SUITES for name in dir(suite) if name.startswith("test_")}

    assert tests == {(suite, test) for _, suite, test in FOUND}
