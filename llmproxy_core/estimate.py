"""
Tokens of a call whose provider told none: a stream cut off, a client that left, a server that never says.

About four bytes of text make a token in the tokenizers of all big providers. It is an estimate, and marked as one.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmproxy_core.chat import (
    AudioDelta,
    AudioPart,
    BuiltinTool,
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
from llmproxy_core.token_estimate import PER_CALL, ROUGH, Tokenizer, counted, estimated_output, estimated_tokens
from llmproxy_core.usage import Usage, UsageSource

BILLED_OPERATIONS = frozenset({Operation.CHAT, Operation.EMBEDDINGS})
"""What providers take money for, by tokens."""

_PER_MESSAGE = 4
"""What the marks of a turn cost (OpenAI's cookbook, "How to count tokens": 3 and the role)."""
_PER_MEDIUM = 765
"""An image of 1024 pixels squared at high detail (OpenAI, "Images and vision"); other media are anybody's guess."""


def estimated_usage(request: Request, output_tokens: int, tokenizer: Tokenizer = ROUGH) -> Usage:
    """What a call with *request* used, of which *output_tokens* were read."""
    return Usage(_input_tokens(request, tokenizer), output_tokens, source=UsageSource.ESTIMATED)


def _input_tokens(request: Request, tokenizer: Tokenizer) -> int:
    if request.operation in CONVERSATIONS:
        try:
            return _chat_tokens(request.chat, tokenizer)
        except ProxyError:  # the provider took what we cannot read
            pass
    return estimated_tokens(len(request.body))


def _chat_tokens(chat: ChatRequest, tokenizer: Tokenizer) -> int:
    tokens = sum(
        _PER_MESSAGE + sum(_part_tokens(part, tokenizer) for part in message.content) for message in chat.messages
    )
    for tool in chat.tools:
        said = tool.raw.text.decode(errors="replace") if isinstance(tool, BuiltinTool) else _tool_text(tool)
        tokens += counted(said, tokenizer)
    return tokens


def _tool_text(tool: Tool) -> str:
    return tool.name + (tool.description or "") + (tool.parameters or b"").decode(errors="replace")


def _part_tokens(part: Part, tokenizer: Tokenizer) -> int:
    match part:
        case ImagePart() | DocumentPart() | VideoPart():
            return _PER_MEDIUM
        case AudioPart():
            return _PER_MEDIUM if part.transcript is None else counted(part.transcript, tokenizer)
        case ToolResult(content=content):
            return sum(_part_tokens(inner, tokenizer) for inner in content)
        case OpaquePart(raw=raw):
            return estimated_tokens(len(raw.text))
        case TextPart() | ReasoningPart() | RefusalPart():
            return counted(part.text, tokenizer)
        case ToolCall():
            return PER_CALL + counted(part.name + part.arguments, tokenizer)


def estimated_reply(dialect: Dialect, api: Api, body: bytes, tokenizer: Tokenizer = ROUGH) -> int:
    """The tokens of a whole answer."""
    try:
        reply = dialect.read_reply(api, body)
    except ProxyError:  # what cannot be read was paid for all the same
        return estimated_tokens(len(body))
    return sum(_part_tokens(part, tokenizer) for choice in reply.choices for part in choice.content)


_REMEMBERED = 4 << 10
"""Characters of a stream's text that are remembered, to count how many make a token."""


class TextCount:
    """Counts what the events of a stream say."""

    __slots__ = ("_beginning", "_calls", "_deltas", "_held", "_size")

    def __init__(self) -> None:
        self._size = self._held = self._calls = self._deltas = 0
        self._beginning = bytearray()  # an object for each piece would be ten times its text

    def add(self, events: Iterable[ChatEvent]) -> None:
        for event in events:
            match event:
                case TextDelta() | ReasoningDelta() | RefusalDelta():
                    self.note(event.text)
                case ToolCallDelta():
                    self.note(event.arguments)
                case AudioDelta(transcript=str(text)):
                    self.note(text)
                case ToolCallStart():
                    self._calls += 1
                    self.note(event.name)
                case _:
                    pass

    def note(self, text: str) -> None:
        """Count a piece of what is said."""
        if text:
            self._size += len(text)
            self._deltas += 1
            if self._held < _REMEMBERED:
                self._held += len(text)
                self._beginning += text.encode(errors="replace")

    def tokens(self, tokenizer: Tokenizer = ROUGH) -> int:
        """An estimate of the tokens so far."""
        said = tokenizer.count(self._beginning.decode())
        if self._size > self._held:
            said = -(-said * self._size // self._held)
        return estimated_output(said, self._deltas, self._calls)
