"""Metrics of plugins: what they count is exported with the proxy's own, summed over its workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class CounterMetric(Protocol):
    """Counts up. Cheap enough for every call."""

    def add(self, amount: float = 1.0) -> None: ...


class HistogramMetric(Protocol):
    """Counts values by their size."""

    def record(self, value: float) -> None: ...


class Meter(Protocol):
    """
    Makes metrics. Ask for them when a processor or LLM is built, and keep them: not per call.

    A *name* begins with `llmproxy_`, a counter's ends with `_total`; units are in it (`_seconds`, `_bytes`). The same
    name and *labels* give the same metric, also after a reload. Label values must be known at load: what callers choose
    (models, tenants) would make a series each.
    """

    def counter(self, name: str, doc: str, **labels: str) -> CounterMetric: ...

    def histogram(self, name: str, doc: str, buckets: Sequence[float], **labels: str) -> HistogramMetric:
        """*buckets* are upper bounds, in rising order; one for all that is larger is added."""
        ...

    def gauge(self, name: str, doc: str, read: Callable[[], float], **labels: str) -> None:
        """*read* gives the value; it is asked now and then in the event loop. A later one takes its place."""
        ...


class _Nothing:
    def add(self, amount: float = 1.0) -> None:
        """Nobody counts."""

    def record(self, value: float) -> None:
        """Nobody looks."""


_NOTHING = _Nothing()


class NoMeter:
    """Counts nothing: for tests, and for gateways that are only looked at."""

    def counter(self, name: str, doc: str, **labels: str) -> CounterMetric:
        return _NOTHING

    def histogram(self, name: str, doc: str, buckets: Sequence[float], **labels: str) -> HistogramMetric:
        return _NOTHING

    def gauge(self, name: str, doc: str, read: Callable[[], float], **labels: str) -> None:
        """Nobody asks."""
