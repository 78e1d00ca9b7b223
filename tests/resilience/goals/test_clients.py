"""Rows 18, 19, 20, 32 and 33: many clients, clients that leave, clients that do not read, all at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest

from llmproxy_core import End as Ending
from tests.answers import DONE, chat_chunk, completion, reply, sse, stream
from tests.llmproxy_server.edging import HELLO, STREAM, Answer, answer, ask, chunks, head, many, post
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, with_server
from tests.rawclient import Client, connected
from tests.resilience.goals.kit import Figure, became, guarded, quantiles_ms, reset
from tests.upstream import Call, Chunk, End, Flood, Head, Reached, Stall, Step, Upstream

ROUNDS = 20
SOON_S = 1.0
"""Row 19: within this the upstream knows."""
ROLE = {**chat_chunk(None), "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}


async def echoing(call: Call) -> None:
    """Say what was asked, plain or in three pieces."""
    asked = json.loads(call.received.body)
    text: str = asked["messages"][0]["content"]
    if not asked.get("stream"):
        await call.play(*reply(completion(text)))
        return
    pieces = (text[:2], text[2:4], text[4:])
    await call.play(*stream(*map(chat_chunk, pieces), chat_chunk(None, finish="stop")))


def asking(text: str, *, streamed: bool) -> bytes:
    """A question that is its own answer."""
    return post({"model": "m", "messages": [{"role": "user", "content": text}], "stream": streamed})


# -- 18: plain load --------------------------------------------------------------------------------------------------


async def test_under_plain_load_every_answer_is_the_right_one_and_asked_for_once(record_property: Figure) -> None:
    """Row 18: 600 calls of 20 clients, half of them streams, over two members: wrong 0, upstream calls a call 1.00."""
    calls, clients = 600, 20
    wrong: list[str] = []
    async with (
        Upstream(echoing) as a,
        Upstream(echoing) as b,
        Proxy(guarded(a, b, provider="balance", strategy="round_robin")) as proxy,
        many(proxy.port, clients) as connections,
        asyncio.TaskGroup() as all_of_them,
    ):

        async def one_after_the_other(number: int) -> None:
            for turn in range(calls // clients):
                text = f"client {number}, question {turn}"
                got = await ask(connections[number], asking(text, streamed=turn % 2 == 0))
                if (found := became(got.status, got.body, got.complete)).text != text or found.kind != "right":
                    wrong.append(text)

        for number in range(clients):
            all_of_them.create_task(one_after_the_other(number))
    asked = len(a.requests) + len(b.requests)

    record_property("row 18", f"{calls} calls, wrong {len(wrong)}, upstream/request {asked / calls:.2f}")
    assert wrong == []
    assert asked == calls
    assert abs(len(a.requests) - len(b.requests)) <= 1


# -- 19, 20: clients that leave --------------------------------------------------------------------------------------

BODY = json.dumps(completion("Hello")).encode()
BEFORE: dict[str, tuple[dict[str, Any], list[Step]]] = {
    "a stream that says nothing": (STREAM, []),
    "a stream that has only begun": (STREAM, [Head(), Chunk(sse(ROLE, done=False))]),
    "a plain answer that does not come": (HELLO, []),
    "half a plain answer": (HELLO, [Head(200, {"content-type": "application/json"}, len(BODY)), Chunk(BODY[:9])]),
}


@pytest.mark.parametrize("leaving", ["FIN", "RST"])
async def test_a_client_that_leaves_in_a_stream_has_its_call_ended_at_once(
    leaving: str, record_property: Figure
) -> None:
    """Row 19: the upstream knows within a second, and no other member is asked for nobody."""
    took_s: list[float] = []
    begun: list[Step] = [Head(), Chunk(sse(chat_chunk("one"), done=False)), Stall()]
    async with Upstream(begun) as a, Upstream() as b, Proxy(guarded(a, b)) as proxy:
        for number in range(1, ROUNDS + 1):
            async with connected(proxy.port) as client:
                client.send(post(STREAM))
                await client.until(b"one")
                left_s = time.monotonic()
                _leave(client, leaving)
                received = await a.received(number)
                await asyncio.wait_for(received.gone.wait(), 10)
                took_s.append(time.monotonic() - left_s)
            assert (await proxy.outcome(number)).end is Ending.ABANDONED

    record_property("row 19", f"{leaving}: {quantiles_ms(took_s)}")
    assert max(took_s) <= SOON_S
    assert (len(a.requests), len(b.requests)) == (ROUNDS, 0)


@pytest.mark.parametrize("leaving", ["FIN", "RST"])
@pytest.mark.parametrize("what", BEFORE)
async def test_a_client_that_leaves_before_its_answer_has_its_call_ended_at_once(
    what: str, leaving: str, record_property: Figure
) -> None:
    """Row 20: as row 19, before the first token and of plain answers."""
    asked, begun = BEFORE[what]
    took_s: list[float] = []
    async with Upstream() as a, Upstream() as b, Proxy(guarded(a, b)) as proxy:
        for number in range(1, ROUNDS + 1):
            waits = asyncio.Event()
            a.then([*begun, Reached(waits), Stall()])
            async with connected(proxy.port) as client:
                client.send(post(asked))
                await asyncio.wait_for(waits.wait(), 10)
                left_s = time.monotonic()
                _leave(client, leaving)
                await asyncio.wait_for((await a.received(number)).gone.wait(), 10)
                took_s.append(time.monotonic() - left_s)
            assert (await proxy.outcome(number)).end is Ending.ABANDONED

    record_property("row 20", f"{what}, {leaving}: {quantiles_ms(took_s)}")
    assert max(took_s) <= SOON_S
    assert (len(a.requests), len(b.requests)) == (ROUNDS, 0)


def _leave(client: Client, how: str) -> None:
    if how == "RST":
        reset(client)
    else:
        client.writer.close()


# -- 32: clients that do not read ------------------------------------------------------------------------------------

SLOW = 10
PIECE = sse(chat_chunk("x" * 4000), done=False)
PULLED_BYTES = 10 << 20
"""Of each: what the kernel's buffers of two connections take on loopback."""


