"""The parts of a conversation, written as content blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import attrs
import msgspec

from llmproxy_anthropic.cache_mark import CACHE, write_mark
from llmproxy_anthropic.source import write_document_source, write_image_source
from llmproxy_anthropic.thinking_block import is_ours, write_ours
from llmproxy_core import unsupported
from llmproxy_core.chat import (
    DocumentPart,
    ImagePart,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from llmproxy_core.wire import Wire, decode_object, encode, join_array, join_object, text_tool, with_members

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}").fullmatch
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_NAME = 128
NESTED = ("source", "content", "citations", CACHE)
"""Objects of which parts keep the unknown members."""


def write_block(part: Part, place: str, wire: Wire) -> bytes | None:
    """
    *part* of a request as JSON text, byte-equal when it is untouched; None for what goes to its own provider alone.

    Unsupported for what has no form here.
    """
    if isinstance(part, ReasoningPart) and not is_ours(part):
        return None
    if (kept := wire.kept(part.raw)) is not None:
        return kept
    members: dict[str, bytes]
    match part:
        case TextPart():
            members = _text(part, wire)
        case RefusalPart():
            members = {"type": b'"text"', "text": encode(part.text)}
        case ImagePart():
            if part.detail is not None:
                _advise(f"{place}.detail", wire)
            members = {"type": b'"image"', "source": write_image_source(part, place, wire)} | write_mark(part.cache)
        case DocumentPart():
            members = _document(part, place, wire)
        case ReasoningPart():
            return write_ours(part, wire, place)
        case ToolCall():
            members = write_call(part, part.id, place, wire)
        case ToolResult():
            members = write_result(part, part.call_id, place, wire)
        case OpaquePart():
            raise unsupported(place, f"a part of type {part.kind!r} of another protocol")
        case _:
            raise unsupported(place, f"a {type(part).__name__}")
    return join_object(members | wire.unknown(part.extra, place, *NESTED))


def is_plain_text(part: TextPart, wire: Wire) -> bool:
    """Whether *part* is its text and nothing else."""
    return part.cache is None and not part.citations and not part.extra and wire.kept(part.raw) is None


def write_plain(part: TextPart) -> bytes:
    """*part*, which is plain: what `write_block` gives, without asking for all that others have."""
    return b'{"type":"text","text":%b}' % encode(part.text)


def _advise(place: str, wire: Wire) -> None:
    if wire.translation is not None:
        wire.translation.advise(place)


def _text(part: TextPart, wire: Wire) -> dict[str, bytes]:
    """Citations of others are their provider's: only our own can be sent back to ours."""
    members = {"type": b'"text"', "text": encode(part.text)} | write_mark(part.cache)
    citations = [text for each in part.citations if (text := wire.kept(each.raw)) is not None]
    return members | ({"citations": join_array(citations)} if citations else {})


def _document(part: DocumentPart, place: str, wire: Wire) -> dict[str, bytes]:
    members = {"type": b'"document"', "source": write_document_source(part, place, wire)}
    if part.title is not None:
        members["title"] = encode(part.title)
    if part.context is not None:
        members["context"] = encode(part.context)
    if part.citations is not None:
        members["citations"] = join_object({"enabled": encode(part.citations)})
    return members | write_mark(part.cache)


def write_call(call: ToolCall, call_id: str, place: str, wire: Wire) -> dict[str, bytes]:
    """A `tool_use` block of the past, whose tool may have had a name that is not taken here."""
    is_custom = call.kind == "custom"
    arguments = text_tool.write_text(call.arguments) if is_custom else argument_object(call.arguments)
    members = {
        "type": b'"tool_use"',
        "id": encode(call_id),
        "name": encode(past_name(call.name, f"{place}.name", wire, is_custom=is_custom)),
        "input": arguments,
    }
    return members | write_mark(call.cache)


