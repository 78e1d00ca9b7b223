"""What a stream that was copied has said in tokens, when it ended without telling."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.sse import split_events
from llmproxy_core.usage import Usage
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.scan import ChunkScanner
from tests.answers import chat_chunk, pieces, sse
from tests.recordings import Recording, openai_recordings

DIALECT = OpenAIDialect()
APIS = {api.path: api for api in DIALECT.apis}
WORD = "word "
FACTOR = 2.5


def _estimate(chunks: Iterable[bytes], path: str = "/chat/completions") -> int:
    scanner = DIALECT.scanner(APIS[path], usage=True)
    for chunk in chunks:
        scanner.feed(chunk)
    return scanner.output_tokens()


def _path(recording: Recording) -> str:
    return recording.request_path[recording.request_path.index("/v1") + 3 :]


def _usage(recording: Recording) -> Usage | None:
    scanner = DIALECT.scanner(APIS["/chat/completions"], usage=True)
    scanner.feed(recording.response_body)
    return scanner.usage


def _before_usage(recording: Recording) -> bytes:
    kept: list[bytes] = []
    for event in split_events(recording.response_body):
        if b'"usage":{' in event.replace(b" ", b""):
            break
        kept.append(event)
    return b"".join(kept)


def _cut() -> list[Recording]:
    """Streams that told their usage, of which some was seen: reasoning that is not shown cannot be counted."""
    found = []
    for recording in openai_recordings():
        if recording.is_event_stream and _path(recording) in APIS and (usage := _usage(recording)) is not None:
            shown = usage.output_tokens - usage.reasoning_tokens
            if shown > 0:
                found.append(recording)
    return found


CUT = _cut()


def test_there_are_recordings_to_compare_with() -> None:
    assert len(CUT) >= 10


@pytest.mark.parametrize("recording", CUT, ids=str)
def test_a_stream_that_is_cut_before_its_usage_is_estimated_about_as_it_was_reported(recording: Recording) -> None:
    usage = _usage(recording)
    assert usage is not None

    estimate = _estimate([_before_usage(recording)], _path(recording))

    assert usage.output_tokens / FACTOR <= estimate <= usage.output_tokens * FACTOR


@pytest.mark.parametrize("recording", CUT, ids=str)
def test_however_it_came_the_estimate_is_the_same(recording: Recording) -> None:
    body = _before_usage(recording)

    whole = _estimate([body], _path(recording))

    assert _estimate(split_events(body), _path(recording)) == whole
    assert _estimate(pieces(body, "bytes"), _path(recording)) == whole


@given(
    words=st.lists(st.sampled_from([WORD, "a ", "much longer text in one event, " * 20, "字"]), max_size=400),
    cuts=st.lists(st.integers(1, 100_000), max_size=20),
)
def test_no_split_makes_a_difference(words: list[str], cuts: list[int]) -> None:
    body = sse(*map(chat_chunk, words), done=False)

    assert _estimate(pieces(body, cuts)) == _estimate([body])


@pytest.mark.parametrize("text", ["a", WORD, "somewhat longer text " * 4, "字", "{" * 50], ids=len)
@pytest.mark.parametrize("count", [1, 30, 3000])
@pytest.mark.parametrize("filler", ["", "x" * 500], ids=["lean", "padded"])
def test_of_a_long_stream_the_rest_counts_as_its_beginning(text: str, count: int, filler: str) -> None:
    """Whatever surrounds the text: padding against eavesdroppers, log probabilities, results of content filters."""
    events = [chat_chunk("")] + [chat_chunk(text) | {"obfuscation": filler}] * count
    expected = count * max(1, len(text.encode()) / 4)

    estimate = _estimate(sse(event, done=False) for event in events)

    assert expected / 1.3 <= estimate <= expected * 1.3 + 1


@pytest.mark.parametrize("comments", [0, 1, 200])
def test_comments_say_nothing(comments: int) -> None:
    """OpenRouter's, while it waits for a slot; they may come before anything else."""
    says = sse(*[chat_chunk(WORD)] * 20, done=False)

    assert 20 <= _estimate([b": PROCESSING\n\n"] * comments + [says]) <= 40


def test_a_stream_that_said_nothing_is_nothing() -> None:
    assert _estimate([]) == 0
    assert _estimate([sse(chat_chunk(None))]) == 0
    assert _estimate([sse(chat_chunk("half"), done=False)[:-5]]) == 0  # nobody got it either


def test_tool_calls_count_with_what_they_cost_besides_their_text() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    chunk = chat_chunk(None)
    chunk["choices"] = [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]

    assert 7 <= _estimate([sse(chunk, done=False)]) <= 20


def test_garbage_after_good_events_does_not_hide_them() -> None:
    good = sse(*[chat_chunk(WORD)] * 20, done=False)

    assert 20 <= _estimate([good, b"data: {garbage}\n\n", good]) <= 60


@pytest.mark.parametrize("before", [0, 20])
@pytest.mark.parametrize("end", [b'data: {"error":{"message":"busy"}}\n\n', b"data: junk\n\n", b"data: [DONE]\n\n"])
def test_what_stands_behind_the_end_of_a_stream_counts_for_nothing_in_the_same_read_either(
    end: bytes, before: int
) -> None:
    said = sse(*[chat_chunk(WORD)] * before, done=False)
    behind = sse(*[chat_chunk(WORD)] * 20, done=False)

    assert _estimate([said + end + behind]) == _estimate([said])


def test_one_huge_event_counts_by_its_length() -> None:
    assert _estimate([sse(chat_chunk("x" * 40_000), done=False)]) == pytest.approx(10_000, rel=0.1)


def test_completions_are_streams_like_others() -> None:
    values = [{"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": WORD}]}] * 20

    assert 20 <= _estimate([sse(*values, done=False)], "/completions") <= 30


def test_only_the_beginning_is_kept() -> None:
    """Memory for each open stream is what an instance runs out of first."""
    scanner = ChunkScanner("openai", usage=True)
    event = json.dumps(chat_chunk(WORD)).encode()
    for _ in range(5000):
        scanner.feed(b"data: " + event + b"\n\n")

    assert len(scanner._sample.data) <= 4096
    assert (
        sum(len(part) if isinstance(part, bytes) else sum(map(len, part[1])) for part in scanner._sample._parts) < 1000
    )
