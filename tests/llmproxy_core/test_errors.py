"""Errors say who must act: a status, a stable code, a sentence."""

import inspect

import pytest

from llmproxy_core import (
    ConfigError,
    InternalError,
    MethodNotAllowed,
    Problem,
    ProxyError,
    RateLimited,
    RequestRejected,
    UpstreamError,
    errors,
)
from llmproxy_core.outcome import End

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ProxyError)]

# What clients and dashboards rely on; a change here breaks somebody.
STABLE = {
    "BadRequest": (400, "bad_request", False),
    "BudgetExceeded": (402, "budget_exceeded", False),
    "Forbidden": (403, "forbidden", False),
    "GuardrailBlocked": (400, "guardrail_blocked", False),
    "ProcessorFailed": (500, "processor_failed", False),
    "ProcessorTimeout": (500, "processor_timeout", False),
    "StoreUnavailable": (503, "store_unavailable", True),
    "InternalError": (500, "internal_error", False),
    "MethodNotAllowed": (405, "method_not_allowed", False),
    "Misdirected": (421, "misdirected_request", False),
    "Overloaded": (503, "overloaded", True),
    "PayloadTooLarge": (413, "payload_too_large", False),
    "ProxyError": (500, "internal_error", False),
    "RateLimited": (429, "rate_limited", True),
    "RequestRejected": (400, "request_rejected", False),
    "RouteNotFound": (404, "route_not_found", False),
    "StreamingNotAllowed": (400, "streaming_not_allowed", False),
    "Unauthorized": (401, "unauthorized", False),
    "Unsupported": (400, "unsupported", False),
    "UnsupportedMediaType": (415, "unsupported_media_type", False),
    "UpstreamAuthError": (502, "upstream_auth", False),
    "UpstreamConnectError": (502, "upstream_connect", True),
    "UpstreamCut": (502, "upstream_cut", True),
    "UpstreamError": (502, "upstream_error", True),
    "UpstreamGarbage": (502, "upstream_garbage", True),
    "UpstreamTimeout": (504, "upstream_timeout_first_byte", True),
}


def test_every_kind_keeps_its_status_code_and_advice() -> None:
    assert {kind.__name__: (kind.status, kind.code, kind.retryable) for kind in KINDS} == STABLE


@pytest.mark.parametrize("kind", [kind for kind in KINDS if issubclass(kind, RequestRejected)])
def test_what_the_caller_must_change_is_a_4xx_and_ends_as_refused(kind: type[RequestRejected]) -> None:
    allowed = {"allowed": ("GET",)} if kind is MethodNotAllowed else {}
    error = kind("no", **allowed)  # type: ignore[arg-type]

    assert 400 <= error.status < 500
    assert End.of(error) is End.REFUSED


@pytest.mark.parametrize("kind", [kind for kind in KINDS if issubclass(kind, UpstreamError)])
def test_what_the_provider_did_ends_as_failed(kind: type[UpstreamError]) -> None:
    error = kind("no")

    assert error.status >= 500
    assert End.of(error) is End.FAILED


def test_one_error_may_say_more_than_its_kind() -> None:
    error = RateLimited(
        "slow down", status=503, code="too_many_at_once", retryable=False, retry_after_s=1.5, param="model"
    )

    assert (error.status, error.code, error.retryable) == (503, "too_many_at_once", False)
    assert (error.retry_after_s, error.param) == (1.5, "model")
    assert (RateLimited.status, RateLimited.code, RateLimited.retryable) == (429, "rate_limited", True)


def test_the_message_is_what_the_exception_says() -> None:
    error = InternalError("We broke")

    assert error.message == str(error) == "We broke"
    assert (error.retry_after_s, error.param) == (None, None)


def test_a_refused_method_names_those_that_are_allowed() -> None:
    error = MethodNotAllowed("This path takes GET or POST", allowed=("GET", "POST"))

    assert error.allowed == ("GET", "POST")
    assert error.status == 405


def test_an_upstream_error_keeps_what_the_provider_said() -> None:
    error = UpstreamError(
        "overloaded",
        status=529,
        code="overloaded_error",
        retryable=True,
        retry_after_s=3,
        param="messages",
        error_type="overloaded_error",
        upstream_status=529,
        headers=(("retry-after", "3"),),
        dialect="anthropic",
        body=b"{}",
    )

    assert (error.error_type, error.upstream_status, error.headers) == (
        "overloaded_error",
        529,
        (("retry-after", "3"),),
    )
    assert (error.dialect, error.body) == ("anthropic", b"{}")
    assert (error.status, error.code, error.retry_after_s, error.param) == (529, "overloaded_error", 3, "messages")


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("llm.a.base_url", "no URL"), "llm.a.base_url: no URL"),
        (Problem("llm.a.base_url", "no URL", line=7), "line 7: llm.a.base_url: no URL"),
        (Problem("", "no such file"), "no such file"),
        (Problem("", "expected =", line=2, column=5), "line 2: expected ="),
    ],
)
def test_a_problem_says_where_and_what(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_configuration_error_names_every_problem() -> None:
    problems = [Problem("a", "one"), Problem("b", "two")]

    error = ConfigError(problem for problem in problems)

    assert error.problems == tuple(problems)
    assert str(error) == "a: one\nb: two"
