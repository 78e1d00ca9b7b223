"""Errors for a client, in OpenAI's form."""

from __future__ import annotations

from llmproxy_core import sse
from llmproxy_core.errors import ProxyError, UpstreamError
from llmproxy_core.resilience.failure import Failure, failure_of
from llmproxy_core.wire import encode, join_object

_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}


_CODES = {429: "rate_limit_exceeded", 503: "server_is_overloaded", 529: "server_is_overloaded"}

_CODES_OF_KINDS = {Failure.CONTEXT_WINDOW: "context_length_exceeded", Failure.MODEL_NOT_FOUND: "model_not_found"}


def _code(dialect: str, error: ProxyError) -> str:
    """The code that programs branch on; where another protocol has none, the one that OpenAI has for the case."""
    if not isinstance(error, UpstreamError) or error.dialect in (None, dialect):
        return error.code
    if (known := _CODES_OF_KINDS.get(failure_of(error))) is not None:
        return known
    return _CODES.get(error.status, error.code) if error.code == UpstreamError.code else error.code


def write_error(dialect: str, error: ProxyError, request_id: str) -> bytes:
    """The body for *error*; the provider's own where it speaks *dialect* too."""
    if (body := _providers_own(dialect, error)) is not None:
        return body
    kind = _TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    if isinstance(error, UpstreamError) and error.dialect == dialect and error.error_type is not None:
        kind = error.error_type
    members = {
        "message": encode(error.message),
        "type": encode(kind),
        "param": encode(error.param),
        "code": encode(_code(dialect, error)),
    }
    if request_id:
        members["request_id"] = encode(request_id)
    return join_object({"error": join_object(members)})


def error_event(dialect: str, error: ProxyError, request_id: str) -> bytes:
    """The event for *error*: whole, on its own, and no `[DONE]` after it, so that nobody takes the answer for whole."""
    return sse.encode(write_error(dialect, error, request_id))


def _providers_own(dialect: str, error: ProxyError) -> bytes | None:
    if isinstance(error, UpstreamError) and error.dialect == dialect:
        return error.body
    return None
