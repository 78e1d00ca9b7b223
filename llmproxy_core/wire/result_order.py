"""Results of tools, put where most protocols want them: right behind the turn that called."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_core.chat import Message, Part, ToolCall, ToolResult, changed
from llmproxy_core.wire.open_calls import OpenCalls
from llmproxy_core.wire.tool_pairs import uses_tools

_SYSTEM_ROLES = frozenset({"system", "developer"})


class _Turn:
    """A turn of the model with calls that wait, and the results that come to stand behind it."""

    def __init__(self) -> None:
        self._calls = OpenCalls[ToolCall]()
        self.results: list[Part] = []

    def add(self, call: ToolCall) -> None:
        self._calls.add(call.id, call.name, call)

    def takes(self, result: ToolResult) -> bool:
        """Take *result* if it answers one of the calls."""
        if self._calls.take(result.call_id, result.name) is None:
            return False
        self.results.append(result)
        return True


class _Turns:
    """All turns with calls, found by what a result says of its call: of several the last."""

    def __init__(self) -> None:
        self._by_id: dict[str, list[_Turn]] = {}
        self._by_name: dict[str | None, list[_Turn]] = {}  # under None all

    def add(self, turn: _Turn, call: ToolCall) -> None:
        """*call* is one of *turn*, the last so far."""
        turn.add(call)
        self._by_id.setdefault(call.id, []).append(turn)
        self._by_name.setdefault(call.name, []).append(turn)
        self._by_name.setdefault(None, []).append(turn)

    def take(self, result: ToolResult) -> bool:
        """Put *result* behind the turn with its call, if there is one."""
        turns = self._by_id.get(result.call_id) if result.call_id else self._by_name.get(result.name)
        while turns:
            if turns[-1].takes(result):
                return True
            turns.pop()  # such calls of it have their results; others came before it
        return False


def results_next(messages: Sequence[Message]) -> Sequence[Message]:
    """
    *messages*, in which nobody speaks between calls and their results; the same object where nobody did.

    A result that answers no call before it stays where it is.
    """
    if not _is_interrupted(messages):
        return messages
    said: list[Message | _Turn] = []
    turns = _Turns()
    turn: _Turn | None = None  # whose calls go on
    for message in messages:
        if message.role == "assistant":
            turn = turn or _Turn()
            for part in message.content:
                if isinstance(part, ToolCall):
                    turns.add(turn, part)
            said.append(message)
            continue
        if turn is not None:
            said.append(turn)
            turn = None
        rest = tuple(part for part in message.content if not (isinstance(part, ToolResult) and turns.take(part)))
        if len(rest) == len(message.content):
            said.append(message)
        elif rest:
            said.append(changed(message, content=rest))
    placed = (Message("tool", tuple(it.results)) if isinstance(it, _Turn) else it for it in said)
    return [message for message in placed if message.content or message.role != "tool"]


def _is_interrupted(messages: Sequence[Message]) -> bool:
    """Whether a result comes after somebody else spoke behind its call."""
    if not uses_tools(messages):
        return False
    has_spoken = False
    for message in messages:
        if message.role == "assistant":
            has_spoken = has_spoken and not any(isinstance(part, ToolCall) for part in message.content)
        elif message.role not in _SYSTEM_ROLES:
            for part in message.content:
                if isinstance(part, ToolResult) and has_spoken:
                    return True
                has_spoken = has_spoken or not isinstance(part, ToolResult)
    return False
