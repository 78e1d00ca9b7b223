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
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

from llmproxy_core.tasks import Tasks
from llmproxy_server.process.inherited import Inherited, Opened
from llmproxy_server.process.notify import Notifier
from llmproxy_server.process.predecessor import VARIABLE, HandedDown, Place, Predecessor, handed_down
from llmproxy_server.process.spawn import ChildProcess
from llmproxy_server.process.takeover import Successor, Takeover
from tests.llmproxy_server.cli_process import environment
from tests.llmproxy_server.edging import answer, chunks, head, many, post
from tests.llmproxy_server.process.test_notify import manager
from tests.rawclient import Client, connected
from tests.script import Step
from tests.upstream import Chunk, End, Head, Upstream, Wait, chat_chunk, sse
from tests.workers import CONFIG_DEMO, QUESTION, STREAMED, WAIT_S, Line, Workers, ask, said, working

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc"),
    pytest.mark.timeout(180),
]
LONG = pytest.mark.soak
_long = [LONG, pytest.mark.timeout(300)]
BOTH = pytest.mark.parametrize("count", ["1", pytest.param("2", marks=_long)], ids=["one process", "workers"])
"""With workers each takes several seconds: those are for `make soak`, but for what is about workers."""
START_S = 2 * WAIT_S
"""Longer than a new version may take: why it has not taken over is in the log then."""
CHAT = "/v1/chat/completions"
ONE = sse(chat_chunk("one"), done=False)
REST = sse(chat_chunk(None, finish="stop"))
ENDLESS = """\
[llm.endless]
provider = "openai"
base_url = "{}"

[[route]]
path_prefix = "/long"
target_llm = "endless"
"""
STARTED = "a new version is started, and is to take over"
OVER = "a new version has taken over: this one drains and ends"
NOT_OVER = "the new version has not taken over: this one serves on"
CONFIG = CONFIG_DEMO.replace('processors = ["cache"]', "").replace('[processor.cache]\ntype = "cache"\n', "")


