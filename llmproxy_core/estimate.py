"""
Tokens of a call whose provider told none: a stream cut off, a client that left, a server that never says.

About four bytes of text make a token in the tokenizers of all big providers. It is an estimate, and marked as one.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmproxy_core.chat import (
    AudioDelta,
    AudioPart,
    ChatEvent,
    ChatRequest,
    DocumentPart,
    ImagePart,
    OpaquePart,
    Part,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RefusalPart,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    VideoPart,
)
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.request import Request
from llmproxy_core.usage import Usage, UsageSource

BILLED_OPERATIONS = frozenset({Operation.CHAT, Operation.EMBEDDINGS})
"""What providers take money for, by tokens."""

_BYTES_PER_TOKEN = 4
_PER_MESSAGE = 4
"""What the marks of a turn cost (OpenAI's cookbook, "How to count tokens": 3 and the role)."""
_PER_MEDIUM = 765
"""An image of 1024 pixels squared at high detail (OpenAI, "Images and vision"); other media are anybody's guess."""


def estimated_tokens(size: int) -> int:
    """The tokens of *size* bytes of text, rounded up."""
    return -(-size // _BYTES_PER_TOKEN)


def estimated_usage(request: Request, output_tokens: int) -> Usage:
    """What a call with *request* used, of which *output_tokens* were read."""
    return Usage(_input_tokens(request), output_tokens, source=UsageSource.ESTIMATED)


def _input_tokens(request: Request) -> int:
    if request.operation is Operation.CHAT:
        try:
            return _chat_tokens(request.chat)
        except ProxyError:  # the provider took what we cannot read
            pass
    return estimated_tokens(len(request.body))


def _chat_tokens(chat: ChatRequest) -> int:
    tokens = sum(_PER_MESSAGE + sum(map(_part_tokens, message.content)) for message in chat.messages)
    for tool in chat.tools:
        if isinstance(tool, Tool):
            said = len(tool.name) + len((tool.description or "").encode()) + len(tool.parameters or b"")
            tokens += estimated_tokens(said)
        else:
            tokens += estimated_tokens(len(tool.raw.text))
    return tokens


def _part_tokens(part: Part) -> int:
    match part:
        case ImagePart() | DocumentPart() | AudioPart() | VideoPart():
            return _PER_MEDIUM
        case ToolResult(content=content):
            return sum(map(_part_tokens, content))
        case OpaquePart(raw=raw):
            return estimated_tokens(len(raw.text))
        case _:
            return estimated_tokens(len(part_text(part).encode(errors="replace")))


def part_text(part: Part) -> str:
    """The text that a model reads or writes as *part*."""
    match part:
        case TextPart() | ReasoningPart() | RefusalPart():
            return part.text
        case ToolCall():
            return part.name + part.arguments
        case AudioPart():
            return part.transcript or ""
        case _:
            return ""


class TextCount:
    """Counts what the events of a stream say."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, events: Iterable[ChatEvent]) -> None:
        for event in events:
            match event:
                case TextDelta() | ReasoningDelta() | RefusalDelta():
                    self._bytes += len(event.text.encode(errors="replace"))
                case ToolCallDelta():
                    self._bytes += len(event.arguments.encode(errors="replace"))
                case AudioDelta(transcript=str(text)):
                    self._bytes += len(text.encode(errors="replace"))
                case _:
                    pass

    def tokens(self) -> int:
        return estimated_tokens(self._bytes)
