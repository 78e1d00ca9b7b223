"""Reading a response to its end as values: whole replies, begun streams, replaced events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    ChatReply,
    End,
    Failed,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from llmproxy_core.citation_places import CitationPlaces
from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.engine import Facts, bug_of, event_steps, failure
from llmproxy_core.errors import InternalError, ProxyError, UpstreamCut, UpstreamGarbage, raise_unless_bug, too_long
from llmproxy_core.frame import Frame
from llmproxy_core.keeping import Keeper, keep_whole
from llmproxy_core.outcome import End as Ending
from llmproxy_core.reply_events import Assembler, answers, events_of
from llmproxy_core.response import Reply, Response, Stream, redact_error
from llmproxy_core.sse import DEFAULT_MAX_EVENT_BYTES
from llmproxy_core.stages import Filtering, Watching, apply_to_reply
from llmproxy_core.subscription import Keep, Replace, Rewrite, Subscription, Watch

MOST_BEFORE_BEGUN = DEFAULT_MAX_EVENT_BYTES
"""
Bytes of a stream that are kept until it has begun: its first event may be a picture, and some providers first repeat
all instructions and tools.
"""
_MOST_PIECES = 256


async def read_until_meaningful(
    read: Callable[[], Awaitable[bytes]],
    dialect: Dialect,
    api: Api,
    kept: list[bytes],
    *,
    chars: int,
    note: Callable[[ChatEvent], None],
) -> None:
    """
    Read up to the first event that answers something, and so many *chars* of what is said, or the end.

    All that is read is added to *kept*, which may have a beginning. These first events are decoded once more by whoever
    relays them. *note* is called with the first event that answers. UpstreamError when the stream fails before, or has
    answered nothing in `MOST_BEFORE_BEGUN` bytes; after so many no more *chars* are waited for.
    """
    reader, beginning = dialect.reader(api), _Beginning(chars, note)
    if kept and beginning.is_in(reader.feed(b"".join(kept))):
        return
    size = sum(map(len, kept))
    while data := await read():
        kept.append(data)
        if len(kept) == _MOST_PIECES:
            kept[:] = [b"".join(kept)]
        if any(beginning.is_in(reader.feed(event)) for event in _events(data)):
            return
        size += len(data)
        if size >= MOST_BEFORE_BEGUN:
            if beginning.has_begun:
                return
            raise UpstreamGarbage(f"The upstream's stream did not begin to answer within {size} bytes")
    if not (beginning.is_in(reader.end()) or beginning.has_begun):
        raise UpstreamCut("The upstream's stream ended before it had begun")


def _events(data: bytes) -> Iterator[bytes]:
    """*data* cut behind its events: what comes behind the first that counts need not be decoded here."""
    start = 0
    while (found := data.find(b"\n\n", start)) >= 0:
        yield data[start : found + 2]
        start = found + 2
    yield data[start:]


class _Beginning:
    """Whether enough of an answer has come."""

    def __init__(self, chars: int, note: Callable[[ChatEvent], None]) -> None:
        self.has_begun = False
        self._left = chars
        self._note = note

    def is_in(self, frames: list[Frame]) -> bool:
        """Whether it has, with *frames*. UpstreamError for one that tells of a failure."""
        for frame in frames:
            for event in frame.events:
                if isinstance(event, Failed):
                    raise failure(event)
                if not self.has_begun and answers(event):
                    self.has_begun = True
                    self._note(event)
                if isinstance(event, End):
                    return True
                if self._left > 0:
                    self._left -= _length(event)
        return self.has_begun and self._left <= 0


def _length(event: ChatEvent) -> int:
    """How many characters *event* says: of text, of thinking, of what a tool is called with."""
    match event:
        case TextDelta(text=text) | ReasoningDelta(text=text) | RefusalDelta(text=text):
            return len(text)
        case ToolCallDelta(arguments=text) | AudioDelta(transcript=str(text)):
            return len(text)
        case _:
            return 0


async def drain(response: Response) -> ChatReply:
    """
    Read *response* to its end, all subscriptions applied, and finish it.

    Raises the ProxyError that it failed with; an InternalError for a bug in what was subscribed.
    """
    with failing(response):
        reply = await (_drain_stream(response) if isinstance(response, Stream) else reply_of(response))
    response.finish(Ending.COMPLETED)
    return reply


class failing:  # noqa: N801 - as a context manager it reads as a verb
    """What is raised within ends *response*; it leaves as a ProxyError."""

    __slots__ = ("_response",)

    def __init__(self, response: Response) -> None:
        self._response = response

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ProxyError):
            self._response.finish(Ending.of(error), error)
        elif error is not None:
            raise_unless_bug(error)
            internal = InternalError("A processor failed on this answer", code="processor_failed")
            self._response.finish(Ending.FAILED, internal)
            raise internal from error


async def reply_of(response: Reply) -> ChatReply:
    """The meaning of a whole answer after its subscriptions; what they left untouched is byte-equal when written."""
    if response.api is None or response.api.operation is not Operation.CHAT:
        raise UpstreamGarbage("This answer cannot be read as a conversation")
    reply = response.said()
    untouched = True
    for wish in response.subscriptions:
        before = reply
        if isinstance(wish, Keep):
            body = response.body if untouched else response.dialect.write_reply(response.api, reply)
            keep_whole(wish, response.api.name, body)
            continue
        try:
            reply = await _applied(wish, reply)
        except ProxyError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told, or is logged and left out
            raise_unless_bug(error)
            failed = bug_of(wish.owner, error, response.exchange.id, only_looks=isinstance(wish, Watch))
            if failed is not None:
                raise failed from None
        untouched = untouched and reply is before
    return reply


async def _applied(wish: Watch | Rewrite | Replace, reply: ChatReply) -> ChatReply:
    match wish:
        case Watch(make):
            return apply_to_reply(Watching(make), reply)
        case Rewrite(make):
            return apply_to_reply(Filtering(make), reply)
        case Replace(transform):
            return await _assemble(transform(_iterate(events_of(reply))))


async def _iterate(events: list[ChatEvent]) -> AsyncIterator[ChatEvent]:
    for event in events:
        if not isinstance(event, End):
            yield event


async def _assemble(events: AsyncIterator[ChatEvent]) -> ChatReply:
    assembler = Assembler()
    async for event in events:
        assembler.feed([event])
    return assembler.reply()


async def _drain_stream(response: Stream) -> ChatReply:
    if response.api is None or response.api.operation is not Operation.CHAT:
        raise UpstreamGarbage("This answer cannot be read as a conversation")
    assembler = Assembler()
    read: list[bytes] = []
    async for events in subscribed_events(response, read):
        assembler.feed(events)
    response.rewind(read)
    return assembler.reply()


async def subscribed_events(response: Stream, read: list[bytes] | None = None) -> AsyncIterator[list[ChatEvent]]:
    """
    The events of a stream after all its subscriptions, replacements included; the last is an End.

    Raises the ProxyError that ended the stream early. What is read is added to *read*.
    """
    segments = _segments(response.subscriptions)
    events = _first(response, segments[0], read)
    for replace, following in zip(_replacements(response.subscriptions), segments[1:], strict=True):
        events = _replaced(response, replace, events, following)
    async for some in events:
        yield some


def _segments(subscriptions: list[Subscription]) -> list[list[Subscription]]:
    """*subscriptions* cut at each Replace: one list more than there are of these."""
    segments: list[list[Subscription]] = [[]]
    for wish in subscriptions:
        if isinstance(wish, Replace):
            segments.append([])
        else:
            segments[-1].append(wish)
    return segments


def _replacements(subscriptions: list[Subscription]) -> list[Replace]:
    return [wish for wish in subscriptions if isinstance(wish, Replace)]


async def _first(
    response: Stream, wishes: list[Subscription], read: list[bytes] | None
) -> AsyncIterator[list[ChatEvent]]:
    """The frames of the upstream after *wishes*."""
    assert response.api is not None
    keepers: list[Keeper] = []
    steps = event_steps(response, wishes, keepers)
    reader = response.dialect.reader(response.api)
    facts, places = Facts(response), CitationPlaces()
    size = 0
    while True:
        data = await response.read()
        size += len(data)
        if response.max_bytes is not None and size > response.max_bytes:
            raise too_long(response.max_bytes)
        if read is not None and data:
            read.append(data)
        for frame in reader.feed(data) if data else reader.end():
            facts.look(frame.events)
            if facts.error is not None:
                redact_error(facts.error, response.redact)
                raise facts.error
            events = places.place(steps.apply(frame, frame.events), ends_text=frame.ends_text)
            if facts.done:
                _hand_over(keepers)
            yield events
            if facts.done:
                return
        if not data:
            raise UpstreamCut("The upstream's stream ended without its terminal event")


def _hand_over(keepers: list[Keeper]) -> None:
    """All that these keep has come. Before the End is passed on: who has got it asks for nothing more."""
    for keeper in keepers:
        keeper.done()


async def _replaced(
    response: Stream, replace: Replace, source: AsyncIterator[list[ChatEvent]], wishes: list[Subscription]
) -> AsyncIterator[list[ChatEvent]]:
    """What *replace* makes of *source*, after *wishes*. It neither sees the End nor has to give one."""
    keepers: list[Keeper] = []
    steps = event_steps(response, wishes, keepers, rewritten=True)

    async def single() -> AsyncIterator[ChatEvent]:
        async for events in source:
            for event in events:
                if not isinstance(event, End):
                    yield event

    async for event in _named(replace, single(), response.exchange.id):
        yield steps.apply(None, [event])
    last = steps.apply(None, [End()])
    _hand_over(keepers)
    yield last


async def _named(replace: Replace, source: AsyncIterator[ChatEvent], exchange_id: str) -> AsyncIterator[ChatEvent]:
    """What *replace* makes of *source*; its bug is named."""
    try:
        async for event in replace.transform(source):
            yield event
    except ProxyError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
        raise_unless_bug(error)
        failed = bug_of(replace.owner, error, exchange_id, only_looks=False)
        assert failed is not None
        raise failed from None
