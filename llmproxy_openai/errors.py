"""Errors of a provider, and errors for a client, in OpenAI's form."""

from __future__ import annotations

from datetime import UTC, datetime

from llmproxy_core import sse
from llmproxy_core.errors import ProxyError, UpstreamAuthError, UpstreamError
from llmproxy_core.headers import Headers
from llmproxy_core.retry_after import retry_after
from llmproxy_openai.envelope import Envelope, read_body
from llmproxy_openai.splice import encode, join_object

_ABOUT_OUR_KEY = frozenset({401, 402, 403, 407})
_KEY_CODES = frozenset({"invalid_api_key", "incorrect_api_key", "API_KEY_INVALID"})
_NEVER_RETRY = frozenset({"insufficient_quota", "credit_balance_exhausted"})
_WORTH_RETRYING = frozenset({408, 409, 425, 429})


# -- from a provider -------------------------------------------------------------------------------------------


def read_error(
    dialect: str, status: int, headers: Headers, crossing: tuple[tuple[str, str], ...], body: bytes
) -> UpstreamError:
    """The error of an answer with *status*; *crossing* are those of its *headers* that a client may see."""
    if (headers.get("content-type") or "").startswith("text/event-stream"):
        body = _first_data(body)
    envelope = read_body(body)
    if _is_about_our_key(status, envelope):
        return auth_error(status, crossing)
    envelope = envelope or Envelope(_summary(status, headers, body))
    wait_s = retry_after(headers, datetime.now(UTC))
    return UpstreamError(
        envelope.message,
        status=status if 400 <= status <= 599 else 502,
        code=envelope.code,
        retryable=_is_retryable(status, headers, envelope),
        retry_after_s=envelope.retry_after_s if wait_s is None else wait_s,
        param=envelope.param,
        error_type=envelope.kind,
        upstream_status=status,
        headers=crossing,
        dialect=dialect,
        body=body if envelope.is_openai else None,
    )


def _first_data(body: bytes) -> bytes:
    """What the first event of *body* says, if there is one: some servers answer an error to a stream as a stream."""
    return next((data for raw in sse.split_events(body) if (data := sse.parse_event(raw).data)), body)


def reported_error(dialect: str, envelope: Envelope, body: bytes) -> UpstreamError:
    """The error that *body* (an answer of status 200, or an event of its stream) holds in place of an answer."""
    status = envelope.status or 502
    if _is_about_our_key(status, envelope):
        return auth_error(status, ())
    return UpstreamError(
        envelope.message,
        status=status,
        code=envelope.code,
        retryable=_is_retryable(status, Headers(), envelope),
        retry_after_s=envelope.retry_after_s,
        param=envelope.param,
        error_type=envelope.kind,
        upstream_status=200,
        dialect=dialect,
        body=body if envelope.is_openai else None,
    )


def auth_error(status: int, crossing: tuple[tuple[str, str], ...]) -> UpstreamAuthError:
    """Our key was refused. Nothing of the provider's text: it may show the key, and it is not the caller's affair."""
    return UpstreamAuthError(
        f"The provider refused this gateway's own key (status {status}). Its operator must check the key, its "
        "permissions and its account; the request itself may be right.",
        upstream_status=status,
        headers=crossing,
    )


def _is_about_our_key(status: int, envelope: Envelope | None) -> bool:
    """By the status, or (Gemini answers 400 to a bad key) by the body."""
    if status in _ABOUT_OUR_KEY:
        return True
    return envelope is not None and (envelope.code in _KEY_CODES or not _KEY_CODES.isdisjoint(envelope.reasons))


def _is_retryable(status: int, headers: Headers, envelope: Envelope) -> bool:
    """As the provider says (`x-should-retry`), else by what went wrong."""
    if envelope.code in _NEVER_RETRY or envelope.kind in _NEVER_RETRY:
        return False
    said = headers.get("x-should-retry")
    if said in {"true", "false"}:
        return said == "true"
    return status in _WORTH_RETRYING or status >= 500


def _summary(status: int, headers: Headers, body: bytes) -> str:
    """A sentence for an answer that says nothing we can read; a short plain text is quoted."""
    content_type = (headers.get("content-type") or "").partition(";")[0].strip()
    text = body.decode(errors="replace").strip()
    if content_type == "text/plain" and 0 < len(text) <= 300 and text.isprintable():
        return text
    about = f" and a body of type {content_type}" if content_type and text else ""
    return f"The provider answered with status {status}{about}, without saying why."


# -- for a client ----------------------------------------------------------------------------------------------

_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}


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
        "code": encode(error.code),
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
