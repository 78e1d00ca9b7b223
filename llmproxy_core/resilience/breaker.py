"""
A circuit breaker: whether an LLM is asked at all.

    state      calls                        over when                                        then
    CLOSED     all pass, and are counted    one failed or was slow, as did too many of the   OPEN
                                            window, or too many in a row; and it may open
    OPEN       none passes                  its time is over, and a call comes               HALF_OPEN
    HALF_OPEN  `probes` of them pass        one of them fails, or too many were slow         OPEN, for twice as long
                                            `probes` of them have succeeded                  CLOSED

A call counts in the state that it began in, or not at all: what began before it opened is no probe, and what was a
probe does not count in the window that begins when it closes. There are no timers: what time changes is seen by the
next call.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from math import inf

import attrs

from llmproxy_core.node import record
from llmproxy_core.option import Check, between, count, option, some_seconds
from llmproxy_core.resilience.breaker_state import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    BreakerState,
    MemoryBreakerState,
    Standing,
    State,
    Sums,
)

_SPREAD = 0.1  # of open times: breakers that opened together do not probe together

share = Check("a number above 0, at most 1", lambda value: 0 < value <= 1, {"exclusiveMinimum": 0, "maximum": 1})
some = between(1, 1_000_000_000, "a count")


@attrs.frozen(kw_only=True)
class BreakerConfig:
    """
    When an LLM that fails is left alone, and for how long.

    Only what is the upstream's own doing counts as a failure: 5xx, time-outs, lost connections. Refusals of a request
    (4xx), clients that leave, and calls that their own deadline ends count neither for it nor against it; of the last
    those do that were slow by then.
    """

    failure_rate: float = option(
        "It opens when this share of the calls in the window failed.", default=0.5, validator=share
    )
    window_s: float = option(
        "Seconds for which a call counts, or up to a tenth less.",
        default=30.0,
        validator=between(0.01, 86_400, "a number of seconds"),
    )
    min_calls: int = option("Calls in the window below which no share of them opens it.", default=20, validator=some)
    open_s: float = option(
        "Seconds for which it stays open at first, give or take a tenth; twice as long each time its probes fail.",
        default=5.0,
        validator=some_seconds,
    )
    max_open_s: float = option(
        "Longest time for which it stays open, in seconds, give or take a tenth; also where `open_s` is longer.",
        default=300.0,
        validator=some_seconds,
    )
    probes: int = option(
        "Calls that are let through after that time, and must all succeed before the others are.",
        default=3,
        validator=some,
    )
    slow_call_s: float | None = option(
        "A call is slow that takes as many seconds to fail, or to be answered: a plain answer whole, a stream up to "
        "its first token. How long a stream goes on does not matter. Without it none is slow.",
        default=None,
        example=30.0,
        validator=some_seconds,
    )
    slow_rate: float = option(
        "It opens when this share of the calls in the window, or of the probes, was slow.", default=1.0, validator=share
    )
    consecutive_failures: int = option(
        "It opens when so many calls in a row failed, however few there were; 0: only the shares count.",
        default=0,
        validator=count,
    )


@attrs.frozen(kw_only=True)
class Snapshot:
    """How a breaker is, for people and metrics. Rates are shares of the *calls* in the window; 0 when there is none."""

    state: State
    calls: int
    failure_rate: float
    slow_rate: float
    opened: int
    """How often it has opened."""
    retry_in_s: float
    """Seconds until a call may pass; 0: now."""


@record(eq=False, repr=False)
class Pass:
    """
    Leave to make one call. Whoever has it ends it once; whatever comes after the first end has no effect.

    *seconds*: how long the call took, as far as the breaker is to judge it. Made per call.
    """

    _breaker: Breaker
    _era: int

    def succeeded(self, seconds: float) -> None:
        """The LLM did its part."""
        era, breaker = self._era, self._breaker
        self._era = _ENDED
        seen = breaker._kept.standing
        if era == seen.era and seen.state is CLOSED and seconds < breaker._slow_s:
            breaker._kept.count(breaker._clock(), False, False)  # which opens nothing, and costs no more
        else:
            breaker._ended(era, False, seconds)

    def failed(self, seconds: float) -> None:
        """The LLM failed, by its own fault."""
        era, self._era = self._era, _ENDED
        self._breaker._ended(era, True, seconds)

    def cut_short(self, seconds: float) -> None:
        """Nobody waited for its end any more: it counts only if it was slow by then."""
        era, self._era = self._era, _ENDED
        self._breaker._cut_short(era, seconds)

    def dropped(self) -> None:
        """The call says nothing of the LLM's health: the client left, or its request was refused."""
        era, self._era = self._era, _ENDED
        self._breaker._dropped(era)


