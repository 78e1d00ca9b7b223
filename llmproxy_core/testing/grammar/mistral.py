"""The grammar of a stream of Mistral's chat completions."""

from __future__ import annotations

from typing import ClassVar

from llmproxy_core.testing.grammar.chat import ChatGrammar
from llmproxy_core.testing.grammar.chat_choice import ChatCall, ChatChoice
from llmproxy_core.testing.grammar.node import Node

_KINDS = frozenset({"text", "thinking"})


class MistralGrammar(ChatGrammar):
    """
    As OpenAI's, but the last chunk with a choice has the usage, the finish may come beside a whole call, and
    thinking is in content that is a list of parts. Its error may have the members of `error` itself.
    """

    finishes: ClassVar[frozenset[str]] = frozenset({"stop", "length", "model_length", "tool_calls", "error"})

    def event(self, node: Node) -> None:
        if node.value("object") == "error" or node.value("type") == "error":
            node.text("message", empty=False)
            self.told_error("the error")
        else:
            super().event(node)

    def new_choice(self) -> ChatChoice:
        return MistralChoice(strict=self.strict, whole_finish=True, needs_type=False)

    def check_usage_place(self, *, has_choices: bool) -> None:
        self.wrong_if(not has_choices, "the usage without choices")
        self.wrong_if(not self._all_finished(), "the usage before the end of every choice")

    def end(self) -> None:
        super().end()
        if not self.failed:
            self.wrong_if(self.strict and self.usage is None and not self.usages, "no usage was told")


class MistralChoice(ChatChoice):
    """A choice whose content may be a list, and whose arguments may be an object."""

    def read_content(self, delta: Node) -> None:
        if not isinstance(delta.value("content"), list):
            super().read_content(delta)
            return
        for part in delta.nodes("content") or ():
            kind = part.text("type")
            if kind == "text":
                part.text("text")
            elif kind == "thinking":
                for thought in part.nodes("thinking") or ():
                    thought.equal("type", "text")
                    thought.text("text")
            elif self._strict:
                part.one_of("type", _KINDS)

    def read_arguments(self, call: ChatCall, function: Node) -> None:
        if not self._strict and isinstance(function.value("arguments"), dict):
            call.arguments += "{}"
        else:
            super().read_arguments(call, function)
