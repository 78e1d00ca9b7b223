"""What a request does besides being answered."""

from __future__ import annotations

from llmproxy_core.chat import BuiltinTool
from llmproxy_core.errors import ProxyError
from llmproxy_core.request import Request

_WITH_EFFECTS = frozenset({"background", "conversation"})
"""Members of OpenAI's Responses; `background = false` is not among what is left unread."""


def has_effects(request: Request) -> bool:
    """
    Whether a chat request may do more than to be answered, so that doing it twice is not the same as once.

    The provider is to keep the answer, or does more as `acts_elsewhere` has it.
    """
    return acts_elsewhere(request) or bool(request.chat.store)


def acts_elsewhere(request: Request) -> bool:
    """
    Whether a chat request reaches beyond the model, so that the next one like it may mean, and do, something else.

    The provider is to run tools, to add it to a conversation of its own, or to work on it in the background. What
    cannot be read may do anything.
    """
    try:
        chat = request.chat
    except ProxyError:
        return True
    if any(isinstance(tool, BuiltinTool) for tool in chat.tools):
        return True
    return not chat.extra.keys().isdisjoint(_WITH_EFFECTS)
