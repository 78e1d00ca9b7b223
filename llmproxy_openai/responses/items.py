"""Messages of a request, written anew as items of `input`."""

from __future__ import annotations

from collections.abc import Container, Sequence

from llmproxy_core.chat import (
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from llmproxy_core.translation import unsupported
from llmproxy_core.wire import Wire, decode_array, encode, join_array, join_object
from llmproxy_openai.responses.answer import text_member, thinking_part
from llmproxy_openai.responses.parts import write_content
from llmproxy_openai.responses.paths import DIALECT


def write_message(message: Message, place: str, wire: Wire, custom: Container[str] = ()) -> list[bytes]:
    """The items of *message*; *custom* are the ids of calls of custom tools, whose results are another type of item."""
    if (kept := wire.kept(message.raw)) is not None:
        return [bytes(item) for item in decode_array(b"[" + kept + b"]")]
    if message.role == "assistant":
        return _turn(message, place, wire)
    if message.role == "tool":
        return [
            _result(part, message, f"{place}.content[{index}]", wire, custom)
            for index, part in enumerate(message.content)
        ]
    for index, part in enumerate(message.content):
        if isinstance(part, ToolCall | ToolResult | ReasoningPart):
            raise unsupported(f"{place}.content[{index}]", f"a {type(part).__name__} in this role")
    members = {"role": encode(message.role), "content": write_content(message.content, f"{place}.content", wire)}
    return [join_object(members | _shared(message, place, wire))]


def _shared(message: Message, place: str, wire: Wire) -> dict[str, bytes]:
    """What a message's item has besides its content."""
    if message.name is not None:
        raise unsupported(f"{place}.name", "the name of who speaks")
    if message.prefix:
        raise unsupported(f"{place}.prefix", "an assistant's turn to be continued")
    named = {} if message.id is None else {"type": b'"message"', "id": encode(message.id)}
    return named | wire.unknown(message.extra, place)


def _result(part: Part, message: Message, place: str, wire: Wire, custom: Container[str]) -> bytes:
    """A tool's answer. Whether it is an error has no member here: its text says so."""
    if not isinstance(part, ToolResult):
        raise unsupported(place, f"a {type(part).__name__} in a tool's turn")
    members = {
        "type": b'"custom_tool_call_output"' if part.call_id in custom else b'"function_call_output"',
        "call_id": encode(part.call_id),
        "output": write_content(part.content, f"{place}.content", wire),
    }
    if part.name is not None:
        members["name"] = encode(part.name)
    return join_object(members | wire.unknown(part.extra, place) | wire.unknown(message.extra, place))


# -- the model's turn ----------------------------------------------------------------------------------------


def _turn(message: Message, place: str, wire: Wire) -> list[bytes]:
    """Texts that follow each other are one message; each call, and each thinking, is an item."""
    items: list[bytes] = []
    said: list[Part] = []
    shared = _shared(message, place, wire)
    for index, part in enumerate(message.content):
        item = _item(part, f"{place}.content[{index}]", wire)
        if item is None:
            said.append(part)
            continue
        items += [*_said(said, shared, place, wire), item]
        said, shared = [], shared if not said else {}
    return items + _said(said, shared, place, wire, must=not items)


def _said(
    parts: Sequence[Part], shared: dict[str, bytes], place: str, wire: Wire, *, must: bool = False
) -> list[bytes]:
    if not parts and not must:
        return []
    content = write_content(parts, f"{place}.content", wire, spoken=True)
    return [join_object({"role": b'"assistant"', "content": content} | shared)]


def _item(part: Part, place: str, wire: Wire) -> bytes | None:
    """The item that *part* is; None when it belongs into a message."""
    if isinstance(part, TextPart | RefusalPart):
        return None
    if (kept := wire.kept(part.raw)) is not None:
        return kept
    match part:
        case ReasoningPart():
            return _thinking(part, place, wire)
        case ToolCall():
            return _call(part, place, wire)
        case OpaquePart():
            raise unsupported(place, f"a part of type {part.kind!r} of another protocol")
        case _:
            raise unsupported(place, f"a {type(part).__name__} in an assistant's turn")


def _thinking(part: ReasoningPart, place: str, wire: Wire) -> bytes:
    if part.provider not in {None, DIALECT}:
        raise unsupported(place, "the thinking of another provider")
    said = join_array([thinking_part(part.text, summary=part.summary)] if part.text else [])
    members = {"type": b'"reasoning"'}
    if part.id is not None:
        members["id"] = encode(part.id)
    members["summary"] = said if part.summary else b"[]"
    if not part.summary and part.text:
        members["content"] = said
    if part.encrypted is not None:
        members["encrypted_content"] = encode(part.encrypted)
    return join_object(members | wire.unknown(part.extra, place))


def _call(call: ToolCall, place: str, wire: Wire) -> bytes:
    custom = call.kind == "custom"
    members = {
        "type": b'"custom_tool_call"' if custom else b'"function_call"',
        "call_id": encode(call.id),
        "name": encode(call.name),
        text_member(custom=custom): encode(call.arguments),
    }
    if call.item_id is not None:
        members["id"] = encode(call.item_id)
    return join_object(members | wire.unknown(call.extra, place))
