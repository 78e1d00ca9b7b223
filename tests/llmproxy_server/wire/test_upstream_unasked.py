"""What comes where nothing was asked, or not all of it: the connection ends."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from llmproxy_server.wire.upstream import WireTransport
from tests.llmproxy_server.transporting import call, get, post, rest, through, transporting
from tests.script import Step
from tests.upstream import Call, Chunk, End, Head, Raw, Stall, Upstream, reply


@pytest.fixture(autouse=True)
def over_the_wire() -> Iterator[None]:
    with through(WireTransport):
        yield


async def test_a_byte_on_an_idle_connection_ends_it() -> None:
    go_on = asyncio.Event()

    async def chatter(call: Call) -> None:
        await call.play(*reply([1]))
        await go_on.wait()
        await call.play(Raw(b"x"))

    async with Upstream(reply([2])) as upstream, transporting() as transport:
        upstream.then(chatter)
        await rest(await call(transport, post(upstream.base_url)))
        go_on.set()
        await upstream.until(lambda: upstream.connections_open == 0)

        assert await rest(await call(transport, get(upstream.base_url))) == b"[2]"
        assert upstream.connections_total == 2


@pytest.mark.parametrize("more", [b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
async def test_what_comes_behind_an_answer_ends_its_connection(more: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with Upstream([Raw(answer + more), Stall()]) as upstream, transporting() as transport:
        for _ in range(2):
            assert await rest(await call(transport, post(upstream.base_url))) == b"ok"

        assert upstream.connections_total == 2


async def test_an_answer_before_the_end_of_the_request_ends_the_connection() -> None:
    never = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await never.wait()

    script: list[Step] = [Head(413, (), 2), Chunk(b"no"), End()]
    async with Upstream(script, early=True) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url, pieces()))

        assert await rest(body) == b"no"
        await upstream.until(lambda: upstream.connections_open == 0)
