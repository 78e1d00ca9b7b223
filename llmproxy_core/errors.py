"""Errors, split by who must act: the operator, the caller, the provider; anything else is our bug."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import attrs


@attrs.frozen
class Problem:
    """One mistake in a configuration: where it is, what is wrong, and what would be right."""

    path: str
    """Where, in TOML terms: `llm.openai_chat.base_url`, `route[1].processors[0]`; "" for the whole file."""
    message: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}: "
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


class ConfigError(Exception):
    """The configuration cannot be used; *problems* names every mistake found, never the first alone."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ProxyError(Exception):
    """
    A call ended with an error that somebody outside must see.

    *status* is the HTTP status for the client, *code* a stable machine-readable word, *message* a sentence for a
    person. *retryable* says whether the same call may succeed later; False also asks SDKs not to retry by themselves.
    """

    status: int = 500
    code: str = "internal_error"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.status if status is None else status
        self.code = self.code if code is None else code
        self.retryable = self.retryable if retryable is None else retryable
        self.retry_after_s = retry_after_s
        self.param = param
        """The request field at fault, where there is one."""


_WAITS = frozenset({"retry-after", "retry-after-ms"})


def have_wait(error: ProxyError, wait_s: float | None) -> None:
    """Have *error* tell to come again in *wait_s* seconds, or not when, whatever the provider said itself."""
    error.retry_after_s = wait_s
    if isinstance(error, UpstreamError):
        error.headers = tuple(pair for pair in error.headers if pair[0] not in _WAITS)


def raise_unless_bug(error: BaseException) -> None:
    """
    Raise *error* again if it ends what runs on purpose (this task's cancellation, Ctrl-C, a generator's end).

    For `except BaseException` around what plugins wrote: all else is a bug of theirs. `sys.exit` is, which would end
    the process; so is the panic of a library in Rust, which is no Exception, and the cancellation of some other task.
    """
    try:
        if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
            raise error
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise error
    finally:
        del error  # it holds this frame, which would hold it


def bug_words(error: BaseException) -> str:
    """The type of *error*, which a plugin's code raised, and its message, on one line."""
    return " ".join(f"{type(error).__name__}: {own_words(error)}".split())


def own_words(error: BaseException) -> str:
    """The message of *error*, which a plugin's code raised."""
    try:
        return str(error)
    except BaseException as bug:  # noqa: BLE001 - what makes the message is the plugin's, too
        raise_unless_bug(bug)
        return "with a message that cannot be shown"


def _is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread of its own
        return False
    return task is not None and task.cancelling() > 0


def forget_tracebacks(error: BaseException | None) -> None:
    """
    Cut what an error holds of the frames it passed.

    They hold the exchange, and it the error: a cycle that would keep request bodies in memory until a collection.
    """
    seen = set[int]()
    left = [error]
    while left:
        found = left.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            found.__traceback__ = None
            left += [found.__cause__, found.__context__]


class RequestRejected(ProxyError):
    """The caller must change something (4xx); nothing was sent upstream, or what was sent is over."""

    status = 400
    code = "request_rejected"


class BadRequest(RequestRejected):
    """The request cannot be understood."""

    code = "bad_request"


class RouteNotFound(RequestRejected):
    """No route or operation lives at this method and path."""

    status = 404
    code = "route_not_found"


class MethodNotAllowed(RequestRejected):
    """The path exists, the method does not; *allowed* are the methods that do."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class Unauthorized(RequestRejected):
    """No valid credential was presented."""

    status = 401
    code = "unauthorized"


class Forbidden(RequestRejected):
    """The caller is known, or need not be, but may not do this."""

    status = 403
    code = "forbidden"


class StreamingNotAllowed(RequestRejected):
    """The route serves only streamed, or only plain answers."""

    code = "streaming_not_allowed"


class BudgetExceeded(RequestRejected):
    """A budget would be exceeded: 402, or 429 with *retry_after_s* when the budget's window resets."""

    status = 402
    code = "budget_exceeded"


class RateLimited(RequestRejected):
    """Too many calls, or too many at once."""

    status = 429
    code = "rate_limited"
    retryable = True


class GuardrailBlocked(RequestRejected):
    """A policy refused the content of the request or of the answer."""

    code = "guardrail_blocked"


