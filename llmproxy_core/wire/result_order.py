"""Results of tools, put where most protocols want them: right behind the turn that called."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_core.chat import Message, Part, ToolCall, ToolResult, changed
from llmproxy_core.wire.tool_pairs import uses_tools

_SYSTEM_ROLES = frozenset({"system", "developer"})


class _Turn:
    """A turn of the model with calls that wait, and the results that come to stand behind it."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.results: list[Part] = []

    def takes(self, result: ToolResult) -> bool:
        """Take *result* if it answers one of the calls."""
        for place, call in enumerate(self.calls):
            if call.id == result.call_id if result.call_id else result.name in (None, call.name):
                del self.calls[place]
                self.results.append(result)
                return True
        return False


def results_next(messages: Sequence[Message]) -> Sequence[Message]:
    """
    *messages*, in which nobody speaks between calls and their results; the same object where nobody did.

    A result that answers no call before it stays where it is.
    """
    if not _is_interrupted(messages):
        return messages
    said: list[Message | _Turn] = []
    turns: list[_Turn] = []
    is_calling = False
    for message in messages:
        if message.role == "assistant":
            if not is_calling:
                turns.append(_Turn())
            is_calling = True
            turns[-1].calls += [part for part in message.content if isinstance(part, ToolCall)]
            said.append(message)
            continue
        if is_calling:
            said.append(turns[-1])
            is_calling = False
        rest = tuple(part for part in message.content if not _is_taken(part, turns))
        if len(rest) == len(message.content):
            said.append(message)
        elif rest:
            said.append(changed(message, content=rest))
    placed = (Message("tool", tuple(it.results)) if isinstance(it, _Turn) else it for it in said)
    return [message for message in placed if message.content or message.role != "tool"]


def _is_taken(part: Part, turns: Sequence[_Turn]) -> bool:
    return isinstance(part, ToolResult) and any(turn.takes(part) for turn in reversed(turns))


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
