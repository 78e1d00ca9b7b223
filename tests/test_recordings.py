"""The recordings are read as they were recorded, and the small answers are right."""

import asyncio
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.answers import DONE, Split, chat_chunk, completion, pieces, replay, sse, stream, usage_chunk
from tests.rawclient import ASK, WAIT_S, connected
from tests.recordings import FOLDER, openai_recordings, recording, recordings, without_usage_chunk
from tests.script import Chunk, End, Head
from tests.upstream import Upstream


def test_every_recording_of_the_providers_is_read() -> None:
    assert Counter((it.provider, it.protocol) for it in recordings()) == {
        ("anthropic", "count_tokens"): 2,
        ("anthropic", "messages"): 26,
        ("compatible", "chat"): 8,
        ("compatible", "responses"): 1,
        ("gemini", "chat"): 2,
        ("gemini", "countTokens"): 2,
        ("gemini", "gembed"): 1,
        ("gemini", "generate"): 11,
        ("gemini", "models"): 1,
        ("gemini", "streamGenerate"): 9,
        ("mistral", "chat"): 12,
        ("mistral", "embeddings"): 1,
        ("openai", "chat"): 25,
        ("openai", "completions"): 2,
        ("openai", "embeddings"): 2,
        ("openai", "responses"): 17,
    }
    assert len(recordings()) == 122 == len({str(each) for each in recordings()})
    assert len(openai_recordings()) == 37


def test_recordings_are_chosen_by_what_they_are() -> None:
    assert {it.response_status for it in recordings(fails=True)} == {200, 400, 401, 404, 422, 429, 500, 503, 529}
    assert {it.response_status for it in recordings(fails=False)} == {200}
    assert {it.provider for it in recordings(status=529)} == {"anthropic"}
    assert {it.dialect for it in recordings(protocol="chat")} == {"openai", "mistral"}
    assert {it.provider for it in recordings(dialect="openai")} == {"openai", "compatible", "gemini"}
    assert all(it.is_event_stream for it in recordings(stream=True))
    assert not any(it.is_event_stream for it in recordings(stream=False))


@pytest.mark.parametrize("case", recordings(), ids=str)
def test_a_recording_is_the_file_s_exchange(case: object) -> None:
    each = recording(str(case))
    source = json.loads(Path(FOLDER, f"{each}.json").read_bytes())

    assert json.loads(each.request_body) == source["request"]["body"]
    assert b"\n" not in each.request_body
    if each.is_event_stream:
        assert each.response_body.decode() == source["response"]["sse"]
    else:
        assert json.loads(each.response_body) == source["response"]["body"]
    assert dict(each.response_headers) == source["response"]["headers"]
    assert each.is_event_stream == (each.stream and each.response_status == 200)


def test_an_unknown_or_ambiguous_recording_is_an_error() -> None:
    for name in ("no such", "-0"):
        with pytest.raises(LookupError, match=r"recordings end with"):
            recording(name)


def test_only_the_events_that_only_tell_the_usage_are_removed() -> None:
    kept = [
        b": comment\n\n",
        b'data: {"choices":[{"delta":{}}],"usage":{"total_tokens":1}}\r\n\r\n',
        b'data: {"choices":[],"usage":null}\n\n',
        b'data: {"choices":[],"prompt_filter_results":[]}\r\r',
        b"data: [DONE]\n\n",
        b'data: {"choices":[],"usage":{"total_tokens":1}}',  # no blank line: not yet an event
    ]
    usage = [
        b'data: {"choices": [],\ndata:"usage": {"total_tokens": 1}}\r\n\r\n',
        sse(usage_chunk(), done=False),
    ]

    for first in usage:
        assert without_usage_chunk(first + kept[0] + usage[1] + b"".join(kept[1:])) == b"".join(kept)


@pytest.mark.parametrize("case", [each for each in openai_recordings() if each.is_event_stream], ids=str)
def test_a_stream_has_a_usage_event_when_it_was_asked_for(case: object) -> None:
    each = recording(str(case))

    without = without_usage_chunk(each.response_body)

    assert without in (each.response_body, *_less_one_event(each.response_body))
    assert (without != each.response_body) == each.wants_usage


def _less_one_event(stream_bytes: bytes) -> list[bytes]:
    """Every stream that lacks one event of this one, whose line ends are all LF."""
    events = [event + b"\n\n" for event in stream_bytes.split(b"\n\n")[:-1]]
    bounds = list(pairwise(range(len(events) + 1)))
    return [b"".join(events[:start] + events[end:]) for start, end in bounds]


def test_a_body_is_cut_where_asked_and_nowhere_else() -> None:
    assert pieces(b"abcdef", "whole") == [b"abcdef"]
    assert pieces(b"abc", "bytes") == [b"a", b"b", b"c"]
    assert pieces(b"abcdef", [4, 2, 2, 0, 6, 99]) == [b"ab", b"cd", b"ef"]
    assert pieces(b"abcdefg", 3) == [b"abc", b"def", b"g"]
    assert pieces(b"", "bytes") == []


def test_the_bodies_have_usage_that_adds_up() -> None:
    for usage in (completion("Hi", prompt=5, completion=2)["usage"], usage_chunk(5, 2)["usage"]):
        assert usage == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert usage_chunk()["choices"] == []


async def test_a_stream_sends_an_event_a_chunk() -> None:
    values = [chat_chunk("Hel"), chat_chunk("lo"), chat_chunk(None, finish="stop")]

    bodies = [step.data for step in stream(*values) if isinstance(step, Chunk)]

    assert bodies == [*(sse(value, done=False) for value in values), DONE]
    assert b"".join(bodies) == sse(*values)


@pytest.mark.parametrize("split", ["whole", "bytes", (1, 7, 7, 100, 10**9)], ids=str)
@pytest.mark.parametrize("framing", ["chunked", "sized", "close"])
async def test_a_replay_gives_the_recorded_bytes_in_the_pieces_asked_for(split: Split, framing: str) -> None:
    case = recording("chat-stream-openrouter-chat-model-complete-seed-0")
    expected = pieces(case.response_body, split)
    assert b"".join(expected) == case.response_body
    if framing == "chunked":
        script, wire = replay(case, split), b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in expected)
        wire += b"0\r\n\r\n"
    else:
        script, wire = (
            replay(case, split, framing="sized" if framing == "sized" else "close"),
            case.response_body,
        )

    async with Upstream(script) as upstream, connected(upstream.port) as client:
        client.send()
        head = await client.until(b"\r\n\r\n")
        body = await client.exactly(len(wire))

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.lower().count(b"transfer-encoding") == (framing == "chunked")
    assert body == wire
    assert upstream.requests[0].chunks_sent == len(expected)


class Reads(asyncio.Protocol):
    """Keeps what each read gave."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.reads.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def test_a_reader_on_the_same_loop_sees_each_piece_alone() -> None:
    """Else "byte by byte" would be a claim: the reader would get them joined."""
    data = sse(chat_chunk("x" * 200))
    async with Upstream([Head(200, (), "close"), *map(Chunk, pieces(data, "bytes")), End()]) as upstream:
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_connection(Reads, "127.0.0.1", upstream.port)
        transport.write(ASK)
        await asyncio.wait_for(client.lost.wait(), WAIT_S)

    assert b"".join(client.reads).endswith(b"\r\n\r\n" + data)
    assert len(client.reads) > 0.9 * len(data)  # the kernel may join a few
