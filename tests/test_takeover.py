"""A new version takes over: the one that runs starts it on its own sockets, and nobody who calls notices."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest

from llmproxy_core.tasks import Tasks
from llmproxy_server.process.inherited import Inherited, Opened
from llmproxy_server.process.notify import Notifier
from llmproxy_server.process.predecessor import RELIEVED, VARIABLE, HandedDown, Place, Predecessor, handed_down
from llmproxy_server.process.spawn import ChildProcess
from llmproxy_server.process.takeover import Successor, Takeover
from tests.llmproxy_server.cli_process import environment
from tests.llmproxy_server.edging import answer, chunks, head, many, post
from tests.llmproxy_server.process.test_notify import manager
from tests.rawclient import Client, connected
from tests.script import Step
from tests.upstream import Chunk, End, Head, Upstream, Wait
from tests.versions import (
    CHAT,
    CONFIG,
    ENDLESS,
    NOT_OVER,
    ONE,
    OVER,
    REST,
    START_S,
    STARTED,
    Versions,
    eventually,
    loaded,
    versions,
)
from tests.workers import QUESTION, STREAMED, WAIT_S, Workers, ask, said

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc"),
    pytest.mark.timeout(180),
]
LONG = pytest.mark.soak
_long = [LONG, pytest.mark.timeout(300)]
BOTH = pytest.mark.parametrize("count", ["1", pytest.param("2", marks=_long)], ids=["one process", "workers"])
"""With workers each takes several seconds: those are for `make soak`, but for what is about workers."""


# -- without a drop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "times"),
    [("1", 1), pytest.param("2", 1, marks=_long), pytest.param("1", 3, marks=_long), pytest.param("2", 3, marks=_long)],
)
async def test_takeovers_under_load_fail_no_call_and_cut_no_stream(tmp_path: Path, count: str, times: int) -> None:
    release = [asyncio.Event() for _ in range(times)]
    async with Upstream(timeout_s=120) as endless:
        config = CONFIG + ENDLESS.format(endless.base_url)
        async with (
            versions(tmp_path, config, "--workers", count) as proxy,
            loaded(proxy.port) as load,
        ):
            for number, over in enumerate(release, 1):
                endless.then([Head(), Chunk(ONE), Wait(over), Chunk(REST), End()])
                async with connected(proxy.port) as client:
                    client.send(post(STREAMED, "/long" + CHAT))
                    assert (await head(client)).status == 200
                    await load.go_on()

                    await proxy.take_over()
                    await load.go_on()
                    assert len(proxy.lines("stopped")) == number - 1, "the old one waits for its stream"
                    over.set()

                    assert await asyncio.wait_for(chunks(client), WAIT_S) == (ONE + REST, True)
                await proxy.stopped(number)
            await load.go_on()
            # Not `wait`, which waits for the pipes as well: the new version has them.
            await eventually(lambda: proxy.first.process.returncode == 0)
        assert load.failed == []
        print(f"{times} takeovers, {load.served} calls, 0 failed")  # noqa: T201 - the figure of docs/reliability.md
    assert "Traceback" not in proxy.first.text


@asynccontextmanager
async def outlasted(folder: Path) -> AsyncIterator[tuple[Versions, Client, Client, asyncio.Event]]:
    """
    A takeover, two connections of the time before, and what ends the stream that the second one still gets.

    The first one is idle. The head of the stream was sent before, so that nothing has told its client of the end.
    """
    over = asyncio.Event()
    async with Upstream(timeout_s=60) as endless:
        endless.then([Head(), Chunk(ONE), Wait(over), Chunk(REST), End()])
        async with (
            versions(folder, CONFIG + ENDLESS.format(endless.base_url)) as proxy,
            connected(proxy.port) as idle,
            connected(proxy.port) as client,
        ):
            idle.send(post(QUESTION))
            await answer(idle)
            client.send(post(STREAMED, "/long" + CHAT))
            assert "connection" not in await head(client)
            await proxy.take_over()
            yield proxy, idle, client, over


@pytest.mark.parametrize("late", [False, True], ids=["soon after it", "long after it"])
async def test_a_stream_that_outlasts_the_takeover_leaves_its_connection_open_for_one_more_call(
    tmp_path: Path, late: bool
) -> None:
    async with outlasted(tmp_path) as (proxy, idle, client, over):
        if late:  # connections that carry nothing have been closed by then
            await idle.rest()
        over.set()
        assert await asyncio.wait_for(chunks(client), WAIT_S) == (ONE + REST, True)
        client.send(post(QUESTION))
        again = await asyncio.wait_for(answer(client), WAIT_S)

        await proxy.stopped(1)
        assert (again.status, again["connection"]) == (200, "close")


async def test_a_connection_whose_stream_outlasts_the_takeover_is_closed_when_nothing_more_is_asked_on_it(
    tmp_path: Path,
) -> None:
    async with outlasted(tmp_path) as (proxy, _, client, over):
        over.set()
        await asyncio.wait_for(chunks(client), WAIT_S)

        await proxy.stopped(1)
        assert await client.rest() == b""


@BOTH
async def test_what_waits_in_the_queues_is_answered_by_the_new_version(tmp_path: Path, count: str) -> None:
    """The old one is stopped right after it has handed over: what it would have accepted, it does not."""
    async with versions(tmp_path, CONFIG, "--workers", count) as proxy:
        await proxy.take_over()
        answers = await asyncio.gather(*(ask(proxy.port, "POST", CHAT, QUESTION) for _ in range(40)))

        await proxy.stopped(1)

        assert {(it.status, it.whole) for it in answers} == {(200, True)}


@pytest.mark.parametrize(
    ("before", "after"), [(2, 3), pytest.param(1, 2, marks=_long), pytest.param(2, 1, marks=_long)]
)
async def test_another_number_of_workers_serves_all_sockets_of_the_old_ones(
    tmp_path: Path, before: int, after: int
) -> None:
    """Each socket has a queue, into which the kernel puts its share of the connections."""

    def file(workers: int) -> str:
        return CONFIG.replace("port = 0", f"port = 0\nworkers = {workers}")

    async with versions(tmp_path, file(before)) as proxy:
        (tmp_path / "proxy.toml").write_text(file(after))
        await proxy.take_over()
        await proxy.stopped(1)
        answers = await asyncio.gather(*(ask(proxy.port, "POST", CHAT, QUESTION) for _ in range(60)))
        health = await said(proxy.port, "GET", "/health")
        await proxy.take_over()  # what was shared is handed on, too
        await proxy.stopped(2)
        again = await asyncio.gather(*(ask(proxy.port, "POST", CHAT, QUESTION) for _ in range(60)))

    assert {(it.status, it.whole) for it in [*answers, *again]} == {(200, True)}
    assert health["status"] in ("ok", "degraded")
    assert health.get("workers", {"expected": 1})["expected"] == after


@BOTH
async def test_a_restart_on_a_socket_of_the_service_managers_fails_no_call(tmp_path: Path, count: str) -> None:
    """SIGTERM, then another process: what comes meanwhile waits in the queue, which the manager holds."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as held:
        port = held.getsockname()[1]
        async with activated(tmp_path, [held], count) as first, loaded(port) as load:
            await load.go_on()
            assert await first.end() == 0
            async with activated(tmp_path, [held], count) as second:
                await load.go_on()
                load.ended = True
                await load.over.wait()
                assert await second.end() == 0

    assert load.failed == []


