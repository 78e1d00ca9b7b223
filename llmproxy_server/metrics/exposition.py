"""
The text that Prometheus reads. No other module imports prometheus-client, and this one does so when it is first asked.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from llmproxy_server.metrics.availability import available_llms, available_models
from llmproxy_server.metrics.families import AVAILABLE, LLM_AVAILABLE
from llmproxy_server.metrics.snapshot import Snapshot, Total
from llmproxy_server.metrics.values import Family, labels_of

if TYPE_CHECKING:
    from prometheus_client import Metric

_SERIES = Family("llmproxy_metric_series", "gauge", "Series that are kept.")
_CAPACITY = Family("llmproxy_metric_capacity_ratio", "gauge", "The part of the room for series that is taken here.")
_BUILD = Family("llmproxy_build_info", "gauge", "1; the labels say what runs.")
_TYPES = {"counter": "counter", "gauge": "gauge", "latest": "gauge", "histogram": "histogram"}
_OPEN_METRICS = "application/openmetrics-text"


def wants_text(accept: str) -> bool:
    """Whether who sent that `Accept` header asks for a text of Prometheus's rather than for JSON."""
    ranges = {each.partition(";")[0].strip().lower() for each in accept.split(",")}
    return bool(ranges & {"text/plain", _OPEN_METRICS}) and "application/json" not in ranges


def text(snapshot: Snapshot, *, accept: str, version: str, used: float) -> tuple[bytes, str]:
    """
    All metrics, and their content type: OpenMetrics 1.0 for who accepts that, else the text format 0.0.4.

    *used* is the part of the room for series that is taken.
    """
    encode, content_type = _encoder(_OPEN_METRICS in accept.lower())
    return encode(_Collector(snapshot, version, used)), content_type


def _encoder(open_metrics: bool) -> tuple[Callable[[_Collector], bytes], str]:
    from prometheus_client.exposition import choose_encoder

    # Not what the client wrote: the package takes its words into our header, and fails on a version that is none.
    encode, content_type = choose_encoder(f"{_OPEN_METRICS}; version=1.0.0" if open_metrics else "text/plain")
    return encode, content_type


class _Collector:
    """What the package's encoders take for a registry."""

    def __init__(self, snapshot: Snapshot, version: str, used: float) -> None:
        self._snapshot = snapshot
        self._version = version
        self._used = used

    def collect(self) -> Iterator[Metric]:
        shown = {name: total for name, total in self._snapshot.totals.items() if not name.startswith("_")}
        computed = [
            Total(AVAILABLE, {labels_of(model=it): [float(up)] for it, up in available_models(self._snapshot)}),
            Total(LLM_AVAILABLE, {labels_of(llm=it): [float(up)] for it, up in available_llms(self._snapshot)}),
            Total(_SERIES, {(): [float(sum(len(it.cells) for it in shown.values()))]}),
            Total(_CAPACITY, {(): [self._used]}),
            Total(_BUILD, {labels_of(version=self._version, python=platform.python_version()): [1.0]}),
        ]
        shown.update((it.family.name, it) for it in computed)
        for name in sorted(shown):
            yield _metric(shown[name])


def _metric(total: Total) -> Metric:
    from prometheus_client import Metric
    from prometheus_client.utils import floatToGoString

    family = total.family
    name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
    metric = Metric(name, family.doc, _TYPES[family.kind])
    bounds = [*map(floatToGoString, family.buckets), "+Inf"]
    for labels, cells in sorted(total.cells.items()):
        if family.kind != "histogram":
            metric.add_sample(family.name, dict(labels), cells[0])
            continue
        counts = list(itertools.accumulate(cells[:-1]))
        for bound, count in zip(bounds, counts, strict=True):
            metric.add_sample(f"{name}_bucket", {**dict(labels), "le": bound}, count)
        metric.add_sample(f"{name}_count", dict(labels), counts[-1])
        metric.add_sample(f"{name}_sum", dict(labels), cells[-1])
    return metric
