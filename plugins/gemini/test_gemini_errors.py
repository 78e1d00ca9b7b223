"""Errors: of Google's, however they are wrapped, and those of others in Google's words."""

import json
from typing import Any

import pytest
from llmproxy_gemini import GeminiDialect
from llmproxy_gemini.apis import STREAM

from llmproxy_core import BadRequest, Headers, ProxyError, Unauthorized, UpstreamAuthError, UpstreamError
from tests.recordings import recording

GEMINI = GeminiDialect()
JSON = Headers([("content-type", "application/json; charset=UTF-8")])
each = pytest.mark.parametrize


def told(error: ProxyError, request_id: str = "r-1") -> dict[str, Any]:
    body: dict[str, Any] = json.loads(GEMINI.write_error(error, request_id))["error"]
    return body


def envelope(status: int, word: str, message: str = "It broke") -> bytes:
    return json.dumps({"error": {"code": status, "message": message, "status": word}}).encode()


def test_the_delay_that_the_body_names_is_the_time_to_wait() -> None:
    case = recording("error429-retry-info")

    error = GEMINI.read_error(429, Headers(case.response_headers), case.response_body)

    assert error.retry_after_s == 34.4
    assert (error.status, error.error_type, error.retryable) == (429, "RESOURCE_EXHAUSTED", True)


def test_a_bad_key_of_ours_is_not_the_callers_affair() -> None:
    case = recording("generate-json-error400-chat-error-handling-with-gemini-2-5-flash-raises-appropriate-aut-0")

    error = GEMINI.read_error(400, Headers(case.response_headers), case.response_body)

    assert isinstance(error, UpstreamAuthError)
    assert (error.status, error.retryable) == (502, False)
    assert told(error)["status"] == "UNAVAILABLE"


def test_an_array_around_an_error_is_given_back() -> None:
    body = b"[" + envelope(404, "NOT_FOUND") + b"\n]\n"

    error = GEMINI.read_error(404, JSON, body)

    assert error.message == "It broke"
    assert GEMINI.write_error(error, "r-1") == body
    assert GEMINI.error_event(error, "r-1", STREAM) == b"data: " + envelope(404, "NOT_FOUND") + b"\r\n\r\n"


def test_an_error_typed_as_a_stream_is_read() -> None:
    headers = Headers([("content-type", "text/event-stream")])

    for body in (envelope(400, "INVALID_ARGUMENT"), b"data: " + envelope(400, "INVALID_ARGUMENT") + b"\r\n\r\n"):
        error = GEMINI.read_error(400, headers, body)

        assert (error.status, error.message, error.error_type) == (400, "It broke", "INVALID_ARGUMENT")
        assert GEMINI.write_error(error, "r-1") == envelope(400, "INVALID_ARGUMENT")


def test_an_indented_error_is_one_line_in_a_stream() -> None:
    body = json.dumps(json.loads(envelope(500, "INTERNAL")), indent=2).encode()

    event = GEMINI.error_event(GEMINI.read_error(500, JSON, body), "r-1", STREAM)

    assert event.count(b"\n") == 2
    assert json.loads(event.removeprefix(b"data: ")) == json.loads(body)


@each(
    ("error", "code", "word"),
    [
        (BadRequest("What?", param="contents"), 400, "INVALID_ARGUMENT"),
        (Unauthorized("Who?"), 401, "UNAUTHENTICATED"),
        (UpstreamError("Wait", status=429, retry_after_s=1.2), 429, "RESOURCE_EXHAUSTED"),
        (UpstreamError("Busy", status=529), 503, "UNAVAILABLE"),
        (UpstreamError("Late", status=504), 504, "DEADLINE_EXCEEDED"),
        (UpstreamError("Odd", status=418), 418, "INVALID_ARGUMENT"),
        (UpstreamError("Odder", status=507), 507, "INTERNAL"),
    ],
)
def test_errors_of_others_have_the_status_and_the_words_that_clients_read(
    error: ProxyError, code: int, word: str
) -> None:
    body = told(error)

    assert (body["code"], body["status"]) == (code, word)
    assert body["message"] == error.message
    assert GEMINI.error_status(error) == code


def test_programs_find_the_word_the_field_the_delay_and_the_id() -> None:
    error = UpstreamError("Wait", status=429, code="rate_limited", param="contents", retry_after_s=1.2)

    kinds = {detail["@type"].rpartition(".")[2]: detail for detail in told(error)["details"]}

    assert kinds["ErrorInfo"]["reason"] == "RATE_LIMITED"
    assert kinds["BadRequest"]["fieldViolations"][0]["field"] == "contents"
    assert kinds["RetryInfo"]["retryDelay"] == "2s"
    assert kinds["RequestInfo"]["requestId"] == "r-1"


def test_an_error_in_place_of_an_answer_is_an_error() -> None:
    for read in (GEMINI.read_reply, GEMINI.scan_reply):
        with pytest.raises(UpstreamError, match="It broke") as failed:
            read(GEMINI.apis[0], envelope(503, "UNAVAILABLE"))
        assert failed.value.status == 503
