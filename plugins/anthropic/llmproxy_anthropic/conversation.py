"""
A conversation of another protocol, written as the turns of this one.

User and assistant take turns, the user first; the results of all calls of a turn stand first in the next one; nothing
is empty. Source: the vendor's pages on the Messages API and on tool use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmproxy_anthropic.block_write import is_plain_text, write_block, write_call, write_plain, write_result
from llmproxy_anthropic.cache_mark import CACHE
from llmproxy_anthropic.thinking_block import is_ours
from llmproxy_anthropic.tool_pairs import ToolPairs
from llmproxy_core.chat import ImagePart, Message, Part, ReasoningPart, RefusalPart, TextPart, ToolCall, ToolResult
from llmproxy_core.wire import Wire, is_plain, join_array, join_object

SYSTEM_ROLES = ("system", "developer")
_FILLER = b'{"type":"text","text":"..."}'
"""Stands for the user where the conversation begins with the assistant."""


class _Turn:
    """One turn in the making. *results* go before *blocks*."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.results: list[bytes] = []
        self.blocks: list[bytes] = []

    def text(self) -> bytes:
        blocks = self.results + self.blocks
        return b'{"role":"%b","content":%b}' % (self.role.encode(), join_array(blocks))


class Conversation:
    """The turns of *messages*, less the system's."""

    def __init__(self, messages: Sequence[Message], wire: Wire) -> None:
        self._wire = wire
        self._pairs = ToolPairs()
        self._turns: list[_Turn] = []
        spoken = [(index, message) for index, message in enumerate(messages) if message.role not in SYSTEM_ROLES]
        for index, message in spoken:
            last = index == spoken[-1][0]
            if (last and message.role == "assistant") or not is_plain(message) or not self._plain(message):
                self._add(message, f"messages[{index}]", last=last)
        self._pairs.close()
        self._begin_with_the_user()

    def text(self) -> bytes:
        """The list of messages."""
        return join_array(turn.text() for turn in self._turns)

    # -- turns ---------------------------------------------------------------------------------------------------

    def _plain(self, message: Message) -> bool:
        """A turn that is one text; False where its block has bytes of its own."""
        part = message.content[0]
        if not isinstance(part, TextPart) or not is_plain_text(part, self._wire):
            return False
        if part.text.strip():
            self._turn("assistant" if message.role == "assistant" else "user").blocks.append(write_plain(part))
        return True

    def _add(self, message: Message, place: str, *, last: bool) -> None:
        if message.name is not None and self._wire.translation is not None:
            self._wire.translation.advise(f"{place}.name")
        self._wire.unknown(message.extra, place)
        role = "assistant" if message.role == "assistant" else "user"
        parts = _trimmed(message.content) if last and role == "assistant" else message.content
        if parts is not message.content:
            self._wire.convert(f"{place}.content", "cleaned")
        for index, part in enumerate(parts):
            self._part(role, part, f"{place}.content[{index}]")

    def _part(self, role: str, part: Part, place: str) -> None:
        if isinstance(part, TextPart | RefusalPart) and not part.text.strip():
            return
        if isinstance(part, TextPart) and is_plain_text(part, self._wire):
            self._turn(role).blocks.append(write_plain(part))
            return
        if isinstance(part, ToolResult):
            answered = self._pairs.result(part, place)
            block = self._attempt(lambda: self._result(part, answered, place))
            self._turn("user").results.append(block or self._result(_without_content(part), answered, place))
            return
        if isinstance(part, ToolCall):
            turn = self._turn("assistant")
            called = self._pairs.call(part, place)
            members = write_call(part, called, place, self._wire)
            members |= self._wire.unknown(part.extra, place, CACHE)
            turn.blocks.append(join_object(members))
            return
        if isinstance(part, ImagePart) and role == "assistant":
            self._wire.refuse(place, "an image in a turn of the assistant")
            return
        block = self._attempt(lambda: write_block(part, place, self._wire))
        if block is None:
            return
        self._turn(role).blocks.append(block)

    def _result(self, part: ToolResult, answered: str, place: str) -> bytes:
        members = write_result(part, answered, place, self._wire)
        return join_object(members | self._wire.unknown(part.extra, place, CACHE))

    def _attempt(self, write: Callable[[], bytes | None]) -> bytes | None:
        return self._wire.attempt(write)

    def _turn(self, role: str) -> _Turn:
        """The turn of *role* that is being made; a new one where the other spoke last."""
        if not self._turns or self._turns[-1].role != role:
            if role == "assistant":
                self._pairs.close()
            self._turns.append(_Turn(role))
        return self._turns[-1]

    def _begin_with_the_user(self) -> None:
        if self._turns and self._turns[0].role == "user":
            return
        first = _Turn("user")
        first.blocks.append(_FILLER)
        self._turns.insert(0, first)
        self._wire.convert("messages", "completed")


def _without_content(part: ToolResult) -> ToolResult:
    return ToolResult(part.call_id, (), is_error=part.is_error)


def _trimmed(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """*parts* of the turn that is to be continued, which may not end in white space."""
    if not parts or not isinstance(parts[-1], TextPart) or parts[-1].text == parts[-1].text.rstrip():
        return parts
    return (*parts[:-1], TextPart(parts[-1].text.rstrip(), cache=parts[-1].cache))


def may_think(messages: Sequence[Message]) -> bool:
    """
    Whether thinking in a given budget is accepted: a turn with calls that goes on must begin with our thinking.

    What the user says right after the results stands in their turn, and the calls' turn goes on.
    """
    spoken = _spoken(messages)
    while spoken and spoken[-1].role == "user":
        spoken.pop()
    if not spoken or spoken[-1].role != "tool":
        return True
    for before, message in reversed(list(zip([None, *spoken], spoken, strict=False))):
        if message.role == "user":
            break
        begins = message.role == "assistant" and (before is None or before.role != "assistant")
        if begins and not (message.content and _is_our_thinking(message.content[0])):
            return False
    return True


def is_begun(messages: Sequence[Message]) -> bool:
    """Whether the assistant spoke last, and goes on: never with thinking in a given budget."""
    spoken = _spoken(messages)
    return bool(spoken) and spoken[-1].role == "assistant"


def _spoken(messages: Sequence[Message]) -> list[Message]:
    """*messages* less the system's, wherever they stand."""
    return [message for message in messages if message.role not in SYSTEM_ROLES]


def _is_our_thinking(part: Part) -> bool:
    return isinstance(part, ReasoningPart) and is_ours(part)
