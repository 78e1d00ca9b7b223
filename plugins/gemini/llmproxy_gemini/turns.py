"""Turns of a conversation being written as contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from llmproxy_core.wire import (
    Wire,
    encode,
    is_plain,
    join_array,
    join_object,
    paired,
    text_signature,
    text_tool,
    with_members,
)
from llmproxy_gemini.model_kind import checks_signatures
from llmproxy_gemini.part_write import is_ours, write_part, write_result
from llmproxy_gemini.seals import STAND_IN

_Kind = Literal["kept", "user", "assistant", "tool"]


class _Turn:
    """One content in the making; *order* tells which call each part of a turn of results answers."""

    __slots__ = ("has_calls", "kind", "order", "parts", "shown", "text")

    def __init__(self, kind: _Kind, text: bytes = b"") -> None:
        self.kind = kind
        self.text = text
        self.has_calls = False
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
        self._calls = _own_calls(chat.messages) if wire.own else paired(chat.messages)
        self._order = {id(call): place for place, call in enumerate(_calls_of(chat.messages))}
        self._needs_signatures = checks_signatures(chat.model)

    def keep(self, text: bytes) -> None:
        """A content as it is."""
        self._turns.append(_Turn("kept", text))

    def add(self, message: Message, position: int) -> None:
        """A turn of another protocol, or one that was made or changed."""
        if is_plain(message) and self._plain(message):
            return
        place = f"messages[{position}]"
        if message.name is not None:
            self._wire.convert(f"{place}.name", "dropped")
        if message.prefix:
            self._wire.refuse(f"{place}.prefix", "an assistant's turn to be continued")
        extra = self._wire.unknown(message.extra, place)
        kind: _Kind = "user"
        if message.role in {"assistant", "tool"}:
            kind = "assistant" if message.role == "assistant" else "tool"
        turn = self._turn(kind)
        parts = list(enumerate(message.content)) if self._wire.own else text_signature.rejoined(message.content)
        for index, part in parts:
            self._part(part, turn, f"{place}.content[{index}]")
        if extra:
            turn.text = join_object(extra)

    def _plain(self, message: Message) -> bool:
        """A turn that is one text; False where its part has bytes of its own."""
        part = message.content[0]
        if not isinstance(part, TextPart) or self._wire.kept(part.raw) is not None:
            return False
        turn = self._turn("assistant" if message.role == "assistant" else "user")
        if part.text or self._wire.own:
            turn.parts.append(b'{"text":%b}' % encode(part.text))
        return True

    def _turn(self, kind: _Kind) -> _Turn:
        """The last turn, where it goes on; else a new one."""
        last = self._turns[-1] if self._turns else None
        if last is not None and last.kind == kind and kind != "user":
            return last
        turn = _Turn(kind)
        self._turns.append(turn)
        return turn

    def _part(self, part: Part, turn: _Turn, place: str) -> None:
        if isinstance(part, ToolResult):
            self._result(part, turn, place)
            return
        if isinstance(part, ReasoningPart) and not is_ours(part, self._wire):
            return
        written = self._wire.attempt(lambda: write_part(part, place, self._wire))
        if written is None:
            return
        if isinstance(part, ToolCall):
            if not turn.has_calls and self._is_unsigned(part):
                written = with_members(written, {"thoughtSignature": encode(STAND_IN)})
            turn.has_calls = True
        turn.parts.append(written)

    def _is_unsigned(self, call: ToolCall) -> bool:
        """Whether *call*, the first of its turn, is not signed, which this model wants."""
        return self._needs_signatures and call.signature is None and self._wire.kept(call.raw) is None

    # -- results -------------------------------------------------------------------------------------------------

    def _result(self, part: ToolResult, turn: _Turn, place: str) -> None:
        kept = self._wire.kept(part.raw)
        call = self._calls.get(place)
        name = part.name if call is None else _sent_name(call)
        if name is None:
            message = f"'{place}' answers the tool call '{part.call_id}', which is nowhere before it"
            raise BadRequest(message, param=place)
        shown = [each for each in part.content if not isinstance(each, TextPart | RefusalPart)]
        inside = shown if self._needs_signatures or self._wire.own else []
        text = write_result(part, name, inside, place, self._wire) if kept is None else kept
        turn.parts.append(text)
        turn.order.append(len(self._order) if call is None else self._order[id(call)])
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


def _calls_of(messages: Sequence[Message]) -> list[ToolCall]:
    return [part for message in messages for part in message.content if isinstance(part, ToolCall)]


def _own_calls(messages: Sequence[Message]) -> Mapping[str, ToolCall]:
    """The calls by the places of their results, as far as there are such: the provider is left to judge its own."""
    calls = {call.id: call for call in _calls_of(messages)}
    return {
        f"messages[{number}].content[{index}]": calls[part.call_id]
        for number, message in enumerate(messages)
        for index, part in enumerate(message.content)
        if isinstance(part, ToolResult) and part.call_id in calls
    }


def _sent_name(call: ToolCall) -> str:
    return text_tool.sent_name(call.name) if call.kind == "custom" else call.name


def _content(turn: _Turn) -> bytes:
    parts = turn.parts
    if turn.kind == "tool" and len(turn.order) == len(parts):
        parts = [parts[place] for place in sorted(range(len(parts)), key=turn.order.__getitem__)]
    role = b"model" if turn.kind == "assistant" else b"user"
    text = b'{"role":"%b","parts":[%b]}' % (role, b",".join(parts))
    if not turn.text:
        return text
    return text[:-1] + b"," + turn.text[1:]
