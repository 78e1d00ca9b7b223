"""What may be asked of a response, and its exactly-once end."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest

from llmproxy_core import (
    Api,
    End,
    GuardrailBlocked,
    KeptBody,
    Money,
    Outcome,
    Price,
    ProxyError,
    Reply,
    Secret,
    Stream,
    Tasks,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
    Usage,
)
from llmproxy_core.body import Sink
from llmproxy_core.chat import ChatReply, Choice, Finish, FinishReason, TextPart
from llmproxy_core.dialect import ReplyHead
from llmproxy_core.testing import FakeClock, ScriptedBody
from tests.answers import DONE
from tests.llmproxy_core.conversation import (
    CHAT,
    DIALECT,
    ERROR_EVENT,
    PRICE,
    SOON_S,
    chunk,
    events,
    exchange,
    own_request,
    question,
    said,
    whole,
)

Chunk = bytes | ProxyError | asyncio.Event


class CountingBody(ScriptedBody):
    """Tells a release from a close."""

    def __init__(self, chunks: list[Chunk], tasks: Tasks) -> None:
        super().__init__(chunks, tasks)
        self.ended: list[str] = []
        self.paused: list[bool] = []

    def close(self) -> None:
        self.ended.append("close")
        super().close()

    def release(self) -> None:
        self.ended.append("release")
        super().close()

    def pause(self) -> None:
        self.paused.append(True)
        super().pause()

    def resume(self) -> None:
        self.paused.append(False)
        super().resume()


def _stream(
    tasks: Tasks, *chunks: Chunk, api: Api | None = CHAT, clock: FakeClock | None = None, price: Price | None = None
) -> tuple[Stream, CountingBody]:
    body = CountingBody(list(chunks), tasks)
    call = exchange(tasks, body=question(stream=True), clock=clock)
    return Stream(call, body, dialect=DIALECT, api=api, price=price), body


def _reply(tasks: Tasks, text: str = "hi") -> Reply:
    return Reply(exchange(tasks), whole(text), dialect=DIALECT, api=CHAT)


# -- its one end -----------------------------------------------------------------------------------------------------


async def test_the_first_finish_decides_and_frees_the_body_once(tasks: Tasks) -> None:
    response, body = _stream(tasks)
    ends: list[Outcome] = []
    response.on_finish(ends.append)
    error = UpstreamCut("cut")

    response.finish(End.FAILED, error)
    response.finish(End.COMPLETED)

    assert [(outcome.end, outcome.error) for outcome in ends] == [(End.FAILED, error)]
    assert response.outcome is ends[0]
    assert body.ended == ["close"]


@pytest.mark.parametrize("end", list(End))
async def test_only_a_complete_answer_gives_its_connection_back(tasks: Tasks, end: End) -> None:
    response, body = _stream(tasks)

    response.finish(end)

    assert body.ended == (["release"] if end is End.COMPLETED else ["close"])


async def test_callbacks_run_in_the_order_asked(tasks: Tasks) -> None:
    response, order = _reply(tasks), list[str]()
    response.on_finish(lambda outcome: order.append("inner"))
    response.on_finish(lambda outcome: order.append("outer"))

    response.finish(End.COMPLETED)

    assert order == ["inner", "outer"]


async def test_a_callback_that_fails_is_logged_and_the_others_run(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    response, ran = _reply(tasks), list[str]()

    def fail(outcome: Outcome) -> None:
        raise ZeroDivisionError("a bug")

    response.on_finish(fail)
    response.on_finish(lambda outcome: ran.append("last"))
    response.finish(End.COMPLETED)

    assert ran == ["last"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_sync_callback_starts_no_task_and_an_async_one_does(tasks: Tasks) -> None:
    response, ran = _reply(tasks), list[str]()

    async def later(outcome: Outcome) -> None:
        ran.append("async")

    response.on_finish(lambda outcome: ran.append("sync"))
    response.finish(End.COMPLETED)
    started_by_sync = len(tasks)
    response.on_finish(later)
    started_by_async = len(tasks)
    await asyncio.wait_for(response.exchange.settled(SOON_S), SOON_S)

    assert (started_by_sync, started_by_async) == (0, 1)
    assert ran == ["sync", "async"]


async def test_a_late_callback_runs_at_once(tasks: Tasks) -> None:
    response, ran = _reply(tasks), list[Outcome]()
    response.finish(End.ABANDONED)

    response.on_finish(ran.append)

    assert ran == [response.outcome]


async def test_the_cost_is_what_its_own_price_makes_of_its_usage(tasks: Tasks) -> None:
    priced, _ = _stream(tasks, price=PRICE)
    unpriced, _ = _stream(tasks)
    unused, _ = _stream(tasks, price=PRICE)
    priced.usage = unpriced.usage = Usage(10, 1)

    for response in (priced, unpriced, unused):
        response.finish(End.COMPLETED)

    assert [response.outcome and response.outcome.cost for response in (priced, unpriced, unused)] == [
        Money(12_000),
        None,
        None,
    ]


@pytest.mark.parametrize("end", list(End))
async def test_what_was_used_is_told_however_it_ended(tasks: Tasks, end: End) -> None:
    """A client that leaves early is billed what the upstream reported."""
    response, _ = _stream(tasks, price=PRICE)
    response.usage = Usage(10, 1)

    response.finish(end)

    assert response.outcome is not None
    assert (response.outcome.usage, response.outcome.cost) == (Usage(10, 1), Money(12_000))


async def test_times_are_of_the_clock_of_the_exchange(tasks: Tasks) -> None:
    clock = FakeClock(50.0)
    response, _ = _stream(tasks, b"x", clock=clock)
    clock.advance(1.0)
    await response.read()
    clock.advance(1.0)
    await response.read()
    clock.advance(1.0)

    response.finish(End.COMPLETED)

    assert response.outcome is not None
    assert (response.outcome.started_s, response.outcome.first_byte_s, response.outcome.ended_s) == (50.0, 51.0, 53.0)


async def test_an_answer_without_a_byte_has_no_first_one(tasks: Tasks) -> None:
    response, _ = _stream(tasks)

    assert await response.read() == b""
    response.finish(End.FAILED, UpstreamCut("cut"))

    assert response.first_byte_s is None


async def test_the_kept_body_of_the_outermost_who_asked_is_in_the_outcome(tasks: Tasks) -> None:
    response = _reply(tasks)
    inner, outer = response.keep_body(1000), response.keep_body(1000)
    inner.body, outer.body = KeptBody("a", False, b"inner"), KeptBody("a", False, b"outer")

    response.finish(End.COMPLETED)

    assert response.outcome is not None
    assert response.outcome.body is outer.body


async def test_there_is_no_kept_body_of_an_answer_that_is_not_complete(tasks: Tasks) -> None:
    """All bytes may have come, and the client have gone before its end was sent."""
    response = _reply(tasks)
    wish = response.keep_body(1000)
    wish.body = KeptBody("a", False, b"all")

    response.finish(End.ABANDONED)

    assert response.outcome is not None
    assert response.outcome.body is None
    assert wish.body is None


# -- replies ---------------------------------------------------------------------------------------------------------


async def test_a_reply_has_the_facts_of_its_head(tasks: Tasks) -> None:
    head = ReplyHead(Usage(1, 2), "m", ("stop", "length"))

    response = Reply(exchange(tasks), b"{}", dialect=DIALECT, api=CHAT, head=head, price=PRICE)
    response.finish(End.COMPLETED)

    assert response.outcome is not None
    assert (response.outcome.usage, response.outcome.model) == (Usage(1, 2), "m")
    assert response.outcome.finish == ("stop", "length")
    assert response.outcome.first_byte_s == response.started_s


async def test_a_reply_without_a_head_knows_nothing(tasks: Tasks) -> None:
    response = Reply(exchange(tasks), b"{}", dialect=DIALECT, api=CHAT)

    assert (response.usage, response.model, response.finish_words) == (None, None, ())


async def test_a_reply_has_always_started(tasks: Tasks) -> None:
    await asyncio.wait_for(_reply(tasks).started(), SOON_S)


OWN = ChatReply("r1", "local", (Choice(0, (TextPart("from a rule"),), Finish(FinishReason.STOP)),), Usage(2, 3))


async def test_a_processor_answers_in_the_clients_wire_form(tasks: Tasks) -> None:
    response = Reply.of_chat(exchange(tasks), OWN)

    assert said(response.body) == "from a rule"
    assert (response.dialect, response.api) == (DIALECT, CHAT)
    assert json.loads(response.body)["usage"]["total_tokens"] == 5
    assert (response.usage, response.model, response.finish_words) == (None, "local", ("stop",))
    assert response.price is None


async def test_only_a_client_can_be_answered(tasks: Tasks) -> None:
    child = exchange(tasks).child(own_request())

    with pytest.raises(TypeError, match="of a client"):
        Reply.of_chat(child, OWN)


async def test_an_opaque_call_cannot_be_answered_with_a_conversation(tasks: Tasks) -> None:
    call = exchange(tasks)
    assert call.client is not None
    object.__setattr__(call.client, "api", None)

    with pytest.raises(TypeError, match="chat request"):
        Reply.of_chat(call, OWN)


# -- commit points ---------------------------------------------------------------------------------------------------

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
    response, _ = _stream(tasks, PING, ROLE, first, asyncio.Event())

    await asyncio.wait_for(response.started(), SOON_S)

    assert [await response.read() for _ in range(3)] == [PING, ROLE, first]


async def test_what_started_read_is_kept_for_the_reader_and_read_once(tasks: Tasks) -> None:
    chunks = [ROLE, *events("hi")]
    response, _ = _stream(tasks, *chunks)

    await asyncio.wait_for(response.started(), SOON_S)
    await asyncio.wait_for(response.started(), SOON_S)

    read = [data async for data in _all(response)]
    assert read == chunks


async def _all(response: Stream) -> AsyncIterator[bytes]:
    while data := await asyncio.wait_for(response.read(), SOON_S):
        yield data


async def test_what_started_read_is_pushed_first(tasks: Tasks) -> None:
    chunks = [ROLE, *events("hi")]
    response, _ = _stream(tasks, *chunks)
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
    response, body = _stream(tasks, DONE)

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
    response, body = _stream(tasks, *chunks)

    with pytest.raises(kind) as raised:
        await asyncio.wait_for(response.started(), SOON_S)

    assert response.outcome is not None
    assert (response.outcome.end, response.outcome.error) == (End.FAILED, raised.value)
    assert body.ended == ["close"]


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
    response, _ = _stream(tasks, b'data: {"error":{"message":"slow down","code":429}}\n\n')

    with pytest.raises(UpstreamError) as raised:
        await asyncio.wait_for(response.started(), SOON_S)

    assert raised.value.status == 429


async def test_waiting_for_the_start_may_be_cancelled_without_losing_a_byte(tasks: Tasks) -> None:
    """A hedge waits so long for one answer, then for either."""
    go_on = asyncio.Event()
    chunks = events("hi")
    response, _ = _stream(tasks, ROLE[:30], ROLE[30:], go_on, *chunks)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(response.started(), 0.05)
    go_on.set()
    # the event that was waited for is used up by the cancelled wait; what comes after it is not
    await asyncio.wait_for(response.started(), SOON_S)

    read = b"".join([data async for data in _all(response)])
    assert read == ROLE + b"".join(chunks)


async def test_a_start_that_was_interrupted_after_it_had_come_returns_at_once(tasks: Tasks) -> None:
    response, _ = _stream(tasks, asyncio.Event())
    response._peeked.extend(events("hi"))

    await asyncio.wait_for(response.started(), SOON_S)


async def test_an_opaque_answer_has_nothing_to_wait_for(tasks: Tasks) -> None:
    response, _ = _stream(tasks, asyncio.Event(), api=None)

    await asyncio.wait_for(response.started(), SOON_S)


async def test_the_first_byte_is_noted_when_it_came_not_when_it_was_relayed(tasks: Tasks) -> None:
    clock = FakeClock(10.0)
    response, _ = _stream(tasks, *events("hi"), clock=clock)

    await asyncio.wait_for(response.started(), SOON_S)
    clock.advance(5.0)
    await response.read()

    assert response.first_byte_s == 10.0


# -- the flow --------------------------------------------------------------------------------------------------------


async def test_pausing_holds_the_body(tasks: Tasks) -> None:
    response, body = _stream(tasks)

    response.pause()
    response.resume()

    assert body.paused == [True, False]


async def test_headers_and_status_are_those_of_whoever_made_it(tasks: Tasks) -> None:
    pairs = [("x-ratelimit-remaining", "1")]

    response = Stream(
        exchange(tasks), ScriptedBody([], tasks), dialect=DIALECT, api=None, status=206, headers=pairs, llm="local"
    )

    assert (response.status, response.headers, response.llm) == (206, pairs, "local")
    assert response.headers is not pairs


async def test_a_refusal_is_told_from_a_failure(tasks: Tasks) -> None:
    response, _ = _stream(tasks, GuardrailBlocked("no"))

    with pytest.raises(GuardrailBlocked):
        await asyncio.wait_for(response.started(), SOON_S)

    assert response.outcome is not None
    assert response.outcome.end is End.REFUSED
