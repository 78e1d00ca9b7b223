"""Requests of another protocol, as far as the Responses API can say them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import attrs

from llmproxy_core.chat import (
    AudioPart,
    BuiltinTool,
    ChatRequest,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    ReasoningConfig,
    ReasoningPart,
    Source,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    changed,
)
from llmproxy_core.translation import Translation
from llmproxy_core.wire import Wire, made_id, uses_tools
from llmproxy_openai.model_family import ModelFamily, family_of
from llmproxy_openai.responses.paths import DIALECT
from llmproxy_openai.responses.web_search import is_search, write_search
from llmproxy_openai.translated_messages import MessageTranslator
from llmproxy_openai.translated_parts import PartTranslator
from llmproxy_openai.translated_request import RequestTranslator

_LEAST_OUTPUT = 16
_LONGEST_ID = 64


class ResponsesParts(PartTranslator):
    """Here a document may be a URL, and thinking goes back whole."""

    def __init__(self, wire: Wire, family: ModelFamily, *, shares_files: bool = False) -> None:
        super().__init__(wire, family, shares_files=shares_files)
        self._shares = shares_files

    def image(self, part: ImagePart, place: str) -> Part | None:
        """Files of images are known here, as long as they are OpenAI's."""
        if part.source.file_id is not None and self._shares:
            return ImagePart(part.source, part.detail)
        return super().image(part, place)

    def file(self, part: DocumentPart, place: str) -> Part | None:
        """A document that is no text."""
        if part.source.url is not None:
            return DocumentPart(Source(url=part.source.url), part.title)
        return super().file(part, place)

    def audio(self, part: AudioPart, place: str) -> Part | None:
        """No sound is taken."""
        self.wire.refuse(place, "sound")
        return None

    def thinking(self, part: ReasoningPart) -> Part | None:
        """What OpenAI encrypted goes back; without that it has kept the thinking itself, if anybody has."""
        if part.provider != DIALECT or part.encrypted is None:
            return None
        return ReasoningPart(part.text, summary=True, id=part.id, encrypted=part.encrypted, provider=DIALECT)

    def call_id(self, call_id: str) -> str:
        """The same for a call and its result."""
        return call_id if len(call_id) <= _LONGEST_ID else made_id(call_id)


class ResponsesMessages(MessageTranslator):
    """Nobody has a name here, and a tool's answer holds what it gave."""

    answered = "later"

    def messages(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """What can be said of *messages*."""
        for index, message in enumerate(messages):
            if message.name is not None:
                self.wire.refuse(f"messages[{index}].name", "the name of who speaks")
        # What a system's message was read from in another protocol says nothing about its place in this one.
        said = [
            changed(each, name=None) if each.name is not None or each.role == "system" else each
            for each in super().messages(messages)
        ]
        return tuple(_identified(said) if uses_tools(said) else said)

    def _result(self, result: ToolResult, place: str, moved: list[Part]) -> ToolResult:
        self.parts.refuse_unknown(result, place)
        said = [self.parts.one(part, f"{place}.content[{index}]") for index, part in enumerate(result.content)]
        content = tuple(part for part in said if part is not None)
        if result.is_error and not content:
            content = (TextPart("Error"),)  # nothing else could say that it is one
        return ToolResult(self.parts.call_id(result.call_id), content, self.result_name(result, place))


def _identified(messages: Iterable[Message]) -> Iterable[Message]:
    """
    *messages* with an id for each call that has none, and for its result.

    These are paired by the tool's name, the first of a name with the first.
    """
    open_calls: dict[str, deque[str]] = {}
    calls = 0
    for message in messages:
        content: list[Part] = []
        for part in message.content:
            if isinstance(part, ToolCall) and not part.id:
                calls += 1
                part = attrs.evolve(part, id=made_id(calls, part.name), kind="function")
                open_calls.setdefault(part.name, deque()).append(part.id)
            elif isinstance(part, ToolResult):
                waiting = open_calls.get(part.name or "")
                known = waiting.popleft() if not part.call_id and waiting else part.call_id
                part = attrs.evolve(part, call_id=known, name=None)
            content.append(part)
        yield attrs.evolve(message, content=tuple(content))


@lru_cache(256)
def _family_here(model: str | None) -> ModelFamily:
    return attrs.evolve(family_of(model), takes_stop=True, takes_custom_tools=True)


class ResponsesTranslator(RequestTranslator):
    """Makes of a request of another protocol one that the Responses API can say."""

    most_stops = None  # there are none at all, which its form refuses; to a count they are nothing

    def __init__(self, api: str, translation: Translation, chat: ChatRequest) -> None:
        super().__init__(api, translation, chat)
        self.family = _family_here(chat.model)

    def conversation(self) -> MessageTranslator:
        """What translates the conversation."""
        return ResponsesMessages(ResponsesParts(self.wire, self.family, shares_files=self.shares_files))

    def request(self) -> ChatRequest:
        """What can be said of the request."""
        return changed(self.chat, **self.changes(), origin=None)

    def sampling(self) -> dict[str, Any]:
        """What says what is so anyway is left out."""
        changes = super().sampling()
        most = self.chat.max_output_tokens
        if most is not None and most < _LEAST_OUTPUT:
            self.wire.convert("max_output_tokens", "clamped")
            changes["max_output_tokens"] = _LEAST_OUTPUT
        for name, nothing in (("n", 1), ("frequency_penalty", 0), ("presence_penalty", 0)):
            if getattr(self.chat, name) == nothing:
                changes[name] = None
        return changes

    def thinking(self) -> dict[str, Any]:
        """How much to think, and whether to show it."""
        asked = self.chat.reasoning
        changes = super().thinking()
        if asked is None or not self.family.is_reasoning or not (asked.summary or asked.include):
            return changes
        config = changes["reasoning"]
        effort = None if config is None else config.effort
        return {"reasoning": ReasoningConfig(effort, summary=asked.summary, include=asked.include)}

    def tools(self) -> dict[str, Any]:
        """The tools, and which of them the model must use."""
        tools: list[Tool | BuiltinTool] = []
        for index, tool in enumerate(self.chat.tools):
            place = f"tools[{index}]"
            if isinstance(tool, BuiltinTool) and is_search(tool):
                tools.append(write_search(tool, place, self.wire))
            elif (said := self.tool(tool, place)) is not None:
                tools.append(changed(said, kind="function") if said.kind == "legacy" else said)
        if not tools:
            return {"tools": (), "tool_choice": None, "parallel_tool_calls": None}
        choice = self.chat.tool_choice
        if choice is not None and choice.names:
            offered = {tool.name if isinstance(tool, Tool) else tool.kind for tool in tools}
            names = tuple(name for name in choice.names if name in offered)
            if not names:
                self.wire.refuse("tool_choice", "a choice of tools that are not there")
            choice = ToolChoice(choice.mode, names) if names else None
        return {"tools": tuple(tools), "tool_choice": choice}

    def advice(self) -> dict[str, Any]:
        """Answers are kept by OpenAI where nothing is said: not so elsewhere."""
        changes = super().advice()
        return changes | {"store": bool(self.chat.store) and self.family.is_openai}
