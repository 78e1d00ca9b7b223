"""The fake upstream does to the byte what its script says, and notices what its client does."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from tests.rawclient import ASK, WAIT_S, connected
from tests.upstream import (
    Body,
    Call,
    Chunk,
    Cut,
    Drain,
    End,
    Flood,
    Head,
    Raw,
    Reached,
    Reset,
    Stall,
    Step,
    Upstream,
    Wait,
    refusing_url,
    reply,
    silent_url,
)


async def soon(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), WAIT_S)


FRAMED = [
    pytest.param(
        [Head(200, {"x-a": "1"}), Chunk(b"ab"), Chunk(b"c" * 17), End()],
        b"HTTP/1.1 200 OK\r\nx-a: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n11\r\n"
        + b"c" * 17
        + b"\r\n0\r\n\r\n",
        True,
        id="chunked",
    ),
    pytest.param(
        [Head(404, (), framing=3), Chunk(b"a"), Chunk(b"bc"), End()],
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc",
        True,
        id="sized",
    ),
    pytest.param(
        [Head(200, [("x-a", "1"), ("x-a", "2")], framing="close"), Chunk(b"abc"), End()],
        b"HTTP/1.1 200 OK\r\nx-a: 1\r\nx-a: 2\r\nConnection: close\r\n\r\nabc",
        False,
        id="until close",
    ),
    pytest.param([Raw(b"SSH-2.0-x\r\n"), Raw(b"\xff"), Cut()], b"SSH-2.0-x\r\n\xff", False, id="garbage"),
    pytest.param([], b"", False, id="no word"),
    pytest.param(
        [Head(200, ()), Chunk(b"ab"), Cut()],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        False,
        id="cut",
    ),
    pytest.param(
        [Head(529, {"connection": "close"}, framing=0), End()],
        b"HTTP/1.1 529 \r\nconnection: close\r\nContent-Length: 0\r\n\r\n",
        False,
        id="unknown status",
    ),
]


@pytest.mark.parametrize(("script", "expected", "kept"), FRAMED)
async def test_the_client_gets_exactly_the_scripted_bytes(script: Sequence[Step], expected: bytes, kept: bool) -> None:
    async with Upstream(script) as upstream, connected(upstream.port) as client:
        client.send()
        got = await client.exactly(len(expected))
        if kept:
            await soon((await upstream.received()).finished)
            client.writer.write_eof()

        assert got + await client.rest() == expected
        assert upstream.bytes_sent == len(expected)


async def test_a_reset_is_an_error_and_no_end() -> None:
    async with Upstream([Head(), Chunk(b"ab"), Reset()]) as upstream, connected(upstream.port) as client:
        client.send()

        with pytest.raises(ConnectionResetError):
            await client.rest()

        await upstream.until(lambda: upstream.connections_open == 0)
        received = await upstream.received()
        assert not received.gone.is_set()  # it was we who left
        assert received.finished.is_set()


async def test_a_request_is_recorded_as_it_came() -> None:
    async with Upstream(reply({})) as upstream, connected(upstream.port) as client:
        client.send(b"PUT /a/b?c=%20 HTTP/1.1\r\nHost: h\r\nX-Up:  one \r\nx-up: two\r\nX-None:\r\n")
        client.send(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n")
        await client.until(b"{}")

        received = await upstream.received()

    assert (received.method, received.target) == ("PUT", "/a/b?c=%20")
    assert received.headers == (
        ("Host", "h"),
        ("X-Up", "one"),
        ("x-up", "two"),
        ("X-None", ""),
        ("Transfer-Encoding", "chunked"),
    )
    assert received.body == b"abc0123456789"
    assert received.body_complete
    assert received.header("HOST") == "h"
    assert received.header("absent") is None
    with pytest.raises(LookupError, match="came 2 times"):
        received.header("x-up")


async def test_a_connection_carries_one_request_after_the_other() -> None:
    async with Upstream() as upstream, connected(upstream.port) as client:
        upstream.then(reply([1]), reply([2]))
        for number, ending in enumerate((b"[1]", b"[2]"), 1):
            client.send()
            await client.until(ending)
            assert (await upstream.received(number)).connection == 1
        async with connected(upstream.port) as other:
            upstream.then(reply([3]))
            other.send()
            await other.until(b"[3]")
            assert (await upstream.received(3)).connection == 2
            assert (upstream.connections_open, upstream.connections_total) == (2, 2)

        await upstream.until(lambda: upstream.connections_open == 1)

        assert not any(received.gone.is_set() for received in upstream.requests)


@pytest.mark.parametrize("last", [Cut(), Reset()], ids=["FIN", "RST"])
async def test_a_kept_connection_may_be_ended_later(last: Step) -> None:
    end = asyncio.Event()
    async with (
        Upstream([Head(framing=2), Chunk(b"ok"), End(), Wait(end), last]) as upstream,
        connected(upstream.port) as client,
    ):
        client.send()
        await client.until(b"ok")
        end.set()

        try:
            assert await client.rest() == b""
            assert isinstance(last, Cut)
        except ConnectionResetError:
            assert isinstance(last, Reset)


async def test_a_client_that_leaves_ends_the_script_before_its_next_chunk() -> None:
    go_on, after = asyncio.Event(), asyncio.Event()
    async with Upstream([Head(), Chunk(b"1"), Wait(go_on), Chunk(b"2"), Reached(after), End()]) as upstream:
        async with connected(upstream.port) as client:
            client.send()
            await client.until(b"1\r\n1\r\n")
        received = await upstream.received()
        await soon(received.gone)
        go_on.set()

        await upstream.until(lambda: upstream.connections_open == 0)

        assert received.chunks_sent == 1
        assert not after.is_set()
        assert not received.finished.is_set()


async def test_without_a_leaving_client_the_script_goes_on() -> None:
    """What the test before would see if nothing were noticed."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    script: list[Step] = [Head(), Chunk(b"1"), Reached(reached), Wait(go_on), Chunk(b"2"), Drain(), End()]
    async with Upstream(script) as upstream, connected(upstream.port) as client:
        client.send()
        await soon(reached)
        received = await upstream.received()
        assert (received.chunks_sent, received.finished.is_set()) == (1, False)
        go_on.set()

        await client.until(b"0\r\n\r\n")

        await soon(received.finished)
        assert (received.chunks_sent, received.gone.is_set()) == (2, False)


