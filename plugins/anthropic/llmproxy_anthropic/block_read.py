"""Content blocks, read as the parts of a conversation."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from llmproxy_anthropic.cache_mark import take_mark
from llmproxy_anthropic.citation import read_citations
from llmproxy_anthropic.own_tool import answer_text, is_answer
from llmproxy_anthropic.source import joined_texts, read_source
from llmproxy_anthropic.thinking_block import read_redacted, read_thinking
from llmproxy_core import Carried
from llmproxy_core.chat import (
    DocumentPart,
    ImagePart,
    OpaquePart,
    Part,
    Raw,
    Source,
    TextPart,
    ToolCall,
    ToolResult,
    remember,
)
from llmproxy_core.wire import BOOLEAN, STRING, Members, Wire, array, decode, plain_text, text_tool


def read_content(members: Members, wire: Wire) -> tuple[Part, ...]:
    """`content`: a string or a list of blocks; "" and an absent one give no part."""
    raw = members.raw("content")
    if raw is None:
        return ()
    return read_blocks(raw, members.at("content"), wire)


def read_blocks(raw: bytes, place: str, wire: Wire) -> tuple[Part, ...]:
    """A string or a list of blocks."""
    if not raw.startswith(b"["):
        text = decode(STRING, raw, place, wire.fail)
        return (TextPart(text),) if text else ()
    parts: list[Part] = []
    carried: Carried | None = None
    for index, item in enumerate(array(raw, place, wire.fail)):
        found = read_block(item, f"{place}[{index}]", wire, None if carried is None else carried.signature)
        if isinstance(found, Carried):
            carried = found
            continue
        parts.append(found if carried is None or not isinstance(found, ToolCall) else _signed(found, carried, wire))
        carried = None
    return tuple(parts)


def _signed(call: ToolCall, carried: Carried, wire: Wire) -> ToolCall:
    """*call*, less the signature that *carried* brought it, where that is another call's, which is gone."""
    if call.raw is None or carried.id in {None, call.id}:
        return call
    return remember(attrs.evolve(call, signature=None), wire.api, call.raw.text)


def read_block(text: bytes, place: str, wire: Wire, signature: str | None = None) -> Part | Carried:
    """
    The block written as *text*; of an unknown type an OpaquePart, which only this protocol understands.

    *signature* is the one that a block before it carried for it; Carried: this block carries the next one's.
    """
    plain = plain_text(text)
    if plain is not None and plain.type == "text":
        return remember(TextPart(plain.text), wire.api, text)
    members = Members(text, place, wire.fail)
    kind = members.need("type", STRING)
    read = _READERS.get(kind)
    part = None if read is None else read(members, wire, signature)
    if part is None:
        return OpaquePart(kind, Raw(wire.api, text))
    return part if isinstance(part, Carried) else remember(part, wire.api, text)


def _text(members: Members, wire: Wire, _: str | None) -> Part:
    text, cache = members.need("text", STRING), take_mark(members)
    return TextPart(text, read_citations(members, wire), cache, extra=members.rest())


def _tool_reference(members: Members, _: Wire, __: str | None) -> Part:
    """What a search for tools found: to everyone else, the name of a tool that is there anyway."""
    return TextPart(members.need("tool_name", STRING), cache=take_mark(members), extra=members.rest())


def _image(members: Members, wire: Wire, _: str | None) -> Part | None:
    source = _source(members, wire)
    return None if source is None else ImagePart(source, cache=take_mark(members), extra=members.rest())


def _source(members: Members, wire: Wire) -> Source | None:
    inner = members.need_object("source")
    source = read_source(inner, wire)
    members.keep(inner)
    return source


def _document(members: Members, wire: Wire, _: str | None) -> Part | None:
    source = _source(members, wire)
    if source is None:
        return None
    return DocumentPart(
        source,
        title=members.take("title", STRING),
        context=members.take("context", STRING),
        citations=_wants_citations(members),
        cache=take_mark(members),
        extra=members.rest(),
    )


def _search_result(members: Members, wire: Wire, _: str | None) -> Part | None:
    """A document to everyone else: its texts, with where they were found as the context."""
    text = joined_texts(members.raw("content") or b"[]", members, wire)
    if text is None:
        return None
    return DocumentPart(
        Source(text=text),
        title=members.take("title", STRING),
        context=members.take("source", STRING),
        citations=_wants_citations(members),
        cache=take_mark(members),
        extra=members.rest(),
    )


def _wants_citations(members: Members) -> bool | None:
    wanted = members.object("citations")
    if wanted is None:
        return None
    enabled = wanted.take("enabled", BOOLEAN)
    members.keep(wanted)
    return enabled


def _thinking(members: Members, _: Wire, __: str | None) -> Part:
    return read_thinking(members)


def _redacted(members: Members, _: Wire, __: str | None) -> Part | Carried:
    return read_redacted(members)


def _call(members: Members, _: Wire, signature: str | None) -> Part:
    name, cache = members.need("name", STRING), take_mark(members)
    call_id, arguments = members.need("id", STRING), members.raw("input") or b"{}"
    if is_answer(name):
        return TextPart(answer_text(arguments))
    members.raw("caller")
    if (custom := text_tool.clients_name(name)) is not None:
        return ToolCall(call_id, custom, text_tool.read_text(arguments.decode()), "custom", extra=members.rest())
    return ToolCall(call_id, name, arguments.decode(), signature=signature, cache=cache, extra=members.rest())


def _result(members: Members, wire: Wire, _: str | None) -> Part:
    return ToolResult(
        members.need("tool_use_id", STRING),
        read_content(members, wire),
        is_error=members.take("is_error", BOOLEAN) or False,
        cache=take_mark(members),
        extra=members.rest(),
    )


_READERS: dict[str, Callable[[Members, Wire, str | None], Part | Carried | None]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
    "tool_reference": _tool_reference,
    "tool_use": _call,
    "tool_result": _result,
}
