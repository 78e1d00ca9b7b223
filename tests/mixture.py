"""
Calls that end in every way that a caller and an upstream can choose, in a mixture that chance makes.

The caller writes into the name of the model how the upstream is to answer: one script serves all of them.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import attrs

from llmproxy_core import End as Ended
from tests.llmproxy_server.edging import HELLO, answer, post, request
from tests.page_first import open_page
from tests.proxy import Proxy
from tests.rawclient import Client, connected
from tests.upstream import (
    Call,
    Chunk,
    Cut,
    End,
    Head,
    Raw,
    Reset,
    Stall,
    Step,
    Upstream,
    chat_chunk,
    completion,
    error,
    reply,
    sse,
    stream,
)

AT_ONCE = 20
_PATH = "/chat/completions"
_JSON = {"content-type": "application/json"}
_BODY = json.dumps(completion("Hello")).encode()
_ONE = sse(chat_chunk("one"), done=False)
_CLOSED: list[Step] = [Head(200, {**_JSON, "connection": "close"}, len(_BODY)), Chunk(_BODY), End()]
_TWICE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
_HALF: list[Step] = [Head(200, _JSON, len(_BODY)), Chunk(_BODY[:-9])]


@attrs.frozen
class Ending:
    """How the upstream answers, and the *status* that the caller is to see."""

    status: int
    steps: Sequence[Step]
    streamed: bool = False
    breaks: bool = False
    """In the body: where the proxy reads head and break at once, it may say 502 instead."""


ENDINGS: dict[str, Ending] = {
    "plain": Ending(200, reply(completion("Hello"))),
    "in chunks": Ending(200, [Head(200, _JSON), Chunk(_BODY[:50]), Chunk(_BODY[50:]), End()]),
    "to the close": Ending(200, [Head(200, _JSON, "close"), Chunk(_BODY), End()]),
    "the last": Ending(200, _CLOSED),
    "with more behind": Ending(200, [Raw(_TWICE * 2), Cut()]),
    "refused": Ending(429, reply(error("Slower", kind="rate_limit_error"), 429)),
    "wrong": Ending(400, reply(error("No such thing", kind="invalid_request_error"), 400)),
    "failed": Ending(500, reply(error("It fell over"), 500)),
    "no word": Ending(502, [Cut()]),
    "no word, reset": Ending(502, [Reset()]),
    "half a head": Ending(502, [Raw(b"HTTP/1.1 200 OK\r\nContent-"), Cut()]),
    "garbage": Ending(502, [Raw(b"\x00\x01 no HTTP\r\n\r\n"), Cut()]),
    "half a body": Ending(502, [*_HALF, Cut()]),
    "half a body, reset": Ending(502, [*_HALF, Reset()]),
    "stream": Ending(200, stream(chat_chunk("a"), chat_chunk(None, finish="stop")), streamed=True),
    "stream, refused": Ending(429, reply(error("Slower", kind="rate_limit_error"), 429), streamed=True),
    "stream, failed": Ending(200, [Head(), Chunk(_ONE), Chunk(sse(error("It fell over"))), End()], streamed=True),
    "stream, unfinished": Ending(200, [Head(), Chunk(_ONE), End()], streamed=True),
    "stream, cut": Ending(200, [Head(), Chunk(_ONE), Cut()], streamed=True, breaks=True),
    "stream, reset": Ending(200, [Head(), Chunk(_ONE), Reset()], streamed=True, breaks=True),
    "stream, garbage": Ending(200, [Head(), Chunk(_ONE), Raw(b"no chunk\r\n"), Cut()], streamed=True, breaks=True),
}
"""By the name of the model."""
LEFT: dict[str, Ending] = {
    "silent": Ending(0, [Stall()]),
    "half, silent": Ending(0, [*_HALF, Stall()]),
    "stream, silent": Ending(0, [Head(), Chunk(_ONE), Stall()], streamed=True),
}
"""Those that end with the caller alone."""
WRONG: Mapping[str, tuple[int, bytes]] = {
    "no JSON": (400, post(b"{nothing", "/v1")),
    "no text": (400, post(b'{"model":"\xff\xfe"}', "/v1")),
    "no route": (404, post(HELLO, "/no/route")),
    "no head": (400, b"no HTTP at all\r\n\r\n"),
    "two lengths": (400, request("POST", "/v1", "Content-Length: 1", "Content-Length: 2") + b"12"),
    "no chunk": (
        400,
        request("POST", "/v1", "Content-Type: application/json", "Transfer-Encoding: chunked") + b"x\r\n",
    ),
}
"""What the proxy itself refuses; `/v1` stands for the path that is called."""


async def as_asked(call: Call) -> None:
    """The upstream's part."""
    model = json.loads(call.received.body)["model"]
    await call.play(*(ENDINGS.get(model) or LEFT[model]).steps)


