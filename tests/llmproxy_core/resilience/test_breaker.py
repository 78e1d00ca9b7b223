"""A breaker opens for an LLM that fails, tries it again with a few calls, and closes when they succeed."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from llmproxy_core.resilience.breaker import (
    Breaker,
    BreakerConfig,
    Ejections,
    Pass,
)
from llmproxy_core.resilience.breaker_state import MemoryBreakerState, Standing, State
from llmproxy_core.testing import FakeClock

CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
QUICK_S, SLOW_S = 0.5, 2.0

# Buckets of a second, so that multiples of a quarter are exact.
CONFIG = BreakerConfig(window_s=10.0, min_calls=4, open_s=5.0, max_open_s=30.0, probes=2)


class Even(random.Random):
    """Draws the middle of what it is asked for: open times are as configured."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def changes() -> list[tuple[State, State]]:
    return []


Make = Callable[..., Breaker]


@pytest.fixture
def make(clock: FakeClock, changes: list[tuple[State, State]]) -> Make:
    def made(**keys: Any) -> Breaker:
        config = attrs.evolve(CONFIG, **keys)
        return Breaker(config, clock, Even(), on_change=lambda old, new: changes.append((old, new)))

    return made


def admitted(breaker: Breaker) -> Pass:
    passed = breaker.admit()
    assert passed is not None
    return passed


def fail(breaker: Breaker, times: int = 1, seconds: float = QUICK_S) -> None:
    for _ in range(times):
        admitted(breaker).failed(seconds)


def succeed(breaker: Breaker, times: int = 1, seconds: float = QUICK_S) -> None:
    for _ in range(times):
        admitted(breaker).succeeded(seconds)


# -- calls that nobody waited for to the end -------------------------------------------------------------------------


def test_a_call_that_was_cut_short_counts_only_if_it_was_slow_by_then(make: Make) -> None:
    breaker = make(slow_call_s=SLOW_S)
    for _ in range(4):
        admitted(breaker).cut_short(QUICK_S)
    assert breaker.snapshot().calls == 0

    for _ in range(4):
        admitted(breaker).cut_short(SLOW_S)
    assert breaker.state is OPEN


def test_where_no_call_is_slow_one_that_was_cut_short_never_counts(make: Make) -> None:
    breaker = make()
    for _ in range(8):
        admitted(breaker).cut_short(1000.0)

    assert (breaker.state, breaker.snapshot().calls) == (CLOSED, 0)


# -- closed ----------------------------------------------------------------------------------------------------------


def test_it_opens_when_its_share_of_the_window_has_failed(make: Make, changes: list[tuple[State, State]]) -> None:
    breaker = make()
    succeed(breaker, 3)

    fail(breaker, 2)
    assert breaker.state is CLOSED
    fail(breaker)

    assert breaker.state is OPEN
    assert breaker.admit() is None
    assert changes == [(CLOSED, OPEN)]


def test_too_few_calls_do_not_open_it(make: Make) -> None:
    breaker = make()

    fail(breaker, 3)

    assert breaker.state is CLOSED


def test_a_call_that_went_well_opens_nothing(make: Make) -> None:
    breaker = make()
    fail(breaker, 3)

    succeed(breaker)  # the fourth: three quarters of enough calls have failed
    assert breaker.state is CLOSED
    fail(breaker)

    assert breaker.state is OPEN


@pytest.mark.parametrize(("later_s", "state"), [(9.0, OPEN), (10.0, CLOSED)])
def test_what_is_older_than_the_window_does_not_count(
    make: Make, clock: FakeClock, later_s: float, state: State
) -> None:
    breaker = make()
    fail(breaker, 3)

    clock.advance(later_s)
    fail(breaker)

    assert breaker.state is state


def test_a_long_silence_leaves_nothing_in_the_window(make: Make, clock: FakeClock) -> None:
    breaker = make()
    fail(breaker, 3)

    clock.advance(86_400)

    assert breaker.snapshot().calls == 0


def test_a_clock_that_goes_back_is_taken_as_standing(make: Make, clock: FakeClock) -> None:
    breaker = make()
    fail(breaker, 3)

    clock.advance(-5)
    fail(breaker)

    assert breaker.snapshot().state is OPEN


