"""
What each feature of llmproxy costs a call, and an event of a stream.

All configurations run at once, and the load goes round among them in slices of a second. What is compared was so
measured within the same seconds, and a cost of a few microseconds does not drown in the moods of the machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

from bench.measures import Scale, burst, calls
from bench.ours import Setting
from bench.rounds import Note, say
from bench.system import Row, Target, running
from bench.table import markdown, shown
from bench.upstream import Rig

BASE = "plain"
SLICE_S = 1


def measure_features(rig: Rig, settings: Mapping[str, Setting], *, rounds: int, scale: Scale, note: Note) -> None:
    """Settings that this llmproxy does not know are left out."""
    slice_scale = Scale(seconds=SLICE_S, streams=scale.streams, chunks=scale.chunks)
    with ExitStack() as stack:
        targets: list[Target] = []
        for name, setting in settings.items():
            say(f"starting {name}")
            try:
                targets.append(stack.enter_context(running(rig, setting.system(name))))
            except RuntimeError as error:
                say(str(error))
        for target in targets:  # what is made at the first call is made
            target.calls(32, SLICE_S)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for target in targets:
                for test, measure in (("ns32", calls), ("burst", burst)):
                    row: Row = {"system": target.system.label, "test": test, "round": number}
                    try:
                        note(row | measure(target, slice_scale))
                    except RuntimeError as error:  # one that fails does not end the run
                        say(f"{target.system.label}, {test}: {error}")


def features_table(rows: Iterable[Row]) -> str:
    """Over `plain`, by the medians; the range is that of the middle half of the slices."""
    kept = list(rows)
    body: list[Sequence[str]] = []
    for name in dict.fromkeys(str(row["system"]) for row in kept):
        cells = [name]
        for test in ("ns32", "burst"):
            own, base = _values(kept, name, test), _values(kept, BASE, test)
            if not own or not base:
                cells += ["–"] * (3 if test == "ns32" else 2)
                continue
            middle, plain = statistics.median(own), statistics.median(base)
            cells += [shown(middle), f"{middle - plain:+.2f}" if test == "burst" else f"{middle - plain:+.0f}"]
            cells += [_range(own)] if test == "ns32" else []
        body.append(cells)
    head = ["", "CPU per call, µs", "over plain", "middle half", "CPU per event at once, µs", "over plain"]
    return markdown(head, body)


def _values(rows: Iterable[Row], system: str, test: str) -> list[float]:
    return [float(row["cpu_norm"]) for row in rows if row["system"] == system and row["test"] == test]


def _range(values: list[float]) -> str:
    if len(values) < 2:
        return "–"
    low, _, high = statistics.quantiles(values, n=4)
    return f"{low:.0f}–{high:.0f}"