@asynccontextmanager
async def activated(folder: Path, held: Sequence[socket.socket], count: str) -> AsyncIterator[Workers]:
    """The proxy as systemd starts it, on the sockets *held*."""
    (folder / "proxy.toml").write_text(CONFIG)
    numbers = [it.fileno() for it in held]
    code = (
        f"import os, sys; [os.dup2(given, to) for to, given in enumerate({numbers}, 3)]; "
        f"os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='{len(held)}'); "
        "os.execv(sys.executable, sys.argv[1:])"
    )
    async with started(folder, numbers, "--workers", count, before=["-c", code, sys.executable]) as workers:
        yield workers


@asynccontextmanager
async def started(
    folder: Path, descriptors: Sequence[int], *arguments: str, before: Sequence[str] = (), **variables: str
) -> AsyncIterator[Workers]:
    """The proxy of the file in *folder*, when it serves, with *descriptors*; *before*: what Python runs before it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *before,
        *("-m", "llmproxy_server", "serve", "--config", "proxy.toml"),
        *arguments,
        cwd=folder,
        env=environment(**variables),
        stderr=subprocess.PIPE,
        pass_fds=descriptors,
        limit=1 << 20,
    )
    workers = Workers(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(workers.read())
        try:
            await workers.until(lambda: bool(workers.url))
            yield workers
        finally:
            if process.returncode is None:
                process.kill()
            await asyncio.wait_for(process.wait(), WAIT_S)


# -- several addresses -----------------------------------------------------------------------------------------------


@BOTH
async def test_the_address_of_the_own_endpoints_is_handed_on_too(tmp_path: Path, count: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        own = bound.getsockname()[1]
    config = CONFIG.replace("port = 0", f'port = 0\nown_endpoints = "127.0.0.1:{own}"')
    async with versions(tmp_path, config, "--workers", count) as proxy:
        for number in (1, 2):
            asked = []
            async with asyncio.TaskGroup() as group:
                taking_over = group.create_task(proxy.take_over())
                while not taking_over.done():
                    asked.append(await ask(own, "GET", "/livez"))
            await proxy.stopped(number)
            asked.append(await ask(own, "GET", "/livez"))

            assert {(it.status, it.whole) for it in asked} == {(200, True)}
            assert (await ask(proxy.port, "POST", CHAT, QUESTION)).status == 200
            assert (await ask(own, "POST", CHAT, QUESTION)).status == 404


@BOTH
async def test_all_sockets_of_the_service_managers_are_handed_on(tmp_path: Path, count: str) -> None:
    with listening(2) as opened:
        ports = [it.getsockname()[1] for it in opened.sockets]
        async with activated(tmp_path, opened.sockets, count) as first:
            proxy = Versions(first)
            try:
                for number in (1, 2):
                    await proxy.take_over()
                    await proxy.stopped(number)
                    for port in ports:
                        assert (await ask(port, "POST", CHAT, QUESTION)).status == 200
            finally:
                proxy.end()
            await proxy.stopped(3)


@BOTH
async def test_sigterm_lets_twenty_streams_of_twenty_end_whole_and_refuses_what_is_new(
    tmp_path: Path, count: str
) -> None:
    release = asyncio.Event()
    script: list[Step] = [Head(), Chunk(ONE), Wait(release), Chunk(REST), End()]
    async with Upstream(script, timeout_s=120) as endless:
        config = CONFIG + ENDLESS.format(endless.base_url)
        async with versions(tmp_path, config, "--workers", count) as proxy, many(proxy.port, 20) as clients:
            for client in clients:
                client.send(post(STREAMED, "/long" + CHAT))
                assert (await head(client)).status == 200
            proxy.end()
            await eventually(lambda: refuses(proxy.port))
            release.set()

            whole = [await asyncio.wait_for(chunks(client), WAIT_S) for client in clients]

            assert whole == [(ONE + REST, True)] * 20
            # Not `wait`, which waits for the pipes as well: the new version has them.
            await eventually(lambda: proxy.first.process.returncode == 0)


def refuses(port: int) -> bool:
    """Whether nobody listens at *port*."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@LONG