async def test_clients_that_do_not_read_hold_their_upstream_back_and_nobody_else(record_property: Figure) -> None:
    """Row 32: ten streams without end whose clients take nothing; others are served, and the ten get all of theirs."""
    enough = asyncio.Event()

    async def endless(call: Call) -> None:
        if b'"stream"' not in call.received.body:
            await call.play(*reply(completion("Hello")))
            return
        await call.play(Head(), Flood(PIECE, until=enough), Chunk(DONE), End())

    took_s: list[float] = []
    async with (
        Upstream(endless, send_buffer_bytes=1 << 16) as a,
        Upstream() as b,
        Proxy(guarded(a, b)) as proxy,
        many(proxy.port, SLOW, read_buffer_bytes=4096) as slow,
        connected(proxy.port) as quick,
    ):
        for client in slow:
            client.send(post(STREAM))
        await a.received(SLOW)
        await asyncio.gather(*(received.held_back() for received in list(a.requests)))
        pulled = a.bytes_sent
        for _ in range(50):
            began_s = time.monotonic()
            assert (await ask(quick, post(HELLO))).status == 200
            took_s.append(time.monotonic() - began_s)
        assert sum(received.bytes_sent for received in a.requests[:SLOW]) == pulled
        enough.set()
        whole = [await _whole_stream(client) for client in slow]
        buffered = proxy.server.admission.buffered_bytes

    record_property("row 32", f"{pulled / SLOW / 2**20:.1f} MB pulled a stream; others {quantiles_ms(took_s)}")
    assert pulled <= SLOW * PULLED_BYTES
    assert max(took_s) <= 2
    assert (whole, buffered, b.requests) == ([True] * SLOW, 0, [])


async def _whole_stream(client: Client) -> bool:
    """Whether the stream that *client* has left unread so far comes to its end, in good order; it may be long."""
    assert (await head(client)).status == 200
    body, complete = await asyncio.wait_for(chunks(client), 20)
    return complete and body.endswith(DONE) and body.removesuffix(DONE) == PIECE * (body.count(b"\n\n") - 1)


# -- 33: a burst -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "calls", [200, pytest.param(2000, marks=[pytest.mark.soak, pytest.mark.timeout(300)])], ids=["short", "whole"]
)
async def test_of_a_burst_on_a_group_each_call_is_served_or_told_to_come_back(
    calls: int, record_property: Figure
) -> None:
    """Row 33: a member that is full gives way to the other; what the door does not take is shed: otherwise 0."""
    most = calls // 10
    async with Upstream(echoing) as a, Upstream(echoing) as b:
        queue = {"max_queued": most // 2, "queue_timeout_s": 60.0}
        mapping = guarded(a, b, llm={"max_in_flight": most // 2, **queue})
        mapping = with_server(mapping, max_in_flight=2 * most, max_queued=2 * most)
        async with Proxy(mapping) as proxy, many(proxy.port, calls) as clients:
            for number, client in enumerate(clients):
                client.send(asking(f"call {number}", streamed=number % 2 == 0))
            found = await asyncio.wait_for(asyncio.gather(*map(answer, clients)), 120)
            await until(lambda: proxy.server.admission.in_flight == 0)
            queued = proxy.server.admission.queue.size
            again = await ask(clients[0], asking("again", streamed=False))

    kinds = Counter(_kind(it, f"call {number}") for number, it in enumerate(found))
    record_property("row 33", f"{calls} at once: {dict(kinds)}")
    assert kinds.keys() <= {"right", "shed"}
    assert kinds["right"] >= 2 * most
    assert (queued, again.status) == (0, 200)
    assert b.requests  # the first member was full


def _kind(found: Answer, text: str) -> str:
    seen = became(found.status, found.body, found.complete)
    if seen.kind == "right" and seen.text == text:
        return "right"
    if seen.kind == "told" and found.status in (429, 503) and int(found["retry-after"]) >= 1:
        return "shed"
    return f"otherwise: {found}"
