"""Answers of our own making, with the headers that go with them."""

from __future__ import annotations

from math import ceil

from llmproxy_core.dialect import Dialect
from llmproxy_core.endpoint import EndpointReply
from llmproxy_core.errors import BudgetExceeded, MethodNotAllowed, ProxyError, UpstreamError
from llmproxy_core.relay import Whole

SECURE_HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cross-origin-resource-policy", "same-origin"),
)
"""For what is not a provider's answer: nothing in it is to be run, framed, stored or guessed at."""

STREAM_HEADERS = (("cache-control", "no-cache"), ("x-accel-buffering", "no"))
"""For event streams: nobody on the way keeps them back."""

_SDKS_RETRY = frozenset({408, 409, 429})


def error_answer(error: ProxyError, dialect: Dialect, request_id: str) -> Whole:
    """*error* as a status and a body of *dialect*; what a provider of that dialect answered goes on as it came."""
    headers = [*SECURE_HEADERS, *_hints(error)]
    if isinstance(error, UpstreamError) and error.dialect == dialect.name and (body := error.received) is not None:
        return Whole(error.status, headers, body.content_type, body.data)
    return Whole(dialect.error_status(error), headers, "application/json", dialect.write_error(error, request_id))


def _hints(error: ProxyError) -> list[tuple[str, str]]:
    """What a client may do about it: when to try again, or by which method."""
    headers = list(error.headers) if isinstance(error, UpstreamError) else []
    said = {name for name, _ in headers}
    if error.retry_after_s is not None:
        wait_s = max(error.retry_after_s, 0.0)
        if "retry-after" not in said:
            headers.append(("retry-after", str(ceil(wait_s))))
        if "retry-after-ms" not in said:
            headers.append(("retry-after-ms", str(ceil(wait_s * 1000))))
    would_retry = error.status in _SDKS_RETRY or error.status >= 500 or isinstance(error, BudgetExceeded)
    if would_retry and not error.retryable and "x-should-retry" not in said:
        headers.append(("x-should-retry", "false"))
    if isinstance(error, MethodNotAllowed):
        headers.append(("allow", ", ".join(error.allowed)))
    if error.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    return headers


def endpoint_answer(reply: EndpointReply) -> Whole:
    """The answer of an endpoint; what it says itself counts before the secure headers."""
    return made_here(Whole(reply.status, list(reply.headers), reply.content_type, reply.body))


def made_here(whole: Whole) -> Whole:
    """*whole*, which no provider made, with the secure headers."""
    said = {name for name, _ in whole.headers}
    headers = [*whole.headers, *(pair for pair in SECURE_HEADERS if pair[0] not in said)]
    return Whole(whole.status, headers, whole.content_type, whole.body, own=True)
