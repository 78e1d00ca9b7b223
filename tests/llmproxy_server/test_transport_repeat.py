"""A kept connection that turns out to be closed: the request is sent once more, and only where that is safe."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from llmproxy_core.errors import UpstreamCut, UpstreamTimeout
from llmproxy_core.llm import Timeouts, UpstreamRequest
from llmproxy_core.services import Pool
from tests.llmproxy_server.transporting import OFF, Either, call, over, post, rest, transporting
from tests.script import Step
from tests.upstream import Call, Cut, Raw, Reset, Stall, Upstream, reply

SHORT_S = 0.1


__all__ = ["over"]
pytestmark = pytest.mark.usefixtures("over")


@pytest.mark.parametrize("end", [Cut(), Reset()], ids=["FIN", "RST"])
@pytest.mark.parametrize("body", [b"{}", None], ids=["body", "no body"])
async def test_a_kept_connection_that_closes_without_a_word_is_asked_again(end: Step, body: bytes | None) -> None:
    async with Upstream() as upstream, transporting() as transport:
        upstream.then(reply([1]), [end], reply([2]))
        assert await rest(await call(transport, post(upstream.base_url))) == b"[1]"
        request = UpstreamRequest("POST", upstream.base_url, [("a", "b")], body)

        assert await rest(await call(transport, request)) == b"[2]"

        first, second = upstream.requests[1:]
        assert (first.connection, second.connection) == (1, 2)
        assert (first.headers, first.body) == (second.headers, second.body)


async def test_it_is_asked_again_once() -> None:
    async with Upstream([Cut()]) as upstream, transporting() as transport:
        upstream.then(reply([1]))
        await rest(await call(transport, post(upstream.base_url)))

        with pytest.raises(UpstreamCut):
            await call(transport, post(upstream.base_url))

        assert len(upstream.requests) == 3
        assert transport.connections_in_use == 0


async def test_it_is_asked_again_on_a_new_connection_though_others_are_kept() -> None:
    go_on = asyncio.Event()

    async def together(call: Call) -> None:
        if len(upstream.requests) == 3:
            go_on.set()
        await go_on.wait()
        await call.play(*reply([1]))

    async with Upstream(together) as upstream, transporting() as transport:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(read_whole(transport, upstream))
        upstream.then([Cut()])

        assert await rest(await call(transport, post(upstream.base_url))) == b"[1]"

        assert [each.connection for each in upstream.requests[3:]][-1] == 4


async def read_whole(transport: Either, upstream: Upstream) -> None:
    await rest(await call(transport, post(upstream.base_url)))


async def test_in_a_full_pool_it_is_asked_again_too() -> None:
    async with Upstream() as upstream, transporting(Pool(max_connections=1)) as transport:
        upstream.then(reply([1]), [Cut()], reply([2]))
        await rest(await call(transport, post(upstream.base_url)))

        assert await rest(await call(transport, post(upstream.base_url))) == b"[2]"


async def test_a_new_connection_that_closes_is_a_cut() -> None:
    async with Upstream([Cut()]) as upstream, transporting() as transport:
        with pytest.raises(UpstreamCut):
            await call(transport, post(upstream.base_url))

        assert len(upstream.requests) == 1


@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["a byte", "an interim answer"])
async def test_an_upstream_that_has_said_anything_is_not_asked_again(said: bytes) -> None:
    async with Upstream() as upstream, transporting() as transport:
        upstream.then(reply([1]), [Raw(said), Cut()])
        await rest(await call(transport, post(upstream.base_url)))

        with pytest.raises(UpstreamCut):
            await call(transport, post(upstream.base_url))

        assert len(upstream.requests) == 2


async def test_a_body_of_pieces_is_not_sent_again() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    async with Upstream() as upstream, transporting() as transport:
        upstream.then(reply([1]), [Cut()])
        await rest(await call(transport, post(upstream.base_url)))

        with pytest.raises(UpstreamCut):
            await call(transport, post(upstream.base_url, pieces()))

        assert len(upstream.requests) == 2


async def test_a_time_out_is_not_asked_again() -> None:
    async with Upstream() as upstream, transporting() as transport:
        upstream.then(reply([1]), [Stall()])
        await rest(await call(transport, post(upstream.base_url)))

        with pytest.raises(UpstreamTimeout):
            async with asyncio.timeout(2):
                await transport.open(post(upstream.base_url), Timeouts(None, SHORT_S, None, None))

        assert len(upstream.requests) == 2


async def test_the_total_time_counts_from_the_first_time() -> None:
    async def late_cut(call: Call) -> None:
        await asyncio.sleep(2 * SHORT_S)  # what is tested is time
        await call.play(Cut())

    async with Upstream() as upstream, transporting() as transport:
        upstream.then(reply([1]), late_cut, [Stall()])
        await rest(await call(transport, post(upstream.base_url)))
        loop = asyncio.get_running_loop()
        began = loop.time()

        with pytest.raises(UpstreamTimeout):
            async with asyncio.timeout(2):
                await transport.open(post(upstream.base_url), Timeouts(None, None, None, 3 * SHORT_S))

        assert loop.time() - began < 4.5 * SHORT_S
        assert len(upstream.requests) == 3


async def test_a_closed_transport_asks_nobody_again() -> None:
    async with Upstream() as upstream, transporting() as transport:
        upstream.then(reply([1]), [Stall()])
        await rest(await call(transport, post(upstream.base_url)))
        opening = asyncio.Task(transport.open(post(upstream.base_url), OFF))
        await upstream.received(2)

        await transport.aclose()

        with pytest.raises(UpstreamCut):
            await opening
        assert len(upstream.requests) == 2
