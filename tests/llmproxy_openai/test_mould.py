"""Events that are like one that told nothing are passed over; whatever else a stream holds is found all the same."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.dialect import Scanner
from llmproxy_core.errors import UpstreamGarbage
from llmproxy_core.wire.mould import Mould, middle_event
from llmproxy_openai import scan
from llmproxy_openai.paths import CHAT
from llmproxy_openai.scan import ChunkScanner
from tests.llmproxy_openai.streams import DONE, OPENAI, chunk, delta, splits

HELLO = chunk(delta(content="Hello"))
TEXT = st.text(st.sampled_from('aé"\\{}:,\n'), max_size=6) | st.sampled_from(["error", "usage", 'x","usage":{"a":1}'])
ROUGH = st.sampled_from(  # what no encoder of JSON writes between the quotes of a text
    [
        b'x","usage":{"prompt_tokens":3,"completion_tokens":4},"y":"',
        b'x"},"finish_reason":"length","y":{"z":"',
        b'x"}}],"error":{"message":"overloaded"},"y":[{"z":{"w":"',
        b"error",
        b"usage",
        b"x\\",
        b'x\\\\"',
        b"x\nevent: y",
        b"x\ry",
        b"x\n\ndata: {",
        b"",
    ]
)
EVENT = (
    st.builds(lambda text: chunk(delta(content=text)), TEXT)
    | st.builds(lambda rough: HELLO.replace(b"Hello", rough), ROUGH)
    | st.sampled_from(
        [
            HELLO,
            chunk(delta(role="assistant", content="")),
            chunk(delta(finish="stop")),
            chunk(delta(content="last", finish="stop")),
            chunk(delta(reasoning="hm")),
            chunk(usage={"prompt_tokens": 1, "completion_tokens": 2}),
            chunk(error={"message": "bad"}),
            HELLO.replace(b"\n\n", b"\r\n\r\n"),
            b": ping\n\n",
            b"\n",
            b"event: x\n\n",
            b"data: junk\n\n",
            DONE,
        ]
    )
)


def mould_of(event: bytes) -> Mould | None:
    text = next(scan._TEXT(event), None)
    return None if text is None else Mould.of(event, text.span(2))


def framed(piece: bytes) -> tuple[bytes, bytes]:
    """A chunk with *piece* in it, and the line it begins with."""
    line = b"%x\r\n" % len(piece)
    return line + piece + b"\r\n", line


def scanned(pieces: list[bytes], *, usage: bool, quickly: bool = False) -> tuple[Any, ...]:
    """What the stream gives, and all facts; *quickly*: what passes is not fed."""
    scanner: Scanner = OPENAI.scanner(CHAT, usage=usage)
    assert isinstance(scanner, ChunkScanner)
    passes = None
    out = b""
    try:
        for piece in pieces:
            if quickly and passes is not None and passes(*framed(piece)):
                out += piece
            else:
                out += scanner.feed(piece)
                passes = scanner.passes
        out += scanner.end()
    except UpstreamGarbage as error:
        return out, str(error)
    told = None if scanner.error is None else (type(scanner.error), scanner.error.message)
    return out, scanner.usage, scanner.model, scanner.id, scanner.done, told, scanner.output_tokens(), scanner.finish


@given(st.lists(EVENT, max_size=12), st.integers(1, 2000), st.booleans())
def test_a_stream_passes_the_same_with_and_without_moulds(events: list[bytes], size: int, usage: bool) -> None:
    pieces = splits(b"".join(events), size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "MOST_MOULDS", 0)
        *without, finished = scanned(pieces, usage=usage)

    *found, finish = scanned(pieces, usage=usage)

    assert found == without
    assert finish == finished[: len(finish)]  # behind the end nothing counts
    assert found[5] is not None or DONE in events[:-1] or finish == finished


@given(st.lists(EVENT, max_size=12), st.integers(0, 2000), st.booleans(), st.sampled_from([1, 300, 4096]))
def test_what_passes_need_not_be_fed(events: list[bytes], size: int, usage: bool, sample: int) -> None:
    pieces = splits(b"".join(events), size) if size else events
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmproxy_core.wire.sample.SAMPLE_BYTES", sample)

        assert scanned(pieces, usage=usage, quickly=True) == scanned(pieces, usage=usage)


def test_once_the_beginning_is_over_events_of_the_mould_pass() -> None:
    scanner = OPENAI.scanner(CHAT, usage=False)
    for _ in range(40):
        scanner.feed(HELLO)

    assert isinstance(scanner, ChunkScanner)
    passes = scanner.passes

    assert passes is not None
    assert passes(*framed(HELLO))
    assert not passes(*framed(chunk(delta(finish="stop"))))
    scanner.feed(HELLO[:9])
    assert scanner.passes is None


def test_of_many_events_those_of_the_mould_are_quiet() -> None:
    mould = mould_of(HELLO)
    assert mould is not None
    first, last = chunk(delta(role="assistant", content="")), chunk(delta(finish="stop"))
    texts = b"".join(chunk(delta(content=text)) for text in ["a", "", 'She said "no".', "back\\", "é"])

    assert mould.quiet(first + texts + last) == (len(first), len(first) + len(texts))
    assert mould.quiet(texts) == (0, len(texts))
    assert mould.quiet(last) == (0, 0)


@pytest.mark.parametrize(
    "event",
    [
        chunk(delta(finish="stop")),
        HELLO.replace(b"\n", b"\r\n"),
        b"id: 1\n" + HELLO,
        b"event: x\nid: 1\n" + HELLO,
        b"event: x\ndata: {}\n" + HELLO,
        b"event: x\n\n" + HELLO,
        b"data: {}\n" + HELLO,
        HELLO.replace(b'"},', b'" },'),
        DONE,
        b"",
    ],
)
def test_not_every_event_gives_a_mould(event: bytes) -> None:
    assert mould_of(event) is None


def test_what_events_tell_besides_their_text_ends_the_search_for_a_mould() -> None:
    scanner = OPENAI.scanner(CHAT, usage=False)
    stream = [chunk(delta(content="x"), obfuscation="y" * number) for number in range(20)]

    assert [scanner.feed(event) for event in stream] == stream
    assert json.dumps("x").encode() in middle_event(b"".join(stream))


@given(st.lists(EVENT, max_size=2).map(b"".join))
def test_what_fits_a_mould_is_one_event_that_tells_nothing(block: bytes) -> None:
    mould = mould_of(HELLO)
    assert mould is not None

    fits = mould.fits(block)

    assert mould.passed_bytes == (len(block) if fits else 0)
    assert mould.passes(*framed(block)) == fits
    if fits:
        assert mould.quiet(block) == (0, len(block))
        assert block.count(b"\n\n") == 1


def test_an_event_like_the_one_before_fits_its_mould() -> None:
    mould = mould_of(HELLO)

    assert mould is not None
    assert mould.fits(chunk(delta(content=" world")))
    assert mould.fits(chunk(delta(content="")))
    assert mould.fits(chunk(delta(content="line\nand line")))
    assert not mould.fits(chunk(delta(content=" world")) * 2)
    assert not mould.fits(HELLO.replace(b"Hello", b"x\\"))