async def test_the_new_version_serves_the_file_as_it_is_now(tmp_path: Path) -> None:
    async with versions(tmp_path, CONFIG) as proxy:
        (tmp_path / "proxy.toml").write_text(CONFIG.replace('"first"', '"second"'))
        await proxy.take_over()
        await proxy.stopped(1)

        found = await ask(proxy.port, "POST", CHAT, QUESTION.replace(b'"demo"', b'"second"'))

    assert found.status == 200


@LONG
async def test_an_address_that_the_file_does_not_say_any_more_is_let_go(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    async with versions(tmp_path, CONFIG) as proxy:
        (tmp_path / "proxy.toml").write_text(CONFIG.replace("port = 0", f"port = {port}"))
        await proxy.take_over()
        await proxy.stopped(1)

        assert (await ask(port, "POST", CHAT, QUESTION)).status == 200
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)


# -- what is out of service ------------------------------------------------------------------------------------------

GUARDED = CONFIG.replace("delay_ms = 0", "delay_ms = 0\nretries = { max_retries = 0 }")


async def drain(port: int, drained: bool) -> int:
    done = await ask(port, "POST", "/providers", json.dumps({"llm": "demo", "drained": drained}).encode())
    return done.status


async def statuses(port: int) -> set[int]:
    """Of calls on connections of their own."""
    return {it.status for it in await asyncio.gather(*(ask(port, "POST", CHAT, QUESTION) for _ in range(20)))}


