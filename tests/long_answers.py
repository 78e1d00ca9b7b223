"""Answers that are long in ways in which readers and writers search or look again: as events, of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llmproxy_core import Usage
from llmproxy_core.chat import (
    ChatEvent,
    Citation,
    CitationAdded,
    End,
    Finish,
    Finished,
    FinishReason,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.wire import text_tool

Make = Callable[[int], Sequence[ChatEvent]]


def _whole(*said: ChatEvent) -> list[ChatEvent]:
    called = any(isinstance(event, ToolCallStart) for event in said)
    finish = Finish(FinishReason.TOOL_CALLS if called else FinishReason.STOP)
    return [Start("id", "m", 1), *said, Finished(0, finish), UsageReported(Usage(1, 1)), End()]


def _calls(count: int) -> list[ChatEvent]:
    return [ToolCallStart(0, number, f"c{number}", "f") for number in range(count)]


def _mixed_calls(count: int) -> list[ChatEvent]:
    """All calls begin, then each goes on, the last first."""
    begun = [ToolCallDelta(0, number, '{"a":') for number in reversed(range(count))]
    return _whole(*_calls(count), *begun, *[ToolCallDelta(0, number, "1}") for number in range(count)])


def _one_call(name: str, begin: str, piece: str, end: str) -> Callable[[int], list[ChatEvent]]:
    def make(count: int) -> list[ChatEvent]:
        pieces = [ToolCallDelta(0, 0, text) for text in (begin, *[piece] * count, end)]
        return _whole(ToolCallStart(0, 0, "c", name), *pieces)

    return make


def _words_between(count: int) -> list[ChatEvent]:
    """Something is said between the pieces of the first of many calls."""
    pieces: list[ChatEvent] = [ToolCallDelta(0, 0, '{"a":"')]
    for _ in range(count):
        pieces += [TextDelta(0, "a"), ToolCallDelta(0, 0, "{}")]
    return _whole(*_calls(count), *pieces, ToolCallDelta(0, 0, '"}'))


def _thoughts(count: int) -> list[ChatEvent]:
    """A long run of thinking, then thoughts that are sealed one by one."""
    run: list[ChatEvent] = [ReasoningDelta(0, "x", provider="anthropic") for _ in range(count)]
    sealed = [ReasoningDelta(0, "x", signature="s", provider="anthropic") for _ in range(count)]
    return _whole(*run, *sealed, TextDelta(0, "a"))


def _encrypted_thoughts(count: int) -> list[ChatEvent]:
    provider = "openai-responses"
    return _whole(
        *[
            ReasoningDelta(0, "x", encrypted="e", provider=provider, summary=True, id=f"r{each}")
            for each in range(count)
        ],
        TextDelta(0, "a"),
    )


def _citations(count: int) -> list[ChatEvent]:
    """A text whose bytes are not its characters, and what is cited of it."""
    cited = [
        CitationAdded(0, Citation("url_citation", f"http://{each}", "t", "é", each, each + 2)) for each in range(count)
    ]
    return _whole(TextDelta(0, "é" * 100 * count), *cited)


def _text_for_a_tool(pieces: int, quotes: int) -> list[ChatEvent]:
    """A tool that takes a text is called as one that takes an object; each of the *pieces* of the text has *quotes*."""
    return _one_call(text_tool.sent_name("f"), '{"text":"', '\\"' * quotes, '"}')(pieces)


ANSWERS: Mapping[str, Make] = {
    "calls mixed": _mixed_calls,
    "a call of many pieces": _one_call("f", '{"a":"', "abcd", '"}'),
    "words between the pieces of calls": _words_between,
    "thinking": _thoughts,
    "encrypted thinking": _encrypted_thoughts,
    "citations": _citations,
    "quotes in a text for a tool": lambda count: _text_for_a_tool(1, 20 * count),
    "a text for a tool in pieces": lambda count: _text_for_a_tool(count, 1),
}
"""By what is long."""
