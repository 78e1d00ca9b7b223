"""A chunk whose events a processor has changed: only their members are written, the rest keeps its bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from llmproxy_core.chat import (
    AudioDelta,
    ChatEvent,
    CitationAdded,
    Finished,
    OpaqueEvent,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RefusalPart,
    TextDelta,
    TextPart,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.wire.form import Changes
from llmproxy_core.wire.splice import decode_array, decode_object, encode, with_items, with_members
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.chunk import ChunkSource, Place
from llmproxy_openai.citation import write_citation
from llmproxy_openai.finish import write_finish
from llmproxy_openai.pairing import Pairing, Slot
from llmproxy_openai.parts import write_part
from llmproxy_openai.thinking import REASONING_MEMBERS
from llmproxy_openai.usage import write_usage


def patch(source: ChunkSource, pairing: Pairing, api: str, shared: Changes) -> bytes:
    """The chunk's JSON with the changes of *pairing*; *shared* are members of every chunk that a processor changed."""
    if not shared and (quick := _with_one_text(source.data, pairing)) is not None:
        return quick
    wire = Wire(api, own=True)
    top: Changes = dict(shared)
    by_choice: dict[int, list[Slot]] = {}
    for slot in pairing.slots:
        was, place, now = slot
        if now == was:
            continue
        if place.choice >= 0:
            by_choice.setdefault(place.choice, []).append(slot)
        elif isinstance(was, UsageReported):
            top[place.member] = write_usage(now.usage) if isinstance(now, UsageReported) else b"null"
    if by_choice:
        text = bytes(decode_object(source.data)["choices"])
        choices = [bytes(raw) for raw in decode_array(text)]
        for position, slots in by_choice.items():
            choices[position] = _patch_choice(choices[position], slots, wire)
        top["choices"] = with_items(text, choices)
    return with_members(source.data, top)


# A member whose value is a string. Quotes in strings are escaped, so a match is a member.
_TEXTS = {
    member: (f'"{member}"'.encode(), re.compile(rb'"%b"\s*+:\s*+("(?:[^"\\]++|\\.)*+")' % member.encode()))
    for member in ("content", "text", *REASONING_MEMBERS)
}


# Of whatever is said: a text, a refusal, thinking; they spell it once more.
_LOGPROBS = re.compile(rb'"logprobs"\s*+:\s*+[^n\s]').search


def _with_one_text(data: bytes, pairing: Pairing) -> bytes | None:
    """
    The chunk with its only change made by a search; None when it needs a closer look.

    This is what redaction does to nearly every chunk: one text is another one. The member must stand in the chunk
    once, hold the text that was read, and have nothing beside it that repeats that text.
    """
    changed = [slot for slot in pairing.slots if slot[0] is not slot[2] and slot[0] != slot[2]]
    if len(changed) != 1:
        return None
    was, place, now = changed[0]
    if not isinstance(was, TextDelta | ReasoningDelta) or place.member not in _TEXTS:
        return None
    if _LOGPROBS(data) is not None or b'"reasoning_details"' in data:
        return None
    names = REASONING_MEMBERS if isinstance(was, ReasoningDelta) else (place.member,)
    if sum(data.count(_TEXTS[name][0]) for name in names) != 1:
        return None
    found = _TEXTS[place.member][1].search(data)
    if found is None or msgspec.json.decode(found[1]) != was.text:
        return None
    text = now.text if isinstance(now, TextDelta | ReasoningDelta) else ""
    return data[: found.start(1)] + encode(text) + data[found.end(1) :]


def _patch_choice(text: bytes, slots: Sequence[Slot], wire: Wire) -> bytes:
    raws = {name: bytes(raw) for name, raw in decode_object(text).items()}
    changes: Changes = {}
    delta = _Delta(raws.get("delta", b"{}"), wire)
    for was, place, now in slots:
        if isinstance(was, Finished):
            changes["finish_reason"] = encode(write_finish(now.finish)) if isinstance(now, Finished) else b"null"
        elif place.member == "text":
            changes["text"] = encode(now.text if isinstance(now, TextDelta) else "")
        else:
            delta.change(was, place, now)
        if not isinstance(was, Finished) and raws.get("logprobs", b"null") != b"null":
            changes["logprobs"] = _logprobs(was, now)
    if "delta" in raws:
        changes["delta"] = delta.text()
    return with_members(text, changes)


def _logprobs(was: ChatEvent, now: ChatEvent | None) -> bytes:
    """Probabilities spell what is said: they go when it was changed, unless new ones came with it."""
    if (
        isinstance(was, TextDelta)
        and isinstance(now, TextDelta)
        and now.logprobs is not None
        and (now.text == was.text or now.logprobs != was.logprobs)
    ):
        return now.logprobs
    return b"null"