@BOTH
async def test_what_is_out_of_service_stays_so_in_the_version_that_follows(tmp_path: Path, count: str) -> None:
    async with versions(tmp_path, GUARDED, "--workers", count) as proxy:
        assert await drain(proxy.port, True) == 200
        seen = set[int]()
        async with asyncio.TaskGroup() as group:
            taking_over = group.create_task(proxy.take_over())
            while not taking_over.done():
                seen |= await statuses(proxy.port)
        await proxy.stopped(1)
        seen |= await statuses(proxy.port)
        assert seen == {503}, "not even the first call of the new version is for it"

        assert await drain(proxy.port, False) == 200
        await proxy.take_over()
        await proxy.stopped(2)
        assert await statuses(proxy.port) == {200}


@BOTH
@pytest.mark.parametrize("drained", [True, False], ids=["drained", "restored"])
async def test_what_the_old_version_is_told_while_the_new_one_starts_holds_in_the_new_one(
    tmp_path: Path, count: str, drained: bool
) -> None:
    async with versions(tmp_path, GUARDED, "--workers", count) as proxy:
        assert await drain(proxy.port, not drained) == 200
        proxy.ask_for_another()
        await eventually(lambda: len(proxy.lines(STARTED)) == 1)
        assert await drain(proxy.port, drained) == 200
        await eventually(lambda: len(proxy.lines(OVER)) == 1, START_S)
        proxy.main = proxy.lines(OVER)[0]["successor"]
        await proxy.stopped(1)

        assert await statuses(proxy.port) == {503 if drained else 200}


@LONG
async def test_a_restart_forgets_what_was_out_of_service(tmp_path: Path) -> None:
    for _ in range(2):
        async with versions(tmp_path, GUARDED) as proxy:
            assert await statuses(proxy.port) == {200}
            assert await drain(proxy.port, True) == 200


# -- when it fails ---------------------------------------------------------------------------------------------------


@BOTH
async def test_a_new_version_that_cannot_begin_changes_nothing_and_the_next_may(tmp_path: Path, count: str) -> None:
    async with versions(tmp_path, CONFIG, "--workers", count) as proxy:
        async with loaded(proxy.port) as load:
            (tmp_path / "proxy.toml").write_text(CONFIG.replace('target_llm = "demo"', 'target_llm = "dmo"'))
            proxy.ask_for_another()
            await eventually(lambda: len(proxy.lines(NOT_OVER)) == 1)
            await load.go_on()
            (tmp_path / "proxy.toml").write_text(CONFIG)
            await proxy.take_over()
            await proxy.stopped(1)

        assert load.failed == []
        assert proxy.lines(NOT_OVER)[0]["reason"].startswith("it ended before it served, with status ")
        assert "route[1].target_llm" in proxy.first.text, "its own words are in the same log"


@LONG
async def test_a_new_version_that_is_killed_while_it_starts_changes_nothing(tmp_path: Path) -> None:
    async with versions(tmp_path, CONFIG) as proxy:
        proxy.ask_for_another()
        await eventually(lambda: len(proxy.lines(STARTED)) == 1)
        os.kill(proxy.lines(STARTED)[0]["successor"], signal.SIGKILL)
        await eventually(lambda: len(proxy.lines(NOT_OVER)) == 1)

        assert (await ask(proxy.port, "POST", CHAT, QUESTION)).status == 200
    assert proxy.lines(NOT_OVER)[0]["reason"] == "it ended before it served, with status -9"


