"""
Each exchange has one outcome and one bill, and gives back all that it took, whatever befalls it.

Two hundred are in flight at a time, through a group whose members are flaky above and below their breakers, while
clients leave at random and configurations follow each other.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import attrs
import llmproxy_chaos
import pytest

from llmproxy_core import End as Ending
from llmproxy_core import Exchange, Handler, Response
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from llmproxy_core.groups.places import Places
from llmproxy_core.resilience.breaker import Breaker, Pass
from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server.wire.upstream import WireTransport
from tests.answers import chat_chunk, completion, reply, sse, stream, usage_chunk
from tests.exact import parse
from tests.llmproxy_server.edging import Processing
from tests.llmproxy_server.reloading import Reloadable
from tests.llmproxy_server.transporting import until
from tests.proxy import with_server
from tests.rawclient import connected
from tests.resilience.flocks import QUICK, fails
from tests.resilience.goals.kit import Figure, of, reset
from tests.test_reload_under_load import resident_mb
from tests.upstream import Call, Chunk, Cut, Head, Reset, Upstream

AT_ONCE = 200
RELOAD_EVERY = 30  # calls
PRICES = {"*": {"input": "1.00", "output": "2.00"}}
FAULTS = {
    "latency": {"share": 0.3, "ms": [1, 20]},
    "connect": {"share": 0.04},
    "error": {"share": 0.08, "status": [429, 500, 503, 529]},
    "timeout": {"share": 0.03, "clock": "idle", "ms": 5, "after_chars": [0, 20]},
    "stall": {"share": 0.05, "ms": [1, 20], "after_chars": [0, 20]},
    "cut": {"share": 0.08, "after_chars": [0, 20]},
    "garbage": {"share": 0.04, "after_chars": [0, 20]},
}


# -- who counts ------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Counts:
    """What was taken and what was given back, as those tell who take and give."""

    ended: Counter[str] = attrs.field(factory=Counter)
    """By exchange, until the books are closed on it: how often its end was told."""
    billed: Counter[str] = attrs.field(factory=Counter)
    passes_given: int = 0
    passes_ended: int = 0
    places: dict[int, Places] = attrs.field(factory=dict)
    transports: list[WireTransport] = attrs.field(factory=list)

    def transport(self, pool: Pool, tasks: Tasks) -> WireTransport:
        self.transports.append(WireTransport(pool, tasks))
        return self.transports[-1]

    def watch(self, proxy: Reloadable) -> None:
        """Count the passes of the breakers that are used from now on, and remember all places."""
        for llm in proxy.server.gateway.llms.values():
            for layer in layers(llm):
                if not isinstance(layer, Guarded):
                    continue
                self.places[id(layer.places)] = layer.places
                if layer.breaker is not None and not isinstance(layer.breaker, CountedBreaker):
                    layer.breaker = CountedBreaker(layer.breaker, self)


class CountedBreaker(Breaker):
    """The breaker *of*, with the same state, whose passes are counted."""

    __slots__ = ("_counts",)

    def __init__(self, of: Breaker, counts: Counts) -> None:
        for name in Breaker.__slots__:
            setattr(self, name, getattr(of, name))
        self._counts = counts

    def admit(self) -> Pass | None:
        made = super().admit()
        if made is None:
            return None
        self._counts.passes_given += 1
        return cast("Pass", CountedPass(made, self._counts))


class CountedPass:
    """The pass *of*."""

    def __init__(self, of: Pass, counts: Counts) -> None:
        self._of = of
        self._counts = counts
        self._is_over = False

    def _over(self) -> None:
        self._counts.passes_ended += not self._is_over
        self._is_over = True

    def succeeded(self, seconds: float) -> None:
        self._over()
        self._of.succeeded(seconds)

    def failed(self, seconds: float) -> None:
        self._over()
        self._of.failed(seconds)

    def cut_short(self, seconds: float) -> None:
        self._of.cut_short(seconds)

    def dropped(self) -> None:
        self._over()
        self._of.dropped()


class Gate:
    """A processor that holds each call until it is open, and counts how each ends."""

    def __init__(self, counts: Counts) -> None:
        self.opened = asyncio.Event()
        self.begun = 0
        self._counts = counts

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        self.begun += 1
        exchange.on_finish(lambda outcome: self._counts.ended.update([exchange.id]))
        exchange.on_billed(lambda bill: self._counts.billed.update([exchange.id]))
        async with asyncio.timeout(20):
            await self.opened.wait()
        return await call_next(exchange)


# -- who calls and who answers ---------------------------------------------------------------------------------------


def answering(chance: random.Random) -> Callable[[Call], Any]:
    """An upstream that says what was asked, and fails in its own ways at times."""

    async def answer(call: Call) -> None:
        asked = json.loads(call.received.body)
        text: str = asked["messages"][0]["content"]
        fate = chance.random()
        if fate < 0.04:
            await call.play(*fails(503))
        elif fate < 0.06:
            await call.play(Reset())
        elif not asked.get("stream"):
            await call.play(*reply(completion(text)))
        elif fate < 0.10:
            await call.play(Head(), Chunk(sse(chat_chunk(text[:3]), done=False)), Cut())
        else:
            pieces = (text[:3], text[3:7], text[7:])
            await call.play(*stream(*map(chat_chunk, pieces), chat_chunk(None, finish="stop"), usage_chunk()))

    return answer


@attrs.define
class Callers:
    """Clients of *port*, and what those saw who stayed."""

    port: int
    chance: random.Random
    made: int = 0
    seen: Counter[str] = attrs.field(factory=Counter)
    """"right", "told", "left", "otherwise"."""
    stayed: dict[str, str] = attrs.field(factory=dict)
    """By request id: what the client saw."""

    async def some(self, calls: int) -> None:
        """Calls, one after the other, until there were so many of all clients."""
        while self.made < calls:
            self.made += 1
            await self.call(f"question {self.made}")

    async def call(self, text: str) -> None:
        """One call; a third of the clients leave, before the answer or in it."""
        chance = self.chance
        asked = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": chance.random() < 0.6}
        leaves = chance.random() < 0.33
        async with connected(self.port) as client:
            client.send(_request(asked))
            if not leaves:
                self._saw(await client.rest(), text)
                return
            self.seen["left"] += 1
            if chance.random() < 0.6:
                await asyncio.wait_for(client.reader.read(chance.randrange(1, 400)), 20)
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
            if chance.random() < 0.5:
                reset(client)

    def _saw(self, data: bytes, text: str) -> None:
        seen = parse(data)
        found = of(seen)
        is_right = found.text == text if found.kind == "right" else text.startswith(found.text)
        kind = found.kind if is_right else "otherwise"
        self.seen[kind] += 1
        self.stayed[seen.header("x-request-id") or ""] = kind


def _request(asked: dict[str, Any]) -> bytes:
    body = json.dumps(asked).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def mapping(a: Upstream, b: Upstream, number: int) -> dict[str, Any]:
    """The configuration of that number: each differs from the one before in what its LLMs are."""
    llms: dict[str, Any] = {
        name: {
            "provider": "openai",
            "base_url": upstream.base_url,
            "token_env": "KEY",
            "breaker": {"min_calls": 10, "failure_rate": 0.3, "open_s": 0.05, "window_s": 10.0 + number % 2},
            "max_in_flight": 150 + number % 3,
            "prices": PRICES,
            "pool": {"idle_s": 0.2},
        }
        for name, upstream in (("a", a), ("b", b))
    }
    for name in ("a", "b"):
        llms[f"flaky_{name}"] = {"provider": "chaos", "members": [name], "seed": number, "faults": FAULTS}
    strategy = ("round_robin", "least_in_flight", "peak_ewma")[number % 3]
    llms["all"] = {
        "provider": "balance",
        "strategy": strategy,
        "members": ["flaky_a", "flaky_b"],
        "retries": {**QUICK, "initial_backoff_s": 0.002},
    }
    route = {"path_prefix": "/v1", "target_llm": "all", "deadline_s": 20.0, "processors": ["gate"]}
    table = {"llm": llms, "processor": {"gate": {"type": "test"}}, "route": [route]}
    return with_server(table, max_in_flight=1000 + number)


# -- the test --------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Storm:
    """Calls of all kinds through *proxy*, whose configuration changes all the time, and the books kept of them."""

    proxy: Reloadable
    upstreams: tuple[Upstream, Upstream]
    counts: Counts
    callers: Callers
    ends: Counter[str] = attrs.field(factory=Counter)
    """Of exchanges, by how they ended."""
    reloads: int = 0
    held_mb: list[float] = attrs.field(factory=list)
    """Memory of the process, after each tenth of the calls."""

    async def rage(self, calls: int, gate: Gate) -> int:
        """So many calls; gives how many were in flight when the first were let in."""
        admission = self.proxy.server.admission
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self.callers.some(calls))
            # Some have left already.
            await until(lambda: len(self.proxy.exchanges) == AT_ONCE)
            in_flight = admission.in_flight
            gate.opened.set()
            while self.callers.made < calls:
                await self._made(min(self.callers.made + RELOAD_EVERY, calls))
                self.reloads += 1
                assert (await self.proxy.reload(mapping(*self.upstreams, self.reloads))).ok
                self.counts.watch(self.proxy)
                self.look()
                if self.callers.made >= calls * (len(self.held_mb) + 1) / 10:
                    gc.collect()
                    self.held_mb.append(resident_mb())
        return in_flight

    async def _made(self, calls: int) -> None:
        async with asyncio.timeout(60):
            while self.callers.made < calls:  # noqa: ASYNC110 - clients tell nobody
                await asyncio.sleep(0)

    async def settle(self, tasks: int) -> None:
        """Wait until all is over, and there are no more than so many *tasks*."""
        server = self.proxy.server
        async with asyncio.timeout(30):
            while (  # noqa: ASYNC110 - nothing tells it
                server.admission.in_flight
                or len(server.generations) > 1
                or any(it.connections_open for it in self.upstreams)  # each is a task of the upstream's
                or len(asyncio.all_tasks()) > tasks
            ):
                await asyncio.sleep(0)
        self.look()

    def look(self) -> None:
        """Count the exchanges that are over, compare them with what their clients saw, and forget them."""
        left: list[Exchange] = []
        for exchange in self.proxy.exchanges:
            if exchange.id not in self.counts.billed:
                left.append(exchange)
                continue
            assert exchange.outcome is not None
            # Whoever ended, or was billed, once more after this would be there again at the end.
            assert (self.counts.ended.pop(exchange.id), self.counts.billed.pop(exchange.id)) == (1, 1)
            self.ends[exchange.outcome.end.value] += 1
            saw = self.callers.stayed.pop(exchange.id, None)
            assert saw is None or (saw == "right") == (exchange.outcome.end is Ending.COMPLETED), exchange.outcome
        self.proxy.exchanges[:] = left
        for upstream in self.upstreams:
            upstream.requests.clear()


@pytest.mark.parametrize(
    "calls", [800, pytest.param(50_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])], ids=["short", "whole"]
)
async def test_every_exchange_ends_once_and_gives_back_what_it_took(
    calls: int, tmp_path: Path, record_property: Figure, caplog: pytest.LogCaptureFixture
) -> None:
    """At 200 in flight, with cuts, cancels, errors and reloads: outcomes = exchanges, taken = given back, left = 0."""
    caplog.set_level(logging.CRITICAL, "llmproxy")  # pytest keeps every line: of 50,000 calls 20 MB
    counts, chance = Counts(), random.Random(calls)
    gate = Gate(counts)
    async with (
        Upstream(answering(chance)) as a,
        Upstream(answering(chance)) as b,
        Reloadable(
            tmp_path,
            mapping(a, b, 0),
            plugins=[llmproxy_chaos, Processing(gate)],
            server={"make_transport": counts.transport},
        ) as proxy,
    ):
        counts.watch(proxy)
        tasks = len(asyncio.all_tasks())
        callers = Callers(proxy.port, chance)
        storm = Storm(proxy, (a, b), counts, callers)

        in_flight = await storm.rage(calls, gate)
        await storm.settle(tasks)

        assert (proxy.exchanges, proxy.server.gateway.background) == ([], set())
        assert (proxy.server.admission.in_flight, proxy.server.admission.buffered_bytes) == (0, 0)
        assert [it.connections_in_use for it in counts.transports] == [0] * len(counts.transports)

    seen = f"{calls} calls, {in_flight} in flight at first, {storm.reloads} reloads"
    record_property("exactly once", f"{seen}: {dict(storm.ends)}, clients {dict(callers.seen)}")
    record_property("exactly once", f"{counts.passes_given} passes given, {counts.passes_ended} ended")
    record_property("exactly once", f"MB after each tenth: {[round(it) for it in storm.held_mb]}")
    assert callers.seen["otherwise"] == 0
    assert sum(storm.ends.values()) == gate.begun
    assert (counts.ended, counts.billed) == ({}, {})
    assert counts.passes_given == counts.passes_ended > calls // 3
    assert [places.name for places in counts.places.values() if places.in_flight] == []
    assert set(storm.ends) == {"completed", "failed", "abandoned"}
    if calls > 10_000:  # warm after three tenths
        assert storm.held_mb[-1] - storm.held_mb[2] < 8, storm.held_mb
