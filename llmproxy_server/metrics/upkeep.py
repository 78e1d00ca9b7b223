"""Reloads and workers, as whoever does them counts them: the one process, or the parent of the workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from llmproxy_server.metrics.meter import Counter, Gauge
from llmproxy_server.metrics.values import Family, Values, labels_of

_RELOADS = Family("llmproxy_reloads_total", "counter", "Reloads of the configuration, by what became of them.")
_RELOAD_OK = Family("llmproxy_last_reload_ok", "gauge", "1: the last reload was well, or there was none; 0: it failed.")
_RELOAD_AT = Family(
    "llmproxy_last_reload_success_timestamp_seconds",
    "latest",
    "When the configuration was last read and found well, since the epoch.",
)
_WORKERS = Family("llmproxy_workers", "gauge", "Processes that serve.")
_RESTARTS = Family("llmproxy_worker_restarts_total", "counter", "Workers that died and were replaced.")

Result = Literal["ok", "unchanged", "failed"]


class Upkeep:
    """Of whoever reads the configuration and starts the processes that serve. To be made once the first one serves."""

    def __init__(self, values: Values, now: Callable[[], float] = time.time) -> None:
        cells = values.cells
        results: tuple[Result, ...] = ("ok", "unchanged", "failed")
        self._reloads = {it: Counter(cells, values.place(_RELOADS, labels_of(result=it))) for it in results}
        self._ok = Gauge(cells, values.place(_RELOAD_OK))
        self._at = Gauge(cells, values.place(_RELOAD_AT))
        self._alive = Gauge(cells, values.place(_WORKERS))
        self._restarts = Counter(cells, values.place(_RESTARTS))
        self._now = now
        self._ok.set(1)
        self._at.set(now())

    def reloaded(self, result: Result) -> None:
        """A reload is over."""
        self._reloads[result].add()
        well = result != "failed"
        self._ok.set(1 if well else 0)
        if well:
            self._at.set(self._now())

    def alive(self, count: int) -> None:
        """How many workers serve now."""
        self._alive.set(count)

    def restarted(self) -> None:
        """A worker had died, and another has taken its place."""
        self._restarts.add()
