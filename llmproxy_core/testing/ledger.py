"""What every ledger must do, as tests that the author of a store inherits: see `testing_stores`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llmproxy_core.money import Money
from llmproxy_core.outcome import End
from llmproxy_core.stores import Balance, Ledger, Limit, OverLimit, UsageRecord, Window
from llmproxy_core.testing.clock import FakeClock
from llmproxy_core.testing.stores import SPACE, WINDOW_EDGES, StoreSuite, epoch
from llmproxy_core.usage import Usage, UsageSource

DAY = Limit("ann", Window.DAY, Money(100))
MONTH = Limit("ann", Window.MONTH, Money(1000))
TOTAL = Limit("all", Window.TOTAL, Money(5000))

_RESETS_AT = epoch("2026-11-21T00:00:00")


def record(id: str, cost: Money | None) -> UsageRecord:
    return UsageRecord(
        at=0.5, exchange=id, caller="ann", route="chat", model="m", end=End.COMPLETED, usage=None, cost=cost
    )


async def reserve(ledger: Ledger, id: str, amount: int, *limits: Limit) -> OverLimit | None:
    return await ledger.reserve(id, Money(amount), limits)


async def settle(ledger: Ledger, id: str, cost: int, *limits: Limit) -> None:
    await ledger.settle(id, record(id, Money(cost)), limits)


async def figures(ledger: Ledger, limit: Limit) -> tuple[int, int]:
    """Nanodollars spent and reserved."""
    balance = await ledger.balance(limit)
    return balance.spent.nanodollars, balance.reserved.nanodollars


class LedgerSuite(StoreSuite):
    """Money that is owed: reserved, and closed once."""

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[tuple[Ledger, FakeClock]]:
        async with self.store() as (store, clock):
            yield store.ledger(SPACE), clock

    # -- reserving ---------------------------------------------------------------------------------------------------

    async def test_an_account_that_nobody_used_has_nothing(self) -> None:
        async with self.ledger() as (ledger, _):
            assert await ledger.balance(DAY) == Balance(Money(0), Money(0), _RESETS_AT)
            assert await ledger.balance(TOTAL) == Balance(Money(0), Money(0), None)

    async def test_a_limit_may_be_reached_and_not_passed(self) -> None:
        async with self.ledger() as (ledger, _):
            assert await reserve(ledger, "1", 60, DAY) is None
            assert await reserve(ledger, "2", 41, DAY) == OverLimit(DAY, Balance(Money(0), Money(60), _RESETS_AT))
            assert await figures(ledger, DAY) == (0, 60)
            assert await reserve(ledger, "2", 40, DAY) is None
            assert await reserve(ledger, "3", 1, DAY) is not None
            assert await reserve(ledger, "4", 0, DAY) is None
            assert await figures(ledger, DAY) == (0, 100)

    async def test_what_is_spent_counts_as_what_is_reserved_does(self) -> None:
        async with self.ledger() as (ledger, _):
            await reserve(ledger, "1", 60, DAY)
            await settle(ledger, "1", 30, DAY)
            await reserve(ledger, "2", 50, DAY)

            over = await reserve(ledger, "3", 21, DAY)

            assert over == OverLimit(DAY, Balance(Money(30), Money(50), _RESETS_AT))
            assert await reserve(ledger, "4", 20, DAY) is None

    async def test_nothing_is_reserved_where_one_of_several_limits_refuses(self) -> None:
        small = Limit("small", Window.DAY, Money(10))
        smaller = Limit("smaller", Window.HOUR, Money(5))
        async with self.ledger() as (ledger, _):
            over = await reserve(ledger, "1", 11, DAY, small, smaller, TOTAL)

            assert over is not None
            assert over.limit == small  # the first one of the two
            assert [await figures(ledger, limit) for limit in (DAY, small, smaller, TOTAL)] == [(0, 0)] * 4
            assert await reserve(ledger, "1", 5, DAY, small, smaller, TOTAL) is None
            assert [await figures(ledger, limit) for limit in (DAY, small, smaller, TOTAL)] == [(0, 5)] * 4

    async def test_limits_on_one_account_share_it_whatever_their_amounts(self) -> None:
        tight = Limit("ann", Window.DAY, Money(10))
        async with self.ledger() as (ledger, _):
            assert await reserve(ledger, "1", 8, DAY, tight) is None
            assert await figures(ledger, DAY) == await figures(ledger, tight) == (0, 8)
            over = await reserve(ledger, "2", 8, DAY, tight)
            assert over is not None
            assert over.limit == tight
            assert await reserve(ledger, "3", 92, DAY) is None

            await settle(ledger, "1", 7, DAY, tight)
            assert await figures(ledger, tight) == (7, 92)

    async def test_keys_windows_and_spaces_are_accounts_of_their_own(self) -> None:
        async with self.store() as (store, _):
            ledger, same, other = store.ledger("s"), store.ledger("s"), store.ledger("t")
            await reserve(ledger, "1", 1, DAY)
            await reserve(ledger, "2", 2, MONTH)
            await reserve(ledger, "3", 4, Limit("bob", Window.DAY, Money(100)))
            await reserve(other, "1", 8, DAY)

            assert await figures(same, DAY) == (0, 1)
            assert await figures(same, MONTH) == (0, 2)
            assert await figures(other, DAY) == (0, 8)
            await settle(same, "1", 1, DAY)
            assert await figures(ledger, DAY) == (1, 0)
            assert await figures(other, DAY) == (0, 8)
            assert len(await ledger.records()) == 1
            assert not await other.records()

    async def test_large_amounts_are_exact(self) -> None:
        large = Money.usd(9_100_000) + Money(2)  # above 2**53 nanodollars floats are not exact
        limit = Limit("all", Window.TOTAL, large)
        async with self.ledger() as (ledger, _):
            assert await ledger.reserve("1", large - Money(1), [limit]) is None
            assert await reserve(ledger, "2", 2, limit) is not None
            assert await reserve(ledger, "3", 1, limit) is None
            assert (await ledger.balance(limit)).reserved == large

    # -- closing -----------------------------------------------------------------------------------------------------

    async def test_settling_books_the_cost_and_frees_the_rest(self) -> None:
        async with self.ledger() as (ledger, _):
            await reserve(ledger, "1", 60, DAY, TOTAL)
            await settle(ledger, "1", 25, DAY, TOTAL)

            assert await figures(ledger, DAY) == await figures(ledger, TOTAL) == (25, 0)
            assert await reserve(ledger, "2", 75, DAY) is None

    async def test_a_cost_above_the_reserve_and_the_limit_is_booked_all_the_same(self) -> None:
        async with self.ledger() as (ledger, _):
            await reserve(ledger, "1", 10, DAY)
            await settle(ledger, "1", 130, DAY)

            assert await figures(ledger, DAY) == (130, 0)
            assert await reserve(ledger, "2", 0, DAY) is not None

    async def test_an_unknown_cost_books_nothing_and_is_recorded(self) -> None:
        async with self.ledger() as (ledger, _):
            await reserve(ledger, "1", 10, DAY)
            await ledger.settle("1", record("1", None), [DAY])

            assert await figures(ledger, DAY) == (0, 0)
            assert list(await ledger.records()) == [record("1", None)]

    async def test_releasing_gives_everything_back(self) -> None:
        async with self.ledger() as (ledger, _):
            await reserve(ledger, "1", 100, DAY, TOTAL)
            await ledger.release("1")

            assert await figures(ledger, DAY) == await figures(ledger, TOTAL) == (0, 0)
            assert not await ledger.records()
            assert await reserve(ledger, "2", 100, DAY) is None

    async def test_without_a_reservation_the_cost_is_booked_under_the_limits_given(self) -> None:
        async with self.ledger() as (ledger, _):
            await settle(ledger, "1", 30, DAY, Limit("ann", Window.DAY, Money(7)), TOTAL)

            assert await figures(ledger, DAY) == await figures(ledger, TOTAL) == (30, 0)

    async def test_the_cost_goes_where_it_was_reserved_whatever_limits_come_with_it(self) -> None:
        async with self.ledger() as (ledger, _):
            await reserve(ledger, "1", 30, DAY)
            await settle(ledger, "1", 20, TOTAL)

            assert await figures(ledger, DAY) == (20, 0)
            assert await figures(ledger, TOTAL) == (0, 0)

    async def test_closing_again_changes_nothing(self) -> None:
        async def spend(ledger: Ledger, id: str) -> None:
            await settle(ledger, id, 9, DAY)

        async def release(ledger: Ledger, id: str) -> None:
            await ledger.release(id)

        for closings, spent in [
            ((spend, spend), 9),
            ((spend, release), 9),
            ((release, spend), 0),
            ((release, release), 0),
        ]:
            async with self.ledger() as (ledger, _):
                await reserve(ledger, "1", 10, DAY)
                await reserve(ledger, "other", 50, DAY)
                for close in closings:
                    await close(ledger, "1")

                assert await figures(ledger, DAY) == (spent, 50), closings
                assert len(await ledger.records()) == (1 if spent else 0), closings

    async def test_a_reservation_that_comes_after_its_end_is_void(self) -> None:
        async with self.ledger() as (ledger, _):
            await ledger.release("released")
            await settle(ledger, "settled", 5, DAY)
            await reserve(ledger, "released", 10, DAY)
            await reserve(ledger, "settled", 10, DAY)

            assert await figures(ledger, DAY) == (5, 0)

            await settle(ledger, "released", 10, DAY)
            assert await figures(ledger, DAY) == (5, 0)

    async def test_an_id_that_is_open_reserves_nothing_more(self) -> None:
        async with self.ledger() as (ledger, _):
            await reserve(ledger, "1", 60, DAY)

            assert await reserve(ledger, "1", 60, DAY) is None
            assert await figures(ledger, DAY) == (0, 60)
            await ledger.release("1")
            assert await figures(ledger, DAY) == (0, 0)

    # -- windows -----------------------------------------------------------------------------------------------------

    async def test_a_window_begins_with_nothing_and_says_when_it_ends(self) -> None:
        for window, last, first, next_first in WINDOW_EDGES:
            limit = Limit("ann", window, Money(100))
            async with self.ledger() as (ledger, clock):
                clock.now_s = epoch(last)
                await settle(ledger, "1", 100, limit)
                over = await reserve(ledger, "2", 1, limit)
                clock.now_s = epoch(first)
                fresh = await ledger.balance(limit)
                admitted = await reserve(ledger, "3", 100, limit)

            assert over == OverLimit(limit, Balance(Money(100), Money(0), epoch(first))), (window, last)
            assert fresh == Balance(Money(0), Money(0), epoch(next_first)), (window, first)
            assert admitted is None, (window, first)

    async def test_the_total_never_begins_again(self) -> None:
        async with self.ledger() as (ledger, clock):
            await reserve(ledger, "1", 10, TOTAL)
            await settle(ledger, "2", 20, TOTAL)
            clock.advance(86_400 * 800)

            assert await ledger.balance(TOTAL) == Balance(Money(20), Money(10), None)

    async def test_a_cost_is_booked_in_the_windows_in_which_it_was_reserved(self) -> None:
        async with self.ledger() as (ledger, clock):
            await reserve(ledger, "1", 60, DAY, MONTH, TOTAL)
            clock.advance(86_400)
            assert await figures(ledger, DAY) == (0, 0)
            assert await reserve(ledger, "2", 100, DAY) is None

            await settle(ledger, "1", 40, DAY, MONTH, TOTAL)

            assert await figures(ledger, DAY) == (0, 100)
            assert await figures(ledger, MONTH) == await figures(ledger, TOTAL) == (40, 0)

    async def test_what_was_reserved_in_a_past_window_is_released_there(self) -> None:
        async with self.ledger() as (ledger, clock):
            await reserve(ledger, "1", 60, DAY, TOTAL)
            clock.advance(86_400)
            await reserve(ledger, "2", 30, DAY)
            await ledger.release("1")

            assert await figures(ledger, DAY) == (0, 30)
            assert await figures(ledger, TOTAL) == (0, 0)

    async def test_no_window_opens_again_when_the_clock_goes_back(self) -> None:
        async with self.ledger() as (ledger, clock):
            clock.now_s = epoch("2026-11-20T23:59:59")
            await settle(ledger, "1", 10, DAY)
            clock.now_s = epoch("2026-11-21T00:00:01")
            await reserve(ledger, "2", 20, DAY)
            await settle(ledger, "3", 5, DAY)

            clock.now_s = epoch("2026-11-20T23:59:59")
            expected = Balance(Money(5), Money(20), epoch("2026-11-22T00:00:00"))
            assert await ledger.balance(DAY) == expected
            assert await reserve(ledger, "4", 76, DAY) == OverLimit(DAY, expected)
            await settle(ledger, "2", 15, DAY)
            await settle(ledger, "5", 1, DAY)

            clock.now_s = epoch("2026-11-21T00:00:01")
            assert await figures(ledger, DAY) == (21, 0)

    # -- records -----------------------------------------------------------------------------------------------------

    async def test_records_come_back_as_they_were_the_newest_first(self) -> None:
        written = [
            UsageRecord(
                at=1_795_000_000.125,
                exchange="01J9Z6M3",
                caller="ünïcode",
                route="/v1/chat",
                model=None,
                end=end,
                usage=usage,
                cost=cost,
            )
            for end, usage, cost in [
                (End.COMPLETED, Usage(1, 2, 3, 4, 5, UsageSource.COUNTED), Money(2**53 + 1)),
                (End.FAILED, None, None),
                (End.ABANDONED, Usage(source=UsageSource.ESTIMATED), Money(0)),
                (End.REFUSED, Usage(7), Money(1)),
            ]
        ]
        async with self.ledger() as (ledger, clock):
            for index, one in enumerate(written):
                await ledger.settle(f"{index}", one, [TOTAL])
                clock.advance(-1)

            assert list(await ledger.records()) == written[::-1]

    async def test_as_many_records_come_back_as_are_asked_for(self) -> None:
        async with self.ledger() as (ledger, _):
            for index in range(150):
                await settle(ledger, f"{index}", 1, TOTAL)

            for last in (0, 1, 10, 150, 1000):
                told = [entry.exchange for entry in await ledger.records(last=last)]
                assert told == [f"{index}" for index in reversed(range(150))][:last]
            assert len(await ledger.records()) == 100
