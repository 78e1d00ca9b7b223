"""The many shapes an error arrives in, read as one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

_LONGEST_MESSAGE = 2_000
"""Characters; more is no message but a page."""


@attrs.frozen
class Envelope:
    """What an error says of itself. *status* is an HTTP status, where the body names one."""

    message: str
    code: str | None = None
    kind: str | None = None
    """The provider's word for the type of error."""
    status: int | None = None
    param: str | None = None
    retry_after_s: float | None = None
    reasons: frozenset[str] = frozenset()
    """Google's machine-readable reasons (`API_KEY_INVALID`)."""
    is_nested: bool = False
    """It is an object with an `error` object that has a message: what most clients expect."""


def read_body(body: bytes) -> Envelope | None:
    """The error in the body of an error answer; None when it is not JSON, or says nothing."""
    try:
        return read_value(msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def read_value(value: object) -> Envelope | None:
    """
    The error in a decoded body.

    Shapes: `{"error": {…}}` (OpenAI, Google, Anthropic), an array of one (Google), `{"error": "text"}` (xAI),
    `{"message": …}` (Mistral, vLLM), `{"detail": …}` (Mistral, FastAPI), a bare text.
    """
    if isinstance(value, list):
        inner = read_value(value[0]) if value else None
        return None if inner is None else attrs.evolve(inner, is_nested=False)
    if isinstance(value, str):
        return Envelope(_shortened(value)) if value.strip() else None
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    facts = error if isinstance(error, dict) else value
    said = facts if isinstance(error, dict) else {**value, "message": error or value.get("message")}
    message = _message(said)
    if message is None:
        return None
    return Envelope(
        message=_shortened(message),
        code=_code(facts),
        kind=_word(facts.get("type")) or _word(facts.get("status")),
        status=_status(facts),
        param=_word(facts.get("param")),
        retry_after_s=_retry_delay(facts),
        reasons=_reasons(facts),
        is_nested=isinstance(error, dict) and _word(error.get("message")) is not None,
    )


def _message(facts: Mapping[str, Any]) -> str | None:
    for name in ("message", "detail", "error_description", "title", "msg"):
        if (text := _text(facts.get(name))) is not None:
            return text
    return _word(facts.get("code")) or _word(facts.get("type"))


def _text(value: object) -> str | None:
    """A sentence in *value*: a string, or a validator's list of complaints (FastAPI: `loc`, `msg`)."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, dict):
        if (text := _text(value.get("msg")) or _text(value.get("detail")) or _text(value.get("message"))) is None:
            return None
        place = value.get("loc")
        return f"{'.'.join(str(step) for step in place)}: {text}" if isinstance(place, list) else text
    if isinstance(value, list):
        return "; ".join(text for each in value[:10] if (text := _text(each)) is not None) or None
    return None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _code(facts: Mapping[str, Any]) -> str | None:
    """A code that is a word; numbers (OpenRouter's and Google's statuses, Mistral's own) tell programs nothing."""
    code = _word(facts.get("code"))
    return None if code is None or code.isdigit() else code


def _status(facts: Mapping[str, Any]) -> int | None:
    for name in ("code", "status", "status_code"):
        status = facts.get(name)
        if isinstance(status, int) and not isinstance(status, bool) and 400 <= status <= 599:
            return status
    return None


def _details(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = facts.get("details")
    return [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []


_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


def _retry_delay(facts: Mapping[str, Any]) -> float | None:
    """Google's RetryInfo: a duration in JSON, `"34.4s"`."""
    for detail in _details(facts):
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and (found := _DURATION.fullmatch(delay)) is not None:
            return float(found[1])
    return None


def _reasons(facts: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(reason for detail in _details(facts) if isinstance(reason := detail.get("reason"), str))


def _shortened(message: str) -> str:
    message = message.strip()
    return message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 1] + "…"