@BOTH
async def test_a_stop_while_the_new_version_starts_ends_both(tmp_path: Path, count: str) -> None:
    async with versions(tmp_path, CONFIG, "--workers", count) as proxy:
        proxy.ask_for_another()
        await eventually(lambda: len(proxy.lines(STARTED)) == 1)
        proxy.end()

        assert await asyncio.wait_for(proxy.first.process.wait(), WAIT_S) == 0
    # Here the log has ended: nobody is left who could write to it.
    assert proxy.lines(OVER) == []
    assert "Traceback" not in proxy.first.text


@BOTH
async def test_a_new_version_that_is_told_to_end_before_it_took_over_lets_its_clients_know(
    tmp_path: Path, count: str
) -> None:
    """Others serve on the same sockets: who has a connection of it is to go there, and loses no call on the way."""
    (tmp_path / "proxy.toml").write_text(CONFIG)
    ours, theirs = socket.socketpair()
    with listening(1) as opened, ours, theirs:
        environ = {VARIABLE: given(opened, theirs)[VARIABLE]}
        handed = msgspec.json.decode(environ[VARIABLE], type=HandedDown)
        descriptors = [handed.channel, *(it for share in handed.listening.shares for it in share)]
        async with started(tmp_path, descriptors, "--workers", count, **environ) as new:
            async with connected(new.port) as client:
                client.send(post(QUESTION))
                first = await answer(client)
                new.send(signal.SIGTERM)
                await new.line("draining")
                client.send(post(QUESTION))
                last = await answer(client)

            assert await asyncio.wait_for(new.process.wait(), WAIT_S) == 0
        for each in descriptors:
            os.close(each)

    assert (first.status, ("connection", "close") in first.headers) == (200, False)
    assert (last.status, ("connection", "close") in last.headers) == (200, True)


class Trial:
    """A Takeover whose new version is any program, and who hears what of it."""

    def __init__(self, code: str, *, ready_s: float = WAIT_S) -> None:
        self.code = code
        self.started: list[ChildProcess] = []
        self.said: IO[bytes] | None = None
        self.relieved = 0
        self.tasks = Tasks()
        self.takeover = Takeover(
            Inherited,
            self._relieve,
            drained=tuple,
            notifier=Notifier({}),
            tasks=self.tasks,
            start=self._start,
            ready_s=ready_s,
        )

    def _start(self, given: Inherited) -> Successor:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [sys.executable, "-c", self.code, str(theirs.fileno())]
            stdout = subprocess.PIPE if "print" in self.code else None
            process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], stdout=stdout)
            self.said = process.stdout
            self.started.append(ChildProcess(process, name="a trial"))
        return Successor(self.started[-1], ours)

    def _relieve(self) -> None:
        self.relieved += 1

    async def outcome(self) -> bool:
        async with asyncio.timeout(WAIT_S):
            return await self.takeover.settled()

    async def line(self) -> bytes:
        """What the new version says first."""
        await eventually(lambda: self.said is not None)
        assert self.said is not None
        with self.said:
            return await asyncio.wait_for(asyncio.to_thread(self.said.readline), WAIT_S)


SILENT = "import signal; signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); signal.pause()"
LATE = """
import signal, socket, sys

def end(*_):
    channel.send(b"r")
    channel.recv(1)  # as long as the old one waits
    sys.exit(7)

channel = socket.socket(fileno=int(sys.argv[1]))
signal.signal(signal.SIGTERM, end)
print("can be told to end", flush=True)
signal.pause()
"""
"""It serves in the moment that it is told to end, and has calls to finish."""
WELL = "import signal, socket, sys; socket.socket(fileno=int(sys.argv[1])).send(b'r'); signal.pause()"


async def test_a_new_version_that_does_not_serve_in_time_is_ended_and_the_old_one_serves_on() -> None:
    trial = Trial(SILENT, ready_s=0.1)
    trial.takeover.begin()

    assert await trial.outcome() is False
    assert trial.relieved == 0
    assert await asyncio.wait_for(trial.started[0].ended, WAIT_S) == -signal.SIGTERM


