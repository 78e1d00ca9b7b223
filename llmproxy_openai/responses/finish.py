"""Why an answer ended: a status, and a reason where it is incomplete."""

from __future__ import annotations

from llmproxy_core.chat import Finish, FinishReason

_INCOMPLETE = {
    "max_output_tokens": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_REASONS = {
    FinishReason.LENGTH: "max_output_tokens",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.REFUSAL: "content_filter",
}
ONGOING = frozenset({"in_progress", "queued"})


def finish_word(status: str | None, reason: str | None) -> str | None:
    """The word for how an answer ended: its reason where it is incomplete, else its status; None: it has not ended."""
    if status == "incomplete":
        return reason or status
    return None if status in ONGOING else status


def read_finish(status: str | None, reason: str | None, *, called: bool) -> Finish | None:
    """The end that *status* and *reason* tell; None when there is none yet. *called*: the answer has tool calls."""
    word = finish_word(status, reason)
    if word is None:
        return None
    if status == "incomplete":
        return Finish(_INCOMPLETE.get(word, FinishReason.LENGTH), word)
    if status in {"failed", "cancelled"}:
        return Finish(FinishReason.ERROR, word)
    return Finish(FinishReason.TOOL_CALLS if called else FinishReason.STOP, word)


def write_finish(finish: Finish | None) -> tuple[str, str | None]:
    """The status for *finish*, and its reason where it is `incomplete`."""
    if finish is None:
        return "completed", None
    if finish.reason is FinishReason.ERROR:
        return "failed", None
    reason = _REASONS.get(finish.reason)
    return ("completed", None) if reason is None else ("incomplete", reason)


def is_cut(finish: Finish | None) -> bool:
    """Whether the answer is not all that the model would have said."""
    return write_finish(finish)[0] != "completed"
