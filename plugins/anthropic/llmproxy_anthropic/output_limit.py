"""How many tokens the answer may have, which this protocol must be told."""

from __future__ import annotations

from llmproxy_anthropic.claude import claude
from llmproxy_core.chat import ChatRequest
from llmproxy_core.wire import Wire


def output_limit(chat: ChatRequest, wire: Wire) -> int:
    """What the client asks for; else what is configured; else what the model can do."""
    if chat.max_output_tokens is not None:
        return max(1, chat.max_output_tokens)
    configured = None if wire.translation is None else wire.translation.max_output_tokens
    return claude(chat.model).output_tokens if configured is None else configured
