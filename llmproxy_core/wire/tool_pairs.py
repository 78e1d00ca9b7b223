"""In requests for another protocol: which call a tool's result answers, and whether a named tool is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs
import msgspec

from llmproxy_core.chat import BuiltinTool, ChatRequest, Message, TextPart, ToolCall, ToolResult
from llmproxy_core.errors import BadRequest
from llmproxy_core.wire.open_calls import OpenCalls

_SYSTEM_ROLES = frozenset({"system", "developer"})
_OF_TOOLS = (ToolCall, ToolResult)


Answered = Literal["next", "later", "perhaps"]
"""Whether a call's result must come before somebody says something else, must come at all, or may be missing."""


def paired(messages: Sequence[Message], answered: Answered = "next") -> Mapping[str, ToolCall]:
    """
    The calls, by the places of their results (`messages[2].content[0]`).

    By ids; a result without one answers the first call of its name that waits. An id may be used again in a later turn.
    BadRequest names a result without a call, and a call without the result that it needs. Calls at the end of the
    conversation may wait.
    """
    if not uses_tools(messages):
        return {}
    pairs = _Pairs(answered)
    for number, message in enumerate(messages):
        if message.role not in _SYSTEM_ROLES:
            pairs.add(message, number)
    if answered != "perhaps":
        pairs.close()
    return pairs.found


def uses_tools(messages: Sequence[Message]) -> bool:
    """Whether a tool was called in *messages*, or gave a result."""
    for message in messages:
        for part in message.content:
            if type(part) is not TextPart and isinstance(part, _OF_TOOLS):
                return True
    return False


@attrs.frozen
class _Waiting:
    call: ToolCall
    place: str
    number: int


class _Pairs:
    def __init__(self, answered: Answered) -> None:
        self.found: dict[str, ToolCall] = {}
        self._answered = answered
        self._open = OpenCalls[_Waiting]()
        self._is_answered = False  # one of the turn's calls is
        self._last_said = -1  # the number of the last message that was not the assistant's

    def add(self, message: Message, number: int) -> None:
        if message.role != "assistant" and message.content:
            self._last_said = number
        places = [(f"messages[{number}].content[{index}]", part) for index, part in enumerate(message.content)]
        for place, part in places:  # first of all, as which writers put them wherever they stand in their message
            if isinstance(part, ToolResult):
                self._answer(part, place)
        for place, part in places:
            if isinstance(part, ToolResult):
                continue
            if self._is_answered or message.role != "assistant":
                self._end_turn()
            if isinstance(part, ToolCall):
                self._open.add(part.id, part.name, _Waiting(part, place, number))

    def _answer(self, result: ToolResult, place: str) -> None:
        waiting = self._open.take(result.call_id, result.name)
        if waiting is None:
            which = repr(result.call_id or result.name)
            message = f"'{place}' answers the tool call {which}, but no such call before it waits for a result"
            raise BadRequest(message, param=place)
        self.found[place] = waiting.call
        self._is_answered = True

    def _end_turn(self) -> None:
        self._is_answered = False
        if self._open and self._answered == "next":
            raise _unanswered(next(iter(self._open)))

    def close(self) -> None:
        """The conversation is over."""
        for waiting in self._open:
            if waiting.number < self._last_said:
                raise _unanswered(waiting)


def _unanswered(waiting: _Waiting) -> BadRequest:
    which = repr(waiting.call.id or waiting.call.name)
    return BadRequest(f"The tool call {which} at '{waiting.place}' has no result after it", param=waiting.place)


_SETS = ("mcp", "namespace", "tool_search")


class _Named(msgspec.Struct):
    name: str | None = None
    server_label: str | None = None


_decode_name = msgspec.json.Decoder(_Named).decode


def check_choice(chat: ChatRequest) -> None:
    """BadRequest where `tool_choice` names a tool that is not offered."""
    choice = chat.tool_choice
    if choice is None or not choice.names or any(_brings_tools(tool) for tool in chat.tools):
        return
    offered = {tool.name for tool in chat.tools if not isinstance(tool, BuiltinTool)}
    for tool in chat.tools:
        if isinstance(tool, BuiltinTool):
            offered |= {tool.kind, *_names_of(tool)}
    missing = next((name for name in choice.names if name not in offered), None)
    if missing is not None:
        raise BadRequest(f"'tool_choice' names the tool {missing!r}, which is not in 'tools'", param="tool_choice")


def _brings_tools(tool: object) -> bool:
    """Whether *tool* stands for several, whose names nobody knows here."""
    return isinstance(tool, BuiltinTool) and tool.kind.startswith(_SETS)


def _names_of(tool: BuiltinTool) -> list[str]:
    """How else the client may call a tool that its provider runs."""
    try:
        named = _decode_name(tool.raw.text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return []
    return [name for name in (named.name, named.server_label) if name is not None]
