"""How long is waited before another try, and when there is none."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as some

from llmproxy_core.deadline import deadline
from llmproxy_core.errors import BadRequest, UpstreamError
from llmproxy_core.resilience.backoff import Retries
from llmproxy_core.resilience.failure import Failure, Unavailable
from llmproxy_core.resilience.tries import Tries
from llmproxy_core.testing import FakeClock


@given(
    retries=some.builds(
        Retries,
        initial_backoff_s=some.floats(0.001, 100),
        max_backoff_s=some.floats(0.001, 1000),
        backoff_factor=some.floats(1, 100),
        jitter=some.floats(0, 1),
    ),
    failed=some.integers(1, 1000),
    chance=some.randoms(use_true_random=False),
)
def test_a_wait_is_between_its_least_part_and_the_longest(retries: Retries, failed: int, chance: random.Random) -> None:
    wait_s = retries.wait_s(failed, chance)

    assert 0 <= wait_s <= retries.max_backoff_s
    if failed == 1:
        longest_s = min(retries.initial_backoff_s, retries.max_backoff_s)
        assert retries.jitter * longest_s * 0.999999 <= wait_s <= longest_s * 1.000001


def test_waits_grow_as_configured() -> None:
    sure = Retries(initial_backoff_s=1.0, max_backoff_s=5.0, backoff_factor=2.0, jitter=1.0)

    assert [sure.wait_s(failed, random.Random(0)) for failed in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 5.0]


def tries(clock: FakeClock, deadline_s: float | None = None, **keys: float) -> Tries:
    until_s = inf if deadline_s is None else deadline_s
    retries = Retries(jitter=1.0, **keys)  # type: ignore[arg-type]
    return Tries(retries, lambda: until_s, clock, random.Random(0), retries.max_retries)


def limited(retry_after_s: float) -> UpstreamError:
    return UpstreamError("slow down", status=429, retry_after_s=retry_after_s)


def test_tries_are_counted() -> None:
    left = tries(FakeClock(), max_retries=2)
    found = []
    for _ in range(3):
        left.failed(Failure.UPSTREAM, UpstreamError("no"))
        found.append(left.any_left)

    assert found == [True, True, False]


def test_who_was_not_asked_takes_no_try() -> None:
    left = tries(FakeClock(), max_retries=1)
    for _ in range(5):
        left.failed(Failure.UNAVAILABLE, Unavailable("rests", retry_after_s=1.0))

    assert (left.left, left.any_left) == (1, True)


def test_nobody_is_asked_when_nobody_waits_any_more() -> None:
    clock = FakeClock()
    left = tries(clock, clock() + 1.0)
    left.failed(Failure.UPSTREAM, UpstreamError("no"))
    clock.advance(1.0)

    assert not left.any_left


def test_what_a_provider_asks_for_is_kept_and_the_back_off_comes_on_top() -> None:
    left = tries(FakeClock(), initial_backoff_s=1.0)
    left.failed(Failure.RATE_LIMIT, limited(7.0))

    assert left.again_s() == 8.0


@given(told_s=some.floats(0, 60), time_s=some.floats(0, 100), chance=some.randoms(use_true_random=False))
def test_nobody_comes_earlier_than_told_nor_behind_the_deadline(
    told_s: float, time_s: float, chance: random.Random
) -> None:
    clock = FakeClock()
    until_s = clock() + time_s
    left = Tries(Retries(initial_backoff_s=5.0, max_backoff_s=30.0), lambda: until_s, clock, chance, 3)
    left.failed(Failure.RATE_LIMIT, limited(told_s))

    wait_s = left.again_s()

    if wait_s is None:
        assert told_s > 30.0 or told_s >= time_s - 1e-6
    else:
        assert told_s - 1e-6 <= wait_s < time_s


def test_who_were_told_the_same_do_not_come_back_together() -> None:
    chance, waits = random.Random(0), set()
    for _ in range(100):
        left = Tries(Retries(initial_backoff_s=1.0), lambda: inf, FakeClock(), chance, 3)
        left.failed(Failure.RATE_LIMIT, limited(20.0))
        waits.add(round(left.again_s() or 0.0, 1))

    assert waits >= {20.2, 20.3, 20.4, 20.5, 20.6, 20.7, 20.8, 20.9}


def test_the_first_that_is_ready_is_waited_for() -> None:
    left = tries(FakeClock(), initial_backoff_s=1.0, backoff_factor=1.0)
    for wait_s in (20.0, 3.0, 9.0):
        left.failed(Failure.RATE_LIMIT, limited(wait_s))

    assert left.again_s() == 4.0


@pytest.mark.parametrize("asked_first", [False, True], ids=["nobody else", "another was asked"])
def test_who_was_not_asked_is_not_waited_for(asked_first: bool) -> None:
    """Its rest is somebody else's: only what this call was told itself is waited for."""
    left = tries(FakeClock(), initial_backoff_s=2.0)
    if asked_first:
        left.failed(Failure.UPSTREAM, UpstreamError("no"))
    left.failed(Failure.UNAVAILABLE, Unavailable("rests", retry_after_s=1.0))

    assert left.again_s() == (2.0 if asked_first else None)


