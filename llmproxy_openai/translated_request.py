"""Requests of another protocol, as far as OpenAI's protocol can say them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llmproxy_core.chat import (
    BuiltinTool,
    ChatRequest,
    Message,
    ReasoningConfig,
    ResponseFormat,
    TextPart,
    Tool,
    ToolChoice,
    changed,
)
from llmproxy_core.translation import Translation
from llmproxy_core.wire import Wire, check_choice, text_tool
from llmproxy_core.wire.request_body import says_nothing
from llmproxy_openai.chat_form import effort_of
from llmproxy_openai.model_family import family_of, fitting_effort
from llmproxy_openai.translated_messages import MessageTranslator
from llmproxy_openai.translated_parts import PartTranslator

_MOST_STOPS = 4
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_NO_ADVICE = (None,) * 5
_TIERS = {"standard": "default", "standard_only": "default"} | {
    word: word for word in ("auto", "default", "flex", "priority")
}


def asks_for_some(reasoning: ReasoningConfig) -> bool:
    """Whether it asks for thinking, and leaves it to the model how much: there is no word for that here."""
    is_open = reasoning.adaptive or reasoning.between_tools or (reasoning.budget_tokens or 0) < 0
    return is_open and reasoning.effort is None


class RequestTranslator:
    """
    Makes of a request of another protocol one that has only what this protocol has.

    A variant of the protocol overrides what it says otherwise. Made per call.
    """

    most_stops: int | None = _MOST_STOPS

    def __init__(self, api: str, translation: Translation, chat: ChatRequest) -> None:
        self.wire = Wire(api, translation=translation)
        self.translation = translation
        self.chat = chat
        self.family = family_of(chat.model)
        origin = "" if chat.origin is None else chat.origin.api
        self.shares_files = origin.startswith("openai") and api.startswith("openai")

    def request(self) -> ChatRequest:
        """What can be said of the request; it keeps its origin."""
        return changed(self.chat, **self.changes())

    def changes(self) -> dict[str, Any]:
        """The fields that say something else here."""
        self.wire.refuse_unknown(self.chat.extra, "")
        check_choice(self.chat)
        changes: dict[str, Any] = {"messages": self.messages()}
        if self.chat.extra:
            changes["extra"] = {}
        return changes | self.sampling() | self.tools() | self.form() | self.thinking() | self.advice()

    # -- what is said ----------------------------------------------------------------------------------------------

    def messages(self) -> tuple[Message, ...]:
        """The conversation."""
        said = self.conversation().messages(self.chat.messages)
        wanted = self.chat.response_format
        if wanted is None or wanted.kind != "json_object" or any("json" in each.text.lower() for each in said):
            return said
        # OpenAI refuses the format where no message has the word.
        self.wire.convert("response_format", "prompted")
        return (Message("system", (TextPart("Answer with a JSON object."),)), *said)

    def conversation(self) -> MessageTranslator:
        """What translates the conversation."""
        return MessageTranslator(PartTranslator(self.wire, self.family, shares_files=self.shares_files))

    # -- how it is answered ----------------------------------------------------------------------------------------

    def sampling(self) -> dict[str, Any]:
        """Temperature and its kin, and where the answer ends."""
        changes: dict[str, Any] = {}
        if self.family.is_reasoning:
            for name in ("temperature", "top_p"):
                if getattr(self.chat, name) not in (None, 1):
                    self.wire.convert(name, "dropped")
                changes[name] = None
        if self.chat.stop and not self.family.takes_stop:
            self.wire.refuse("stop", "stop sequences for this model")
            changes["stop"] = ()
        elif self.most_stops is not None and len(self.chat.stop) > self.most_stops:
            self.wire.refuse("stop", f"more than {self.most_stops} stop sequences")
            changes["stop"] = self.chat.stop[: self.most_stops]
        return changes

    def form(self) -> dict[str, Any]:
        """What the answer is to be."""
        changes: dict[str, Any] = {}
        kinds = self.chat.modalities
        if not kinds and self.chat.response_format is None:
            return changes
        said = tuple(kind for kind in kinds if kind in {"text", "audio"})
        if said != kinds:
            self.wire.refuse("modalities", f"the modalities {', '.join(kinds)}")
        changes["modalities"] = () if set(said) == {"text"} else said
        wanted = self.chat.response_format
        if wanted is not None and wanted.kind == "text":
            changes["response_format"] = None
        elif wanted is not None:
            changes["response_format"] = self.named(wanted)
        return changes

    @staticmethod
    def named(wanted: ResponseFormat) -> ResponseFormat:
        """A schema with a name that is allowed."""
        name = _NOT_IN_NAMES.sub("_", wanted.name or "")[:64]
        return changed(wanted, name=name or None)

    def thinking(self) -> dict[str, Any]:
        """How much to think, in a word that the model knows."""
        asked = self.chat.reasoning
        if asked is None:
            return {}
        effort = effort_of(asked)
        if effort is None:
            if asks_for_some(asked):
                self.wire.convert("reasoning", "converted" if self.family.is_reasoning else "dropped")
            return {"reasoning": None}
        if not self.family.efforts:
            if effort != "none":
                self.wire.convert("reasoning", "dropped")
            return {"reasoning": None}
        known = fitting_effort(effort, self.family.efforts)
        if asked.effort is None:
            self.wire.convert("reasoning", "converted")
        elif known != effort:
            self.wire.convert("reasoning", "clamped")
        return {"reasoning": ReasoningConfig(known)}

    # -- tools -----------------------------------------------------------------------------------------------------

    def tools(self) -> dict[str, Any]:
        """The tools, and which of them the model must use."""
        tools = tuple(
            said
            for index, tool in enumerate(self.chat.tools)
            if (said := self.tool(tool, f"tools[{index}]")) is not None
        )
        choice = self.chat.tool_choice
        if not tools:
            # Neither is allowed without tools.
            return {"tools": (), "tool_choice": None, "parallel_tool_calls": None}
        if choice is None or not choice.names:
            return {"tools": tools}
        return self.choice(self._renamed(choice), tools)

    def _renamed(self, choice: ToolChoice) -> ToolChoice:
        """*choice* by the names that tools have here."""
        if self.family.takes_custom_tools:
            return choice
        texts = {tool.name for tool in self.chat.tools if isinstance(tool, Tool) and tool.kind == "custom"}
        return ToolChoice(choice.mode, tuple(text_tool.sent_name(it) if it in texts else it for it in choice.names))

    def tool(self, tool: Tool | BuiltinTool, place: str) -> Tool | None:
        """One tool."""
        if isinstance(tool, BuiltinTool):
            self.wire.refuse(place, f"the provider-run tool {tool.kind!r} of another protocol")
            return None
        if tool.kind == "custom" and not self.family.takes_custom_tools:
            self.wire.convert(place, "converted")
            if not text_tool.is_free(tool.format):
                self.wire.convert(f"{place}.format", "dropped")
            tool = Tool(text_tool.sent_name(tool.name), tool.description, text_tool.SCHEMA, extra=tool.extra)
        if _TOOL_NAME.fullmatch(tool.name) is None:
            self.wire.refuse(f"{place}.name", "a tool's name of more than 64 letters, digits, '_' and '-'")
            return None
        if tool.extra:
            self.wire.refuse_unknown(tool.extra, place)
        if not tool.extra and tool.cache is None and self.wire.kept(tool.raw) is None:
            return tool
        return changed(tool, extra={}, cache=None)

    def takes_several_names(self) -> bool:
        """Whether a choice may name several tools."""
        return self.family.is_openai

    def choice(self, choice: ToolChoice, tools: Sequence[Tool]) -> dict[str, Any]:
        """*choice* among *tools*, which names some. Where it can name but one, only those named are offered."""
        names = frozenset(choice.names)
        named = tuple(tool for tool in tools if tool.name in names)
        if not named:
            self.wire.refuse("tool_choice", "a choice of tools that are not there")
            return {"tools": tuple(tools), "tool_choice": None}
        if (choice.mode == "named" and len(named) == 1) or self.takes_several_names():
            return {"tools": tuple(tools), "tool_choice": ToolChoice(choice.mode, tuple(tool.name for tool in named))}
        self.wire.convert("tools", "narrowed")
        return {"tools": named, "tool_choice": ToolChoice("required" if choice.mode == "named" else "auto")}

    # -- advice ----------------------------------------------------------------------------------------------------

    def advice(self) -> dict[str, Any]:
        """What changes neither the answer nor its form, and only OpenAI itself is sure to know."""
        chat, changes = self.chat, dict[str, Any]()
        said = (chat.store, chat.cache_key, chat.service_tier, chat.prediction, chat.metadata)
        if said == _NO_ADVICE:
            return changes
        if not chat.store:
            changes["store"] = None  # false is what all do anyway
        tier = _TIERS.get((chat.service_tier or "").lower())
        wrong = {
            "store": not self.family.is_openai,
            "cache_key": not self.family.is_openai,
            "prediction": not self.family.is_openai,
            "metadata": not (self.family.is_openai and chat.store),
            "service_tier": not self.family.is_openai or tier is None,
        }
        for name, is_wrong in wrong.items():
            if is_wrong and not says_nothing(name, getattr(chat, name)):
                self.translation.advise(name)
            if is_wrong:
                changes[name] = None
        return changes if wrong["service_tier"] else changes | {"service_tier": tier}
