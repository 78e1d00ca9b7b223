"""Reading a response to its end as values, all subscriptions applied; and replacing its events."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from llmproxy_core import (
    Channel,
    End,
    GuardrailBlocked,
    InternalError,
    Reply,
    Response,
    Secret,
    Stream,
    Tasks,
    TextFilter,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
)
from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    Finish,
    Finished,
    FinishReason,
    ReasoningPart,
    RefusalPart,
    Start,
    TextDelta,
    TextPart,
    ToolCall,
    UsageReported,
)
from llmproxy_core.drain import subscribed_events
from llmproxy_core.testing import ScriptedBody
from llmproxy_core.text import Replace
from tests.answers import DONE, completion
from tests.llmproxy_core.conversation import (
    CHAT,
    DIALECT,
    EMBEDDINGS,
    ERROR_EVENT,
    SOON_S,
    USED,
    WAYS,
    Asking,
    Way,
    chunk,
    events,
    exchange,
    go,
    said,
    whole,
)
from tests.recordings import Recording, recordings

Chunk = bytes | UpstreamError


def _stream(tasks: Tasks, *chunks: Chunk, secret: str | None = None) -> tuple[Stream, ScriptedBody]:
    body = ScriptedBody(chunks, tasks)
    redact = None if secret is None else Secret(secret).redact
    return Stream(exchange(tasks), body, dialect=DIALECT, api=CHAT, redact=redact), body


def _reply(tasks: Tasks, body: bytes) -> Reply:
    return Reply(exchange(tasks), body, dialect=DIALECT, api=CHAT)


async def _read(response: Response) -> ChatReply:
    return await asyncio.wait_for(response.reply(), SOON_S)


def _redacting(channel: Channel) -> TextFilter:
    return Replace({"secret": "***"})


# -- whole answers ---------------------------------------------------------------------------------------------------


async def test_a_reply_is_read_and_finished(tasks: Tasks) -> None:
    response = _reply(tasks, whole("hello"))

    reply = await _read(response)

    assert (reply.text, reply.model, reply.usage) == ("hello", "gpt-4o-mini", USED)
    assert response.outcome is not None
    assert response.outcome.end is End.COMPLETED


async def test_a_stream_is_read_put_together_and_finished(tasks: Tasks) -> None:
    response, body = _stream(tasks, *events("hello ", "world"))

    reply = await _read(response)

    assert (reply.text, reply.id, reply.model, reply.usage) == ("hello world", "chatcmpl-1", "gpt-4o-mini", USED)
    assert reply.choices[0].finish == Finish(FinishReason.STOP, "stop")
    assert response.outcome is not None
    assert (response.outcome.end, response.outcome.usage, response.outcome.finish) == (End.COMPLETED, USED, ("stop",))
    assert response.outcome.model == "gpt-4o-mini"
    assert body.ends == 1


async def test_every_kind_of_content_is_put_together(tasks: Tasks) -> None:
    function = {"name": "look", "arguments": '{"a"'}
    response, _ = _stream(
        tasks,
        chunk({"role": "assistant", "reasoning_content": "hm"}),
        chunk({"content": "he"}),
        chunk({"content": "llo"}),
        chunk({"tool_calls": [{"index": 0, "id": "call", "type": "function", "function": function}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}, finish="tool_calls"),
        chunk({"refusal": "no"}, index=1),
        chunk({}, index=1, finish="stop"),
        DONE,
    )

    reply = await _read(response)

    assert reply.choices[0].content == (
        ReasoningPart("hm", member="reasoning_content"),
        TextPart("hello"),
        ToolCall("call", "look", '{"a":1}'),
    )
    assert reply.choices[1].content == (RefusalPart("no"),)
    assert response.finish_words == ("tool_calls", "stop")


@pytest.mark.parametrize(
    "recording",
    [it for it in recordings() if it.is_event_stream and it.protocol == "chat" and b'"error"' not in it.response_body],
    ids=str,
)
async def test_a_recorded_stream_can_be_read_and_written_as_a_whole_answer(tasks: Tasks, recording: Recording) -> None:
    data = recording.response_body
    response, _ = _stream(tasks, data)

    reply = await _read(response)
    written = DIALECT.write_reply(CHAT, reply)

    assert said(written) == said(data)
    assert DIALECT.read_reply(CHAT, written).choices == reply.choices


async def test_what_nobody_touched_is_byte_equal_when_it_is_written_again(tasks: Tasks) -> None:
    body = json.dumps(completion("hello") | {"x_unknown": [1, 2]}, indent=1).encode()

    reply = await _read(_reply(tasks, body))

    assert DIALECT.write_reply(CHAT, reply) == body


# -- with subscriptions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
async def test_subscriptions_hold_when_a_processor_reads(tasks: Tasks, streamed: bool) -> None:
    seen: list[str] = []

    class Log:
        def feed(self, text: str) -> None:
            seen.append(text)

        def end(self) -> None:
            seen.append("|")

    response: Response = _stream(tasks, *events("a sec", "ret"))[0] if streamed else _reply(tasks, whole("a secret"))
    response.rewrite(_redacting)
    response.watch(lambda channel: Log())
    keep = response.keep_body(10_000)

    reply = await _read(response)

    assert reply.text == "a ***"
    assert "".join(seen) == "a ***|"
    assert keep.body is not None
    assert said(keep.body.data) == "a ***"


class Blocking:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def feed(self, text: str) -> None:
        raise self._error

    def end(self) -> None: ...


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_watcher_may_refuse_what_a_processor_reads(tasks: Tasks, streamed: bool) -> None:
    response: Response = _stream(tasks, *events("bad"))[0] if streamed else _reply(tasks, whole("bad"))
    refusal = GuardrailBlocked("no")
    response.watch(lambda channel: Blocking(refusal))

    with pytest.raises(GuardrailBlocked) as raised:
        await _read(response)

    assert raised.value is refusal
    assert response.outcome is not None
    assert (response.outcome.end, response.outcome.error) == (End.REFUSED, refusal)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_bug_in_a_subscription_is_an_internal_error(tasks: Tasks, streamed: bool) -> None:
    response: Response = _stream(tasks, *events("bad"))[0] if streamed else _reply(tasks, whole("bad"))
    bug = ZeroDivisionError("a bug")
    response.watch(lambda channel: Blocking(bug))

    with pytest.raises(InternalError) as raised:
        await _read(response)

    assert raised.value.code == "processor_failed"
    assert raised.value.__cause__ is bug
    assert response.outcome is not None
    assert (response.outcome.end, response.outcome.error) == (End.FAILED, raised.value)


# -- what fails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        ([*events("hi", done=False)], UpstreamCut),
        ([UpstreamCut("reset")], UpstreamCut),
        ([*events("hi", done=False), UpstreamTimeout("idle")], UpstreamTimeout),
        ([*events("hi", done=False), ERROR_EVENT], UpstreamError),
        ([b"data: {garbage\n\n"], UpstreamGarbage),
        ([], UpstreamCut),
    ],
    ids=["no end", "reset", "idle", "error", "garbage", "empty"],
)
async def test_a_stream_that_fails_raises_its_error_and_is_over(
    tasks: Tasks, chunks: list[Chunk], kind: type[UpstreamError]
) -> None:
    response, body = _stream(tasks, *chunks)

    with pytest.raises(kind) as raised:
        await _read(response)

    assert response.outcome is not None
    assert (response.outcome.end, response.outcome.error) == (End.FAILED, raised.value)
    assert body.ends == 1


async def test_a_reported_error_tells_no_secret(tasks: Tasks) -> None:
    response, _ = _stream(tasks, b'data: {"error":{"message":"Key sk-canary is bad"}}\n\n', secret="sk-canary")

    with pytest.raises(UpstreamError) as raised:
        await _read(response)

    assert raised.value.message == "Key *** is bad"


@pytest.mark.parametrize("body", [b"", b"{", b'{"choices":7}', b"[]"])
async def test_a_reply_that_is_no_answer_is_garbage(tasks: Tasks, body: bytes) -> None:
    response = _reply(tasks, body)

    with pytest.raises(UpstreamGarbage):
        await _read(response)

    assert response.outcome is not None
    assert response.outcome.end is End.FAILED


async def test_what_is_opaque_cannot_be_read_as_a_conversation(tasks: Tasks) -> None:
    reply = Reply(exchange(tasks), b"{}", dialect=DIALECT, api=None)
    stream = Stream(exchange(tasks), ScriptedBody([], tasks), dialect=DIALECT, api=None)

    for response in (reply, stream):
        with pytest.raises(UpstreamGarbage, match="conversation"):
            await _read(response)
        assert response.outcome is not None


async def test_embeddings_are_no_conversation(tasks: Tasks) -> None:
    response = Reply(exchange(tasks), b'{"data":[]}', dialect=DIALECT, api=EMBEDDINGS)

    with pytest.raises(UpstreamGarbage, match="conversation"):
        await _read(response)

    assert response.outcome is not None


# -- replacing the events --------------------------------------------------------------------------------------------


class Recorded:
    """A transform that passes all on and writes it down."""

    def __init__(self) -> None:
        self.seen: list[ChatEvent] = []

    async def __call__(self, source: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
        async for event in source:
            self.seen.append(event)
            yield event


async def _shout(source: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    async for event in source:
        yield TextDelta(event.choice, event.text.upper()) if isinstance(event, TextDelta) else event


async def _reversed(source: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    """What only a replacement can do: it needs the whole text before it gives any."""
    rest: list[ChatEvent] = []
    text = ""
    async for event in source:
        if isinstance(event, TextDelta):
            text += event.text
        elif isinstance(event, Start):
            yield event
        else:
            rest.append(event)
    yield TextDelta(0, text[::-1])
    for event in rest:
        yield event


async def _broken(source: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    async for event in source:
        yield event
        if isinstance(event, TextDelta):
            raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_the_events_of_every_answer_can_be_replaced(tasks: Tasks, way: Way) -> None:
    done = await go(way, "hello ", "world", processors=[Asking(lambda r: r.replace(_reversed))], tasks=tasks)

    assert said(done.body) == "dlrow olleh"
    assert done.result.outcome.end is End.COMPLETED
    assert done.result.outcome.usage == USED
    if way.leaves_as_stream:
        assert done.body.endswith(DONE)


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_replacement_sees_all_events_but_the_end(tasks: Tasks, way: Way) -> None:
    recorded = Recorded()

    await go(way, "hello", processors=[Asking(lambda r: r.replace(recorded))], tasks=tasks)

    assert recorded.seen == [
        Start("chatcmpl-1", "gpt-4o-mini", 1_700_000_000),
        TextDelta(0, "hello"),
        Finished(0, Finish(FinishReason.STOP, "stop")),
        UsageReported(USED),
    ]


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_replacements_and_filters_apply_in_the_order_made(tasks: Tasks, way: Way) -> None:
    recorded = Recorded()

    def ask(response: Response) -> None:
        response.rewrite(lambda channel: Replace({"hello": "good"}))
        response.replace(_shout)
        response.rewrite(lambda channel: Replace({"GOOD": "bad"}))
        response.replace(recorded)
        response.rewrite(lambda channel: Replace({"bad": "#"}))

    done = await go(way, "hel", "lo you", processors=[Asking(ask)], tasks=tasks)

    between = "".join(event.text for event in recorded.seen if isinstance(event, TextDelta))
    assert between == "bad YOU"
    assert said(done.body) == "# YOU"


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_what_a_filter_behind_a_replacement_holds_comes_out(tasks: Tasks, way: Way) -> None:
    def ask(response: Response) -> None:
        response.replace(_without_finish)
        response.rewrite(lambda channel: Replace({"hello!": "?"}))

    done = await go(way, "hello", processors=[Asking(ask)], tasks=tasks)

    assert said(done.body) == "hello"


async def _without_finish(source: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    async for event in source:
        if not isinstance(event, Finished):
            yield event


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_bug_in_a_replacement_fails_the_answer(
    tasks: Tasks, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    done = await go(way, "hello", " you", processors=[Asking(lambda r: r.replace(_broken))], tasks=tasks)

    assert isinstance(done.result.error, InternalError)
    assert done.result.error.code == "processor_failed"
    assert done.result.outcome.end is End.FAILED
    assert not done.body.endswith(DONE)
    if way.arrives_as_stream and way.leaves_as_stream:
        assert said(done.body) == "hello"
        assert "ZeroDivisionError" in caplog.text
        assert [body.ends for body in done.llm.bodies] == [1]


async def test_the_events_of_a_stream_end_with_an_end(tasks: Tasks) -> None:
    response, _ = _stream(tasks, *events("hi"))
    response.replace(_shout)

    seen = [event async for some in subscribed_events(response) for event in some]

    assert type(seen[-1]).__name__ == "End"
    assert TextDelta(0, "HI") in seen