@pytest.mark.parametrize("script", [[Stall()], [Head(), Stall()], [Head(), Chunk(b"x"), Stall()]])
async def test_a_stall_lasts_until_the_client_leaves(script: Sequence[Step]) -> None:
    async with Upstream(script) as upstream:
        async with connected(upstream.port) as client:
            client.send()
            received = await upstream.received()
            assert not received.gone.is_set()

        await soon(received.gone)


async def test_a_flood_is_held_back_by_a_client_that_does_not_read() -> None:
    chunk, count = b"x" * 16_384, 4096  # 64 MiB, more than the kernel takes for the two sockets
    async with (
        Upstream([Head(), Flood(chunk, count), End()], send_buffer_bytes=65_536) as upstream,
        connected(upstream.port, read_buffer_bytes=65_536) as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send()
        received = await upstream.received()
        await received.held_back()
        held = received.bytes_sent
        assert received.writes_blocked > 0
        assert held < 2**20
        await received.held_back()
        assert received.bytes_sent == held

        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        total = 0
        while not received.finished.is_set() or total < received.bytes_sent:
            total += len(await asyncio.wait_for(client.reader.read(2**20), WAIT_S))

        assert received.chunks_sent == count
        assert total == received.bytes_sent > count * len(chunk)


async def test_a_flood_ends_when_told_or_with_the_client() -> None:
    until = asyncio.Event()
    async with Upstream([Head(), Flood(b"x" * 1000, until=until), End()]) as upstream:
        async with connected(upstream.port) as client:
            client.send()
            await client.until(b"x" * 1000)
            until.set()
            await client.until(b"\r\n0\r\n\r\n")
        until.clear()
        async with connected(upstream.port) as client:
            client.send()
            await client.until(b"x" * 1000)

        await soon((await upstream.received(2)).gone)


async def test_an_early_script_answers_while_the_request_is_still_coming() -> None:
    async def echo(call: Call) -> None:
        await call.play(Head(200, ()), Body(2))
        await call.play(Chunk(call.received.body), Body())
        await call.play(Chunk(call.received.body), End())

    async with Upstream(early=True) as upstream, connected(upstream.port) as client:
        upstream.then([Head(framing=2), Body(2), Chunk(b"ok"), Body(), End()])
        client.send(ASK[:-2])
        assert not (await upstream.received()).body_complete
        client.send(b"{")
        assert await client.until(b"\r\n\r\n")
        client.send(b"}")
        await client.until(b"ok")
        upstream.then(echo)
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await client.until(b"2\r\nab\r\n")
        client.send(b"1\r\nc\r\n0\r\n\r\n")

        await client.until(b"3\r\nabc\r\n0\r\n\r\n")


async def test_an_early_answer_does_not_lose_the_rest_of_the_request() -> None:
    async with Upstream(reply([1]), early=True) as upstream, connected(upstream.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.until(b"[1]")
        client.send(b"2\r\na")  # half a chunk
        await client.writer.drain()
        client.send(b"b\r\n0\r\n\r\n")
        client.send()
        await client.until(b"[1]")

        assert upstream.requests[0].body == b"ab"


async def test_a_client_that_leaves_within_its_request_is_counted_and_not_answered() -> None:
    async with Upstream(reply({})) as upstream:
        for part in (ASK[:10], ASK[:-1]):
            async with connected(upstream.port) as client:
                client.send(part)
                await client.writer.drain()
        async with connected(upstream.port):
            pass  # not a request at all

        await upstream.until(lambda: upstream.connections_total == 3 and not upstream.connections_open)

        assert (upstream.requests_cut, upstream.requests) == (2, [])


async def test_leaving_the_upstream_ends_its_connections_and_scripts() -> None:
    async with AsyncExitStack() as clients:
        async with Upstream([Head(), Stall()]) as upstream:
            client = await clients.enter_async_context(connected(upstream.port))
            client.send()
            received = await upstream.received()

        assert (await client.rest()).startswith(b"HTTP/1.1 200 OK")
        assert not received.gone.is_set()


async def test_a_server_that_stopped_listening_keeps_its_connections() -> None:
    async with Upstream(reply({})) as upstream, connected(upstream.port) as client:
        client.send()
        await client.until(b"{}")
        upstream.stop_listening()
        client.send()
        await client.until(b"{}")

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", upstream.port)


async def test_there_are_ports_that_refuse_and_ports_that_do_not_answer() -> None:
    with refusing_url() as url, pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    with silent_url() as url, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
