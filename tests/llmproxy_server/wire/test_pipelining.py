"""Several requests on one connection: answered one after the other, in order, as long as the connection is sound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.llmproxy_server.edging import HELLO, STREAM, answer, ask, chunks, head, post, request
from tests.llmproxy_server.wire.ours import OPERATIONS, answers
from tests.llmproxy_server.wire.rows import BODY, CHUNKED, chunk, get, sized
from tests.proxy import Proxy, openai_at
from tests.rawclient import Client, connected
from tests.script import Call
from tests.upstream import (
    Body,
    Chunk,
    End,
    Head,
    Reached,
    Script,
    Stall,
    Step,
    Upstream,
    Wait,
    chat_chunk,
    completion,
    reply,
    sse,
)

MANY = 200
TEXT = {"content-type": "text/plain"}
FIRST, REST = sse(chat_chunk("one"), done=False), sse(chat_chunk(None, finish="stop"))


@asynccontextmanager
async def client_of(script: Script, *, early: bool = False) -> AsyncIterator[tuple[Upstream, Proxy, Client]]:
    """A client of a proxy that passes everything under /v1 on to an upstream that plays *script*."""
    async with (
        Upstream(script, early=early) as upstream,
        Proxy(openai_at(upstream.base_url, route={"operations": OPERATIONS})) as proxy,
        connected(proxy.port) as client,
    ):
        yield upstream, proxy, client


async def echo(call: Call) -> None:
    """Answer with the target and the body of the request."""
    received = call.received
    said = received.target.encode() + b" " + received.body
    await call.play(Head(200, TEXT, len(said)), Chunk(said), End())


def numbered(number: int) -> bytes:
    return request("GET", f"/v1/files/{number}")


def stream_then(*steps: Step) -> list[Step]:
    return [Head(), Chunk(FIRST), *steps, Chunk(REST), End()]


# -- in order --------------------------------------------------------------------------------------------------------


async def test_requests_sent_at_once_are_answered_in_order() -> None:
    async with client_of(echo) as (upstream, _, client):
        client.send(b"".join(numbered(number) for number in range(MANY)))

        got = [(await answer(client)).body for _ in range(MANY)]

        assert got == [b"/v1/files/%d " % number for number in range(MANY)]
        assert [received.target for received in upstream.requests] == [f"/v1/files/{number}" for number in range(MANY)]


async def test_requests_with_bodies_of_all_framings_keep_theirs() -> None:
    bodies = [b"%d" % number * (number + 1) for number in range(30)]
    by_length = [request("PUT", "/v1/files/x", f"Content-Length: {len(body)}") + body for body in bodies]
    in_chunks = [
        request("PUT", "/v1/files/x", "Transfer-Encoding: chunked")
        + b"".join(map(chunk, (body[:7], body[7:] or b".")))
        + b"0\r\n\r\n"
        for body in bodies
    ]
    async with client_of(echo) as (_, _, client):
        client.send(b"".join(one + other for one, other in zip(by_length, in_chunks, strict=True)))

        for body in bodies:
            assert (await answer(client)).body == b"/v1/files/x " + body
            assert (await answer(client)).body == b"/v1/files/x " + body[:7] + (body[7:] or b".")


async def test_what_is_sent_while_an_answer_is_awaited_is_answered_after_it() -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    async with client_of([Reached(reached), Wait(go_on), *reply(completion("slow"))]) as (upstream, _, client):
        client.send(post())
        await asyncio.wait_for(reached.wait(), 10)
        client.send(request("GET", "/livez"))
        client.send(request("HEAD", "/livez"))
        go_on.set()

        assert b"slow" in (await answer(client)).body
        assert (await answer(client)).status == 200
        assert (await answer(client, method="HEAD")).status == 200
        assert len(upstream.requests) == 1


async def test_behind_a_slow_stream_nothing_is_answered_before_its_end() -> None:
    go_on = asyncio.Event()
    async with client_of(stream_then(Wait(go_on))) as (upstream, _, client):
        upstream.then(stream_then(Wait(go_on)), echo, echo)
        client.send(post(STREAM) + numbered(1) + numbered(2))

        assert (await head(client)).status == 200
        await client.until(FIRST + b"\r\n")
        go_on.set()
        body, whole = await chunks(client)

        assert (body, whole) == (REST, True)
        assert [(await answer(client)).body for _ in range(2)] == [b"/v1/files/1 ", b"/v1/files/2 "]


async def test_a_client_that_asks_and_does_not_read_is_answered_in_order_when_it_does() -> None:
    """Its answers fill all buffers on the way, so that for a while nothing more of it is read."""
    big = b"x" * 100_000
    script: list[Step] = [Head(200, TEXT, len(big)), Chunk(big), End()]
    async with client_of(script) as (upstream, proxy, _), connected(proxy.port, read_buffer_bytes=4096) as client:
        for number in range(MANY):
            client.send(numbered(number))
        await upstream.received(1)

        for _ in range(MANY):
            assert len((await answer(client)).body) == len(big)
        assert [received.target for received in upstream.requests] == [f"/v1/files/{number}" for number in range(MANY)]


async def test_a_flood_of_requests_behind_one_that_waits_is_held_back() -> None:
    """What a client sends ahead is read a little further: the rest stays in its own and the kernel's buffers."""
    go_on, reached = asyncio.Event(), asyncio.Event()
    flood = request("GET", "/livez", "X-A: " + "a" * 8000)  # 16 MB of them: more than the kernel takes
    async with client_of([Reached(reached), Wait(go_on), *reply(completion("slow"))]) as (_, _, client):
        client.send(post())
        await asyncio.wait_for(reached.wait(), 10)
        client.send(flood * 2000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), 0.2)
        go_on.set()

        assert [(await answer(client)).status for _ in range(2001)] == [200] * 2001


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_connection_is_kept_for_one_request_after_the_other(version: str) -> None:
    data = sized(BODY, b"Connection: keep-alive").replace(b"1.1", version.encode(), 1)
    async with client_of(reply(completion("Hello"))) as (upstream, proxy, client):
        for _ in range(20):
            got = await ask(client, data)
            assert (got.status, got.headers.count(("connection", "close"))) == (200, 0)

        assert len(upstream.requests) == 20
        assert len(proxy.exchanges) == 20


