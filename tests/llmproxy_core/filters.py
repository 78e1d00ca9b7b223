"""Watchers and filters whose work can be seen, and answers for them."""

from collections.abc import Callable

from llmproxy_core import Channel, TextFilter, Watcher
from llmproxy_core.chat import (
    AudioDelta,
    AudioPart,
    ChatEvent,
    ChatReply,
    Choice,
    Citation,
    CitationAdded,
    Finish,
    FinishReason,
    Part,
    Ping,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RefusalPart,
    Source,
    Start,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.stages import SPOKEN
from llmproxy_core.usage import Usage

STOP = Finish(FinishReason.STOP, "stop")
TEXT = Channel(0, "text")


def reply_of(*parts: Part, logprobs: bytes | None = None) -> ChatReply:
    return ChatReply("id", "m", (Choice(0, parts, STOP, logprobs),))


class Log:
    """A watcher that writes down what it sees, with its channel."""

    def __init__(self, seen: list[tuple[Channel, str | None]], channel: Channel) -> None:
        self._seen = seen
        self._channel = channel

    def feed(self, text: str) -> None:
        self._seen.append((self._channel, text))

    def end(self) -> None:
        self._seen.append((self._channel, None))


class Logging:
    """Makes a watcher for each channel; *seen* is what all of them saw, None for an end."""

    def __init__(self) -> None:
        self.seen: list[tuple[Channel, str | None]] = []
        self.made: list[Channel] = []

    def __call__(self, channel: Channel) -> Watcher:
        self.made.append(channel)
        return Log(self.seen, channel)


class Upper:
    """A filter that holds nothing."""

    def feed(self, text: str) -> str:
        return text.upper()

    def flush(self) -> str:
        return ""


class HoldAll:
    """A filter that gives nothing until its channel has ended."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        self._held += text
        return ""

    def flush(self) -> str:
        return f"<{self._held}>"


def upper(channel: Channel) -> TextFilter:
    return Upper()


def hold(channel: Channel) -> TextFilter:
    return HoldAll()


EVENTS_WITH_TEXT: list[tuple[Channel, Callable[[str], ChatEvent]]] = [
    (Channel(1, "text"), lambda text: TextDelta(1, text)),
    (Channel(1, "reasoning"), lambda text: ReasoningDelta(1, text)),
    (Channel(1, "refusal"), lambda text: RefusalDelta(1, text)),
    (Channel(1, "arguments", 2), lambda text: ToolCallDelta(1, 2, text)),
    (Channel(1, "text", SPOKEN), lambda text: AudioDelta(1, None, text)),
]
PARTS_WITH_TEXT: list[tuple[Channel, Callable[[str], Part]]] = [
    (Channel(0, "text"), TextPart),
    (Channel(0, "reasoning"), ReasoningPart),
    (Channel(0, "refusal"), RefusalPart),
    (Channel(0, "arguments", 0), lambda text: ToolCall("call", "f", text)),
    (Channel(0, "text", SPOKEN), lambda text: AudioPart(Source(data=""), "a1", text)),
]
EVENTS_WITHOUT_TEXT: list[ChatEvent] = [
    Start("id", "m"),
    Ping(),
    ToolCallStart(0, 0, "call", "f"),
    CitationAdded(0, Citation("url")),
    AudioDelta(0, "QUJD"),
    UsageReported(Usage(1)),
]
