"""`contents` and `systemInstruction`, read as messages."""

from __future__ import annotations

from llmproxy_core.chat import JSONText, Message, Part, Role, ToolResult, remember
from llmproxy_core.wire import STRING, Members, Values, Wire
from llmproxy_gemini.call_ids import CallIds
from llmproxy_gemini.part_read import read_part
from llmproxy_gemini.piece import mark
from llmproxy_gemini.spelling import Spelled, snake

SYSTEM = "systemInstruction"
SYSTEM_FORM = ".system"
"""Behind the form's name: what `systemInstruction` was read from is no content."""


def read_messages(members: Members, wire: Wire) -> Values:
    """The conversation, the system prompt first."""
    if members.peek("contents") in {None, b"null"}:
        raise wire.fail("contents", "a list of contents")
    ids = CallIds("request")
    messages = _read_system(members, wire, ids)
    for index, text in enumerate(members.array("contents")):
        messages += _read_content(text, f"contents[{index}]", wire, ids)
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
        messages = [Message("assistant", parts, extra=extra)]
    else:
        messages = _turns(parts, extra)
    mark(messages, wire.api, text)
    return messages


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
