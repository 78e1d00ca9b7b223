"""What a circuit breaker remembers: where it stands, and the calls of its window."""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import NamedTuple, Protocol

import attrs

BUCKETS = 10
"""Parts of the window; a call counts for nine of them at least, and for all ten at most."""


class State(Enum):
    """Which calls pass; the table in `breaker` says when it changes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


# Looked up as globals, since each call asks for them.
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN


@attrs.frozen(kw_only=True)
class Standing:
    """Where a breaker stands: replaced as a whole, never changed. Times are seconds of the breaker's clock."""

    state: State = CLOSED
    era: int = 0
    """Changes of state so far. A call belongs to the era it began in."""
    closed_s: float = 0.0
    """When it closed the last time."""
    open_s: float = 0.0
    """How long it was open the last time, before the spread; 0: never."""
    until_s: float = 0.0
    """While OPEN: when the first probe may pass."""
    opened: int = 0
    """How often it has opened."""
    probes: int = 0
    """While HALF_OPEN: places of probes that are taken; successes keep theirs."""
    probed_s: float = 0.0
    """When the last probe passed."""
    succeeded: int = 0
    slow: int = 0
    """Of the probes that succeeded, those that were slow."""


class Sums(NamedTuple):
    """The calls of the window that have ended; *in_a_row*: failures since the last success, of any age."""

    calls: int
    failures: int
    slow: int
    in_a_row: int


class BreakerState(Protocol):
    """
    All that a breaker remembers; several processes that share it have one breaker in common.

    No method waits, since each call of an LLM asks: a state that is shared over a network answers from a copy, and
    sends on what it is told. What it learns late costs some more calls of an LLM that fails, and nothing else. The
    clocks of all who share it must agree.
    """

    @property
    def standing(self) -> Standing: ...

    def change(self, seen: Standing, by: Standing) -> bool:
        """
        Put *by* in the place of *seen*; False, and nothing is changed, when that is no longer what stands there.

        When the breaker closes, the counts begin anew.
        """
        ...

    def count(self, now: float, failed: bool, slow: bool) -> None:
        """Count a call that has ended."""
        ...

    def sums(self, now: float) -> Sums: ...


class MemoryBreakerState:
    """The state of one process's breaker. Its size is fixed, and so is the time that it takes to count a call."""

    __slots__ = (
        "_base",
        "_begun",
        "_calls",
        "_ends_s",
        "_failures",
        "_in_a_row",
        "_per_s",
        "_slow",
        "_tick",
        "standing",
    )

    def __init__(self, window_s: float) -> None:
        self.standing = Standing()
        self._per_s = BUCKETS / window_s
        self._tick = 0
        self._ends_s = -inf  # of the bucket of now, which is not known yet
        self._calls = self._failures = self._slow = self._in_a_row = 0
        self._forget()

    def _forget(self) -> None:
        self._in_a_row = 0
        # Counters only grow. What they were when each bucket began is noted, so that nothing is taken off them again:
        # the window is what they have grown since its oldest bucket began.
        self._base = (self._calls, self._failures, self._slow)
        self._begun = [self._base] * BUCKETS

    def change(self, seen: Standing, by: Standing) -> bool:
        if seen is not self.standing:
            return False
        self.standing = by
        if by.state is CLOSED and by.era != seen.era:
            self._forget()
        return True

    def count(self, now: float, failed: bool, slow: bool) -> None:
        if now >= self._ends_s:
            self._turn(now)
        self._calls += 1
        if failed:
            self._failures += 1
            self._in_a_row += 1
        else:
            self._in_a_row = 0
        if slow:
            self._slow += 1

    def sums(self, now: float) -> Sums:
        if now >= self._ends_s:
            self._turn(now)
        calls, failures, slow = self._base
        return Sums(self._calls - calls, self._failures - failures, self._slow - slow, self._in_a_row)

    def _turn(self, now: float) -> None:
        """Leave behind the buckets that have grown too old."""
        tick = int(now * self._per_s)
        counted = (self._calls, self._failures, self._slow)
        for begins in range(max(self._tick + 1, tick - BUCKETS + 1), tick + 1):
            self._begun[begins % BUCKETS] = counted
        self._tick = tick
        self._ends_s = (tick + 1) / self._per_s
        self._base = self._begun[(tick + 1) % BUCKETS]
