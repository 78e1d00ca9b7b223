"""Error answers as providers, compatible servers and what stands before them have been seen to give."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

JSON = (("content-type", "application/json"),)
HTML = (("content-type", "text/html; charset=utf-8"),)
TEXT = (("content-type", "text/plain"),)
EVENTS = (("content-type", "text/event-stream"),)


@attrs.frozen
class ErrorAnswer:
    """One answer that is no success."""

    status: int
    body: bytes
    headers: Sequence[tuple[str, str]] = JSON

    def __str__(self) -> str:
        return f"the error {self.status} {self.body[:120]!r}"


ANSWERS: Sequence[ErrorAnswer] = (
    ErrorAnswer(400, b'{"error":{"message":"Too long","type":"invalid_request_error","param":"messages","code":"x"}}'),
    ErrorAnswer(400, b'{"type":"error","error":{"type":"invalid_request_error","message":"Bad"},"request_id":"r-1"}'),
    ErrorAnswer(400, b'{"error":{"code":400,"message":"Bad","status":"INVALID_ARGUMENT","details":[]}}'),
    ErrorAnswer(404, b'[{"error":{"code":404,"message":"No such model","status":"NOT_FOUND"}}]'),
    ErrorAnswer(404, b'data: {"error":{"code":404,"message":"No such model","status":"NOT_FOUND"}}\r\n\r\n', EVENTS),
    ErrorAnswer(
        422, b'{"object":"error","message":{"detail":[{"loc":["body","n"],"msg":"too many"}]},"type":"invalid"}'
    ),
    ErrorAnswer(422, b'{"detail":[{"loc":["body","messages",0],"msg":"field required","type":"value_error"}]}'),
    ErrorAnswer(400, b'{"object":"error","message":"Invalid model","type":"invalid_model","param":null,"code":"1500"}'),
    ErrorAnswer(400, b'{"code":"invalid-argument","error":"A text alone"}'),
    ErrorAnswer(429, b'{"error":{"message":"Slow down","code":429,"metadata":{"provider_name":"x"}}}'),
    ErrorAnswer(400, b'{"error":{"message":"Call failed","type":"invalid_request_error","failed_generation":"<x>"}}'),
    ErrorAnswer(500, b'{"error":null}'),
    ErrorAnswer(500, b'{"error":{}}'),
    ErrorAnswer(500, b'{"error":[]}'),
    ErrorAnswer(500, b'"just a text"'),
    ErrorAnswer(500, b"null"),
    ErrorAnswer(500, b"17"),
    ErrorAnswer(500, b"[]"),
    ErrorAnswer(500, b""),
    ErrorAnswer(502, b"<html><head><title>502 Bad Gateway</title></head></html>", HTML),
    ErrorAnswer(503, b"upstream connect error", TEXT),
    ErrorAnswer(503, b"\xff\xfe\x00", ()),
    ErrorAnswer(504, b'{"error":{"message":"Deadline", broken', JSON),
    ErrorAnswer(409, b'{"message":"Conflict"}'),
    ErrorAnswer(413, b'{"type":"error","error":{"type":"request_too_large","message":"Too large"}}'),
    ErrorAnswer(500, b'{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}'),
    ErrorAnswer(529, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'),
)
"""All shapes in which an error arrives."""

SAID = "sk-the-key-of-the-house"
OUR_KEY: Sequence[ErrorAnswer] = (
    ErrorAnswer(401, b'{"error":{"message":"Incorrect API key: sk-the-key-of-the-house","code":"invalid_api_key"}}'),
    ErrorAnswer(401, b'{"detail":"sk-the-key-of-the-house"}'),
    ErrorAnswer(401, b'{"type":"error","error":{"type":"authentication_error","message":"sk-the-key-of-the-house"}}'),
    ErrorAnswer(402, b'{"error":{"message":"No credit for sk-the-key-of-the-house","type":"billing_error"}}'),
    ErrorAnswer(403, b"sk-the-key-of-the-house may not", TEXT),
    ErrorAnswer(
        400,
        b'{"error":{"code":400,"message":"sk-the-key-of-the-house","status":"INVALID_ARGUMENT","details":[{"@type":'
        b'"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}',
    ),
)
"""What is said of the key that the call was made with; *SAID* is what no client may read."""

_LIMITED = b'{"error":{"message":"Slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}'
WAITS: Sequence[tuple[ErrorAnswer, float]] = (
    (ErrorAnswer(429, _LIMITED, (*JSON, ("retry-after", "7"))), 7.0),
    (ErrorAnswer(429, _LIMITED, (*JSON, ("retry-after-ms", "1500"), ("retry-after", "2"))), 1.5),
    (ErrorAnswer(503, _LIMITED, (*JSON, ("retry-after", "0.5"))), 0.5),
    (
        ErrorAnswer(
            429,
            b'{"error":{"code":429,"message":"Slow down","status":"RESOURCE_EXHAUSTED","details":[{"@type":'
            b'"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.4s"}]}}',
        ),
        34.4,
    ),
)
"""Errors that say how many seconds to wait."""

NEVER_RETRY: Sequence[ErrorAnswer] = (
    ErrorAnswer(429, b'{"error":{"message":"No quota","type":"insufficient_quota","code":"insufficient_quota"}}'),
    ErrorAnswer(429, _LIMITED, (*JSON, ("x-should-retry", "false"))),
    ErrorAnswer(400, b'{"error":{"message":"Bad","type":"invalid_request_error"}}'),
)
"""Errors that will come again."""
