"""Messages of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import attrs

from llmproxy_core.chat import Message, Part, ReasoningPart, Role, TextPart, ToolCall, ToolResult, remember
from llmproxy_core.translation import unsupported
from llmproxy_core.wire.members import BOOLEAN, STRING, Members
from llmproxy_core.wire.splice import decode_object, encode, join_array, join_object, with_items, with_members
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.answer import read_answer, read_content, write_answer, write_content
from llmproxy_openai.parts import write_part

_PLAIN_ROLES = {"system", "developer", "user"}


# -- reading -------------------------------------------------------------------------------------------------


def read_message(text: bytes, place: str, wire: Wire) -> Message:
    """One element of `messages`."""
    members = Members(text, place, wire.fail)
    role = members.need("role", STRING)
    if role in _PLAIN_ROLES:
        content = read_content(members, wire)
        name = members.take("name", STRING)
        message = Message(cast("Role", role), content, name, extra=members.rest())
    elif role == "assistant":
        content = read_answer(members, wire)
        name = members.take("name", STRING)
        prefix = members.take("prefix", BOOLEAN) or False
        message = Message("assistant", content, name, prefix, extra=members.rest())
    elif role == "tool":
        result = ToolResult(
            members.need("tool_call_id", STRING), read_content(members, wire), members.take("name", STRING)
        )
        message = Message("tool", (result,), extra=members.rest())
    elif role == "function":  # legacy: paired by name
        result = ToolResult("", read_content(members, wire), members.need("name", STRING))
        message = Message("tool", (result,), extra=members.rest())
    else:
        raise wire.fail(members.at("role"), "one of system, developer, user, assistant, tool, function")
    return remember(message, wire.api, text)


# -- writing -------------------------------------------------------------------------------------------------


def write_messages(messages: Sequence[Message], before: bytes | None, wire: Wire, was: Sequence[Message] = ()) -> bytes:
    """
    `messages`; *before* is the array they were read from: its spacing stays when there are as many.

    *was* are the messages as they were read: one of which only the content changed keeps its other bytes.
    """
    items: list[bytes] = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        spliced = _spliced(message, was[index], place, wire) if len(was) == len(messages) else None
        items += _write_message(message, place, wire) if spliced is None else [spliced]
    return join_array(items) if before is None else with_items(before, items)


def _spliced(message: Message, was: Message, place: str, wire: Wire) -> bytes | None:
    """*message* as the bytes of *was* with other content; None when it has bytes of its own, or more differs."""
    text = wire.kept(was.raw)
    if text is None or wire.kept(message.raw) is not None or message.role not in _PLAIN_ROLES:
        return None
    if attrs.evolve(message, content=was.content) != was:
        return None
    before = bytes(decode_object(text).get("content", b""))
    content = _said(message.content, place)
    if content and before.startswith(b"["):
        written = with_items(before, _items(content, was.content, f"{place}.content", wire))
    else:
        written = write_content(content, f"{place}.content", wire)
    return with_members(text, {"content": written})


def _items(parts: Sequence[Part], was: Sequence[Part], place: str, wire: Wire) -> list[bytes]:
    """*parts* of a list that was read as *was*: a part of which only the text changed keeps its other bytes."""
    items = []
    for index, part in enumerate(parts):
        old = was[index] if index < len(was) else None
        if isinstance(part, TextPart) and isinstance(old, TextPart) and wire.kept(part.raw) is None:
            text = wire.kept(old.raw)
            if text is not None and attrs.evolve(part, text=old.text) == old:
                items.append(with_members(text, {"text": encode(part.text)}))
                continue
        items.append(write_part(part, f"{place}[{index}]", wire))
    return items


def _write_message(message: Message, place: str, wire: Wire) -> list[bytes]:
    """One message, or one for each tool result in it."""
    if (kept := wire.kept(message.raw)) is not None:
        return [kept]
    if message.role == "tool":
        return [
            join_object(_write_result(part, f"{place}.content[{index}]", wire) | wire.unknown(message.extra, place))
            for index, part in enumerate(message.content)
        ]
    members = {"role": encode(message.role)}
    if message.role == "assistant":
        members |= write_answer(message.content, place, wire)
    else:
        members["content"] = write_content(_said(message.content, place), f"{place}.content", wire)
    if message.name is not None:
        members["name"] = encode(message.name)
    if message.prefix:
        if not wire.own:
            raise unsupported(f"{place}.prefix", "an assistant's turn to be continued")
        members["prefix"] = b"true"
    return [join_object(members | wire.unknown(message.extra, place))]


def _said(parts: Sequence[Part], place: str) -> Sequence[Part]:
    """*parts* of a turn that is no assistant's, which has no calls, results or thinking."""
    for index, part in enumerate(parts):
        if isinstance(part, ToolCall | ToolResult | ReasoningPart):
            raise unsupported(f"{place}.content[{index}]", f"a {type(part).__name__} in this role")
    return parts


def _write_result(part: Part, place: str, wire: Wire) -> dict[str, bytes]:
    """A tool's answer. Whether it is an error has no member here: its text says so."""
    if not isinstance(part, ToolResult):
        raise unsupported(place, f"a {type(part).__name__} in a tool's turn")
    content = write_content(_text_only(part.content, place, wire), f"{place}.content", wire)
    if not part.call_id and part.name is not None:
        return {"role": b'"function"', "name": encode(part.name), "content": content}
    name = {"name": encode(part.name)} if part.name is not None and wire.own else {}
    return {"role": b'"tool"', "tool_call_id": encode(part.call_id), "content": content} | name


def _text_only(parts: Sequence[Part], place: str, wire: Wire) -> Sequence[Part]:
    """A tool's answer is text; what a compatible server takes beyond that was read from this wire form."""
    for index, part in enumerate(parts):
        if not wire.own and not isinstance(part, TextPart):
            raise unsupported(f"{place}.content[{index}]", f"a {type(part).__name__} in a tool's answer")
    return parts
