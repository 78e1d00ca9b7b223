"""What is rewritten of a request: the text that it ends with, and what its rewriting may use."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llmproxy_core import ExtraCall, ProxyError, Request
from llmproxy_core.chat import ChatRequest, Part, TextPart, ToolResult
from llmproxy_enhance_query.config import EnhanceQueryConfig

_AROUND_TEXTS = 128
"""Tokens that a call has besides its two texts: the marks of turns, and what chat templates add."""
_BYTES_PER_TOKEN = 4
"""Of the rewritten text. Another model than the one that wrote it may take every byte for a token."""


@attrs.frozen
class Question:
    """The last message of a conversation, said by the user: *text* is all its text parts, a line each."""

    chat: ChatRequest
    text: str

    @classmethod
    def of(cls, request: Request) -> Question | None:
        """
        The question that *request* ends with.

        None when there is nothing to rewrite: the last message is another role's, holds tool results or no text; or
        the request is no conversation that its dialect can read, which is for its LLM to judge.
        """
        try:
            chat = request.chat
        except ProxyError:
            return None
        last = chat.messages[-1] if chat.messages else None
        if last is None or last.role != "user" or any(isinstance(part, ToolResult) for part in last.content):
            return None
        text = "\n".join(part.text for part in last.content if isinstance(part, TextPart))
        return cls(chat, text) if text.strip() else None

    def reworded(self, text: str) -> ChatRequest:
        """The conversation with *text* in place of the question's first text; its further texts go."""
        last = self.chat.messages[-1]
        content: list[Part] = []
        is_said = False
        for part in last.content:
            if not isinstance(part, TextPart):
                content.append(part)
            elif not is_said:
                # Citations count characters, and a signature signs them: of the text that was.
                content.append(attrs.evolve(part, text=text, citations=(), signature=None))
                is_said = True
        return attrs.evolve(self.chat, messages=(*self.chat.messages[:-1], attrs.evolve(last, content=tuple(content))))


def extra_cost_bound(config: EnhanceQueryConfig, request: Request) -> Sequence[ExtraCall]:
    """The most that rewriting may use for *request*: its own call, and what a longer question adds to the route's."""
    question = Question.of(request)
    if question is None:
        return ()
    texts = config.system_prompt + question.text
    input_tokens = len(texts.encode(errors="surrogatepass")) + _AROUND_TEXTS  # a token is at least a byte
    is_same_model = config.llm is None and config.model is None
    longer = config.max_output_tokens * (1 if is_same_model else _BYTES_PER_TOKEN)
    return (
        ExtraCall(config.llm, config.model, input_tokens, config.max_output_tokens),
        ExtraCall(None, None, longer, 0),
    )
