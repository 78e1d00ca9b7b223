"""Pass-through: whole events, bytes as they came, and nearly nothing decoded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.dialect import Scanner
from llmproxy_core.errors import UpstreamAuthError, UpstreamGarbage
from llmproxy_core.usage import Usage
from llmproxy_openai.paths import CHAT
from tests.llmproxy_openai.streams import DONE, OPENAI, STREAMS, api_of, chunk, delta, event, frames_of, splits
from tests.recordings import Recording, without_usage_chunk

USAGE = {"prompt_tokens": 1, "completion_tokens": 2}
USAGE_CHUNK = chunk(usage=USAGE)


def scanned(pieces: list[bytes], *, usage: bool = False) -> tuple[Scanner, list[bytes]]:
    """The scanner after *pieces* and the end, and what came out for each."""
    scanner = OPENAI.scanner(CHAT, usage=usage)
    return scanner, [*[scanner.feed(piece) for piece in pieces], scanner.end()]


# -- recordings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", STREAMS, ids=str)
@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("size", [1, 13, 280, 10**6])
def test_a_recording_passes_as_it_is_less_usage_nobody_asked_for(recording: Recording, usage: bool, size: int) -> None:
    whole = recording.response_body

    scanner, out = scanned(splits(whole, size), usage=usage)

    assert b"".join(out) == (whole if usage else without_usage_chunk(whole))
    assert all(piece == b"" or piece.endswith(b"\n\n") for piece in out)  # whole events
    assert scanner.done
    assert scanner.error is None
    assert scanner.decoded <= 2


@pytest.mark.parametrize("recording", STREAMS, ids=str)
def test_scanning_a_recording_finds_what_reading_it_does(recording: Recording) -> None:
    facts = {
        type(event).__name__: event
        for frame in frames_of(recording.response_body, api_of(recording))
        for event in frame.events
    }

    scanner, _ = scanned(splits(recording.response_body, 100))

    assert scanner.usage == getattr(facts.get("UsageReported"), "usage", None)
    assert scanner.model == getattr(facts["Start"], "model", None)
    assert scanner.finish[-1] == facts["Finished"].finish.word  # type: ignore[union-attr]


@given(st.data())
def test_any_split_gives_the_same(data: st.DataObject) -> None:
    whole = (
        b"\xef\xbb\xbf: hello\r\n\r\n"
        + chunk(delta(content='é "usage":{"prompt_tokens":9} [DONE]'))
        + b"id: 7\n\n"  # no event without data goes out
        + b"event: message\rdata: {\rdata: }\r\r"
        + chunk(delta(finish="stop"), usage=None)
        + USAGE_CHUNK
        + DONE
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    scanner, out = scanned(pieces)

    assert b"".join(out) == whole.replace(USAGE_CHUNK, b"").replace(b"id: 7\n\n", b"")
    assert scanner.usage == Usage(1, 2)
    assert (scanner.model, scanner.finish, scanner.done) == ("m", ("stop",), True)


# -- usage ---------------------------------------------------------------------------------------------------------


def test_usage_is_withheld_but_learned() -> None:
    scanner, out = scanned([chunk(delta(content="a")), USAGE_CHUNK, DONE])

    assert out == [chunk(delta(content="a")), b"", DONE, b""]
    assert scanner.usage == Usage(1, 2)
    assert scanner.decoded == 1


def test_usage_asked_for_passes() -> None:
    _, out = scanned([USAGE_CHUNK, DONE], usage=True)

    assert out == [USAGE_CHUNK, DONE, b""]


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(chunk(delta(finish="stop"), usage=USAGE), id="on the finish chunk"),
        pytest.param(chunk(delta(content="a"), x_groq={"usage": USAGE}), id="Groq's"),
        pytest.param(chunk(usage=None), id="null"),
        pytest.param(chunk(usage={}, choices=[delta()]), id="beside a choice"),
        pytest.param(chunk(prompt_filter_results=[{"usage": {}}]), id="deeper inside"),
    ],
)
def test_only_the_chunk_that_is_nothing_but_usage_is_withheld(kept: bytes) -> None:
    _, out = scanned([kept, DONE])

    assert out[0] == kept


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(chunk(delta(finish="stop"), usage=USAGE), id="on the finish chunk"),
        pytest.param(chunk(delta(finish="stop"), x_groq={"usage": USAGE}), id="Groq's"),
        pytest.param(chunk(delta(finish="stop") | {"usage": USAGE}), id="Moonshot's"),
    ],
)
def test_usage_is_learned_wherever_it_stands(stream: bytes) -> None:
    assert scanned([stream, DONE])[0].usage == Usage(1, 2)
    assert OPENAI.scan_reply(CHAT, stream.removeprefix(b"data: ")).usage == Usage(1, 2)


def test_the_last_usage_counts() -> None:
    first, last = (
        chunk(delta(content="a"), usage=USAGE),
        chunk(delta(), usage={"prompt_tokens": 1, "completion_tokens": 9}),
    )

    scanner, _ = scanned([first, last, chunk(usage={}), DONE])

    assert scanner.usage == Usage(1, 9)


def test_a_spaced_usage_is_found() -> None:
    data = b'data: {"choices": [ ], "usage" : {"prompt_tokens": 1, "completion_tokens": 2}}\n\n'

    scanner, out = scanned([data, DONE])

    assert scanner.usage == Usage(1, 2)
    assert out[0] == b""


# -- the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["[DONE]", "data: [DONE]", "\n\ndata: [DONE]\n\n", '"error"', '"usage":{', '"error":{"message":"x"}']
)
def test_a_text_is_no_sign(text: str) -> None:
    scanner, out = scanned([chunk(delta(content=text))])

    assert out == [chunk(delta(content=text)), b""]
    assert not scanner.done
    assert scanner.error is None
    assert scanner.decoded == 0


@pytest.mark.parametrize("end", [DONE, b"data:[DONE]\r\n\r\n", b"event: x\ndata: [DONE] \n\n", b"data: [DONE]\r\r"])
def test_the_end_mark_is_found_in_every_form(end: bytes) -> None:
    scanner, out = scanned([chunk(delta(content="a")) + end, b"data: more\n\n"])

    assert scanner.done
    assert out == [chunk(delta(content="a")) + end, b"", b""]


def test_bytes_after_the_end_are_dropped() -> None:
    _, out = scanned([DONE + chunk(delta(content="a")), b"\n", b"data: x"])

    assert out == [DONE, b"", b"", b""]


@pytest.mark.parametrize(
    ("rest", "out"),
    [
        (b"data: [DONE]", b"data: [DONE]\n\n"),
        (b"data: [DONE]\r\n", b"data: [DONE]\r\n\r\n"),
        (b'data: {"choices":[]}', b'data: {"choices":[]}\n\n'),
        (b"data: [DON", b""),
        (b'data: {"choices":[', b""),
        (b": comm", b""),
        (b"", b""),
    ],
)
def test_a_last_event_without_its_blank_line_passes_if_it_is_whole(rest: bytes, out: bytes) -> None:
    scanner = OPENAI.scanner(CHAT, usage=False)

    assert scanner.feed(chunk(delta(content="a")) + rest) == chunk(delta(content="a"))
    assert scanner.end() == out
    assert scanner.done == (b"[DONE]" in rest)


# -- errors --------------------------------------------------------------------------------------------------------


def test_an_error_is_kept_and_nothing_follows_what_came_before_it() -> None:
    bad = {"error": {"message": "Bad", "type": "t", "param": None, "code": "c"}}

    scanner, out = scanned([chunk(delta(content="a")) + event(bad) + chunk(delta(content="b")), DONE])

    assert out == [chunk(delta(content="a")), b"", b""]
    assert scanner.error is not None
    assert (scanner.error.message, scanner.error.code, scanner.error.status) == ("Bad", "c", 502)
    assert OPENAI.error_event(scanner.error, "r") == event(bad)  # a client of this protocol gets the provider's own
    assert not scanner.done


def test_an_error_about_our_key_tells_nothing_of_it() -> None:
    scanner, _ = scanned([event({"error": {"message": "sk-123", "code": 401}})])

    assert isinstance(scanner.error, UpstreamAuthError)
    assert b"sk-123" not in OPENAI.error_event(scanner.error, "r")


@pytest.mark.parametrize(
    "harmless", [chunk(delta(content="a"), error=None), chunk(delta(finish="error")), chunk({"error": "x", **delta()})]
)
def test_an_error_that_is_none_passes(harmless: bytes) -> None:
    scanner, out = scanned([harmless, DONE])

    assert out[0] == harmless
    assert scanner.error is None


@pytest.mark.parametrize("data", [b'{"usage":{', b"hello", b"null", b'["a"]', b'{"a": 1} x', b'"text"'])
@pytest.mark.parametrize("before", [b"", chunk(delta(content="a"))])
def test_an_event_that_is_no_object_is_garbage_and_ends_the_stream(data: bytes, before: bytes) -> None:
    scanner, out = scanned([before + b"data: " + data + b"\n\n" + DONE])

    assert b"".join(out) == before
    assert isinstance(scanner.error, UpstreamGarbage)
    assert not scanner.done


def test_an_object_that_cannot_be_decoded_is_left_to_the_client() -> None:
    _, out = scanned([b'data: {"usage":{}\n\n', DONE])

    assert out[0] == b'data: {"usage":{}\n\n'


def test_an_endless_event_is_garbage() -> None:
    scanner = OPENAI.scanner(CHAT, usage=False)

    with pytest.raises(UpstreamGarbage, match="too long"):
        scanner.feed(b"x" * (1 << 26))
    assert scanner.feed(DONE) == b""


# -- facts ---------------------------------------------------------------------------------------------------------


def test_the_model_and_the_finish_words_are_learned_without_decoding() -> None:
    azure = event({"id": "", "model": "", "choices": [], "prompt_filter_results": []})

    scanner, _ = scanned([azure, b'data: {"model": "m-1"}\n\n', chunk(delta(0, "stop"), delta(1, "length")), DONE])

    assert scanner.model == "m-1"
    assert scanner.finish == ("stop", "length")
    assert scanner.decoded == 0


@pytest.mark.parametrize("nothing", [b"data:\n\n", b"data: \n\n", b"event: ping\ndata:\n\n", b"data\r\n\r\n"])
def test_an_event_whose_data_is_empty_is_left_out(nothing: bytes) -> None:
    said = chunk(delta(content="a"))
    scanner = OPENAI.scanner(CHAT, usage=False)

    assert scanner.feed(nothing + said + nothing + DONE) == said + DONE
    assert scanner.done
