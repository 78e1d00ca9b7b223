"""What a failed try is worth: nothing, another LLM, or another try."""

from __future__ import annotations

import re
from enum import Enum

from llmproxy_core.errors import (
    Overloaded,
    ProxyError,
    RouteNotFound,
    StoreUnavailable,
    Unsupported,
    UpstreamAuthError,
    UpstreamConnectError,
    UpstreamError,
)


class Failure(Enum):
    """
    The kinds of failures, as the tables of groups name them, and what follows each.

        kind                             the LLM's health        next
        upstream                         counts against it       after a back-off: the next member, or the same again
        connect                          counts against it       another member at once, the same after a back-off
        rate_limit                       its key rests           another key or member at once
        auth                             its key rests           another key or member at once
        context_window, content_policy,
        model_not_found                  fine                    another member, where the group says so
        unsupported                      was not asked           another member at once; it is no try
        unavailable                      was not asked           another member at once; it is no try
        spent (its retry budget)         was not asked           another member at once; it is no try
        caller                           fine                    nothing: all would refuse it
        ours                             was not asked           nothing
    """

    UPSTREAM = "upstream"
    CONNECT = "connect"
    RATE_LIMIT = "rate_limit"
    AUTH = "auth"
    CONTEXT_WINDOW = "context_window"
    CONTENT_POLICY = "content_policy"
    MODEL_NOT_FOUND = "model_not_found"
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    SPENT = "spent"
    CALLER = "caller"
    OURS = "ours"

    @property
    def was_asked(self) -> bool:
        """Whether the LLM was called at all: what was not called is no try, and says nothing of its health."""
        return self not in _NOT_ASKED

    @property
    def is_upstreams(self) -> bool:
        """Whether it is of the upstream's own making."""
        return self is Failure.UPSTREAM or self is Failure.CONNECT

    @property
    def rests(self) -> bool:
        """Whether the key that was used must wait before it is used again."""
        return self is Failure.RATE_LIMIT or self is Failure.AUTH

    @property
    def may_pass(self) -> bool:
        """Whether the same LLM may answer the same request later."""
        return self.is_upstreams or self is Failure.RATE_LIMIT or self is Failure.UNAVAILABLE


_NOT_ASKED = frozenset({Failure.UNSUPPORTED, Failure.UNAVAILABLE, Failure.SPENT, Failure.OURS})
BY_KIND = frozenset({Failure.CONTEXT_WINDOW, Failure.CONTENT_POLICY, Failure.MODEL_NOT_FOUND})
"""A group falls over for these only where its table says so: mostly the answer is meant for the caller."""


class Unavailable(UpstreamError):
    """An LLM that is not asked now: its breaker is open, its key rests, it is full or drained."""

    status = 503
    code = "upstream_unavailable"


class BudgetSpent(Unavailable):
    """An LLM that has had as many retries as it can bear."""

    code = "retry_budget"


# The words by which providers say it (their error references, and recorded answers); codes where they have one.
_WINDOW_CODES = frozenset({"context_length_exceeded", "context_window_exceeded", "string_above_max_length"})
_WINDOW = re.compile(
    r"maximum context length|context (?:window|length)|prompt is too long|input is too long|too many (?:input )?tokens"
    r"|input token count .{0,40}exceeds|exceeds? the (?:maximum|limit).{0,40}tokens",
    re.IGNORECASE,
)
_POLICY_CODES = frozenset(
    {"content_filter", "content_policy_violation", "content_filtered", "ResponsibleAIPolicyViolation"}
)
_POLICY = re.compile(r"content (?:management )?(?:policy|filter)|safety system|usage polic", re.IGNORECASE)
_MODEL_CODES = frozenset({"model_not_found", "invalid_model", "not_found_error", "NOT_FOUND"})
_LONGEST_SEARCHED = 2048  # characters of a provider's message


def failure_of(error: ProxyError) -> Failure:
    """What kind of failure *error* is."""
    if isinstance(error, BudgetSpent):
        return Failure.SPENT
    if isinstance(error, Unavailable | Overloaded | StoreUnavailable):
        return Failure.UNAVAILABLE
    if isinstance(error, UpstreamAuthError):
        return Failure.AUTH
    if isinstance(error, UpstreamConnectError):
        return Failure.CONNECT
    if isinstance(error, UpstreamError):
        return _of_answer(error)
    if isinstance(error, Unsupported | RouteNotFound):
        return Failure.UNSUPPORTED
    return Failure.CALLER if 400 <= error.status < 500 else Failure.OURS


def _of_answer(error: UpstreamError) -> Failure:
    status = error.status if error.upstream_status is None or error.upstream_status == 200 else error.upstream_status
    if status == 429:
        return Failure.RATE_LIMIT
    if status >= 500 or status in (408, 425):
        return Failure.UPSTREAM
    said = error.message[:_LONGEST_SEARCHED]
    words = {error.code, error.error_type}
    if status in (400, 413, 422) and (words & _WINDOW_CODES or _WINDOW.search(said)):
        return Failure.CONTEXT_WINDOW
    if words & _POLICY_CODES or (status in (400, 403, 422) and _POLICY.search(said)):
        return Failure.CONTENT_POLICY
    if words & _MODEL_CODES and (status == 404 or "model" in said.lower()):
        return Failure.MODEL_NOT_FOUND
    return Failure.CALLER
