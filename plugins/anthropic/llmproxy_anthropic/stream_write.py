"""Events, written as the bytes of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from llmproxy_anthropic.apis import MESSAGES
from llmproxy_anthropic.block_queue import Block, Tell
from llmproxy_anthropic.citation import write_citation
from llmproxy_anthropic.event import EventSource
from llmproxy_anthropic.stream_patch import (
    framed,
    with_call,
    with_citation,
    with_finish,
    with_index,
    with_start,
    with_text,
    with_usage,
)
from llmproxy_anthropic.stream_render import MessageRenderer
from llmproxy_core import Frame
from llmproxy_core.chat import (
    ChatEvent,
    CitationAdded,
    End,
    Failed,
    Finished,
    Ping,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.wire import UNSEEN, Wire

E = TypeVar("E")


class _Late:
    """A text of the provider's that has said nothing yet: it is begun with its first words."""

    __slots__ = ("events", "index", "swallowed")

    def __init__(self, index: int, start: Tell) -> None:
        self.index = index
        self.events = [start]
        self.swallowed = False
        """A filter kept some of it, or took it away."""


class MessageWriter:
    """
    A StreamWriter for `POST /messages`.

    The bytes of an untouched frame are given back; of a changed one only what changed is written; events without a
    frame become events of our own, in blocks of their own. Events are not to be changed in place.
    """

    def __init__(self) -> None:
        self._out: list[bytes] = []
        self._renderer = MessageRenderer(self._out)
        self._blocks: dict[int, Block | None] = {}
        """The provider's blocks that are open, by its index; None for one that a processor left out."""
        self._late: _Late | None = None
        self._renderer.blocks.copies = True

    @property
    def unsaid(self) -> bytes:
        """What waits for the first words of a text, though no filter has any of it: it goes before an error."""
        late = self._late
        if late is None or late.swallowed:
            return b""
        return self._renderer.blocks.preview(late.events, late.index)

    def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
        """See StreamWriter."""
        queue = self._renderer.blocks
        queue.copies = queue.copies and frame is not None and _are_same(events, frame.events)
        if frame is None:
            self._render_all(events)
        elif isinstance(source := frame.source, EventSource):
            self._pass(events, frame, source)
        elif frame.source is not UNSEEN and not (frame.events and isinstance(frame.events[0], Failed)):
            self._render([event for event in events if not isinstance(event, Ping)])
            self._put_out(frame.raw)
        else:
            self._render(events)
        written = b"".join(self._out)
        self._out.clear()
        return written

    def _render_all(self, events: Sequence[ChatEvent]) -> None:
        """What is known of the usage by now may be told where the message begins."""
        if not self._renderer.started:
            for event in events:
                if isinstance(event, UsageReported):
                    self._renderer.usage = event.usage
        self._render(events)

    def _render(self, events: Sequence[ChatEvent]) -> None:
        for event in events:
            self._renderer.render(event)

    # -- events of the provider's own ----------------------------------------------------------------------------

    def _pass(self, events: Sequence[ChatEvent], frame: Frame, source: EventSource) -> None:
        match source.kind:
            case "content_block_delta":
                self._delta(events, frame, source)
            case "content_block_start":
                self._open(events, frame, source)
            case "content_block_stop":
                self._close(events, frame, source)
            case "message_start":
                self._message_start(events, frame, source)
            case "message_delta":
                self._message_delta(events, frame, source)
            case "message_stop":
                self._begin_what_waits()
                self._render([event for event in events if not isinstance(event, End)])
                self._renderer.close_all()
                self._out.append(frame.raw)
            case "error":
                self._begin_what_waits()
                self._render([event for event in events if not isinstance(event, Failed)])
            case _:
                own = frame.events[0] if frame.events else None
                self._render([event for event in events if event != own])
                if own is None or own in events:
                    self._put_out(frame.raw)

    def _put_out(self, raw: bytes) -> None:
        """What is of no block; behind the beginning of one where it came so."""
        if self._late is None or self._late.swallowed:
            self._out.append(raw)
        else:
            self._late.events.append(lambda _: raw)

    def _message_start(self, events: Sequence[ChatEvent], frame: Frame, source: EventSource) -> None:
        self._begin_what_waits()
        was, now = _first(frame.events, Start), _first(events, Start)
        self._renderer.started = True
        data = source.data
        if was is not None and now is not None:
            self._renderer.render(now)
            data = data if now == was else with_start(data, was, now)
        self._out.append(framed(frame, source, data))
        self._render([event for event in events if not isinstance(event, Start)])

    def _message_delta(self, events: Sequence[ChatEvent], frame: Frame, source: EventSource) -> None:
        """What filters held back until now comes before it."""
        self._begin_what_waits()
        own = (Finished, UsageReported)
        self._render([event for event in events if not isinstance(event, own)])
        self._renderer.close_all()
        data = source.data
        was, now = _first(frame.events, Finished), _first(events, Finished)
        if now is not None:
            self._renderer.finished = True
            if was is not None and now != was:
                data = with_finish(data, now, called=bool(self._renderer.calls))
        told, tells = _first(frame.events, UsageReported), _first(events, UsageReported)
        if told is not None and tells is not None and tells != told:
            data = with_usage(data, tells)
        self._out.append(framed(frame, source, data))

    # -- blocks ------------------------------------------------------------------------------------------------

    def _open(self, events: Sequence[ChatEvent], frame: Frame, source: EventSource) -> None:
        call, now = _first(frame.events, ToolCallStart), _first(events, ToolCallStart)
        if call is not None and now is None:  # a processor left it out
            self._blocks[source.index] = None
            self._render(events)
            return
        if call is not None and events[0] is not now:  # what a filter held of the text before it
            self._render(events[: events.index(now)])
        if self._late is not None:
            self._begin_late(self._late)
        if source.block == "text":
            self._renderer.release()
            if not frame.events:
                self._render(events)
                self._late = _Late(source.index, _told(frame, source, source.data))
                return
        self._renderer.settle()
        block = self._renderer.blocks.begin(source.block, native=True, index=source.index)
        self._blocks[source.index] = block
        data = source.data if call is None or now is None or now == call else with_call(source.data, now)
        was, text = _said(frame.events), _said(events)
        if was != text and source.member:
            data = with_text(source, was, text)
            block.holds = not text.startswith(was)
        if call is not None:
            self._renderer.calls[call.index] = block
            block.arguments += [event.arguments for event in events if isinstance(event, ToolCallDelta)]
        self._renderer.blocks.say(block, _told(frame, source, data))

    def _begin_what_waits(self) -> None:
        """Begin the text that waits for its words: none come, or no longer first."""
        if self._late is not None:
            self._begin_late(self._late, wordless=self._late.swallowed)

    def _begin_late(self, late: _Late, *, wordless: bool = False) -> Block:
        """Begin the text; *wordless*: only its place is kept, for what a filter may still hold of it."""
        self._renderer.settle()
        block = self._renderer.blocks.begin("text", native=True, index=late.index)
        self._blocks[late.index] = block
        self._late = None
        if wordless:
            block.late += late.events
            block.holds = True
        else:
            for event in late.events:
                self._renderer.blocks.say(block, event)
        return block

    def _delta(self, events: Sequence[ChatEvent], frame: Frame, source: EventSource) -> None:
        late = self._late if self._late is not None and self._late.index == source.index else None
        if late is None and self._renderer.blocks.copies:
            self._begin_what_waits()
        block = self._blocks.get(source.index)
        if block is None and late is None:
            self._pass_stray(frame)
            return
        was = frame.events[0] if frame.events else None
        # What a filter held until now comes before what became of the frame's own event.
        now = was if events is frame.events else next((it for it in reversed(events) if type(it) is type(was)), None)
        self._render([event for event in events if event is not now])
        data = source.data if was is None or now == was else _changed(source, was, now)
        if late is not None:
            if was is None and not late.swallowed:
                late.events.append(_told(frame, source, source.data))
                return
            if was is None or data is None:
                late.swallowed = True
                return
            block = self._begin_late(late)
        assert block is not None
        if was is not None:
            block.holds = now != was and _may_be_held(_spoken(was), _spoken(now), block)
        if isinstance(now, ToolCallDelta):
            block.arguments.append(now.arguments)
        if data is not None:
            self._renderer.blocks.say(block, _told(frame, source, data))

    def _close(self, events: Sequence[ChatEvent], frame: Frame, source: EventSource) -> None:
        """End the block; it waits for what a filter may still hold of it."""
        if self._late is not None and (self._late.index == source.index or self._renderer.blocks.copies):
            self._begin_what_waits()
        block = self._blocks.pop(source.index, None)
        if block is None:
            self._pass_stray(frame)
            return
        if not frame.events:
            self._render(events)
        elif block.is_call and (arguments := _first(events, ToolCallDelta)) is not None:
            block.arguments.append(arguments.arguments)
        block.stop = _told(frame, source, source.data)
        if not block.holds or (block.is_call and block.is_whole):
            self._renderer.close(block)
        elif block.kind == "text":
            self._renderer.held = block

    def _pass_stray(self, frame: Frame) -> None:
        """What is of a block that is not open."""
        if self._renderer.blocks.copies:
            self._out.append(frame.raw)


