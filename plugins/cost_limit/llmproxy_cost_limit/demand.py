"""The most tokens that a request may use."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping

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

TEMPLATE_TOKENS = 512
"""
What a model's chat template adds of its own.

The longest that is known is the system prompt that Mistral Small 3.1 has where a request has none: some 400. It is 70
with gpt-oss, which even tells the date, and fewer elsewhere.
"""
TOOL_TOKENS = 1024
"""
What providers add when there are tools, and for each tool of their own that a short name stands for.

Anthropic, "Tool use": at most 530 for the system prompt, 735 for computer use, the largest of its own tools.
"""

MOST_TOKENS = 1_000_000_000
"""No answer is longer and nobody gets more of them: what is asked for beyond that costs no more."""

_CAPS = frozenset({"maxtokens", "maxcompletiontokens", "maxoutputtokens", "maxnewtokens", "npredict", "numpredict"})
_CHOICES = frozenset({"n", "bestof", "candidatecount"})
"""
Members that say how long answers may be and how many are made, in some server's protocol, without their underscores.

Which of them the upstream goes by, and whether it minds their case (Go's parser does not; Google's takes both
`maxOutputTokens` and `max_output_tokens`), nobody here knows: the largest counts. `best_of` of OpenAI's older
completions makes more answers than it gives.
"""
_OPTIONS = frozenset({"generationconfig", "options"})
"""Objects that some protocols have these in."""
_MEDIA = re.compile("image|audio|video|file|document|media", re.IGNORECASE).search


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
            return cls(len(request.body) + _embedded(request) * assumed_image_tokens, 0)
        chat = request.chat
        media = _Media(chat)
        text = _size(request, chat) - media.image_data
        members = request.json if request.body else chat.extra
        cap = _cap(chat, members, assumed_output_tokens) + len(chat.prediction or b"")
        return cls(text + media.count * assumed_image_tokens + _hidden(chat), cap * _choices(chat, members))


def _size(request: Request, chat: ChatRequest) -> int:
    """Bytes of the request. One that a processor made has no wire form: its `repr` is longer than any."""
    return len(request.body) or len(repr(chat).encode(errors="replace"))


def _hidden(chat: ChatRequest) -> int:
    """Input tokens that are not in the request."""
    builtin = sum(isinstance(tool, BuiltinTool) for tool in chat.tools)
    return TEMPLATE_TOKENS + TOOL_TOKENS * (builtin + bool(chat.tools))


def _embedded(request: Request) -> int:
    """How many media an embeddings request may hold: providers that embed images take an object in a text's place."""
    if request.body.count(b"{") < 2:
        return 0
    return sum(_objects(msgspec.json.decode(raw)) for raw in request.json.values() if b"{" in bytes(raw))


def _objects(value: object) -> int:
    match value:
        case dict():
            return 1 + sum(map(_objects, value.values()))
        case list():
            return sum(map(_objects, value))
        case _:
            return 0


def _cap(chat: ChatRequest, members: Mapping[str, bytes | msgspec.Raw], assumed: int) -> int:
    """
    The longest answer.

    A cap that is not positive counts as none: at llama.cpp it means endless. One that some other protocol knows can
    only raise what is said in this one: who does not know it makes longer answers.
    """
    caps = [chat.max_output_tokens or assumed, *_numbers(members, _CAPS)]
    return min(max(cap if cap > 0 else assumed for cap in caps), MOST_TOKENS)


def _choices(chat: ChatRequest, members: Mapping[str, bytes | msgspec.Raw]) -> int:
    """How many answers are generated."""
    return min(max(chat.n or 1, *_numbers(members, _CHOICES), 1), MOST_TOKENS)


def _numbers(members: Mapping[str, bytes | msgspec.Raw], names: Collection[str]) -> list[int]:
    """The values of those *members*, and of their options, that have one of *names* in any case, and are numbers."""
    found = (_number(bytes(text)) for name, text in _with_options(members) if name in names)
    return [number for number in found if number is not None]


def _with_options(members: Mapping[str, bytes | msgspec.Raw]) -> Iterator[tuple[str, bytes | msgspec.Raw]]:
    """Names without case and underscores, and values."""
    for name, text in members.items():
        plain = name.casefold().replace("_", "")
        yield plain, text
        if plain in _OPTIONS and bytes(text).startswith(b"{"):
            inner = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            yield from ((it.casefold().replace("_", ""), value) for it, value in inner.items())


def _number(text: bytes) -> int | None:
    """A number as lenient servers read one, rounded up and at most MOST_TOKENS; None for what even they refuse."""
    try:
        value = msgspec.json.decode(text)
        number = float(value) if isinstance(value, str) else value
        return math.ceil(min(number, MOST_TOKENS)) if isinstance(number, int | float) else None
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return None


class _Media:
    """
    What of a conversation is counted by other means than its text.

    Images count the same however many bytes they have, so the data of those that came inline is no text: *image_data*
    is its length. Documents and sound cost the more the longer they are, so their bytes stay in, also where they came
    in an image's place, as some servers take them.
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
                if isinstance(part, ImagePart) and (source.media_type or "").lower().startswith("image/"):
                    self.image_data += len(source.data or "")
            case VideoPart() | OpaquePart():
                self.count += 1
            case _:
                pass


def _parts(messages: tuple[Message, ...]) -> Iterator[Part]:
    """
    All parts that may be media.

    One that nobody here can read may be one too: of an assistant, whose answers may hold anything, when its name says
    so. Who calls may make up what an assistant said.
    """
    for message in messages:
        for part in message.content:
            if isinstance(part, ToolResult):
                yield from part.content
            elif not isinstance(part, OpaquePart) or message.role != "assistant" or _MEDIA(part.kind):
                yield part
