"""What systemd is told, and the sockets that it hands down: real datagrams, a real `systemd-socket-activate`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from llmproxy_core.config import ServerConfig
from llmproxy_server.process.activation import inherited
from llmproxy_server.process.inherited import Inherited, Opened
from llmproxy_server.process.notify import Notifier
from tests.llmproxy_server.cli_process import environment
from tests.needs import need_program
from tests.workers import CONFIG_DEMO, QUESTION, WAIT_S, Workers, ask, working

CHAT = "/v1/chat/completions"


class Manager:
    """The service manager's end."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        listening.setblocking(False)

    async def told(self) -> dict[str, str]:
        """The next datagram."""
        loop = asyncio.get_running_loop()
        data = await asyncio.wait_for(loop.sock_recv(self._socket, 4096), WAIT_S)
        return dict(line.split("=", 1) for line in data.decode().splitlines())

    def rest(self) -> str:
        """All that was told besides."""
        said = b""
        with suppress(BlockingIOError):
            while True:
                said += self._socket.recv(4096) + b"\n"
        return said.decode()

    async def until(self, name: str) -> dict[str, str]:
        """The next that says *name*, feedings of the watchdog left out."""
        while name not in (said := await self.told()):
            assert set(said) == {"WATCHDOG"} or name == "WATCHDOG", said
        return said


@contextmanager
def manager(address: str) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + address[1:] if address.startswith("@") else address)
        yield Manager(listening)


@pytest.mark.parametrize("count", ["1", "2"], ids=["one process", "workers"])
async def test_systemd_is_told_of_the_start_of_reloads_and_of_the_end(tmp_path: Path, count: str) -> None:
    path = str(tmp_path / "notify")
    variables = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
    with manager(path) as systemd:
        async with working(tmp_path, CONFIG_DEMO, "--workers", count, variables=variables) as workers:
            assert (await systemd.told())["READY"] == "1"
            assert await systemd.until("WATCHDOG") == {"WATCHDOG": "1"}
            workers.send(signal.SIGHUP)
            reloading = await systemd.until("RELOADING")
            assert reloading["MONOTONIC_USEC"].isdecimal()
            assert (await systemd.until("READY"))["READY"] == "1"
            workers.send(signal.SIGTERM)
            assert (await systemd.until("STOPPING"))["STOPPING"] == "1"
            assert await asyncio.wait_for(workers.process.wait(), WAIT_S) == 0


async def test_an_abstract_socket_is_a_name_after_an_at_sign() -> None:
    name = f"@llmproxy-test-{os.getpid()}"
    with manager(name) as systemd:
        Notifier({"NOTIFY_SOCKET": name}).ready("all is well")

        assert await systemd.told() == {"READY": "1", "STATUS": "all is well"}


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "/nowhere/at/all", "@nobody-listens"])
async def test_without_somebody_to_tell_nothing_happens(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})

    notifier.ready()
    notifier.reloading()
    notifier.stopping()
    notifier.close()


@pytest.mark.parametrize(
    "variables",
    [{"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {}],
    ids=["another process", "never", "garbage", "nobody waits"],
)
async def test_the_watchdog_is_fed_only_where_it_waits_for_us(tmp_path: Path, variables: dict[str, str]) -> None:
    path = str(tmp_path / "notify")
    with manager(path) as systemd:
        notifier = Notifier({"NOTIFY_SOCKET": path, **variables})
        notifier.ready()
        notifier.stopping()

        assert "READY" in await systemd.told()
        assert "STOPPING" in await systemd.told(), "no feeding between the two"
        notifier.close()


# -- socket activation -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def activated(folder: Path, *arguments: str) -> AsyncIterator[Workers]:
    """The proxy as systemd starts it at the first connection, on a port of systemd's."""
    program = need_program("systemd-socket-activate", package="systemd")
    (folder / "proxy.toml").write_text(CONFIG_DEMO)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    kept = [f"-E{name}={value}" for name, value in environment().items() if name.startswith(("COVERAGE", "PYTHON"))]
    process = await asyncio.create_subprocess_exec(
        program,
        f"--listen=127.0.0.1:{port}",
        *kept,
        sys.executable,
        "-m",
        "llmproxy_server",
        "serve",
        "--config",
        "proxy.toml",
        *arguments,
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    workers = Workers(process)
    workers.url = f"http://127.0.0.1:{port}"
    reading = asyncio.get_running_loop().create_task(workers.read())
    try:
        await workers.until(lambda: "Listening on" in workers.text)
        yield workers
        assert await workers.end() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await asyncio.wait_for(reading, WAIT_S)


@pytest.mark.parametrize("count", ["1", "2"], ids=["one process", "workers"])
async def test_a_socket_of_systemds_is_served_instead_of_the_files_port(tmp_path: Path, count: str) -> None:
    async with activated(tmp_path, "--workers", count) as workers:
        port = workers.port

        found = await ask(port, "POST", CHAT, QUESTION)  # the connection that starts it is answered

        assert (found.status, found.whole) == (200, True)
        await workers.until(lambda: re.search(rf"listening on \S+:{port}", workers.text) is not None)


def test_what_is_for_another_process_is_not_ours_and_the_variables_are_taken_away() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "OTHER": "stays"}

    found = inherited(environ)

    assert found == Inherited()
    assert environ == {"OTHER": "stays"}


@pytest.mark.parametrize("own", [False, True], ids=["routes", "own endpoints"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_a_socket_that_others_reach_is_refused_unless_that_is_meant(address: str, own: bool) -> None:
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as opened:
        where = Opened(((opened,),))
        given = Inherited(own=where) if own else Inherited(listening=where)
        table: dict[str, Any] = {"own_endpoints": "127.0.0.1:1"}

        with pytest.raises(ValueError, match="can be reached from other machines"):
            given.fitting(ServerConfig(**table))
        assert given.fitting(ServerConfig(**table, allow_anonymous=True)) == given


def test_a_descriptor_that_is_no_listening_socket_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "proxy.toml").write_text(CONFIG_DEMO)
    code = (
        "import os, sys; os.dup2(os.open(os.devnull, os.O_RDONLY), 3, inheritable=True); "
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
        "os.execv(sys.executable, [sys.executable, '-m', 'llmproxy_server', 'serve', '--config', 'proxy.toml'])"
    )

    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 2
    assert "descriptor 3, handed down by LISTEN_FDS, is no socket" in ran.stderr