def test_calls_that_say_nothing_of_its_health_are_not_counted(make: Make) -> None:
    breaker = make()
    fail(breaker, 3)

    for _ in range(10):
        admitted(breaker).dropped()

    assert (breaker.state, breaker.snapshot().calls) == (CLOSED, 3)


@pytest.mark.parametrize("end", ["succeeded", "failed"])
def test_slow_calls_open_it_however_they_end(make: Make, end: str) -> None:
    breaker = make(slow_call_s=SLOW_S, slow_rate=0.75, failure_rate=1.0)
    succeed(breaker, 3, SLOW_S)

    getattr(admitted(breaker), end)(SLOW_S)

    assert breaker.state is OPEN


def test_calls_are_slow_only_where_that_is_configured(make: Make) -> None:
    breaker = make()

    succeed(breaker, 10, 3600)

    assert (breaker.state, breaker.snapshot().slow_rate) == (CLOSED, 0.0)


def test_failures_in_a_row_open_it_however_few_calls_there_were(make: Make) -> None:
    breaker = make(consecutive_failures=3, min_calls=1000)
    fail(breaker, 2)
    succeed(breaker)
    fail(breaker, 2)
    admitted(breaker).dropped()
    assert breaker.state is CLOSED

    fail(breaker)

    assert breaker.state is OPEN


def test_failures_in_a_row_have_no_age(make: Make, clock: FakeClock) -> None:
    breaker = make(consecutive_failures=2)
    fail(breaker)

    clock.advance(3600)
    fail(breaker)

    assert breaker.state is OPEN


def test_it_stays_closed_while_it_may_not_open(make: Make, changes: list[tuple[State, State]]) -> None:
    breaker = make()
    breaker.may_open = lambda: False
    fail(breaker, 10)
    assert (breaker.state, changes) == (CLOSED, [])

    breaker.may_open = lambda: True
    fail(breaker)

    assert breaker.state is OPEN


def test_a_call_reads_the_clock_once_and_a_call_that_is_begun_does_not(clock: FakeClock) -> None:
    """What it costs where nothing fails, as a count."""
    read: list[float] = []

    def counting() -> float:
        read.append(clock())
        return read[-1]

    breaker = Breaker(CONFIG, counting, Even())

    passed = admitted(breaker)
    assert len(read) == 0
    passed.succeeded(QUICK_S)

    assert len(read) == 1


def test_it_does_not_grow_with_the_calls(make: Make, clock: FakeClock) -> None:
    breaker = make(failure_rate=1.0)

    def calls(count: int) -> None:
        for _ in range(count):
            succeed(breaker)
            fail(breaker)
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


# -- open and half open ----------------------------------------------------------------------------------------------


def test_it_tells_when_a_call_may_pass_again(make: Make, clock: FakeClock) -> None:
    breaker = make()
    assert breaker.retry_in_s() == 0
    fail(breaker, 4)

    clock.advance(2)

    assert breaker.retry_in_s() == 3
    clock.advance(10)
    assert breaker.retry_in_s() == 0


def test_what_is_over_reads_as_half_open_and_changes_with_the_next_call(
    make: Make, clock: FakeClock, changes: list[tuple[State, State]]
) -> None:
    breaker = make()
    fail(breaker, 4)

    clock.advance(5)
    assert (breaker.state, changes) == (HALF_OPEN, [(CLOSED, OPEN)])
    admitted(breaker)

    assert changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN)]


def test_as_many_probes_pass_as_there_are_places(make: Make, clock: FakeClock) -> None:
    breaker = make()
    fail(breaker, 4)
    clock.advance(5)

    admitted(breaker)
    last = admitted(breaker)

    assert breaker.admit() is None
    last.dropped()
    admitted(breaker)  # in its place
    assert breaker.admit() is None


def test_a_probe_that_succeeded_keeps_its_place(make: Make, clock: FakeClock) -> None:
    breaker = make()
    fail(breaker, 4)
    clock.advance(5)
    admitted(breaker).succeeded(QUICK_S)

    admitted(breaker)

    assert breaker.admit() is None


def test_it_closes_when_all_probes_have_succeeded_and_counts_anew(
    make: Make, clock: FakeClock, changes: list[tuple[State, State]]
) -> None:
    breaker = make(consecutive_failures=4)
    fail(breaker, 4)
    clock.advance(5)

    succeed(breaker, 2)

    assert changes[-1] == (HALF_OPEN, CLOSED)
    assert breaker.snapshot().calls == 0
    fail(breaker, 3)  # neither the window nor the row has the old ones
    assert breaker.state is CLOSED


