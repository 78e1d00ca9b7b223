"""Of events that are alike but for their text one is searched; whatever else a stream holds is found all the same."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmproxy_anthropic import AnthropicDialect
from llmproxy_anthropic.apis import MESSAGES

from llmproxy_core.wire import EventScanner, event_scanner

DIALECT = AnthropicDialect()


def event(kind: str, **members: object) -> bytes:
    data = json.dumps({"type": kind, **members}, separators=(",", ":"), ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def said(text: str, index: int = 0) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "text_delta", "text": text})


HELLO = said("Hello")
MESSAGE = {"id": "msg_1", "model": "claude", "role": "assistant", "content": [], "usage": {"input_tokens": 3}}
TEXT = st.text(st.sampled_from('aé"\\{}:,\n'), max_size=6) | st.sampled_from(["error", 'x"},"type":"message_stop"'])
ROUGH = st.sampled_from(  # what no encoder of JSON writes between the quotes of a text
    [
        b'x"},"type":"message_stop","y":{"z":"',
        b'x","type":"error","y":"',
        b"message_stop",
        b"x\\",
        b'x\\\\"',
        b"x\nevent: message_stop",
        b"x\ry",
        b'x"}}\n\nevent: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"',
        b"",
    ]
)
EVENT = (
    st.builds(said, TEXT, st.sampled_from([0, 0, 0, 1]))
    | st.builds(lambda rough: HELLO.replace(b"Hello", rough), ROUGH)
    | st.sampled_from(
        [
            HELLO,
            event("message_start", message=MESSAGE),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
            event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"a":'}),
            event("content_block_stop", index=0),
            event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 4}),
            event("message_stop"),
            event("error", error={"type": "overloaded_error", "message": "busy"}),
            event("ping"),
            HELLO.replace(b"\n", b"\r\n"),
            b": ping\n\n",
            b"event: x\n\n",
            b"data: junk\n\n",
        ]
    )
)


def scanned(pieces: list[bytes], *, quickly: bool = False) -> tuple[Any, ...]:
    """What the stream gives, and all facts; *quickly*: what passes is not fed."""
    scanner = DIALECT.scanner(MESSAGES, usage=True)
    assert isinstance(scanner, EventScanner)
    passes = None
    out = b""
    for piece in pieces:
        line = b"%x\r\n" % len(piece)
        if quickly and passes is not None and passes(line + piece + b"\r\n", line):
            out += piece
        else:
            out += scanner.feed(piece)
            passes = scanner.passes
    out += scanner.end()
    told = None if scanner.error is None else (type(scanner.error), scanner.error.message)
    return out, scanner.usage, scanner.model, scanner.id, scanner.done, scanner.finish, told, scanner.output_tokens()


@given(st.lists(EVENT, max_size=12), st.integers(0, 2000), st.sampled_from([1, 300, 4096]))
def test_a_stream_passes_the_same_with_and_without_moulds(events: list[bytes], size: int, sample: int) -> None:
    stream = b"".join(events)
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)] if size else events
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmproxy_core.wire.sample.SAMPLE_BYTES", sample)
        found, quickly = scanned(pieces), scanned(pieces, quickly=True)
        patch.setattr(event_scanner, "MOST_MOULDS", 0)
        without = scanned(pieces)

    assert found == quickly == without


@pytest.mark.parametrize("at_once", [1, 2])
def test_once_the_beginning_is_over_events_of_the_mould_pass_also_in_the_next_block(at_once: int) -> None:
    scanner = DIALECT.scanner(MESSAGES, usage=True)
    assert isinstance(scanner, EventScanner)
    for index in range(2):
        for _ in range(40):
            assert scanner.feed(said("Hello", index) * at_once) == said("Hello", index) * at_once
        passes = scanner.passes

        assert passes is not None
        other = said(" world", index)
        line = b"%x\r\n" % len(other)
        assert passes(line + other + b"\r\n", line)
        assert not passes(line + other[:-2] + b"\r\n", line)
        assert not passes(other, line)
