"""Why an answer ended, in the words of OpenAI and of servers that speak its protocol their own way."""

from __future__ import annotations

from collections.abc import Mapping

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

WORDS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.REFUSAL: "content_filter",
    FinishReason.ERROR: "content_filter",  # no word of its own, and no normal end
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


def called(finish: Finish) -> Finish:
    """*finish* of an answer that calls tools: what others name an end is here a wait for their results."""
    return Finish(FinishReason.TOOL_CALLS, finish.word) if finish.reason is FinishReason.STOP else finish


def write_finish(finish: Finish, words: Mapping[FinishReason, str] = WORDS, *, legacy: bool = False) -> str:
    """The word for *finish*; *legacy*: the answer calls a function in the legacy form."""
    if legacy and finish.reason is FinishReason.TOOL_CALLS:
        return "function_call"
    return words[finish.reason]
