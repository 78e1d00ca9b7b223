"""Why an answer ended, in the words of OpenAI and of servers that speak its protocol their own way."""

from __future__ import annotations

from llmproxy_core.chat import Finish, FinishReason

_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,  # Together
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,  # Mistral
    "tool_calls": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,
    "error": FinishReason.ERROR,  # Mistral, OpenRouter
    "insufficient_system_resource": FinishReason.ERROR,  # DeepSeek
}

_WORDS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.REFUSAL: "content_filter",
    FinishReason.ERROR: "stop",
}


def read_finish(word: str, *, called: bool) -> Finish:
    """
    *word* as a reason; an unknown one is a stop.

    *called*: the answer holds tool calls. With a forced function OpenAI says "stop", and means that it called.
    """
    reason = _REASONS.get(word, FinishReason.STOP)
    if called and reason is FinishReason.STOP:
        reason = FinishReason.TOOL_CALLS
    return Finish(reason, word)


def write_finish(finish: Finish, *, legacy: bool = False) -> str:
    """The word for *finish*; *legacy*: the answer calls a function in the legacy form."""
    if legacy and finish.reason is FinishReason.TOOL_CALLS:
        return "function_call"
    return _WORDS[finish.reason]
