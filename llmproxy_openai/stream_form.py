"""The wire forms of a stream, and what has gone out of one of its choices."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from llmproxy_core.chat import (
    ChatEvent,
    CitationAdded,
    FinishReason,
    ReasoningDelta,
    ReasoningPart,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from llmproxy_openai.finish import WORDS
from llmproxy_openai.reasoning_details import StreamedThinking
from llmproxy_openai.thinking import REASONING_MEMBERS


@attrs.frozen
class StreamForm:
    """One wire form of a stream: *object* is its chunks' type, *is_legacy* that of `/completions`: bare texts."""

    api: str
    object: str
    is_legacy: bool = False
    thinking: str = REASONING_MEMBERS[0]
    """As in ReplyForm."""
    words: Mapping[FinishReason, str] = WORDS
    """Why an answer ended."""
    has_legacy_calls: bool = True
    """As in ReplyForm."""

    @property
    def dialect(self) -> str:
        """The dialect's name."""
        return self.api.partition(".")[0]


class ChoiceSoFar:
    """What of a choice has gone out in chunks of our own."""

    __slots__ = (
        "_in_text",
        "_is_empty_call",
        "cited",
        "held_citations",
        "has_finished",
        "has_role",
        "has_thought",
        "text_length",
        "text_start",
        "thinking",
    )

    def __init__(self, dialect: str) -> None:
        self.thinking = StreamedThinking(dialect)
        self._is_empty_call: dict[int, bool] = {}
        self._in_text = False
        self.cited = 0
        """Citations that have gone out."""
        self.held_citations: list[bytes] = []
        """Those that have not yet, written."""
        self.has_role = False
        self.has_finished = False
        self.has_thought = False
        self.text_start = 0
        """Where in the choice's text the part begins that runs now, which citations count in."""
        self.text_length = 0
        """Characters of that part."""

    def note(self, event: ChatEvent) -> None:
        """Take an event that goes out."""
        match event:
            case TextDelta():
                if not self._in_text:
                    self.text_start, self.text_length = self.text_start + self.text_length, 0
                self.text_length += len(event.text)
            case ReasoningDelta():
                self.has_thought = True
            case ToolCallStart():
                self._is_empty_call[event.index] = event.kind == "function"
            case ToolCallDelta() if event.arguments:
                self._is_empty_call[event.index] = False
            case _:
                pass
        self._in_text = isinstance(event, TextDelta | CitationAdded)

    def block(self, event: ChatEvent) -> ReasoningPart | None:
        """The thinking that *event* ends, when it must come back."""
        return self.thinking.add(event) if isinstance(event, ReasoningDelta) else self.thinking.end()

    def empty_calls(self) -> list[int]:
        """The calls that came without arguments, once: clients parse an object in any case."""
        found = [index for index, is_empty in self._is_empty_call.items() if is_empty]
        self._is_empty_call.clear()
        return found