def _are_same(events: Sequence[ChatEvent], read: list[ChatEvent]) -> bool:
    """Whether nobody has changed what was read; the name of the model is no matter of the blocks'."""
    return [*events] == read or [it for it in events if not isinstance(it, Start)] == [
        it for it in read if not isinstance(it, Start)
    ]


def _told(frame: Frame, source: EventSource, data: bytes) -> Tell:
    """The frame with *data*, and with the client's index, which is another where blocks of our own were put in."""
    return lambda index: framed(frame, source, data if index == source.index else with_index(data, index))


def _may_be_held(was: str, now: str, block: Block) -> bool:
    """Whether a filter, which made *now* of *was*, may hold some of it; of a text that ends alike hardly."""
    if block.kind == "text" and now and was and now[-1].casefold() == was[-1].casefold():
        return False
    return not now.startswith(was)


def _changed(source: EventSource, was: ChatEvent, now: ChatEvent | None) -> bytes | None:
    """The event's JSON for *now*; None when there is nothing left to say."""
    match was, now:
        case TextDelta(), TextDelta() if now.text:
            return with_text(source, was.text, now.text)
        case ReasoningDelta(), ReasoningDelta() if now.text or now.signature:
            return with_text(source, was.text, now.text) if now.text else source.data
        case ToolCallDelta(), ToolCallDelta() if now.arguments:
            return with_text(source, was.arguments, now.arguments)
        case CitationAdded(), CitationAdded():
            return with_citation(source.data, write_citation(now.citation, Wire(MESSAGES.form, own=True)))
        case _:
            return None


def _said(events: Sequence[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta | ReasoningDelta))


def _spoken(event: ChatEvent | None) -> str:
    match event:
        case TextDelta(text=text) | ReasoningDelta(text=text) | ToolCallDelta(arguments=text):
            return text
        case _:
            return ""


def _first(events: Sequence[ChatEvent], kind: type[E]) -> E | None:
    return next((event for event in events if isinstance(event, kind)), None)