_ENDED = -1  # no era


def _always() -> bool:
    return True


class Breaker:
    """
    The circuit breaker of an LLM, or of one of its keys. It belongs to one event loop, and nothing in it waits.

    A probe that never ends does not keep the others out for good: when all places are taken, one more call passes each
    time that `open_s` has gone by since the last.
    """

    __slots__ = ("_chance", "_clock", "_config", "_first_open_s", "_kept", "_slow_s", "may_open", "on_change")

    def __init__(
        self,
        config: BreakerConfig,
        clock: Callable[[], float],
        chance: random.Random,
        *,
        kept: BreakerState | None = None,
        on_change: Callable[[State, State], None] | None = None,
        may_open: Callable[[], bool] = _always,
    ) -> None:
        """
        *kept* is where its state is kept, with *config*'s window; in memory where none is given.

        *on_change* is told of each change of state that this breaker makes, the old one and the new one, after it.
        *may_open* is asked before it goes from CLOSED to OPEN: when it may not, it stays closed, and asks again with
        the next failure. From HALF_OPEN it opens again unasked: who counts open ones counts half open ones, too.
        Both may be replaced at any time.
        """
        self._config = config
        self._clock = clock
        self._chance = chance
        self._kept: BreakerState = MemoryBreakerState(config.window_s) if kept is None else kept
        self._slow_s = inf if config.slow_call_s is None else config.slow_call_s
        self._first_open_s = min(config.open_s, config.max_open_s)
        self.on_change = on_change
        self.may_open = may_open

    @property
    def state(self) -> State:
        """OPEN reads as HALF_OPEN once its time is over; the change itself comes, and is told, with the next call."""
        standing = self._kept.standing
        if standing.state is OPEN and self._clock() >= standing.until_s:
            return HALF_OPEN
        return standing.state

    def retry_in_s(self) -> float:
        """Seconds until a call may pass, at most; 0: one would pass now."""
        return self._wait_s(self._kept.standing, self._clock())

    def snapshot(self) -> Snapshot:
        """How it is now."""
        sums = self._kept.sums(self._clock())
        calls = max(sums.calls, 1)
        return Snapshot(
            state=self.state,
            calls=sums.calls,
            failure_rate=sums.failures / calls,
            slow_rate=sums.slow / calls,
            opened=self._kept.standing.opened,
            retry_in_s=self.retry_in_s(),
        )

    # -- calls -------------------------------------------------------------------------------------------------------

    def admit(self) -> Pass | None:
        """Leave to make a call, which must be ended; None: make none, but for the time of `retry_in_s`."""
        standing = self._kept.standing
        if standing.state is CLOSED:
            return Pass(self, standing.era)
        return self._probe(standing)

    def _wait_s(self, seen: Standing, now: float) -> float:
        if seen.state is OPEN:
            return max(0.0, seen.until_s - now)
        if seen.state is HALF_OPEN and seen.probes >= self._config.probes:
            return max(0.0, seen.probed_s + self._first_open_s - now)
        return 0.0

    def _probe(self, seen: Standing) -> Pass | None:
        now = self._clock()
        if self._wait_s(seen, now) > 0:
            return None
        if seen.state is OPEN:
            by = attrs.evolve(seen, state=HALF_OPEN, era=seen.era + 1, probes=1, probed_s=now, succeeded=0, slow=0)
        else:
            by = attrs.evolve(seen, probes=seen.probes + 1, probed_s=now)
        return Pass(self, by.era) if self._change(seen, by) else None

    def _ended(self, era: int, failed: bool, seconds: float) -> None:
        seen = self._kept.standing
        if era != seen.era:
            return
        slow = seconds >= self._slow_s
        if seen.state is CLOSED:
            now = self._clock()
            self._kept.count(now, failed, slow)
            if self._is_too_bad(self._kept.sums(now)) and self.may_open():
                self._change(seen, self._opened(seen, now))
        else:
            self._step(era, partial(self._after_probe, failed, slow))

    def _cut_short(self, era: int, seconds: float) -> None:
        if seconds >= self._slow_s:
            self._ended(era, False, seconds)
        else:
            self._dropped(era)

    def _dropped(self, era: int) -> None:
        if self._kept.standing.state is HALF_OPEN:
            self._step(era, lambda seen: attrs.evolve(seen, probes=seen.probes - 1))

    # -- what follows from them --------------------------------------------------------------------------------------

    def _is_too_bad(self, sums: Sums) -> bool:
        config = self._config
        if 0 < config.consecutive_failures <= sums.in_a_row:
            return True
        if sums.calls < config.min_calls:
            return False
        # Slow calls are counted only where they are configured.
        slow = sums.slow > 0 and sums.slow / sums.calls >= config.slow_rate
        return slow or sums.failures / sums.calls >= config.failure_rate

    def _after_probe(self, failed: bool, slow: bool, seen: Standing) -> Standing:
        now, probes = self._clock(), self._config.probes
        succeeded, slow_ones = seen.succeeded + 1, seen.slow + slow
        # 1. One failure is enough: it has just failed for some time.
        if failed:
            return self._opened(seen, now)
        # 2. The others are still to come.
        if succeeded < probes:
            return attrs.evolve(seen, succeeded=succeeded, slow=slow_ones)
        # 3. All have succeeded, but as slowly as those for which it opens.
        if slow_ones and slow_ones / succeeded >= self._config.slow_rate:
            return self._opened(seen, now)
        # 4. All is well.
        return attrs.evolve(seen, state=CLOSED, era=seen.era + 1, closed_s=now)

    def _opened(self, seen: Standing, now: float) -> Standing:
        open_s = self._open_s(seen, now)
        until_s = now + open_s * self._chance.uniform(1 - _SPREAD, 1 + _SPREAD)
        return attrs.evolve(
            seen,
            state=OPEN,
            era=seen.era + 1,
            until_s=until_s,
            open_s=open_s,
            opened=seen.opened + 1,
        )

    def _open_s(self, seen: Standing, now: float) -> float:
        """How long it will be open, before the spread."""
        if seen.state is HALF_OPEN:
            return min(2 * seen.open_s, self._config.max_open_s)
        if not seen.opened or now - seen.closed_s >= self._config.window_s:
            return self._first_open_s
        return seen.open_s

    def _step(self, era: int, step: Callable[[Standing], Standing]) -> None:
        """Go on by *step* while it is *era*, also when somebody who shares the state is faster."""
        seen = self._kept.standing
        while seen.era == era and not self._change(seen, step(seen)):
            seen = self._kept.standing

    def _change(self, seen: Standing, by: Standing) -> bool:
        if not self._kept.change(seen, by):
            return False
        if by.era != seen.era and self.on_change is not None:
            self.on_change(seen.state, by.state)
        return True


@attrs.frozen
class Ejections:
    """How many members of a group may be shut at once, so that those that are left are not overrun."""

    max_share: float = attrs.field(default=0.5, validator=[attrs.validators.gt(0), attrs.validators.le(1)])
    """Of its members; one may always be."""

    def may_eject(self, open_now: int, members: int) -> bool:
        """Whether one more of *members* may be shut, where *open_now* others are: open ones, and half open ones."""
        return open_now < 1 or (open_now + 1) / members <= self.max_share
