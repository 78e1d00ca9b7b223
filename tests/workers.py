"""`llmproxy serve --workers N` in processes of its own, its log as events, and calls on it that count what was lost."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from tests.llmproxy_server.cli_process import environment

WAIT_S = 30.0
QUESTION = b'{"model":"demo","messages":[{"role":"user","content":"Hello"}]}'
STREAMED = b'{"model":"demo","stream":true,"messages":[{"role":"user","content":"Hello"}]}'
CONFIG_DEMO = """\
[server]
port = 0
log = { format = "json" }

[llm.demo]
provider = "demo"
models = ["demo", "first"]
delay_ms = 0

[processor.cache]
type = "cache"

[[route]]
path_prefix = "/v1"
target_llm = "demo"
operations = ["chat"]
processors = ["cache"]
"""
Line = dict[str, Any]


class Workers:
    """A running parent and its workers. Every wait ends after WAIT_S."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""
        self.said: list[Line] = []
        """The lines of the log so far."""
        self.text = ""
        self._changed = asyncio.Event()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def pids(self) -> list[int]:
        """The workers' processes, in the order of their start."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return sorted(int(it) for it in children.split())

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            line = raw.decode()
            self.text += line
            if line.startswith("{"):
                self.said.append(json.loads(line))
            elif (found := re.search(r"listening on (http\S+?)(\x1b|\s|$)", line)) is not None:
                self.url = found[1]
            self._changed.set()
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until *holds*; asked after each line of the log."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                assert self.process.returncode is None or not self._changed.is_set(), self.text
                self._changed.clear()
                await self._changed.wait()

    async def line(self, message: str, count: int = 1, **fields: object) -> Line:
        """Line number *count* of the log with that message and those fields."""

        def found() -> list[Line]:
            return [it for it in self.said if it["message"] == message and fields.items() <= it.items()]

        await self.until(lambda: len(found()) >= count)
        return found()[count - 1]

    def send(self, number: signal.Signals) -> None:
        """Not `Process.send_signal`: that one polls first, and takes an exit code from asyncio, which then says 255."""
        os.kill(self.process.pid, number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell the parent to end; its exit code."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended, and asyncio is about to hear of it
                self.send(number)
        return await asyncio.wait_for(self.process.wait(), WAIT_S)


@asynccontextmanager
async def working(
    folder: Path, config: str, *arguments: str, wait: bool = True, variables: Mapping[str, str] | None = None
) -> AsyncIterator[Workers]:
    """The processes of *config*, which is written to proxy.toml; when they serve, unless *wait* is False."""
    (folder / "proxy.toml").write_text(config)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "llmproxy_server",
        "serve",
        "--config",
        "proxy.toml",
        *arguments,
        cwd=folder,
        env=environment(**(variables or {})),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    workers = Workers(process)
    reading = asyncio.get_running_loop().create_task(workers.read())
    try:
        if wait:
            await workers.until(lambda: bool(workers.url))
        yield workers
        await workers.end()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await asyncio.wait_for(reading, WAIT_S)


# -- calls -----------------------------------------------------------------------------------------------------------


@attrs.define
class Answer:
    """*whole*: its end has come. *status* 0: the connection ended before an answer began."""

    status: int
    body: bytes
    whole: bool


async def ask(port: int, method: str, path: str, body: bytes = b"") -> Answer:
    """One call on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        try:
            data = await asyncio.wait_for(reader.read(), WAIT_S)
        except ConnectionError:
            data = b""
    finally:
        writer.close()
    return _answer(data)


def _answer(data: bytes) -> Answer:
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return Answer(0, b"", False)
    status = int(head.split()[1])
    length = re.search(rb"content-length: (\d+)", head.lower())
    if length is not None:
        return Answer(status, body, len(body) == int(length[1]))
    return Answer(status, body, body.endswith(b"0\r\n\r\n"))


async def said(port: int, method: str, path: str) -> Any:
    """The JSON that one of our own endpoints answers."""
    found = await ask(port, method, path)
    assert found.whole, found
    return json.loads(found.body)


def not_well(health: Line) -> list[tuple[str, str]]:
    """
    Code and message of each reason why `/health` said that not all is well.

    But for the event loop's: on a busy machine it is held up, and tells so for a minute.
    """
    assert health["status"] == ("degraded" if health["reasons"] else "ok"), health
    return [(it["code"], it["message"]) for it in health["reasons"] if it["part"] != "event_loop"]


async def metric(port: int, name: str) -> float:
    """The value of the series *name*, labels and all, as a scrape of all workers has it."""
    text = (await ask(port, "GET", "/api/metrics")).body.decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


async def metric_until(port: int, name: str, value: float) -> None:
    """Scrape until the series has that value: each worker counts its calls a moment after they have their answers."""
    async with asyncio.timeout(WAIT_S):
        while await metric(port, name) != value:
            pass


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
