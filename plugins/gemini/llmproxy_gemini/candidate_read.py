"""What is new in a candidate of a stream, read as events."""

from __future__ import annotations

from typing import Any

import msgspec

from llmproxy_core.chat import (
    ChatEvent,
    CitationAdded,
    Finished,
    OpaqueEvent,
    OpaquePart,
    ReasoningDelta,
    ReasoningPart,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
)
from llmproxy_core.wire import Wire, text_tool, usual
from llmproxy_gemini.call_ids import CallIds, new_id
from llmproxy_gemini.chunk import NULLS, Candidate
from llmproxy_gemini.citations import read_citations
from llmproxy_gemini.finish import read_finish
from llmproxy_gemini.logprobs import read_logprobs
from llmproxy_gemini.part_read import read_part
from llmproxy_gemini.partial_args import PartialArgs
from llmproxy_gemini.stream_source import NOWHERE, Place
from llmproxy_gemini.utf8_places import Utf8Places

_decode_part = usual(dict[str, Any])


class _PlainText(msgspec.Struct, forbid_unknown_fields=True):
    """A part as nearly all of a stream are."""

    text: str


_TEXT_FIRST = (b'{"text"', b'{ "text"', b"{\n")
_decode_plain = msgspec.json.Decoder(_PlainText).decode


class Found:
    """The events of one chunk and their places."""

    __slots__ = ("events", "places")

    def __init__(self) -> None:
        self.events: list[ChatEvent] = []
        self.places: list[Place] = []

    def add(self, event: ChatEvent, place: Place) -> None:
        self.events.append(event)
        self.places.append(place)


class CandidateReader:
    """Reads one candidate of a stream; knows what it has said and called so far."""

    __slots__ = ("_calls", "_ids", "_index", "_open", "_places", "_takes_text", "_text", "_wire", "is_finished")

    def __init__(self, index: int, response_id: str | None, wire: Wire) -> None:
        self._index = index
        self._wire = wire
        self._ids = CallIds(response_id or new_id(), index)
        self._text: list[str] = []  # what was said since the last citations
        self._places = Utf8Places()
        self._calls = 0
        self._open: PartialArgs | None = None
        self._takes_text = False
        self.is_finished = False

    @property
    def is_open(self) -> bool:
        """Whether a call has begun whose arguments still come."""
        return self._open is not None

    def read(self, candidate: Candidate, position: int, found: Found) -> None:
        """The events of *candidate*, the one at *position* of its chunk."""
        raw = bytes(candidate.logprobs_result)
        logprobs = None if raw in NULLS else read_logprobs(raw)
        parts = (candidate.content.parts if candidate.content is not None else None) or ()
        for place, text in enumerate(parts):
            logprobs = self._part(bytes(text), Place(position, place), logprobs, found)
        if logprobs is not None:
            found.add(TextDelta(self._index, "", logprobs), NOWHERE)
        self._cite(candidate, position, found)
        if candidate.finish_reason and not self.is_finished:  # older models say it in every chunk
            self.close(Place(position), found)
            self.is_finished = True
            finish = read_finish(candidate.finish_reason, candidate.finish_message, called=self._calls > 0)
            found.add(Finished(self._index, finish), Place(position))

    def close(self, place: Place, found: Found) -> None:
        """The call that is open has no more arguments."""
        if self._open is not None:
            said = self._open.text()
            found.add(
                ToolCallDelta(self._index, self._calls - 1, text_tool.read_text(said) if self._takes_text else said),
                place,
            )
            self._open = None

    def _part(self, text: bytes, place: Place, logprobs: bytes | None, found: Found) -> bytes | None:
        """The events of one part; gives *logprobs* back where no text took it."""
        if self._open is None and text.startswith(_TEXT_FIRST) and b'"thought' not in text:
            try:
                said = _decode_plain(text).text
            except (msgspec.MsgspecError, UnicodeDecodeError):
                pass  # it has more in it
            else:
                if said:
                    self._text.append(said)
                    found.add(TextDelta(self._index, said, logprobs), place)
                    return None
                return logprobs
        if self._is_piece_of_call(text, place, found):
            return logprobs
        self.close(place, found)
        match read_part(text, "content.parts", self._wire, self._ids, is_answer=True):
            case TextPart() as part:
                if part.text or part.signature is not None:
                    self._text.append(part.text)
                    found.add(TextDelta(self._index, part.text, logprobs, part.signature), place)
                    return None
            case ReasoningPart() as part:
                found.add(_thought(self._index, part), place)
            case ToolCall() as call:
                self._start(call, place, found)
                found.add(ToolCallDelta(self._index, self._calls - 1, call.arguments), place)
            case OpaquePart(kind=kind):
                found.add(OpaqueEvent(kind, text, self._index, self._wire.api), place)
            case part:
                found.add(OpaqueEvent(type(part).__name__, text, self._index, self._wire.api), place)
        return logprobs

    def _start(self, call: ToolCall, place: Place, found: Found) -> None:
        start = ToolCallStart(self._index, self._calls, call.id, call.name, call.kind, call.signature)
        self._calls += 1
        found.add(start, place)

    def _is_piece_of_call(self, text: bytes, place: Place, found: Found) -> bool:
        """Whether *text* begins a call whose arguments come later, or goes on with the one that is open."""
        if self._open is None and b'"willContinue"' not in text and b'"partialArgs"' not in text:
            return False
        call = (_decode_part(text) or {}).get("functionCall")
        if not isinstance(call, dict):
            return False
        if call.get("name"):
            if not (call.get("willContinue") or call.get("partialArgs")):
                return False
            self.close(place, found)
            part = read_part(text, "content.parts", self._wire, self._ids)
            assert isinstance(part, ToolCall)
            self._start(part, place, found)
            self._open, self._takes_text = PartialArgs(), part.kind == "custom"
        if self._open is None:
            return False
        if isinstance(arguments := call.get("args"), dict):
            self._open.merge(arguments)
        pieces = call.get("partialArgs")
        for piece in pieces if isinstance(pieces, list) else []:
            if isinstance(piece, dict):
                self._open.add(piece)
        if not call.get("willContinue"):
            self.close(place, found)
        return True

    def _cite(self, candidate: Candidate, position: int, found: Found) -> None:
        grounding, citation = bytes(candidate.grounding_metadata), bytes(candidate.citation_metadata)
        if grounding in NULLS and citation in NULLS:
            return
        for said in self._text:
            self._places.add(said)
        self._text.clear()
        for each in read_citations(grounding, citation, self._places):
            found.add(CitationAdded(self._index, each), Place(position))


def _thought(index: int, part: ReasoningPart) -> ReasoningDelta:
    return ReasoningDelta(
        index,
        part.text,
        part.signature,
        part.redacted,
        part.encrypted,
        part.provider,
        summary=part.summary,
        id=part.id,
    )
