"""Parts of a content, written."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_core import unsupported
from llmproxy_core.chat import (
    AudioPart,
    DocumentPart,
    ImagePart,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResult,
    VideoPart,
)
from llmproxy_core.wire import Wire, encode, join_array, join_object, nested, text_tool
from llmproxy_gemini.apis import NAME
from llmproxy_gemini.blob import write_media
from llmproxy_gemini.call_ids import is_made
from llmproxy_gemini.response_object import write_arguments, write_response
from llmproxy_gemini.seals import signature_for_client

_NESTED = ("functionCall", "functionResponse", "inlineData", "fileData")


def write_part(part: Part, place: str, wire: Wire) -> bytes | None:
    """*part* as JSON text, byte-equal when it is untouched; None where it says nothing here."""
    if (kept := wire.kept(part.raw)) is not None:
        return kept
    match part:
        case TextPart():
            members = _text(part, place, wire)
        case RefusalPart(text=text):
            members = {"text": encode(text)} if text else {}
        case ImagePart() | AudioPart() | VideoPart() | DocumentPart():
            return _media(part, place, wire)
        case ToolCall():
            members = _call(part)
        case ReasoningPart():
            members = _thought(part)
        case OpaquePart():
            raise unsupported(place, f"a part of type {part.kind!r} of another protocol")
        case _:
            raise unsupported(place, f"a {type(part).__name__} here")
    if not members:
        return None
    return join_object(members | wire.unknown(part.extra, place, *_NESTED))


def _text(part: TextPart, place: str, wire: Wire) -> dict[str, bytes]:
    """An empty text is nothing, and refused, unless it carries a signature."""
    if not part.text and part.signature is None and not wire.own:
        return {}
    return {"text": encode(part.text)} | _signature(part.signature)


def _signature(signature: str | None) -> dict[str, bytes]:
    return {} if signature is None else {"thoughtSignature": encode(signature)}


def _thought(part: ReasoningPart) -> dict[str, bytes]:
    """Thinking as a client gets it, and as our provider takes it back."""
    signature = signature_for_client(
        signature=part.signature,
        redacted=part.redacted,
        encrypted=part.encrypted,
        provider=part.provider,
        id=part.id,
    )
    if not part.text and signature is None:
        return {}
    return {"text": encode(part.text), "thought": b"true"} | _signature(signature)


def is_ours(part: ReasoningPart, wire: Wire) -> bool:
    """Whether *part* may go to our provider: another's may not, and of other clients' only what must go back."""
    if wire.own:
        return part.provider in {None, NAME}
    return part.provider == NAME and part.signature is not None


def _call(part: ToolCall) -> dict[str, bytes]:
    if part.kind == "custom":
        call = {"name": encode(text_tool.sent_name(part.name)), "args": text_tool.write_text(part.arguments)}
    else:
        call = {"name": encode(part.name), "args": write_arguments(part.arguments)}
    if not is_made(part.id):
        call["id"] = encode(part.id)
    return {"functionCall": join_object(call | nested(part.extra, "functionCall"))} | _signature(part.signature)


def _media(part: ImagePart | AudioPart | VideoPart | DocumentPart, place: str, wire: Wire) -> bytes | None:
    members = write_media(part, place, wire)
    if members is None:
        return None
    if isinstance(part, ImagePart):
        members |= _signature(part.signature)
        if part.detail not in {None, "auto"}:
            wire.convert(f"{place}.detail", "dropped")
    if isinstance(part, DocumentPart):
        _judge_document(part, place, wire)
    if isinstance(part, AudioPart) and part.transcript:
        wire.convert(f"{place}.transcript", "dropped")
    return join_object(members | wire.unknown(part.extra, place, *_NESTED))


def _judge_document(part: DocumentPart, place: str, wire: Wire) -> None:
    if part.context is not None:
        wire.refuse(f"{place}.context", "the context of a document")
    if part.citations:
        wire.refuse(f"{place}.citations", "citations of a document")
    if part.title is not None:
        wire.convert(f"{place}.title", "dropped")


def write_result(part: ToolResult, name: str, shown: Sequence[Part], place: str, wire: Wire) -> bytes:
    """The answer to the call of *name*; *shown* are the pictures and documents that go inside of it."""
    said = [(index, each) for index, each in enumerate(part.content) if isinstance(each, TextPart | RefusalPart)]
    for index, each in said:
        wire.unknown(each.extra, f"{place}.content[{index}]")
    text = "".join(each.text for _, each in said)
    result = {"name": encode(name), "response": write_response(text, is_error=part.is_error)}
    if not is_made(part.call_id):
        result["id"] = encode(part.call_id)
    if shown:
        written = [write_part(each, f"{place}.content", wire) for each in shown]
        result["parts"] = join_array([each for each in written if each is not None])
    members = {"functionResponse": join_object(result | nested(part.extra, "functionResponse"))}
    return join_object(members | wire.unknown(part.extra, place, *_NESTED))
