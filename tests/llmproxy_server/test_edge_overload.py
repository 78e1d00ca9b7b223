"""More calls than are served at once: who waits, whose turn it is, and what the others are told."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest

from llmproxy_core.exchange import Exchange
from llmproxy_core.processor import Handler
from llmproxy_core.response import Response
from tests.llmproxy_server.edging import HELLO, Answer, Processing, answer, ask, post, processed, request
from tests.llmproxy_server.metrics.scraping import scrape
from tests.llmproxy_server.reloading import Reloadable
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import Client, connected
from tests.upstream import Upstream, completion, reply

pytestmark = pytest.mark.usefixtures("both_ways")
PLAIN = reply(completion("Hello"))
LONG_S = 20.0
NO_BODY = request("POST", "/v1/chat/completions", "Content-Type: application/json", "Content-Length: 900")


class Gate:
    """Holds each call until it is let go, and remembers whose were served, in that order."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self._go = asyncio.Semaphore(0)

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        self.served.append(exchange.request.headers.get("x-forwarded-for", ""))
        async with asyncio.timeout(LONG_S):
            await self._go.acquire()
        return await call_next(exchange)

    def open(self, calls: int = 1) -> None:
        for _ in range(calls):
            self._go.release()


@attrs.define
class Crowd:
    """A proxy with one place, and clients that all want it."""

    proxy: Proxy
    gate: Gate
    _leaving: AsyncExitStack

    async def come(self, caller: str, data: bytes | None = None) -> Client:
        """A call of *caller*, on a connection of its own; it is in, waits or is refused when this returns."""
        client = await self._leaving.enter_async_context(connected(self.proxy.port))
        before = self._seen()
        client.send(data or post(HELLO, "/v1/chat/completions", f"X-Forwarded-For: {caller}"))
        await until(lambda: self._seen() > before)
        return client

    def _seen(self) -> int:
        admission = self.proxy.server.admission
        return len(self.gate.served) + admission.queue.size + sum(admission.shed.values())

    @property
    def waiting(self) -> int:
        return self.proxy.server.admission.queue.size


@pytest.fixture
async def crowd(request: pytest.FixtureRequest) -> AsyncIterator[Crowd]:
    """Its `[server]` keys are those that a test is parametrized with."""
    keys = {"max_in_flight": 1, "queue_timeout_s": LONG_S, "trusted_proxies": ["127.0.0.1"]}
    gate = Gate()
    async with Upstream(PLAIN) as upstream:
        mapping = processed(openai_at(upstream.base_url, retries={}))
        mapping = with_server(mapping, **{**keys, **getattr(request, "param", {})})
        async with Proxy(mapping, plugins=[Processing(gate)]) as proxy, AsyncExitStack() as leaving:
            yield Crowd(proxy, gate, leaving)
            gate.open(100)
            await leaving.aclose()
            await until(lambda: proxy.server.admission.in_flight == proxy.server.admission.queue.size == 0)


async def statuses(*clients: Client) -> list[int]:
    return [(await answer(client)).status for client in clients]


async def test_a_caller_with_one_call_is_served_before_the_many_that_wait_for_another(crowd: Crowd) -> None:
    many = [await crowd.come("192.0.2.1") for _ in range(6)]
    one = await crowd.come("192.0.2.2")
    assert (crowd.gate.served, crowd.waiting) == (["192.0.2.1"], 6)

    crowd.gate.open(7)

    assert await statuses(*many, one) == [200] * 7
    assert crowd.gate.served == ["192.0.2.1", "192.0.2.2", *["192.0.2.1"] * 5]


@pytest.mark.parametrize("crowd", [{"max_queued": 2}], indirect=True)
async def test_a_full_queue_makes_room_for_another_caller_and_tells_who_had_most_to_come_back(crowd: Crowd) -> None:
    first, second, third = [await crowd.come("192.0.2.1") for _ in range(3)]
    other = await crowd.come("192.0.2.2")

    displaced = await answer(third)

    assert (displaced.status, displaced.code, displaced["retry-after"]) == (503, "overloaded", "1")
    crowd.gate.open(3)
    assert await statuses(first, second, other) == [200] * 3


@pytest.mark.parametrize("crowd", [{"max_queued": 1}], indirect=True)
async def test_what_does_not_fit_the_queue_is_refused_before_its_body_came(crowd: Crowd) -> None:
    for _ in range(2):
        await crowd.come("192.0.2.1")

    expecting = NO_BODY.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    for unread in (NO_BODY, expecting):
        refused = await answer(await crowd.come("192.0.2.1", unread))
        assert (refused.status, refused.code, refused["retry-after"]) == (503, "overloaded", "1")
        assert refused["connection"] == "close"  # what comes next is that body
    assert len(crowd.gate.served) == 1


