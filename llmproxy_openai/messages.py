"""Messages of a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import attrs

from llmproxy_core.chat import Message, Part, ReasoningPart, Role, TextPart, ToolCall, ToolResult, remember
from llmproxy_core.translation import unsupported
from llmproxy_core.wire.form import Changes
from llmproxy_core.wire.members import BOOLEAN, STRING, Members
from llmproxy_core.wire.plain import plain_turn
from llmproxy_core.wire.splice import decode_object, encode, join_array, join_object, with_items, with_members
from llmproxy_core.wire.wire import Wire
from llmproxy_openai.answer import (
    content_of,
    plain_text_of,
    read_answer,
    read_content,
    write_answer,
    write_content,
)
from llmproxy_openai.parts import write_part
from llmproxy_openai.thinking import REASONING_MEMBERS

_PLAIN_ROLES = {"system", "developer", "user"}
_SPEAKERS: Mapping[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
}
_LISTED = dict.fromkeys(_PLAIN_ROLES, frozenset[str | None]({"text"}))
"""Whose lists of texts are nothing but that."""


# -- reading -------------------------------------------------------------------------------------------------


def read_messages(texts: Iterable[bytes], place: str, wire: Wire) -> tuple[Message, ...]:
    """`messages`, given as the texts of its elements."""
    return tuple(
        plain_turn(text, _SPEAKERS, wire.api, _LISTED) or read_message(text, f"{place}[{index}]", wire)
        for index, text in enumerate(texts)
    )


def read_message(text: bytes, place: str, wire: Wire) -> Message:
    """One element of `messages`."""
    members = Members(text, place, wire.fail)
    role = members.need("role", STRING)
    if role in _PLAIN_ROLES:
        content = read_content(members, wire)
        name = members.take("name", STRING)
        message = Message(cast("Role", role), content, name, extra=members.rest())
    elif role == "assistant":
        content = read_answer(members, wire, history=True)
        name = members.take("name", STRING)
        prefix = members.take("prefix", BOOLEAN) or False
        message = Message("assistant", content, name, prefix, extra=members.rest())
    elif role == "tool":
        name = members.take("name", STRING)
        # Mistral pairs by name too.
        call_id = members.need("tool_call_id", STRING) if name is None else members.take("tool_call_id", STRING)
        result = ToolResult(call_id or "", read_content(members, wire), name)
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
    is_aligned = len(was) == len(messages)
    for index, message in enumerate(messages):
        if not is_aligned and (text := _plain_text(message, wire)) is not None:
            items.append(text)
            continue
        place = f"messages[{index}]"
        spliced = _spliced(message, was[index], place, wire) if is_aligned else None
        items += _write_message(message, place, wire) if spliced is None else [spliced]
    return join_array(items) if before is None else with_items(before, items)


def _spliced(message: Message, was: Message, place: str, wire: Wire) -> bytes | None:
    """*message* as the bytes of *was* with other content; None when it has bytes of its own, or more differs."""
    text = wire.kept(was.raw)
    if text is None or wire.kept(message.raw) is not None or attrs.evolve(message, content=was.content) != was:
        return None
    before = bytes(decode_object(text).get("content", b""))
    place = f"{place}.content"
    match message.content, was.content:
        case _ if message.role == "assistant":
            return with_members(text, _answer_changes(message.content, was.content, before, place, wire))
        case _ if message.role in _PLAIN_ROLES:
            content = _said(message.content, place)
            return with_members(text, {"content": _spliced_content(content, was.content, before, place, wire)})
        case (ToolResult() as result,), (ToolResult() as old,) if attrs.evolve(result, content=old.content) == old:
            return with_members(
                text, {"content": _spliced_content(result.content, old.content, before, f"{place}[0].content", wire)}
            )
        case _:
            return None


def _spliced_content(now: Sequence[Part], was: Sequence[Part], before: bytes, place: str, wire: Wire) -> bytes:
    """`content` that was *before*."""
    if now and before.startswith(b"["):
        return with_items(before, _items(now, was, place, wire))
    return write_content(now, place, wire)


def _answer_changes(now: Sequence[Part], was: Sequence[Part], before: bytes, place: str, wire: Wire) -> Changes:
    """The members of an assistant's message that differ; what else repeats a thinking that was changed goes too."""
    members, old = write_answer(now, place, wire), write_answer(was, place, wire)
    changes: Changes = {name: members.get(name) for name in old | members if members.get(name) != old.get(name)}
    content = content_of(now, wire)
    if "content" in changes and content and before.startswith(b"["):
        changes["content"] = with_items(before, _items(content, content_of(was, wire), place, wire))
    if not changes.keys().isdisjoint(REASONING_MEMBERS):
        changes |= {name: None for name in (*REASONING_MEMBERS, "reasoning_details") if name not in members}
    return changes


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
    if (text := _plain_text(message, wire)) is not None:
        return [text]
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
        members["prefix"] = b"true"
    return [join_object(members | wire.unknown(message.extra, place))]


def _plain_text(message: Message, wire: Wire) -> bytes | None:
    """*message*, which has no bytes of this wire form, when it is one text and nothing else."""
    if message.role == "tool" or wire.kept(message.raw) is not None:
        return None
    text = plain_text_of(message, wire)
    return None if text is None else b'{"role":"%b","content":%b}' % (message.role.encode(), encode(text))


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
    name = {} if part.name is None else {"name": encode(part.name)}
    return {"role": b'"tool"', "tool_call_id": encode(part.call_id), "content": content} | name


def _text_only(parts: Sequence[Part], place: str, wire: Wire) -> Sequence[Part]:
    """A tool's answer is text; what a compatible server takes beyond that was read from this wire form."""
    for index, part in enumerate(parts):
        if not wire.own and not isinstance(part, TextPart):
            raise unsupported(f"{place}.content[{index}]", f"a {type(part).__name__} in a tool's answer")
    return parts