class Mixture:
    """Calls of *port* below *prefixes*; *refusing* is one whose upstream takes no connection."""

    def __init__(
        self, port: int, prefixes: Sequence[str], refusing: str, chance: random.Random, *, page: bool = False
    ) -> None:
        """*page*: there is one, and a part of the connections is lent for it first."""
        self._port = port
        self._prefixes = prefixes
        self._refusing = refusing
        self._chance = chance
        self._page = page
        self.seen: defaultdict[str, Counter[int]] = defaultdict(Counter)
        """Statuses by ending; 0: the caller left."""

    async def some(self, clients: int) -> None:
        """So many clients, each with a call or some."""
        for _ in range(0, clients, AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._client())

    @property
    def calls(self) -> int:
        """Calls so far."""
        return sum(counted.total() for counted in self.seen.values())

    def unseen(self) -> dict[str, Counter[int]]:
        """The endings that did not come about, or not as they should have."""
        due = {name: each.status for name, each in (ENDINGS | LEFT).items()}
        due |= {name: status for name, (status, _) in WRONG.items()} | {"no connection": 502, "left": 0}
        return {name: self.seen[name] for name, status in due.items() if not self._is_right(name, status)}

    def _is_right(self, name: str, status: int) -> bool:
        seen = set(self.seen[name])
        if name in ENDINGS and ENDINGS[name].breaks:
            return bool(seen) and seen <= {status, 502}
        return seen == {status}

    async def _client(self) -> None:
        chance = self._chance
        async with connected(self._port) as client:
            if self._page and chance.random() < 0.2:
                await open_page(client)
            goes_on = True
            while goes_on:
                goes_on = await self._turn(client) and chance.random() < 0.5

    async def _turn(self, client: Client) -> bool:
        """One call, or two at once; whether the connection can carry another."""
        match self._chance.randrange(10):
            case 0 | 1:
                return await self._leave(client)
            case 2:
                name, (_, data) = self._chance.choice(list(WRONG.items()))
                client.send(data.replace(b" /v1 ", f" {self._chance.choice(self._prefixes)}{_PATH} ".encode()))
                return await self._ended(client, name)
            case 3:
                client.send(post({**HELLO, "model": "plain"}, self._refusing + _PATH))
                return await self._ended(client, "no connection")
            case 4:
                name, data = self._asked(ENDINGS)
                client.send(data * 2)
                return await self._ended(client, name) and await self._ended(client, name)
            case 5:
                name, data = self._asked(ENDINGS)
                head, _, body = data.partition(b"\r\n\r\n")
                client.send(head + b"\r\n\r\n" + body[:9])
                await asyncio.sleep(0)
                client.send(body[9:])
                return await self._ended(client, name)
            case _:
                name, data = self._asked(ENDINGS)
                client.send(data)
                return await self._ended(client, name)

    def _asked(self, endings: Mapping[str, Ending]) -> tuple[str, bytes]:
        """The name of one of them, and the request for it; its body is in chunks at times."""
        name = self._chance.choice(list(endings))
        body = json.dumps({**HELLO, "model": name, "stream": endings[name].streamed}).encode()
        path = self._chance.choice(self._prefixes) + _PATH
        if self._chance.random() < 0.7:
            return name, post(body, path)
        head = request("POST", path, "Content-Type: application/json", "Transfer-Encoding: chunked")
        return name, head + b"9\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:9], len(body) - 9, body[9:])

    async def _ended(self, client: Client, name: str) -> bool:
        """Read the answer to the end."""
        found = await answer(client)
        self.seen[name][found.status] += 1
        return found.complete and ("connection", "close") not in found.headers

    async def _leave(self, client: Client) -> bool:
        """Go away: before the request is whole, before its answer, or in it."""
        name, data = self._asked(LEFT)
        begun = name == "stream, silent" and self._chance.random() < 0.5
        if not begun and self._chance.random() < 0.5:
            name, data = "left", data[: self._chance.randrange(1, len(data))]
        client.send(data)
        if begun:
            await client.until(b"one")
        else:
            await asyncio.sleep(0)
        self.seen[name][0] += 1
        return False


async def forgotten(proxy: Proxy, upstream: Upstream) -> set[Ended]:
    """Waits until nothing is open but kept connections to nobody, and forgets what the test remembers; the ends."""
    async with asyncio.timeout(10):
        await proxy.outcome(len(proxy.exchanges))
        front = proxy.server._front
        while front.connections or front.has_calls or upstream.connections_open:  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0)
    assert proxy.server.admission.in_flight == proxy.server.admission.buffered_bytes == 0
    ends = {outcome.end for outcome in proxy.outcomes}
    for remembered in (proxy.exchanges, proxy.outcomes, upstream.requests):
        remembered.clear()
    return ends
