"""The conversation of a request: `instructions`, and the items of `input`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import attrs

from llmproxy_core.chat import ChatRequest, JSONText, Message, Role, TextPart, ToolCall, ToolResult, remember
from llmproxy_core.wire import (
    STRING,
    Changes,
    Group,
    Members,
    Values,
    Wire,
    array,
    decode,
    decode_array,
    decode_object,
    encode,
    is_plain,
    join_array,
    plain_turn,
    with_items,
    with_members,
)
from llmproxy_openai.responses.answer import AnswerReader, rewrite_items
from llmproxy_openai.responses.items import write_message
from llmproxy_openai.responses.parts import TEXTS, read_content, rewrite_content

_SPEAKERS: Mapping[str, Role] = {"user": "user", "system": "system", "developer": "developer"}
_ROLES = set(_SPEAKERS)
_LISTED = dict.fromkeys(_ROLES, frozenset[str | None](TEXTS))
_RESULTS = {"function_call_output", "custom_tool_call_output"}
_TELLS_NOTHING = ("status", "phase", "caller", "namespace")


# -- reading -------------------------------------------------------------------------------------------------


def _read(members: Members, wire: Wire) -> Values:
    messages: list[Message] = []
    if (instructions := members.raw("instructions")) is not None:
        messages.append(_read_instructions(instructions, members.at("instructions"), wire))
    if (text := members.raw("input")) is not None:
        messages += _read_input(text, members.at("input"), wire)
    return {"messages": tuple(messages)}


def _read_instructions(text: bytes, place: str, wire: Wire) -> Message:
    said = decode(STRING, text, place, wire.fail)
    return remember(Message("system", (TextPart(said),)), wire.api, text)


def _read_input(text: bytes, place: str, wire: Wire) -> list[Message]:
    """A text of the user, or items; those of one turn of the model follow each other and are one message."""
    if not text.startswith(b"["):
        return [Message("user", (TextPart(decode(STRING, text, place, wire.fail)),))]
    messages: list[Message] = []
    turn: list[tuple[bytes, str]] = []
    for index, item in enumerate(array(text, place, wire.fail)):
        at = f"{place}[{index}]"
        message = plain_turn(item, _SPEAKERS, wire.api, _LISTED) or _read_item(item, at, wire)
        if message is None:
            turn.append((item, at))
            continue
        messages += [*_read_turn(turn, wire), message]
        turn = []
    return messages + _read_turn(turn, wire)


def _read_item(text: bytes, place: str, wire: Wire) -> Message | None:
    """An item that is a message of its own; None for one of the model's turn."""
    members = Members(text, place, wire.fail)
    kind = members.take("type", STRING) or "message"
    if kind in _RESULTS:
        return _read_result(members, text, wire)
    if kind != "message":
        return None
    role = members.need("role", STRING)
    if role == "assistant":
        return None
    if role not in _ROLES:
        raise wire.fail(members.at("role"), "one of user, assistant, system, developer")
    message_id = members.take("id", STRING)
    content = read_content(members.raw("content"), members.at("content"), wire)
    message = Message(cast("Role", role), content, id=message_id, extra=_rest(members))
    return remember(message, wire.api, text)


def _read_result(members: Members, text: bytes, wire: Wire) -> Message:
    members.raw("id")
    result = ToolResult(
        members.take("call_id", STRING) or "",
        read_content(members.raw("output"), members.at("output"), wire),
        members.take("name", STRING),
    )
    return remember(Message("tool", (result,), extra=_rest(members)), wire.api, text)


def _read_turn(items: Sequence[tuple[bytes, str]], wire: Wire) -> list[Message]:
    if not items:
        return []
    reader = AnswerReader(wire)
    for text, place in items:
        reader.add(text, place)
    message = Message("assistant", tuple(reader.parts), id=reader.id, extra=reader.unknown)
    return [remember(message, wire.api, b",".join([text for text, _ in items]))]


def _rest(members: Members) -> dict[str, JSONText]:
    for name in _TELLS_NOTHING:
        members.raw(name)
    return members.rest()


# -- writing -------------------------------------------------------------------------------------------------


