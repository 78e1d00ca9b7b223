"""What happened to a call is told whichever worker had it, and whichever is asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.workers import CONFIG_DEMO, QUESTION, ask, said, working

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc"),
    pytest.mark.timeout(120),
]
CALLS = 40  # so many that each of two workers has some


async def test_the_calls_of_all_workers_are_listed_and_each_is_found(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG_DEMO, "--workers", "2") as workers:
        made = (ask(workers.port, "POST", "/v1/chat/completions", QUESTION) for _ in range(CALLS))
        assert {it.status for it in await asyncio.gather(*made)} == {200}

        listed = await said(workers.port, "GET", "/api/requests")
        calls = listed["requests"]
        found = [await said(workers.port, "GET", f"/api/requests/{it['request_id']}") for it in calls]

        assert (len(calls), "missing" in listed) == (CALLS, False)
        assert [it["ended_at"] for it in calls] == sorted((it["ended_at"] for it in calls), reverse=True)
        assert found == calls
        assert (await ask(workers.port, "GET", "/api/requests/never")).status == 404
        assert (await ask(workers.port, "HEAD", "/api/requests")).status == 200
        assert [it for it in workers.said if it["level"] == "error"] == []
