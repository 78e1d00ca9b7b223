"""The body of an upstream's answer: its bytes, its failures, and what becomes of its connection."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Literal

import pytest

from llmproxy_core.body import Body
from llmproxy_core.errors import ProxyError, UpstreamCut, UpstreamError, UpstreamGarbage
from llmproxy_core.llm import Timeouts
from llmproxy_server.transport import AiohttpTransport
from tests.llmproxy_server.transporting import (
    OFF,
    Collected,
    call,
    get,
    over,
    post,
    read,
    rest,
    soon,
    transporting,
    until,
)
from tests.recordings import Recording, recordings
from tests.upstream import (
    DONE,
    Chunk,
    Cut,
    End,
    Flood,
    Framing,
    Head,
    Raw,
    Reset,
    Split,
    Stall,
    Step,
    Upstream,
    Wait,
    replay,
    reply,
)

__all__ = ["over"]
pytestmark = pytest.mark.usefixtures("over")

SHORT_S = 0.1


# ------------------------------------------------------------------------------------------------ bytes

STREAMS = [each for each in recordings(provider="openai") if each.is_event_stream]
SHORTEST = min(STREAMS, key=lambda each: len(each.response_body))


@pytest.mark.parametrize("framing", ["chunked", "sized", "close"])
@pytest.mark.parametrize("split", ["whole", "bytes", (1, 2, 7, 100, 101)], ids=["whole", "bytes", "odd"])
@pytest.mark.parametrize("pushed", [False, True], ids=["read", "attach"])
async def test_the_bytes_are_the_upstreams(
    split: Split, framing: Literal["chunked", "sized", "close"], pushed: bool
) -> None:
    async with Upstream(replay(SHORTEST, split, framing=framing)) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        if pushed:
            sink = Collected()
            body.attach(sink)
            await soon(sink.ended)
            assert sink.ends == [None]
            data = sink.data
        else:
            data = await rest(body)
            assert await read(body) == b""  # the end stays the end

    assert data == SHORTEST.response_body


@pytest.mark.parametrize("recording", STREAMS, ids=str)
async def test_the_bytes_of_every_recording_are_the_upstreams(recording: Recording) -> None:
    thirds = range(0, len(recording.response_body), 97)
    async with Upstream(replay(recording, thirds)) as upstream, transporting() as transport:
        assert await rest(await call(transport, post(upstream.base_url))) == recording.response_body


async def test_a_read_gives_what_is_there_and_waits_for_no_more() -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Head(), Chunk(b"one"), Wait(go_on), Chunk(b"two"), End()]
    async with Upstream(script) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))

        assert await read(body) == b"one"
        go_on.set()
        assert await read(body) == b"two"
        assert await read(body) == b""


async def test_a_paused_push_feeds_nothing_until_it_is_resumed() -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Head(), Chunk(b"1"), Wait(go_on), Chunk(b"2"), End()]
    async with Upstream(script) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        sink = Collected(pausing=body)
        body.attach(sink)
        await soon(sink.fed)
        go_on.set()
        await until(lambda: transport.connections_in_use == 0)  # all has come
        assert (sink.data, sink.ends) == (b"1", [])

        sink.pausing = None
        body.resume()

        await soon(sink.ended)
        assert (sink.data, sink.ends) == (b"12", [None])


async def test_a_closed_push_feeds_and_ends_nothing_more() -> None:
    async with Upstream([Head(), Chunk(b"1"), Stall()]) as upstream, transporting() as transport:
        body, sink = await call(transport, post(upstream.base_url)), Collected()
        body.attach(sink)
        await soon(sink.fed)

        body.close()

        await soon((await upstream.received()).gone)
        assert (sink.data, sink.ends) == (b"1", [])


# ------------------------------------------------------------------------------------------------ failures

BROKEN: list[tuple[str, Iterable[Step], type[UpstreamError]]] = [
    ("chunked, FIN", [Head(), Chunk(b"abc"), Cut()], UpstreamCut),
    ("chunked, RST", [Head(), Chunk(b"abc"), Reset()], UpstreamCut),
    ("within a chunk", [Head(), Chunk(b"abc"), Raw(b"9\r\n"), Cut()], UpstreamCut),
    ("within the last chunk", [Head(), Chunk(b"abc"), Raw(b"0\r\n"), Cut()], UpstreamCut),
    ("sized, FIN", [Head(framing=9), Chunk(b"abc"), Cut()], UpstreamCut),
    ("sized, RST", [Head(framing=9), Chunk(b"abc"), Reset()], UpstreamCut),
    ("until close, RST", [Head(framing="close"), Chunk(b"abc"), Reset()], UpstreamCut),
    ("chunk size", [Head(), Chunk(b"abc"), Raw(b"xyz\r\n"), Stall()], UpstreamGarbage),
    ("chunk size, FIN", [Head(), Chunk(b"abc"), Raw(b"xyz\r\n"), Cut()], UpstreamGarbage),
    ("chunk end", [Head(), Chunk(b"ab"), Raw(b"1\r\nc??"), Stall()], UpstreamGarbage),
]
PARAMETERS = pytest.mark.parametrize(
    ("script", "kind"), [pytest.param([*script], kind, id=name) for name, script, kind in BROKEN]
)


@PARAMETERS
@pytest.mark.parametrize("pushed", [False, True], ids=["read", "attach"])
async def test_a_broken_body_gives_its_bytes_and_then_fails(
    script: list[Step], kind: type[UpstreamError], pushed: bool
) -> None:
    async with Upstream(script) as upstream, transporting() as transport:
        body, sink = await call(transport, post(upstream.base_url)), Collected()
        if pushed:
            body.attach(sink)
            await soon(sink.ended)
            error = sink.ends[0]
        else:
            error = await _read_to_failure(body, sink)

        assert sink.data == b"abc"
        assert type(error) is kind
        assert (error.status, error.code) == (502, "upstream_cut" if kind is UpstreamCut else "upstream_garbage")
        assert transport.connections_in_use == 0


@PARAMETERS
async def test_what_came_before_a_failure_is_given_to_a_late_reader(
    script: list[Step], kind: type[UpstreamError]
) -> None:
    """A slow client holds the reader up while the upstream fails: the last tokens are not lost."""
    async with Upstream(script) as upstream, transporting() as transport:
        body, sink = await call(transport, post(upstream.base_url)), Collected()
        await upstream.until(lambda: upstream.connections_open == 0)
        for _ in range(5):  # our side hears of it too
            await asyncio.sleep(0)

        error = await _read_to_failure(body, sink)
        again = await _read_to_failure(body, sink)

    assert sink.data == b"abc"
    assert type(error) is type(again) is kind


async def test_a_read_in_the_moment_between_a_framing_error_and_its_news_fails_as_any_other() -> None:
    async with Upstream([Head(), Chunk(b"abc"), Raw(b"xyz\r\n"), Stall()]) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        assert await read(body) == b"abc"
        if isinstance(transport, AiohttpTransport):  # the one with such a moment
            assert transport._calls is not None
            [inner] = transport._calls
            await until(lambda: not inner._protocol.connected)

        with pytest.raises(UpstreamGarbage):
            await read(body)


async def test_a_reset_of_a_kept_connection_is_no_failure_of_an_answer_without_a_body() -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Raw(b"HTTP/1.1 204 No Content\r\n\r\n"), Wait(go_on), Reset()]
    async with Upstream(script) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        go_on.set()
        await upstream.until(lambda: upstream.connections_open == 0)
        for _ in range(5):  # our side hears of it
            await asyncio.sleep(0)

        assert await read(body) == b""


async def _read_to_failure(body: Body, sink: Collected) -> ProxyError:
    try:
        while data := await read(body):
            sink.feed(data)
    except ProxyError as error:
        return error
    pytest.fail("the body ended as if it were complete")


# ------------------------------------------------------------------------------------------------ the connection


async def test_a_close_is_seen_before_the_next_chunk() -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Head(), Chunk(b"1"), Wait(go_on), Chunk(b"2"), End()]
    async with Upstream(script) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        await read(body)

        body.close()
        body.close()

        assert transport.connections_in_use == 0
        received = await upstream.received()
        await soon(received.gone)
        go_on.set()
        assert await read(body) == b""
        assert received.chunks_sent == 1


async def test_a_cancelled_read_leaves_the_body_to_be_read_or_closed() -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Head(), Chunk(b"1"), Wait(go_on), Chunk(b"2"), Stall()]
    async with Upstream(script) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url), Timeouts())
        await read(body)
        for step in ("read", "close"):
            reading = asyncio.Task(body.read())
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            if step == "read":
                go_on.set()
                assert await read(body) == b"2"

        body.close()

        assert transport.connections_in_use == 0
        await soon((await upstream.received()).gone)


async def test_a_released_body_gives_its_connection_back_when_the_end_comes() -> None:
    go_on = asyncio.Event()
    async with Upstream(reply({})) as upstream, transporting() as transport:
        upstream.then([Head(), Chunk(DONE), Wait(go_on), Chunk(b": bye\n\n"), End()])
        body = await call(transport, post(upstream.base_url))
        assert await read(body) == DONE

        body.release()
        go_on.set()
        await until(lambda: transport.connections_in_use == 0)
        body.close()

        assert await rest(await call(transport, post(upstream.base_url))) == b"{}"
        assert upstream.connections_total == 1


@pytest.mark.parametrize("more", [Stall(), Flood(b"x" * 10_000)], ids=["silence", "flood"])
async def test_a_released_body_without_an_end_is_closed(more: Step) -> None:
    async with Upstream([Head(), Chunk(DONE), more, End()]) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        await read(body)

        body.release()
        body.release()

        await soon((await upstream.received()).gone)
        assert transport.connections_in_use == 0


async def test_a_released_body_at_its_end_costs_nothing() -> None:
    async with Upstream(reply({})) as upstream, transporting() as transport:
        for _ in range(2):
            body = await call(transport, post(upstream.base_url))
            await rest(body)
            body.release()

        assert upstream.connections_total == 1


@pytest.mark.parametrize("framing", ["chunked", 64 * 2**20, "close"], ids=["chunked", "sized", "until close"])
async def test_bodies_that_nobody_reads_hold_back_their_upstream(framing: Framing) -> None:
    script: list[Step] = [Head(framing=framing), Flood(b"x" * 16_384, 4096), End()]  # 64 MiB
    async with Upstream(script, send_buffer_bytes=65_536) as upstream, transporting() as transport:
        bodies = [await call(transport, get(upstream.base_url)) for _ in range(5)]
        for received in list(upstream.requests):
            await received.held_back()

        held = upstream.bytes_sent
        # What the kernel takes for the two sockets is not ours: its receive buffers may grow to 6 MiB each.
        assert held < 5 * 8 * 2**20
        await asyncio.sleep(SHORT_S)
        assert upstream.bytes_sent == held
        for body in bodies[1:]:
            body.close()
        total = 0
        while data := await read(bodies[0]):
            total += len(data)
            assert len(data) < 2**20  # what waited in our memory
        assert total == 64 * 2**20


async def test_a_failure_that_nobody_reads_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with Upstream([Head(), Chunk(b"x"), Reset()]) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url), OFF)
        await upstream.until(lambda: upstream.connections_open == 0)

        body.close()

    assert caplog.records == []
