"""Metrics as those who count see them: an object for each series, found once."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from llmproxy_core.errors import raise_unless_bug
from llmproxy_server.log_events import get_logger
from llmproxy_server.metrics.values import SCRATCH, Cells, Family, Values, labels_of

_log = get_logger()
_NAME = re.compile(r"llmproxy_[a-z0-9_]+", re.ASCII)
_LABEL = re.compile(r"(?!__)[a-z_][a-z0-9_]*", re.ASCII)
_RESERVED = frozenset({"le", "quantile"})
Read = Callable[[], float]


class Counter:
    __slots__ = ("_cells", "_index")

    def __init__(self, cells: Cells, index: int) -> None:
        self._cells = cells
        self._index = index

    def add(self, amount: float = 1.0) -> None:
        self._cells[self._index] += float(amount)  # a plugin's: what is none fails here, and not where it is read


class Gauge:
    __slots__ = ("_cells", "_index")

    def __init__(self, cells: Cells, index: int) -> None:
        self._cells = cells
        self._index = index

    def set(self, value: float) -> None:
        self._cells[self._index] = value


class Histogram:
    __slots__ = ("_buckets", "_cells", "_index", "_sum")

    def __init__(self, cells: Cells, index: int, buckets: tuple[float, ...]) -> None:
        self._cells = cells
        self._index = index
        self._buckets = buckets
        self._sum = index + len(buckets) + 1

    def record(self, value: float) -> None:
        cells = self._cells
        cells[self._index + bisect_left(self._buckets, value)] += 1
        cells[self._sum] += value


class Sampler:
    """What is not counted but looked at now and then: by whoever has to say it, and, for others to see, each second."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self.gauges: dict[int, Read] = {}
        """Those of the process itself, by cell."""
        self._counters: dict[int, tuple[Read, float]] = {}
        self._of_gateway: Mapping[int, Read] = {}
        self._failed: set[int] = set()

    def gauge(self, family: Family, read: Read, **labels: str) -> None:
        """What *read* gives, from now on."""
        self.gauges[self._values.place(family, labels_of(**labels))] = read

    def counter(self, family: Family, read: Read, **labels: str) -> None:
        """What *read*, which never falls, rises by from now on. It goes on where a predecessor stopped."""
        self._counters[self._values.place(family, labels_of(**labels))] = (read, 0.0)

    def follow(self, gauges: Mapping[int, Read]) -> None:
        """Look at the *gauges* of the gateway that serves now, and at its predecessor's no more."""
        for index in self._of_gateway.keys() - gauges.keys():
            self._values.cells[index] = 0.0
        self._of_gateway = gauges

    def sample(self) -> None:
        """Look at everything. In the event loop."""
        cells = self._values.cells
        for reads in (self.gauges, self._of_gateway):
            for index, read in reads.items():
                cells[index] = self._asked(index, read, cells[index])
        for index, (read, before) in self._counters.items():
            now = self._asked(index, read, before)
            if now > before:
                cells[index] += now - before
                self._counters[index] = (read, now)

    def _asked(self, index: int, read: Read, otherwise: float) -> float:
        try:
            return float(read())
        except BaseException as bug:  # noqa: BLE001 - a plugin's bug must not hide what all others have to say
            raise_unless_bug(bug)
            if index not in self._failed:
                self._failed.add(index)
                _log.exception("a gauge could not be read; it stays at what it was")
            return otherwise


class StoredMeter:
    """
    See Meter: what plugins of one gateway count. ValueError for names and labels that will not do.

    Its gauges are read once the gateway serves (`Sampler.follow`).
    """

    def __init__(self, values: Values, gauges: dict[int, Read] | None = None) -> None:
        """*gauges*: where its gauges are put, by cell."""
        self._values = values
        self.gauges: dict[int, Read] = {} if gauges is None else gauges

    def counter(self, name: str, doc: str, **labels: str) -> Counter:
        if not name.endswith("_total"):
            raise ValueError(f"expected the name of a counter to end with _total: {name!r}")
        return Counter(self._values.cells, self._place(Family(name, "counter", doc), labels))

    def histogram(self, name: str, doc: str, buckets: Sequence[float], **labels: str) -> Histogram:
        bounds = tuple(float(bound) for bound in buckets)
        if not bounds:
            raise ValueError(f"{name}: expected at least one bucket")
        index = self._place(Family(name, "histogram", doc, bounds), labels)
        return Histogram(self._values.cells, index, bounds)

    def gauge(self, name: str, doc: str, read: Read, **labels: str) -> None:
        if name.endswith("_total"):
            raise ValueError(f"the name of a gauge cannot end with _total: {name!r}")
        index = self._place(Family(name, "gauge", doc), labels)
        if index != SCRATCH:
            self.gauges[index] = read

    def _place(self, family: Family, labels: Mapping[str, str]) -> int:
        if not _NAME.fullmatch(family.name) or family.name.endswith(("_bucket", "_count", "_sum", "_created", "_info")):
            raise ValueError(f"expected a name such as llmproxy_plugin_things_total: {family.name!r}")
        if not family.doc.strip():
            raise ValueError(f"{family.name}: expected a text that says what it means")
        for label, value in labels.items():
            if not _LABEL.fullmatch(label) or label in _RESERVED:
                raise ValueError(f"{family.name}: not the name of a label: {label!r}")
            if not isinstance(value, str):
                raise ValueError(f"{family.name}: expected the label {label} to be text, got {type(value).__name__}")
        return self._values.place(family, labels_of(**labels))
