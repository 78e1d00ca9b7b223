"""The rig of `make bench` works, end to end and in a few seconds; what it finds is asserted nowhere."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import PathDistribution
from pathlib import Path
from string import Template

import llmproxy_cache
import llmproxy_cost_limit
import llmproxy_enhance_query
import pytest
import tomli

from bench.__main__ import main
from bench.features import features_table
from bench.flame import top
from bench.machine import Cores, Speed, described, memory_mb, tree
from bench.ours import features, install_plugin, main_systems
from bench.peers import peers
from bench.plugin import llmproxy_bench
from bench.system import Row
from bench.table import Figures, Line, shown, table
from llmproxy_core.config import structure
from llmproxy_core.plugins import Registry
from tests.needs import need_program
from tests.proxy import STANDARD_PLUGINS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bench reads /proc and pins processes")
PLUGINS = (*STANDARD_PLUGINS, llmproxy_cache, llmproxy_cost_limit, llmproxy_enhance_query, llmproxy_bench)


@pytest.fixture
def programs() -> None:
    """What the rig cannot do without."""
    need_program("gcc", package="gcc libc6-dev")
    need_program("wrk", package="wrk")


@pytest.mark.usefixtures("programs")
@pytest.mark.timeout(180)
def test_systems_are_measured_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"

    code = main(["--tiny", "--rounds=1", "--only=relay,floor,plain", "--tests=start,ns32,burst", f"--out={out}"])

    conditions, *rows = [json.loads(line) for line in out.read_text().splitlines()]
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert platform.python_version() in conditions["python"]
    measured = {(row["system"], row["test"]) for row in rows if "failed" not in row}
    assert measured == {
        (system, test) for system in ("relay", "floor", "plain") for test in ("start", "ns32", "burst")
    }, rows
    assert all(row["errors"] == 0 for row in rows if row["test"] == "ns32")
    assert all(row["streams_failed"] == row["unfinished"] == 0 for row in rows if row["test"] == "burst")
    assert "| measure | relay | floor | plain | plain / relay |" in printed.out
    assert "| streams that were wrong | 0 | 0 |" in printed.out


@pytest.mark.usefixtures("programs")
@pytest.mark.timeout(180)
def test_a_feature_is_measured_over_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--features", "--rounds=1", "--only=plain,cache miss"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| plain |") and "| +0 |" in line for line in lines)
    assert any(line.startswith("| cache miss |") for line in lines)


def test_without_a_compiler_it_says_which_package_has_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert main(["--tiny", "--only=direct"]) == 1

    assert "apt install gcc libc6-dev" in capsys.readouterr().err


@pytest.mark.parametrize("name", features())
def test_each_feature_is_a_valid_configuration(name: str) -> None:
    text = Template(features()[name].toml()).substitute(upstream="http://127.0.0.1:9")

    config, warnings = structure(tomli.loads(text), Registry.of(*PLUGINS), {})

    assert len(config.routes) >= 1
    assert not warnings


def test_the_plugin_is_found_as_an_installed_one_is(tmp_path: Path) -> None:
    install_plugin(tmp_path)

    facts = PathDistribution(tmp_path / "plugin" / "llmproxy_bench-1.dist-info")
    [point] = facts.entry_points.select(group="llmproxy")
    assert (tmp_path / "plugin" / f"{point.module}.py").is_file()


def test_the_systems_have_names_of_their_own() -> None:
    names = [system.label for system, _ in peers()] + [system.label for system in main_systems()]

    assert len(set(names)) == len(names)
    assert {"direct", "relay", "floor", "llmproxy", "plain", "embedded"} <= set(names)


def test_of_a_table_ratios_are_those_of_medians() -> None:
    rows: list[Row] = [
        {"system": system, "test": "ns32", "cpu_norm": figure, "cpu_us": figure, "requests": 1}
        for system, figures in (("relay", (100, 90, 400)), ("llmproxy", (150, 120, 125)), ("nginx", (20, 25, 30)))
        for figure in figures
    ]

    assert "| CPU per call, 32 connections, µs | 100 | 125 | 25 | 1.25 | 5 |" in table(rows)


def test_what_the_upstream_itself_takes_is_no_systems_own() -> None:
    rows: list[Row] = [
        {"system": "direct", "test": "ns1", "p50_us": 100},
        {"system": "relay", "test": "ns1", "p50_us": 300},
    ]
    figures, line = Figures(rows), Line("added", "ns1", "p50_us", over="direct")

    assert figures.of(line, "relay") == 200
    assert figures.of(line, "direct") is None


def test_a_failed_measurement_is_in_no_figure() -> None:
    rows: list[Row] = [
        {"system": "relay", "test": "ns32", "cpu_norm": 5, "failed": "RuntimeError"},
        {"system": "relay", "test": "big", "cpu_norm": 7000},
    ]

    assert "32 connections" not in table(rows)
    assert "| 7 |" in table(rows)


def test_a_feature_costs_what_it_adds_to_the_plain_call() -> None:
    rows: list[Row] = [
        {"system": system, "test": test, "cpu_norm": figure}
        for system, test, figure in (
            ("plain", "ns32", 500),
            ("x", "ns32", 520),
            ("plain", "burst", 8),
            ("x", "burst", 9),
        )
    ]

    assert "| x | 520 | +20 | – | 9 | +1.00 |" in features_table(rows)


def test_time_belongs_to_the_innermost_function() -> None:
    samples = (
        "main (asyncio/runners.py);a (x.py) 3\nmain (asyncio/runners.py);a (x.py);b (x.py) 1\nidle (thread.py) 90\n"
    )

    assert "| `a (x.py)` | 75.0 % |\n| `b (x.py)` | 25.0 % |" in top(samples)


def test_figures_are_shown_with_the_digits_that_count() -> None:
    assert [shown(value) for value in (None, 0.0, 0.0123, 3.14159, 42.5, 23456.7)] == [
        "–", "0", "0.0123", "3.14", "42.5", "23,457",
    ]  # fmt: skip


def test_the_machine_is_described_and_read() -> None:
    speed = Speed(min(os.sched_getaffinity(0)))

    assert {"date", "commit", "machine", "system", "python"} == set(described())
    assert memory_mb(os.getpid()) > 1
    assert os.getpid() in tree(os.getpid())
    assert Cores.of("0,1") == Cores(0, 1)
    assert speed.stop() > 0
