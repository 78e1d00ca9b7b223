"""Many calls, many of them left early: what is open afterwards is what was open before."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from llmproxy_core import End
from llmproxy_server import demo
from tests.exact import ask
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
