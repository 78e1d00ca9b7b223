"""How long is waited before another try, and when there is none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from llmproxy_core.deadline import deadline
from llmproxy_core.errors import BadRequest, UpstreamError
from llmproxy_core.resilience.backoff import Retries
from llmproxy_core.resilience.failure import Failure
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
    return Tries(Retries(jitter=1.0, **keys), deadline_s, clock, random.Random(0))  # type: ignore[arg-type]


def test_tries_are_counted() -> None:
    left = tries(FakeClock(), max_retries=2)

    assert [left.take(), left.take(), left.take()] == [True, True, False]


def test_what_a_provider_asks_for_is_kept() -> None:
    clock = FakeClock()
    left = tries(clock, initial_backoff_s=1.0)
    left.failed(Failure.RATE_LIMIT, UpstreamError("slow down", status=429, retry_after_s=7.0))

    assert left.again_s() == 7.0


def test_the_first_that_is_ready_is_waited_for() -> None:
    left = tries(FakeClock(), initial_backoff_s=1.0)
    for wait_s in (20.0, 3.0, 9.0):
        left.failed(Failure.RATE_LIMIT, UpstreamError("slow down", status=429, retry_after_s=wait_s))

    assert left.again_s() == 3.0


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
        paused[failure] = left.pause_s > 0

    assert paused == {Failure.RATE_LIMIT: False, Failure.CONNECT: False, Failure.UPSTREAM: True}


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
