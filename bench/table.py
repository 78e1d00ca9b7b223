"""The table of a run: a measure in each line, a system in each column, and llmproxy in times of two others."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

import attrs

from bench.system import Row

Pick = Callable[[list[float]], float]
OURS = ("llmproxy", "plain")
"""The first of them that was measured is compared."""
COMPARED = ("relay", "nginx")


@attrs.frozen
class Line:
    title: str
    test: str
    field: str
    pick: Pick = statistics.median
    unit: float = 1.0
    """What the figure of a row is divided by."""
    over: str = ""
    """The system whose figure is taken off first."""


LINES = (
    Line("CPU per call, 32 connections, µs", "ns32", "cpu_norm"),
    Line("time of a call, 32 connections, p50, ms", "ns32", "p50_us", unit=1000),
    Line("time of a call, 32 connections, p99, ms", "ns32", "p99_us", unit=1000),
    Line("calls per second of CPU, 32 connections", "ns32", "rate"),
    Line("CPU per call, 1 connection, µs", "ns1", "cpu_norm"),
    Line("added to a call, 1 connection, p50, ms (best)", "ns1", "p50_us", min, 1000, over="direct"),
    Line("CPU per call of 1.1 MB, ms", "big", "cpu_norm", unit=1000),
    Line("CPU per event, 200 paced streams, µs", "st200", "cpu_norm"),
    Line("first byte, 200 paced streams, p50, ms", "st200", "ttfb_us_p50", unit=1000),
    Line("CPU per event, streams at once, µs", "burst", "cpu_norm"),
    Line("paced streams held", "maxk", "streams_held", max),
    Line("memory per open stream, KB", "open", "stream_kb"),
    Line("memory at rest, MB", "start", "idle_mb"),
    Line("growth over the calls of `leak`, MB", "leak", "growth_mb"),
    Line("start to first answer, s (best)", "start", "cold_s", min),
    Line("start to ready, s (best)", "start", "ready_s", min),
    Line("streams that were wrong", "", "wrong", max),
)


class Figures:
    """Rows, as a table asks for them."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = [_completed(row) for row in rows if "failed" not in row]
        self.systems = list(dict.fromkeys(str(row["system"]) for row in self._rows))

    def of(self, line: Line, system: str) -> float | None:
        """The figure of *system*; None where it was not measured."""
        own = self._picked(line, system)
        if own is None or not line.over:
            return own
        base = self._picked(line, line.over)
        return None if base is None or system == line.over else max(0.0, own - base)

    def ratio(self, line: Line, system: str, other: str) -> float | None:
        ours, theirs = self.of(line, system), self.of(line, other)
        return ours / theirs if ours is not None and theirs else None

    def spread(self, line: Line, system: str) -> tuple[float, float] | None:
        values = self._values(line, system)
        return (min(values), max(values)) if values else None

    def _picked(self, line: Line, system: str) -> float | None:
        values = self._values(line, system)
        return line.pick(values) if values else None

    def _values(self, line: Line, system: str) -> list[float]:
        rows = (row for row in self._rows if row["system"] == system and line.test in {row["test"], ""})
        return [float(row[line.field]) / line.unit for row in rows if line.field in row]


def _completed(row: Row) -> Row:
    more: Row = {}
    if "requests" in row and "cpu_us" in row:
        more["rate"] = 1e6 / max(0.01, float(row["cpu_us"]))
    if "streams_failed" in row and row["test"] != "maxk":
        more["wrong"] = float(row["streams_failed"]) + float(row["unfinished"])
    return {**row, **more}


def table(rows: Iterable[Row]) -> str:
    """In Markdown. A figure that was not measured is a dash."""
    figures = Figures(rows)
    ours = next((system for system in OURS if system in figures.systems), "")
    compared = [other for other in COMPARED if ours and other in figures.systems]
    head = ["measure", *figures.systems, *(f"{ours} / {other}" for other in compared)]
    body = []
    for line in LINES:
        values = [figures.of(line, system) for system in figures.systems]
        if any(value is not None for value in values):
            ratios = [figures.ratio(line, ours, other) for other in compared]
            body.append([line.title, *map(shown, [*values, *ratios])])
    return markdown(head, body)


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or not value else "0"
