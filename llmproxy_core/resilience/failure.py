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
    UpstreamTimeout,
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
        deadline (of the call)           says nothing of it      nothing: the time is over
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
    DEADLINE = "deadline"
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
    def is_llms(self) -> bool:
        """Whether it says something of the LLM, or of our account there, rather than of the call."""
        return self.is_upstreams or self.rests

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


class Resting(Unavailable):
    """An LLM, or one of its keys, that is not asked before the time that its provider named."""

    code = "llm_resting"

    def __init__(
        self,
        message: str,
        rests_for: Failure = Failure.UNAVAILABLE,
        *,
        status: int | None = None,
        code: str | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """*rests_for*: the kind of the failure after which it does."""
        super().__init__(message, status=status, code=code, retryable=retryable, retry_after_s=retry_after_s)
        self.rests_for = rests_for


class BudgetSpent(Unavailable):
    """An LLM that has had as many retries as it can bear."""

    code = "retry_budget"


# The words by which providers say it (their error references, and recorded answers); codes where they have one.
_WINDOW_CODES = frozenset(
    {
        "context_length_exceeded",
        "context_window_exceeded",
        "string_above_max_length",
        "request_too_large",
        "exceed_context_size_error",
    }
)
_WINDOW = re.compile(
    r"maximum (?:context|prompt) length|context (?:window|length|limit)|available context size|prompt is too long"
    r"|input is too long|too many (?:input )?tokens|max_new_tokens.{0,3} must be <=|must have less than \d+ tokens"
    r"|input token count .{0,40}exceeds|exceeds? the (?:maximum|limit).{0,40}tokens",
    re.IGNORECASE,
)
_POLICY_CODES = frozenset(
    {"content_filter", "content_policy_violation", "content_filtered", "ResponsibleAIPolicyViolation"}
)
_POLICY = re.compile(
    r"content (?:management )?(?:policy|filter)|safety system|usage polic|content exists risk|input was flagged",
    re.IGNORECASE,
)
_MODEL_CODES = frozenset(
    {"model_not_found", "invalid_model", "not_found_error", "NOT_FOUND", "NotFoundError", "DeploymentNotFound"}
)
_NO_MODEL = re.compile(r"not a valid model|model not exist|invalid model", re.IGNORECASE)
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
    if isinstance(error, UpstreamTimeout) and error.code == "deadline_exceeded":
        return Failure.DEADLINE
    if isinstance(error, UpstreamError):
        return _of_answer(error)
    if isinstance(error, Unsupported | RouteNotFound):
        return Failure.UNSUPPORTED
    return Failure.CALLER if 400 <= error.status < 500 else Failure.OURS


def cause_of(error: ProxyError) -> Failure:
    """The kind of failure *error*; of an LLM that rests, that for which it does."""
    return error.rests_for if isinstance(error, Resting) else failure_of(error)


def _of_answer(error: UpstreamError) -> Failure:
    status = error.status if error.upstream_status is None or error.upstream_status == 200 else error.upstream_status
    said = error.message[:_LONGEST_SEARCHED]
    words = {error.code, error.error_type}
    if words & _WINDOW_CODES:  # llama.cpp says it with a 500, too
        return Failure.CONTEXT_WINDOW
    if status == 429:
        return Failure.RATE_LIMIT
    if status >= 500 or status in (408, 425):
        return Failure.UPSTREAM
    if status in (400, 413, 422) and _WINDOW.search(said):
        return Failure.CONTEXT_WINDOW
    if words & _POLICY_CODES or (status in (400, 403, 422) and _POLICY.search(said)):
        return Failure.CONTENT_POLICY
    if _names_no_model(status, words, said):
        return Failure.MODEL_NOT_FOUND
    return Failure.CALLER


def _names_no_model(status: int, words: set[str | None], said: str) -> bool:
    """Of the paths that are called none is wrong: a 404 that speaks of a model is about the one that was asked for."""
    speaks_of_it = "model" in said.lower()
    if status == 404:
        return speaks_of_it or not words.isdisjoint(_MODEL_CODES)
    return (speaks_of_it and not words.isdisjoint(_MODEL_CODES)) or _NO_MODEL.search(said) is not None