class PayloadTooLarge(RequestRejected):
    """The request body is over the route's bound."""

    status = 413
    code = "payload_too_large"


class Unsupported(RequestRejected):
    """The target LLM cannot say what the request asks; *param* names the field."""

    code = "unsupported"


class UnsupportedMediaType(RequestRejected):
    """The body's Content-Type or Content-Encoding is not one we read."""

    status = 415
    code = "unsupported_media_type"


class Misdirected(RequestRejected):
    """The Host header names somebody else (RFC 9110 section 15.5.20)."""

    status = 421
    code = "misdirected_request"


class Overloaded(ProxyError):
    """We, not the provider, are at a bound, or draining."""

    status = 503
    code = "overloaded"
    retryable = True


class StoreUnavailable(ProxyError):
    """A store cannot be asked now. Whoever needs it fails open or closed; closed, this is what the caller gets."""

    status = 503
    code = "store_unavailable"
    retryable = True


class InternalError(ProxyError):
    """Our bug: the cause is in the log under the request id, never in the answer."""

    code = "internal_error"


class ProcessorFailed(InternalError):
    """A processor raised what is no ProxyError: a bug of it, named, the cause in the log."""

    code = "processor_failed"


class ProcessorTimeout(ProcessorFailed):
    """A processor took longer than its `timeout_s`."""

    code = "processor_timeout"


@attrs.frozen
class ReceivedBody:
    """The body of a provider's error answer, our secrets cut out of it, else as it came."""

    data: bytes
    content_type: str
    """"" where the provider named none."""


FAILED_CODES = frozenset(
    {
        "upstream_auth",
        "upstream_connect",
        "upstream_cut",
        "upstream_garbage",
        "upstream_timeout_first_byte",
        "upstream_timeout_first_token",
        "upstream_timeout_between_tokens",
        "upstream_timeout_idle",
        "upstream_timeout_total",
        "deadline_exceeded",
    }
)
"""Our own codes of an LLM that was asked and failed."""


class UpstreamError(ProxyError):
    """
    The provider failed, or answered with an error of its own.

    *body* is what the provider said, as JSON that a client of *dialect* may be told, also as an event of its stream.
    Codes of our own: `FAILED_CODES` and upstream_error (an error inside an answer of status 200). Of an LLM that was
    not asked: upstream_unavailable, llm_resting, llm_full, llm_drained, retry_budget.
    """

    status = 502
    code = "upstream_error"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        param: str | None = None,
        error_type: str | None = None,
        upstream_status: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        dialect: str | None = None,
        body: bytes | None = None,
    ) -> None:
        super().__init__(
            message, status=status, code=code, retryable=retryable, retry_after_s=retry_after_s, param=param
        )
        self.error_type = error_type
        """The provider's own word for the kind of error, for clients that branch on it."""
        self.upstream_status = upstream_status
        self.headers = headers
        """Response headers of the provider that cross to the client (rate limits, its request id)."""
        self.dialect = dialect
        """The wire protocol *body* is written in; a client of another gets an error of its own protocol."""
        self.body = body
        self.received: ReceivedBody | None = None
        """The whole answer that told of it, whatever that is: what a client of *dialect* gets with its status."""


class UpstreamConnectError(UpstreamError):
    """No connection to the provider: refused, DNS, TLS."""

    code = "upstream_connect"


class UpstreamTimeout(UpstreamError):
    """The provider took too long; the code says which clock ran out."""

    status = 504
    code = "upstream_timeout_first_byte"


class UpstreamCut(UpstreamError):
    """The provider's answer ended before its end."""

    code = "upstream_cut"


class UpstreamGarbage(UpstreamError):
    """The provider's answer cannot be understood."""

    code = "upstream_garbage"


def too_long(max_bytes: int) -> UpstreamGarbage:
    """The error of an answer that has more than *max_bytes*."""
    return UpstreamGarbage(f"The upstream's answer is longer than {max_bytes} bytes (max_response_bytes)")


class UpstreamAuthError(UpstreamError):
    """The provider refused our key (401, 402, 403, 407): the operator must act, not the caller."""

    code = "upstream_auth"
    retryable = False
