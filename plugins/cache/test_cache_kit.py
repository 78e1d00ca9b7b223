"""What the tests of the cache share: a proxy whose day a test moves, questions, and answers read in either form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import llmproxy_cache
from llmproxy_cache import Cache

from llmproxy_core import Exchange, Outcome, builtin_stores
from llmproxy_core.chat import ChatReply
from llmproxy_core.reply_events import Assembler
from tests.answers import chat_chunk, sse, usage_chunk
from tests.exact import WAIT_S, Seen, ask, parse, post
from tests.llmproxy_core.conversation import APIS, CHAT, DIALECT
from tests.llmproxy_server.edging import post as posted
from tests.proxy import Proxy, openai_at
from tests.rawclient import Client, connected
from tests.script import Chunk, Head, Reached, Step, Wait
from tests.script import End as Close

PRICES = {"*": {"input": "1.00", "output": "2.00"}}
COST = 9 * 1_000 + 3 * 2_000  # nanodollars of what `completion` and `usage_chunk` report


class Wall:
    """The time of day, in seconds since the epoch."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Cached(Proxy):
    """A proxy with a cache, whose wall clock is *wall*. Bills come with the exchange they are for."""

    def __init__(self, mapping: Mapping[str, Any], *, plugins: Sequence[object] = ()) -> None:
        super().__init__(mapping, plugins=[builtin_stores, llmproxy_cache, *plugins])
        self.wall = Wall()
        self.server = self.make_server(adapt=lambda services: attrs.evolve(services, now=self.wall))
        self.bills: dict[str, Outcome] = {}

    def _observe(self, exchange: Exchange) -> None:
        super()._observe(exchange)
        exchange.on_billed(lambda outcome: self._billed(exchange, outcome))

    def _billed(self, exchange: Exchange, outcome: Outcome) -> None:
        assert exchange.id not in self.bills
        self.bills[exchange.id] = outcome

    @property
    def cache(self) -> Cache:
        """The first one."""
        found = self.gateway.processors("cache")[0]
        assert isinstance(found, Cache)
        return found

    async def ask(self, body: bytes, *headers: tuple[str, str], path: str = "/v1/chat/completions") -> Seen:
        return await post(self.url + path, body, headers)

    async def purge(self, query: str = "") -> Seen:
        return await ask("DELETE", f"{self.url}/api/cache" + (f"?{query}" if query else ""))

    def statuses(self) -> list[object]:
        """What the log says of the cache, for each exchange in the order they began."""
        return [exchange.log_fields.get("cache") for exchange in self.exchanges]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(self.timeout_s):
            while not holds():  # noqa: ASYNC110 - what it waits for is any state of the proxy
                await asyncio.sleep(0)


def caching(
    base_url: str,
    *,
    chain: Sequence[str] = ("cache",),
    tables: Mapping[str, Mapping[str, object]] | None = None,
    llm: Mapping[str, Any] | None = None,
    route: Mapping[str, object] | None = None,
    **keys: object,
) -> dict[str, Any]:
    """A route with the processors *chain*, among them one named `cache` with *keys*; `around` is a test's own."""
    mapping = openai_at(base_url, route={"processors": list(chain), **(route or {})}, prices=PRICES, **(llm or {}))
    named = {"cache": {"type": "cache", **keys}, "around": {"type": "test"}, **(tables or {})}
    return {
        **mapping,
        "processor": {name: table for name, table in named.items() if name in chain or name in (tables or {})},
    }


# -- what came -------------------------------------------------------------------------------------------------------


def status(seen: Seen) -> str | None:
    """How the cache says that it came."""
    return seen.header("x-llmproxy-cache")


def is_stream(seen: Seen) -> bool:
    return seen.header("content-type") == "text/event-stream"


def reply_in(seen: Seen, api: str = CHAT.name) -> ChatReply:
    """What an answer means, in whichever form it came."""
    if not is_stream(seen):
        return DIALECT.read_reply(APIS[api], seen.body)
    reader, assembler = DIALECT.reader(APIS[api]), Assembler()
    for frame in (*reader.feed(seen.body), *reader.end()):
        assembler.feed(frame.events)
    return assembler.reply()


def deleted(seen: Seen) -> int:
    """How many answers a DELETE says there were."""
    assert seen.status == 200, seen
    found = json.loads(seen.body)
    assert set(found) == {"deleted"}
    return int(found["deleted"])


# -- clients that are still listening --------------------------------------------------------------------------------


class Listener:
    """A client that has asked, and reads its answer as it likes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._got = b""

    async def until(self, text: bytes) -> None:
        """Read until *text* has come, and not further."""
        self._got += await self._client.until(text)

    async def rest(self) -> Seen:
        """The answer, read to the end of the connection."""
        async with asyncio.timeout(WAIT_S):
            return parse(self._got + await self._client.rest())

    async def leave(self) -> None:
        await self._client.close()


@asynccontextmanager
async def listening(proxy: Proxy, body: bytes, *, read_buffer_bytes: int | None = None) -> AsyncIterator[Listener]:
    """A client that has sent *body*."""
    async with connected(proxy.port, read_buffer_bytes=read_buffer_bytes) as client:
        client.send(posted(body, "/v1/chat/completions", "Connection: close"))
        yield Listener(client)


# -- an upstream that waits in the middle ------------------------------------------------------------------------------

SOON_S = 5
ONE, TWO = (Chunk(sse(chat_chunk(text), done=False)) for text in ("one ", "two "))
REST = Chunk(sse(chat_chunk("three"), chat_chunk(None, finish="stop"), usage_chunk()))
TEXT = "one two three"


def half_way(reached: asyncio.Event, go_on: asyncio.Event) -> list[Step]:
    """A stream that waits after its second event."""
    return [Head(), ONE, TWO, Reached(reached), Wait(go_on), REST, Close()]


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(SOON_S):
        await event.wait()


async def waiting(proxy: Cached, count: int) -> None:
    """Until *count* calls are in the proxy's hands, and those that can wait for a shared answer do."""
    await proxy.until(lambda: len(proxy.exchanges) == count and all(proxy.statuses()))