async def test_one_that_serves_is_let_live_and_no_other_takes_over_then() -> None:
    trial = Trial(WELL)
    trial.takeover.begin()
    trial.takeover.begin()  # while the first starts

    assert await trial.outcome() is True
    trial.takeover.begin()
    assert (trial.relieved, len(trial.started)) == (1, 1)
    assert not trial.started[0].ended.done()
    trial.started[0].kill()
    assert await asyncio.wait_for(trial.started[0].ended, WAIT_S) == -signal.SIGKILL


async def test_one_that_will_not_end_is_killed_when_the_old_one_ends() -> None:
    trial = Trial(STUBBORN)
    trial.takeover.begin()
    assert await trial.line() == b"here\n"
    trial.takeover.stop()
    await asyncio.wait_for(trial.tasks.drain(0), WAIT_S)

    assert trial.relieved == 0
    assert await asyncio.wait_for(trial.started[0].ended, WAIT_S) < 0


async def test_one_that_begins_to_serve_as_both_are_told_to_end_drains_what_it_has_accepted() -> None:
    trial = Trial(LATE)
    trial.takeover.begin()
    assert await trial.line() == b"can be told to end\n"
    trial.takeover.stop()
    await trial.takeover.over(0.2)
    assert not trial.started[0].ended.done(), "it is waited for"
    await asyncio.wait_for(trial.tasks.drain(0), WAIT_S)

    assert (trial.relieved, trial.takeover.is_over) == (0, False)
    assert await asyncio.wait_for(trial.started[0].ended, WAIT_S) == 7, "also when the old one is gone before"


async def test_a_stop_before_the_new_version_is_there_starts_none() -> None:
    trial = Trial(WELL)
    trial.takeover.begin()
    trial.takeover.stop()

    assert await trial.outcome() is False
    assert trial.started == []


@LONG
async def test_a_reload_while_the_new_version_starts_waits_for_what_comes_of_it(tmp_path: Path) -> None:
    """The new version reads the file when it starts: what the old one reloaded after that would be lost unsaid."""
    async with versions(tmp_path, CONFIG) as proxy:
        proxy.ask_for_another()
        await eventually(lambda: len(proxy.lines(STARTED)) == 1)
        proxy.send(signal.SIGHUP)
        await eventually(lambda: len(proxy.lines(OVER)) == 1)
        proxy.main = proxy.lines(OVER)[0]["successor"]
        await proxy.stopped(1)

    assert [it["cause"] for it in proxy.lines("not reloaded: the process is about to end")] == ["SIGHUP"]
    assert proxy.lines("reloaded: unchanged") == []


# -- what is handed down ---------------------------------------------------------------------------------------------


def given(opened: Opened, channel: socket.socket, **more: Any) -> dict[str, str]:
    """The environment of a process that has *opened*, copied as a new process has it, and *channel*."""
    place = Place([[os.dup(it.fileno()) for it in share] for share in opened.shares], opened.address)
    said = HandedDown(os.dup(channel.fileno()), place, **more)
    return {VARIABLE: json.dumps(msgspec.to_builtins(said)), "OTHER": "stays"}


@contextmanager
def listening(count: int) -> Iterator[Opened]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    opened = Opened(tuple((it,) for it in sockets), "127.0.0.1:0")
    yield opened
    opened.close()


class Told:
    """What the old version has said at last."""

    def __init__(self) -> None:
        self.drains: Mapping[str, bool] | None = None
        self._over = asyncio.Event()

    def __call__(self, drains: Mapping[str, bool]) -> None:
        self.drains = drains
        self._over.set()

    async def wait(self) -> Mapping[str, bool]:
        await asyncio.wait_for(self._over.wait(), WAIT_S)
        assert self.drains is not None
        return self.drains


async def test_who_takes_over_tells_the_old_version_and_waits_until_that_has_told_the_manager() -> None:
    ours, theirs = socket.socketpair()
    said = Told()
    with listening(2) as opened, ours, theirs:
        environ = given(opened, theirs)
        found = handed_down(environ)
        assert found is not None
        assert found.listening is not None
        assert isinstance(found.predecessor, Predecessor)
        old = Successor(running(), ours)

        found.predecessor.relieve(said)
        assert await asyncio.wait_for(old.is_ready(), WAIT_S)
        assert said.drains is None
        old.relieve_us({})
        old.close()
        assert await said.wait() == {}

        assert environ == {"OTHER": "stays"}
        assert [it.getsockname() for it in found.listening.sockets] == [it.getsockname() for it in opened.sockets]
        assert not any(os.get_inheritable(it.fileno()) for it in found.listening.sockets)
        found.listening.close()


