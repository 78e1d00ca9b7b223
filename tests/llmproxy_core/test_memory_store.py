"""The store of this process keeps every promise of a store, and does not grow with the traffic."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.memory import MemoryConfig, MemoryStore
from llmproxy_core.memory_ledger import MAX_CLOSED, MAX_RECORDS
from llmproxy_core.money import Money
from llmproxy_core.stores import Limit, Store, Window
from llmproxy_core.testing import FakeClock
from llmproxy_core.testing.ledger import LedgerSuite, figures, record, reserve, settle
from llmproxy_core.testing.ledger_model import IDS, LIMITS, WAITS_S, Step, follow
from llmproxy_core.testing.ledger_races import LedgerRaceSuite
from llmproxy_core.testing.stores import NOON, CounterSuite, KeyValueSuite, epoch

TOTAL = Limit("all", Window.TOTAL, Money(10**9))
RECORD = record("one of many", Money(1))


class _Memory:
    def make_store(self, now: Callable[[], float]) -> Store:
        return MemoryStore(MemoryConfig(), now)


class TestKeyValue(_Memory, KeyValueSuite):
    pass


class TestCounter(_Memory, CounterSuite):
    pass


class TestLedger(_Memory, LedgerSuite):
    pass


class TestLedgerRaces(_Memory, LedgerRaceSuite):
    pass


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(MemoryConfig(), clock)


steps = st.builds(
    Step,
    st.sampled_from(["reserve", "reserve", "settle", "release", "wait"]),
    st.sampled_from(IDS),
    st.integers(0, 60),
    st.lists(st.sampled_from(LIMITS), max_size=4),
    st.sampled_from(WAITS_S),
)


@given(st.lists(steps, max_size=40))
async def test_any_history_ends_as_the_model_says(history: list[Step]) -> None:
    clock = FakeClock(NOON)

    await follow(MemoryStore(MemoryConfig(), clock).ledger("s"), clock, history)


# -- bytes -----------------------------------------------------------------------------------------------------------


async def test_tags_count_towards_the_bound(store: MemoryStore) -> None:
    kept = store.key_value("s", max_bytes=100)
    await kept.set("a", b"1", ttl_s=60, tags=["t" * 98])
    await kept.set("b", b"1", ttl_s=60, tags=["t" * 99])

    assert await kept.get("a") == b"1"
    assert await kept.get("b") is None


async def test_the_bound_is_reached_to_the_byte(store: MemoryStore) -> None:
    kept = store.key_value("s", max_bytes=100)
    await kept.set("a", b"x" * 49, ttl_s=60)
    await kept.set("é", b"x" * 48, ttl_s=60)  # two bytes of key
    assert await kept.get("a") is not None

    await kept.set("c", b"", ttl_s=60)

    assert await kept.get("é") is None
    assert await kept.get("a") is not None


async def test_deleting_by_tag_is_no_use_of_what_it_leaves(store: MemoryStore) -> None:
    kept = store.key_value("s", max_bytes=3)
    for key in ("c", "a", "b"):
        await kept.set(key, b"", ttl_s=60 if key == "c" else 50)
    await kept.delete_tag("tag")

    await kept.set("d", b"", ttl_s=60)

    assert [await kept.get(key) for key in ("a", "b", "c", "d")] == [b"", b"", None, b""]


async def test_a_space_asked_for_with_another_bound_keeps_what_fits(store: MemoryStore, clock: FakeClock) -> None:
    held = store.key_value("s", max_bytes=100)
    for key in ("a", "b", "c"):
        await held.set(key, b"x" * 8, ttl_s=60, tags=["t"])  # ten bytes
    await held.get("a")

    smaller = store.key_value("s", max_bytes=20)

    assert [await held.get(key) for key in ("a", "b", "c")] == [b"x" * 8, None, b"x" * 8]
    store.key_value("s", max_bytes=30)
    await smaller.set("d", b"x" * 8, ttl_s=60)
    assert [await held.get(key) for key in ("a", "c", "d")] == [b"x" * 8] * 3
    assert await held.delete_tag("t") == 2
    clock.advance(61)
    assert await held.get("d") is None


async def test_a_bound_of_nothing_keeps_nothing(store: MemoryStore) -> None:
    kept = store.key_value("s", max_bytes=0)
    await kept.set("a", b"", ttl_s=60)

    assert await kept.get("a") is None


# -- what it does not keep -------------------------------------------------------------------------------------------


def _bytes_held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def test_overwriting_and_expiring_leave_nothing_behind(store: MemoryStore, clock: FakeClock) -> None:
    kept = store.key_value("s", max_bytes=10_000)
    tracemalloc.start()
    try:
        before = _bytes_held()
        for index in range(5_000):
            await kept.set("same", b"x" * 100, ttl_s=86_400 * 365)
            await kept.set(f"{index}", b"x" * 100, ttl_s=1, tags=["tag"])
            clock.advance(0.01)
        grown = _bytes_held() - before
    finally:
        tracemalloc.stop()

    assert grown < 200_000


async def test_sums_of_past_windows_and_of_nothing_leave_nothing_behind(store: MemoryStore, clock: FakeClock) -> None:
    counter = store.counter("s")
    tracemalloc.start()
    try:
        before = _bytes_held()
        for index in range(20_000):
            await counter.add(f"caller {index}", 1, Window.MINUTE)
            await counter.add(f"caller {index}", 0, Window.TOTAL)
            clock.advance(1)
        grown = _bytes_held() - before
    finally:
        tracemalloc.stop()

    assert grown < 100_000


def _objects_held() -> int:
    gc.collect()
    return len(gc.get_objects())


async def test_accounts_go_when_nothing_is_left_in_them_or_their_window_is_over(
    store: MemoryStore, clock: FakeClock
) -> None:
    """Each call has a key of its own: what it spent goes with the minute, and in the total it leaves nothing."""
    ledger = store.ledger("s")
    before = _objects_held()
    for index in range(20_000):
        minute = Limit(f"caller {index}", Window.MINUTE, Money(10))
        total = Limit(f"caller {index}", Window.TOTAL, Money(10))
        await reserve(ledger, f"minute {index}", 5, minute)
        await ledger.settle(f"minute {index}", RECORD, [minute])
        await reserve(ledger, f"total {index}", 5, total)
        await ledger.release(f"total {index}")
        await reserve(ledger, f"refused {index}", 11, minute, total)
        clock.advance(1)

    assert _objects_held() - before < 1000


async def test_an_open_reservation_keeps_its_own_account_and_not_its_whole_window(
    store: MemoryStore, clock: FakeClock
) -> None:
    ledger = store.ledger("s")
    await reserve(ledger, "long", 5, Limit("long", Window.MINUTE, Money(10)))
    before = _objects_held()
    for index in range(10_000):
        await ledger.settle(f"{index}", RECORD, [Limit(f"{index}", Window.MINUTE, Money(10))])
    clock.advance(60)
    await ledger.balance(Limit("other", Window.MINUTE, Money(10)))

    assert _objects_held() - before < 1000


async def test_the_latest_records_are_kept(store: MemoryStore) -> None:
    ledger = store.ledger("s")
    for index in range(MAX_RECORDS + 5):
        await settle(ledger, f"{index}", 1, TOTAL)

    told = [entry.exchange for entry in await ledger.records(last=MAX_RECORDS * 2)]

    assert told == [f"{index}" for index in reversed(range(5, MAX_RECORDS + 5))]
    assert await figures(ledger, TOTAL) == (MAX_RECORDS + 5, 0)


async def test_the_latest_closed_ids_are_remembered(store: MemoryStore) -> None:
    ledger = store.ledger("s")
    await ledger.release("first")
    for index in range(MAX_CLOSED - 1):
        await ledger.release(f"{index}")
    await reserve(ledger, "first", 5, TOTAL)
    assert await figures(ledger, TOTAL) == (0, 0)

    await ledger.release("one more")

    await reserve(ledger, "0", 5, TOTAL)
    assert await figures(ledger, TOTAL) == (0, 0)
    await reserve(ledger, "first", 5, TOTAL)
    assert await figures(ledger, TOTAL) == (0, 5)


# -- clocks and mistakes ---------------------------------------------------------------------------------------------


async def test_no_counter_begins_again_when_the_clock_goes_back(store: MemoryStore, clock: FakeClock) -> None:
    counter = store.counter("s")
    clock.now_s = epoch("2026-11-21T00:00:01")
    await counter.add("key", 3, Window.DAY)

    clock.now_s = epoch("2026-11-20T23:59:59")
    count = await counter.add("key", 1, Window.DAY)

    assert (count.value, count.resets_at) == (4, epoch("2026-11-22T00:00:00"))


async def test_a_reservation_of_nothing_is_booked_after_others_have_left(store: MemoryStore) -> None:
    """The account looks unused while the one that holds nothing in it is still open."""
    ledger = store.ledger("s")
    await reserve(ledger, "nothing", 0, TOTAL)
    await reserve(ledger, "other", 5, TOTAL)
    await ledger.release("other")
    await settle(ledger, "nothing", 3, TOTAL)

    assert await figures(ledger, TOTAL) == (3, 0)


async def test_a_negative_reservation_would_make_room_and_is_a_mistake(store: MemoryStore) -> None:
    ledger = store.ledger("s")

    with pytest.raises(ValueError, match="negative"):
        await reserve(ledger, "1", -1, TOTAL)

    assert await figures(ledger, TOTAL) == (0, 0)
