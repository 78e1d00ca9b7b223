"""Whatever a provider's error looks like, a client of OpenAI's protocol can read it, and our key is not in it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.errors import (
    BadRequest,
    BudgetExceeded,
    InternalError,
    Overloaded,
    ProxyError,
    RateLimited,
    RouteNotFound,
    Unauthorized,
    UpstreamAuthError,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from llmproxy_core.headers import Headers
from llmproxy_openai import OpenAIDialect
from tests.recordings import Recording, openai_recordings

OPENAI = OpenAIDialect()
AUTH = {401, 402, 403}
FAILURES = [each for each in openai_recordings() if each.response_status >= 400]


def read(status: int, body: object, **headers: str) -> UpstreamError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return OPENAI.read_error(status, Headers((name.replace("_", "-"), value) for name, value in headers.items()), raw)


# -- from a provider -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", FAILURES, ids=str)
def test_a_recorded_error_reaches_the_client_as_it_was_unless_it_is_about_our_key(recording: Recording) -> None:
    error = OPENAI.read_error(recording.response_status, Headers(recording.response_headers), recording.response_body)

    assert error.upstream_status == recording.response_status
    if recording.response_status in AUTH:
        assert (error.status, error.code) == (502, "upstream_auth")
    else:
        assert error.status == recording.response_status
        assert OPENAI.write_error(error, "r") == recording.response_body


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        pytest.param({"error": {"message": "Bad", "code": "c"}}, "Bad", "c", id="OpenAI"),
        pytest.param({"error": {"message": "Bad", "code": 429, "metadata": {}}}, "Bad", None, id="OpenRouter"),
        pytest.param({"type": "error", "error": {"type": "t", "message": "Bad"}}, "Bad", None, id="Anthropic"),
        pytest.param([{"error": {"code": 400, "message": "Bad", "status": "X"}}], "Bad", None, id="Google's array"),
        pytest.param({"code": "c", "error": "Bad"}, "Bad", "c", id="xAI"),
        pytest.param({"detail": "Bad"}, "Bad", None, id="detail"),
        pytest.param(
            {"detail": [{"loc": ["body", "n"], "msg": "Bad"}, {"msg": "Worse"}]},
            "body.n: Bad; Worse",
            None,
            id="FastAPI",
        ),
        pytest.param(
            {"object": "error", "message": {"detail": [{"loc": ["a"], "msg": "Bad"}]}, "code": None},
            "a: Bad",
            None,
            id="Mistral's validation",
        ),
        pytest.param({"object": "error", "message": "Bad", "code": "1300"}, "Bad", None, id="Mistral"),
        pytest.param({"message": "Bad"}, "Bad", None, id="message"),
        pytest.param({"error": {"code": "only_a_code"}}, "only_a_code", "only_a_code", id="a code alone"),
        pytest.param("Bad", "Bad", None, id="a bare text"),
        pytest.param(b"Bad", "status 418", None, id="not JSON"),
        pytest.param(b"", "status 418", None, id="empty"),
        pytest.param(b"<html><body>Bad gateway", "status 418", None, id="HTML"),
        pytest.param(b'{"error":{"message":"\xff"}}', "status 418", None, id="not UTF-8"),
        pytest.param(b"[" * 100_000, "status 418", None, id="deep"),
        pytest.param([], "status 418", None, id="empty list"),
        pytest.param({}, "status 418", None, id="empty object"),
        pytest.param(5, "status 418", None, id="a number"),
        pytest.param({"error": {"message": ""}}, "status 418", None, id="an empty message"),
        pytest.param({"error": {"message": "x" * 10_000}}, "x" * 1999 + "…", None, id="a page"),
    ],
)
def test_every_envelope_has_a_message(body: object, message: str, code: str | None) -> None:
    error = read(418, body, content_type="text/html; charset=utf-8")

    assert message in error.message
    assert error.code == (code or "upstream_error")
    assert error.status == 418
    assert json.loads(OPENAI.write_error(error, "r"))["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"error":{"message":"Bad"}}\n\n',
        b': hi\n\nevent: error\r\ndata: {"error":{"message":"Bad"}}',
        b'{"error":{"message":"Bad"}}',
    ],
    ids=["an event", "an event cut short", "no stream at all"],
)
def test_an_error_that_comes_as_a_stream_is_read(body: bytes) -> None:
    error = read(429, body, content_type="text/event-stream; charset=utf-8")

    assert error.message == "Bad"
    assert OPENAI.write_error(error, "r") == b'{"error":{"message":"Bad"}}'


def test_a_short_plain_text_is_quoted() -> None:
    assert read(503, b"upstream connect error\n", content_type="text/plain").message == "upstream connect error"
    assert "status 503" in read(503, b"a\x00b", content_type="text/plain").message
    assert "text/html" in read(503, b"<html>", content_type="text/html").message


@pytest.mark.parametrize(
    ("status", "ours", "retryable"),
    [
        (400, 400, False),
        (404, 404, False),
        (405, 405, False),
        (408, 408, True),
        (409, 409, True),
        (410, 410, False),
        (413, 413, False),
        (422, 422, False),
        (429, 429, True),
        (451, 451, False),
        (500, 500, True),
        (503, 503, True),
        (529, 529, True),
        (302, 502, False),
        (600, 502, True),
    ],
)
def test_the_status_is_the_providers(status: int, ours: int, retryable: bool) -> None:
    error = read(status, {"error": {"message": "Bad"}})

    assert (error.status, error.retryable, error.upstream_status) == (ours, retryable, status)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": {"message": "Incorrect API key provided: sk-123"}}),
        (402, {"error": {"message": "sk-123 has no credit"}}),
        (403, {"error": {"message": "sk-123 may not"}}),
        (400, {"error": {"message": "bad sk-123", "code": "invalid_api_key"}}),
        (400, [{"error": {"code": 400, "message": "bad sk-123", "details": [{"reason": "API_KEY_INVALID"}]}}]),
        (401, b"sk-123"),
    ],
    ids=str,
)
def test_an_error_about_our_key_is_the_operators(status: int, body: object) -> None:
    error = read(status, body)

    assert isinstance(error, UpstreamAuthError)
    assert (error.status, error.code, error.retryable, error.body) == (502, "upstream_auth", False, None)
    assert str(status) in error.message
    for written in (OPENAI.write_error(error, "r"), OPENAI.error_event(error, "r")):
        assert b"sk-123" not in written


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Project `p` does not have access to model `gpt-9`", "code": "model_not_found"},
        {"message": "Your input was flagged: violence", "code": 403},
        {"message": "No", "code": "content_policy_violation"},
    ],
    ids=["model", "flagged", "policy"],
)
def test_a_403_about_what_was_asked_is_the_callers(error: dict[str, object]) -> None:
    """OpenAI's for a model that the project may not use; OpenRouter's for flagged input."""
    found = read(403, {"error": error})

    assert not isinstance(found, UpstreamAuthError)
    assert (found.status, found.message, found.retryable) == (403, error["message"], False)


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Your account violates our usage policies"},
        {"message": "This key may not be used here", "code": "forbidden"},
        {"message": "The account for this model is suspended", "code": "model_not_found"},
    ],
    ids=["account", "key", "suspended"],
)
def test_a_403_about_the_account_is_the_operators(error: dict[str, object]) -> None:
    assert isinstance(read(403, {"error": error}), UpstreamAuthError)


@pytest.mark.parametrize(
    ("body", "headers", "seconds", "retryable"),
    [
        pytest.param({}, {"retry_after": "2"}, 2.0, True, id="header"),
        pytest.param({}, {"retry_after_ms": "1500"}, 1.5, True, id="milliseconds"),
        pytest.param(
            {"error": {"message": "x", "details": [{"@type": "RetryInfo", "retryDelay": "34.4s"}]}},
            {},
            34.4,
            True,
            id="Google",
        ),
        pytest.param(
            {"error": {"message": "x", "details": [{"retryDelay": "soon"}, 5]}},
            {},
            None,
            True,
            id="Google says nothing",
        ),
        pytest.param({"error": {"message": "x", "code": "insufficient_quota"}}, {}, None, False, id="no quota"),
        pytest.param(
            {"error": {"message": "x", "type": "insufficient_quota"}}, {}, None, False, id="no quota, by type"
        ),
        pytest.param({"error": {"message": "x", "code": "credit_balance_exhausted"}}, {}, None, False, id="no credit"),
        pytest.param({}, {"x_should_retry": "false"}, None, False, id="do not"),
        pytest.param({}, {"x_should_retry": "true"}, None, True, id="do"),
        pytest.param({}, {"x_should_retry": "perhaps"}, None, True, id="who knows"),
    ],
)
def test_hints_to_retry_are_read(body: object, headers: dict[str, str], seconds: float | None, retryable: bool) -> None:
    error = read(429, body, **headers)

    assert (error.retry_after_s, error.retryable) == (seconds, retryable)


def test_a_provider_may_ask_for_a_retry_of_a_400() -> None:
    assert read(400, {}, x_should_retry="true").retryable


def test_the_headers_that_cross_come_with_the_error() -> None:
    error = read(429, {}, x_ratelimit_limit_requests="5", openai_organization="org", set_cookie="a", retry_after="1")

    assert error.headers == (("x-ratelimit-limit-requests", "5"), ("retry-after", "1"))


@given(st.binary(max_size=40), st.integers(300, 599))
def test_no_body_breaks_its_error(body: bytes, status: int) -> None:
    error = read(status, body)

    assert error.message
    assert json.loads(OPENAI.write_error(error, "r"))["error"]["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "detail", "code", "type", "msg", "loc", "status", "details", "reason"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(JSON)
def test_no_envelope_breaks_its_error(body: Any) -> None:
    error = read(500, body)

    out = json.loads(OPENAI.write_error(error, "r"))["error"]
    assert isinstance(out, dict)
    assert out["message"].strip()


# -- for a client --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (BadRequest("x"), "invalid_request_error", "bad_request"),
        (RouteNotFound("x"), "invalid_request_error", "route_not_found"),
        (Unauthorized("x"), "authentication_error", "unauthorized"),
        (BudgetExceeded("x", code="daily_budget"), "insufficient_quota", "daily_budget"),
        (RateLimited("x"), "rate_limit_error", "rate_limited"),
        (InternalError("x"), "server_error", "internal_error"),
        (Overloaded("x"), "server_error", "overloaded"),
        (UpstreamTimeout("x"), "server_error", "upstream_timeout_first_byte"),
        (UpstreamCut("x"), "server_error", "upstream_cut"),
        (UpstreamError("x", error_type="theirs", dialect="other"), "server_error", "upstream_error"),
        (UpstreamError("x", error_type="ours", dialect="openai"), "ours", "upstream_error"),
    ],
    ids=repr,
)
def test_our_errors_are_said_in_openais_words(error: ProxyError, kind: str, code: str) -> None:
    assert json.loads(OPENAI.write_error(error, "r-1")) == {
        "error": {"message": "x", "type": kind, "param": None, "code": code, "request_id": "r-1"}
    }


def test_the_field_at_fault_is_named() -> None:
    assert json.loads(OPENAI.write_error(BadRequest("x", param="messages[0]"), ""))["error"] == {
        "message": "x",
        "type": "invalid_request_error",
        "param": "messages[0]",
        "code": "bad_request",
    }


def test_an_error_event_is_whole_and_no_end() -> None:
    event = OPENAI.error_event(UpstreamCut("cut"), "r")

    assert event.startswith(b'data: {"error":{')
    assert event.endswith(b"}}\n\n")
    assert b"[DONE]" not in event


def test_another_protocols_error_body_is_not_given() -> None:
    error = UpstreamError("Bad", dialect="anthropic", body=b'{"type":"error"}', status=529)

    assert json.loads(OPENAI.write_error(error, "r"))["error"]["message"] == "Bad"