# -- clients that end their side -------------------------------------------------------------------------------------


async def test_a_client_that_ends_its_side_after_its_answers_is_let_go() -> None:
    async with client_of(echo) as (_, _, client):
        client.send(numbered(1) + numbered(2))
        assert [(await answer(client)).status for _ in range(2)] == [200, 200]

        client.writer.write_eof()

        assert await client.rest() == b""


async def test_a_client_that_ends_its_side_while_it_is_answered_is_gone() -> None:
    """docs/operations.md: a half-closed connection is taken for a closed one. What it sent behind is not served."""
    async with client_of([Head(), Chunk(FIRST), Stall()]) as (upstream, proxy, client):
        client.send(post(STREAM) + numbered(1))
        await client.until(FIRST)

        client.writer.write_eof()

        await asyncio.wait_for((await upstream.received()).gone.wait(), 10)
        assert (await proxy.outcome()).end == "abandoned"
        assert len(upstream.requests) == 1
        assert len(proxy.exchanges) == 1


@pytest.mark.parametrize(
    "part", [get()[:30], get()[:-1], sized()[:-5], CHUNKED + chunk()], ids=["line", "head", "body", "chunks"]
)
async def test_a_client_that_ends_its_side_within_its_second_request_has_the_first_answered(part: bytes) -> None:
    async with client_of(echo) as (upstream, _, client):
        assert (await ask(client, numbered(1))).status == 200
        client.send(part)

        client.writer.write_eof()

        assert all(400 <= each.status < 500 for each in answers(await client.rest()))
        assert len(upstream.requests) == 1


# -- early answers ---------------------------------------------------------------------------------------------------

EARLY = {
    "a path that leads nowhere": (request("POST", "/nowhere", "Content-Length: 1000"), 404),
    "a method that is not taken": (request("POST", "/livez", "Content-Length: 1000", "Content-Type: text/plain"), 405),
    "a body that is no JSON": (post(HELLO, type="text/plain").partition(b"{")[0], 415),
    "a body too large": (
        request("POST", "/v1/chat/completions", "Content-Type: application/json", "Content-Length: 99999999"),
        413,
    ),
    "a coding": (post(HELLO, "/v1/chat/completions", "Content-Encoding: gzip").partition(b"{")[0], 415),
}


@pytest.mark.parametrize(("data", "status"), EARLY.values(), ids=EARLY)
async def test_an_answer_before_the_bodys_end_closes_and_the_rest_of_it_is_no_request(data: bytes, status: int) -> None:
    async with client_of(echo) as (upstream, proxy, client):
        client.send(data)
        got = await answer(client)
        client.send(numbered(1))  # a body, to whoever keeps count

        assert (got.status, got["connection"]) == (status, "close")
        assert await client.rest() == b""
        assert not upstream.requests
        assert not proxy.exchanges


@pytest.mark.parametrize(("data", "status"), EARLY.values(), ids=EARLY)
async def test_an_answer_that_comes_with_the_whole_body_there_keeps_the_connection_in_step(
    data: bytes, status: int
) -> None:
    """Whether it is kept is ours to say; what follows is then the next request and no part of the body."""
    if status == 413:
        return  # so much is not sent
    length = int(data.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    async with client_of(echo) as (upstream, _, client):
        client.send(data + b"x" * length + get(b"Connection: close"))

        found = answers(await client.rest())

        assert found[0].status == status
        kept = found[0].header("connection") != "close"
        assert [each.status for each in found[1:]] == [200] * kept
        assert len(upstream.requests) == kept


async def test_an_upstreams_early_answer_is_passed_on_and_closes() -> None:
    script: list[Step] = [Body(5), *reply(b"enough", 200, TEXT), Body()]
    async with client_of(script, early=True) as (upstream, _, client):
        client.send(request("PUT", "/v1/files/x", "Content-Length: 100000") + b"12345")

        got = await answer(client)
        client.send(numbered(1))

        assert (got.status, got.body) == (200, b"enough")
        assert await client.rest() == b""
        assert len(upstream.requests) == 1
        upstream.take_errors()