def test_one_probe_that_fails_opens_it_for_twice_as_long_up_to_a_bound(make: Make, clock: FakeClock) -> None:
    breaker = make()
    fail(breaker, 4)
    waits = [breaker.retry_in_s()]

    for _ in range(4):
        clock.advance(waits[-1])
        succeed(breaker)
        fail(breaker)
        waits.append(breaker.retry_in_s())

    assert waits == [5, 10, 20, 30, 30]
    assert breaker.snapshot().opened == 5


def test_a_clock_that_has_just_begun_makes_no_difference() -> None:
    breaker = Breaker(CONFIG, FakeClock(0.0), Even())

    fail(breaker, 4)

    assert breaker.retry_in_s() == 5


def test_a_first_open_time_above_the_longest_is_cut_to_it(make: Make) -> None:
    breaker = make(open_s=60.0)

    fail(breaker, 4)

    assert breaker.retry_in_s() == 30


@pytest.mark.parametrize(("slow", "state"), [(1, CLOSED), (2, OPEN)])
def test_probes_that_are_as_slow_as_it_opens_for_open_it_again(
    make: Make, clock: FakeClock, slow: int, state: State
) -> None:
    breaker = make(slow_call_s=SLOW_S)  # and a slow_rate of 1
    fail(breaker, 4)
    clock.advance(5)

    succeed(breaker, slow, SLOW_S)
    succeed(breaker, 2 - slow)

    assert breaker.state is state


def test_each_round_of_probes_is_judged_on_its_own(make: Make, clock: FakeClock) -> None:
    breaker = make(slow_call_s=SLOW_S)
    fail(breaker, 4)
    clock.advance(5)
    succeed(breaker, 1, SLOW_S)
    fail(breaker)
    clock.advance(10)

    succeed(breaker, 1, SLOW_S)
    succeed(breaker)

    assert breaker.state is CLOSED


@pytest.mark.parametrize(("closed_s", "open_s"), [(9.75, 10.0), (10.0, 5.0)])
def test_the_open_time_is_the_first_again_once_it_was_closed_for_a_window(
    make: Make, clock: FakeClock, closed_s: float, open_s: float
) -> None:
    breaker = make()
    fail(breaker, 4)
    clock.advance(5)
    fail(breaker)
    clock.advance(10)
    succeed(breaker, 2)

    clock.advance(closed_s)
    fail(breaker, 4)

    assert breaker.retry_in_s() == open_s


def test_open_times_are_spread_by_a_tenth_to_either_side(clock: FakeClock) -> None:
    chance, waits = random.Random(7), []
    for _ in range(200):
        breaker = Breaker(CONFIG, clock, chance)
        fail(breaker, 4)
        waits.append(breaker.retry_in_s())

    assert 4.5 <= min(waits) < 4.6
    assert 5.4 < max(waits) <= 5.5


def test_a_call_that_began_before_it_opened_is_no_probe(make: Make, clock: FakeClock) -> None:
    breaker = make()
    old = [admitted(breaker) for _ in range(6)]
    fail(breaker, 4)
    old[0].succeeded(QUICK_S)
    old[1].failed(QUICK_S)
    assert breaker.retry_in_s() == 5
    clock.advance(5)
    admitted(breaker)

    old[2].succeeded(QUICK_S)
    old[3].succeeded(QUICK_S)
    old[4].failed(QUICK_S)
    old[5].dropped()

    assert breaker.state is HALF_OPEN
    admitted(breaker)
    assert breaker.admit() is None


def test_a_probe_that_ends_after_it_has_closed_does_not_count(make: Make, clock: FakeClock) -> None:
    breaker = make()
    fail(breaker, 4)
    clock.advance(5)
    admitted(breaker)
    late = admitted(breaker)
    clock.advance(5)
    succeed(breaker)  # in the place of a lost one
    clock.advance(5)
    succeed(breaker)
    assert breaker.state is CLOSED

    late.failed(QUICK_S)

    assert breaker.snapshot().calls == 0


