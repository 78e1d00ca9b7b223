"""Which connections a transport keeps, and that it leaves none behind."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmproxy_core.errors import (
    UpstreamCut,
    UpstreamGarbage,
)
from llmproxy_core.llm import Timeouts
from llmproxy_core.services import Pool
from llmproxy_server.transport_call import UpstreamCall
from llmproxy_server.wire.upstream_call import UpstreamCall as WireCall
from tests.llmproxy_server.transporting import OFF, WAIT_S, call, get, over, post, read, rest, soon, transporting, until
from tests.upstream import (
    Call,
    Chunk,
    End,
    Head,
    Raw,
    Reset,
    Stall,
    Upstream,
    Wait,
    reply,
    silent_url,
)

__all__ = ["over"]
pytestmark = pytest.mark.usefixtures("over")

SHORT_S = 0.1
OK = b"HTTP/1.1 200 OK\r\n"


# ------------------------------------------------------------------------------------------------ connections


async def test_a_connection_carries_one_call_after_the_other() -> None:
    async with Upstream(reply({})) as upstream, transporting() as transport:
        for _ in range(5):
            await rest(await call(transport, post(upstream.base_url)))

        assert (len(upstream.requests), upstream.connections_total) == (5, 1)
        assert transport.connections_in_use == 0


async def test_a_connection_is_kept_when_the_end_came_unread() -> None:
    async with Upstream(reply({})) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        await soon((await upstream.received()).finished)
        await until(lambda: transport.connections_in_use == 0)
        body.close()

        assert await rest(await call(transport, post(upstream.base_url))) == b"{}"
        assert upstream.connections_total == 1


async def test_a_connection_is_not_kept_when_the_upstream_closes_it() -> None:
    async with Upstream([Head(200, {"connection": "close"}, 2), Chunk(b"ok"), End()]) as upstream:
        async with transporting() as transport:
            for _ in range(2):
                assert await rest(await call(transport, post(upstream.base_url))) == b"ok"

        assert upstream.connections_total == 2


async def test_a_connection_is_not_kept_longer_than_the_pool_says() -> None:
    async with Upstream(reply({})) as upstream, transporting(Pool(idle_s=0)) as transport:
        for _ in range(2):
            await rest(await call(transport, post(upstream.base_url)))

        assert upstream.connections_total == 2


async def test_an_answer_to_no_request_is_not_taken_for_the_next_ones(over: str) -> None:
    go_on = asyncio.Event()
    stray = OK + b"Content-Length: 5\r\n\r\nstray"
    async with Upstream() as upstream, transporting() as transport:
        upstream.then([*reply([1]), Wait(go_on), Raw(stray), Stall()], reply([2]))
        assert await rest(await call(transport, post(upstream.base_url))) == b"[1]"
        go_on.set()
        first = await upstream.received()
        await until(lambda: first.bytes_sent > len(stray) + 60)
        for _ in range(5):  # the stray answer is read
            await asyncio.sleep(0)

        if over == "aiohttp":  # which learns of it only when the connection is taken; see STRICTER
            with pytest.raises(UpstreamGarbage, match="answered before it was asked"):
                await call(transport, post(upstream.base_url))

        assert await rest(await call(transport, post(upstream.base_url))) == b"[2]"
        upstream.take_errors()


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("said", [b"Content-Length: 47", b"Transfer-Encoding: chunked"], ids=["sized", "chunked"])
async def test_a_body_that_there_cannot_be_is_not_the_next_answer_of_its_connection(status: int, said: bytes) -> None:
    async with Upstream() as upstream, transporting() as transport:
        upstream.then([Raw(b"HTTP/1.1 %d X\r\n%b\r\n\r\n" % (status, said)), Stall()], reply([2]))
        assert await rest(await call(transport, get(upstream.base_url))) == b""
        first = await upstream.received()

        assert await rest(await call(transport, get(upstream.base_url))) == b"[2]"
        assert upstream.connections_total == 2
        await soon(first.gone)
        upstream.take_errors()


@pytest.mark.parametrize("pool", [Pool(max_connections=2), Pool(max_connections_per_host=2)], ids=["all", "host"])
async def test_a_full_pool_makes_calls_wait_for_their_turn(pool: Pool) -> None:
    go_on = asyncio.Event()
    async with Upstream([Head(200, (), 2), Wait(go_on), Chunk(b"ok"), End()]) as upstream:
        async with transporting(pool) as transport, asyncio.TaskGroup() as tasks:

            async def one() -> bytes:
                return await rest(await call(transport, post(upstream.base_url)))

            calls = [tasks.create_task(one()) for _ in range(6)]
            await upstream.received(2)
            assert (transport.connections_in_use, len(upstream.requests)) == (2, 2)
            go_on.set()
            async with asyncio.timeout(WAIT_S):
                assert await asyncio.gather(*calls) == [b"ok"] * 6

        assert upstream.connections_total == 2


# ------------------------------------------------------------------------------------------------ cancellation


async def test_a_cancelled_connect_leaves_nothing() -> None:
    with silent_url() as url:
        async with transporting() as transport:
            opening = asyncio.Task(transport.open(get(url), OFF))
            await until(lambda: transport.connections_in_use == 1)

            await _cancel(opening)

            assert transport.connections_in_use == 0


async def test_a_cancelled_wait_for_a_free_connection_leaves_nothing() -> None:
    async with Upstream([Head(), Stall()]) as upstream, transporting(Pool(max_connections=1)) as transport:
        body = await call(transport, get(upstream.base_url))
        opening = asyncio.Task(transport.open(get(upstream.base_url), OFF))
        await asyncio.sleep(0)

        await _cancel(opening)
        body.close()

        assert transport.connections_in_use == 0
        assert len(upstream.requests) == 1


async def test_a_cancelled_wait_for_the_head_closes_the_connection() -> None:
    async with Upstream([Stall()]) as upstream, transporting() as transport:
        opening = asyncio.Task(transport.open(post(upstream.base_url), OFF))
        received = await upstream.received()

        await _cancel(opening)

        assert transport.connections_in_use == 0
        await soon(received.gone)


async def test_a_cancelled_upload_closes_the_connection_though_it_is_not_taken() -> None:
    """asyncio would keep the socket and what is not yet written until the upstream takes it, if ever."""
    pieces_sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal pieces_sent
        while True:
            pieces_sent += 1
            yield b"x" * 2**16

    async def take_nothing(call: Call) -> None:
        call.transport.pause_reading()
        await call.play(Stall())

    async with Upstream(take_nothing, early=True) as upstream, transporting() as transport:
        opening = asyncio.Task(transport.open(post(upstream.base_url, pieces()), OFF))
        before = -1
        while pieces_sent != before:  # until the kernel takes no more
            before = pieces_sent
            await asyncio.sleep(SHORT_S)
        files = _open_files()

        await _cancel(opening)

        assert transport.connections_in_use == 0
        await until(lambda: _open_files() == files - 1)


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def _cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(WAIT_S):
            await task


# ------------------------------------------------------------------------------------------------ the end


async def test_closing_the_transport_closes_what_is_open_and_what_is_idle() -> None:
    async with Upstream() as upstream, transporting() as transport:
        upstream.then([Head(), Chunk(b"x"), Stall()], [Head(), Chunk(b"x"), Stall()], reply({}))
        waiting = await call(transport, post(upstream.base_url))
        unread = await call(transport, post(upstream.base_url))
        await rest(await call(transport, post(upstream.base_url)))
        assert await read(waiting) == b"x"
        reading = asyncio.Task(waiting.read())
        await asyncio.sleep(0)

        await transport.aclose()

        with pytest.raises(UpstreamCut):
            await reading
        await upstream.until(lambda: upstream.connections_open == 0)
        unread.close()
        with pytest.raises(RuntimeError, match="closed"):
            await transport.open(get(upstream.base_url), OFF)


async def test_a_closed_transport_has_no_open_socket() -> None:
    """Not even for one more turn of the loop, which nobody may give it."""
    async with Upstream([Head(), Stall()]) as upstream, transporting() as transport:
        await call(transport, post(upstream.base_url))
        files = _open_files()

        await transport.aclose()

        assert _open_files() < files


async def test_a_kept_connection_that_ends_badly_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    go_on = asyncio.Event()
    caplog.set_level(logging.WARNING)
    async with Upstream() as upstream, transporting() as transport:
        upstream.then([Head(200, (), 2), Chunk(b"ok"), End(), Wait(go_on), Reset()], reply({}))
        await rest(await call(transport, post(upstream.base_url)))
        go_on.set()
        await upstream.until(lambda: upstream.connections_open == 0)
        for _ in range(5):  # our side hears of it
            await asyncio.sleep(0)

        assert await rest(await call(transport, post(upstream.base_url))) == b"{}"

    gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize("to_the_end", [True, False], ids=["read", "released"])
async def test_a_kept_connection_holds_nothing_of_the_calls_before(to_the_end: bool) -> None:
    def calls() -> int:
        gc.collect()
        return sum(isinstance(each, UpstreamCall | WireCall) for each in gc.get_objects())

    before = calls()
    async with Upstream([Head(), Chunk(b"x"), End()]) as upstream, transporting() as transport:

        async def one() -> None:
            body = await call(transport, post(upstream.base_url), Timeouts())
            await (rest(body) if to_the_end else read(body))
            body.release()

        for _ in range(5):
            await one()
            await until(lambda: transport.connections_in_use == 0)

        assert calls() == before
        assert upstream.connections_total == 1
