"""An LLM is taken out of service in every worker, those included that begin later."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workers import CONFIG_DEMO, QUESTION, WAIT_S, Answer, Workers, ask, kill, metric_until, said, working

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc"),
    pytest.mark.timeout(120),
]

CONFIG = CONFIG_DEMO.replace("delay_ms = 0", "delay_ms = 0\nretries = { max_retries = 0 }").replace('["cache"]', "[]")
CALLS = 40
"""On connections of their own, which the kernel spreads over the workers."""
LOST = 0
"""The status of a call that a worker which is killed was answering."""


async def statuses(workers: Workers) -> set[int]:
    asked = (ask(workers.port, "POST", "/v1/chat/completions", QUESTION) for _ in range(CALLS))
    return {it.status for it in await asyncio.gather(*asked)}


async def drain(workers: Workers, drained: bool = True) -> Answer:
    return await ask(workers.port, "POST", "/providers", json.dumps({"llm": "demo", "drained": drained}).encode())


async def drained_in(workers: Workers) -> list[int]:
    """The numbers of the workers that have drained it; when all have answered."""
    async with asyncio.timeout(WAIT_S):
        while (found := await said(workers.port, "GET", "/providers"))["workers"]["missing"]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    llm = found["llms"]["demo"]
    every = list(range(1, found["workers"]["expected"] + 1)) if llm["drained"] else []
    return list(llm.get("drained_in", every))


async def eventually(holds: Callable[[], bool]) -> None:
    """Of processes that tell nobody what becomes of them."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def another(workers: Workers) -> None:
    """Kill a worker, and wait until there is a process in its place, which does not serve yet."""
    victim = workers.pids[0]
    kill(victim)
    await eventually(lambda: len(workers.pids) == 2 and victim not in workers.pids)


async def test_all_workers_drain_an_llm_and_restore_it(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        done = await ask(workers.port, "POST", "/providers", b'{"llm":"demo","drained":true}')
        assert (done.status, done.body) == (200, b'{"llm":"demo","drained":true,"in_flight":0}')
        assert await statuses(workers) == {503}

        found = await said(workers.port, "GET", "/providers")
        assert (found["llms"]["demo"]["state"], found["workers"]["answering"]) == ("drained", 2)
        assert "drained_in" not in found["llms"]["demo"]
        health = await said(workers.port, "GET", "/health")
        assert ("llm.demo", "llm_drained") in [(it["part"], it["code"]) for it in health["reasons"]]

        assert (await ask(workers.port, "POST", "/api/reload")).status == 200
        assert await statuses(workers) == {503}

        done = await ask(workers.port, "POST", "/providers", b'{"llm":"demo","drained":false}')
        assert done.status == 200
        assert await statuses(workers) == {200}
        assert (await said(workers.port, "GET", "/providers"))["llms"]["demo"]["state"] == "ok"
        await metric_until(workers.port, 'llmproxy_requests_total{model="demo",status="200"}', CALLS)


async def test_what_all_workers_refuse_is_refused_once(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        unknown = await ask(workers.port, "POST", "/providers", b'{"llm":"demmo","drained":true}')
        unreadable = await ask(workers.port, "POST", "/providers", b"{}")

    assert (unknown.status, b'did you mean \\"demo\\"?' in unknown.body) == (404, True)
    assert (unreadable.status, b"bad_request" in unreadable.body) == (400, True)


# -- those that begin later ------------------------------------------------------------------------------------------


async def test_a_worker_that_takes_anothers_place_knows_before_its_first_call(tmp_path: Path) -> None:
    """Calls wait in the queue of the one that was killed, and are the first that the other one answers."""
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        assert (await drain(workers)).status == 200
        for victim in workers.pids:
            kill(victim)

        assert await statuses(workers) <= {503, LOST}
        assert await drained_in(workers) == [1, 2]

        assert (await drain(workers, drained=False)).status == 200
        await another(workers)
        assert await drained_in(workers) == []
        assert await statuses(workers) == {200}


async def test_a_worker_that_starts_while_an_llm_is_drained_knows_it_too(tmp_path: Path) -> None:
    """The answer says that one worker is missing; what was asked for holds."""
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        await another(workers)
        done = await drain(workers)

        assert await drained_in(workers) == [1, 2]
        assert await statuses(workers) == {503}
    assert done.status in (200, 503)  # where it has begun to serve by then: no matter when, it knows


async def test_of_changes_at_once_one_holds_in_all_workers_and_in_those_to_come(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        for _ in range(5):
            answers = await asyncio.gather(*(drain(workers, drained=number % 2 == 0) for number in range(12)))
            assert {it.status for it in answers} == {200}
            assert await drained_in(workers) in ([], [1, 2])

        before = await drained_in(workers)
        await another(workers)
        assert await drained_in(workers) == before


@pytest.mark.soak
async def test_a_worker_that_is_stuck_follows_when_it_goes_on(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        stuck = workers.pids[0]
        os.kill(stuck, signal.SIGSTOP)
        try:
            done = await from_the_other(workers)
        finally:
            os.kill(stuck, signal.SIGCONT)

        assert (done.status, b"worker_missing" in done.body) == (503, True)
        assert await drained_in(workers) == [1, 2]
        assert await statuses(workers) == {503}


async def from_the_other(workers: Workers) -> Answer:
    """What the worker answers that is not stopped: half of the connections wait for the one that is."""
    asking = {asyncio.ensure_future(drain(workers)) for _ in range(12)}  # noqa: TID251 - awaited below
    done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED, timeout=WAIT_S)
    found = done.pop().result()
    for it in (*waiting, *done):
        it.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    return found


@pytest.mark.soak
async def test_a_reload_that_takes_the_llm_away_has_it_forgotten_for_good(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        assert (await drain(workers)).status == 200
        for text in (CONFIG.replace("[llm.demo]", "[llm.other]").replace('"demo"\nop', '"other"\nop'), CONFIG):
            (tmp_path / "proxy.toml").write_text(text)
            assert (await ask(workers.port, "POST", "/api/reload")).status == 200
        await another(workers)

        assert await drained_in(workers) == []
        assert await statuses(workers) == {200}