@pytest.mark.parametrize("first", ["succeeded", "failed", "dropped"])
@pytest.mark.parametrize("second", ["succeeded", "failed", "dropped"])
def test_only_the_first_end_of_a_call_counts(make: Make, clock: FakeClock, first: str, second: str) -> None:
    def end(passed: Pass, how: str) -> None:
        if how == "dropped":
            passed.dropped()
        else:
            getattr(passed, how)(QUICK_S)

    def follow(breaker: Breaker, *, twice: bool) -> list[object]:
        seen: list[object] = []
        for _ in range(2):  # closed, and half open
            passed = admitted(breaker)
            end(passed, first)
            if twice:
                end(passed, second)
            seen.append(breaker.snapshot())
            while breaker.state is CLOSED:
                fail(breaker)
            clock.advance(5)
        return [*seen, [breaker.admit() is None for _ in range(4)]]

    assert follow(make(probes=3), twice=True) == follow(make(probes=3), twice=False)


def test_probes_that_never_end_do_not_keep_it_shut_for_good(make: Make, clock: FakeClock) -> None:
    breaker = make()
    fail(breaker, 4)
    clock.advance(5)
    admitted(breaker)
    clock.advance(1)
    admitted(breaker)
    assert (breaker.admit(), breaker.retry_in_s()) == (None, 5)

    clock.advance(5)
    succeed(breaker)
    assert (breaker.admit(), breaker.retry_in_s()) == (None, 5)
    clock.advance(5)
    succeed(breaker)

    assert breaker.state is CLOSED


def test_a_single_probe_has_its_time_too(make: Make, clock: FakeClock) -> None:
    breaker = make(probes=1)
    fail(breaker, 4)
    clock.advance(5)

    admitted(breaker)

    assert (breaker.admit(), breaker.retry_in_s()) == (None, 5)


# -- a state that several have in common -----------------------------------------------------------------------------


def test_breakers_on_one_state_are_one_breaker(clock: FakeClock) -> None:
    kept = MemoryBreakerState(CONFIG.window_s)
    here, there = (Breaker(CONFIG, clock, Even(), kept=kept) for _ in range(2))
    fail(here, 2)

    fail(there, 2)
    assert (here.state, here.admit()) == (OPEN, None)
    clock.advance(5)
    succeed(here)
    succeed(there)

    assert here.state is CLOSED


class Contested(MemoryBreakerState):
    """Somebody else is faster: once, just before a change."""

    first: Callable[[], object] | None = None

    def change(self, seen: Standing, by: Standing) -> bool:
        first, self.first = self.first, None
        if first is not None:
            first()
        return super().change(seen, by)


def test_what_another_changed_at_the_same_time_is_not_overwritten(clock: FakeClock) -> None:
    kept = Contested(CONFIG.window_s)
    here, there = (Breaker(CONFIG, clock, Even(), kept=kept) for _ in range(2))
    fail(here, 4)
    clock.advance(5)
    theirs: list[Pass] = []
    kept.first = lambda: theirs.append(admitted(there))
    assert here.admit() is None  # refused for once, rather than one probe too many

    probe = admitted(here)
    kept.first = theirs[0].dropped
    probe.succeeded(QUICK_S)

    succeed(here)  # in the place that was given back
    assert here.state is CLOSED


def test_only_one_of_two_that_open_it_at_once_does(clock: FakeClock) -> None:
    kept = Contested(CONFIG.window_s)
    told: list[str] = []
    here = Breaker(CONFIG, clock, Even(), kept=kept, on_change=lambda *_: told.append("here"))
    there = Breaker(CONFIG, clock, Even(), kept=kept, on_change=lambda *_: told.append("there"))
    fail(here, 3)
    kept.first = lambda: fail(there)

    fail(here)

    assert (told, here.snapshot().opened) == (["there"], 1)


# -- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("failure_rate", 0.0),
        ("failure_rate", 1.01),
        ("failure_rate", float("nan")),
        ("window_s", 0.0),
        ("window_s", 5e-324),  # no bucket has a length
        ("min_calls", 0),
        ("open_s", 0.0),
        ("max_open_s", 0.0),
        ("probes", 0),
        ("slow_call_s", 0.0),
        ("slow_rate", 0.0),
        ("consecutive_failures", -1),
    ],
)
def test_what_makes_no_sense_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        BreakerConfig(**{key: value})


