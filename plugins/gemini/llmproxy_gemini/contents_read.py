"""`contents` and `systemInstruction`, read as messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import msgspec

from llmproxy_core.chat import JSONText, Message, Part, ReasoningPart, Role, ToolResult, remember
from llmproxy_core.wire import STRING, Members, Values, Wire, plain_parts, usual
from llmproxy_gemini.call_ids import CallIds
from llmproxy_gemini.part_read import read_part
from llmproxy_gemini.piece import mark
from llmproxy_gemini.spelling import Spelled, snake
from llmproxy_gemini.thought_runs import joined

SYSTEM = "systemInstruction"
SYSTEM_FORM = ".system"
"""Behind the form's name: what `systemInstruction` was read from is no content."""


class _PlainContent(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    parts: list[msgspec.Raw]
    role: str | None = None


_plain_content = usual(_PlainContent)
_SPEAKERS: Mapping[str | None, Role] = {"user": "user", "model": "assistant", None: "user"}
_TEXTS = frozenset[str | None]({None})


def read_messages(members: Members, wire: Wire) -> Values:
    """The conversation, the system prompt first."""
    if members.peek("contents") in {None, b"null"}:
        raise wire.fail("contents", "a list of contents")
    ids = CallIds("request")
    messages = _read_system(members, wire, ids)
    texts = members.array("contents")
    contents = [
        _read_plain(text, wire) or _read_content(text, f"contents[{index}]", wire, ids)
        for index, text in enumerate(texts)
    ]
    said = [message for turns in contents for message in turns]
    messages += (
        _with_thoughts_joined(said) if ReasoningPart in {type(part) for it in said for part in it.content} else said
    )
    # Marked last: what was put together is another message, of the same content.
    start = len(messages) - len(said)
    for text, turns in zip(texts, contents, strict=True):
        mark(messages[start : start + len(turns)], wire.api, text)
        start += len(turns)
    return {"messages": tuple(messages)}


def _with_thoughts_joined(said: Sequence[Message]) -> list[Message]:
    messages: list[Message] = []
    for is_model, row in groupby(said, key=lambda message: message.role == "assistant"):
        in_a_row = list(row)
        messages += joined(in_a_row) if is_model else in_a_row
    return messages


def _read_system(members: Members, wire: Wire, ids: CallIds) -> list[Message]:
    text = members.raw(SYSTEM) or members.raw(snake(SYSTEM))
    if text is None:
        return []
    plain = _plain_content(text)
    if plain is not None and (said := plain_parts(plain.parts, _TEXTS, wire.api)) is not None:
        return [remember(Message("system", said), wire.api + SYSTEM_FORM, text)]
    content = Spelled(text, SYSTEM, wire.fail)
    content.raw("role")
    parts = _read_parts(content, wire, ids)
    return [remember(Message("system", parts, extra=content.rest()), wire.api + SYSTEM_FORM, text)]


def _read_parts(content: Spelled, wire: Wire, ids: CallIds) -> tuple[Part, ...]:
    place = content.at("parts")
    return tuple(read_part(text, f"{place}[{index}]", wire, ids) for index, text in enumerate(content.array("parts")))


def _read_plain(text: bytes, wire: Wire) -> list[Message] | None:
    """The turn in a content that is texts, and nothing else; None for another, or a wrong one."""
    plain = _plain_content(text)
    if plain is None or (speaker := _SPEAKERS.get(plain.role)) is None:
        return None
    said = plain_parts(plain.parts, _TEXTS, wire.api)
    return None if said is None else [Message(speaker, said)]


def _read_content(text: bytes, place: str, wire: Wire, ids: CallIds) -> list[Message]:
    """One content: a turn, or the results of tools and what else the user says with them."""
    content = Spelled(text, place, wire.fail)
    role = content.take("role", STRING) or "user"
    if role not in {"user", "model", "function"}:
        raise wire.fail(content.at("role"), "one of user, model, function")
    parts = _read_parts(content, wire, ids)
    extra = content.rest()
    if role == "model":
        return [Message("assistant", parts, extra=extra)]
    return _turns(parts, extra)


def _turns(parts: tuple[Part, ...], extra: dict[str, JSONText]) -> list[Message]:
    """Results first: other protocols want them right behind the calls."""
    results = tuple(part for part in parts if isinstance(part, ToolResult))
    others = tuple(part for part in parts if not isinstance(part, ToolResult))
    turns: list[tuple[Role, tuple[Part, ...]]] = []
    if results:
        turns.append(("tool", results))
    if others or not results:
        turns.append(("user", others))
    return [Message(role, said, extra=extra if index == 0 else {}) for index, (role, said) in enumerate(turns)]
