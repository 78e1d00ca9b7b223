"""Commit points: when an answer has really begun, and what was read by then."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from llmproxy_core import (
    End,
    ProxyError,
    Secret,
    Stream,
    Tasks,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
    drain,
)
from llmproxy_core.body import Sink
from llmproxy_core.testing import FakeClock, ScriptedBody
from tests.answers import DONE
from tests.llmproxy_core.bodies import Chunk, a_stream
from tests.llmproxy_core.conversation import (
    CHAT,
    DIALECT,
    ERROR_EVENT,
    SOON_S,
    chunk,
    events,
    exchange,
)

ROLE = chunk({"role": "assistant", "content": ""})
PING = b": keep-alive\n\n"


@pytest.mark.parametrize(
    "first",
    [
        chunk({"content": "hi"}),
        chunk({"reasoning_content": "hm"}),
        chunk({"refusal": "no"}),
        chunk({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f"}}]}),
        chunk({}, finish="stop"),
        chunk({"audio": {"id": "a", "data": "QUJD"}}),
        DONE,
    ],
    ids=["text", "reasoning", "refusal", "tool call", "finish", "audio", "end"],
)
async def test_an_answer_has_started_with_its_first_meaningful_event(tasks: Tasks, first: bytes) -> None:
    response, _ = a_stream(tasks, PING, ROLE, first, asyncio.Event())

    await asyncio.wait_for(response.started(), SOON_S)

    assert [await response.read() for _ in range(3)] == [PING, ROLE, first]


async def test_an_empty_text_is_no_beginning(tasks: Tasks) -> None:
    """Some servers send logprobs before the first token."""
    empty = chunk({"content": ""}, logprobs={"content": []})
    response, _ = a_stream(tasks, empty, ERROR_EVENT)

    with pytest.raises(UpstreamError, match="overloaded"):
        await asyncio.wait_for(response.started(), SOON_S)


async def test_what_started_read_is_kept_for_the_reader_and_read_once(tasks: Tasks) -> None:
    chunks = [ROLE, *events("hi")]
    response, _ = a_stream(tasks, *chunks)

    await asyncio.wait_for(response.started(), SOON_S)
    await asyncio.wait_for(response.started(), SOON_S)

    read = [data async for data in _all(response)]
    assert read == chunks


async def _all(response: Stream) -> AsyncIterator[bytes]:
    while data := await asyncio.wait_for(response.read(), SOON_S):
        yield data


async def test_what_started_read_is_pushed_first(tasks: Tasks) -> None:
    chunks = [ROLE, *events("hi")]
    response, _ = a_stream(tasks, *chunks)
    sink = Collecting()

    await asyncio.wait_for(response.started(), SOON_S)
    response.attach(sink)
    await asyncio.wait_for(sink.over.wait(), SOON_S)

    assert sink.pieces == chunks


class Collecting:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.over = asyncio.Event()

    def feed(self, data: bytes) -> None:
        self.pieces.append(data)

    def end(self, error: ProxyError | None) -> None:
        self.over.set()


async def test_a_body_is_not_attached_to_once_what_was_kept_has_ended_the_answer(tasks: Tasks) -> None:
    response, body = a_stream(tasks, DONE)

    class Ending(Collecting):
        def feed(self, data: bytes) -> None:
            super().feed(data)
            response.finish(End.COMPLETED)

    await asyncio.wait_for(response.started(), SOON_S)
    sink: Sink = Ending()
    response.attach(sink)

    assert body.ended == ["release"]
    assert len(tasks) == 0


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        ([ERROR_EVENT], UpstreamError),
        ([ROLE, ERROR_EVENT], UpstreamError),
        ([ROLE], UpstreamCut),
        ([], UpstreamCut),
        ([UpstreamCut("reset")], UpstreamCut),
        ([PING, UpstreamTimeout("idle", code="upstream_timeout_idle")], UpstreamTimeout),
        ([b"data: {garbage\n\n"], UpstreamError),
    ],
    ids=["error", "role then error", "cut after role", "empty", "reset", "idle", "garbage"],
)
async def test_a_stream_that_fails_before_it_began_raises_and_is_over(
    tasks: Tasks, chunks: list[Chunk], kind: type[UpstreamError]
) -> None:
    """The point up to which another attempt is still possible."""
    response, body = a_stream(tasks, *chunks)

    with pytest.raises(kind) as raised:
        await asyncio.wait_for(response.started(), SOON_S)

    assert response.outcome is not None
    assert (response.outcome.end, response.outcome.error) == (End.FAILED, raised.value)
    assert body.ended == ["close"]


@pytest.mark.parametrize("filler", [b": " + b"x" * 30_000 + b"\n\n", ROLE], ids=["pings", "roles"])
async def test_a_stream_that_answers_nothing_is_not_kept_without_end(
    tasks: Tasks, filler: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "MOST_BEFORE_BEGUN", 100_000)
    many = 100_000 // len(filler) + 1
    response, _ = a_stream(tasks, *[filler] * many, asyncio.Event())

    with pytest.raises(UpstreamGarbage, match="did not begin to answer"):
        await asyncio.wait_for(response.started(), SOON_S)

    assert response._peeked == []


async def test_text_that_has_begun_is_enough_when_too_much_would_have_to_be_kept(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "MOST_BEFORE_BEGUN", 100_000)
    hello, ping = chunk({"content": "hi"}), b": " + b"x" * 30_000 + b"\n\n"
    response, _ = a_stream(tasks, hello, *[ping] * 4, asyncio.Event())

    await asyncio.wait_for(response.started(chars=10), SOON_S)

    assert await response.read() == hello


async def test_many_small_pieces_are_kept_as_few(tasks: Tasks) -> None:
    pings = [b": %d\n\n" % number for number in range(1000)]
    response, _ = a_stream(tasks, *pings, chunk({"content": "hi"}))

    await asyncio.wait_for(response.started(), SOON_S)

    assert len(response._peeked) < 256
    assert b"".join([data async for data in _all(response)]) == b"".join(pings) + chunk({"content": "hi"})


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "0123456789"},
        {"reasoning_content": "0123456789"},
        {"refusal": "0123456789"},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "0123456789"}}]},
    ],
    ids=["text", "thinking", "refusal", "arguments"],
)
async def test_all_that_is_said_counts_as_text(tasks: Tasks, delta: dict[str, object]) -> None:
    """Else a long thought, or a call with much in it, would be held back whole."""
    response, _ = a_stream(tasks, ROLE, chunk(delta), asyncio.Event())

    await asyncio.wait_for(response.started(chars=10), SOON_S)


async def test_the_first_token_is_noted_when_it_came(tasks: Tasks) -> None:
    clock = FakeClock(10.0)
    response, _ = a_stream(tasks, ROLE, asyncio.Event(), chunk({"content": "hi"}), clock=clock)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(response.started(), 0.05)
    clock.advance(5.0)
    await asyncio.wait_for(response.started(), SOON_S)

    assert response.first_byte_s == 15.0


async def test_an_error_before_the_beginning_tells_no_secret(tasks: Tasks) -> None:
    """Providers quote keys."""
    key = Secret("sk-canary")
    quoting = b'data: {"error":{"message":"Key sk-canary is over its limit","type":"server_error"}}\n\n'
    body = ScriptedBody([quoting], tasks)
    response = Stream(exchange(tasks), body, dialect=DIALECT, api=CHAT, redact=key.redact)

    with pytest.raises(UpstreamError) as raised:
        await asyncio.wait_for(response.started(), SOON_S)

    assert raised.value.message == "Key *** is over its limit"
    assert b"sk-canary" not in (raised.value.body or b"")


async def test_an_error_in_the_stream_has_the_status_that_the_provider_gave_it(tasks: Tasks) -> None:
    """So that a fallback can tell a rate limit from a broken server."""
    response, _ = a_stream(tasks, b'data: {"error":{"message":"slow down","code":429}}\n\n')

    with pytest.raises(UpstreamError) as raised:
        await asyncio.wait_for(response.started(), SOON_S)

    assert raised.value.status == 429


async def test_waiting_for_the_start_may_be_cancelled_without_losing_a_byte(tasks: Tasks) -> None:
    """A hedge waits so long for one answer, then for either."""
    go_on = asyncio.Event()
    chunks = events("hi")
    response, _ = a_stream(tasks, ROLE[:30], ROLE[30:], go_on, *chunks)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(response.started(), 0.05)
    go_on.set()
    # the event that was waited for is used up by the cancelled wait; what comes after it is not
    await asyncio.wait_for(response.started(), SOON_S)

    read = b"".join([data async for data in _all(response)])
    assert read == ROLE + b"".join(chunks)


async def test_a_start_that_was_interrupted_after_it_had_come_returns_at_once(tasks: Tasks) -> None:
    response, _ = a_stream(tasks, asyncio.Event())
    response._peeked.extend(events("hi"))

    await asyncio.wait_for(response.started(), SOON_S)


async def test_an_opaque_answer_has_nothing_to_wait_for(tasks: Tasks) -> None:
    response, _ = a_stream(tasks, asyncio.Event(), api=None)

    await asyncio.wait_for(response.started(), SOON_S)


async def test_the_beginning_is_noted_when_it_came_not_when_it_was_relayed(tasks: Tasks) -> None:
    clock = FakeClock(10.0)
    response, _ = a_stream(tasks, *events("hi"), clock=clock)

    await asyncio.wait_for(response.started(), SOON_S)
    clock.advance(5.0)
    await response.read()

    assert response.first_byte_s == 10.0
