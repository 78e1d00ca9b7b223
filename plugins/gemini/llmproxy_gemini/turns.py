"""Turns of a conversation being written as contents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from llmproxy_core import BadRequest
from llmproxy_core.chat import (
    ChatRequest,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from llmproxy_core.wire import Wire, encode, join_array, join_object, text_tool, with_members
from llmproxy_gemini.model_kind import checks_signatures
from llmproxy_gemini.part_write import is_ours, write_part, write_result
from llmproxy_gemini.seals import STAND_IN

_Kind = Literal["kept", "user", "assistant", "tool"]


class _Turn:
    """One content in the making; *order* tells which call each part of a turn of results answers."""

    __slots__ = ("kind", "order", "parts", "shown", "text")

    def __init__(self, kind: _Kind, text: bytes = b"") -> None:
        self.kind = kind
        self.text = text
        self.parts: list[bytes] = []
        self.order: list[int] = []
        self.shown: list[bytes] = []
        """What results show that the model does not take inside of them."""


class Turns:
    """
    Collects contents. Made per request.

    Neighbouring turns of the model become one, and so do the results of tools: Gemini wants all results of one turn
    together, in the order of its calls, right behind it.
    """

    def __init__(self, chat: ChatRequest, wire: Wire) -> None:
        self._wire = wire
        self._turns: list[_Turn] = []
        self._names = {
            part.id: text_tool.sent_name(part.name) if part.kind == "custom" else part.name
            for message in chat.messages
            for part in message.content
            if isinstance(part, ToolCall)
        }
        self._places: dict[str, int] = {}
        self._needs_signatures = checks_signatures(chat.model)

    def keep(self, text: bytes, messages: Sequence[Message]) -> None:
        """A content as it is."""
        for message in messages:
            self._note_calls(message)
        self._turns.append(_Turn("kept", text))

    def _note_calls(self, message: Message) -> None:
        calls = [part.id for part in message.content if isinstance(part, ToolCall)]
        if calls:
            self._places |= {call_id: len(self._places) + index for index, call_id in enumerate(calls)}

    def add(self, message: Message, position: int) -> None:
        """A turn of another protocol, or one that was made or changed."""
        place = f"messages[{position}]"
        if message.name is not None:
            self._wire.convert(f"{place}.name", "dropped")
        if message.prefix:
            self._wire.refuse(f"{place}.prefix", "an assistant's turn to be continued")
        extra = self._wire.unknown(message.extra, place)
        self._note_calls(message)
        kind: _Kind = "user"
        if message.role in {"assistant", "tool"}:
            kind = "assistant" if message.role == "assistant" else "tool"
        last = self._turns[-1] if self._turns else None
        if last is not None and last.kind == kind and kind != "user":
            turn = last
        else:
            turn = _Turn(kind)
            self._turns.append(turn)
        for index, part in enumerate(message.content):
            self._part(part, turn, f"{place}.content[{index}]")
        if extra:
            turn.text = join_object(extra)

    def _part(self, part: Part, turn: _Turn, place: str) -> None:
        if isinstance(part, ToolResult):
            self._result(part, turn, place)
            return
        if isinstance(part, ReasoningPart) and not is_ours(part, self._wire):
            return
        written = self._wire.attempt(lambda: write_part(part, place, self._wire))
        if written is None:
            return
        if isinstance(part, ToolCall) and self._is_unsigned_step(part, turn):
            written = with_members(written, {"thoughtSignature": encode(STAND_IN)})
        turn.parts.append(written)

    def _is_unsigned_step(self, call: ToolCall, turn: _Turn) -> bool:
        """Whether *call* is the first of its turn, which this model wants signed, and is not."""
        is_first = not any(b'"functionCall"' in part or b'"function_call"' in part for part in turn.parts)
        return self._needs_signatures and is_first and call.signature is None and self._wire.kept(call.raw) is None

    # -- results -------------------------------------------------------------------------------------------------

    def _result(self, part: ToolResult, turn: _Turn, place: str) -> None:
        kept = self._wire.kept(part.raw)
        name = self._names.get(part.call_id) or part.name
        if name is None:
            message = f"'{place}' answers the tool call '{part.call_id}', which is nowhere before it"
            raise BadRequest(message, param=place)
        shown = [each for each in part.content if not isinstance(each, TextPart | RefusalPart)]
        inside = shown if self._needs_signatures or self._wire.own else []
        text = write_result(part, name, inside, place, self._wire) if kept is None else kept
        turn.parts.append(text)
        turn.order.append(self._places.get(part.call_id, len(self._places)))
        if kept is None and not inside:
            for each in shown:
                written = self._wire.attempt(lambda each=each: write_part(each, place, self._wire))  # type: ignore[misc]
                turn.shown += [] if written is None else [written]
                self._wire.convert(place, "moved")

    def items(self) -> list[bytes]:
        """All contents; a turn that says nothing is none."""
        items: list[bytes] = []
        for turn in self._turns:
            if turn.kind == "kept":
                items.append(turn.text)
            elif turn.parts:
                items.append(_content(turn))
            if turn.shown:
                items.append(join_object({"role": b'"user"', "parts": join_array(turn.shown)}))
        return items


def _content(turn: _Turn) -> bytes:
    parts = turn.parts
    if turn.kind == "tool" and len(turn.order) == len(parts):
        parts = [parts[place] for place in sorted(range(len(parts)), key=turn.order.__getitem__)]
    role = b'"model"' if turn.kind == "assistant" else b'"user"'
    text = join_object({"role": role, "parts": join_array(parts)})
    if not turn.text:
        return text
    return text[:-1] + b"," + turn.text[1:]
