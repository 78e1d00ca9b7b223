"""Why an answer ended, in Gemini's words."""

from __future__ import annotations

from llmproxy_core.chat import Finish, FinishReason

_REASONS = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "RECITATION": FinishReason.CONTENT_FILTER,
    "BLOCKLIST": FinishReason.CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "SPII": FinishReason.CONTENT_FILTER,
    "MODEL_ARMOR": FinishReason.CONTENT_FILTER,
    "LANGUAGE": FinishReason.ERROR,
    "OTHER": FinishReason.ERROR,
    "MALFORMED_FUNCTION_CALL": FinishReason.ERROR,
    "MALFORMED_RESPONSE": FinishReason.ERROR,
    "UNEXPECTED_TOOL_CALL": FinishReason.ERROR,
    "TOO_MANY_TOOL_CALLS": FinishReason.ERROR,
    "MISSING_THOUGHT_SIGNATURE": FinishReason.ERROR,
    "NO_IMAGE": FinishReason.ERROR,
}

_WORDS = {
    FinishReason.STOP: "STOP",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.TOOL_CALLS: "STOP",
    FinishReason.CONTENT_FILTER: "SAFETY",
    FinishReason.REFUSAL: "SAFETY",
    FinishReason.ERROR: "OTHER",
}


def read_finish(word: str, message: str | None, *, called: bool) -> Finish:
    """*word* as a reason; an unknown one is a stop. *called*: the answer holds calls, which Gemini ends with STOP."""
    if word.startswith("IMAGE_"):
        return Finish(FinishReason.CONTENT_FILTER, word, detail=message)
    reason = _REASONS.get(word, FinishReason.STOP)
    if called and reason is FinishReason.STOP:
        reason = FinishReason.TOOL_CALLS
    return Finish(reason, word, detail=message)


def blocked(reason: str, message: str | None) -> Finish:
    """The finish of an answer that was not begun, since the question is not to be answered."""
    return Finish(FinishReason.CONTENT_FILTER, reason, detail=message)


def write_finish(finish: Finish | None) -> str:
    """The word for *finish*: the provider's own where it is one of Gemini's."""
    if finish is None:
        return _WORDS[FinishReason.STOP]
    word = finish.word
    is_own = word is not None and (word in _REASONS or word.startswith("IMAGE_"))
    return word if is_own and word is not None else _WORDS[finish.reason]
