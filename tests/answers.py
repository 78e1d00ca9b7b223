"""What a fake upstream answers: recordings, event streams, and the smallest OpenAI bodies that are right."""

import itertools
import json
from collections.abc import Iterable
from typing import Literal

from tests.recordings import Recording
from tests.script import EVENT_STREAM, Chunk, End, Framing, Head, Headers, Step, fields

Split = Literal["whole", "bytes"] | int | Iterable[int]
"""In one piece, byte by byte, every so many bytes, or at these positions."""

# Head writes these itself, as the script's framing wants them.
_FRAMING_HEADERS = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})


def replay(
    recording: Recording,
    split: Split = "whole",
    *,
    body: bytes | None = None,
    framing: Literal["chunked", "sized", "close"] = "chunked",
) -> list[Step]:
    """
    The script that answers as *recording* does.

    *split* says how the body comes: in one piece, byte by byte, every so many bytes, or cut at the given
    positions (those outside the body do not count). *body* replaces the recorded one.
    """
    body = recording.response_body if body is None else body
    headers = [(name, value) for name, value in recording.response_headers if name not in _FRAMING_HEADERS]
    how: Framing = len(body) if framing == "sized" else framing
    return [Head(recording.response_status, headers, how), *map(Chunk, pieces(body, split)), End()]


def pieces(body: bytes, split: Split) -> list[bytes]:
    """*body* cut as *split* says; no piece is empty."""
    if split == "whole":
        cuts: Iterable[int] = ()
    elif split == "bytes":
        cuts = range(len(body))
    elif isinstance(split, int):
        cuts = range(0, len(body), split)
    else:
        cuts = split
    ends = [0, *sorted({cut for cut in cuts if 0 < cut < len(body)}), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(ends) if start < end]


def reply(body: object, status: int = 200, headers: Headers = ()) -> list[Step]:
    """The script of a plain answer of known length; *body* is bytes, or a value to be written as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = fields(headers)
    if not any(name.lower() == "content-type" for name, _ in named):
        named.append(("content-type", "application/json"))
    return [Head(status, named, len(data)), *([Chunk(data)] if data else []), End()]


def stream(*values: object, done: bool = True, headers: Headers = ()) -> list[Step]:
    """The script of a stream with one chunk an event; as `sse`."""
    events = [sse(value, done=False) for value in values]
    return [
        Head(200, [*EVENT_STREAM.items(), *fields(headers)]),
        *map(Chunk, [*events, DONE] if done else events),
        End(),
    ]


DONE = b"data: [DONE]\n\n"


def sse(*values: object, done: bool = True) -> bytes:
    """A stream of one event for each JSON value, and OpenAI's terminal event when *done*."""
    events = b"".join(b"data: %b\n\n" % json.dumps(value, separators=(",", ":")).encode() for value in values)
    return events + (DONE if done else b"")


def chat_chunk(text: str | None, *, finish: str | None = None, model: str = "gpt-4o-mini") -> dict[str, object]:
    """One `chat.completion.chunk` of choice 0 that adds *text* (None: nothing)."""
    delta = {} if text is None else {"content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def usage_chunk(prompt: int = 9, completion: int = 3, *, model: str = "gpt-4o-mini") -> dict[str, object]:
    """The chunk that only tells the usage: the last one, when `stream_options.include_usage` asks for it."""
    return chat_chunk(None, model=model) | {"choices": [], "usage": _usage(prompt, completion)}


def completion(
    text: str, *, prompt: int = 9, completion: int = 3, finish: str = "stop", model: str = "gpt-4o-mini"
) -> dict[str, object]:
    """A `chat.completion` of one choice that says *text*; *prompt* and *completion* are its tokens."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": _usage(prompt, completion),
    }


def error(message: str, *, kind: str = "server_error", code: str | None = None) -> dict[str, object]:
    """An error body of OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
