"""Rows 27 and 28: providers that are killed under load and come back, or freeze."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from collections import Counter
from typing import Any

import attrs
import pytest

from tests.answers import chat_chunk, completion, reply, sse, stream
from tests.connection import Connection
from tests.exact import ask as get
from tests.llmproxy_server.edging import chunks, head, many, post
from tests.proxy import Proxy
from tests.rawclient import connected
from tests.resilience.flocks import QUICK
from tests.resilience.flocks import ask as say
from tests.resilience.goals.kit import BREAKER, DEADLINE_S, Became, Figure, became, guarded, of, quantiles_ms
from tests.upstream import Call, Chunk, End, Head, Reached, Stall, Upstream, Wait

pytestmark = pytest.mark.soak  # seconds of outages, and figures that a busy machine would not reach

CLIENTS = 20
DOWN_S = 2.0
DOWN_CALLS = 200
"""Answers that come while the upstreams are down, at least."""
LONG = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "long"}]}


class Mortal(Upstream):
    """An upstream that can be killed, connections and all, and rise again at the same port."""

    async def __aenter__(self) -> Mortal:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or the port is not free when it is to rise
        listening.bind(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        await self._listen(listening)
        return self

    async def _listen(self, listening: socket.socket) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: Connection(self), sock=listening)

    def die(self) -> None:
        """Refuse connections, and break those that are open."""
        self.stop_listening()
        for connection in list(self._connections):
            connection.abort()

    async def rise(self) -> None:
        """Listen again."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        await self._listen(listening)


async def answering(call: Call) -> None:
    """Say what was asked, plain or streamed; what is "long" begins, and never ends."""
    asked = json.loads(call.received.body)
    text: str = asked["messages"][0]["content"]
    if text == "long":
        await call.play(Head(), Chunk(sse(chat_chunk("lo"), done=False)), Stall())
    elif asked.get("stream"):
        await call.play(*stream(*map(chat_chunk, (text[:2], text[2:])), chat_chunk(None, finish="stop")))
    else:
        await call.play(*reply(completion(text)))


@attrs.define
class Load:
    """Clients that never pause, and what they saw."""

    seen: Counter[str] = attrs.field(factory=Counter)
    """Answers: "right", "told" instead of one, "told within" one that had begun, "otherwise"."""
    ended: bool = False
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)
    right_s: float = 0.0
    """When the last right answer came."""
    slowest_s: float = 0.0

    async def calls(self, proxy: Proxy, number: int) -> None:
        """One after the other, plain and streamed in turn, until it has ended."""
        for turn in itertools.count():
            if self.ended:
                return
            text = f"client {number}, question {turn}"
            began_s = time.monotonic()
            found = of(await say(proxy, messages=[{"role": "user", "content": text}], stream=turn % 2 == 0))
            now = time.monotonic()
            self.seen[self._kind(found, text)] += 1
            self.slowest_s = max(self.slowest_s, now - began_s)
            if found.kind == "right":
                self.right_s = now
            self.changed.set()

    @staticmethod
    def _kind(found: Became, text: str) -> str:
        if found.kind == "told" and found.text and text.startswith(found.text):
            return "told within"
        return found.kind if found.kind == "told" or found.text == text else "otherwise"

    async def until(self, kinds: set[str], more: int, until_s: float = 0.0) -> None:
        """Wait for *more* answers of *kinds*, and the time *until_s*."""
        due = sum(self.seen[kind] for kind in kinds) + more
        async with asyncio.timeout(30):
            while sum(self.seen[kind] for kind in kinds) < due or time.monotonic() < until_s:
                self.changed.clear()
                await self.changed.wait()


