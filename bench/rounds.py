"""Systems one after the other, in rounds: a slow spell of the machine hits all of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence

from bench.measures import MEASURES, ONCE, Scale
from bench.system import Row, System, Target, running
from bench.upstream import Missing, Rig, pause

Note = Callable[[Row], None]
"""Is given each row as soon as it is measured."""


def measure_all(
    rig: Rig, systems: Iterable[System], *, tests: Sequence[str], rounds: int, scale: Scale, note: Note
) -> None:
    """Each system is started anew for each round. One that does not start is left out of the rounds that follow."""
    todo = list(systems)
    for number in range(rounds):
        for system in list(todo):
            say(f"round {number + 1} of {rounds}: {system.label}")
            try:
                with running(rig, system) as target:
                    _measure(target, [name for name in tests if number == 0 or name not in ONCE], number, scale, note)
            except RuntimeError as error:
                say(str(error))
                todo.remove(system)


def _measure(target: Target, tests: Sequence[str], number: int, scale: Scale, note: Note) -> None:
    system, cold = target.system, scale.warm_s
    for name in tests:
        own = system.tests is None or name in system.tests
        if not own or (target.pid is None and name in {"start", "open", "leak"}):
            continue
        if name != "start" and cold:
            target.calls(8, cold)
            pause(scale.rest_s)  # the load leaves a call behind, whose tokens are counted: a vocabulary is loaded then
            cold = 0
        row: Row = {"system": system.label, "test": name, "round": number}
        try:
            row |= MEASURES[name](target, scale)
        except Missing:
            raise
        except (RuntimeError, OSError, ValueError) as error:  # one failed measurement does not end the run
            row["failed"] = f"{type(error).__name__}: {error}"[:300]
            say(f"{system.label}, {name}: {row['failed']}")
        note(row)


def say(text: str) -> None:
    """To the person who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