# -- the members of a group ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_share", "members", "most"),
    [(0.5, 1, 1), (0.5, 2, 1), (0.5, 3, 1), (0.5, 4, 2), (0.1, 4, 1), (0.3, 10, 3), (0.29, 100, 29), (1.0, 7, 7)],
)
def test_at_most_a_share_of_a_group_is_shut_but_always_one_may_be(max_share: float, members: int, most: int) -> None:
    ejections = Ejections(max_share)

    may = [ejections.may_eject(open_now, members) for open_now in range(members)]

    assert may == [open_now < most for open_now in range(members)]


@pytest.mark.parametrize("max_share", [0.0, 1.5, float("nan")])
def test_a_share_is_above_0_and_at_most_1(max_share: float) -> None:
    with pytest.raises(ValueError, match="max_share"):
        Ejections(max_share)


# -- any history -----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _Call:
    """A call of the model: the state that it began in, by number, and its pass."""

    era: int
    passed: Pass


@attrs.define(eq=False)
class _Model:
    """The rules as one would say them, over lists of all that has happened."""

    config: BreakerConfig
    chance: random.Random
    state: State = CLOSED
    era: int = 0
    closed_s: float = 0.0
    until_s: float = 0.0
    open_s: float = 0.0
    opened: int = 0
    ended: list[tuple[float, bool, bool]] = attrs.field(factory=list)
    """Since it closed: when, whether it failed, whether it was slow."""
    probes: list[float] = attrs.field(factory=list)
    """When those passed that were not dropped."""
    results: list[bool] = attrs.field(factory=list)
    """Of probes that succeeded: whether they were slow."""
    last_probe_s: float = 0.0
    told: list[tuple[State, State]] = attrs.field(factory=list)

    def go(self, state: State, now: float) -> None:
        self.told.append((self.state, state))
        self.state, self.era = state, self.era + 1
        self.probes, self.results = [], []
        if state is CLOSED:
            self.closed_s = now
            self.ended = []

    def open(self, now: float, open_s: float) -> None:
        self.open_s = min(open_s, self.config.max_open_s)
        self.opened += 1
        self.until_s = now + self.open_s * self.chance.uniform(0.9, 1.1)
        self.go(OPEN, now)

    def wait_s(self, now: float) -> float:
        if self.state is OPEN:
            return max(0.0, self.until_s - now)
        if self.state is HALF_OPEN and len(self.probes) >= self.config.probes:
            return max(0.0, self.last_probe_s + min(self.config.open_s, self.config.max_open_s) - now)
        return 0.0

    def admits(self, now: float) -> bool:
        if self.wait_s(now) > 0:
            return False
        if self.state is OPEN:
            self.go(HALF_OPEN, now)
        if self.state is HALF_OPEN:
            self.probes.append(now)
            self.last_probe_s = now
        return True

    def window(self, now: float) -> list[tuple[float, bool, bool]]:
        """Ten buckets of a second, that of now among them."""
        return [call for call in self.ended if int(call[0]) > int(now) - 10]

    def in_a_row(self) -> int:
        failures = [failed for _, failed, _ in self.ended]
        return failures[::-1].index(False) if False in failures else len(failures)

    def end(self, era: int, now: float, *, failed: bool, seconds: float, may_open: bool) -> None:
        slow = self.config.slow_call_s is not None and seconds >= self.config.slow_call_s
        if era != self.era:
            return
        if self.state is CLOSED:
            self.ended.append((now, failed, slow))
            if (failed or slow) and self.too_bad(now) and may_open:
                soon = self.opened > 0 and now - self.closed_s < self.config.window_s
                self.open(now, self.open_s if soon else self.config.open_s)
        elif failed:
            self.open(now, 2 * self.open_s)
        else:
            self.results.append(slow)
            if len(self.results) == self.config.probes:
                if any(self.results) and self.results.count(True) / len(self.results) >= self.config.slow_rate:
                    self.open(now, 2 * self.open_s)
                else:
                    self.go(CLOSED, now)

    def too_bad(self, now: float) -> bool:
        calls, config = self.window(now), self.config
        failures = sum(failed for _, failed, _ in calls)
        slow = sum(slow for _, _, slow in calls)
        if config.consecutive_failures and self.in_a_row() >= config.consecutive_failures:
            return True
        if len(calls) < config.min_calls:
            return False
        too_slow = config.slow_call_s is not None and slow / len(calls) >= config.slow_rate
        return too_slow or failures / len(calls) >= config.failure_rate

    def drop(self, era: int) -> None:
        if era == self.era and self.state is HALF_OPEN:
            self.probes.pop()


