"""A response that is shared, and those who read it: what the tests of `shared` have in common."""

from __future__ import annotations

import asyncio

from llmproxy_core import (
    ClientView,
    End,
    Exchange,
    Outcome,
    ProxyError,
    Shared,
    Stream,
    Tasks,
    share,
)
from llmproxy_core.relay import Flow
from llmproxy_core.testing import ScriptedBody
from tests.llmproxy_core.conversation import (
    CHAT,
    DIALECT,
    PRICE,
    SOON_S,
    events,
    exchange,
)

PLENTY = 1 << 20
Chunk = bytes | ProxyError | asyncio.Event


class Source:
    """The response that is shared: of an exchange that a first caller detached."""

    def __init__(self, tasks: Tasks, *chunks: Chunk) -> None:
        self.tasks = tasks
        self.first = exchange(tasks)
        self.exchange = self.first.detach(self.first.request)
        self.ends: list[Outcome] = []
        self.exchange.on_finish(self.ends.append)
        self.body = ScriptedBody(chunks, tasks)
        self.response = Stream(self.exchange, self.body, dialect=DIALECT, api=CHAT, price=PRICE, llm="scripted")

    async def shared(self, max_bytes: int = PLENTY) -> Shared:
        return await share(self.response, max_bytes=max_bytes, tasks=self.tasks)

    def another(self) -> Exchange:
        return exchange(self.tasks)

    @property
    def chunks_left(self) -> int:
        return len(self.body._chunks)


class Reading:
    """One who joined, and reads the answer as its client would, with the usage."""

    def __init__(self, shared: Shared, owner: Exchange) -> None:
        self.exchange = owner
        self.ends: list[Outcome] = []
        owner.on_finish(self.ends.append)
        joined = shared.join(owner)
        assert isinstance(joined, Stream)
        self.response = joined
        self._flow = Flow(joined, ClientView(DIALECT, CHAT, stream=True, wants_usage=True), tells_errors=False)
        self._pieces = self._flow.pieces()
        self.got = b""
        self.over = False

    async def next(self) -> bytes:
        """The next piece; b"" at the end, which ends the exchange."""
        async with asyncio.timeout(SOON_S):
            piece = await anext(self._pieces, None)
        if not piece:
            self.over = True
            self._flow.finish()
            self.exchange.finish(End.of(self._flow.error), self._flow.error)
            return b""
        self.got += piece
        return piece

    async def rest(self) -> bytes:
        while not self.over:
            await self.next()
        return self.got

    @property
    def error(self) -> ProxyError | None:
        return self._flow.error

    def leave(self) -> None:
        self.exchange.finish(End.ABANDONED)


async def turns(count: int = 20) -> None:
    """Let everything that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until_idle(tasks: Tasks) -> None:
    await tasks.drain(SOON_S)


ANSWER = events("a", "b", "c", "d", "e", "f")
ALL = b"".join(ANSWER)
LONG = events(*(f"{n:02} " + "x" * 200 for n in range(12)))
"""About 400 bytes each, so that a bound of 1000 is passed by the third."""
