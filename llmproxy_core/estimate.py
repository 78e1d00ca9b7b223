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
    ToolCallStart,
    ToolResult,
    VideoPart,
)
from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.request import CONVERSATIONS, Request
from llmproxy_core.token_estimate import PER_CALL, estimated_output, estimated_tokens
from llmproxy_core.usage import Usage, UsageSource

BILLED_OPERATIONS = frozenset({Operation.CHAT, Operation.EMBEDDINGS})
"""What providers take money for, by tokens."""

_PER_MESSAGE = 4
"""What the marks of a turn cost (OpenAI's cookbook, "How to count tokens": 3 and the role)."""
_PER_MEDIUM = 765
"""An image of 1024 pixels squared at high detail (OpenAI, "Images and vision"); other media are anybody's guess."""


def estimated_usage(request: Request, output_tokens: int) -> Usage:
    """What a call with *request* used, of which *output_tokens* were read."""
    return Usage(_input_tokens(request), output_tokens, source=UsageSource.ESTIMATED)


def _input_tokens(request: Request) -> int:
    if request.operation in CONVERSATIONS:
        try:
            return _chat_tokens(request.chat)
        except ProxyError:  # the provider took what we cannot read
            pass
    return estimated_tokens(len(request.body))


def _chat_tokens(chat: ChatRequest) -> int:
    tokens = sum(_PER_MESSAGE + sum(map(_part_tokens, message.content)) for message in chat.messages)
    for tool in chat.tools:
        if isinstance(tool, Tool):
            said = _size(tool.name) + _size(tool.description or "") + len(tool.parameters or b"")
            tokens += estimated_tokens(said)
        else:
            tokens += estimated_tokens(len(tool.raw.text))
    return tokens


def _part_tokens(part: Part) -> int:
    match part:
        case ImagePart() | DocumentPart() | VideoPart():
            return _PER_MEDIUM
        case AudioPart():
            return _PER_MEDIUM if part.transcript is None else estimated_tokens(_size(part.transcript))
        case ToolResult(content=content):
            return sum(map(_part_tokens, content))
        case OpaquePart(raw=raw):
            return estimated_tokens(len(raw.text))
        case TextPart() | ReasoningPart() | RefusalPart():
            return estimated_tokens(_size(part.text))
        case ToolCall():
            return PER_CALL + estimated_tokens(_size(part.name) + _size(part.arguments))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def estimated_reply(dialect: Dialect, api: Api, body: bytes) -> int:
    """The tokens of a whole answer."""
    try:
        reply = dialect.read_reply(api, body)
    except ProxyError:  # what cannot be read was paid for all the same
        return estimated_tokens(len(body))
    return sum(_part_tokens(part) for choice in reply.choices for part in choice.content)


class TextCount:
    """Counts what the events of a stream say."""

    __slots__ = ("_bytes", "_calls", "_deltas")

    def __init__(self) -> None:
        self._bytes = self._calls = self._deltas = 0

    def add(self, events: Iterable[ChatEvent]) -> None:
        for event in events:
            match event:
                case TextDelta() | ReasoningDelta() | RefusalDelta():
                    text = event.text
                case ToolCallDelta():
                    text = event.arguments
                case AudioDelta(transcript=str(text)):
                    pass
                case ToolCallStart():
                    self._calls += 1
                    text = event.name
                case _:
                    continue
            if text:
                self._bytes += _size(text)
                self._deltas += 1

    def tokens(self) -> int:
        return estimated_output(self._bytes, self._deltas, self._calls)
