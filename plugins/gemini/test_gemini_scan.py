"""A stream that is copied tells the same as one that is decoded, however it is cut into reads."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmproxy_gemini import GeminiDialect
from llmproxy_gemini.apis import STREAM

from llmproxy_core import MOST_FINISH_WORDS
from llmproxy_core.chat import End, Failed, Finished, Start, UsageReported

GEMINI = GeminiDialect()
ERROR = b'data: {"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}\n\n'
PING = b": ping\n\n"


def chunk(text: str = "a", *, usage: Any = None, finish: str | None = None, index: int = 0) -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": index}
    if finish is not None:
        candidate["finishReason"] = finish
    body = {"candidates": [candidate], "modelVersion": "gemini-x", "responseId": "r1"}
    if isinstance(usage, int):
        usage = {"promptTokenCount": 5, "candidatesTokenCount": usage, "thoughtsTokenCount": 4000}
    if usage is not None:
        body["usageMetadata"] = usage
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def copied(reads: list[bytes]) -> tuple[Any, ...]:
    scanner = GEMINI.scanner(STREAM, usage=True)
    for data in reads:
        scanner.feed(data)
    scanner.end()
    message = None if scanner.error is None else scanner.error.message
    return scanner.usage, scanner.model, scanner.id, scanner.finish, message, scanner.done and message is None


def decoded(reads: list[bytes]) -> tuple[Any, ...]:
    reader = GEMINI.reader(STREAM)
    frames = [frame for data in reads for frame in reader.feed(data)] + [*reader.end()]
    usage = model = id_ = message = None
    finish: tuple[str | None, ...] = ()
    done = False
    for event in [event for frame in frames for event in frame.events]:
        match event:
            case Start():
                model, id_ = event.model, event.id
            case UsageReported():
                usage = event.usage
            case Finished():
                finish = (event.finish.word,)
            case Failed():
                message = event.message
            case End():
                done = True
            case _:
                pass
    return usage, model, id_, finish, message, done


USAGE_ALONE = (
    b'data: {"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":77},'
    b'"modelVersion":"gemini-x","responseId":"r1"}\n\n'
)
EVENTS = st.lists(
    st.sampled_from(
        [
            chunk(),
            chunk(usage=1),
            chunk(usage=2),
            chunk('data: {"usageMetadata":{"'),
            chunk(usage={}),
            chunk(usage=3, finish="STOP"),
            chunk(finish="STOP"),
            USAGE_ALONE,
            PING,
            b": data: x\n\n",
            b"event: ping\n\n",
            ERROR,
        ]
    ),
    max_size=6,
)


@given(
    events=EVENTS,
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    size=st.integers(0, 400),
    begins=st.sampled_from([b"", b"\xef\xbb\xbf", b"\n"]),
    is_open=st.booleans(),
)
def test_a_copied_stream_tells_what_a_decoded_one_does(
    events: list[bytes], end: bytes, size: int, begins: bytes, is_open: bool
) -> None:
    stream = begins + b"".join([chunk(), *events]).replace(b"\n", end)
    stream = stream.rstrip(b"\r\n") if is_open else stream
    reads = [stream[at : at + size] for at in range(0, len(stream), size)] if size else [stream]

    assert copied(reads) == decoded(reads)


@pytest.mark.parametrize("behind", [ERROR, PING, chunk(usage={}), PING + ERROR], ids=["error", "ping", "empty", "both"])
def test_a_usage_counts_whatever_came_behind_it_in_the_same_read(behind: bytes) -> None:
    scanner = GEMINI.scanner(STREAM, usage=True)

    scanner.feed(chunk(usage=1) + behind)

    assert scanner.model == "gemini-x"
    assert scanner.usage is not None
    assert scanner.usage.output_tokens == 4001


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_events_that_come_in_one_read_are_complete_whatever_their_line_ends(end: bytes) -> None:
    reads = [(chunk(usage=1) + chunk(usage=2)).replace(b"\n", end), chunk(usage=3, finish="STOP").replace(b"\n", end)]
    scanner = GEMINI.scanner(STREAM, usage=True)

    assert [scanner.feed(data) for data in reads] == reads
    assert scanner.end() == b""
    assert scanner.error is None
    assert scanner.done


@pytest.mark.parametrize("at_once", [1, 1000])
def test_of_an_endless_number_of_finish_words_the_last_are_kept(at_once: int) -> None:
    scanner = GEMINI.scanner(STREAM, usage=True)
    stream = [chunk(finish="STOP", index=index) for index in range(999)] + [chunk(finish="MAX_TOKENS", index=999)]

    for at in range(0, len(stream), at_once):
        scanner.feed(b"".join(stream[at : at + at_once]))

    assert scanner.finish == (*["STOP"] * (MOST_FINISH_WORDS - 1), "MAX_TOKENS")
