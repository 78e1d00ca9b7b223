"""
What llmproxy costs beside nginx, a bare aiohttp relay and the gateways that are installed: ratios of one run.

Linux only: it reads /proc and pins processes to cores. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TextIO

import attrs

from bench.features import features_table, measure_features
from bench.flame import record_flames
from bench.machine import Cores, described
from bench.measures import FULL, MEASURES, TINY, Scale
from bench.ours import before, features, install_plugin, main_systems
from bench.pairs import run as run_pairs
from bench.peers import peers
from bench.rounds import measure_all, say
from bench.system import Row, System
from bench.table import table
from bench.upstream import Missing, rig


def main(argv: list[str] | None = None) -> int:
    """Gives the exit code: 1 when a program is missing that nothing goes without."""
    asked = _arguments().parse_args(argv)
    if asked.pairs:
        print(run_pairs(rounds=asked.rounds, tiny=asked.tiny))
        return 0
    scale = attrs.evolve(TINY if asked.tiny else FULL, **({"seconds": asked.seconds} if asked.seconds else {}))
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, asked.out.open("a") as out:
            print(_run(asked, Path(folder), scale, out))
    except Missing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").strip())
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--features", action="store_true", help="what each feature of llmproxy costs, instead")
    what.add_argument("--pairs", action="store_true", help="what it costs to translate between protocols, instead")
    what.add_argument("--flame", metavar="FOLDER", type=Path, help="record where the time goes into FOLDER, instead")
    parser.add_argument("--only", help="systems or features, by their names with commas between")
    parser.add_argument("--tests", default=",".join(MEASURES), help="with commas between; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, help="of each measurement of calls")
    parser.add_argument("--tiny", action="store_true", help="whether it works at all; the figures mean nothing")
    parser.add_argument("--before", metavar="LLMPROXY", help="the program of another checkout, measured as `before`")
    parser.add_argument("--cores", metavar="LOAD,PROXY", help="default: the first and the last one")
    parser.add_argument("--out", type=Path, default=Path(os.devnull), help="append each figure here, as JSON lines")
    return parser


def _run(asked: argparse.Namespace, folder: Path, scale: Scale, out: TextIO) -> str:
    rows: list[Row] = []

    def note(row: Row) -> None:
        rows.append(row)
        out.write(json.dumps(row) + "\n")
        out.flush()

    install_plugin(folder)
    with rig(folder, Cores.of(asked.cores)) as built:
        if asked.flame:
            return record_flames(built, asked.flame)
        conditions = described()
        if asked.features:
            settings = {name: each for name, each in features().items() if _is_wanted(name, asked.only)}
            out.write(json.dumps(conditions) + "\n")
            measure_features(built, settings, rounds=asked.rounds, scale=scale, note=note)
            return f"{_lines(conditions)}\n\n{features_table(rows)}"
        systems = []
        for system, version in peers():
            systems.append(system)
            conditions |= {system.label: version} if version else {}
        systems += [*main_systems(), *before(asked.before)]
        wanted: list[System] = [system for system in systems if _is_wanted(system.label, asked.only)]
        out.write(json.dumps(conditions) + "\n")
        say(", ".join(system.label for system in wanted))
        measure_all(built, wanted, tests=asked.tests.split(","), rounds=asked.rounds, scale=scale, note=note)
    return f"{_lines(conditions)}\n\n{table(rows)}"


def _is_wanted(name: str, only: str | None) -> bool:
    return only is None or name in only.split(",")


def _lines(conditions: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in conditions.items())


if __name__ == "__main__":
    sys.exit(main())