class _Delta:
    """A delta being changed."""

    def __init__(self, text: bytes, wire: Wire) -> None:
        self._text = text
        self._raws = {name: bytes(raw) for name, raw in decode_object(text).items()}
        self._wire = wire
        self._changes: Changes = {}
        self._items: dict[str, list[bytes | None]] = {}

    def text(self) -> bytes:
        """The delta with all changes."""
        for name, items in self._items.items():
            kept = [item for item in items if item is not None]
            self._changes[name] = with_items(self._raws[name], kept) if kept else None
        return with_members(self._text, self._changes)

    def change(self, was: ChatEvent, place: Place, now: ChatEvent | None) -> None:
        """*was* has become *now*, or (None) nothing."""
        match was:
            case ToolCallStart() | ToolCallDelta() if place.member == "tool_calls":
                items = self._list(place.member)
                items[place.item] = _patch_call(items[place.item], was, now)
            case ToolCallStart() | ToolCallDelta():
                self._changes[place.member] = _patch_function(self._now(place.member), was, now)
            case CitationAdded():
                new = write_citation(now.citation, self._wire) if isinstance(now, CitationAdded) else None
                self._list(place.member)[place.item] = new
            case AudioDelta():
                self._changes[place.member] = _patch_audio(self._now(place.member), now)
            case TextDelta() | ReasoningDelta() | RefusalDelta() if self._is_list(place.member):
                self._list(place.member)[place.item] = self._part(now)
            case ReasoningDelta():
                self._change_reasoning(now.text if isinstance(now, ReasoningDelta) else "")
            case TextDelta() | RefusalDelta():
                said = now.text if isinstance(now, TextDelta | RefusalDelta) else ""
                self._changes[place.member] = encode(said)
            case OpaqueEvent():
                self._list(place.member)[place.item] = None
            case _:
                pass

    def _change_reasoning(self, text: str) -> None:
        """In each member that repeats it: what was changed must not go out by another name."""
        for name in REASONING_MEMBERS:
            if self._raws.get(name, b"null") != b"null":
                self._changes[name] = encode(text)
        self._changes["reasoning_details"] = None

    def _part(self, now: ChatEvent | None) -> bytes | None:
        """*now* as an element of a content list."""
        match now:
            case TextDelta(text=text) if text:
                return write_part(TextPart(text), "delta.content", self._wire)
            case ReasoningDelta(text=text) if text:
                return write_part(ReasoningPart(text, member="thinking"), "delta.content", self._wire)
            case RefusalDelta(text=text) if text:
                return write_part(RefusalPart(text), "delta.content", self._wire)
            case _:
                return None

    def _is_list(self, name: str) -> bool:
        return self._raws.get(name, b"").startswith(b"[")

    def _list(self, name: str) -> list[bytes | None]:
        if name not in self._items:
            self._items[name] = [bytes(raw) for raw in decode_array(self._raws[name])]
        return self._items[name]

    def _now(self, name: str) -> bytes:
        return self._changes.get(name) or self._raws[name]


def _patch_call(piece: bytes | None, was: ChatEvent, now: ChatEvent | None) -> bytes | None:
    """A piece of `tool_calls`; without its start it is none."""
    if piece is None or (isinstance(was, ToolCallStart) and now is None):
        return None
    raws = decode_object(piece)
    name = "custom" if "custom" in raws else "function"
    body = bytes(raws[name]) if name in raws else b"{}"
    changes: Changes = {name: _patch_function(body, was, now)}
    if isinstance(was, ToolCallStart) and isinstance(now, ToolCallStart) and now.id != was.id:
        changes["id"] = encode(now.id)
    return with_members(piece, changes)


def _patch_function(body: bytes, was: ChatEvent, now: ChatEvent | None) -> bytes:
    """The function (or custom tool) of a piece."""
    if isinstance(was, ToolCallStart):
        name = now.name if isinstance(now, ToolCallStart) else ""
        return with_members(body, {"name": encode(name)})
    arguments = now.arguments if isinstance(now, ToolCallDelta) else ""
    return with_members(body, {"input" if b'"input"' in body else "arguments": encode(arguments)})


def _patch_audio(audio: bytes, now: ChatEvent | None) -> bytes:
    members: Mapping[str, str | None] = {"data": None, "transcript": None}
    if isinstance(now, AudioDelta):
        members = {"data": now.data, "transcript": now.transcript}
    return with_members(audio, {name: None if text is None else encode(text) for name, text in members.items()})
