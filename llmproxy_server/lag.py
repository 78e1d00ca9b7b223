"""How late the event loop is: every call waits that long, each time it is its turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from llmproxy_core.gateway import Gateway
from llmproxy_core.meter import Meter, NoMeter
from llmproxy_server.culprit import Suspects
from llmproxy_server.health_reason import HOLD_S, Reason
from llmproxy_server.log_events import get_logger
from llmproxy_server.watchdog import LATE_S, SAY_S, Finding, Watchdog

PERIOD_S = 0.1
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds. The loop's own timers are right to a millisecond."""
RECENT_S = 10.0
"""What "recent" means of the worst lag: so long, or up to twice."""
_log = get_logger()


class Worst:
    """The largest value of the recent past, in two numbers."""

    __slots__ = ("_before", "_since_s", "_worst")

    def __init__(self) -> None:
        self._worst = self._before = 0.0
        self._since_s = float("-inf")

    def add(self, value: float, now: float) -> None:
        if now - self._since_s >= RECENT_S:
            stale = now - self._since_s >= 2 * RECENT_S
            self._before, self._worst, self._since_s = 0.0 if stale else self._worst, 0.0, now
        self._worst = max(self._worst, value)

    @property
    def value(self) -> float:
        return max(self._worst, self._before)


class Lag:
    """
    Measures the lag of the running loop, ten times a second, from `start` to `stop`.

    Above LATE_S it is logged and told to `/health`, with the name of who blocks where the watchdog has seen it.
    """

    def __init__(
        self, gateway: Callable[[], Gateway], meter: Meter | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """*gateway* gives the one that is served from, for the names of what runs in it."""
        meter = NoMeter() if meter is None else meter
        self.watchdog = Watchdog(Suspects(gateway).culprit, period_s=PERIOD_S, clock=clock)
        self._clock = clock
        self._histogram = meter.histogram(
            "llmproxy_event_loop_lag_seconds", "How much later than it was due the event loop ran a timer.", BUCKETS
        )
        self._blocks = meter.counter(
            "llmproxy_event_loop_blocks_total", f"How often the event loop was held up for {LATE_S} s or more."
        )
        self._worst = Worst()
        meter.gauge(
            "llmproxy_event_loop_lag_worst_seconds",
            "The longest lag of the event loop in the last ten to twenty seconds, added up over the workers.",
            lambda: self._worst.value,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turned_s = self._due_s = clock()
        self._last: tuple[float, float, Finding | None] | None = None  # of the last block: its end, length, and who
        self._said_s = float("-inf")
        self._unsaid = 0

    def start(self) -> None:
        """Measure the running loop, and have it watched."""
        self._loop = asyncio.get_running_loop()
        self._turned_s = self._clock()
        self.watchdog.start(self._turned_s)
        self._arm(self._turned_s)

    def stop(self) -> None:
        """May be called again."""
        if self._timer is not None:
            self._timer.cancel()
        self.watchdog.stop()

    def _arm(self, now: float) -> None:
        assert self._loop is not None
        self._due_s = now + PERIOD_S
        self._timer = self._loop.call_later(PERIOD_S, self._tick)

    def _tick(self) -> None:
        now, before_s = self._clock(), self._turned_s
        late_s = max(now - self._due_s, 0.0)
        self._turned_s = now
        self.watchdog.beat(now)
        self._histogram.record(late_s)
        self._worst.add(late_s, now)
        if late_s >= LATE_S:
            self._blocked(now, late_s, before_s)
        self._arm(now)

    def _blocked(self, now: float, late_s: float, before_s: float) -> None:
        """It was held up for as long as it is late, or a little longer: between two beats it is not known when."""
        self._blocks.add()
        finding = self.watchdog.finding
        if finding is not None and finding.turned_s != before_s:
            finding = None
        self._last = now, late_s, finding
        if now - self._said_s < SAY_S:
            self._unsaid += 1
            return
        fields: dict[str, object] = {"for_s": round(late_s, 3)}
        if finding is not None:
            fields = {"by": finding.culprit.who, "at": finding.culprit.place, **fields}
        if self._unsaid:
            fields["more_since_the_last_line"] = self._unsaid
        self._said_s, self._unsaid = now, 0
        _log.warning("the event loop was blocked", **fields)

    def reasons(self) -> Iterator[Reason]:
        """For `/health`: the last block, for a minute."""
        if self._last is None:
            return
        at_s, late_s, finding = self._last
        if (age_s := self._clock() - at_s) < HOLD_S:
            by = "" if finding is None or finding.culprit.place is None else f" by {finding.culprit.who}"
            yield Reason("event_loop", "event_loop_blocked", f"it was blocked for {late_s:.1f} s{by}", age_s)
