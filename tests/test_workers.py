"""Several workers on one port: they serve, are replaced, reload and end together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workers import CONFIG_DEMO as CONFIG
from tests.workers import QUESTION, STREAMED, WAIT_S, Workers, ask, kill, metric, metric_until, not_well, said, working

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc"),
    pytest.mark.timeout(120),
]

SLOW = CONFIG.replace("delay_ms = 0", "delay_ms = 30").replace('processors = ["cache"]', "")
BRIEF = SLOW.replace("delay_ms = 30", "delay_ms = 10")
"""Of streams that last half a second, where tests wait for many to end."""
CHAT = "/v1/chat/completions"


async def eventually(holds: Callable[[], bool]) -> None:
    """Of processes that tell nobody what becomes of them."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0.02)


async def spread(workers: Workers, calls: int = 40) -> None:
    """Make *calls* on connections of their own, which the kernel spreads."""
    answers = await asyncio.gather(*(ask(workers.port, "POST", CHAT, QUESTION) for _ in range(calls)))
    assert {(it.status, it.whole) for it in answers} == {(200, True)}


async def test_all_workers_serve_and_their_numbers_are_added_up(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        assert len(workers.pids) == 2
        await spread(workers)

        health = await said(workers.port, "GET", "/health")
        assert health["workers"] == {"expected": 2, "answering": 2, "missing": []}
        await metric_until(workers.port, 'llmproxy_requests_total{model="demo",status="200"}', 40)
        assert await metric(workers.port, "llmproxy_workers") == 2
        deleted = await said(workers.port, "DELETE", "/api/cache")
        assert deleted == {"deleted": 2}, "each worker had a cache of its own, and all are emptied"
        assert await said(workers.port, "DELETE", "/api/cache") == {"deleted": 0}
        assert await workers.end() == 0


async def test_a_worker_that_is_killed_costs_only_its_own_calls_and_is_replaced(tmp_path: Path) -> None:
    await kills(tmp_path, 3)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_fifty_workers_that_are_killed_cost_only_their_own_calls(tmp_path: Path) -> None:
    await kills(tmp_path, 50)


async def kills(folder: Path, count: int) -> None:
    """Kill workers under a load of new connections: what fails was in flight on the one that was killed."""
    at_once = 24
    async with working(folder, BRIEF, "--workers", "2") as workers:
        lost = made = most = 0
        going = True

        async def load() -> None:
            nonlocal lost, made
            while going:
                found = await ask(workers.port, "POST", CHAT, STREAMED)
                made += 1
                if found.status not in (0, 200) or not found.whole:
                    lost += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(load())
            for number in range(1, count + 1):
                done = made
                await eventually(lambda done=done: made > done + 2 * at_once)  # type: ignore[misc]
                before = lost
                victim = workers.pids[0]
                kill(victim)
                await workers.line("a worker ended, and is replaced", number, code=-signal.SIGKILL)
                await eventually(lambda victim=victim: len(workers.pids) == 2 and victim not in workers.pids)  # type: ignore[misc]
                most = max(most, lost - before)
            done = made
            await eventually(lambda: made > done + 2 * at_once)
            going = False

        codes = [it["code"] for it in workers.said if it["message"] == "a worker ended, and is replaced"]
        assert codes == [-signal.SIGKILL] * count, workers.text[-4000:]
        assert most <= at_once
        assert lost <= count * at_once
        health = await said(workers.port, "GET", "/health")
        assert health["workers"]["missing"] == []
        assert await metric(workers.port, "llmproxy_worker_restarts_total") == count
        assert await workers.end() == 0
        print(f"{count} kills, {made} calls, {lost} lost, at most {most} by one kill")  # noqa: T201 - a soak's figures


async def test_what_waits_in_the_queue_of_a_dead_worker_is_answered_by_the_one_that_replaces_it(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        for pid in workers.pids:
            os.kill(pid, signal.SIGSTOP)  # connections are made by the kernel, and wait
        waiting = [asyncio.ensure_future(ask(workers.port, "POST", CHAT, QUESTION)) for _ in range(8)]  # noqa: TID251 - awaited below
        await eventually(lambda: queued(workers.port) == 8)
        for pid in workers.pids:
            kill(pid)

        answers = await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)

        assert {(it.status, it.whole) for it in answers} == {(200, True)}


def queued(port: int) -> int:
    """How many connections to *port* are made and not yet accepted (proc_net_tcp: rx_queue of a listening socket)."""
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    found = [it.split() for it in lines]
    return sum(int(it[4].partition(":")[2], 16) for it in found if it[3] == "0A" and it[1].endswith(f":{port:04X}"))


async def test_sigterm_lets_long_streams_end_whole(tmp_path: Path) -> None:
    async with working(tmp_path, SLOW, "--workers", "2") as workers:
        streams = [asyncio.ensure_future(ask(workers.port, "POST", CHAT, STREAMED)) for _ in range(6)]  # noqa: TID251 - awaited below
        await active(workers, 6)

        assert await workers.end(signal.SIGTERM) == 0

        answers = await asyncio.wait_for(asyncio.gather(*streams), WAIT_S)
        assert {(it.status, it.whole) for it in answers} == {(200, True)}


async def active(workers: Workers, count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await said(workers.port, "GET", "/health"))["in_flight"] < count:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def test_a_ctrl_c_that_reaches_all_processes_drains_them(tmp_path: Path) -> None:
    async with working(tmp_path, SLOW, "--workers", "2") as workers:
        stream = asyncio.ensure_future(ask(workers.port, "POST", CHAT, STREAMED))  # noqa: TID251 - awaited below
        await active(workers, 1)
        for pid in [*workers.pids, workers.process.pid]:
            os.kill(pid, signal.SIGINT)

        found = await asyncio.wait_for(stream, WAIT_S)

        assert (found.status, found.whole) == (200, True)
        assert await asyncio.wait_for(workers.process.wait(), WAIT_S) == 0


async def test_workers_whose_parent_is_killed_finish_their_calls_and_end(tmp_path: Path) -> None:
    async with working(tmp_path, SLOW, "--workers", "2") as workers:
        pids = workers.pids
        stream = asyncio.ensure_future(ask(workers.port, "POST", CHAT, STREAMED))  # noqa: TID251 - awaited below
        await active(workers, 1)
        kill(workers.process.pid)

        found = await asyncio.wait_for(stream, WAIT_S)

        assert (found.status, found.whole) == (200, True)
        await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


# -- reloading -------------------------------------------------------------------------------------------------------


async def test_a_reload_is_served_by_all_workers_whoever_is_asked_for_it(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        (tmp_path / "proxy.toml").write_text(CONFIG.replace('"first"', '"second"').replace("port = 0", "port = 1"))

        done = await said(workers.port, "POST", "/api/reload")

        assert (done["reloaded"], done["generation"], done["needs_restart"]) == (True, 2, ["server.port"])
        asked = QUESTION.replace(b'"demo"', b'"second"')
        answers = await asyncio.gather(*(ask(workers.port, "POST", CHAT, asked) for _ in range(20)))
        assert {it.status for it in answers} == {200}
        assert await metric(workers.port, 'llmproxy_reloads_total{result="ok"}') == 1
        workers.send(signal.SIGHUP)
        await workers.line("reloaded: unchanged", cause="SIGHUP")


async def test_a_bad_file_changes_nothing_in_any_worker_and_health_says_so(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        (tmp_path / "proxy.toml").write_text(CONFIG.replace('target_llm = "demo"', 'target_llm = "dmo"'))

        found = await ask(workers.port, "POST", "/api/reload")

        assert found.status == 422
        assert "route[1].target_llm" in found.body.decode()
        await spread(workers, 10)
        health = await said(workers.port, "GET", "/health")
        assert [code for code, _ in not_well(health)] == ["reload_failed"]


async def test_when_one_worker_cannot_prepare_none_changes(tmp_path: Path) -> None:
    """The second worker to prepare finds the lock taken."""
    plugin = tmp_path / "llmproxy_picky.py"
    plugin.write_text(PICKY)
    information = tmp_path / "llmproxy_picky-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: llmproxy-picky\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[llmproxy]\npicky = llmproxy_picky\n")
    async with working(
        tmp_path,
        CONFIG,
        "--workers",
        "2",
        variables={"PYTHONPATH": str(tmp_path) + os.pathsep + os.environ.get("PYTHONPATH", "")},
    ) as workers:
        changed = CONFIG.replace('"first"', '"second"').replace('processors = ["cache"]', 'processors = ["picky"]')
        lock = tmp_path / "lock"
        (tmp_path / "proxy.toml").write_text(f'{changed}\n[processor.picky]\ntype = "picky"\nlock = "{lock}"\n')

        found = await ask(workers.port, "POST", "/api/reload")

        assert found.status == 422
        assert "processor.picky" in found.body.decode()
        asked = QUESTION.replace(b'"demo"', b'"second"')
        answers = await asyncio.gather(*(ask(workers.port, "POST", CHAT, asked) for _ in range(20)))
        assert {it.status for it in answers} == {404}, "no worker serves the new configuration"


PICKY = '''
import os
from pathlib import Path

import attrs

from llmproxy_core import ConfigError, Operation, Problem, ProcessorType, hookimpl, option


@attrs.frozen(kw_only=True)
class PickyConfig:
    """Can be built in one process."""

    lock: str = option("A file that only one can make.", example="lock")


class Picky:
    async def __call__(self, exchange, call_next):
        return await call_next(exchange)


def build(config, services):
    try:
        Path(config.lock).touch(exist_ok=False)
    except FileExistsError:
        raise ConfigError([Problem("lock", "another process has it")]) from None
    return Picky()


@hookimpl
def llmproxy_processors():
    return [ProcessorType("picky", PickyConfig, build, frozenset(Operation))]
'''


async def test_a_worker_that_is_stuck_is_named_by_health_within_a_second(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        stuck = workers.pids[0]
        os.kill(stuck, signal.SIGSTOP)
        try:
            found = await from_the_other(workers)
        finally:
            os.kill(stuck, signal.SIGCONT)

        assert [code for code, _ in not_well(found)] == ["worker_missing"]
        assert len(found["workers"]["missing"]) == 1


async def from_the_other(workers: Workers) -> Any:
    """What the worker says that is not stopped: half of the connections wait for the one that is."""
    asking = {asyncio.ensure_future(said(workers.port, "GET", "/health")) for _ in range(12)}  # noqa: TID251 - awaited below
    done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED, timeout=WAIT_S)
    found = done.pop().result()
    for it in (*waiting, *done):
        it.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    return found


# -- beginning -------------------------------------------------------------------------------------------------------


async def test_workers_that_cannot_begin_end_the_process_with_the_reason(tmp_path: Path) -> None:
    config = CONFIG + '[processor.budget]\ntype = "cost_limit"\ndaily_usd = "1.00"\n'
    async with working(tmp_path, config.replace('["cache"]', '["budget"]'), "--workers", "2", wait=False) as workers:
        assert await asyncio.wait_for(workers.process.wait(), WAIT_S) == 2

    assert "processor.budget.store" in workers.text
    assert "each of the 2 workers" in workers.text


async def test_a_port_that_somebody_has_is_refused_also_when_the_kernel_would_share_it(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as first:
        again = CONFIG.replace("port = 0", f"port = {first.port}")
        async with working(tmp_path, again, "--workers", "2", wait=False) as second:
            assert await asyncio.wait_for(second.process.wait(), WAIT_S) == 2

        assert "cannot listen on 127.0.0.1" in second.text


async def test_own_endpoints_at_an_address_of_their_own_are_served_by_workers_too(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    config = CONFIG.replace("port = 0", f'port = 0\nown_endpoints = "127.0.0.1:{port}"')
    async with working(tmp_path, config, "--workers", "2") as workers:
        assert (await ask(workers.port, "GET", "/health")).status == 404

        health = await said(port, "GET", "/health")

    assert health["workers"]["answering"] == 2


async def test_replacing_workers_leaks_no_descriptors(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "1", "--workers", "2") as workers:
        descriptors = Path(f"/proc/{workers.process.pid}/fd")
        before = len(list(descriptors.iterdir()))
        for number in range(1, 6):
            victim = workers.pids[0]
            kill(victim)
            await workers.line("a worker ended, and is replaced", number)
            await eventually(lambda victim=victim: len(workers.pids) == 2 and victim not in workers.pids)  # type: ignore[misc]
            await eventually_serves(workers)

        await eventually(lambda: len(list(descriptors.iterdir())) <= before)


async def eventually_serves(workers: Workers) -> None:
    async with asyncio.timeout(WAIT_S):
        while json.loads((await ask(workers.port, "GET", "/health")).body)["workers"]["missing"]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
