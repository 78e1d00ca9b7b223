"""Parts of a content, read."""

from __future__ import annotations

from llmproxy_core.chat import (
    JSONText,
    OpaquePart,
    Part,
    Raw,
    TextPart,
    ToolCall,
    ToolResult,
    remember,
)
from llmproxy_core.wire import BOOLEAN, STRING, Wire, decode_object, plain_text, text_tool
from llmproxy_gemini.blob import media, read_file, read_inline
from llmproxy_gemini.call_ids import CallIds
from llmproxy_gemini.response_object import read_response
from llmproxy_gemini.seals import own_signature, read_thought
from llmproxy_gemini.spelling import Spelled

_OPAQUE = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")


def read_part(text: bytes, place: str, wire: Wire, ids: CallIds, *, is_answer: bool = False) -> Part:
    """
    The part written as *text*; of an unknown kind an OpaquePart, which only this protocol understands.

    *is_answer*: media is what the model made, which no other protocol has a place for.
    """
    plain = plain_text(text)
    if plain is not None and plain.type is None:
        return remember(TextPart(plain.text), wire.api, text)
    members = Spelled(text, place, wire.fail)
    kind = next((name for name in _OPAQUE if members.peek(name) is not None), None)
    if kind is None and is_answer:
        kind = next((name for name in ("inlineData", "fileData") if members.peek(name) is not None), None)
    if kind is not None:
        return OpaquePart(kind, Raw(wire.api, text))
    signature = members.take("thoughtSignature", STRING) or None
    part = _read(members, signature, wire, ids)
    if part is None:
        names = [name for name in decode_object(text) if name not in {"thought", "thoughtSignature"}]
        return OpaquePart(names[0] if names else "", Raw(wire.api, text))
    return remember(part, wire.api, text)


def _read(members: Spelled, signature: str | None, wire: Wire, ids: CallIds) -> Part | None:
    if (call := members.object("functionCall")) is not None:
        return _call(call, members, signature, ids)
    if (result := members.object("functionResponse")) is not None:
        return _result(result, members, wire, ids)
    if (blob := members.object("inlineData")) is not None:
        source, rest = read_inline(blob), blob.rest("inlineData.")
        return media(source, own_signature(signature), rest | members.rest())
    if (file := members.object("fileData")) is not None:
        source, rest = read_file(file), file.rest("fileData.")
        return media(source, own_signature(signature), rest | members.rest())
    said = members.take("text", STRING)
    is_thought = members.take("thought", BOOLEAN) or False
    rest = members.rest()
    if said is None and rest:
        return None
    if is_thought:
        return read_thought(said or "", signature, rest)
    return TextPart(said or "", signature=own_signature(signature), extra=rest)


def _call(call: Spelled, members: Spelled, signature: str | None, ids: CallIds) -> ToolCall:
    name = call.take("name", STRING) or ""
    call_id = ids.call(call.take("id", STRING), name)
    arguments = (call.raw("args") or b"{}").decode()
    custom = text_tool.clients_name(name)
    return ToolCall(
        call_id,
        name if custom is None else custom,
        arguments if custom is None else text_tool.read_text(arguments),
        "function" if custom is None else "custom",
        signature=own_signature(signature),
        extra=members.rest() | call.rest("functionCall."),
    )


def _result(result: Spelled, members: Spelled, wire: Wire, ids: CallIds) -> ToolResult:
    name = result.need("name", STRING)
    call_id = ids.result(result.take("id", STRING), name)
    content, is_error = read_response(result.raw("response") or b"{}", result.at("response"), wire)
    place = result.at("parts")
    seen = [_seen(text, f"{place}[{index}]", wire) for index, text in enumerate(result.array("parts"))]
    return ToolResult(
        call_id,
        (*content, *seen),
        name,
        is_error,
        extra=members.rest() | result.rest("functionResponse."),
    )


def _seen(text: bytes, place: str, wire: Wire) -> Part:
    """A picture or document in a result."""
    members = Spelled(text, place, wire.fail)
    extra: dict[str, JSONText] = {}
    if (blob := members.object("inlineData")) is not None:
        part = media(read_inline(blob), None, extra | blob.rest("inlineData.") | members.rest())
    elif (file := members.object("fileData")) is not None:
        part = media(read_file(file), None, extra | file.rest("fileData.") | members.rest())
    else:
        return OpaquePart("functionResponse.part", Raw(wire.api, text))
    return remember(part, wire.api, text)
