"""The bound on calls in flight that follows the lag of the event loop."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from llmproxy_server.admission_limit import FLOOR, HOLD, LATE_S, LOOKS, PERIOD_S, STEPS, AdaptiveLimit, Looks


def looked(limit: AdaptiveLimit, late_s: float, in_flight: int, times: int = LOOKS) -> float:
    for _ in range(times):
        limit.look(late_s, in_flight)
    return limit.limit


def test_a_loop_that_is_late_all_the_time_lowers_the_limit_by_a_tenth() -> None:
    assert looked(AdaptiveLimit(1000), LATE_S * 2, 1000) == 900


def test_what_is_lowered_is_what_is_in_flight() -> None:
    """A limit of a thousand that became 900 would change nothing where 300 are too many already."""
    assert looked(AdaptiveLimit(1000), LATE_S * 2, 300) == 270
    assert looked(AdaptiveLimit(inf), LATE_S * 2, 300) == 270


def test_a_single_block_lowers_nothing() -> None:
    limit = AdaptiveLimit(1000)
    for number in range(LOOKS * 10):
        limit.look(3.0 if number % LOOKS == 0 else 0.001, 1000)

    assert limit.limit == 1000


def test_the_limit_is_not_lowered_again_before_as_few_are_in_flight() -> None:
    limit = AdaptiveLimit(1000)
    looked(limit, 1.0, 1000)

    assert looked(limit, 1.0, 950) == 900
    assert looked(limit, 1.0, 900) == 810


def test_the_limit_stays_between_its_bounds() -> None:
    limit = AdaptiveLimit(1000)
    for _ in range(100):
        looked(limit, limit.limit, int(limit.limit))
    assert limit.limit == FLOOR
    for _ in range(100):
        looked(limit, 0.0, int(limit.limit))
    assert limit.limit == 1000
    assert looked(AdaptiveLimit(3), 1.0, 3) == 3


def test_a_limit_that_is_not_needed_does_not_rise() -> None:
    limit = AdaptiveLimit(1000)
    looked(limit, 1.0, 400)

    assert looked(limit, 0.0, 179, LOOKS * 20) == 360
    assert looked(limit, 0.0, 180) == 360 + 18


def test_another_bound_keeps_what_was_learned() -> None:
    limit = AdaptiveLimit(1000)
    limit.bound(2000)
    assert limit.limit == 2000
    looked(limit, 1.0, 500)
    limit.bound(3000)
    assert limit.limit == 450
    limit.bound(100)
    assert limit.limit == 100


@pytest.mark.parametrize("capacity", [25, 120, 700])
def test_the_limit_comes_to_what_the_process_can_do_and_stays_near_it(capacity: int) -> None:
    """A loop whose lag grows with what is in flight, and is too much beyond *capacity*; as many as may be come."""
    limit, in_flight, found = AdaptiveLimit(1000), 1000.0, list[float]()
    for look in range(3000):  # five minutes
        limit.look(LATE_S * in_flight / capacity, int(in_flight))
        in_flight += (limit.limit - in_flight) * 0.2 if in_flight > limit.limit else limit.limit - in_flight
        if look > 1000:
            found.append(in_flight)

    assert 0.8 * capacity <= min(found) <= max(found) <= 1.3 * capacity


def test_steps_down_that_leave_the_loop_as_late_as_before_are_taken_back_and_not_tried_again_at_once() -> None:
    """As where callers who are refused come again at once: the fewer are inside, the more of those there are."""
    limit, limits = AdaptiveLimit(1000), list[float]()
    for _ in range(STEPS + 1 + HOLD + 1):
        limits.append(looked(limit, 0.2 - limit.limit * 0.00001, int(limit.limit)))

    assert limits == [900, 810, 729, *[1000] * (1 + HOLD), 900]


def test_a_loop_that_is_in_time_again_ends_what_was_held() -> None:
    limit = AdaptiveLimit(1000)
    for _ in range(STEPS + 1):
        looked(limit, 0.2, int(limit.limit))
    looked(limit, 0.0, 1000)

    assert looked(limit, 0.2, 1000) == 900


async def test_it_is_told_how_late_each_look_at_the_loop_is_until_that_is_stopped() -> None:
    times = iter([0.0, 0.1, 0.1, 0.5, 0.5, 0.55])  # when one is set, when it comes: in time, 0.3 s late, too early
    seen, thrice = list[float](), asyncio.Event()

    def look(late_s: float) -> None:
        seen.append(late_s)
        if len(seen) == 3:
            looks.stop()
            thrice.set()

    looks = Looks(look, times.__next__)
    looks.start()
    looks.start()
    await asyncio.wait_for(thrice.wait(), 5)
    looks.stop()

    assert seen == [0.0, pytest.approx(0.5 - 0.1 - PERIOD_S), 0.0]
