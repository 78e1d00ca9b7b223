"""What a scripted LLM says, in no wire form, and the bytes of it in any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs

from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    Choice,
    End,
    Finish,
    Finished,
    FinishReason,
    Part,
    ReasoningDelta,
    ReasoningPart,
    Start,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.dialect import Api, Dialect
from llmproxy_core.usage import Usage

MODEL = "scripted-1"
USED = Usage(11, 7)

Cut = Callable[[str], Sequence[str]]
"""Cuts a text into pieces, one for each event of a stream."""


@attrs.frozen(kw_only=True)
class Said:
    """One answer of a model."""

    text: str = "Grüße aus 東京 🚲!"
    """Of characters that are one, two, three and four bytes long."""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    id: str = "answer-1"
    usage: Usage = USED

    @property
    def finish(self) -> Finish:
        return Finish(FinishReason.TOOL_CALLS if self.calls else FinishReason.STOP)

    def reply(self) -> ChatReply:
        parts: list[Part] = [ReasoningPart(self.reasoning)] if self.reasoning else []
        if self.text:
            parts.append(TextPart(self.text))
        return ChatReply(self.id, MODEL, (Choice(0, (*parts, *self.calls), self.finish),), self.usage, 1_700_000_000)

    def whole(self, dialect: Dialect, api: Api) -> bytes:
        """The body of a plain answer."""
        return dialect.write_reply(api, self.reply())

    def stream(self, dialect: Dialect, api: Api, cut: Cut) -> list[bytes]:
        """The events of a streamed answer, each as its bytes; its texts cut by *cut*."""
        writer = dialect.writer(api, usage=True)
        return [data for event in self._events(cut) if (data := writer.write([event], None))]

    def _events(self, cut: Cut) -> Iterator[ChatEvent]:
        yield Start(self.id, MODEL, 1_700_000_000)
        if self.reasoning:
            yield from (ReasoningDelta(0, piece) for piece in cut(self.reasoning))
        if self.text:
            yield from (TextDelta(0, piece) for piece in cut(self.text))
        for index, call in enumerate(self.calls):
            yield ToolCallStart(0, index, call.id, call.name, call.kind)
            yield from (ToolCallDelta(0, index, piece) for piece in cut(call.arguments))
        yield Finished(0, self.finish)
        yield UsageReported(self.usage)
        yield End()


THOUGHTFUL = Said(reasoning="Hm – wo? 東!", usage=Usage(11, 7, reasoning_tokens=3))
BUSY = Said(
    text="Ich sehe nach …",
    calls=(ToolCall("call-1", "weather", '{"city":"Köln"}'), ToolCall("call-2", "bicycle", '{"n":"🚲"}')),
    id="answer-2",
)


def in_words(text: str) -> list[str]:
    """As models stream: a word with the space behind it."""
    *words, last = text.split(" ")
    return [f"{word} " for word in words] + [last]
