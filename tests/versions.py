"""A proxy whose versions take over from each other, in processes of their own, and clients that never pause."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs

from tests.llmproxy_server.edging import answer, post
from tests.rawclient import Client, connected
from tests.upstream import chat_chunk, sse
from tests.workers import CONFIG_DEMO, QUESTION, STREAMED, WAIT_S, Line, Workers, working

START_S = 2 * WAIT_S
"""Longer than a new version may take: why it has not taken over is in the log then."""
CHAT = "/v1/chat/completions"
STARTED = "a new version is started, and is to take over"
OVER = "a new version has taken over: this one drains and ends"
NOT_OVER = "the new version has not taken over: this one serves on"
_UNCACHED = CONFIG_DEMO.replace('processors = ["cache"]', "").replace('[processor.cache]\ntype = "cache"\n', "")
CONFIG = _UNCACHED.replace("port = 0", "port = 0\nkeepalive_s = 0")
"""However long a takeover takes, streams are as their upstream sent them."""
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
"""To be formatted with the upstream of `/long`."""
Connect = Callable[[int], AbstractAsyncContextManager[Client]]
"""A client of that port."""


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
    """What clients that never pause have seen, which connect *by* what is given."""

    port: int
    by: Connect
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
                    async with self.by(self.port) as client:
                        client.send(post(asked, CHAT, "Connection: close"))
                        found = await answer(client)
                        more = await client.rest()
                except (OSError, asyncio.IncompleteReadError) as error:
                    self.failed.append(error)
                    continue
                self.note(found, right=found.status == 200 and found.complete and not more)

    async def kept(self) -> None:
        """As many calls on a connection as the proxy allows."""
        while not self.ended:
            try:
                async with self.by(self.port) as client:
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
async def loaded(port: int, by: Connect = connected) -> AsyncIterator[Load]:
    """Four clients while it is entered: two connect for each call anew, two keep their connections."""
    load = Load(port, by)
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(each()) for each in [load.anew, load.kept] * 2]
        ending = asyncio.gather(*clients)
        ending.add_done_callback(lambda _: load.over.set())
        try:
            yield load
        finally:
            load.ended = True
