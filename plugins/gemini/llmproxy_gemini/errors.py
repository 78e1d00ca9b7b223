"""Errors: the provider's, and those for a client, in Google's form."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from llmproxy_core import Headers, ProxyError, Scanner, StreamWriter, UpstreamError
from llmproxy_core.wire import encode, join_array, join_object, read_body, read_error
from llmproxy_gemini.apis import NAME

_STATUSES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "PERMISSION_DENIED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_TYPES = "type.googleapis.com/google.rpc."
_OVERLOADED = 529


def read_provider_error(
    status: int, headers: Headers, crossing: tuple[tuple[str, str], ...], body: bytes
) -> UpstreamError:
    """See `Dialect.read_error`. An array around the error is the provider's own, too: so it answers to streams."""
    error = read_error(NAME, status, headers, crossing, body)
    if error.body is None and error.dialect == NAME and body.lstrip().startswith(b"["):
        inner = read_body(body.strip()[1:-1].strip())
        if inner is not None and inner.is_nested:
            error.body = body
    return error


def error_status(error: ProxyError) -> int:
    """The status of *error*: Google knows no 529."""
    return 503 if error.status == _OVERLOADED else error.status


def write_error(error: ProxyError, request_id: str) -> bytes:
    """The body for *error*; the provider's own where that was Gemini's."""
    is_own = isinstance(error, UpstreamError) and error.dialect == NAME
    if is_own and isinstance(error, UpstreamError) and error.body is not None:
        return error.body
    status = error_status(error)
    word = _STATUSES.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    if is_own and isinstance(error, UpstreamError) and error.error_type is not None and error.error_type.isupper():
        word = error.error_type
    members = {"code": encode(status), "message": encode(error.message or word), "status": encode(word)}
    members["details"] = join_array(_details(error, request_id))
    return join_object({"error": join_object(members)})


def _details(error: ProxyError, request_id: str) -> list[bytes]:
    """What programs read: a word for what happened, the field at fault, when to come again, and the call's id."""
    details = [_detail("ErrorInfo", reason=(error.code or "unknown").upper(), domain="llmproxy")]
    if error.param is not None:
        violation = {"field": error.param, "description": error.message}
        details.append(_detail("BadRequest", fieldViolations=[violation]))
    if error.retry_after_s is not None:
        details.append(_detail("RetryInfo", retryDelay=f"{math.ceil(error.retry_after_s)}s"))
    if request_id:
        details.append(_detail("RequestInfo", requestId=request_id))
    return details


def _detail(kind: str, **members: object) -> bytes:
    return encode({"@type": _TYPES + kind, **members})


def error_text(error: ProxyError, request_id: str) -> bytes:
    """The error as one line, for a stream."""
    body = write_error(error, request_id).strip()
    if body.startswith(b"["):
        body = body[1:-1].strip()
    return msgspec.json.format(body, indent=-1) if b"\n" in body or b"\r" in body else body


def error_event(error: ProxyError, request_id: str) -> bytes:
    """The event that ends a stream that failed."""
    return b"data: " + error_text(error, request_id) + b"\r\n\r\n"


def error_element(error: ProxyError, request_id: str, told: Scanner | StreamWriter | None) -> bytes:
    """The last element of an array, and its end; *told* knows whether the array was begun."""
    begin = b",\r\n" if getattr(told, "is_open", False) else b"["
    return begin + error_text(error, request_id) + b"]"
