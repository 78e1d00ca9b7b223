"""Streams for tests: recorded ones, and chunks made by hand."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from llmproxy_core.chat import ChatEvent
from llmproxy_core.dialect import Api
from llmproxy_core.frame import Frame
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT, COMPLETIONS
from tests.recordings import Recording, openai_recordings

OPENAI = OpenAIDialect()
DONE = b"data: [DONE]\n\n"

STREAMS = [each for each in openai_recordings() if each.is_event_stream and each.response_status == 200]


def api_of(recording: Recording) -> Api:
    return CHAT if recording.protocol == "chat" else COMPLETIONS


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def chunk(*choices: object, **members: object) -> bytes:
    """A chunk with these choices."""
    shared = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m"}
    return event({**shared, "choices": choices, **members})


def delta(index: int = 0, finish: str | None = None, logprobs: object = None, **members: Any) -> dict[str, object]:
    """A choice of a chunk."""
    return {"index": index, "delta": members, "logprobs": logprobs, "finish_reason": finish}


def frames_of(stream: bytes, api: Api = CHAT, pieces: Sequence[bytes] | None = None) -> list[Frame]:
    """All frames of *stream*, read as a whole or in *pieces*."""
    reader = OPENAI.reader(api)
    return [frame for piece in pieces or (stream,) for frame in reader.feed(piece)] + reader.end()


def events_of(stream: bytes, api: Api = CHAT) -> list[ChatEvent]:
    return [event for frame in frames_of(stream, api) for event in frame.events]


def payloads(stream: bytes) -> Iterator[Any]:
    """The decoded data of all events but the last, which must be [DONE] when it is there."""
    for block in stream.split(b"\n\n"):
        if block and block != b"data: [DONE]":
            assert block.startswith(b"data: ")
            yield json.loads(block[6:])


def splits(stream: bytes, size: int) -> list[bytes]:
    return [stream[start : start + size] for start in range(0, len(stream), size)]
