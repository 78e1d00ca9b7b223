"""Errors for a client, in Anthropic's form."""

from __future__ import annotations

from llmproxy_anthropic.apis import NAME
from llmproxy_anthropic.error_words import OVERLOADED, is_word, word_of
from llmproxy_core import ProxyError, UpstreamError
from llmproxy_core.wire import encode, encode_event, join_object

_BUSY = 503


def error_status(error: ProxyError) -> int:
    """The status of *error* here: who is too busy says so with 529."""
    return OVERLOADED if error.status == _BUSY else error.status


def write_error(error: ProxyError, request_id: str) -> bytes:
    """The body for *error*; the provider's own where it speaks this protocol too."""
    if isinstance(error, UpstreamError) and error.dialect == NAME and error.body is not None:
        return error.body
    members = {"type": encode(_kind(error)), "message": encode(error.message)}
    if details := _details(error):
        members["details"] = join_object(details)
    body = {"type": b'"error"', "error": join_object(members)}
    return join_object(body | ({"request_id": encode(request_id)} if request_id else {}))


def _kind(error: ProxyError) -> str:
    """The provider's word, where it speaks this protocol: another's for the same status is often another word here."""
    if isinstance(error, UpstreamError) and error.dialect == NAME and is_word(error.error_type):
        return error.error_type or ""
    return word_of(error_status(error))


def _details(error: ProxyError) -> dict[str, bytes]:
    """What programs branch on, which the envelope has no member for."""
    told = {"error_code": error.code, "param": error.param}
    return {name: encode(text) for name, text in told.items() if text is not None}


def error_event(error: ProxyError, request_id: str) -> bytes:
    """The event for *error*: whole, on its own, and no `message_stop` after it."""
    return encode_event(write_error(error, request_id), "error")