def sent_name(name: str, place: str, *, is_custom: bool = False) -> str:
    """The name of a tool as it is sent. Unsupported for one with characters that are not taken."""
    own = text_tool.sent_name(name) if is_custom else name
    if _NAME(own) is None:
        raise unsupported(place, f"the tool name {name[:64]!r}")
    return own


def past_name(name: str, place: str, wire: Wire, *, is_custom: bool = False) -> str:
    """The name of a tool that was called, with other characters where its own are not taken."""
    own = text_tool.sent_name(name) if is_custom else name
    if _NAME(own):
        return own
    wire.convert(place, "cleaned")
    return _NOT_IN_NAMES.sub("_", own)[:_LONGEST_NAME] or "_"


def argument_object(arguments: str) -> bytes:
    """The arguments as an object; a model's broken JSON, or JSON that is no object, is put into one."""
    if not arguments.strip():
        return b"{}"
    text = arguments.encode()
    try:
        decode_object(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return join_object({"arguments": encode(arguments)})
    return text


def write_result(result: ToolResult, call_id: str, place: str, wire: Wire) -> dict[str, bytes]:
    """A `tool_result` block."""
    members = {"type": b'"tool_result"', "tool_use_id": encode(call_id)}
    content = _result_content(result.content, f"{place}.content", wire)
    if content is not None:
        members["content"] = content
    if result.is_error:
        members["is_error"] = b"true"
    return members | write_mark(result.cache)


def _result_content(parts: Sequence[Part], place: str, wire: Wire) -> bytes | None:
    """A string where a string can say it, else blocks without the empty ones, which are not taken."""
    match parts:
        case ():
            return None
        case (TextPart(cache=None, citations=(), raw=None, extra=extra) as only,) if not extra:
            return encode(only.text)
        case _:
            pass
    return join_array(written(parts, place, wire))


def written(parts: Iterable[Part], place: str, wire: Wire) -> list[bytes]:
    """The blocks of *parts*; what is refused and left out, or says nothing, has none."""
    blocks = []
    for index, part in enumerate(parts):
        if isinstance(part, TextPart | RefusalPart) and wire.kept(part.raw) is None and not part.text.strip():
            continue
        block = wire.attempt(lambda part=part, index=index: write_block(part, f"{place}[{index}]", wire))  # type: ignore[misc]
        if block is not None:
            blocks.append(block)
    return blocks


# -- blocks that were read here, and changed -------------------------------------------------------------------


Write = Callable[[Part, str, Wire], bytes | None]


def rewritten(
    parts: Sequence[Part], was: Sequence[Part], place: str, wire: Wire, write: Write = write_block
) -> list[bytes]:
    """*parts* of a list that was read as *was*: a block of which only the text changed keeps its other bytes."""
    blocks = []
    for index, part in enumerate(parts):
        old = was[index] if index < len(was) else None
        block = None if old is None else _with_text(part, old, wire)
        block = write(part, f"{place}[{index}]", wire) if block is None else block
        if block is not None:
            blocks.append(block)
    return blocks


def _with_text(part: Part, old: Part, wire: Wire) -> bytes | None:
    """The bytes of *old* with the text of *part*; None when more differs, or *part* has bytes of its own."""
    text = wire.kept(old.raw)
    if text is None or wire.kept(part.raw) is not None:
        return None
    match part, old:
        case TextPart(), TextPart() if _same(part, old, "text") and bytes(decode_object(text)["type"]) == b'"text"':
            return with_members(text, {"text": encode(part.text)})
        case ReasoningPart(), ReasoningPart() if _same(part, old, "text"):
            return with_members(text, {"thinking": encode(part.text)})
        case ToolCall(kind="function"), ToolCall() if _same(part, old, "arguments"):
            return with_members(text, {"input": argument_object(part.arguments)})
        case _:
            return None


def _same(part: Part, old: Part, field: str) -> bool:
    return bool(attrs.evolve(part, **{field: getattr(old, field)}) == old)
