"""The delta of a chunk's choice, read as events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    CitationAdded,
    OpaqueEvent,
    OpaquePart,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RefusalPart,
    Start,
    TextDelta,
    TextPart,
    ToolCallDelta,
    ToolCallStart,
)
from llmproxy_core.wire import text_tool
from llmproxy_core.wire.made_id import made_id
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.call_index import CallIndex
from llmproxy_openai.calls import argument_text, signature_in
from llmproxy_openai.chunk import CallPiece, Delta, FunctionPiece, Place
from llmproxy_openai.citation import read_citation
from llmproxy_openai.parts import read_part

_LEGACY_INDEX = -1
"""Stands for the index of `function_call`, which has none and is one call."""


class Found:
    """The events of one chunk and their places."""

    __slots__ = ("events", "places")

    def __init__(self) -> None:
        self.events: list[ChatEvent] = []
        self.places: list[Place] = []

    def add(self, event: ChatEvent, place: Place) -> None:
        self.events.append(event)
        self.places.append(place)


class DeltaReader:
    """Reads deltas; knows the stream's calls so far."""

    __slots__ = ("_dialect", "_wire", "calls", "start")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._dialect = wire.api.partition(".")[0]
        self.calls = CallIndex()
        self.start = Start("", "")
        """The stream's, set before the first delta is read."""

    def read(self, delta: Delta, choice: int, position: int, logprobs: bytes | None, to: Found) -> None:
        """The events of *delta*, in the order thinking, content, refusal, speech, citations, calls."""
        if delta.reasoning_content:  # servers that send both members send the same in them
            thought = ReasoningDelta(
                choice, delta.reasoning_content, provider=self._dialect, member="reasoning_content"
            )
            to.add(thought, Place(position, "reasoning_content"))
        elif delta.reasoning:
            to.add(ReasoningDelta(choice, delta.reasoning, member="reasoning"), Place(position, "reasoning"))
        if isinstance(delta.content, list):
            self._parts(delta.content, choice, position, to)
        elif delta.content or (logprobs is not None and delta.content is not None):
            to.add(TextDelta(choice, delta.content, logprobs), Place(position, "content"))
        if delta.refusal:
            to.add(RefusalDelta(choice, delta.refusal), Place(position, "refusal"))
        if delta.audio is not None:
            audio = AudioDelta(choice, delta.audio.data, delta.audio.transcript, delta.audio.id)
            to.add(audio, Place(position, "audio"))
        for item, raw in enumerate(delta.annotations or ()):
            citation = read_citation(bytes(raw), "delta.annotations", self._wire)
            to.add(CitationAdded(choice, citation), Place(position, "annotations", item))
        for item, piece in enumerate(delta.tool_calls or ()):
            self._call(piece, choice, Place(position, "tool_calls", item), to)
        if delta.function_call is not None:
            self._legacy_call(delta.function_call, choice, Place(position, "function_call"), to)

    def _parts(self, texts: Sequence[bytes | msgspec.Raw], choice: int, position: int, to: Found) -> None:
        """Content as a list: thinking and text of Mistral; what is neither stays opaque."""
        for item, raw in enumerate(texts):
            text = bytes(raw)
            event: ChatEvent
            match read_part(text, "delta.content", self._wire):
                case TextPart(text=said):
                    event = TextDelta(choice, said)
                case ReasoningPart(text=thought) as part:
                    event = ReasoningDelta(
                        choice, thought, part.signature, part.redacted, part.encrypted, part.provider, "thinking"
                    )
                case RefusalPart(text=refusal):
                    event = RefusalDelta(choice, refusal)
                case OpaquePart(kind=kind):
                    event = OpaqueEvent(kind, text, choice, self._wire.api)
                case part:
                    event = OpaqueEvent(type(part).__name__, text, choice, self._wire.api)
            to.add(event, Place(position, "content", item))

    def _call(self, piece: CallPiece, choice: int, place: Place, to: Found) -> None:
        body = piece.custom or piece.function or FunctionPiece()
        call = self.calls.find(choice, piece.index, piece.id or "", body.name or "")
        call.id = call.id or piece.id or ""
        call.name = call.name or body.name or ""
        arguments = self._arguments(body)
        if not call.is_started and (call.name or arguments):
            call.is_started = True
            call.id = call.id or made_id(self.start.id, self.start.created, choice, call.index, call.name)
            is_custom = piece.custom is not None or piece.type == "custom"
            signature = signature_in(bytes(piece.extra_content))
            name = None if is_custom else text_tool.clients_name(call.name)
            call.text = None if name is None else text_tool.TextPieces()
            kind: Literal["function", "custom"] = "custom" if is_custom or name is not None else "function"
            to.add(ToolCallStart(choice, call.index, call.id, name or call.name, kind, signature), place)
        if arguments and call.text is not None:
            arguments = call.text.feed(arguments)
        if arguments:
            to.add(ToolCallDelta(choice, call.index, arguments), place)

    def _legacy_call(self, piece: FunctionPiece, choice: int, place: Place, to: Found) -> None:
        call = self.calls.find(choice, _LEGACY_INDEX, "", "")
        if not call.is_started:
            call.is_started = True
            to.add(ToolCallStart(choice, call.index, "", piece.name or "", "legacy"), place)
        if arguments := self._arguments(piece):
            to.add(ToolCallDelta(choice, call.index, arguments), place)

    def _arguments(self, body: FunctionPiece) -> str:
        if body.input is not None:
            return body.input
        raw = bytes(body.arguments)
        return argument_text(None if raw in {b"", b"null"} else raw, "delta.tool_calls", self._wire)
