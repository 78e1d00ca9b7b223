"""A body is read by pulling or by pushing, gives the same bytes both ways, and is freed once."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llmproxy_core import InternalError, ProxyError, PulledBody, Tasks, UpstreamCut

SOON_S = 5
CHUNKS = [b"one ", b"two ", b"three"]


class Recorder:
    """A sink that remembers, and does what the test says at each piece."""

    def __init__(self, on_feed: Callable[[bytes], None] = lambda data: None) -> None:
        self._on_feed = on_feed
        self.pieces: list[bytes] = []
        self.ends: list[ProxyError | None] = []
        self.over = asyncio.Event()

    def feed(self, data: bytes) -> None:
        assert not self.ends, "nothing is fed after the end"
        self.pieces.append(data)
        self._on_feed(data)

    def end(self, error: ProxyError | None) -> None:
        self.ends.append(error)
        self.over.set()


class Source:
    """What is behind a body: chunks to read, errors to raise, events to wait for; it counts how it is freed."""

    def __init__(self, *chunks: bytes | Exception | asyncio.Event) -> None:
        self._chunks = list(chunks)
        self.closed = 0
        self.released = 0
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        if not self._chunks:
            return b""
        chunk = self._chunks.pop(0)
        if isinstance(chunk, asyncio.Event):
            await chunk.wait()
            return await self.read()
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def close(self) -> None:
        self.closed += 1

    def release(self) -> None:
        self.released += 1


def _body(source: Source, tasks: Tasks) -> PulledBody:
    return PulledBody(source.read, tasks=tasks, close=source.close, release=source.release)


async def _soon(waiting: Awaitable[object]) -> None:
    await asyncio.wait_for(waiting, SOON_S)


async def _turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_reading_gives_every_chunk_and_then_nothing(tasks: Tasks) -> None:
    body = _body(Source(*CHUNKS), tasks)

    read = [await body.read() for _ in range(5)]

    assert read == [*CHUNKS, b"", b""]
    assert len(tasks) == 0


async def test_pushing_gives_the_same_and_then_one_end(tasks: Tasks) -> None:
    sink = Recorder()

    _body(Source(*CHUNKS), tasks).attach(sink)
    await _soon(sink.over.wait())

    assert sink.pieces == CHUNKS
    assert sink.ends == [None]


async def test_pulling_raises_what_breaks_the_body(tasks: Tasks) -> None:
    body = _body(Source(b"one", UpstreamCut("cut")), tasks)

    assert await body.read() == b"one"
    with pytest.raises(UpstreamCut):
        await body.read()


async def test_pushing_ends_with_what_breaks_the_body(tasks: Tasks) -> None:
    sink, cut = Recorder(), UpstreamCut("cut")

    _body(Source(b"one", cut), tasks).attach(sink)
    await _soon(sink.over.wait())

    assert sink.pieces == [b"one"]
    assert sink.ends == [cut]


async def test_a_paused_body_pushes_one_piece_at_most_until_it_is_resumed(tasks: Tasks) -> None:
    sink = Recorder(lambda data: body.pause())
    body = _body(Source(*CHUNKS), tasks)

    body.attach(sink)
    await _turns()
    while_paused = list(sink.pieces)
    body.resume()
    await _turns()
    after_one_resume = list(sink.pieces)
    body.resume()
    await _turns()
    body.resume()
    await _soon(sink.over.wait())

    assert while_paused == CHUNKS[:1]
    assert after_one_resume == CHUNKS[:2]
    assert sink.pieces == CHUNKS


async def test_a_paused_body_does_not_read(tasks: Tasks) -> None:
    """Not to read is what holds the upstream."""
    source = Source(*CHUNKS)
    body = _body(source, tasks)

    body.attach(Recorder(lambda data: body.pause()))
    await _turns()
    while_paused = source.reads
    body.resume()
    await _turns()

    assert (while_paused, source.reads) == (1, 2)
    body.close()


async def test_a_body_that_is_paused_while_it_reads_does_not_push(tasks: Tasks) -> None:
    go_on, sink = asyncio.Event(), Recorder()
    body = _body(Source(go_on, *CHUNKS), tasks)

    body.attach(sink)
    await _turns()
    body.pause()
    go_on.set()
    await _turns()
    while_paused = list(sink.pieces)
    body.resume()
    await _soon(sink.over.wait())

    assert while_paused == []
    assert sink.pieces == CHUNKS


async def test_a_body_paused_before_it_is_attached_flows_once_resumed(tasks: Tasks) -> None:
    sink, body = Recorder(), _body(Source(*CHUNKS), tasks)

    body.pause()
    body.attach(sink)
    await _turns()
    before = len(sink.pieces)
    body.resume()
    await _soon(sink.over.wait())

    assert before == 0
    assert sink.pieces == CHUNKS


@pytest.mark.parametrize("end", ["close", "release"])
async def test_a_body_is_freed_once_however_often_it_is_ended(tasks: Tasks, end: str) -> None:
    source = Source(*CHUNKS)
    body = _body(source, tasks)

    getattr(body, end)()
    body.close()
    body.release()

    assert (source.closed, source.released) == ((1, 0) if end == "close" else (0, 1))


async def test_a_release_without_a_way_of_its_own_closes(tasks: Tasks) -> None:
    source = Source()

    PulledBody(source.read, tasks=tasks, close=source.close).release()

    assert source.closed == 1


async def test_a_body_with_nothing_behind_it_is_closed_without_harm(tasks: Tasks) -> None:
    body = PulledBody(Source(b"one").read, tasks=tasks)

    body.close()

    assert await body.read() == b""


async def test_a_closed_body_gives_no_byte(tasks: Tasks) -> None:
    body = _body(Source(*CHUNKS), tasks)

    body.close()

    assert await body.read() == b""


async def test_a_read_under_way_gives_no_byte_once_the_body_is_closed(tasks: Tasks) -> None:
    go_on = asyncio.Event()
    body = _body(Source(go_on, b"late"), tasks)

    reading = tasks.start(body.read(), name="reader")
    await _turns()
    body.close()
    go_on.set()

    assert await asyncio.wait_for(reading, SOON_S) == b""


@pytest.mark.parametrize("end", ["close", "release"])
async def test_an_attached_body_says_nothing_once_it_is_ended(tasks: Tasks, end: str) -> None:
    sink, go_on = Recorder(), asyncio.Event()
    body = _body(Source(b"one", go_on, b"two"), tasks)
    body.attach(sink)
    await _turns()

    getattr(body, end)()
    go_on.set()
    await _turns()

    assert sink.pieces == [b"one"]
    assert sink.ends == []
    assert len(tasks) == 0


async def test_a_paused_body_that_is_closed_leaves_no_task(tasks: Tasks) -> None:
    body = _body(Source(*CHUNKS), tasks)
    body.attach(Recorder(lambda data: body.pause()))
    await _turns()

    body.close()
    await _turns()

    assert len(tasks) == 0


async def test_a_sink_may_close_the_body_from_inside_feed(tasks: Tasks) -> None:
    """As the relay does when the terminal event has come."""
    source = Source(*CHUNKS)
    body = _body(source, tasks)
    sink = Recorder(lambda data: body.close())

    body.attach(sink)
    await _turns()

    assert sink.pieces == CHUNKS[:1]
    assert sink.ends == []
    assert source.closed == 1
    assert len(tasks) == 0


async def test_a_sink_may_end_the_body_from_inside_end(tasks: Tasks) -> None:
    source = Source(b"one")
    body = _body(source, tasks)
    sink = Recorder()
    ended = sink.end

    def end(error: ProxyError | None) -> None:
        body.release()
        ended(error)

    sink.end = end  # type: ignore[method-assign]
    body.attach(sink)
    await _soon(sink.over.wait())
    await _turns()

    assert sink.ends == [None]
    assert source.released == 1
    assert len(tasks) == 0


def _raise(error: Exception) -> Callable[[bytes], None]:
    def raising(data: bytes) -> None:
        raise error

    return raising


async def test_a_sink_that_fails_is_told_that_nothing_more_comes(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Recorder(_raise(ZeroDivisionError("a bug")))

    _body(Source(*CHUNKS), tasks).attach(sink)
    await _soon(sink.over.wait())
    await _turns()

    assert [type(error) for error in sink.ends] == [InternalError]
    assert "ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" not in str(sink.ends[0])


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), UpstreamCut("of the sink's own")])
async def test_a_sink_that_closes_the_body_and_then_fails_is_not_called_again(tasks: Tasks, error: Exception) -> None:
    def feed(data: bytes) -> None:
        body.close()
        raise error

    body = _body(Source(*CHUNKS), tasks)
    sink = Recorder(feed)
    body.attach(sink)
    await _turns()

    assert sink.ends == []


async def test_an_unexpected_error_of_the_source_ends_a_push_and_is_logged(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Recorder()

    _body(Source(b"one", ZeroDivisionError("a bug")), tasks).attach(sink)
    await _soon(sink.over.wait())
    await _turns()

    assert sink.pieces == [b"one"]
    assert [type(error) for error in sink.ends] == [InternalError]
    assert "body pump" in caplog.text
