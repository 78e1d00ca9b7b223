"""An LLM is taken out of service in every worker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.workers import CONFIG_DEMO, QUESTION, Workers, ask, metric, said, working

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc"),
    pytest.mark.timeout(120),
]

CONFIG = CONFIG_DEMO.replace("delay_ms = 0", "delay_ms = 0\nretries = { max_retries = 0 }").replace('["cache"]', "[]")
CALLS = 40
"""On connections of their own, which the kernel spreads over the workers."""


async def statuses(workers: Workers) -> set[int]:
    asked = (ask(workers.port, "POST", "/v1/chat/completions", QUESTION) for _ in range(CALLS))
    return {it.status for it in await asyncio.gather(*asked)}


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
        assert await metric(workers.port, 'llmproxy_requests_total{model="demo",status="200"}') == CALLS


async def test_what_all_workers_refuse_is_refused_once(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        unknown = await ask(workers.port, "POST", "/providers", b'{"llm":"demmo","drained":true}')
        unreadable = await ask(workers.port, "POST", "/providers", b"{}")

    assert (unknown.status, b'did you mean \\"demo\\"?' in unknown.body) == (404, True)
    assert (unreadable.status, b"bad_request" in unreadable.body) == (400, True)
