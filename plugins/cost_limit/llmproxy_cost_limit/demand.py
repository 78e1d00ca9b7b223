"""The most tokens that a request may use."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import msgspec

from llmproxy_core import Operation, Request
from llmproxy_core.chat import (
    AudioPart,
    BuiltinTool,
    ChatRequest,
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ToolResult,
    VideoPart,
)

BILLED = frozenset({Operation.CHAT, Operation.EMBEDDINGS})
"""Operations that are paid for by tokens; counting them is free everywhere."""

TEMPLATE_TOKENS = 256
"""What a model's chat template adds of its own: some 70 with gpt-oss, which even tells the date, fewer elsewhere."""
TOOL_TOKENS = 1024
"""
What providers add when there are tools, and for each tool of their own that a short name stands for.

Anthropic, "Tool use": at most 530 for the system prompt, 735 for computer use, the largest of its own tools.
"""


@attrs.frozen
class Demand:
    """Tokens that a call may use, each an upper bound."""

    input_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, request: Request, assumed_output_tokens: int, assumed_image_tokens: int) -> Demand:
        """
        What *request* may use, of an operation that is billed.

        A token is at least one byte, so the bytes of the body are more than its text can count. BadRequest or
        Unsupported for a conversation that its dialect cannot read: what it may use is anybody's guess.
        """
        if request.operation is not Operation.CHAT:
            return cls(len(request.body), 0)
        chat = request.chat
        media = _Media(chat)
        text = _size(request, chat) - media.image_data
        return cls(
            text + media.count * assumed_image_tokens + _hidden(chat),
            (_cap(chat, assumed_output_tokens) + len(chat.prediction or b"")) * _choices(chat),
        )


def _size(request: Request, chat: ChatRequest) -> int:
    """Bytes of the request. One that a processor made has no wire form: its `repr` is longer than any."""
    return len(request.body) or len(repr(chat).encode(errors="replace"))


def _hidden(chat: ChatRequest) -> int:
    """Input tokens that are not in the request."""
    builtin = sum(isinstance(tool, BuiltinTool) for tool in chat.tools)
    return TEMPLATE_TOKENS + TOOL_TOKENS * (builtin + bool(chat.tools))


def _cap(chat: ChatRequest, assumed: int) -> int:
    return assumed if chat.max_output_tokens is None else max(chat.max_output_tokens, 0)


def _choices(chat: ChatRequest) -> int:
    """How many answers are generated. `best_of` of OpenAI's older completions makes more than it gives."""
    return max(chat.n or 1, _integer(chat.extra.get("best_of")), 1)


def _integer(text: bytes | None) -> int:
    if text is None:
        return 0
    try:
        return msgspec.json.decode(text, type=int)
    except msgspec.MsgspecError:
        return 0  # the provider refuses it


class _Media:
    """
    What of a conversation is counted by other means than its text.

    Images count the same however many bytes they have, so the data of those that came inline is no text: *image_data*
    is its length. Documents and sound cost the more the longer they are, so their bytes stay in.
    """

    def __init__(self, chat: ChatRequest) -> None:
        self.count = 0
        self.image_data = 0
        for part in _parts(chat.messages):
            self._add(part)

    def _add(self, part: Part) -> None:
        match part:
            case ImagePart(source=source) | DocumentPart(source=source) | AudioPart(source=source):
                self.count += source.text is None
                if isinstance(part, ImagePart):
                    self.image_data += len(source.data or "")
            case VideoPart() | OpaquePart():
                self.count += 1
            case _:
                pass


def _parts(messages: tuple[Message, ...]) -> Iterator[Part]:
    """All parts that may be media. One that nobody here can read may be one too, when a user sends it."""
    for message in messages:
        for part in message.content:
            if isinstance(part, ToolResult):
                yield from part.content
            elif not isinstance(part, OpaquePart) or message.role == "user":
                yield part
