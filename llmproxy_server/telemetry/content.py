"""What was asked and answered, as the GenAI conventions write conversations: JSON, bounded, only where it is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from llmproxy_core.chat import (
    AudioPart,
    BuiltinTool,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResult,
    VideoPart,
)
from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.outcome import KeptBody
from llmproxy_core.request import Request
from llmproxy_server.kept_reply import ReplyReader
from llmproxy_server.log_redact import Redaction
from llmproxy_server.telemetry import conventions as names
from llmproxy_server.telemetry.inference import cut

_CUT = "…"
_SYSTEM = frozenset({"system", "developer"})
_LONGEST_WORD = 256
_ENVELOPE = 64  # bytes of JSON around a text: so that many small parts are bounded, too
Json = dict[str, object]


class _Budget:
    """How much may still be said."""

    def __init__(self, max_bytes: int, redact: Redaction) -> None:
        self._left = max_bytes
        self._redact = redact

    @property
    def is_spent(self) -> bool:
        return self._left <= 0

    def text(self, text: str) -> str:
        """*text*, cut where the budget ends: not within a secret, whose beginning nobody would know for one."""
        self._left -= _ENVELOPE
        size = len(text.encode("utf-8", "replace"))
        if size <= self._left:
            self._left -= size
            return text
        left = max(self._left, 0)
        kept = self._redact.head(text, left).encode("utf-8", "replace")[:left].decode("utf-8", "ignore")
        self._left = 0
        return kept + _CUT

    def word(self, text: str) -> str:
        """*text*, which is short where it is what it should be: an id, a reason."""
        kept = cut(text, _LONGEST_WORD, self._redact)
        self._left -= len(kept)
        return kept


class Content:
    """Nothing in it raises: what cannot be read is left out."""

    def __init__(self, dialects: Iterable[Dialect], max_bytes: int, redact: Redaction) -> None:
        """*max_bytes*: of a query, and of an answer."""
        self._reader = ReplyReader(dialects)
        self._max_bytes = max_bytes
        self._redact = redact

    def asked(self, request: Request) -> dict[str, str]:
        if request.operation is not Operation.CHAT:
            return {}
        try:
            chat = request.chat
        except ProxyError:
            return {}
        budget = _Budget(self._max_bytes, self._redact)
        # The last turns say most: they are written first, and what does not fit is at the beginning.
        turns = [it for it in (_turn(turn, budget) for turn in reversed(chat.messages) if not budget.is_spent) if it]
        system = [it for it in turns if it["role"] in _SYSTEM]
        found: dict[str, object] = {
            names.INPUT_MESSAGES: [it for it in reversed(turns) if it["role"] not in _SYSTEM],
            names.SYSTEM_INSTRUCTIONS: [part for it in reversed(system) for part in _parts_of(it)],
            names.TOOL_DEFINITIONS: [
                {"type": "builtin" if isinstance(tool, BuiltinTool) else tool.kind, "name": _tool_name(tool, budget)}
                for tool in chat.tools
                if not budget.is_spent
            ],
        }
        return {name: _json(value) for name, value in found.items() if value}

    def answered(self, body: KeptBody) -> dict[str, str]:
        reply = self._reader.reply(body)
        if reply is None:
            return {}
        budget = _Budget(self._max_bytes, self._redact)
        said: list[Json] = []
        for choice in reply.choices:
            if budget.is_spent:
                break
            turn: Json = {"role": "assistant", "parts": _parts(choice.content, budget)}
            if choice.finish is not None:
                turn["finish_reason"] = budget.word(choice.finish.word or str(choice.finish.reason))
            said.append(turn)
        return {names.OUTPUT_MESSAGES: _json(said)} if said else {}


def _turn(turn: Message, budget: _Budget) -> Json:
    return {"role": turn.role, "parts": _parts(turn.content, budget)}


def _parts_of(turn: Json) -> Sequence[object]:
    parts = turn["parts"]
    return parts if isinstance(parts, list) else []


def _parts(content: Sequence[Part], budget: _Budget) -> list[Json]:
    return [_part(part, budget) for part in content if not budget.is_spent]


def _part(part: Part, budget: _Budget) -> Json:
    """Text as text; of pictures, sound and files only what they are."""
    match part:
        case TextPart():
            return {"type": "text", "content": budget.text(part.text)}
        case ReasoningPart():
            return {"type": "reasoning", "content": budget.text(part.text)}
        case RefusalPart():
            return {"type": "refusal", "content": budget.text(part.text)}
        case ToolCall():
            name = budget.text(part.name)
            return {
                "type": "tool_call",
                "id": budget.word(part.id),
                "name": name,
                "arguments": budget.text(part.arguments),
            }
        case ToolResult():
            text = "".join(it.text for it in part.content if isinstance(it, TextPart))
            return {"type": "tool_call_response", "id": budget.word(part.call_id), "response": budget.text(text)}
        case ImagePart() | DocumentPart() | AudioPart() | VideoPart():
            return {"type": "blob", "modality": type(part).__name__.removesuffix("Part").lower()}
        case _:
            return {"type": budget.text(part.kind)}


def _tool_name(tool: object, budget: _Budget) -> str:
    return budget.text(str(getattr(tool, "kind" if isinstance(tool, BuiltinTool) else "name", "")))


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, msgspec.MsgspecError):  # half a surrogate pair
        import json

        return json.dumps(value)
