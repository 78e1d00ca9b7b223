"""Retries never come to more than a share of the calls, and a few."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from llmproxy_core.resilience.budget import RetryBudget
from llmproxy_core.testing import FakeClock

WINDOW_S = 10.0
BUCKET_S = 1.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def budget(clock: FakeClock) -> RetryBudget:
    return RetryBudget(clock)


def taken(budget: RetryBudget) -> int:
    """How many retries are granted now, one after the other."""
    count = 0
    while budget.take():
        count += 1
    return count


def call(budget: RetryBudget, times: int) -> None:
    for _ in range(times):
        budget.called()


def test_a_few_retries_are_always_granted(budget: RetryBudget) -> None:
    assert taken(budget) == 3


def test_a_fifth_of_the_calls_may_be_tried_again(budget: RetryBudget) -> None:
    call(budget, 100)

    assert taken(budget) == 23


def test_a_part_of_a_retry_is_none(budget: RetryBudget) -> None:
    call(budget, 4)  # 0.8 + 3

    assert taken(budget) == 3


def test_share_and_floor_are_chosen(clock: FakeClock) -> None:
    budget = RetryBudget(clock, ratio=0.5, floor=0)
    call(budget, 10)

    assert taken(budget) == 5


def test_none_is_granted_where_none_is_allowed(clock: FakeClock) -> None:
    budget = RetryBudget(clock, ratio=0.0, floor=0)
    call(budget, 10)

    assert taken(budget) == 0


@pytest.mark.parametrize(("later_s", "granted"), [(9.0, 13), (10.0, 3)])
def test_calls_pay_for_retries_for_less_than_the_window(
    budget: RetryBudget, clock: FakeClock, later_s: float, granted: int
) -> None:
    call(budget, 50)

    clock.advance(later_s)

    assert taken(budget) == granted


@pytest.mark.parametrize(("later_s", "granted"), [(10.75, 0), (11.0, 3)])
def test_retries_are_held_against_it_for_more_than_the_window(
    budget: RetryBudget, clock: FakeClock, later_s: float, granted: int
) -> None:
    assert taken(budget) == 3

    clock.advance(later_s)

    assert taken(budget) == granted


def test_a_clock_that_goes_back_grants_nothing_more(budget: RetryBudget, clock: FakeClock) -> None:
    assert taken(budget) == 3

    clock.advance(-100)

    assert taken(budget) == 0


def test_under_an_even_load_nearly_the_whole_share_is_granted(clock: FakeClock) -> None:
    """In an outage: every call is tried again, whenever it may be."""
    budget = RetryBudget(clock, floor=0)

    retries = 0
    for _ in range(16 * 1000):
        budget.called()
        retries += budget.take()
        clock.advance(1 / 16)

    assert 0.175 < retries / (16 * 1000) < 0.2


def test_it_does_not_grow_with_the_calls(budget: RetryBudget, clock: FakeClock) -> None:
    def calls(count: int) -> None:
        for _ in range(count):
            budget.called()
            budget.take()
            clock.advance(0.25)

    calls(1000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        calls(5000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 4096


class AnyHistory(RuleBasedStateMachine):
    """Whatever is called, tried again and waited for: the promise holds, and no more is refused than it takes."""

    @initialize(ratio=st.sampled_from([0.0, 0.2, 0.5, 1.0]), floor=st.integers(0, 4), quarters=st.integers(0, 3))
    def begin(self, ratio: float, floor: int, quarters: int) -> None:
        self.ratio, self.floor = ratio, floor
        self.clock = FakeClock(1000 + quarters / 4)
        self.budget = RetryBudget(self.clock, ratio=ratio, floor=floor, window_s=WINDOW_S)
        self.called_s: list[float] = []
        self.retried_s: list[float] = []

    @rule(times=st.integers(1, 12))
    def call(self, times: int) -> None:
        for _ in range(times):
            self.budget.called()
            self.called_s.append(self.clock())

    @rule(times=st.integers(1, 8))
    def retry(self, times: int) -> None:
        for _ in range(times):
            if self.budget.take():
                self.retried_s.append(self.clock())
                assert self.retried(WINDOW_S) <= self.allowed(WINDOW_S)
            else:  # the retries of a bucket more, the calls of a bucket less
                assert self.retried(WINDOW_S + BUCKET_S) + 1 > self.allowed(WINDOW_S - BUCKET_S)

    @rule(quarters=st.integers(1, 60))
    def wait(self, quarters: int) -> None:
        self.clock.advance(quarters / 4)

    @rule()
    def wait_a_little_less_than_the_window(self) -> None:
        """What was granted at the end of a bucket is then in the eleventh."""
        self.clock.advance(WINDOW_S - 0.25)

    def retried(self, span_s: float) -> int:
        """Retries of the last *span_s* seconds, its first moment left out."""
        return sum(at > self.clock() - span_s for at in self.retried_s)

    def allowed(self, span_s: float) -> float:
        return self.ratio * sum(at > self.clock() - span_s for at in self.called_s) + self.floor


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=60)
