"""A stream's bytes, read as frames of events."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llmproxy_core.chat import (
    ChatEvent,
    CitationAdded,
    End,
    Finished,
    OpaqueEvent,
    Ping,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.errors import UpstreamError, UpstreamGarbage
from llmproxy_core.frame import Frame
from llmproxy_core.reply_events import events_of
from llmproxy_core.sse import Event
from llmproxy_core.wire import UNSEEN, EventReader, Wire, failed, garbage, join_object
from llmproxy_openai.responses.answer import BETWEEN_SUMMARIES
from llmproxy_openai.responses.citations import read_citation
from llmproxy_openai.responses.failure import stream_error
from llmproxy_openai.responses.paths import CREATE, DIALECT
from llmproxy_openai.responses.reply import read_reply, read_spent
from llmproxy_openai.responses.stream_event import (
    SAID_IN_PIECES,
    TERMINAL,
    Item,
    StreamEvent,
    is_error,
    read_event,
    read_item,
)

_Place = tuple[int, int]


class ResponseReader(EventReader):
    """A StreamReader for the events of a response. UpstreamGarbage for what is none."""

    def __init__(self) -> None:
        super().__init__()
        self._wire = Wire(CREATE.form, own=True, fail=garbage)
        self._has_begun = False
        self._has_said = False
        self._told: set[_Place] = set()
        self._told_items: set[int] = set()
        self._items: dict[int, Item] = {}
        self._calls: dict[int, int] = {}
        self._pending: StreamEvent | None = None

    def close(self) -> list[Frame]:
        """An error that nothing came after."""
        return [] if self._pending is None else [self._failed(b"", [self._pending])]

    def read(self, event: Event) -> list[Frame]:
        try:
            source = read_event(event.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamGarbage("An event of the provider's stream cannot be understood") from error
        if source.type == "response.failed":
            before = [] if self._pending is None else [self._pending]
            return [self._failed(event.raw, [*before, source])]
        if is_error(source):
            self._pending = source  # the response that failed comes after it, and tells whose it is
            return [Frame(event.raw, [], UNSEEN)]
        if source.type == "keepalive":
            return [Frame(event.raw, [Ping()], source)]
        events: list[ChatEvent] = []
        if source.type in TERMINAL:
            self._end(source, events)
        elif (read := _READERS.get(source.type)) is not None:
            try:
                read(self, source, events)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise UpstreamGarbage("An event of the provider's stream cannot be understood") from error
        if events and not self._has_begun:
            self._has_begun = True
            if not isinstance(events[0], Start):
                events.insert(0, Start("", ""))
        return [Frame(event.raw, events, source, ends_text=source.type in _ENDS_OF_TEXTS)]

    def _failed(self, raw: bytes, told: list[StreamEvent]) -> Frame:
        self.is_over = True
        events: list[ChatEvent] = [failed(stream_error([event.data for event in told]))]
        if (spent := read_spent(bytes(told[-1].response))) is not None:
            events.insert(0, UsageReported(spent))
        return Frame(raw, events, told[-1])

    # -- the response --------------------------------------------------------------------------------------------

    def _begin(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        response = _decode_head(source.response)
        created = None if response.created_at is None else int(response.created_at)
        if not self._has_begun:
            events.append(Start(response.id or "", response.model or "", created, response.service_tier))

    def _end(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        """The response as a whole: its end, and its usage; for a server that said nothing before, all of it."""
        try:
            reply = read_reply(bytes(source.response))
        except UpstreamError as error:
            self.is_over = True
            events.append(failed(error))
            return
        self.is_over = True
        choice = reply.choices[0]
        if not self._has_said:
            whole = events_of(reply)
            events += whole[1:] if self._has_begun else whole
            return
        if choice.finish is not None:
            events.append(Finished(0, choice.finish))
        if reply.usage is not None:
            events.append(UsageReported(reply.usage))
        events.append(End())

    # -- items ---------------------------------------------------------------------------------------------------

    def _item(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        item = self._items[source.output_index] = read_item(source.item)
        if item.type in {"function_call", "custom_tool_call"}:
            self._has_said = True
            index = self._calls[source.output_index] = len(self._calls)
            kind = "custom" if item.type == "custom_tool_call" else "function"
            events.append(ToolCallStart(0, index, item.call_id or "", item.name or "", kind, item_id=item.id))  # type: ignore[arg-type]

    def _item_done(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        if source.output_index not in self._items:
            self._item(source, events)
        item = read_item(source.item)
        match item.type:
            case "reasoning":
                self._thought(source, item, events)
            case "function_call":
                self._arguments_done(source, item.arguments, events)
            case "custom_tool_call":
                self._arguments_done(source, item.input, events)
            case kind if kind not in SAID_IN_PIECES:
                self._has_said = True
                events.append(OpaqueEvent(kind, bytes(source.item), 0, CREATE.form))
            case _:
                pass

    def _thought(self, source: StreamEvent, item: Item, events: list[ChatEvent]) -> None:
        """What comes with the end of thinking: what is encrypted, and all of it where no piece came."""
        self._has_said = True
        whole = _decode_thinking(source.item)
        text, summary = "", not whole.content
        if source.output_index not in self._told_items:
            text = BETWEEN_SUMMARIES.join([part.text for part in whole.content or whole.summary or ()])
        encrypted = whole.encrypted_content
        delta = ReasoningDelta(0, text, encrypted=encrypted, provider=DIALECT, summary=summary, id=item.id)
        events.append(delta)

    # -- pieces --------------------------------------------------------------------------------------------------

    def _first(self, source: StreamEvent, place: int) -> bool:
        """Whether nothing was said yet at *place* of the item; from now on there was."""
        key = (source.output_index, place)
        is_first = key not in self._told
        if is_first:
            self._told.add(key)
            self._told_items.add(source.output_index)
        self._has_said = True
        return is_first

    def _text(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        if isinstance(source.delta, str):
            self._first(source, source.content_index)
            logprobs = bytes(source.logprobs)
            spelled = _spelled(logprobs) if len(logprobs) > 2 and logprobs.startswith(b"[") else None
            events.append(TextDelta(0, source.delta, spelled))

    def _text_done(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        if isinstance(source.text, str) and source.text and self._first(source, source.content_index):
            events.append(TextDelta(0, source.text))

    def _refusal(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        if isinstance(source.delta, str):
            self._first(source, source.content_index)
            events.append(RefusalDelta(0, source.delta))

    def _refusal_done(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        if isinstance(source.refusal, str) and source.refusal and self._first(source, source.content_index):
            events.append(RefusalDelta(0, source.refusal))

    def _summary(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        self._think(source, source.summary_index, events, summary=True)

    def _thinking(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        self._think(source, source.content_index, events, summary=False)

    def _think(self, source: StreamEvent, part: int, events: list[ChatEvent], *, summary: bool) -> None:
        if not isinstance(source.delta, str):
            return
        parted = part > 0 and self._first(source, part) and (source.output_index, part - 1) in self._told
        self._first(source, part)
        text = BETWEEN_SUMMARIES + source.delta if parted else source.delta
        events.append(ReasoningDelta(0, text, provider=DIALECT, summary=summary, id=source.item_id))

    def _arguments(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        index = self._calls.get(source.output_index)
        if index is not None and isinstance(source.delta, str) and source.delta:
            self._first(source, 0)
            events.append(ToolCallDelta(0, index, source.delta))

    def _call_done(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        self._arguments_done(source, source.arguments or source.input, events)

    def _arguments_done(self, source: StreamEvent, text: object, events: list[ChatEvent]) -> None:
        index = self._calls.get(source.output_index)
        if index is not None and isinstance(text, str) and text and self._first(source, 0):
            events.append(ToolCallDelta(0, index, text))

    def _annotation(self, source: StreamEvent, events: list[ChatEvent]) -> None:
        text = bytes(source.annotation)
        if text.startswith(b"{"):
            events.append(CitationAdded(0, read_citation(text, "annotation", self._wire)))


_ENDS_OF_TEXTS = frozenset({"response.content_part.done", "response.output_item.done"})
_Read = Callable[[ResponseReader, StreamEvent, list[ChatEvent]], None]

_READERS: dict[str, _Read] = {
    "response.created": ResponseReader._begin,
    "response.in_progress": ResponseReader._begin,
    "response.queued": ResponseReader._begin,
    "response.output_item.added": ResponseReader._item,
    "response.output_item.done": ResponseReader._item_done,
    "response.output_text.delta": ResponseReader._text,
    "response.output_text.done": ResponseReader._text_done,
    "response.refusal.delta": ResponseReader._refusal,
    "response.refusal.done": ResponseReader._refusal_done,
    "response.reasoning_summary_text.delta": ResponseReader._summary,
    "response.reasoning_text.delta": ResponseReader._thinking,
    "response.function_call_arguments.delta": ResponseReader._arguments,
    "response.function_call_arguments.done": ResponseReader._call_done,
    "response.custom_tool_call_input.delta": ResponseReader._arguments,
    "response.custom_tool_call_input.done": ResponseReader._call_done,
    "response.output_text.annotation.added": ResponseReader._annotation,
}


class _Head(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    created_at: float | None = None
    service_tier: str | None = None


class _Text(msgspec.Struct):
    text: str = ""


class _Thinking(msgspec.Struct):
    summary: list[_Text] | None = None
    content: list[_Text] | None = None
    encrypted_content: str | None = None


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_thinking = msgspec.json.Decoder(_Thinking).decode


def _spelled(entries: bytes) -> bytes:
    """Probabilities in the form of chat completions."""
    return join_object({"content": entries, "refusal": b"null"})
