"""A content of which something was changed, with the bytes of all that was not."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_core.chat import Message, Part, ReasoningPart, TextPart, ToolCall, ToolResult
from llmproxy_core.wire import Wire, decode_array, decode_object, encode, with_items, with_members
from llmproxy_gemini.part_write import write_part, write_result
from llmproxy_gemini.response_object import write_arguments
from llmproxy_gemini.spelling import spelled


def spliced_content(now: Sequence[Message], was: Sequence[Message], place: str, wire: Wire) -> bytes | None:
    """
    The content that *was* was read from, saying what *now* says.

    None when more than what is said differs, or when it cannot be told what has become of each part.
    """
    raw = was[0].raw
    if raw is None or any(attrs.evolve(new, content=old.content) != old for new, old in zip(now, was, strict=True)):
        return None
    parts = [part for message in now for part in message.content]
    before = [part for message in was for part in message.content]
    old_parts = decode_object(raw.text).get("parts")
    if old_parts is None or len(parts) != len(before):
        return None
    items = []
    for index, (new, old) in enumerate(zip(parts, before, strict=True)):
        item = respelt(new, old, f"{place}.content[{index}]", wire)
        if item is None:
            return None
        items.append(item)
    if [bytes(text) for text in decode_array(bytes(old_parts))] == items:
        return raw.text
    return with_members(raw.text, {"parts": with_items(bytes(old_parts), items)})


def respelt(part: Part, was: Part, place: str, wire: Wire) -> bytes | None:
    """*part* with the bytes of what it *was*, where only what it says differs; None when it says nothing at all."""
    if wire.kept(part.raw) is not None:
        return write_part(part, place, wire)
    text = wire.kept(was.raw)
    if text is None:
        return _anew(part, place, wire)
    match part, was:
        case (TextPart(), TextPart()) | (ReasoningPart(), ReasoningPart()):
            if attrs.evolve(part, text=was.text) == was:  # type: ignore[union-attr,arg-type]
                return with_members(text, {"text": encode(part.text)})  # type: ignore[union-attr]
        case ToolCall(), ToolCall() if attrs.evolve(part, arguments=was.arguments) == was:
            name = spelled("functionCall", decode_object(text))
            call = bytes(decode_object(text)[name])
            return with_members(text, {name: with_members(call, {"args": write_arguments(part.arguments)})})
        case _:
            pass
    return _anew(part, place, wire)


def _anew(part: Part, place: str, wire: Wire) -> bytes | None:
    if isinstance(part, ToolResult):
        shown = [each for each in part.content if not isinstance(each, TextPart)]
        return write_result(part, part.name or "", shown, place, wire)
    return write_part(part, place, wire)
