"""
Many calls, many of them left early: what is open afterwards is what was open before.

`make soak` makes a million calls, and prints what the process held before and after them.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
import urllib.request
from pathlib import Path

import attrs
import pytest

from bench.machine import Cores, memory_mb, tree
from bench.ours import ALL_ON, install_plugin
from bench.system import Target, running
from bench.upstream import pause, rig
from llmproxy_core import End
from llmproxy_server import demo
from tests.exact import ask
from tests.needs import need_program
from tests.proxy import Proxy
from tests.rawclient import connected

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


def _descriptors() -> int:
    return sum(1 for _ in DESCRIPTORS.iterdir()) if DESCRIPTORS.exists() else 0


async def _until_as_before(descriptors: int, tasks: int) -> None:
    """Connections that were left close in their own time; it is short."""
    async with asyncio.timeout(10):
        while _descriptors() > descriptors or len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110 - the kernel has no event
            await asyncio.sleep(0)


# -- a process of its own ------------------------------------------------------------------------------------------


@attrs.frozen
class Held:
    """What the process has."""

    memory_mb: float
    descriptors: int
    threads: int

    @classmethod
    def by(cls, target: Target) -> Held:
        assert target.pid is not None
        folders = [Path(f"/proc/{pid}") for pid in tree(target.pid)]
        descriptors, threads = (
            sum(len(list(each.joinpath(name).iterdir())) for each in folders) for name in ("fd", "task")
        )
        return cls(memory_mb(target.pid), descriptors, threads)


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(1000, marks=pytest.mark.timeout(180)),
        pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
    ids=["short", "whole"],
)
def test_a_process_holds_after_many_calls_what_it_held_before(
    calls: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calls, streams, streams that are left: with everything on, over connections that stand and that come and go."""
    need_program("gcc", package="gcc libc6-dev")
    need_program("wrk", package="wrk")
    install_plugin(tmp_path)
    ours = ALL_ON.system("llmproxy")
    # Connections that nobody uses go in seconds, and the one to the receiver of the traces is there at once. No line of
    # a call is kept: a million are half a gigabyte.
    brief = ours.conf.replace("[llm.up]", "[llm.up]\npool.idle_s = 2")
    at_once = {**ours.environ, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    quiet = attrs.evolve(ours, conf=brief, environ=at_once, is_logged=False)
    with rig(tmp_path, Cores.of(None)) as built, running(built, quiet) as target:
        _load(target, max(1000, calls // 50))
        before, began_s = _at_rest(target), time.monotonic()

        done = _load(target, calls)

        seconds = time.monotonic() - began_s
        after = _at_rest(target, descriptors=before.descriptors)

    with capsys.disabled():
        sys.stdout.write(f"\n{done} calls in {seconds:.0f} s\nbefore: {before}\nafter:  {after}\n")
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads + 8  # a pool of threads grows to its size when it likes
    assert after.memory_mb <= before.memory_mb + 12


def _load(target: Target, calls: int) -> int:
    """At least *calls*, a tenth of them streams, and as many streams that are left; gives how many."""
    done, slice_s = 0, 10 if calls > 10_000 else 1
    while done < calls:
        served = int(float(target.calls(32, slice_s)["requests"]))
        streams = max(1, served // 10 // 32)
        whole = target.streams(32, rounds=streams, chunks=20)
        assert whole["streams_failed"] == whole["unfinished"] == 0, whole
        target.streams(32, chunks=1000, delay_us=10_000, limit_s=1)
        done += served + 32 * streams + 32
    return done


def _at_rest(target: Target, *, descriptors: int = sys.maxsize) -> Held:
    """What is held once no call is in flight; waits for *descriptors* longer than idle connections are kept."""
    until_s, is_quiet = time.monotonic() + 30, False
    previous: Held | None = None
    while True:
        with urllib.request.urlopen(f"{target.url}/health", timeout=10) as answer:
            is_quiet = b'"in_flight":0' in answer.read()
        held = Held.by(target)
        # The first stream that is left makes the tokenizer's vocabulary load, in a thread.
        is_steady = previous is not None and abs(held.memory_mb - previous.memory_mb) < 1
        previous = held
        if is_quiet and is_steady and held.descriptors <= descriptors:
            return held
        pause(0.5)
        if time.monotonic() > until_s:
            assert is_quiet, "calls are in flight that nobody waits for"
            return held
