"""Several workers, when things cross: reloads, deaths, stops, a full place for their numbers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from llmproxy_server.process import parent
from tests.workers import CONFIG_DEMO as CONFIG
from tests.workers import QUESTION, WAIT_S, Workers, ask, kill, not_well, said, working

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc"),
    pytest.mark.timeout(120),
]
CHAT = "/v1/chat/completions"
BUDGET = '[processor.budget]\ntype = "cost_limit"\ntotal_usd = "1.00"\n'
PLUGIN = '''
import asyncio
import os
from pathlib import Path

import attrs

from llmproxy_core import Operation, ProcessorType, hookimpl, option


@attrs.frozen(kw_only=True)
class FaultyConfig:
    """Does something that it should not when it is built."""

    does: str = option("What it does.", example="cancel")
    folder: str = option("Where it says that it has begun.", example="folder")


class Faulty:
    async def __call__(self, exchange, call_next):
        return await call_next(exchange)


def build(config, services):
    folder = Path(config.folder)
    (folder / f"building-{os.getpid()}").touch()
    if config.does == "cancel":
        raise asyncio.CancelledError
    if config.does == "die once" and not (folder / "died").exists():
        (folder / "died").touch()
        os._exit(3)
    if config.does == "die":
        os._exit(3)
    return Faulty()


@hookimpl
def llmproxy_processors():
    return [ProcessorType("faulty", FaultyConfig, build, frozenset(Operation))]
'''


def faulty(folder: Path) -> dict[str, str]:
    """Installs the plugin in *folder*; the variables with which a process finds it."""
    (folder / "llmproxy_faulty.py").write_text(PLUGIN)
    information = folder / "llmproxy_faulty-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: llmproxy-faulty\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[llmproxy]\nfaulty = llmproxy_faulty\n")
    return {"PYTHONPATH": str(folder) + os.pathsep + os.environ.get("PYTHONPATH", "")}


def with_fault(folder: Path, does: str) -> None:
    """The configuration with the faulty processor, which does so, and another model."""
    changed = CONFIG.replace('"first"', '"second"').replace('["cache"]', '["it"]')
    table = f'[processor.it]\ntype = "faulty"\ndoes = "{does}"\nfolder = "{folder}"\n'
    (folder / "proxy.toml").write_text(changed + table)


async def second(workers: Workers) -> set[int]:
    """The statuses of calls that only the changed configuration serves."""
    asked = QUESTION.replace(b'"demo"', b'"second"')
    answers = await asyncio.gather(*(ask(workers.port, "POST", CHAT, asked) for _ in range(20)))
    return {it.status for it in answers}


async def replaced(workers: Workers, victims: list[int]) -> None:
    """Kill *victims*, and wait until others serve in their place."""
    for victim in victims:
        kill(victim)
    await eventually(lambda: len(workers.pids) == 2 and not set(victims) & set(workers.pids))
    async with asyncio.timeout(WAIT_S):
        while (await said(workers.port, "GET", "/health"))["workers"]["missing"]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def eventually(holds: Callable[[], bool]) -> None:
    """Of processes that tell nobody what becomes of them."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


# -- what only a restart changes -------------------------------------------------------------------------------------


async def test_a_worker_that_takes_anothers_place_keeps_what_only_a_restart_changes(tmp_path: Path) -> None:
    port = free_port()
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        changed = CONFIG.replace("port = 0", f'port = {free_port()}\nown_endpoints = "127.0.0.1:{port}"\nworkers = 3')
        (tmp_path / "proxy.toml").write_text(changed.replace('"first"', '"second"'))
        reloaded = await said(workers.port, "POST", "/api/reload")
        await replaced(workers, list(workers.pids))

        answers = [await said(workers.port, "GET", "/health") for _ in range(12)]
        statuses = await second(workers)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    assert set(reloaded["needs_restart"]) == {"server.port", "server.own_endpoints"}
    assert [it for answer in answers for it in not_well(answer)] == []
    assert statuses == {200}