@pytest.mark.parametrize("dead", ["one", "both"])
async def test_providers_that_are_killed_under_load_are_missed_by_nobody_for_longer_than_they_are_gone(
    dead: str, record_property: Figure
) -> None:
    """
    Row 27: nothing hangs, each answer is right or told, and right again within the breaker's longest open time and 1 s.

    Where one is killed, all calls but the streams that it had begun are answered; those are told.
    """
    load = Load()
    # Retries end before the breaker lets anybody in again: what is proven is that calls are told, not that they wait.
    retries = {**QUICK, "max_backoff_s": 0.05}
    async with (
        Mortal(answering) as a,
        Mortal(answering) as b,
        Proxy(guarded(a, b, retries=retries)) as proxy,
        many(proxy.port, CLIENTS) as patient,
        asyncio.TaskGroup() as group,
    ):
        for number in range(CLIENTS):
            group.create_task(load.calls(proxy, number))
        for client in patient:
            client.send(post(LONG))
            assert (await head(client)).status == 200
        await load.until({"right"}, 100)
        before = load.seen.copy()

        a.die()
        if dead == "both":
            b.die()
        cut = [became(200, *(await chunks(client))) for client in patient]
        await load.until({"told"} if dead == "both" else {"right"}, DOWN_CALLS, time.monotonic() + DOWN_S)
        down = load.seen - before
        await a.rise()
        if dead == "both":
            await b.rise()
        risen_s = time.monotonic()
        served = len(a.requests)
        await load.until({"right"}, 1)
        right_s = load.right_s
        async with asyncio.timeout(10):
            await a.until(lambda: len(a.requests) > served)
        recovered_s = (right_s if dead == "both" else time.monotonic()) - risen_s
        await load.until({"right"}, 100)
        load.ended = True

    counts = f"{dict(load.seen)}, of it while down {dict(down)}; {len(cut)} silent streams told"
    record_property("row 27", f"{dead} killed: {counts}; slowest {load.slowest_s:.2f} s, back in {recovered_s:.2f} s")
    assert load.seen["otherwise"] == 0
    assert {(it.kind, it.text) for it in cut} == {("told", "lo")}
    assert recovered_s <= BREAKER["max_open_s"] * 1.1 + 1
    assert load.slowest_s <= DEADLINE_S / 4  # nothing hangs
    assert load.seen["told within"] <= CLIENTS  # those that were under way when it was killed
    if dead == "one":
        assert load.seen["told"] == 0


# -- 28: a frozen provider -------------------------------------------------------------------------------------------

FROZEN_S = 0.5
STREAMS = 20


async def test_while_a_provider_is_frozen_we_say_how_we_are_and_its_streams_go_on_afterwards(
    record_property: Figure,
) -> None:
    """Row 28, for half a second: `/health` in less than a second, all streams whole, nobody asked twice."""
    thaw, began = asyncio.Event(), asyncio.Event()
    rest = sse(chat_chunk("llo"), chat_chunk(None, finish="stop"))

    async def freezing(call: Call) -> None:
        if b'"stream": true' in call.received.body:
            await call.play(Head(), Chunk(sse(chat_chunk("he"), done=False)), Wait(thaw), Chunk(rest), End())
        else:
            await call.play(Reached(began), Wait(thaw), *reply(completion("hello")))

    took_s: list[float] = []
    hello: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with (
        Upstream(freezing) as a,
        Upstream(freezing) as b,
        Proxy(guarded(a, b, llm={"timeouts": {"first_byte_s": 10.0, "idle_s": 10.0}})) as proxy,
        many(proxy.port, STREAMS) as clients,
        connected(proxy.port) as plain,
    ):
        for client in clients:
            client.send(post({**hello, "stream": True}))
            assert (await head(client)).status == 200
        plain.send(post(hello))
        await asyncio.wait_for(began.wait(), 10)
        frozen_s = time.monotonic()
        while time.monotonic() < frozen_s + FROZEN_S:
            asked_s = time.monotonic()
            assert (await get("GET", f"{proxy.url}/health")).status == 200
            took_s.append(time.monotonic() - asked_s)
        thaw.set()
        found = [became(200, *(await chunks(client))) for client in clients]
        assert (await head(plain)).status == 200

    record_property("row 28", f"/health {quantiles_ms(took_s)}; {len(found)} streams go on")
    assert max(took_s) < 1
    assert {(it.kind, it.text) for it in found} == {("right", "hello")}
    assert (len(a.requests), len(b.requests)) == (STREAMS + 1, 0)