@pytest.mark.parametrize("crowd", [{"queue_timeout_s": 0.1}], indirect=True)
async def test_who_waits_too_long_is_told_to_come_back_and_may_on_that_connection(crowd: Crowd) -> None:
    first = await crowd.come("192.0.2.1")
    late = await crowd.come("192.0.2.2")

    refused = await answer(late)

    assert (refused.status, refused.code, refused["retry-after"]) == (503, "overloaded", "1")
    crowd.gate.open(2)
    assert (await answer(first)).status == 200
    assert (await ask(late, post())).status == 200


async def test_a_client_that_leaves_while_it_waits_is_out_of_the_queue(crowd: Crowd) -> None:
    first = await crowd.come("192.0.2.1")
    gone = await crowd.come("192.0.2.2")
    last = await crowd.come("192.0.2.3")

    await gone.close()
    await until(lambda: crowd.waiting == 1)
    crowd.gate.open(2)

    assert await statuses(first, last) == [200, 200]
    assert crowd.gate.served == ["192.0.2.1", "192.0.2.3"]


async def test_a_body_that_comes_slowly_has_no_place_before_it_is_there_and_then_its_turn(crowd: Crowd) -> None:
    body = json.dumps(HELLO).encode().ljust(900)
    admission = crowd.proxy.server.admission
    async with connected(crowd.proxy.port) as slow, connected(crowd.proxy.port) as leaving:
        for client in (slow, leaving):
            client.send(NO_BODY + body[:100])
        await until(lambda: admission.buffered_bytes == 200)
        assert admission.in_flight == 0
        first = await crowd.come("192.0.2.1")

        for client in (slow, leaving):
            client.send(body[100:])
        await until(lambda: crowd.waiting == 2)
        await leaving.close()
        await until(lambda: crowd.waiting == 1)
        crowd.gate.open(2)

        assert await statuses(first, slow) == [200, 200]
        await until(lambda: admission.buffered_bytes == admission.in_flight == 0)


@pytest.mark.parametrize("crowd", [{"max_queued": 0, "max_buffered_bytes": 99, "max_body_bytes": 99}], indirect=True)
async def test_an_llm_can_be_drained_when_its_calls_hold_all_there_is(crowd: Crowd) -> None:
    await crowd.come("192.0.2.1")
    drain = json.dumps({"llm": "openai", "drained": True}).encode()
    async with connected(crowd.proxy.port) as operator:
        drained = await ask(operator, post(drain, "/providers"))

    assert crowd.proxy.server.admission.buffered_bytes + len(drain) > 99
    assert (drained.status, drained.json["drained"]) == (200, True)


@pytest.mark.parametrize("crowd", [{"max_queued": 0, "max_buffered_bytes": 1 << 15}], indirect=True)
async def test_a_long_body_for_an_endpoint_of_our_own_is_held_within_the_bound(crowd: Crowd) -> None:
    admission = crowd.proxy.server.admission
    async with connected(crowd.proxy.port) as held, connected(crowd.proxy.port) as other:
        length = "Content-Type: application/json", "Content-Length: 20000"
        held.send(request("POST", "/providers", *length) + b" " * 19_999)
        await until(lambda: admission.buffered_bytes == 19_999)

        assert (await ask(other, post(b" " * 20_000, "/providers"))).code == "overloaded"
        held.send(b" ")
        assert (await answer(held)).status == 400
    assert admission.buffered_bytes == admission.in_flight == 0


async def test_our_own_endpoints_answer_while_calls_wait_and_tell_how_many(crowd: Crowd) -> None:
    for caller in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        await crowd.come(caller)

    seen = await scrape(crowd.proxy)

    names = ("llmproxy_in_flight_requests", "llmproxy_in_flight_limit", "llmproxy_queued")
    assert [seen(name) for name in names] == [1, 1, 2]
    reasons = seen.values("llmproxy_shed_total", "reason")
    assert reasons == {"full", "displaced", "waited", "deadline", "bodies"}


