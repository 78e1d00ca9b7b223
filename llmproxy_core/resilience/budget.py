"""How many tries an LLM may see beyond its calls, so that retries do not multiply an outage."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

BUCKETS = 10


class RetryBudget:
    """
    The retries of one LLM, over all exchanges of this process.

    Guaranteed of every span of *window_s* seconds that ends with a retry: its retries are at most *ratio* times its
    calls, plus *floor*. (Of another span, those at its end may come from calls just before it.)

    Time is counted in tenths of the window. To keep that promise to the second, a retry is remembered for up to a tenth
    longer than the window, and a call for up to a tenth less: under an even load 18 % are granted where 20 % are
    configured. Its size is fixed, and so is the time that a call or a retry takes.
    """

    __slots__ = (
        "_begun",
        "_calls",
        "_calls_before",
        "_clock",
        "_ends_s",
        "_floor",
        "_per_s",
        "_ratio",
        "_retries",
        "_retries_before",
        "_tick",
    )

    def __init__(
        self, clock: Callable[[], float], *, ratio: float = 0.2, floor: float = 3, window_s: float = 10.0
    ) -> None:
        self._clock = clock
        self._ratio = ratio
        self._floor = floor
        self._per_s = BUCKETS / window_s
        self._tick = 0
        self._ends_s = -inf  # of the bucket of now, which is not known yet
        # Counters only grow; what they were when each of the last eleven buckets began is noted. The window is what
        # they have grown since.
        self._calls = self._calls_before = 0
        self._retries = self._retries_before = 0
        self._begun = [(0, 0)] * (BUCKETS + 1)

    def called(self, now: float | None = None) -> None:
        """A call has reached the LLM that is no retry. *now*: the time, from who has just looked at the clock."""
        if now is None:
            now = self._clock()
        if now >= self._ends_s:
            self._turn(now)
        self._calls += 1

    def take(self) -> bool:
        """Whether the LLM may be called once more; if so, that is counted."""
        if (now := self._clock()) >= self._ends_s:
            self._turn(now)
        calls, retries = self._calls - self._calls_before, self._retries - self._retries_before
        if retries + 1 > self._ratio * calls + self._floor:
            return False
        self._retries += 1
        return True

    def _turn(self, now: float) -> None:
        """Leave behind the buckets that have grown too old."""
        tick = int(now * self._per_s)
        size = BUCKETS + 1
        for begins in range(max(self._tick + 1, tick - BUCKETS), tick + 1):
            self._begun[begins % size] = (self._calls, self._retries)
        self._tick = tick
        self._ends_s = (tick + 1) / self._per_s
        # The last retry may stand anywhere in its bucket, so a window before it reaches into the eleventh.
        self._retries_before = self._begun[(tick - BUCKETS) % size][1]
        self._calls_before = self._begun[(tick - BUCKETS + 1) % size][0]
