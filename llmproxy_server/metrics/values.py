"""
The numbers of one process: a flat array of doubles, and what each of them stands for.

Whoever counts asks once where a series lies, and then adds to its cells: nothing is looked up per call. The array is
a list, to which is added at a fifth of the cost, or a mapped file that other processes read (`slot`). One process
writes it, in one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, TypeAlias

import attrs

from llmproxy_server.log_events import get_logger

_log = get_logger()

Kind = Literal["counter", "gauge", "latest", "histogram"]
"""`gauge`: of several processes the sum counts; `latest`: the largest, as for moments in time."""
Labels = tuple[tuple[str, str], ...]
"""Sorted by name."""
Cells: TypeAlias = "memoryview[float] | list[float]"

CELLS = 1 << 17
"""One MiB. About 50 are needed for each model that is asked for, and 40 for each way in which an LLM answers."""
MOST_BUCKETS = 62
RESERVE = 1 << 12
"""Cells that are left for what is small and must not be missed: statuses, kinds of errors."""
SCRATCH = 0
"""Where is added to what there was no room for."""
_SCRATCH_WIDTH = MOST_BUCKETS + 2


@attrs.frozen
class Family:
    """
    A metric. A histogram has a cell for each of its *buckets* (upper bounds, rising), one for all that is larger, and
    one for the sum of its values; everything else has one cell.
    """

    name: str
    kind: Kind
    doc: str
    buckets: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


DROPPED = Family(
    "llmproxy_metric_series_dropped_total", "counter", "Series that were asked for when there was no room for more."
)


@attrs.frozen
class Series:
    """A family with labels, and its first cell."""

    family: Family
    labels: Labels
    index: int

    @property
    def end(self) -> int:
        return self.index + self.family.width


class SeriesLog(Protocol):
    """Where new series are written down for other processes, before anything is added to their cells."""

    def append(self, series: Series) -> None:
        """OSError: it is not written, nor a part of it."""
        ...


class Values:
    """The series of one process. To be added to, and asked for series, by one thread; others may read."""

    def __init__(
        self, cells: Cells, known: Iterable[Series] = (), log: SeriesLog | None = None, *, most: int | None = None
    ) -> None:
        """*known*: the series that are there already. *most*: how far *cells* may grow, where they can."""
        self.cells = cells
        self.most = len(cells) if most is None else most
        self.series: list[Series] = list(known)
        """All of them; more are appended, nothing else is changed."""
        self._log = log
        self._families = {it.family.name: it.family for it in self.series}
        self._places = {(it.family.name, it.labels): it.index for it in self.series}
        self._next = max((it.end for it in self.series), default=_SCRATCH_WIDTH)
        self._dropped = SCRATCH
        self._dropped = self.place(DROPPED)

    @classmethod
    def anonymous(cls, cells: int = CELLS) -> Values:
        """Those of a process that nobody else reads."""
        return cls([0.0] * _SCRATCH_WIDTH, most=cells)

    @property
    def used(self) -> float:
        """The part of the cells that is taken, from 0 to 1."""
        return self._next / self.most

    def admits(self, family: Family, labels: Labels) -> bool:
        """Whether a series of which there may be very many is there, or may be made; counted as dropped if not."""
        if self._next + RESERVE <= self.most or (family.name, labels) in self._places:
            return True
        self.cells[self._dropped] += 1
        return False

    def place(self, family: Family, labels: Labels = ()) -> int:
        """
        The first cell of a series, which is made when it is new; SCRATCH, and counted, when there is no more room.

        ValueError when a family of that name is of another kind or has other buckets.
        """
        known = self._families.get(family.name)
        if known is not None and (known.kind, known.buckets) != (family.kind, family.buckets):
            raise ValueError(f"the metric {family.name} is there already, of another kind or with other buckets")
        if len(family.buckets) > MOST_BUCKETS or list(family.buckets) != sorted(set(family.buckets)):
            raise ValueError(f"{family.name}: expected at most {MOST_BUCKETS} buckets, in rising order")
        index = self._places.get((family.name, labels))
        if index is not None:
            return index
        series = Series(known or family, labels, self._next)
        if series.end > self.most or not self._written(series):
            self.cells[self._dropped] += 1
            return SCRATCH
        if isinstance(self.cells, list):
            self.cells.extend([0.0] * (series.end - len(self.cells)))
        self._next = series.end
        self._families[family.name] = series.family
        self._places[family.name, labels] = series.index
        self.series.append(series)
        return series.index

    def _written(self, series: Series) -> bool:
        """Whether others can know of it. A full disk costs the series, and no call."""
        try:
            if self._log is not None:
                self._log.append(series)
        except OSError as error:
            _log.error("a series of metrics cannot be written down", reason=error.strerror)
            return False
        return True

    def clear(self, name: str) -> None:
        """Set every series of the family *name* to 0."""
        for it in self.series:
            if it.family.name == name:
                zero(self.cells, it.index, it.end)


def zero(cells: Cells, start: int, end: int) -> None:
    for index in range(start, end):
        cells[index] = 0.0


def labels_of(**labels: str) -> Labels:
    return tuple(sorted(labels.items()))


@attrs.frozen
class Slot:
    """What one process has counted, as another one reads it."""

    series: Sequence[Series]
    cells: Cells
