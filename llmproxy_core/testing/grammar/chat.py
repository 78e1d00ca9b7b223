"""The grammar of a stream of OpenAI's chat completions."""

from __future__ import annotations

from typing import ClassVar

from llmproxy_core.testing.grammar.chat_choice import ChatChoice
from llmproxy_core.testing.grammar.grammar import EventGrammar
from llmproxy_core.testing.grammar.node import Node, brief

_SHARED = ("id", "created", "model")


class ChatGrammar(EventGrammar):
    """
    Chunks that share id, created and model; deltas, one finish for each choice, perhaps a chunk that only tells the
    usage, `[DONE]`. A failed stream ends with `{"error": …}` and has no `[DONE]`.
    """

    finishes: ClassVar[frozenset[str]] = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})

    def __init__(self, *, failed: bool = False, usage: bool | None = None, strict: bool = True) -> None:
        super().__init__(failed=failed, usage=usage, strict=strict)
        self._first: dict[str, object] | None = None
        self._choices: dict[int, ChatChoice] = {}
        self.usages = 0

    # -- events ------------------------------------------------------------------------------------------------

    def done(self, data: str) -> bool:
        if data.strip() != "[DONE]":
            return False
        self.over = "[DONE]"
        self.wrong_if(self.failed, "[DONE] though the stream failed")
        return True

    def event(self, node: Node) -> None:
        if node.has("error"):
            self.read_error(node)
        else:
            self._read_chunk(node)

    def read_error(self, node: Node) -> None:
        """The error that ends the stream."""
        error = node.node("error")
        if error is not None:
            error.text("message", empty=False)
            error.text("type", must=self.strict)
            if self.strict:
                for name in ("param", "code"):
                    self.wrong_if(not error.has(name), f"error.{name} is absent")
        self.told_error("the error")

    def _read_chunk(self, node: Node) -> None:
        choices = node.nodes("choices")
        if choices is None:
            return
        node.equal("object", "chat.completion.chunk")
        has_usage = self._has_usage(node)
        if choices or has_usage or self.strict:  # Azure begins with a chunk that only tells of its filters
            self._check_shared(node)
        self.wrong_if(self.strict and not choices and not has_usage, "no choices and no usage")
        for choice in choices:
            self._read_choice(choice)
        self.wrong_if(self.usages > 0 and not has_usage, "a chunk after the one with the usage")
        if has_usage:
            self._read_usage(node, has_choices=bool(choices))

    def _check_shared(self, node: Node) -> None:
        if self._first is None:
            node.text("id", empty=False, must=self.strict)
            node.number("created", must=self.strict)
            node.text("model", empty=False)
            self._first = {name: node.value(name) for name in _SHARED}
            return
        for name in _SHARED:
            node.equal(name, self._first[name], "as in the first chunk")

    def _read_choice(self, node: Node) -> None:
        index = node.number("index")
        if index is None:
            return
        if index not in self._choices:
            self._choices[index] = self.new_choice()
        self._choices[index].feed(node, self.finishes)

    def new_choice(self) -> ChatChoice:
        """What reads the deltas of one choice."""
        return ChatChoice(strict=self.strict)

    # -- usage -------------------------------------------------------------------------------------------------

    @staticmethod
    def _has_usage(node: Node) -> bool:
        return node.has("usage") and node.value("usage") is not None

    def _read_usage(self, node: Node, *, has_choices: bool) -> None:
        self.usages += 1
        self.wrong_if(self.usages > 1, "the usage a second time")
        self.wrong_if(self.usage is False, "the usage, which nobody asked for")
        self.check_usage_place(has_choices=has_choices)
        usage = node.node("usage")
        if usage is not None:
            self._check_counts(usage)

    def check_usage_place(self, *, has_choices: bool) -> None:
        """The usage is in a chunk without choices, after all of them."""
        self.wrong_if(self.strict and has_choices, "the usage beside choices")
        self.wrong_if(not self._all_finished(), "the usage before the end of every choice")

    def _check_counts(self, usage: Node) -> None:
        prompt, completion = usage.number("prompt_tokens"), usage.number("completion_tokens")
        total = usage.number("total_tokens")
        if not self.strict or prompt is None or completion is None or total is None:
            return
        self.wrong_if(total != prompt + completion, f"{total} tokens in total, not {prompt} + {completion}")
        for name, part, whole in (
            ("prompt_tokens_details", "cached_tokens", prompt),
            ("completion_tokens_details", "reasoning_tokens", completion),
        ):
            details = usage.node(name, must=False)
            count = None if details is None else details.number(part, must=False)
            self.wrong_if(count is not None and count > whole, f"usage: {count} {part} of {whole} tokens")

    # -- the end -----------------------------------------------------------------------------------------------

    def _all_finished(self) -> bool:
        return bool(self._choices) and all(choice.finish is not None for choice in self._choices.values())

    def end(self) -> None:
        if self.failed:
            return
        self.wrong_if(self.over is None, "no [DONE]")
        self.wrong_if(not self._choices, "no choice was made")
        for index, choice in sorted(self._choices.items()):
            self.wrong_if(choice.finish is None, f"choice {index} has no finish_reason")
        if sorted(self._choices) != list(range(len(self._choices))):
            self.wrong(f"the indexes of the choices are {brief(sorted(self._choices))}")
        self.wrong_if(self.usage is True and not self.usages, "no usage was told")