async def test_a_budget_that_each_worker_would_have_is_refused_by_a_reload_too(tmp_path: Path) -> None:
    """The file would be right for one worker, but two run."""
    async with working(tmp_path, CONFIG.replace("port = 0", "port = 0\nworkers = 2")) as workers:
        changed = CONFIG.replace("port = 0", "port = 0\nworkers = 1").replace('["cache"]', '["budget"]')
        (tmp_path / "proxy.toml").write_text(changed + BUDGET)
        found = await ask(workers.port, "POST", "/api/reload")

    assert found.status == 422
    (problem,) = json.loads(found.body)["problems"]
    assert problem["path"] == "processor.budget"
    assert "each of the 2 workers" in problem["message"]


# -- many at once ----------------------------------------------------------------------------------------------------


async def test_many_who_ask_at_once_are_told_that_all_workers_are_there(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        answers = await asyncio.gather(*(said(workers.port, "GET", "/health") for _ in range(200)))
        emptied = await asyncio.gather(*(said(workers.port, "DELETE", "/api/cache") for _ in range(60)))

    assert [it for answer in answers for it in not_well(answer)] == []
    assert {tuple(it["workers"]["missing"]) for it in answers} == {()}
    assert {it["deleted"] for it in emptied} == {0}


# -- crossing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 3])
async def test_a_stop_while_workers_are_started_is_one(tmp_path: Path, after: int) -> None:
    async with working(tmp_path, CONFIG, "--workers", "6", wait=False) as workers:
        await eventually(lambda: len(workers.pids) >= after)

        assert await workers.end() == 0

    assert "internal error" not in workers.text
    assert "Traceback" not in workers.text


async def test_a_reload_that_is_asked_for_while_workers_start_is_done_when_they_serve(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2", wait=False) as workers:
        await eventually(lambda: len(workers.pids) >= 1)
        (tmp_path / "proxy.toml").write_text(CONFIG.replace('"first"', '"second"'))
        workers.send(signal.SIGHUP)
        await workers.line("reloaded")

        assert await second(workers) == {200}


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["one process", "workers"])
async def test_a_file_that_cannot_be_read_to_its_end_holds_up_no_stop(tmp_path: Path, options: list[str]) -> None:
    """As one on a network file system whose server is gone."""
    async with working(tmp_path, CONFIG, *options) as workers:
        (tmp_path / "proxy.toml").unlink()
        os.mkfifo(tmp_path / "proxy.toml")
        workers.send(signal.SIGHUP)
        assert (await ask(workers.port, "POST", CHAT, QUESTION)).status == 200

        assert await workers.end() == 0

    assert "stopped" in [it["message"] for it in workers.said]


async def test_a_worker_that_dies_while_it_prepares_does_not_keep_a_good_file_from_being_served(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2", variables=faulty(tmp_path)) as workers:
        with_fault(tmp_path, "die once")
        workers.send(signal.SIGHUP)  # an admin call could be on the worker that dies
        await workers.line("reloaded")

        assert await second(workers) == {200}


async def test_a_file_that_kills_who_prepares_it_is_refused_and_the_old_one_serves(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2", variables=faulty(tmp_path)) as workers:
        with_fault(tmp_path, "die")
        workers.send(signal.SIGHUP)
        await workers.line("not reloaded: what was served before goes on")
        await replaced(workers, [])

        assert await second(workers) == {404}
        assert (await ask(workers.port, "POST", CHAT, QUESTION)).status == 200


async def test_a_factory_that_raises_a_cancellation_is_a_problem_and_the_next_reload_works(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2", variables=faulty(tmp_path)) as workers:
        with_fault(tmp_path, "cancel")
        refused = await ask(workers.port, "POST", "/api/reload")
        with_fault(tmp_path, "nothing")
        reloaded = await said(workers.port, "POST", "/api/reload")

    assert refused.status == 422
    assert "CancelledError" in refused.body.decode()
    assert reloaded["reloaded"] is True


async def test_that_the_last_reload_failed_is_known_to_workers_that_begin_later(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2") as workers:
        (tmp_path / "proxy.toml").write_text(CONFIG + "[[route]]\n")
        assert (await ask(workers.port, "POST", "/api/reload")).status == 422
        await replaced(workers, list(workers.pids))

        found = [await said(workers.port, "GET", "/health") for _ in range(8)]

    assert [[code for code, _ in not_well(each)] for each in found] == [["reload_failed"]] * 8


# -- stuck -----------------------------------------------------------------------------------------------------------


async def test_a_worker_that_is_silent_as_long_as_the_service_manager_waits_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1500000"}
        async with working(tmp_path, CONFIG, "--workers", "2", variables=variables) as workers:
            stuck = workers.pids[0]
            os.kill(stuck, signal.SIGSTOP)
            line = await workers.line("a worker is stuck, and is ended")
            await replaced(workers, [])

            assert line["silent_for_s"] == 1.5
            assert stuck not in workers.pids
            assert (await ask(workers.port, "POST", CHAT, QUESTION)).status == 200


# -- no place --------------------------------------------------------------------------------------------------------


def test_where_memory_has_no_room_the_numbers_of_workers_are_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_MEMORY", Path("/proc"))  # a folder in which nothing can be made

    directory, metering = parent._metering(["1", "2"])

    assert not directory.is_relative_to("/proc")
    assert {it.name for it in directory.glob("*.values")} == {"1.values", "2.values", "parent.values"}
    for each in directory.iterdir():
        each.unlink()
    directory.rmdir()
    metering.stop()


def test_where_there_is_no_room_at_all_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)

    with pytest.raises(parent.CannotBegin) as caught:
        parent._metering(["1", "2"])

    (problem,) = caught.value.problems
    assert re.search(r"no place .*No space left on device", problem.message)


# -- certificates ----------------------------------------------------------------------------------------------------


def certified(folder: Path, name: str) -> str:
    """The keys of `[server]` for a certificate of that name, which is made."""
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    subprocess.run([*made, "-subj", f"/CN={name}", *files], check=True, capture_output=True)
    return f'tls_certificate = "{name}.pem"\ntls_key = "{name}.key"'


async def test_a_worker_is_replaced_also_when_the_certificate_of_the_start_is_gone(tmp_path: Path) -> None:
    own = free_port()
    served = f'port = 0\nown_endpoints = "127.0.0.1:{own}"\n'
    first, other = (CONFIG.replace("port = 0", served + certified(tmp_path, name)) for name in ("first", "other"))
    async with working(tmp_path, first, "--workers", "2") as workers:
        (tmp_path / "proxy.toml").write_text(other)
        await said(own, "POST", "/api/reload")
        (tmp_path / "first.pem").unlink()
        (tmp_path / "first.key").unlink()
        victim = workers.pids[0]
        kill(victim)
        await eventually(lambda: len(workers.pids) == 2 and victim not in workers.pids)
        async with asyncio.timeout(WAIT_S):
            while (await said(own, "GET", "/health"))["workers"]["missing"]:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)

    assert "why a worker could not begin" not in workers.text


# -- signals ---------------------------------------------------------------------------------------------------------


async def test_a_new_version_that_is_asked_for_while_workers_start_is_started_when_they_serve(tmp_path: Path) -> None:
    async with working(tmp_path, CONFIG, "--workers", "2", wait=False) as workers:
        await eventually(lambda: len(workers.pids) >= 1)
        workers.send(signal.SIGUSR2)
        await workers.line("a new version is started, and is to take over")

        assert await workers.end() == 0


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["one process", "workers"])
@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
async def test_a_signal_that_comes_at_the_very_end_changes_nothing(
    again: signal.Signals, options: list[str], tmp_path: Path
) -> None:
    async with working(tmp_path, CONFIG, *options) as workers:
        workers.send(signal.SIGTERM)
        await workers.line("stopped")
        while workers.process.returncode is None:
            with suppress(ProcessLookupError):
                workers.send(again)
            await asyncio.sleep(0)

    assert workers.process.returncode == 0
