"""The errors of a provider, whatever their envelope."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from llmproxy_core import sse
from llmproxy_core.errors import UpstreamAuthError, UpstreamError
from llmproxy_core.headers import Headers
from llmproxy_core.resilience.failure import Failure, failure_of
from llmproxy_core.retry_after import retry_after
from llmproxy_core.wire.envelope import Envelope, read_body

IsOwn = Callable[[Envelope], bool]

_ABOUT_OUR_KEY = frozenset({401, 402, 403, 407})
_KEY_CODES = frozenset({"invalid_api_key", "incorrect_api_key", "API_KEY_INVALID"})
_BY_REQUEST = frozenset({Failure.MODEL_NOT_FOUND, Failure.CONTENT_POLICY})
"""For what a key that is in order gets a 403: a model that it may not use (OpenAI), flagged content (OpenRouter)."""
_ACCOUNT = re.compile(r"\b(?:account|suspended|disabled|deactivated)\b", re.IGNORECASE)
_NEVER_RETRY = frozenset({"insufficient_quota", "credit_balance_exhausted"})
_WORTH_RETRYING = frozenset({408, 409, 425, 429})

# What went wrong, as the status that an answer of its own would have (OpenAI, "Error codes", "Streaming events";
# servers that speak as it does). A code says more than a type: `invalid_api_key` is an `invalid_request_error`, too.
_STATUSES = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "model_not_found": 404,
    "server_is_overloaded": 503,
    "slow_down": 503,
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "overloaded_error": 503,
}


def _is_nested(envelope: Envelope) -> bool:
    return envelope.is_nested


def read_error(
    dialect: str,
    status: int,
    headers: Headers,
    crossing: tuple[tuple[str, str], ...],
    body: bytes,
    *,
    is_own: IsOwn = _is_nested,
) -> UpstreamError:
    """
    The error of an answer with *status*; *crossing* are those of its *headers* that a client may see.

    *is_own* says of what envelopes clients of *dialect* can read the body wherever it is told, in a stream too: as the
    answer to their request they get it as received, whatever it is.
    """
    if (headers.get("content-type") or "").startswith("text/event-stream"):
        body = _first_data(body)
    said = read_body(body)
    envelope = said or Envelope(_summary(status, headers, body))
    wait_s = retry_after(headers, datetime.now(UTC))
    error = UpstreamError(
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
        body=body if is_own(envelope) else None,
    )
    return auth_error(status, crossing) if _is_about_our_key(status, said, error) else error


def _first_data(body: bytes) -> bytes:
    """What the first event of *body* says, if there is one: some servers answer an error to a stream as a stream."""
    return next((data for raw in sse.split_events(body) if (data := sse.parse_event(raw).data)), body)


def reported_error(dialect: str, envelope: Envelope, body: bytes, *, is_own: IsOwn | None = None) -> UpstreamError:
    """
    The error that *body* (an answer of status 200, or an event of its stream) holds in place of an answer.

    Clients of *dialect* get the body as it is; not one that is no object, or that *is_own* does not know. An error that
    names neither a status nor a word that has one is the provider's own fault.
    """
    status = envelope.status or _STATUSES.get(envelope.code or "") or _STATUSES.get(envelope.kind or "", 502)
    error = UpstreamError(
        envelope.message,
        status=status,
        code=envelope.code,
        retryable=_is_retryable(status, Headers(), envelope),
        retry_after_s=envelope.retry_after_s,
        param=envelope.param,
        error_type=envelope.kind,
        upstream_status=200,
        dialect=dialect,
        body=body if (_is_object(body) if is_own is None else is_own(envelope)) else None,
    )
    return auth_error(status, ()) if _is_about_our_key(status, envelope, error) else error


def _is_object(body: bytes) -> bool:
    return body.strip().startswith(b"{")


def auth_error(status: int, crossing: tuple[tuple[str, str], ...]) -> UpstreamAuthError:
    """Our key was refused. Nothing of the provider's text: it may show the key, and it is not the caller's affair."""
    return UpstreamAuthError(
        f"The provider refused this gateway's own key (status {status}). Its operator must check the key, its "
        "permissions and its account; the request itself may be right.",
        upstream_status=status,
        headers=crossing,
    )


def _is_about_our_key(status: int, envelope: Envelope | None, error: UpstreamError) -> bool:
    """By the status, or (Gemini answers 400 to a bad key) by the body; a 403 may be about what was asked, too."""
    if status in _ABOUT_OUR_KEY:
        return status != 403 or failure_of(error) not in _BY_REQUEST or _ACCOUNT.search(error.message) is not None
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
