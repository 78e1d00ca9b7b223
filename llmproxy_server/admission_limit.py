"""How many calls a process can serve at once, learned from how late its event loop is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf, sqrt

PERIOD_S = 0.1
"""Between two looks at the loop."""
LOOKS = 5
"""That make one decision. A single block, by a plugin or a collection, makes the loop late at one or two of them."""
LATE_S = 0.025
"""How late the loop may be at its best moment. Each piece of each stream waits that long, each time it is its turn."""
FLOOR = 10
"""Calls that are served at once however late the loop is."""
_DECREASE = 0.9
STEPS = 3
"""Down, after which the loop must be less late than before them."""
HELPS = 0.9
"""As late as that at most, compared with then. What the calls inside cost falls with them, to 0.73 in three steps."""
HOLD = 20
"""Decisions for which nothing is lowered after steps that did not help."""


class AdaptiveLimit:
    """
    A bound on calls in flight that follows the loop's lag: additive increase, multiplicative decrease.

    The latency of calls, which such limiters mostly follow, tells nothing here: it is the upstream's. What a process
    of its own has too little of is time in its loop. The least lag of several looks counts, as in CoDel (RFC 8289,
    section 3.2: the minimum over an interval tells a queue that stands from one that a burst made). It falls by a tenth
    and rises by its square root, as in Netflix's concurrency-limits (AIMDLimit, GradientLimit).

    What makes the loop late need not be inside: callers who are refused and come again at once do, and the fewer are
    let in the more of those there are. So steps down that do not help are taken back.
    """

    __slots__ = ("_before", "_held", "_least_late_s", "_looks", "_most", "_most_in_flight", "_steps", "limit")

    def __init__(self, most: float) -> None:
        """*most*: what it never passes; inf for no bound."""
        self.limit = self._most = most
        """At most so many may be in flight; a whole number, or inf."""
        self._steps = self._held = 0
        self._before = (self.limit, inf)
        """The limit before these steps, and how late the loop was."""
        self._begin_again()

    def _begin_again(self) -> None:
        self._looks = self._most_in_flight = 0
        self._least_late_s = inf

    def bound(self, most: float) -> None:
        """*most* from now on. What was learned stays, within it; where nothing was, the limit is *most*."""
        learned = self.limit < self._most
        self._most = most
        self.limit = min(self.limit, most) if learned else most

    def look(self, late_s: float, in_flight: int) -> None:
        """The loop was *late_s* late, with so many calls in flight. To be called each PERIOD_S."""
        self._looks += 1
        self._least_late_s = min(self._least_late_s, late_s)
        self._most_in_flight = max(self._most_in_flight, in_flight)
        if self._looks >= LOOKS:
            self._decide(in_flight)
            self._begin_again()

    def _decide(self, in_flight: int) -> None:
        if self._least_late_s > LATE_S:
            # With more in flight than that nobody is let in already, and it is not known yet whether it is enough.
            if self._held:
                self._held -= 1
            elif in_flight <= self.limit:
                self._lower(in_flight)
            return
        self._steps = self._held = 0
        if self._most_in_flight * 2 >= self.limit:  # else it is not known whether the process can serve more
            self.limit = min(self._most, self.limit + int(sqrt(self.limit)))

    def _lower(self, in_flight: int) -> None:
        limit, late_s = self._before
        if self._steps == STEPS:
            self._steps = 0
            if self._least_late_s > late_s * HELPS:
                self.limit, self._held = min(limit, self._most), HOLD
                return
        if not self._steps:
            self._before = (self.limit, self._least_late_s)
        self._steps += 1
        self.limit = min(self.limit, max(float(FLOOR), float(int(in_flight * _DECREASE))))


class Looks:
    """Tells, each PERIOD_S from `start` to `stop`, how late the running loop is, in seconds of *clock*."""

    __slots__ = ("_clock", "_due_s", "_tell", "_timer")

    def __init__(self, tell: Callable[[float], None], clock: Callable[[], float]) -> None:
        self._tell = tell
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    def start(self) -> None:
        """May be called again."""
        if self._timer is None:
            self._arm()

    def stop(self) -> None:
        """May be called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._due_s = self._clock() + PERIOD_S
        self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._look)

    def _look(self) -> None:
        self._tell(max(self._clock() - self._due_s, 0.0))
        if self._timer is not None:
            self._arm()
