"""The turns of another protocol's conversation, in the order and roles of OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from llmproxy_core.chat import Message, Part, Role, TextPart, ToolCall, ToolResult, changed
from llmproxy_core.wire import Answered, is_plain, paired, results_next, uses_tools
from llmproxy_openai.translated_parts import PartTranslator


class MessageTranslator:
    """Turns messages into such as this protocol has: a message for each result of a tool, text in it alone."""

    answered: Answered = "next"
    """When a call must have its result."""

    keeps_plain: ClassVar[bool] = True
    """Whether a turn that is one text and nothing else says the same here; a variant where it does not, says so."""

    def __init__(self, parts: PartTranslator) -> None:
        self.parts = parts
        self.wire = parts.wire
        self.calls: Mapping[str, ToolCall] = {}
        """The calls, by the places of their results."""

    def messages(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """What can be said of *messages*."""
        if uses_tools(messages):
            messages = self._ordered(messages)
            self.calls = paired(messages, self.answered)
        said: list[Message] = []
        moved: list[Part] = []
        for index, message in enumerate(messages):
            if self.keeps_plain and is_plain(message) and self.wire.kept(message.raw) is None:
                said += self._attached(moved) if moved else ()
                role = message.role if message.role == "assistant" else self.role(message.role)
                said.append(message if role == message.role else changed(message, role=role))
                continue
            place = f"messages[{index}]"
            self.parts.refuse_unknown(message, place)
            parts = [(f"{place}.content[{position}]", part) for position, part in enumerate(message.content)]
            for part_place, part in parts:
                if isinstance(part, ToolResult):
                    said.append(Message("tool", (self._result(part, part_place, moved),)))
            others = [(part_place, part) for part_place, part in parts if not isinstance(part, ToolResult)]
            if message.role == "tool":
                for part_place, part in others:
                    self.wire.refuse(part_place, f"a {type(part).__name__} in a tool's turn")
                continue
            said += self._attached(moved)
            if others or len(others) == len(parts):
                said += self._turn(message, others, place)
        return tuple(said + self._attached(moved))

    def _ordered(self, messages: Sequence[Message]) -> Sequence[Message]:
        """*messages* with results behind their calls, where they have to be."""
        if self.answered != "next":
            return messages
        ordered = results_next(messages)
        if ordered is not messages:
            self.wire.convert("messages", "moved")
        return ordered

    # -- turns -----------------------------------------------------------------------------------------------------

    def _turn(self, message: Message, parts: Iterable[tuple[str, Part]], place: str) -> list[Message]:
        if message.role == "assistant":
            return self.assistant(message, parts, place)
        is_system = message.role in {"system", "developer"}
        content = self.parts.system(parts) if is_system else self.parts.all(parts)
        return [Message(self.role(message.role), content, message.name)]

    def role(self, role: Role) -> Role:
        """`developer` is OpenAI's own word for what others call `system`."""
        return "system" if role == "developer" and not self.parts.family.is_openai else role

    def assistant(self, message: Message, parts: Iterable[tuple[str, Part]], place: str) -> list[Message]:
        """An assistant's turn; nothing when nothing of it is left."""
        content = tuple(said for at, part in parts if (said := self.parts.answered(part, at)) is not None)
        if message.prefix:
            self.wire.refuse(f"{place}.prefix", "an assistant's turn to be continued")
        return [Message("assistant", content, message.name)] if content or not message.content else []

    # -- results of tools ------------------------------------------------------------------------------------------

    def _result(self, result: ToolResult, place: str, moved: list[Part]) -> ToolResult:
        """*result* with its texts alone; what else it has is added to *moved*."""
        self.parts.refuse_unknown(result, place)
        texts: list[str] = []
        media: list[Part] = []
        for position, part in enumerate(result.content):
            part_place = f"{place}.content[{position}]"
            match self.parts.one(part, part_place):
                case TextPart(text=text):
                    texts.append(text)
                case None:
                    pass
                case said:
                    self.wire.convert(part_place, "moved")
                    media.append(said)
        if media:
            moved += [TextPart(f"What the tool call {self.parts.call_id(result.call_id)} gave:"), *media]
            texts = texts or ["See the message that follows."]
        elif result.is_error:
            texts = texts or ["Error"]
        content = (TextPart("\n".join(texts)),) if texts else ()
        return ToolResult(self.parts.call_id(result.call_id), content, self.result_name(result, place))

    def result_name(self, result: ToolResult, place: str) -> str | None:
        """The tool's name in its answer: only where there is no id to pair by."""
        return None if result.call_id else result.name

    def _attached(self, moved: list[Part]) -> list[Message]:
        """The user's turn that shows what results of tools cannot hold."""
        content = tuple(moved)
        moved.clear()
        return [Message("user", content)] if content else []
