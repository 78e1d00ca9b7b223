"""
Answers for clients that offered `functions`, the form before `tools`: a call is a `function_call`, which has no id.

A message holds one of them, and no more were ever given: of several calls, the first.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    ChatRequest,
    Choice,
    Finished,
    Part,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    changed,
)
from llmproxy_core.dialect import StreamWriter
from llmproxy_core.frame import Frame


def offers_functions(chat: ChatRequest) -> bool:
    """Whether *chat* has tools, and all of them in the form of `functions`."""
    return bool(chat.tools) and all(isinstance(tool, Tool) and tool.kind == "legacy" for tool in chat.tools)


def with_function_calls(reply: ChatReply) -> ChatReply:
    """*reply* of another protocol with each choice's first call in the legacy form."""
    return changed(reply, choices=tuple(map(_with_function_call, reply.choices)))


def _with_function_call(choice: Choice) -> Choice:
    called = [part for part in choice.content if isinstance(part, ToolCall)]
    if not called:
        return choice
    first = changed(called[0], kind="legacy", id="", arguments=called[0].arguments or "{}", signature=None)
    content: list[Part] = [part for part in choice.content if not isinstance(part, ToolCall)]
    return changed(choice, content=(*content, first))


class FunctionCalls:
    """A StreamWriter: what *writer* makes of the events, calls in the legacy form."""

    __slots__ = ("_empty", "_writer")

    def __init__(self, writer: StreamWriter) -> None:
        self._writer = writer
        self._empty: dict[int, int] = {}
        """The index of a choice's call, while it has no arguments."""

    def write(self, events: Sequence[ChatEvent], frame: Frame | None) -> bytes:
        """See StreamWriter."""
        return self._writer.write([said for event in events for said in self._said(event)], frame)

    def _said(self, event: ChatEvent) -> list[ChatEvent]:
        match event:
            case ToolCallStart() | ToolCallDelta() if event.index > 0:
                return []
            case ToolCallStart():
                self._empty[event.choice] = event.index
                return [ToolCallStart(event.choice, event.index, "", event.name, "legacy")]
            case ToolCallDelta() if event.arguments:
                self._empty.pop(event.choice, None)
            case Finished() if (index := self._empty.pop(event.choice, None)) is not None:
                return [ToolCallDelta(event.choice, index, "{}"), event]
        return [event]
