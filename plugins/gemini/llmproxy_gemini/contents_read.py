"""`contents` and `systemInstruction`, read as messages."""

from __future__ import annotations

from itertools import groupby

from llmproxy_core.chat import JSONText, Message, Part, Role, ToolResult, remember
from llmproxy_core.wire import STRING, Members, Values, Wire
from llmproxy_gemini.call_ids import CallIds
from llmproxy_gemini.part_read import read_part
from llmproxy_gemini.piece import mark
from llmproxy_gemini.spelling import Spelled, snake
from llmproxy_gemini.thought_runs import joined

SYSTEM = "systemInstruction"
SYSTEM_FORM = ".system"
"""Behind the form's name: what `systemInstruction` was read from is no content."""


def read_messages(members: Members, wire: Wire) -> Values:
    """The conversation, the system prompt first."""
    if members.peek("contents") in {None, b"null"}:
        raise wire.fail("contents", "a list of contents")
    ids = CallIds("request")
    messages = _read_system(members, wire, ids)
    texts = members.array("contents")
    contents = [_read_content(text, f"contents[{index}]", wire, ids) for index, text in enumerate(texts)]
    said = [message for turns in contents for message in turns]
    for is_model, row in groupby(said, key=lambda message: message.role == "assistant"):
        in_a_row = list(row)
        messages += joined(in_a_row) if is_model else in_a_row
    # Marked last: what was put together is another message, of the same content.
    start = len(messages) - len(said)
    for text, turns in zip(texts, contents, strict=True):
        mark(messages[start : start + len(turns)], wire.api, text)
        start += len(turns)
    return {"messages": tuple(messages)}


def _read_system(members: Members, wire: Wire, ids: CallIds) -> list[Message]:
    text = members.raw(SYSTEM) or members.raw(snake(SYSTEM))
    if text is None:
        return []
    content = Spelled(text, SYSTEM, wire.fail)
    content.raw("role")
    parts = _read_parts(content, wire, ids)
    return [remember(Message("system", parts, extra=content.rest()), wire.api + SYSTEM_FORM, text)]


def _read_parts(content: Spelled, wire: Wire, ids: CallIds) -> tuple[Part, ...]:
    place = content.at("parts")
    return tuple(read_part(text, f"{place}[{index}]", wire, ids) for index, text in enumerate(content.array("parts")))


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
