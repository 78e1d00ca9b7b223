"""The words that Anthropic has for errors, and the statuses they come with."""

from __future__ import annotations

OVERLOADED = 529

_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": OVERLOADED,
}
_WORDS = {status: word for word, status in _STATUSES.items()}


def status_of(word: str | None) -> int | None:
    """The status of an error that is told without one, in a stream."""
    return _STATUSES.get(word or "")


def word_of(status: int) -> str:
    """The type of an error with *status*."""
    known = _WORDS.get(status)
    return known or ("api_error" if status >= 500 else "invalid_request_error")


def is_word(word: str | None) -> bool:
    return word in _STATUSES
