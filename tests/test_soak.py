"""
Many calls that end in every way: what is open afterwards is what was open before.

`make soak` makes a million calls, and prints what the process held before and after them.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import attrs
import pytest

from bench.machine import Cores, tree
from bench.ours import ALL_ON, NOTHING, THREE, install_plugin
from bench.system import System, Target, running
from bench.upstream import pause, rig
from llmproxy_core import End
from llmproxy_server import demo
from tests.exact import ask
from tests.growth import instances
from tests.llmproxy_server.reloading import toml
from tests.mixture import Mixture, as_asked, forgotten
from tests.needs import need_program
from tests.page_first import PAGE
from tests.proxy import Proxy
from tests.rawclient import connected
from tests.upstream import Upstream, refusing_url

DESCRIPTORS = Path("/proc/self/fd")
AT_ONCE = 20
DEMO = {
    "llm": {"demo": {"provider": "demo", "delay_ms": 0.1}},
    "route": [{"path_prefix": "/v1", "target_llm": "demo"}],
}
MODELS = ("demo", "demo", "demo", "demo/cut", "demo/error-429", "demo/error-500")


@pytest.mark.parametrize(
    "calls", [400, pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])], ids=["short", "whole"]
)
async def test_calls_that_end_in_every_way_leave_nothing_open(calls: int) -> None:
    chance = random.Random(calls)
    async with Proxy(DEMO, plugins=[demo], timeout_s=30) as proxy:
        await _one(proxy, random.Random(1), leave=False)  # what is made once is made
        before = _descriptors()
        tasks = len(asyncio.all_tasks())

        for done in range(0, calls, AT_ONCE):
            left = [chance.random() < 0.4 for _ in range(AT_ONCE)]
            await asyncio.gather(*(_one(proxy, random.Random(chance.random()), leave=each) for each in left))
            await proxy.outcome(done + AT_ONCE + 1)

        health = await ask("GET", f"{proxy.url}/health")
        assert b'"in_flight":0' in health.body
        ends = {outcome.end for outcome in proxy.outcomes}
        assert ends >= {End.COMPLETED, End.FAILED, End.ABANDONED}
        assert len(proxy.outcomes) == calls + 1
        assert len(proxy.gateway.background) == 0
        await _until_as_before(before, tasks)


async def _one(proxy: Proxy, chance: random.Random, *, leave: bool) -> None:
    """One call; *leave*: go away at some byte of the answer."""
    stream = "true" if chance.random() < 0.7 or leave else "false"
    model = "demo" if leave else chance.choice(MODELS)
    question = f'{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"Hello"}}]}}'.encode()
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        "Connection: close",
        f"Content-Length: {len(question)}",
    ]
    async with connected(proxy.port) as client:
        client.send("\r\n".join(head).encode() + b"\r\n\r\n" + question)
        if leave:
            await client.exactly(chance.randrange(1, 600))
        else:
            await client.rest()


def _both_ways(base_url: str, refusing: str, *, idle_s: float) -> dict[str, Any]:
    """The LLMs and routes of a mixture of calls: one for each transport, and one whose upstream nobody reaches."""
    common = {"provider": "openai", "pool": {"idle_s": idle_s}, "prices": {"*": {"input": "1.00", "output": "2.00"}}}
    at = {"wire": ("wire", base_url), "aiohttp": ("aiohttp", base_url), "nowhere": ("wire", f"{refusing}/v1")}
    return {
        "llm": {name: {**common, "transport": how, "base_url": url} for name, (how, url) in at.items()},
        "route": [{"path_prefix": f"/{name}/v1", "target_llm": name, "operations": ["chat"]} for name in at],
    }


@pytest.mark.parametrize("over", ["wire", "aiohttp"])
@pytest.mark.parametrize(
    "calls", [600, pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])], ids=["short", "whole"]
)
async def test_however_calls_of_an_upstream_end_they_leave_nothing_behind(
    calls: int, over: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Proxy, "pages", [PAGE])
    with refusing_url() as refusing:
        async with Upstream(as_asked) as upstream, Proxy(_both_ways(upstream.base_url, refusing, idle_s=0.2)) as proxy:
            mixture = Mixture(proxy.port, [f"/{over}/v1"], "/nowhere/v1", random.Random(calls), page=True)
            await mixture.some(calls // 3)  # what is made once is made
            ends = await forgotten(proxy, upstream)
            before, kinds, tasks = _descriptors(), instances(), len(asyncio.all_tasks())

            while mixture.calls < calls:
                await mixture.some(100)
                ends |= await forgotten(proxy, upstream)

            await _until_as_before(before, tasks)
            assert mixture.unseen() == {}
            assert ends == {End.COMPLETED, End.FAILED, End.ABANDONED}
            found = instances()
            assert {kind: (kinds[kind], count) for kind, count in found.items() if count > kinds[kind] + 20} == {}


def _descriptors() -> int:
    return sum(1 for _ in DESCRIPTORS.iterdir()) if DESCRIPTORS.exists() else 0


async def _until_as_before(descriptors: int, tasks: int) -> None:
    """Connections that were left close in their own time; it is short."""
    async with asyncio.timeout(10):
        while _descriptors() > descriptors or len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110 - the kernel has no event
            await asyncio.sleep(0)


# -- a process of its own ------------------------------------------------------------------------------------------

GAUGE = re.compile(r"^llmproxy_bench_tasks (\S+)$", re.MULTILINE)
BOUND = re.compile(r"^llmproxy_bound_size\{what=\"(\w+)\"\} (\S+)$", re.MULTILINE)
ANONYMOUS = re.compile(r"^Anonymous: +(\d+) kB$", re.MULTILINE)
BUSY = ("in_flight", "buffered_bytes", "background", "tasks", "upstream_calls", "upstream_connections")


@attrs.frozen
class Held:
    """What the process has."""

    memory_mb: float
    """What it wrote itself. Code and data of files are shared with whatever Python runs beside it: not its doing."""
    descriptors: int
    threads: int
    tasks: int
    busy: float
    """Calls, of ours and of upstreams, what they started besides themselves, their bytes, and kept connections."""

    @classmethod
    def by(cls, target: Target) -> Held:
        assert target.pid is not None
        with urllib.request.urlopen(f"{target.url}/api/metrics", timeout=10) as answer:
            text = answer.read().decode()
        (tasks,), bounds = GAUGE.findall(text), dict(BOUND.findall(text))
        folders = [Path(f"/proc/{pid}") for pid in tree(target.pid)]
        descriptors, threads = (
            sum(len(list(each.joinpath(name).iterdir())) for each in folders) for name in ("fd", "task")
        )
        kilobytes = sum(int(ANONYMOUS.findall(each.joinpath("smaps_rollup").read_text())[0]) for each in folders)
        busy = sum(float(bounds[each]) for each in BUSY)
        return cls(round(kilobytes / 1024, 2), descriptors, threads, int(float(tasks)), busy)


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(1000, marks=pytest.mark.timeout(180)),
        pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
    ids=["short", "whole"],
)
async def test_a_process_holds_after_many_calls_what_it_held_before(
    calls: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With everything on: calls, streams, streams that are left, and calls that end in every way."""
    need_program("gcc", package="gcc libc6-dev")
    need_program("wrk", package="wrk")
    install_plugin(tmp_path)
    with refusing_url() as refusing:
        async with Upstream(as_asked) as upstream:
            with rig(tmp_path, Cores.of(None)) as built, running(built, _soaked(upstream, refusing)) as target:
                chance = random.Random(calls)
                mixture = Mixture(target.port, ["/wire/v1", "/aiohttp/v1"], "/nowhere/v1", chance)
                await mixture.some(200)
                await _load(target, mixture, max(1, calls // 50))
                before, began_s = _at_rest(target), time.monotonic()

                done = await _load(target, mixture, calls)

                seconds = time.monotonic() - began_s
                after = _at_rest(target, descriptors=before.descriptors)

    with capsys.disabled():
        ends = f"{mixture.calls} of them and of those before ended in {len(mixture.seen)} ways"
        sys.stdout.write(f"\n{done} calls in {seconds:.0f} s, {ends}\nbefore: {before}\nafter:  {after}\n")
    assert mixture.unseen() == {}
    assert after.descriptors <= before.descriptors
    assert after.tasks <= before.tasks
    assert after.threads <= before.threads + 1  # a pool of threads grows to its size when it likes
    assert after.memory_mb <= before.memory_mb + 4


def _soaked(upstream: Upstream, refusing: str) -> System:
    """
    Everything on, the transports of the mixture, and a gauge of the tasks.

    Connections that nobody uses go in half a second, and the one to the receiver of the traces is there at once. No
    line of a call is kept: a million are half a gigabyte.
    """
    setting = attrs.evolve(ALL_ON, tables="bench_tasks".join(THREE.rsplit(NOTHING, 1)))
    ours = setting.system("llmproxy")
    brief = ours.conf.replace("[llm.up]", "[llm.up]\npool.idle_s = 0.5")
    added = _both_ways(upstream.base_url, refusing, idle_s=0.5)
    more = "".join(f"[llm.{name}]\n{toml(table)}" for name, table in added["llm"].items())
    more += "".join(f"[[route]]\n{toml(table)}" for table in added["route"])
    at_once = {**ours.environ, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    return attrs.evolve(ours, conf=brief + more, environ=at_once, is_logged=False)


async def _load(target: Target, mixture: Mixture, calls: int) -> int:
    """
    At least *calls*, a tenth of them streams, and some of every kind; gives how many.

    Many come in long rounds, each with streams that are left while their upstream goes on.
    """
    done, is_long = 0, calls > 10_000
    while done < calls:
        found = target.calls(32, 10 if is_long else 1)
        assert found["errors"] == 0, found
        served = int(float(found["requests"]))
        streams = max(1, served // 10 // 32)
        whole = target.streams(32, rounds=streams, chunks=20)
        assert whole["streams_failed"] == whole["unfinished"] == 0, whole
        done += served + 32 * streams
        if is_long:
            target.streams(32, chunks=1000, delay_us=10_000, limit_s=1)
            done += 32
        before = mixture.calls
        await mixture.some(1000 if is_long else 40)
        done += mixture.calls - before
    return done


def _at_rest(target: Target, *, descriptors: int = sys.maxsize) -> Held:
    """What is held once no call is in flight; waits for *descriptors* longer than idle connections are kept."""
    until_s = time.monotonic() + 30
    previous: Held | None = None
    while True:
        held = Held.by(target)
        # The first stream that is left makes the tokenizer's vocabulary load, in a thread.
        is_steady = previous is not None and abs(held.memory_mb - previous.memory_mb) < 1
        previous = held
        if not held.busy and is_steady and held.descriptors <= descriptors:
            return held
        pause(0.5)
        if time.monotonic() > until_s:
            assert not held.busy, "something is under way that nobody waits for"
            return held
