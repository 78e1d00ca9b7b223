"""A stream's bytes, read as frames of events."""

from __future__ import annotations

from typing import Any

import msgspec

from llmproxy_anthropic.apis import MESSAGES, NAME
from llmproxy_anthropic.block_read import read_block
from llmproxy_anthropic.citation import read_citation
from llmproxy_anthropic.event import Delta, EventSource, Payload, decode_payload
from llmproxy_anthropic.finish import read_finish
from llmproxy_anthropic.own_tool import is_answer
from llmproxy_anthropic.reply import decode_outline, error_in, text_in
from llmproxy_anthropic.usage import at_start, counted, merged, neutral_tier, read_members
from llmproxy_core import Carried, Frame, UpstreamGarbage
from llmproxy_core.chat import (
    ChatEvent,
    CitationAdded,
    DocumentPart,
    End,
    Finished,
    ImagePart,
    OpaqueEvent,
    OpaquePart,
    Ping,
    ReasoningDelta,
    ReasoningPart,
    Start,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.wire import (
    Event,
    EventReader,
    Wire,
    encode,
    failed,
    garbage,
    text_tool,
    with_members,
)


class _Block:
    """A block that is open; *call* is the index of its tool call, *pieces* what was said where the whole is needed."""

    __slots__ = ("call", "kind", "pieces", "raw")

    def __init__(self, kind: str, raw: bytes, call: int = -1) -> None:
        self.kind = kind
        self.raw = raw
        self.call = call
        self.pieces: list[str] = []


class MessageReader(EventReader):
    """A StreamReader for the streams of `POST /messages`. UpstreamGarbage for what is no event of theirs."""

    def __init__(self) -> None:
        super().__init__()
        self._wire = Wire(MESSAGES.form, own=True, fail=garbage)
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._usage: dict[str, Any] = {}

    def read(self, event: Event) -> list[Frame]:
        try:
            payload = decode_payload(event.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamGarbage("An event of the provider's stream cannot be understood") from error
        kind = payload.type or event.event
        source = EventSource(event.data, kind, payload.index)
        events = self._events(kind, payload, event, source)
        return [Frame(event.raw, events, source, ends_text=kind == "content_block_stop" and source.block == "text")]

    def _events(self, kind: str, payload: Payload, event: Event, source: EventSource) -> list[ChatEvent]:
        match kind:
            case "content_block_delta" if payload.delta is not None:
                return self._delta(payload.delta, self._block(payload.index), source)
            case "content_block_start":
                return self._open(payload, source)
            case "content_block_stop":
                return self._close(payload.index, source)
            case "message_start":
                return self._start(bytes(payload.message))
            case "message_delta":
                return self._message_delta(payload)
            case "message_stop":
                self.is_over = True
                return [End()]
            case "ping":
                return [Ping()]
            case "error":
                self.is_over = True
                return [failed(error_in(event.data))]
            case _:
                return [OpaqueEvent(kind, event.data)]

    # -- the message -------------------------------------------------------------------------------------------

    def _start(self, message: bytes) -> list[ChatEvent]:
        try:
            outline = decode_outline(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamGarbage("The first event of the provider's stream cannot be understood") from error
        self._usage = at_start(read_members(bytes(outline.usage)))
        usage = counted(self._usage)
        start = Start(
            text_in(outline.id) or "",
            text_in(outline.model) or "",
            service_tier=neutral_tier(usage),
        )
        return [start] if usage is None else [start, UsageReported(usage)]

    def _message_delta(self, payload: Payload) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        delta = payload.delta
        if delta is not None and delta.stop_reason is not None:
            details = bytes(delta.stop_details)
            called = self._calls > 0
            finish = read_finish(delta.stop_reason, delta.stop_sequence, details, called=called)
            events.append(Finished(0, finish))
        self._usage = merged(self._usage, read_members(bytes(payload.usage)))
        if (usage := counted(self._usage)) is not None:
            events.append(UsageReported(usage))
        return events

    # -- its blocks --------------------------------------------------------------------------------------------

    def _block(self, index: int) -> _Block:
        if (block := self._blocks.get(index)) is None:
            raise UpstreamGarbage("The provider's stream goes on with a block that it never began")
        return block

    def _open(self, payload: Payload, source: EventSource) -> list[ChatEvent]:
        raw = bytes(payload.content_block)
        part = read_block(raw, "content_block", self._wire)
        block = _Block("other", raw)
        self._blocks[payload.index] = block
        events: list[ChatEvent] = []
        match part:
            case TextPart(text=text):
                block.kind = "answer" if b'"tool_use"' in raw and _is_answer(raw) else "text"
                if block.kind == "text":
                    events = [TextDelta(0, text)] if text else []
                    events += [CitationAdded(0, citation) for citation in part.citations]
                    source.member = "text"
            case ReasoningPart(redacted=str()):
                block.kind = "redacted"
                events = [ReasoningDelta(0, "", redacted=part.redacted, provider=NAME)]
            case ReasoningPart():
                block.kind = "thinking"
                if part.text or part.signature or part.encrypted:
                    events = [_reasoning(part)]
            case ToolCall():
                events = self._open_call(part, block)
            case OpaquePart() | DocumentPart() | ImagePart() | Carried() | _:
                pass
        source.block = block.kind
        return events

    def _open_call(self, call: ToolCall, block: _Block) -> list[ChatEvent]:
        block.kind, block.call = ("custom" if call.kind == "custom" else "tool"), self._calls
        self._calls += 1
        events: list[ChatEvent] = [ToolCallStart(0, block.call, call.id, call.name, call.kind)]
        if block.kind == "tool" and call.arguments.strip() not in ("", "{}"):
            block.pieces.append(call.arguments)
            events.append(ToolCallDelta(0, block.call, call.arguments))
        return events

    def _delta(self, delta: Delta, block: _Block, source: EventSource) -> list[ChatEvent]:
        match delta.type, block.kind:
            case "text_delta", _:
                source.member = "text"
                return [TextDelta(0, delta.text)] if delta.text else []
            case "thinking_delta", _:
                source.member = "thinking"
                return [ReasoningDelta(0, delta.thinking, provider=NAME)] if delta.thinking else []
            case "signature_delta", _:
                return [ReasoningDelta(0, "", signature=delta.signature, provider=NAME)] if delta.signature else []
            case "citations_delta", _:
                return [CitationAdded(0, read_citation(bytes(delta.citation), "delta.citation", self._wire))]
            case "input_json_delta", "tool":
                source.member = "partial_json"
                return self._arguments(delta.partial_json or "", block)
            case "input_json_delta", "answer":
                source.member = "partial_json"
                return [TextDelta(0, delta.partial_json)] if delta.partial_json else []
            case "input_json_delta", _:
                block.pieces.append(delta.partial_json or "")
            case "compaction_delta", _ if bytes(delta.content).startswith(b'"'):
                block.pieces.append(msgspec.json.decode(bytes(delta.content), type=str))
            case _:
                pass
        return []

    @staticmethod
    def _arguments(piece: str, block: _Block) -> list[ChatEvent]:
        if not piece:
            return []
        block.pieces.append(piece)
        return [ToolCallDelta(0, block.call, piece)]

    def _close(self, index: int, source: EventSource) -> list[ChatEvent]:
        """What only the whole block says: a call without arguments, a text for a tool, a step of the provider's own."""
        block = self._blocks.pop(index, None)
        if block is None:
            return []
        source.block = block.kind
        said = "".join(block.pieces)
        match block.kind:
            case "tool" if not block.pieces:
                return [ToolCallDelta(0, block.call, "{}")]
            case "custom":
                return [ToolCallDelta(0, block.call, text_tool.read_text(said))]
            case "other":
                whole = _whole(block.raw, said)
                kind = msgspec.json.decode(whole, type=_Typed).type
                return [OpaqueEvent(kind, whole, 0, MESSAGES.form)]
            case _:
                return []


class _Typed(msgspec.Struct):
    type: str
    name: str = ""


def _is_answer(raw: bytes) -> bool:
    typed = msgspec.json.decode(raw, type=_Typed)
    return typed.type == "tool_use" and is_answer(typed.name)


def _whole(raw: bytes, said: str) -> bytes:
    """A block with what its deltas said."""
    if not said:
        return raw
    if msgspec.json.decode(raw, type=_Typed).type == "compaction":
        return with_members(raw, {"content": encode(said)})
    try:
        msgspec.json.decode(said)
    except msgspec.MsgspecError:
        return raw
    return with_members(raw, {"input": said.encode()})


def _reasoning(part: ReasoningPart) -> ReasoningDelta:
    return ReasoningDelta(0, part.text, part.signature, provider=part.provider, encrypted=part.encrypted, id=part.id)
