"""Replacing the events of an answer: the slow path, on every way to the client."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from llmproxy_core import (
    Channel,
    End,
    InternalError,
    Reply,
    Response,
    Secret,
    Stream,
    Tasks,
    TextFilter,
    UpstreamError,
)
from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    Finish,
    Finished,
    FinishReason,
    Start,
    TextDelta,
    UsageReported,
)
from llmproxy_core.drain import subscribed_events
from llmproxy_core.testing import ScriptedBody
from llmproxy_core.text import Replace
from tests.answers import DONE
from tests.llmproxy_core.conversation import (
    CHAT,
    DIALECT,
    SOON_S,
    USED,
    WAYS,
    Asking,
    Way,
    events,
    exchange,
    go,
    said,
)

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
