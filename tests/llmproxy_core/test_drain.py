"""Reading a response to its end as values, all subscriptions applied."""

import asyncio
import json

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
    ChatReply,
    Finish,
    FinishReason,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
)
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
    chunk,
    events,
    exchange,
    said,
    whole,
)
from tests.recordings import Recording, openai_recordings

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
        ReasoningPart("hm", provider="openai", member="reasoning_content"),
        TextPart("hello"),
        ToolCall("call", "look", '{"a":1}'),
    )
    assert reply.choices[1].content == (RefusalPart("no"),)
    assert response.finish_words == ("tool_calls", "stop")


@pytest.mark.parametrize(
    "recording",
    [
        it
        for it in openai_recordings()
        if it.is_event_stream and it.protocol == "chat" and b'"error"' not in it.response_body
    ],
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
async def test_a_bug_in_a_subscription_is_an_internal_error_and_its_cause_is_logged_once(
    tasks: Tasks, streamed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    response: Response = _stream(tasks, *events("bad"))[0] if streamed else _reply(tasks, whole("bad"))
    bug = ZeroDivisionError("a bug")
    response.watch(lambda channel: Blocking(bug))

    with pytest.raises(InternalError) as raised:
        await _read(response)

    assert raised.value.code == "processor_failed"
    assert raised.value.__cause__ is None  # nobody logs it a second time
    assert [record.exc_info and record.exc_info[1] for record in caplog.records] == [bug]
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
