"""A pushed body: from the upstream's bytes straight to the sink."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from llmproxy_core.body import Body, Passing
from llmproxy_core.errors import InternalError, UpstreamCut
from llmproxy_core.llm import Timeouts, UpstreamRequest
from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server.wire.upstream import WireTransport
from llmproxy_server.wire.upstream_body import READ_BUFFER_BYTES
from llmproxy_server.wire.upstream_call import UpstreamCall
from llmproxy_server.wire.upstream_connection import UpstreamConnection
from llmproxy_server.wire.upstream_head import HeadReader
from llmproxy_server.wire.upstream_pool import Connections
from tests.llmproxy_server.transporting import (
    OFF,
    Collected,
    call,
    post,
    read,
    rest,
    soon,
    through,
    transporting,
    until,
)
from tests.upstream import Call, Chunk, Cut, End, Flood, Head, Raw, Stall, Step, Upstream, Wait, reply


@pytest.fixture(autouse=True)
def over_the_wire() -> Iterator[None]:
    with through(WireTransport):
        yield


async def test_a_push_starts_no_task() -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Head(), Chunk(b"1"), Wait(go_on), Chunk(b"2"), End()]) as upstream,
        transporting() as transport,
    ):
        body, sink = await call(transport, post(upstream.base_url)), Collected()
        before = asyncio.all_tasks()

        body.attach(sink)
        assert sink.data == b"1"  # what is here is given at once
        go_on.set()
        await soon(sink.ended)

        assert asyncio.all_tasks() <= before
        assert (sink.data, sink.ends) == (b"12", [None])


async def test_what_comes_in_one_read_is_fed_in_one_piece() -> None:
    class Counting(Collected):
        feeds = 0

        def feed(self, data: bytes) -> None:
            self.feeds += 1
            super().feed(data)

    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    script: list[Step] = [Raw(head + b"1\r\na\r\n" * 100 + b"0\r\n\r\n"), Stall()]
    async with Upstream(script) as upstream, transporting() as transport:
        sink = Counting()
        (await call(transport, post(upstream.base_url))).attach(sink)

        assert (sink.data, sink.feeds, sink.ends) == (b"a" * 100, 1, [None])


@pytest.mark.parametrize("ending", ["close", "release"])
async def test_a_sink_that_ends_the_body_while_it_is_fed_hears_nothing_more(ending: str) -> None:
    class Ending(Collected):
        body: Body

        def feed(self, data: bytes) -> None:
            super().feed(data)
            getattr(self.body, ending)()

    async with Upstream([Head(), Chunk(b"1"), Chunk(b"2"), Cut()]) as upstream, transporting() as transport:
        body, sink = await call(transport, post(upstream.base_url)), Ending()
        sink.body = body
        body.attach(sink)
        await soon(sink.fed)
        await until(lambda: transport.connections_in_use == 0)

        assert sink.data in (b"1", b"12")  # the kernel may join them
        assert sink.ends == []


async def test_a_sink_that_pauses_and_resumes_while_it_is_fed_is_not_fed_within() -> None:
    class Restless(Collected):
        body: Body
        depth = 0

        def feed(self, data: bytes) -> None:
            assert not self.depth
            self.depth += 1
            super().feed(data)
            self.body.pause()
            self.body.resume()
            self.depth -= 1

    script: list[Step] = [Head(), *[Chunk(b"x")] * 20, End()]
    async with Upstream(script) as upstream, transporting() as transport:
        body, sink = await call(transport, post(upstream.base_url)), Restless()
        sink.body = body
        body.attach(sink)
        await soon(sink.ended)

        assert (sink.data, sink.ends) == (b"x" * 20, [None])


@pytest.mark.parametrize("place", ["feed", "end"])
async def test_a_sink_with_a_bug_costs_its_connection_and_nothing_else(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Collected):
        def feed(self, data: bytes) -> None:
            super().feed(data)
            if place == "feed":
                raise ZeroDivisionError

        def end(self, error: object) -> None:
            super().end(error)  # type: ignore[arg-type]
            if place == "end":
                raise ZeroDivisionError

    async with Upstream(reply([1])) as upstream, transporting() as transport:
        upstream.then([Head(), Chunk(b"1"), Stall() if place == "feed" else End()])
        body, sink = await call(transport, post(upstream.base_url)), Broken()
        body.attach(sink)
        await soon(sink.ended)

        assert len(sink.ends) == 1
        assert isinstance(sink.ends[0], InternalError) is (place == "feed")
        assert [record.message for record in caplog.records] == ["the body of an answer could not be passed on"]
        assert await rest(await call(transport, post(upstream.base_url))) == b"[1]"


class PassingOn(Collected):
    """A sink that has every chunk passed that *knows* says yes to, once it was fed."""

    def __init__(self, knows: Callable[[bytes, bytes], bool] = lambda chunk, line: True) -> None:
        super().__init__()
        self.passed: list[bytes] = []
        self.lines: list[bytes] = []
        self.came = asyncio.Event()
        self.passing = Passing(self.send)
        self.passing.knows = self.asked
        self.knows = knows

    def asked(self, chunk: bytes, line: bytes) -> bool:
        self.lines.append(line)
        return self.knows(chunk, line)

    def feed(self, data: bytes) -> Passing | None:
        super().feed(data)
        self.came.set()
        return self.passing

    def send(self, chunk: bytes) -> None:
        self.passed.append(chunk)
        self.came.set()

    async def hears(self, upstream: Call, data: bytes) -> None:
        """Have the upstream send *data*; wait until it is here."""
        self.came.clear()
        await upstream.play(Raw(data))
        await soon(self.came)


@pytest.fixture
async def playing() -> AsyncIterator[tuple[Call, Body]]:
    """A call whose upstream has sent the head of an answer in chunks, with one of them; it plays what it is told."""
    plays: asyncio.Future[Call] = asyncio.get_running_loop().create_future()

    async def serve(received: Call) -> None:
        await received.play(Head())
        await received.play(Chunk(b"1"))
        plays.set_result(received)
        await received.play(Stall())

    async with Upstream(serve) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        yield await plays, body
        body.close()


async def test_a_chunk_that_the_sink_knows_passes_with_its_frame(playing: tuple[Call, Body]) -> None:
    upstream, body = playing
    sink = PassingOn()
    body.attach(sink)
    await sink.hears(upstream, b"1\r\n2\r\n")
    await sink.hears(upstream, b"11\r\n" + b"x" * 17 + b"\r\n")
    assert sink.passing.passed
    await sink.hears(upstream, b"1\r\n3\r\n")

    assert sink.data == b"12"  # the first is fed, and what then follows if it comes alone
    assert sink.passed == [b"11\r\n" + b"x" * 17 + b"\r\n", b"1\r\n3\r\n"]
    assert sink.lines == [b"11\r\n", b"1\r\n"]


@pytest.mark.parametrize(
    ("odd", "inside"),
    [
        (b"01\r\nx\r\n", b"x"),
        (b"1;a=b\r\nx\r\n", b"x"),
        (b"A\r\n0123456789\r\n", b"0123456789"),
        (b"1\r\nx\r\n1\r\ny\r\n", b"xy"),
        (b"800\r\n" + b"x" * 2048 + b"\r\n", b"x" * 2048),
    ],
    ids=["leading zero", "extension", "upper case", "two", "long"],
)
async def test_a_chunk_of_another_form_is_fed(playing: tuple[Call, Body], odd: bytes, inside: bytes) -> None:
    upstream, body = playing
    sink = PassingOn(lambda chunk, line: chunk.startswith(line) and chunk.endswith(b"\r\n"))
    body.attach(sink)
    await sink.hears(upstream, b"1\r\n2\r\n")

    await sink.hears(upstream, odd)

    assert (sink.data, sink.passed) == (b"12" + inside, [])


async def test_what_the_sink_does_not_know_is_fed(playing: tuple[Call, Body]) -> None:
    upstream, body = playing
    sink = PassingOn(lambda chunk, line: b"?" not in chunk)
    body.attach(sink)
    for data in (b"2", b"3", b"?", b"4"):
        await sink.hears(upstream, b"1\r\n%b\r\n" % data)

    assert sink.data == b"12?"
    assert sink.passed == [b"1\r\n3\r\n", b"1\r\n4\r\n"]


async def test_a_sink_that_paused_is_fed_again_before_anything_passes(playing: tuple[Call, Body]) -> None:
    upstream, body = playing
    sink = PassingOn()
    body.attach(sink)
    await sink.hears(upstream, b"1\r\n2\r\n")
    body.pause()
    sink.came.clear()
    await upstream.play(Raw(b"1\r\n3\r\n"))
    assert isinstance(body, UpstreamCall)
    await until(lambda: body._waiting_bytes > 0)
    assert (sink.data, sink.passed) == (b"12", [])

    body.resume()
    await sink.hears(upstream, b"1\r\n4\r\n")
    await sink.hears(upstream, b"1\r\n5\r\n")

    assert (sink.data, sink.passed) == (b"1234", [b"1\r\n5\r\n"])


async def test_a_sink_that_pauses_while_it_is_fed_is_not_passed_by(playing: tuple[Call, Body]) -> None:
    upstream, body = playing
    sink = PassingOn()
    sink.pausing = body
    body.attach(sink)
    body.resume()
    await sink.hears(upstream, b"1\r\n2\r\n")
    await upstream.play(Raw(b"1\r\n3\r\n"))
    assert isinstance(body, UpstreamCall)
    await until(lambda: body._waiting_bytes > 0)

    assert (sink.data, sink.passed) == (b"12", [])


@pytest.mark.parametrize(
    ("last", "end"), [(End(), None), (Cut(), "upstream_cut"), (Stall(), "upstream_timeout_idle")], ids=repr
)
async def test_what_ends_the_body_is_told_after_chunks_that_passed(last: Step, end: str | None) -> None:
    go_on = [asyncio.Event(), asyncio.Event(), asyncio.Event()]
    script: list[Step] = [Head(), Chunk(b"1")]
    for event in go_on[:2]:
        script += [Wait(event), Chunk(b"2")]
    async with Upstream([*script, Wait(go_on[2]), last]) as upstream, transporting() as transport:
        sink = PassingOn()
        (await call(transport, post(upstream.base_url), Timeouts(None, None, 0.3, None))).attach(sink)
        for event in go_on[:2]:
            sink.came.clear()
            event.set()
            await soon(sink.came)
        go_on[2].set()
        await soon(sink.ended)

    assert (sink.data, sink.passed) == (b"12", [b"1\r\n2\r\n"])
    assert [error and error.code for error in sink.ends] == [end]


async def test_a_chunk_that_cannot_be_passed_ends_the_body_as_one_that_cannot_be_fed(
    playing: tuple[Call, Body], caplog: pytest.LogCaptureFixture
) -> None:
    upstream, body = playing
    sink = PassingOn(lambda chunk, line: bool(1 / 0))
    body.attach(sink)
    await sink.hears(upstream, b"1\r\n2\r\n")

    await upstream.play(Raw(b"1\r\n3\r\n"))
    await soon(sink.ended)

    assert [type(error) for error in sink.ends] == [InternalError]
    assert [record.message for record in caplog.records] == ["the body of an answer could not be passed on"]


async def test_a_paused_push_holds_the_upstream_back() -> None:
    class Counting(Collected):
        size = 0

        def feed(self, data: bytes) -> None:
            self.size += len(data)
            super().feed(data)
            self.data = b""

    script: list[Step] = [Head(), Flood(b"x" * 16_384, 2048), End()]  # 32 MiB
    async with Upstream(script, send_buffer_bytes=65_536) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        sink = Counting(pausing=body)
        body.attach(sink)
        await soon(sink.fed)
        received = await upstream.received()

        await received.held_back()

        assert received.bytes_sent < 8 * 2**20  # what the kernel holds
        assert sink.size < 2**20
        sink.pausing = None
        body.resume()
        await soon(sink.ended)
        assert (sink.size, sink.ends) == (32 * 2**20, [None])


async def test_a_large_part_of_a_body_that_comes_with_its_head_holds_the_upstream_back() -> None:
    class Socket(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.told: list[str] = []

        def write(self, data: bytes | bytearray | memoryview) -> None: ...

        def pause_reading(self) -> None:
            self.told.append("pause")

        def resume_reading(self) -> None:
            self.told.append("resume")

        def abort(self) -> None: ...

    loop, socket = asyncio.get_running_loop(), Socket()
    pool = Connections(Pool(), loop)
    connection = UpstreamConnection(pool, pool.origin("h", 80, tls=False))
    connection.connection_made(socket)
    body = UpstreamCall()
    body.expect(HeadReader(), "h", "GET")
    request = UpstreamRequest("GET", "", [])
    answered = body.send(request, b"", connection, OFF, loop.time(), tasks=Tasks())
    data = b"x" * (2 * READ_BUFFER_BYTES)

    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n" + data)

    assert answered.done()
    assert socket.told == ["pause"]
    assert await body.read() == data
    assert socket.told == ["pause", "resume"]
    body.close()


async def test_what_came_before_a_failure_is_fed_before_it_though_it_was_paused() -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Head(), Chunk(b"1"), Wait(go_on), Chunk(b"2"), Cut()]
    async with Upstream(script) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        sink = Collected(pausing=body)
        body.attach(sink)
        await soon(sink.fed)
        go_on.set()
        await until(lambda: transport.connections_in_use == 0)
        assert (sink.data, sink.ends) == (b"1", [])

        sink.pausing = None
        body.resume()

        assert sink.data == b"12"
        assert [type(end) for end in sink.ends] == [UpstreamCut]


async def test_a_released_body_takes_no_more_than_the_read_buffer_for_its_end() -> None:
    more: list[Step] = [Chunk(b"x" * (8 * READ_BUFFER_BYTES)), End()]
    async with Upstream([Head(), Chunk(b"done"), *more]) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        await read(body)
        body.release()
        await until(lambda: transport.connections_in_use == 0)

        await upstream.until(lambda: upstream.connections_open == 0)


@pytest.mark.parametrize("script", [reply([1]), [Head(), Chunk(b"1"), Cut()], [Cut()]], ids=["whole", "cut", "no head"])
@pytest.mark.parametrize("pushed", [False, True], ids=["read", "attach"])
async def test_a_call_leaves_no_cycle(script: list[Step], pushed: bool) -> None:
    """Else its bytes stay until a collection."""
    async with Upstream(script) as upstream, transporting() as transport:

        async def one() -> None:
            try:
                body = await call(transport, post(upstream.base_url), Timeouts())
                if pushed:
                    sink = Collected()
                    body.attach(sink)
                    await soon(sink.ended)
                else:
                    await rest(body)
                body.release()
            except UpstreamCut:
                pass

        for _ in range(3):
            await one()
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await one()
            await until(lambda: transport.connections_in_use == 0)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [type(it).__name__ for it in gc.garbage if type(it).__module__.startswith("llmproxy_server")]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert left == []