@pytest.mark.parametrize("failure", [Failure.CALLER, Failure.AUTH, Failure.CONTEXT_WINDOW, Failure.UNSUPPORTED])
def test_what_does_not_pass_is_not_waited_for(failure: Failure) -> None:
    left = tries(FakeClock())
    left.failed(failure, UpstreamError("no"))

    assert left.again_s() is None


def test_no_wait_ends_behind_the_deadline() -> None:
    clock = FakeClock()
    left = tries(clock, clock() + 0.5, initial_backoff_s=1.0)
    left.failed(Failure.UPSTREAM, UpstreamError("no"))

    assert left.again_s() is None


def test_another_key_or_address_needs_no_pause_a_provider_in_trouble_does() -> None:
    left = tries(FakeClock(), initial_backoff_s=1.0)
    paused = {}
    for failure in (Failure.RATE_LIMIT, Failure.CONNECT, Failure.UPSTREAM):
        left.failed(failure, UpstreamError("no"))
        paused[failure] = left.pause_s() > 0

    assert paused == {Failure.RATE_LIMIT: False, Failure.CONNECT: False, Failure.UPSTREAM: True}


def test_nobody_pauses_twice_for_one_failure() -> None:
    left = tries(FakeClock(), initial_backoff_s=1.0)
    left.failed(Failure.UPSTREAM, UpstreamError("no"))

    assert [left.pause_s(), left.pause_s()] == [1.0, 0.0]


def test_a_pause_leaves_the_next_half_of_the_time() -> None:
    clock = FakeClock()
    left = tries(clock, clock() + 0.5, initial_backoff_s=1.0)
    left.failed(Failure.UPSTREAM, UpstreamError("no"))

    assert left.pause_s() == pytest.approx(0.25)


def test_the_shortest_limit_of_a_call_counts() -> None:
    assert deadline(10.0, None, {}) is None
    assert deadline(10.0, 60.0, {}) == 70.0
    assert deadline(10.0, 60.0, {"x-llmproxy-timeout-ms": "1500"}) == 11.5
    assert deadline(10.0, 1.0, {"x-llmproxy-timeout-ms": "1500"}) == 11.0
    assert deadline(10.0, 60.0, {"x-llmproxy-timeout-ms": "9000", "x-stainless-timeout": "2.5"}) == 12.5
    for odd in ("", "soon", "nan", "inf", "-1", "0"):
        assert deadline(10.0, 60.0, {"x-stainless-timeout": odd}) == 70.0


@pytest.mark.parametrize("odd", ["", "soon", "1.5", "-1", "0", "1e3", "9999999999999", "١"])
def test_a_limit_of_ours_that_cannot_be_read_is_refused(odd: str) -> None:
    with pytest.raises(BadRequest):
        deadline(10.0, 60.0, {"x-llmproxy-timeout-ms": odd})
