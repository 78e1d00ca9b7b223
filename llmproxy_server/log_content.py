"""What was asked and what was answered, as text for the log: `log_content`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from llmproxy_core.chat import (
    AudioPart,
    BuiltinTool,
    ChatReply,
    ChatRequest,
    Choice,
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResult,
    VideoPart,
)
from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.errors import raise_unless_bug
from llmproxy_core.outcome import KeptBody
from llmproxy_core.request import Request
from llmproxy_server.kept_reply import ReplyReader

_FEW_NUMBERS = 16
_LONG_WORD = 256  # characters; a longer one is no word of anybody's
OPAQUE = "[opaque]"


class ContentText:
    """Reads requests and answers of every dialect. Nothing in it raises: what cannot be read is given as it stands."""

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        self._reader = ReplyReader(dialects)

    def query(self, request: Request) -> str:
        """What *request* asks; "" when it has no body."""
        if request.operation is Operation.OPAQUE:
            return OPAQUE
        if request.operation is Operation.CHAT:
            try:
                return chat_text(request.chat)
            except BaseException as bug:  # noqa: BLE001 - a dialect's bug, or the caller's mistake: the bytes say it too
                raise_unless_bug(bug)
                return as_text(request.body)
        return as_text(request.body)

    def answer(self, body: KeptBody) -> str:
        """What *body* says, as far as it was kept."""
        reply = self._reader.reply(body)
        return as_text(body.data) if reply is None else reply_text(reply)


# -- conversations ---------------------------------------------------------------------------------------------------


def chat_text(chat: ChatRequest) -> str:
    """A conversation, each turn on a line of its own; what is no text is named."""
    lines = [f"{turn.role}: {_turn_text(turn)}" for turn in chat.messages]
    if chat.tools:
        names = [tool.kind if isinstance(tool, BuiltinTool) else tool.name for tool in chat.tools]
        lines.insert(0, f"[tools: {', '.join(names)}]")
    return "\n".join(lines)


def _turn_text(turn: Message) -> str:
    return " ".join(_part_texts(turn.content))


def reply_text(reply: ChatReply) -> str:
    """An answer; of several choices each behind its number."""
    texts = [_choice_text(choice) for choice in reply.choices]
    if len(texts) == 1:
        return texts[0]
    return "\n".join(f"[{choice.index}] {text}" for choice, text in zip(reply.choices, texts, strict=True))


def _choice_text(choice: Choice) -> str:
    if text := " ".join(_part_texts(choice.content)):
        return text
    finish = choice.finish
    return "[nothing]" if finish is None else _named("nothing:", finish.word or finish.reason)


def _part_texts(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        if text := part_text(part):
            yield text


def part_text(part: Part) -> str:
    """The text of *part*, or its name in brackets. Never where media come from: addresses may hold credentials."""
    match part:
        case TextPart(text=text):
            return text
        case ReasoningPart(text=text):
            return f"[reasoning: {text}]" if text else "[reasoning]"
        case RefusalPart(text=text):
            return f"[refusal: {text}]"
        case ToolCall(name=name, arguments=arguments):
            return f"[call {name}: {arguments}]"
        case ToolResult(call_id=call_id, content=content):
            return f"[result of {part.name or call_id}: {' '.join(_part_texts(content))}]"
        case AudioPart(transcript=transcript):
            return f"[audio: {transcript}]" if transcript else _named("audio", part.source.media_type)
        case ImagePart():
            return _named("image", part.source.media_type)
        case VideoPart():
            return _named("video", part.source.media_type)
        case DocumentPart(title=title):
            return _named("document", title or part.source.media_type)
        case OpaquePart(kind=kind):
            return _named(kind)


def _named(kind: str, detail: str | None = None) -> str:
    return f"[{kind} {detail}]" if detail else f"[{kind}]"


# -- other bodies ----------------------------------------------------------------------------------------------------


def as_text(body: bytes) -> str:
    """*body* as it stands, but for vectors and data in letters, which are counted."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")
    return msgspec.json.encode(_told(value)).decode("utf-8", "replace")


def _told(value: object) -> object:
    if isinstance(value, dict):
        return {name: _told(each) for name, each in value.items()}
    if isinstance(value, list):
        if len(value) > _FEW_NUMBERS and all(isinstance(each, int | float) for each in value):
            return f"[{len(value)} numbers]"
        return [_told(each) for each in value]
    if isinstance(value, str) and len(value) > _LONG_WORD and value.isascii() and not any(map(str.isspace, value)):
        return f"[{len(value)} characters]"
    return value
