"""A system under test: how it is started, and one that runs."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template

import attrs

from bench.machine import busy_s, cpu_s, memory_mb
from bench.upstream import HERE, Rig, ended, free_port, need, pause

QUESTION = "Summarise the plot of Moby Dick in two sentences, then name its narrator and the ship he sails on."
SMALL = {
    "model": "bench-model",
    "temperature": 0.2,
    "max_tokens": 256,
    "messages": [
        {"role": "system", "content": "You are a terse assistant."},
        {"role": "user", "content": QUESTION},
    ],
}
TURN = 'lorem ipsum dolor sit amet \\u00e9 "q" \n' * 135
BIG = SMALL | {
    "messages": [
        {"role": "assistant" if turn % 2 else "user", "content": f"turn {turn}: {TURN}"} for turn in range(200)
    ]
}
PATH = "/v1/chat/completions"

Row = dict[str, float | str]
"""One measurement."""


@attrs.frozen
class System:
    """
    In *command*, *environ*, *headers* and *conf* stand `$port`, `$metrics_port`, `$upstream`, `$upstream_port`,
    `$folder` (its own) and `$conf` (the file that *conf* is written to).
    """

    label: str
    command: Sequence[str] = ()
    """Empty: the upstream itself, with nothing in between."""
    conf: str = ""
    conf_name: str = "conf"
    environ: Mapping[str, str] = attrs.field(factory=dict)
    headers: Sequence[str] = ()
    vary: str = ""
    """What differs from call to call, see `post.lua`."""
    model: str = "bench-model"
    ready: str | None = None
    """The path of its probe of readiness, where it has one."""
    start_s: float = 30
    """How long it may take to its first answer."""
    is_logged: bool = True
    """Whether what it says is written to a file, which costs it something."""
    tests: frozenset[str] | None = None
    """What it is measured in; None: everything."""


class Target:
    """A system that runs, or the upstream itself."""

    def __init__(self, rig: Rig, system: System, port: int, pid: int | None) -> None:
        self.rig, self.system, self.port, self.pid = rig, system, port, pid
        self.url = f"http://127.0.0.1:{port}"
        self.began_s = self.cold_s = self.cold_cpu_s = 0.0

    @property
    def cpu_s(self) -> float:
        return cpu_s(self.pid) if self.pid else 0.0

    @property
    def memory_mb(self) -> float:
        return memory_mb(self.pid) if self.pid else 0.0

    def asked(self, body: Mapping[str, object]) -> bytes:
        return json.dumps({**body, "model": self.system.model}).encode()

    def post(self, timeout_s: float = 20) -> int:
        """One small call; gives the status. OSError when nobody answers."""
        headers = dict(header.split(": ", 1) for header in self.headers)
        request = urllib.request.Request(f"{self.url}{PATH}", self.asked(SMALL), headers)
        request.add_header("content-type", "application/json")
        return _status(request, timeout_s)

    @property
    def headers(self) -> list[str]:
        return [Template(header).substitute(upstream=self.rig.upstream) for header in self.system.headers]

    def calls(self, connections: int, seconds: float, body: Mapping[str, object] = SMALL) -> Row:
        """What wrk saw: `requests`, `seconds`, `p50_us`, `p99_us`, `errors`. Missing when wrk is not installed."""
        file = self.rig.folder / "body.json"
        file.write_bytes(self.asked(body))
        whole_s = max(1, round(seconds))
        command = [need("wrk", package="wrk"), "-t1", f"-c{connections}", f"-d{whole_s}s", "--timeout", "20s"]
        command += ["--latency", "-s", str(HERE / "post.lua"), f"{self.url}{PATH}"]
        vary = self.system.vary if body is SMALL else ""
        environ = {"BENCH_BODY": str(file), "BENCH_HEADERS": "\n".join(self.headers), "BENCH_VARY": vary}
        found = self._load(command, whole_s + 60, environ)
        if not found["requests"] or float(found["errors"]) > float(found["requests"]) / 100:
            raise RuntimeError(f"{self.system.label} does not answer: {found}")
        return found

    def streams(
        self, count: int, *, chunks: int, rounds: int = 1, delay_us: int = 0, spread_us: int = 0, limit_s: int = 40
    ) -> Row:
        """
        What *count* clients saw that each read *rounds* streams of *chunks* events, *delay_us* apart.

        They begin spread over *spread_us*, and end after *limit_s* whatever happens. `streamload.c` says what it gives.
        """
        self.rig.pace(chunks, delay_us)
        # The seed: a cache that kept another answer to the same question would give that.
        asked = self.asked(SMALL | {"seed": chunks, "stream": True, "stream_options": {"include_usage": True}})
        body = asked.decode().replace('"stream": true', '"stream":true')
        numbers = [count, rounds, chunks, spread_us, limit_s]
        command = [str(self.rig.folder / "streamload"), str(self.port), PATH, *map(str, numbers), body, *self.headers]
        return self._load(command, limit_s + 30)

    def _load(self, command: list[str], limit_s: float, environ: Mapping[str, str] | None = None) -> Row:
        pinned = ["taskset", "-c", str(self.rig.cores.load), *command]
        all_of_it = os.environ | dict(environ or {})
        said = subprocess.run(pinned, check=False, env=all_of_it, capture_output=True, text=True, timeout=limit_s)
        if said.returncode or not said.stdout:
            raise RuntimeError(f"{command[0]} failed: {said.stderr.strip() or said.stdout.strip()}")
        found: Row = json.loads(said.stdout.strip().splitlines()[-1])
        return found


@contextmanager
def running(rig: Rig, system: System) -> Iterator[Target]:
    """*system*, started on its core and answering. RuntimeError when it gives no answer."""
    if not system.command:
        yield Target(rig, system, rig.upstream_port, None)
        return
    folder = rig.folder / system.label.replace(" ", "-")
    folder.mkdir(exist_ok=True)
    port, log = free_port(), folder / "log"
    filled = {
        "port": port,
        "metrics_port": free_port(),
        "upstream": rig.upstream,
        "upstream_port": rig.upstream_port,
        "folder": folder,
        "conf": folder / system.conf_name,
    }
    (folder / system.conf_name).write_text(Template(system.conf).substitute(filled))
    environ = {name: Template(value).substitute(filled) for name, value in system.environ.items()}
    command = [Template(part).substitute(filled) for part in system.command]
    pinned = ["taskset", "-c", str(rig.cores.proxy), *command]
    began = time.monotonic()
    with (log if system.is_logged else Path(os.devnull)).open("wb") as output:
        started = subprocess.Popen(pinned, env=os.environ | environ, stdout=output, stderr=output, cwd=folder)
    with ended(started) as process:
        target = Target(rig, system, port, process.pid)
        target.began_s = began
        _until_it_answers(target, process, log)
        yield target


def _until_it_answers(target: Target, process: subprocess.Popen[bytes], log: Path) -> None:
    last: object = "nothing"
    while time.monotonic() - target.began_s < target.system.start_s and process.poll() is None:
        try:
            last = target.post()
        except OSError as error:  # what urllib raises for a refused connection is one too
            last = error
        if last == 200:
            target.cold_s, target.cold_cpu_s = time.monotonic() - target.began_s, target.cpu_s
            return
        pause(0.01)
    said = "\n".join(log.read_text(errors="replace").splitlines()[-8:]) if log.exists() else ""
    raise RuntimeError(f"{target.system.label} gave no answer (last: {last})\n{said}")


def until_ready(target: Target) -> float:
    """Seconds from its start until its probe of readiness says yes."""
    request = urllib.request.Request(f"{target.url}{target.system.ready}")
    while time.monotonic() - target.began_s < target.system.start_s and _status(request, 5) != 200:
        pause(0.01)
    return time.monotonic() - target.began_s


def _status(request: urllib.request.Request, timeout_s: float) -> int:
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)


def busy_share(before: Mapping[int, float], seconds: float, core: int) -> float:
    """The part of *seconds* that *core* was busy since *before*, which `busy_s` gave."""
    return round((busy_s()[core] - before[core]) / seconds, 2)
