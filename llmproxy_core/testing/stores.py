"""
What every store must do, as tests that the author of one inherits.

    class TestMyLedger(LedgerSuite):
        def make_store(self, now: Callable[[], float]) -> Store:
            return MyStore(..., now)

All tests are `async def`: pytest-asyncio runs them in its auto mode, in its strict one the class needs the mark.
`pytest.register_assert_rewrite("llmproxy_core.testing.stores")` in a conftest.py makes failures tell their values.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from llmproxy_core.money import Money
from llmproxy_core.stores import Counter, KeyValue, Limit, Store, Window
from llmproxy_core.testing.clock import FakeClock

TIME_LIMIT_S = 60.0
"""How long one test may take; so a store that hangs is a failure."""

SPACE = "conformance"


def epoch(text: str) -> float:
    """Seconds since the epoch of a time in ISO 8601, in UTC."""
    return datetime.fromisoformat(text + "+00:00").timestamp()


NOON = epoch("2026-11-20T12:34:56")

WINDOW_EDGES = [
    (Window.MINUTE, "2026-11-20T12:34:59.900", "2026-11-20T12:35:00", "2026-11-20T12:36:00"),
    (Window.HOUR, "2026-11-20T12:59:59.900", "2026-11-20T13:00:00", "2026-11-20T14:00:00"),
    (Window.DAY, "2026-11-20T23:59:59.900", "2026-11-21T00:00:00", "2026-11-22T00:00:00"),
    (Window.DAY, "2028-02-28T23:59:59.900", "2028-02-29T00:00:00", "2028-03-01T00:00:00"),
    (Window.DAY, "2028-02-29T23:59:59.900", "2028-03-01T00:00:00", "2028-03-02T00:00:00"),
    (Window.MONTH, "2026-11-30T23:59:59.900", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
    (Window.MONTH, "2026-12-31T23:59:59.900", "2027-01-01T00:00:00", "2027-02-01T00:00:00"),
    (Window.MONTH, "2027-02-28T23:59:59.900", "2027-03-01T00:00:00", "2027-04-01T00:00:00"),
    (Window.MONTH, "2028-02-29T23:59:59.900", "2028-03-01T00:00:00", "2028-04-01T00:00:00"),
]
"""A window, the last moment of one, the first of the next one, and the first of the one after that."""


class StoreSuite:
    """What the suites share."""

    def make_store(self, now: Callable[[], float]) -> Store:
        """An empty store whose clock is *now* (seconds since the epoch); each test makes one, and closes it."""
        raise NotImplementedError

    @asynccontextmanager
    async def store(self) -> AsyncIterator[tuple[Store, FakeClock]]:
        clock = FakeClock(NOON)
        store = self.make_store(clock)
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                yield store, clock
        finally:
            await store.aclose()


class KeyValueSuite(StoreSuite):
    """Bytes under keys, for a time."""

    @asynccontextmanager
    async def values(self, max_bytes: int = 1_000_000) -> AsyncIterator[tuple[KeyValue, FakeClock]]:
        async with self.store() as (store, clock):
            yield store.key_value(SPACE, max_bytes=max_bytes), clock

    async def test_every_byte_comes_back_as_it_was(self) -> None:
        values = [b"", bytes(range(256)), b"\r\n\0\xff", b'{"a": "\xc3\xa9"}', b"x" * 100_000]
        async with self.values() as (kept, _):
            for index, value in enumerate(values):
                await kept.set(f"key {index}", value, ttl_s=60)

            assert [await kept.get(f"key {index}") for index in range(len(values))] == values

    async def test_any_text_is_a_key(self) -> None:
        keys = [
            "",
            " ",
            "a",
            "A",
            "a ",
            "a:b",
            "a\nb",
            "a\0b",
            "%",
            "_",
            "*",
            "'\"",
            "clé",
            "cle\u0301",
            "鍵",
            "k" * 2000,
        ]
        async with self.values() as (kept, _):
            for index, key in enumerate(keys):
                await kept.set(key, b"%d" % index, ttl_s=60)

            assert [await kept.get(key) for key in keys] == [b"%d" % index for index in range(len(keys))]

    async def test_what_was_never_set_is_not_there(self) -> None:
        async with self.values() as (kept, _):
            assert await kept.get("key") is None
            assert await kept.delete("key") == 0
            assert await kept.delete_tag("tag") == 0
            assert await kept.clear() == 0

    async def test_a_value_is_kept_for_its_time_and_no_longer(self) -> None:
        async with self.values() as (kept, clock):
            await kept.set("short", b"1", ttl_s=10, tags=["tag"])
            await kept.set("long", b"2", ttl_s=86_400 * 40)

            clock.advance(9)
            assert await kept.get("short") == b"1"

            clock.advance(2)
            assert await kept.get("short") is None
            assert await kept.get("long") == b"2"
            assert await kept.delete("short") == 0
            assert await kept.delete_tag("tag") == 0
            assert await kept.clear() == 1

    async def test_setting_again_replaces_value_time_and_tags(self) -> None:
        async with self.values() as (kept, clock):
            await kept.set("longer", b"old", ttl_s=10, tags=["old"])
            await kept.set("longer", b"new", ttl_s=100, tags=["new"])
            await kept.set("shorter", b"old", ttl_s=100)
            await kept.set("shorter", b"new", ttl_s=10)

            assert await kept.get("shorter") == b"new"
            clock.advance(50)
            assert await kept.get("shorter") is None
            assert await kept.delete_tag("old") == 0
            assert await kept.get("longer") == b"new"
            assert await kept.delete_tag("new") == 1
            assert await kept.get("longer") is None

    async def test_no_time_at_all_keeps_nothing_not_even_what_was_there(self) -> None:
        async with self.values() as (kept, _):
            await kept.set("key", b"old", ttl_s=100)
            await kept.set("key", b"new", ttl_s=0)

            assert await kept.get("key") is None

    async def test_deleting_forgets_one_key_once(self) -> None:
        async with self.values() as (kept, _):
            await kept.set("one", b"1", ttl_s=60)
            await kept.set("other", b"2", ttl_s=60)

            assert await kept.delete("one") == 1
            assert await kept.delete("one") == 0
            assert await kept.get("one") is None
            assert await kept.get("other") == b"2"

    async def test_a_tag_deletes_all_that_was_set_with_it(self) -> None:
        async with self.values() as (kept, _):
            await kept.set("a", b"1", ttl_s=60, tags=["red", "round"])
            await kept.set("b", b"2", ttl_s=60, tags=["square", "red"])
            await kept.set("c", b"3", ttl_s=60, tags=("round",))
            await kept.set("red", b"4", ttl_s=60)

            assert await kept.delete_tag("red") == 2
            assert [await kept.get(key) for key in ("a", "b", "c", "red")] == [None, None, b"3", b"4"]
            assert await kept.delete_tag("red") == 0
            assert await kept.delete_tag("round") == 1

    async def test_clearing_forgets_everything_of_the_space(self) -> None:
        async with self.store() as (store, _):
            one, other = (store.key_value(space, max_bytes=10_000) for space in ("one", "other"))
            for index in range(5):
                await one.set(f"{index}", b"1", ttl_s=60, tags=["tag"])
                await other.set(f"{index}", b"2", ttl_s=60, tags=["tag"])

            assert await one.clear() == 5
            assert await one.get("0") is None
            assert await other.get("0") == b"2"
            assert await one.delete_tag("tag") == 0
            assert await other.delete_tag("tag") == 5

    async def test_equal_spaces_are_one_and_others_are_apart(self) -> None:
        async with self.store() as (store, _):
            one, same, other = (store.key_value(space, max_bytes=10_000) for space in ("s", "s", "s:"))
            await one.set("key", b"1", ttl_s=60)

            assert await same.get("key") == b"1"
            assert await other.get("key") is None
            assert await other.delete("key") == 0
            assert await same.delete("key") == 1
            assert await one.get("key") is None

    async def test_the_kinds_of_content_do_not_meet_in_a_space(self) -> None:
        async with self.store() as (store, _):
            kept, counter, ledger = store.key_value("s", max_bytes=10_000), store.counter("s"), store.ledger("s")
            await kept.set("key", b"1", ttl_s=60)
            await counter.add("key", 5, Window.TOTAL)
            await ledger.reserve("key", Money(7), [Limit("key", Window.TOTAL, Money(10))])

            assert await kept.clear() == 1
            assert (await counter.add("key", 0, Window.TOTAL)).value == 5
            assert (await ledger.balance(Limit("key", Window.TOTAL, Money(10)))).reserved == Money(7)

    async def test_what_was_used_least_recently_goes_first(self) -> None:
        # Three of about 110 bytes fit, four do not.
        async with self.values(max_bytes=400) as (kept, _):
            for key in ("a", "b", "c"):
                await kept.set(key, key.encode() * 110, ttl_s=60)
            assert await kept.get("a") is not None

            await kept.set("d", b"d" * 110, ttl_s=60)

            assert await kept.get("b") is None
            assert [await kept.get(key) for key in ("a", "c", "d")] == [b"a" * 110, b"c" * 110, b"d" * 110]

    async def test_keys_and_values_together_stay_within_the_bound(self) -> None:
        async with self.values(max_bytes=1000) as (kept, _):
            keys = [f"key {index} " + "k" * (index % 40) for index in range(200)]
            for index, key in enumerate(keys):
                await kept.set(key, b"v" * (index * 7 % 150), ttl_s=60)
            found = {key: await kept.get(key) for key in keys}

            size = sum(len(key) + len(value) for key, value in found.items() if value is not None)
            assert size <= 1000
            assert found[keys[-1]] is not None

    async def test_what_is_larger_than_the_bound_is_not_kept_and_costs_nobody_else(self) -> None:
        async with self.values(max_bytes=1000) as (kept, _):
            await kept.set("small", b"1", ttl_s=60)
            await kept.set("key", b"old", ttl_s=60)
            await kept.set("key", b"x" * 1000, ttl_s=60)

            assert await kept.get("key") is None
            assert await kept.get("small") == b"1"

    async def test_no_reader_sees_half_a_value(self) -> None:
        async with self.values() as (kept, _):
            values = [bytes([letter]) * 5000 for letter in b"abcdefgh"]
            await kept.set("key", values[0], ttl_s=60)
            written = asyncio.Event()

            async def read() -> None:
                while not written.is_set():
                    assert await kept.get("key") in values
                    await asyncio.sleep(0)

            async def write(value: bytes) -> None:
                for _ in range(5):
                    await kept.set("key", value, ttl_s=60)
                    await asyncio.sleep(0)

            async with asyncio.TaskGroup() as reader:
                reader.create_task(read())
                async with asyncio.TaskGroup() as writers:
                    for value in values:
                        writers.create_task(write(value))
                written.set()


class CounterSuite(StoreSuite):
    """Sums within windows."""

    @asynccontextmanager
    async def counter(self) -> AsyncIterator[tuple[Counter, FakeClock]]:
        async with self.store() as (store, clock):
            yield store.counter(SPACE), clock

    async def test_an_addition_tells_the_sum_and_nothing_only_reads_it(self) -> None:
        async with self.counter() as (counter, _):
            assert (await counter.add("key", 0, Window.DAY)).value == 0
            assert (await counter.add("key", 3, Window.DAY)).value == 3
            assert (await counter.add("key", 4, Window.DAY)).value == 7
            assert (await counter.add("key", 0, Window.DAY)).value == 7
            assert (await counter.add("key", -7, Window.DAY)).value == 0

    async def test_large_sums_are_exact(self) -> None:
        # No float holds the first number.
        async with self.counter() as (counter, _):
            await counter.add("key", 2**53 + 1, Window.TOTAL)

            assert (await counter.add("key", 2**60, Window.TOTAL)).value == 2**60 + 2**53 + 1

    async def test_keys_windows_and_spaces_are_counted_apart(self) -> None:
        async with self.store() as (store, _):
            counter, same, other = store.counter("s"), store.counter("s"), store.counter("t")
            await counter.add("a", 1, Window.DAY)
            await counter.add("b", 2, Window.DAY)
            await counter.add("a", 4, Window.MONTH)
            await other.add("a", 8, Window.DAY)

            assert (await same.add("a", 0, Window.DAY)).value == 1
            assert (await same.add("b", 0, Window.DAY)).value == 2
            assert (await same.add("a", 0, Window.MONTH)).value == 4
            assert (await other.add("a", 0, Window.DAY)).value == 8

    async def test_a_window_begins_with_nothing_and_says_when_it_ends(self) -> None:
        for window, last, first, next_first in WINDOW_EDGES:
            async with self.counter() as (counter, clock):
                clock.now_s = epoch(last)
                before = await counter.add("key", 3, window)
                clock.now_s = epoch(first)
                after = await counter.add("key", 1, window)

            assert (before.value, before.resets_at) == (3, epoch(first)), (window, last)
            assert (after.value, after.resets_at) == (1, epoch(next_first)), (window, first)

    async def test_the_total_never_begins_again(self) -> None:
        async with self.counter() as (counter, clock):
            await counter.add("key", 3, Window.TOTAL)
            clock.advance(86_400 * 800)
            after = await counter.add("key", 1, Window.TOTAL)

            assert (after.value, after.resets_at) == (4, None)

    async def test_no_addition_of_many_at_once_is_lost_or_told_twice(self) -> None:
        async with self.counter() as (counter, _):
            counts = await asyncio.gather(*(counter.add("key", 1, Window.TOTAL) for _ in range(300)))

            assert sorted(count.value for count in counts) == list(range(1, 301))
