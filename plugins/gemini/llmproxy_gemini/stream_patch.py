"""A chunk whose events a processor has changed: only their members are written, the rest keeps its bytes."""

from __future__ import annotations

from collections.abc import Container, Sequence

from llmproxy_core.chat import (
    ChatEvent,
    CitationAdded,
    Finished,
    OpaqueEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.wire import Changes, decode_array, decode_object, encode, join_array, with_items, with_members
from llmproxy_gemini.finish import write_finish
from llmproxy_gemini.reply_write import EMPTY_PART, without_echo
from llmproxy_gemini.response_object import write_arguments
from llmproxy_gemini.spelling import spelled
from llmproxy_gemini.stream_source import ChunkSource
from llmproxy_gemini.usage import write_usage

Slot = tuple[ChatEvent, int, ChatEvent | None]
"""An event as read, the position of its part, and what it has become."""


def patch(
    source: ChunkSource,
    before: Sequence[ChatEvent],
    became: Sequence[ChatEvent | None],
    shared: Changes,
    changed: Container[int],
) -> bytes:
    """
    The chunk's JSON, its events *before* having become others.

    *shared* are members of every chunk that a processor changed; of candidates whose text is *changed* somewhere in
    the stream, nothing that repeats it may go out.
    """
    top: Changes = {name: text for name, text in shared.items() if f'"{name}"'.encode() in source.data}
    by_candidate: dict[int, list[Slot]] = {}
    for was, place, now in zip(before, source.places, became, strict=True):
        if place.candidate >= 0:
            by_candidate.setdefault(place.candidate, []).append((was, place.part, now))
        elif isinstance(was, UsageReported) and now != was:
            top["usageMetadata"] = write_usage(now.usage) if isinstance(now, UsageReported) else None
    text = decode_object(source.data).get("candidates")
    if text is not None and bytes(text) != b"null":
        texts = [bytes(raw) for raw in decode_array(bytes(text))]
        patched = [_candidate(each, by_candidate.get(place, []), changed) for place, each in enumerate(texts)]
        if patched != texts:
            top["candidates"] = with_items(bytes(text), patched)
    return with_members(source.data, top) if top else source.data


def _candidate(text: bytes, slots: Sequence[Slot], changed: Container[int]) -> bytes:
    members = {name: bytes(raw) for name, raw in decode_object(text).items()}
    changes: Changes = {}
    index = next((getattr(was, "choice", None) for was, _, _ in slots), None)
    if index is None:
        index = int(members.get("index", b"0"))
    is_uncited = any(isinstance(was, CitationAdded) and now is None for was, _, now in slots)
    if index in changed or is_uncited:
        changes |= without_echo(members)
    if "logprobsResult" in members and any(isinstance(was, TextDelta) and was != now for was, _, now in slots):
        changes["logprobsResult"] = None
    for was, _, now in slots:
        if isinstance(was, Finished) and now != was:
            changes["finishReason"] = encode(write_finish(now.finish)) if isinstance(now, Finished) else None
    if "content" in members and (content := _content(members["content"], slots)) is not None:
        changes["content"] = content
    return with_members(text, changes) if changes else text


def _content(text: bytes, slots: Sequence[Slot]) -> bytes | None:
    """The content with what changed in its parts; None when nothing did."""
    raw = decode_object(text).get("parts")
    if raw is None or not any(part >= 0 and was != now for was, part, now in slots):
        return None
    parts: list[bytes | None] = [bytes(part) for part in decode_array(bytes(raw))]
    for was, place, now in slots:
        part = parts[place] if place >= 0 else None
        if part is not None and was != now:
            parts[place] = _part(part, was, now)
    kept = [part for part in parts if part is not None] or [EMPTY_PART]
    written = with_items(bytes(raw), kept) if len(kept) == len(parts) else join_array(kept)
    return with_members(text, {"parts": written})


def _part(text: bytes, was: ChatEvent, now: ChatEvent | None) -> bytes | None:
    """The part of *was*, saying *now*; None where it is to go."""
    match was:
        case TextDelta() | ReasoningDelta():
            said = now.text if isinstance(now, TextDelta | ReasoningDelta) else ""
            return with_members(text, {"text": encode(said)})
        case ToolCallStart():
            return _call(text, {"name": encode(now.name)}) if isinstance(now, ToolCallStart) else None
        case ToolCallDelta():
            arguments = now.arguments if isinstance(now, ToolCallDelta) else ""
            return _call(text, {"args": write_arguments(arguments)})
        case OpaqueEvent():
            return None
        case _:
            return text


def _call(text: bytes, changes: Changes) -> bytes:
    members = decode_object(text)
    name = spelled("functionCall", members)
    return with_members(text, {name: with_members(bytes(members[name]), changes)})
