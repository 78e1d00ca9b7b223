"""All processes' numbers, added up."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from llmproxy_server.metrics.values import Family, Labels, Slot


@attrs.define
class Total:
    """A family over all processes: the cells of each of its series."""

    family: Family
    cells: dict[Labels, list[float]] = attrs.field(factory=dict)

    def value(self, **labels: str) -> float:
        """Of a series with one cell; 0 when there is none."""
        found = self.cells.get(tuple(sorted(labels.items())))
        return found[0] if found else 0.0


@attrs.frozen
class Snapshot:
    totals: dict[str, Total]

    def of(self, name: str) -> Total:
        """The family *name*; an empty one when nobody has counted anything."""
        return self.totals.get(name) or Total(Family(name, "gauge", ""))

    @property
    def series(self) -> int:
        return sum(len(total.cells) for total in self.totals.values())


def added_up(slots: Iterable[Slot]) -> Snapshot:
    """What *slots* have counted. Of families that two of them mean in different ways the first one counts."""
    totals: dict[str, Total] = {}
    for slot in slots:
        for series in slot.series[:]:  # it may grow meanwhile
            family = series.family
            total = totals.setdefault(family.name, Total(family))
            if (total.family.kind, total.family.buckets) != (family.kind, family.buckets):
                continue
            cells = list(map(float, slot.cells[series.index : series.end]))
            known = total.cells.get(series.labels)
            if known is None:
                total.cells[series.labels] = cells
            elif family.kind == "latest":
                total.cells[series.labels] = [max(known[0], cells[0])]
            else:
                total.cells[series.labels] = [a + b for a, b in zip(known, cells, strict=True)]
    return Snapshot(totals)