def running() -> ChildProcess:
    """A process that ends at once."""
    return ChildProcess(subprocess.Popen([sys.executable, "-c", ""]), name="nothing")


async def test_the_end_of_the_old_version_lets_the_new_one_speak() -> None:
    ours, theirs = socket.socketpair()
    said = Told()
    ours.close()
    Predecessor(theirs).relieve(said)

    assert await said.wait() == {}


LAST_WORDS = {
    "nothing": (RELIEVED, {}),
    "some": (RELIEVED + b'{"drains":{"a":true,"b":false}}', {"a": True, "b": False}),
    "more than this one knows": (RELIEVED + b'{"drains":{"a":true},"later":[1]}', {"a": True}),
    "what cannot be read": (RELIEVED + b'{"drains":', {}),
}


@pytest.mark.parametrize(("words", "expected"), LAST_WORDS.values(), ids=LAST_WORDS)
async def test_the_last_words_of_the_old_version_are_heard_however_they_come(
    words: bytes, expected: dict[str, bool]
) -> None:
    ours, theirs = socket.socketpair()
    said = Told()
    with ours:
        Predecessor(theirs).relieve(said)
        for each in words:
            ours.send(bytes([each]))
            await asyncio.sleep(0)

    assert await said.wait() == expected


def test_what_is_said_by_a_later_version_may_hold_more_than_this_one_knows() -> None:
    ours, theirs = socket.socketpair()
    with listening(1) as opened, ours, theirs:
        environ = given(opened, theirs)
        said = json.loads(environ[VARIABLE])
        environ[VARIABLE] = json.dumps({**said, "later": 1, "listening": {**said["listening"], "later": 2}})

        found = handed_down(environ)

        assert found is not None
        assert found.listening is not None
        found.listening.close()
        assert found.predecessor is not None
        found.predecessor.close()


def test_a_unix_socket_is_refused_as_there_is_no_listener_of_that_kind(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with socket.socket(socket.AF_UNIX) as listener, ours, theirs:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        environ = given(Opened(((listener,),)), theirs)
        numbers = json.loads(environ[VARIABLE])
        with pytest.raises(ValueError, match="is not TCP's"):
            handed_down(environ)

        for each in (numbers["channel"], *numbers["listening"]["shares"][0]):
            os.close(each)  # the process that is refused would end


@pytest.mark.parametrize("said", ["", "{}", '{"channel": 99999, "listening": {"shares": [[99999]]}}'])
def test_what_cannot_be_used_is_refused_with_the_name_of_the_variable(said: str) -> None:
    with pytest.raises(ValueError, match=VARIABLE):
        handed_down({VARIABLE: said})


def test_shares_are_dealt_one_each_or_all_to_all() -> None:
    with listening(2) as opened:
        first, second = opened.sockets

        assert opened.dealt(2) == [(first,), (second,)]
        assert opened.dealt(1) == [(first, second)]
        assert opened.dealt(3) == [(first, second)] * 3


# -- the service manager ---------------------------------------------------------------------------------------------


@BOTH
async def test_systemd_hears_of_the_new_main_process_and_then_from_it(tmp_path: Path, count: str) -> None:
    path = str(tmp_path / "notify")
    variables = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "60000000"}
    with manager(path) as systemd:
        async with versions(tmp_path, CONFIG, "--workers", count, **variables) as proxy:
            assert (await systemd.until("READY"))["READY"] == "1"
            await proxy.take_over()
            assert await systemd.until("MAINPID") == {"MAINPID": str(proxy.main)}
            assert (await systemd.until("READY"))["READY"] == "1"
            await proxy.stopped(1)
            proxy.end()
            await proxy.stopped(2)

            assert systemd.rest().count("STOPPING") == 1, "of its own end the old one has said nothing"
