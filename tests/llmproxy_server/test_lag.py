"""The lag of the event loop: measured, told, and forgotten in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from llmproxy_server.culprit import NOBODY, Culprit
from llmproxy_server.health_reason import HOLD_S, Reason
from llmproxy_server.lag import BUCKETS, PERIOD_S, RECENT_S, Lag, Worst
from llmproxy_server.watchdog import Finding

AT_MOST_S = 20.0


class Clock:
    """Moved by the test; timers are the loop's own."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Metric:
    def __init__(self) -> None:
        self.values: list[float] = []
        self._changed = asyncio.Event()

    def add(self, amount: float = 1.0) -> None:
        self.record(amount)

    def record(self, value: float) -> None:
        self.values.append(value)
        self._changed.set()

    async def until(self, count: int) -> list[float]:
        async with asyncio.timeout(AT_MOST_S):
            while len(self.values) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.values[:count]


class Recording:
    """A Meter that can be looked into."""

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}
        self.gauges: dict[str, Callable[[], float]] = {}
        self.buckets: Sequence[float] = ()

    def counter(self, name: str, doc: str, **labels: str) -> Metric:
        return self.metrics.setdefault(name, Metric())

    def histogram(self, name: str, doc: str, buckets: Sequence[float], **labels: str) -> Metric:
        self.buckets = buckets
        return self.metrics.setdefault(name, Metric())

    def gauge(self, name: str, doc: str, read: Callable[[], float], **labels: str) -> None:
        self.gauges[name] = read

    @property
    def lags(self) -> Metric:
        return self.metrics["llmproxy_event_loop_lag_seconds"]

    @property
    def blocks(self) -> Metric:
        return self.metrics["llmproxy_event_loop_blocks_total"]


def no_gateway() -> Any:
    raise AssertionError("nobody is to be looked for")


@contextmanager
def measuring(clock: Clock) -> Iterator[tuple[Lag, Recording]]:
    meter = Recording()
    lag = Lag(no_gateway, meter, clock=clock)
    lag.start()
    lag.watchdog.stop()  # it would look for somebody to accuse
    try:
        yield lag, meter
    finally:
        lag.stop()


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    found = [record for record in caplog.records if record.getMessage() == "the event loop was blocked"]
    assert all(record.levelno == logging.WARNING for record in found)
    return [vars(record)["fields"] for record in found]


async def late(clock: Clock, meter: Recording, *lags_s: float) -> None:
    """Have the loop be late by *lags_s*, one after the other: so much more time passes than until the next timer."""
    for lag_s in lags_s:
        clock.now += PERIOD_S + lag_s
        await meter.lags.until(len(meter.lags.values) + 1)


async def test_lags_are_counted_by_their_size(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with measuring(clock) as (lag, meter):
        await late(clock, meter, 0.0, 0.02, 0.2)

        assert meter.lags.values == pytest.approx([0.0, 0.02, 0.2])
        assert meter.buckets == BUCKETS == tuple(sorted(BUCKETS))
        assert meter.gauges["llmproxy_event_loop_lag_worst_seconds"]() == pytest.approx(0.2)
        assert meter.blocks.values == []
        assert not list(lag.reasons())
    assert not lines(caplog)


async def test_a_timer_that_comes_early_is_no_lag() -> None:
    clock = Clock()
    with measuring(clock) as (_, meter):
        clock.now += PERIOD_S - 0.001

        assert await meter.lags.until(1) == [0.0]


async def test_a_block_is_logged_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with measuring(clock) as (lag, meter):
        await late(clock, meter, 1.2)
        clock.now += 3

        assert meter.blocks.values == [1.0]
        (reason,) = lag.reasons()
        assert (reason.part, reason.code) == ("event_loop", "event_loop_blocked")
        assert reason.message.startswith("it was blocked for 1.2 s")
        assert reason.age_s == pytest.approx(3)
        clock.now += HOLD_S
        assert not list(lag.reasons())
    (line,) = lines(caplog)
    assert line["for_s"] == pytest.approx(1.2)


async def test_who_was_seen_is_named_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    culprit = Culprit("processor 'slow' (plugin llmproxy_slow)", "llmproxy_slow.py:12 in parse")
    with measuring(clock) as (lag, meter):
        await late(clock, meter, 0.0)
        lag.watchdog.finding = Finding(clock.now, culprit)
        await late(clock, meter, 1.2)
        (reason,) = lag.reasons()
        await late(clock, meter, 1.5)  # of this one nothing was seen

    assert reason.message == "it was blocked for 1.2 s by processor 'slow' (plugin llmproxy_slow)"
    seen, unseen = lines(caplog)
    assert (seen["by"], seen["at"]) == (culprit.who, culprit.place)
    assert "by" not in unseen


async def test_a_process_that_was_stopped_accuses_nobody_in_health() -> None:
    clock = Clock()
    with measuring(clock) as (lag, meter):
        await late(clock, meter, 0.0)
        lag.watchdog.finding = Finding(clock.now, Culprit(NOBODY, None))
        await late(clock, meter, 1.2)

        (reason,) = lag.reasons()
    assert reason.message == "it was blocked for 1.2 s"


async def test_blocks_that_follow_each_other_are_a_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with measuring(clock) as (_, meter):
        await late(clock, meter, 0.3, 0.3, 0.3, 0.3)

        assert meter.blocks.values == [1.0] * 4
    first, second = lines(caplog)  # at 0.4 and 1.6 s
    assert "more_since_the_last_line" not in first
    assert second["more_since_the_last_line"] == 2


async def test_it_stops_when_it_is_told_to() -> None:
    with measuring(Clock()) as (lag, meter):
        await meter.lags.until(1)
        lag.stop()
        seen = len(meter.lags.values)

        await asyncio.sleep(2 * PERIOD_S)
        assert len(meter.lags.values) == seen


def test_a_lag_that_never_began_can_be_stopped() -> None:
    Lag(no_gateway).stop()


@pytest.mark.parametrize(
    ("later_s", "worst"),
    [(0.0, 3.0), (RECENT_S - 1, 3.0), (RECENT_S + 1, 3.0), (2 * RECENT_S + 1, 1.0), (100 * RECENT_S, 1.0)],
)
def test_the_worst_lag_is_that_of_the_recent_past(later_s: float, worst: float) -> None:
    seen = Worst()
    seen.add(3.0, 100.0)

    seen.add(1.0, 100.0 + later_s)

    assert seen.value == worst


def test_a_reason_without_an_age_says_none() -> None:
    assert Reason("reload", "reload_failed", "why").said() == {
        "part": "reload",
        "code": "reload_failed",
        "message": "why",
    }