@pytest.mark.parametrize("crowd", [{"max_queued": 1}], indirect=True)
async def test_calls_that_are_shed_are_counted_by_why(crowd: Crowd) -> None:
    clients = [await crowd.come(caller) for caller in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2")]

    assert [(await answer(client)).status for client in clients[2:]] == [503, 503]
    seen = await scrape(crowd.proxy)

    assert seen("llmproxy_shed_total", reason="full") == 2
    assert seen("llmproxy_shed_total", reason="displaced") == 0


# -- the end of a process, and another configuration ---------------------------------------------------------------


async def test_a_drain_serves_those_that_wait(crowd: Crowd) -> None:
    clients = [await crowd.come(f"192.0.2.{number}") for number in range(3)]
    stopping = asyncio.get_running_loop().create_task(crowd.proxy.server.stop())
    await until(lambda: crowd.proxy.server.life.draining)

    crowd.gate.open(3)

    found = [await answer(client) for client in clients]
    assert [(it.status, it["connection"]) for it in found] == [(200, "close")] * 3
    await asyncio.wait_for(stopping, 10)


@pytest.mark.parametrize("crowd", [{"drain_timeout_s": 0.1}], indirect=True)
async def test_a_drain_that_takes_too_long_tells_those_that_wait(crowd: Crowd) -> None:
    clients = [await crowd.come(f"192.0.2.{number}") for number in range(3)]

    await asyncio.wait_for(crowd.proxy.server.stop(), 10)

    found = [await answer(client) for client in clients]
    assert [(it.status, it.code) for it in found] == [(503, "shutting_down")] * 3
    assert len(crowd.gate.served) == 1
    assert crowd.proxy.server.admission.in_flight == 0


async def test_a_reload_strands_nobody(tmp_path: Path) -> None:
    gate = Gate()
    async with Upstream(PLAIN) as upstream:
        mapping = processed(openai_at(upstream.base_url))
        few = with_server(mapping, max_in_flight=1, queue_timeout_s=LONG_S)
        reloadable = Reloadable(tmp_path, few, plugins=[Processing(gate)], server={"pages": Proxy.pages})
        async with reloadable as proxy, AsyncExitStack() as leaving:
            admission = proxy.server.admission
            clients = [await leaving.enter_async_context(connected(proxy.port)) for _ in range(4)]
            for client in clients:
                client.send(post())
            await until(lambda: admission.queue.size == 3)

            assert (await proxy.reload(with_server(mapping, max_in_flight=2, max_queued=0))).ok
            await until(lambda: len(gate.served) == 2)
            assert (admission.in_flight, admission.queue.size) == (2, 2)
            gate.open(4)

            assert await statuses(*clients) == [200] * 4
            await until(lambda: admission.in_flight == 0)


# -- a burst -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "calls", [200, pytest.param(2000, marks=[pytest.mark.soak, pytest.mark.timeout(300)])], ids=["short", "whole"]
)
async def test_of_a_burst_each_call_is_served_or_told_to_come_back(
    calls: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """All at once, on connections that stand; some twenty callers, of whom one has half of the calls."""
    server: dict[str, Any] = {
        "max_in_flight": calls // 20,
        "max_queued": calls // 20,
        "trusted_proxies": ["127.0.0.1"],
    }
    async with (
        Upstream(PLAIN) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), **server)) as proxy,
        AsyncExitStack() as leaving,
    ):
        clients = [await leaving.enter_async_context(connected(proxy.port)) for _ in range(calls)]
        callers = [f"192.0.2.{number % 20 if number % 2 else 100}" for number in range(calls)]

        for client, caller in zip(clients, callers, strict=True):
            client.send(post(HELLO, "/v1/chat/completions", f"X-Forwarded-For: {caller}"))
        found = await asyncio.wait_for(asyncio.gather(*map(answer, clients)), 120)

        admission = proxy.server.admission
        await until(lambda: admission.in_flight == 0)
        kinds = Counter(map(_kind, found))
        with capsys.disabled():
            sys.stdout.write(f"\n{calls} calls at once, {server['max_in_flight']} served at a time: {dict(kinds)}\n")
        assert kinds.keys() == {"served", "shed"}
        assert kinds["shed"] == sum(admission.shed.values())
        assert kinds["served"] == len(upstream.requests) >= calls // 20
        assert admission.queue.size == 0
        again = await asyncio.wait_for(ask(clients[0], post()), 20)
        assert again.status == 200


def _kind(found: Answer) -> str:
    if (found.status, found.complete) == (200, True) and found.json["choices"]:
        return "served"
    if (found.status, found.code, found["retry-after"]) == (503, "overloaded", "1"):
        return "shed"
    return f"otherwise: {found}"


async def test_a_call_waits_no_longer_than_its_deadline(crowd: Crowd) -> None:
    await crowd.come("198.51.100.1")
    hasty = post(HELLO, "/v1/chat/completions", "X-Forwarded-For: 198.51.100.2", "X-LLMProxy-Timeout-Ms: 100")

    waiting = await crowd.come("198.51.100.2", hasty)

    assert (await answer(waiting)).status == 503
    assert crowd.proxy.server.admission.shed["deadline"] == 1
