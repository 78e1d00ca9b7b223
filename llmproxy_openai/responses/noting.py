"""What the provider's own events, sent on as they came, have told a client so far."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_core.chat import ChatEvent, ReasoningDelta, Start, ToolCallStart
from llmproxy_core.wire import Changes, decode_object, with_members
from llmproxy_openai.responses.open_item import OpenCall, OpenItem, OpenMessage, OpenReasoning
from llmproxy_openai.responses.paths import DIALECT
from llmproxy_openai.responses.render import Renderer
from llmproxy_openai.responses.stream_event import StreamEvent, read_item


def note(renderer: Renderer, source: StreamEvent, events: Sequence[ChatEvent], shared: Changes) -> None:
    """Bring *renderer* to where the client is after *source*, which means *events*."""
    emitter = renderer.emitter
    emitter.sequence = (emitter.sequence if source.sequence_number is None else source.sequence_number) + 1
    if not renderer.response and any(isinstance(event, Start) for event in events):
        text = with_members(bytes(source.response) or b"{}", shared)
        renderer.response = {name: bytes(raw) for name, raw in decode_object(text).items()}
    kind = source.type
    if kind == "response.output_item.added":
        renderer.note_open(_opened(renderer, source, events), source.output_index)
    elif kind == "response.output_item.done":
        renderer.next_index = max(renderer.next_index, source.output_index + 1)
        renderer.note_done(source.output_index, bytes(source.item))
    elif (item := renderer.item_at(source.output_index)) is not None:
        _note_piece(item, source)


def _opened(renderer: Renderer, source: StreamEvent, events: Sequence[ChatEvent]) -> OpenItem | None:
    """The item that *source* announces."""
    item, emitter, index = read_item(source.item), renderer.emitter, source.output_index
    item_id = item.id or ""
    match item.type:
        case "message":
            return OpenMessage(emitter, index, item_id, item=bytes(source.item), announced=True)
        case "reasoning":
            first = ReasoningDelta(0, "", provider=DIALECT, id=item.id, summary=True)
            return OpenReasoning(emitter, index, item_id, first, announced=True)
        case "function_call" | "custom_tool_call":
            start = next(event for event in events if isinstance(event, ToolCallStart))
            return OpenCall(emitter, index, item_id, start.id, start, announced=True)
        case _:
            return None


def _note_piece(item: OpenItem, source: StreamEvent) -> None:
    text = source.delta if isinstance(source.delta, str) else ""
    match item:
        case OpenMessage():
            _note_message(item, source, text)
        case OpenReasoning():
            _note_reasoning(item, source, text)
        case OpenCall() if source.type.endswith(".delta"):
            item.note_text(text)
        case OpenCall():
            item.is_told = True
        case _:
            pass


def _note_message(item: OpenMessage, source: StreamEvent, text: str) -> None:
    match source.type:
        case "response.content_part.added":
            item.note_part("refusal" if b'"refusal"' in bytes(source.part) else "output_text")
        case "response.output_text.delta" | "response.refusal.delta":
            item.note_text(text)
        case "response.output_text.annotation.added":
            item.note_annotation(bytes(source.annotation))
        case "response.content_part.done":
            item.note_part_done(bytes(source.part))
        case _:
            pass


def _note_reasoning(item: OpenReasoning, source: StreamEvent, text: str) -> None:
    match source.type:
        case "response.reasoning_summary_part.added" | "response.content_part.added":
            item.note_part(summary=source.type == "response.reasoning_summary_part.added")
        case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
            item.note_text(text)
        case "response.reasoning_summary_part.done" | "response.content_part.done":
            item.note_part_done(bytes(source.part))
        case _:
            pass
