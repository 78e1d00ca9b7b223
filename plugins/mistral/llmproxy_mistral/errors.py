"""Errors, as Mistral tells them."""

from __future__ import annotations

from llmproxy_core import Headers, ProxyError, UpstreamError
from llmproxy_core.wire import encode, encode_event, join_array, join_object, read_body, read_error

_TYPES = {
    400: "invalid_request_error",
    401: "unauthorized",
    402: "payment_required",
    403: "forbidden",
    404: "not_found",
    429: "rate_limited",
}
_CODES = {429: "1300"}
"""Codes of Mistral's that programs branch on."""


def read(
    dialect: str, status: int, headers: Headers, crossing: tuple[tuple[str, str], ...], body: bytes
) -> UpstreamError:
    """The error of an answer; whatever JSON it is, clients of Mistral have seen its like."""
    is_readable = read_body(body) is not None
    return read_error(dialect, status, headers, crossing, body, is_own=lambda _: is_readable)


def write(dialect: str, error: ProxyError, request_id: str) -> bytes:
    """The body for *error*; the provider's own where it is *dialect*'s."""
    if isinstance(error, UpstreamError) and error.dialect == dialect and error.body is not None:
        return error.body
    if error.status == 422:
        place = ["body", *([] if error.param is None else [error.param])]
        complaint = join_object(
            {"type": b'"value_error"', "loc": encode(place), "msg": encode(error.message), "input": b"null"}
        )
        return join_object({"detail": join_array([complaint])})
    return _told(dialect, error, request_id)


def _told(dialect: str, error: ProxyError, request_id: str) -> bytes:
    is_foreign = isinstance(error, UpstreamError) and error.dialect not in (None, dialect)
    code = _CODES.get(error.status, error.code) if is_foreign else error.code
    members = {
        "object": b'"error"',
        "message": encode(error.message),
        "type": encode(_TYPES.get(error.status, "internal_server_error" if error.status >= 500 else _TYPES[400])),
        "param": encode(error.param),
        "code": encode(code),
    }
    return join_object(members | ({"request_id": encode(request_id)} if request_id else {}))


def event(dialect: str, error: ProxyError, request_id: str) -> bytes:
    """The last event of a stream that failed: no chunk, always of one form, and no `[DONE]` after it."""
    return encode_event(_told(dialect, error, request_id))