async def eventually(holds: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    """Of processes that tell nobody what becomes of them."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


class Versions:
    """A proxy, and the versions that took its place; all write the same log."""

    def __init__(self, first: Workers) -> None:
        self.first = first
        self.port = first.port
        self.main: int | None = first.process.pid
        """The process that serves, or the parent of those that do; None: it was told to end."""

    def lines(self, message: str) -> list[Line]:
        return [it for it in self.first.said if it["message"] == message]

    def ask_for_another(self) -> None:
        self.send(signal.SIGUSR2)

    def send(self, number: signal.Signals) -> None:
        assert self.main is not None
        os.kill(self.main, number)

    def end(self) -> None:
        if self.main is not None:
            self.send(signal.SIGTERM)
        self.main = None

    async def take_over(self) -> None:
        """Have a new version take over."""
        before = len(self.lines(OVER)), len(self.lines(NOT_OVER))
        self.ask_for_another()
        await eventually(lambda: (len(self.lines(OVER)), len(self.lines(NOT_OVER))) != before, START_S)
        assert len(self.lines(OVER)) > before[0], self.first.text[-4000:]
        self.main = self.lines(OVER)[-1]["successor"]

    async def stopped(self, count: int) -> None:
        """Wait until so many versions have ended as they should."""
        await eventually(lambda: len(self.lines("stopped")) == count)


@asynccontextmanager
async def versions(folder: Path, config: str, *arguments: str, **variables: str) -> AsyncIterator[Versions]:
    """The proxy of *config*. At the end its last version is told to end, and all of them are gone."""
    async with working(folder, config, *arguments, variables=variables) as workers:
        found = Versions(workers)
        try:
            yield found
        finally:
            found.end()


@attrs.define
class Load:
    """What clients that never pause have seen."""

    port: int
    served: int = 0
    failed: list[object] = attrs.field(factory=list)
    ended: bool = False
    over: asyncio.Event = attrs.field(factory=asyncio.Event)
    """Every client has its last answer."""

    async def anew(self) -> None:
        """Each call on a connection of its own."""
        while not self.ended:
            for asked in (QUESTION, STREAMED):
                try:
                    found = await ask(self.port, "POST", CHAT, asked)
                except OSError as error:
                    self.failed.append(error)
                    continue
                self.note(found, right=found.status == 200 and found.whole)

    async def kept(self) -> None:
        """As many calls on a connection as the proxy allows."""
        while not self.ended:
            try:
                async with connected(self.port) as client:
                    while not self.ended and await self.goes_on(client):
                        pass
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failed.append(error)

    async def goes_on(self, client: Client) -> bool:
        """One call on *client*; whether it may carry another."""
        client.send(post(QUESTION))
        found = await answer(client)
        self.note(found, right=found.status == 200 and found.complete)
        return ("connection", "close") not in found.headers

    def note(self, found: object, *, right: bool) -> None:
        self.served += 1
        if not right:
            self.failed.append(found)

    async def go_on(self, calls: int = 20) -> None:
        """Until so many more calls were served."""
        until = self.served + calls
        await eventually(lambda: self.served >= until)


@asynccontextmanager
async def loaded(port: int) -> AsyncIterator[Load]:
    load = Load(port)
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(each()) for each in [load.anew, load.kept] * 2]
        ending = asyncio.gather(*clients)
        ending.add_done_callback(lambda _: load.over.set())
        try:
            yield load
        finally:
            load.ended = True


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
        async with activated(tmp_path, held, count) as first, loaded(port) as load:
            await load.go_on()
            assert await first.end() == 0
            async with activated(tmp_path, held, count) as second:
                await load.go_on()
                load.ended = True
                await load.over.wait()
                assert await second.end() == 0

    assert load.failed == []


@asynccontextmanager
async def activated(folder: Path, held: socket.socket, count: str) -> AsyncIterator[Workers]:
    """The proxy as systemd starts it, on the socket *held*."""
    (folder / "proxy.toml").write_text(CONFIG)
    code = (
        f"import os, sys; os.dup2({held.fileno()}, 3); "
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.executable, sys.argv[1:])"
    )
    serve = [sys.executable, "-m", "llmproxy_server", "serve", "--config", "proxy.toml", "--workers", count]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        *serve,
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        pass_fds=[held.fileno()],
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


class Trial:
    """A Takeover whose new version is any program, and who hears what of it."""

    def __init__(self, code: str, *, ready_s: float = WAIT_S) -> None:
        self.code = code
        self.started: list[ChildProcess] = []
        self.relieved = 0
        self.tasks = Tasks()
        self.takeover = Takeover(
            Inherited, self._relieve, notifier=Notifier({}), tasks=self.tasks, start=self._start, ready_s=ready_s
        )

    def _start(self, sockets: Inherited) -> Successor:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [sys.executable, "-c", self.code, str(theirs.fileno())]
            process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()])
            self.started.append(ChildProcess(process, name="a trial"))
        return Successor(self.started[-1], ours)

    def _relieve(self) -> None:
        self.relieved += 1

    async def outcome(self) -> bool:
        async with asyncio.timeout(WAIT_S):
            return await self.takeover.settled()


SILENT = "import signal; signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
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
    await asyncio.sleep(0)  # the attempt begins
    trial.takeover.stop()
    await asyncio.wait_for(trial.tasks.drain(0), WAIT_S)

    assert trial.relieved == 0
    assert await asyncio.wait_for(trial.started[0].ended, WAIT_S) < 0


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


async def test_who_takes_over_tells_the_old_version_and_waits_until_that_has_told_the_manager() -> None:
    ours, theirs = socket.socketpair()
    said = asyncio.Event()
    with listening(2) as opened, ours, theirs:
        environ = given(opened, theirs)
        found = handed_down(environ)
        assert found is not None
        assert found.listening is not None
        assert isinstance(found.predecessor, Predecessor)
        old = Successor(running(), ours)

        found.predecessor.relieve(said.set)
        assert await asyncio.wait_for(old.is_ready(), WAIT_S)
        assert not said.is_set()
        old.relieve_us()
        await asyncio.wait_for(said.wait(), WAIT_S)

        assert environ == {"OTHER": "stays"}
        assert [it.getsockname() for it in found.listening.sockets] == [it.getsockname() for it in opened.sockets]
        assert not any(os.get_inheritable(it.fileno()) for it in found.listening.sockets)
        found.listening.close()


def running() -> ChildProcess:
    """A process that ends at once."""
    return ChildProcess(subprocess.Popen([sys.executable, "-c", ""]), name="nothing")


async def test_the_end_of_the_old_version_lets_the_new_one_speak() -> None:
    ours, theirs = socket.socketpair()
    said = asyncio.Event()
    ours.close()
    Predecessor(theirs).relieve(said.set)

    await asyncio.wait_for(said.wait(), WAIT_S)


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