configs = st.builds(
    BreakerConfig,
    failure_rate=st.sampled_from([0.3, 0.5, 1.0]),
    window_s=st.just(10.0),
    min_calls=st.integers(1, 5),
    open_s=st.sampled_from([1.0, 4.0, 16.0]),
    max_open_s=st.sampled_from([2.0, 12.0, 300.0]),
    probes=st.integers(1, 3),
    slow_call_s=st.sampled_from([None, SLOW_S]),
    slow_rate=st.sampled_from([0.5, 1.0]),
    consecutive_failures=st.sampled_from([0, 0, 1, 3]),
)


class AnyHistory(RuleBasedStateMachine):
    """A breaker beside its model: whatever is done in whatever order, they agree."""

    calls: Bundle[_Call] = Bundle("calls")
    over: Bundle[Pass] = Bundle("over")

    @initialize(config=configs, began_s=st.sampled_from([0.0, 1000.25]))
    def begin(self, config: BreakerConfig, began_s: float) -> None:
        self.clock = FakeClock(began_s)
        self.may_open = True
        self.told: list[tuple[State, State]] = []
        self.model = _Model(config, random.Random(1))
        self.breaker = Breaker(
            config,
            self.clock,
            random.Random(1),  # draws what the model's draws
            on_change=lambda old, new: self.told.append((old, new)),
            may_open=lambda: self.may_open,
        )

    @rule(target=calls)
    def call(self) -> _Call | MultipleResults[_Call]:
        passed = self.breaker.admit()

        assert (passed is not None) == self.model.admits(self.clock())
        return multiple() if passed is None else _Call(self.model.era, passed)

    @rule(target=over, call=consumes(calls), failed=st.booleans(), seconds=st.sampled_from([QUICK_S, SLOW_S]))
    def end(self, call: _Call, failed: bool, seconds: float) -> Pass:
        (call.passed.failed if failed else call.passed.succeeded)(seconds)

        self.model.end(call.era, self.clock(), failed=failed, seconds=seconds, may_open=self.may_open)
        return call.passed

    @rule(count=st.integers(1, 6), failed=st.booleans())
    def several(self, count: int, failed: bool) -> None:
        """Enough of the same to get somewhere."""
        for _ in range(count):
            passed = self.breaker.admit()
            assert (passed is not None) == self.model.admits(self.clock())
            if passed is not None:
                era = self.model.era
                (passed.failed if failed else passed.succeeded)(QUICK_S)
                self.model.end(era, self.clock(), failed=failed, seconds=QUICK_S, may_open=self.may_open)

    @rule(target=over, call=consumes(calls))
    def drop(self, call: _Call) -> Pass:
        call.passed.dropped()

        self.model.drop(call.era)
        return call.passed

    @rule(passed=over, how=st.sampled_from(["succeeded", "failed", "dropped"]))
    def end_again(self, passed: Pass, how: str) -> None:
        if how == "dropped":
            passed.dropped()
        else:
            getattr(passed, how)(QUICK_S)

    @rule(quarters=st.integers(1, 48))
    def wait(self, quarters: int) -> None:
        self.clock.advance(quarters / 4)

    @rule()
    def wait_until_one_may_pass(self) -> None:
        self.clock.advance(self.breaker.retry_in_s())

    @rule(may=st.booleans())
    def allow(self, may: bool) -> None:
        self.may_open = may

    @invariant()
    def they_agree(self) -> None:
        now, model = self.clock(), self.model
        window = model.window(now)
        shown = self.breaker.snapshot()

        assert shown.state is (HALF_OPEN if model.state is OPEN and now >= model.until_s else model.state)
        assert (shown.calls, shown.opened) == (len(window), model.opened)
        assert shown.failure_rate == sum(failed for _, failed, _ in window) / max(len(window), 1)
        assert shown.slow_rate == sum(slow for _, _, slow in window) / max(len(window), 1)
        assert shown.retry_in_s == model.wait_s(now)
        assert self.told == model.told


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=60)
