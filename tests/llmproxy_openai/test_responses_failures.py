"""Streams of the Responses API that fail: `error`, then `response.failed`, numbered on from what the client got."""

import json
from typing import Any

import pytest

from llmproxy_core.chat import Failed, Start, TextDelta, UsageReported
from llmproxy_core.errors import UpstreamCut, UpstreamError
from llmproxy_core.testing.grammar import check_stream
from llmproxy_core.usage import Usage
from llmproxy_openai.responses import ResponsesDialect
from llmproxy_openai.responses.paths import CREATE
from tests.recordings import recording

DIALECT = ResponsesDialect()
FAILS = recording("openai/responses-stream-fixture-error-event-then-failed").response_body
GOOD = recording("openai/responses-stream-openai-responses-streaming-usage-0").response_body
CUT = UpstreamCut("It was cut")


def data_in(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: ")]


def event(**members: Any) -> bytes:
    return f"event: {members['type']}\ndata: {json.dumps(members)}\n\n".encode()


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_the_providers_own_failure_goes_out_as_it_came(size: int) -> None:
    scanner = DIALECT.scanner(CREATE, usage=False)
    out = b"".join(scanner.feed(FAILS[at : at + size]) for at in range(0, len(FAILS), size)) + scanner.end()
    assert b"error" not in out.replace(b'"error":null', b"")
    assert scanner.error is not None
    assert (scanner.error.status, scanner.error.code, scanner.error.retryable) == (429, "insufficient_quota", False)
    assert out + DIALECT.error_event(scanner.error, "id", CREATE, scanner) == FAILS


def test_a_reader_tells_the_same_failure_once() -> None:
    reader, writer = DIALECT.reader(CREATE), DIALECT.writer(CREATE, usage=False)
    frames = reader.feed(FAILS)
    failures = [one for frame in frames for one in frame.events if isinstance(one, Failed)]
    assert [(one.code, one.error_type, one.status) for one in failures] == [
        ("insufficient_quota", "insufficient_quota", 429)
    ]
    out = b"".join(writer.write(frame.events, frame) for frame in frames)
    told = failures[0]
    error = UpstreamError(told.message, status=told.status, code=told.code, dialect=told.dialect, body=told.body)
    assert out + DIALECT.error_event(error, "id", CREATE, writer) == FAILS


@pytest.mark.parametrize("usage", [None, {"input_tokens": 90, "output_tokens": 20, "total_tokens": 110}, "?"])
def test_what_a_failed_response_has_used_is_known(usage: object) -> None:
    failed = {**data_in(GOOD)[0]["response"], "status": "failed", "error": {"message": "Oops"}, "usage": usage}
    stream = event(type="response.failed", sequence_number=9, response=failed)
    scanner, reader = DIALECT.scanner(CREATE, usage=True), DIALECT.reader(CREATE)
    scanner.feed(stream)
    (frame,) = reader.feed(stream)

    known = Usage(90, 20, service_tier="flex") if isinstance(usage, dict) else None
    assert scanner.error is not None
    assert scanner.usage == known
    assert [it.usage for it in frame.events if isinstance(it, UsageReported)] == ([] if known is None else [known])
    assert isinstance(frame.events[-1], Failed)


def test_before_anything_was_sent_the_failure_is_a_body() -> None:
    scanner = DIALECT.scanner(CREATE, usage=False)
    scanner.feed(FAILS)
    assert scanner.error is not None
    assert json.loads(DIALECT.write_error(scanner.error, "id"))["error"] == data_in(FAILS)[2]["error"]


BEGUN = data_in(GOOD)[0]["response"]


@pytest.mark.parametrize(
    "failure",
    [
        event(type="error", sequence_number=9, code="server_error", message="Oops", param=None),
        event(
            type="error", sequence_number=9, error={"type": "server_error", "code": "server_error", "message": "Oops"}
        ),
        event(
            type="response.failed",
            sequence_number=9,
            response={**BEGUN, "status": "failed", "error": {"code": "server_error", "message": "Oops"}},
        ),
        b'data: {"error":{"message":"Oops","code":"server_error"}}\n\n',
    ],
    ids=["flat", "nested", "failed alone", "without a type"],
)
def test_every_form_of_failure_is_read(failure: bytes) -> None:
    begun = b"".join(one + b"\n\n" for one in GOOD.split(b"\n\n")[:2])
    scanner = DIALECT.scanner(CREATE, usage=False)
    out = scanner.feed(begun + failure) + scanner.end()
    assert out == begun
    assert scanner.error is not None
    assert (scanner.error.message, scanner.error.code) == ("Oops", "server_error")
    assert not scanner.done
    reader = DIALECT.reader(CREATE)
    frames = [*reader.feed(begun + failure), *reader.end()]
    (failed,) = [one for frame in frames for one in frame.events if isinstance(one, Failed)]
    assert (failed.message, failed.code) == ("Oops", "server_error")
    assert (
        check_stream("openai-responses", out + DIALECT.error_event(scanner.error, "id", CREATE, scanner), failed=True)
        == []
    )


@pytest.mark.parametrize("at", [700, 4000, len(GOOD) - 30])
def test_a_copied_stream_that_is_cut_goes_on_with_the_next_number(at: int) -> None:
    scanner = DIALECT.scanner(CREATE, usage=False)
    out = b"".join(scanner.feed(GOOD[start : min(start + 64, at)]) for start in range(0, at, 64)) + scanner.end()
    assert not scanner.done
    whole = out + DIALECT.error_event(CUT, "id", CREATE, scanner)
    told = data_in(whole)
    assert check_stream("openai-responses", whole, failed=True, strict=False) == []
    assert [one["sequence_number"] for one in told] == list(range(len(told)))
    assert [one["type"] for one in told[-2:]] == ["error", "response.failed"]
    assert told[-1]["response"]["id"] == told[0]["response"]["id"]
    assert told[-1]["response"]["error"] == {"code": CUT.code, "message": CUT.message}


def test_a_written_stream_that_is_cut_goes_on_with_the_next_number() -> None:
    writer = DIALECT.writer(CREATE, usage=False)
    out = writer.write([Start("r", "m"), TextDelta(0, "Hi")], None)
    whole = out + DIALECT.error_event(CUT, "id", CREATE, writer)
    assert check_stream("openai-responses", whole, failed=True) == []
    assert data_in(whole)[-1]["response"]["id"] == "r"


@pytest.mark.parametrize("told", [None, DIALECT.writer(CREATE, usage=False), DIALECT.scanner(CREATE, usage=False)])
def test_a_failure_before_any_event_begins_the_response_itself(told: Any) -> None:
    whole = DIALECT.error_event(CUT, "id", CREATE, told)
    assert check_stream("openai-responses", whole, failed=True) == []
    assert [one["type"] for one in data_in(whole)] == ["response.created", "error", "response.failed"]


def test_the_error_event_says_it_both_ways_for_clients_old_and_new() -> None:
    (told,) = [one for one in data_in(DIALECT.error_event(CUT, "id", CREATE)) if one["type"] == "error"]
    assert (told["message"], told["code"]) == (CUT.message, CUT.code)
    assert (told["error"]["message"], told["error"]["code"]) == (CUT.message, CUT.code)


def test_the_error_of_openais_other_protocol_is_kept_as_it_is() -> None:
    body = b'{"error":{"message":"No","type":"invalid_request_error","param":null,"code":"x","extra":1}}'
    error = UpstreamError("No", status=400, dialect="openai", body=body)
    assert DIALECT.write_error(error, "id") == body
