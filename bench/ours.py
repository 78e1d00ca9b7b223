"""llmproxy under its configurations: all on, nothing on, each feature alone, and as it starts."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from bench.system import System
from bench.upstream import HERE

LLM = """[llm.up]
provider = "openai"
base_url = "$upstream/v1"
"""
PRICES = """prices."*" = { input = "1.00", output = "2.00" }
"""
ROUTE = """[[route]]
path_prefix = "/v1"
target_llm = "$target"
operations = ["chat"]
"""
RESILIENT = """[llm.up.breaker]
[llm.other]
provider = "openai"
base_url = "$upstream/v1"
prices."*" = { input = "1.00", output = "2.00" }
breaker = {}
[llm.both]
provider = "fallback"
members = ["up", "other"]
retries = { max_retries = 3 }
"""
MORE_ROUTES = "".join(
    f'[[route]]\npath_prefix = "/team-{number}/v1"\ntarget_llm = "up"\noperations = ["chat"]\n' for number in range(999)
)
NOTHING = "bench_nothing"
ELSEWHERE = """[[route]]
path_prefix = "/elsewhere/v1"
target_llm = "up"
operations = ["chat"]
processors = ["first", "second", "third"]
"""


@attrs.frozen
class Setting:
    """What is on; without arguments: a JSON log line for each call and nothing else."""

    processors: tuple[str, ...] = ()
    tables: str = ""
    """Of the processors, and others."""
    server: str = ""
    log: str = 'format = "json"'
    sampled: float | None = None
    """The part of the calls that is traced; None: no tracing at all."""
    priced: bool = True
    """Prices in the file; False: the price list that comes with llmproxy is asked."""
    vary: str = ""
    headers: tuple[str, ...] = ()
    target: str = "up"
    route: str = ""
    """More keys of the route."""

    def toml(self) -> str:
        parts = ["[server]\nmax_in_flight = 0\n", self.server, f"[server.log]\n{self.log}\n"]
        if self.sampled is not None:
            # The sink is the upstream, which answers 200 to whatever is posted and runs on the other core.
            parts.append('[telemetry]\ntraces = true\nendpoint = "$upstream"\nfollow_parent = false\n')
            parts.append(f"sample_ratio = {self.sampled}\n")
        parts += [LLM, PRICES if self.priced else "", self.tables, ROUTE.replace("$target", self.target), self.route]
        parts.append(f"processors = [{', '.join(repr(name) for name in self.processors)}]\n")
        return "".join(parts)

    def system(self, label: str) -> System:
        return System(
            label,
            [*SERVE, "--config", "$conf", "--port", "$port"],
            conf=self.toml(),
            conf_name="config.toml",
            environ=ENVIRON,
            vary=self.vary,
            headers=self.headers,
            ready="/readyz",
        )


SERVE = [sys.executable, "-m", "llmproxy_server", "serve"]
ENVIRON = {"PYTHONPATH": "$folder/../plugin"}
THREE = "".join(f'[processor.{name}]\ntype = "{NOTHING}"\n' for name in ("first", "second", "third"))
ALL_ON = Setting(processors=("first", "second", "third"), tables=THREE, sampled=0.01, vary="trace")
STARTS = frozenset({"start"})


def install_plugin(folder: Path) -> None:
    """Put the processor that does nothing where the systems of *folder* find it, as if it were installed."""
    plugin = folder / "plugin"
    facts = plugin / "llmproxy_bench-1.dist-info"
    facts.mkdir(parents=True)
    shutil.copy(HERE / "plugin" / "llmproxy_bench.py", plugin)
    facts.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: llmproxy-bench\nVersion: 1\n")
    facts.joinpath("entry_points.txt").write_text("[llmproxy]\nbench = llmproxy_bench\n")


def main_systems() -> Iterator[System]:
    """What stands beside the peers: everything on, nothing on, and two that only start."""
    yield ALL_ON.system("llmproxy")
    yield Setting().system("plain")
    yield attrs.evolve(attrs.evolve(ALL_ON, priced=False).system("telemetry+prices"), tests=STARTS)
    yield System("embedded", [*SERVE, "--port", "$port"], model="demo", ready="/readyz", tests=STARTS)


def features() -> Mapping[str, Setting]:
    """`plain`, which the others are compared with, and each feature alone."""

    def one(kind: str, keys: str = "", vary: str = "") -> Setting:
        return Setting(processors=("it",), tables=f'[processor.it]\ntype = "{kind}"\n{keys}', vary=vary)

    return {
        "plain": Setting(),
        "all on": ALL_ON,
        "no log line": Setting(log='format = "json"\nlevel = "warn"'),
        "log_content": Setting(log='format = "json"\nlog_content = true'),
        "three processors": Setting(processors=("first", "second", "third"), tables=THREE),
        "traceparent passed on": Setting(vary="trace"),
        "tracing 0 %": Setting(sampled=0.0, vary="trace"),
        "tracing 1 %": Setting(sampled=0.01, vary="trace"),
        "tracing 100 %": Setting(sampled=1.0, vary="trace"),
        "cache hit": one("cache"),
        "cache miss": attrs.evolve(one("cache", vary="body"), headers=("Cache-Control: no-cache",)),
        "cost_limit": one("cost_limit", 'daily_usd = "1000000"\n'),
        "enhance_query": one("enhance_query", 'llm = "up"\nconfig_value = "bench-model"\n'),
        "1000 routes": Setting(tables=MORE_ROUTES),
        "processors on other routes": Setting(tables=THREE + ELSEWHERE),
        "the price list": Setting(priced=False),
        "group of two with retries and breaker": Setting(tables=RESILIENT, target="both", route="deadline_s = 60.0\n"),
        "2 workers": Setting(server="workers = 2\n"),
    }


def before(program: str | None) -> Iterator[System]:
    """Another llmproxy under the plain configuration, to see what a change does."""
    if program:
        yield attrs.evolve(
            Setting().system("before"), command=[program, "serve", "--config", "$conf", "--port", "$port"]
        )