def _write(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    origin = chat.origin.value if before and chat.origin is not None else None
    was = origin.messages if isinstance(origin, ChatRequest) else ()
    instructions, messages = _instructed(chat.messages, wire, had=before.get("instructions", b"null") != b"null")
    changes: Changes = {"instructions": instructions}
    if instructions is None and "instructions" not in before:
        changes = {}
    kept = [message for message in was if not _is_instructions(message, wire)]
    return changes | {"input": _write_input(messages, before.get("input", b"null"), wire, kept)}


def _instructed(
    messages: Sequence[Message], wire: Wire, *, had: bool
) -> tuple[JSONText | None, Sequence[tuple[int, Message]]]:
    """
    `instructions`, and the messages that are items, each with its place.

    The text of the leading system message is the instructions; so are those that were put before it.
    """
    numbered = list(enumerate(messages))
    read = [
        index
        for index, message in numbered
        if (raw := message.raw) is not None and raw.api == wire.api and _is_instructions(message, wire)
    ]
    last = read[0] if read else None
    if last == 0:
        assert messages[0].raw is not None
        return messages[0].raw.text, numbered[1:]
    if last is None:
        last = 0 if (had or messages[1:]) and messages and _is_plain_system(messages[0]) else -1
    leading = messages[: last + 1]
    if not leading or not all(_is_plain_system(message) for message in leading):
        return None, [each for each in numbered if not _is_instructions(each[1], wire)]
    said = [part.text for message in leading for part in message.content if isinstance(part, TextPart)]
    return encode("\n\n".join(said)), numbered[last + 1 :]


def _is_instructions(message: Message, wire: Wire) -> bool:
    """Whether it was read from `instructions`: a string, where items are objects."""
    text = wire.kept(message.raw)
    return text is not None and text.startswith(b'"')


def _is_plain_system(message: Message) -> bool:
    """Whether a string says all of it. One with an item of its own stays that item."""
    if message.role != "system" or message.name is not None or message.extra or message.id is not None:
        return False
    if message.raw is not None and message.raw.text.startswith(b"{"):
        return False
    if len(message.content) != 1:
        return False
    only = message.content[0]
    return isinstance(only, TextPart) and not only.citations and only.cache is None and not only.extra


def _write_input(
    messages: Sequence[tuple[int, Message]], before: bytes, wire: Wire, was: Sequence[Message]
) -> JSONText | None:
    match messages:
        case [(_, Message(role="user", content=(TextPart(text=text, cache=None, extra=extra),)))] if (
            before.startswith(b'"') and not extra
        ):
            return encode(text)
    custom = {
        part.id
        for _, message in messages
        for part in message.content
        if type(part) is not TextPart and isinstance(part, ToolCall) and part.kind == "custom"
    }
    items: list[bytes] = []
    for position, (index, message) in enumerate(messages):
        old = was[position] if len(was) == len(messages) else None
        if old is None and (item := _plain_item(message, wire)) is not None:
            items.append(item)
            continue
        place = f"messages[{index}]"
        spliced = None if old is None else _rewrite(message, old, place, wire)
        items += write_message(message, place, wire, custom) if spliced is None else spliced
    if before.startswith(b"[") and len(decode_array(before)) == len(items):
        return with_items(before, items) if items else before
    return join_array(items)


def _plain_item(message: Message, wire: Wire) -> bytes | None:
    """The item of *message*, which has no bytes of this wire form, when it is one text and nothing else."""
    if not is_plain(message) or wire.kept(message.raw) is not None:
        return None
    part = message.content[0]
    if not isinstance(part, TextPart) or wire.kept(part.raw) is not None:
        return None
    return b'{"role":"%b","content":%b}' % (message.role.encode(), encode(part.text))


def _rewrite(message: Message, was: Message, place: str, wire: Wire) -> list[bytes] | None:
    """*message* as the items of *was* with other content; None when it has items of its own, or more differs."""
    text = wire.kept(was.raw)
    if text is None or wire.kept(message.raw) is not None or attrs.evolve(message, content=was.content) != was:
        return None
    if was.role == "assistant":
        return rewrite_items(items_in(text), was.content, message.content, place, wire)
    match was.content, message.content:
        case (ToolResult() as old,), (ToolResult() as new,) if attrs.evolve(new, content=old.content) == old:
            name, was_said, now_said = "output", old.content, new.content
        case _ if was.role == "tool":
            return None
        case _:
            name, was_said, now_said = "content", was.content, message.content
    before = bytes(decode_object(text).get(name, b'""'))
    return [with_members(text, {name: rewrite_content(before, was_said, now_said, place, wire)})]


def items_in(text: bytes) -> list[bytes]:
    """The items that a message was read from."""
    return [bytes(item) for item in decode_array(b"[" + text + b"]")]


MESSAGES = Group(("messages",), _read, _write)
