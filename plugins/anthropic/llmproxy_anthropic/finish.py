"""Why an answer ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmproxy_core.chat import Finish, FinishReason
from llmproxy_core.wire import encode, join_object

_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,  # to be continued by the client, which others cannot say
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.REFUSAL,
}
_WORDS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "end_turn",
    FinishReason.CONTENT_FILTER: "refusal",
    FinishReason.REFUSAL: "refusal",
    FinishReason.ERROR: "refusal",
}

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def read_finish(word: str, sequence: str | None, details: bytes, *, called: bool = True) -> Finish:
    """
    *word* as a reason; an unknown one is a stop.

    *sequence* is the stop sequence that was met, *details* the JSON of `stop_details`. *called* is False where the only
    call was the answer itself (`own_tool`).
    """
    reason = _REASONS.get(word, FinishReason.STOP)
    if reason is FinishReason.TOOL_CALLS and not called:
        return Finish(FinishReason.STOP, "end_turn")
    return Finish(reason, word, sequence, _detail(details))


def _detail(text: bytes) -> str | None:
    try:
        details: Mapping[str, Any] = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    found = details.get("category") or details.get("explanation")
    return found if isinstance(found, str) else None


def write_finish(finish: Finish | None, *, called: bool, refused: bool = False) -> dict[str, bytes]:
    """`stop_reason` and its kin. *called*: there are tool calls; *refused*: what was said is a refusal."""
    word = _word(finish or Finish(FinishReason.STOP), called=called, refused=refused)
    sequence = finish.stop_sequence if finish is not None and word == "stop_sequence" else None
    members = {"stop_reason": encode(word), "stop_sequence": encode(sequence)}
    explanation = None if finish is None else _explanation(finish)
    if word == "refusal" and explanation is not None:
        details = {"type": b'"refusal"', "category": b"null", "explanation": encode(explanation)}
        members["stop_details"] = join_object(details)
    return members


def _explanation(finish: Finish) -> str | None:
    if finish.reason is FinishReason.ERROR:
        return f"The model's answer ended with an error: {finish.detail or finish.word or 'unknown'}"
    return finish.detail


def _word(finish: Finish, *, called: bool, refused: bool) -> str:
    """
    1. Some providers say "stop" for a call that was forced, or name calls where there are none.
    2. The provider's own word, where it is one of this protocol's.
    3. An error has no word; as a refusal it is at least no whole answer.
    """
    if finish.reason in {FinishReason.STOP, FinishReason.TOOL_CALLS}:
        if called:
            return "tool_use"
        if refused:
            return "refusal"
    if finish.word is not None and finish.word != "tool_use" and _REASONS.get(finish.word) is finish.reason:
        return finish.word
    if finish.reason is FinishReason.STOP and finish.stop_sequence is not None:
        return "stop_sequence"
    return _WORDS[finish.reason]
