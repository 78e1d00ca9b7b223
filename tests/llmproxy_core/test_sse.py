"""Server-Sent Events: what the standard says, however the bytes are split."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import sse

# What a decoded event says: name, data (None for a block without), id, retry, whether it is complete.
Said = tuple[str, bytes | None, str | None, int | None, bool]
DONE: Said = ("", b"[DONE]", None, None, True)


def data(value: bytes, event: str = "", *, complete: bool = True) -> Said:
    return (event, value, None, None, complete)


def no_data(*, event: str = "", complete: bool = True) -> Said:
    return (event, None, None, None, complete)


TABLE: list[tuple[str, bytes, list[Said]]] = [
    ("empty", b"", []),
    ("lf", b"data: a\n\ndata: b\n\n", [data(b"a"), data(b"b")]),
    ("crlf", b"data: a\r\n\r\ndata: b\r\n\r\n", [data(b"a"), data(b"b")]),
    ("cr", b"data: a\r\rdata: b\r\r", [data(b"a"), data(b"b")]),
    ("line_ends_mixed_in_an_event", b"event: x\rdata: a\r\ndata: b\n\r\n", [data(b"a\nb", "x")]),
    ("lf_then_cr", b"data: a\n\rdata: b\n\n", [data(b"a"), data(b"b")]),
    ("lf_then_cr_at_the_end", b"data: a\n\r", [data(b"a")]),
    ("crlf_then_lf", b"data: a\r\n\ndata: b\n\n", [data(b"a"), data(b"b")]),
    ("crlf_then_cr", b"data: a\r\n\rdata: b\n\n", [data(b"a"), data(b"b")]),
    ("cr_then_crlf", b"data: a\r\r\ndata: b\n\n", [data(b"a"), data(b"b")]),
    ("crlf_cut_in_the_blank_line", b"data: a\r\n\r", [data(b"a")]),
    ("blank_lines_before_and_between", b"\n\r\n\rdata: a\n\n\n\n\ndata: b\n\n", [data(b"a"), data(b"b")]),
    ("blank_lines_only", b"\n\n\r\n", [no_data()]),
    ("blank_line_of_cr_only", b"\r", [no_data()]),
    ("no_space_after_the_colon", b"data:a\n\n", [data(b"a")]),
    ("one_space_of_two_goes", b"data:  a \n\n", [data(b" a ")]),
    ("a_tab_stays", b"data:\ta\n\n", [data(b"\ta")]),
    ("colons_in_the_value", b"data: a: b:\n\n", [data(b"a: b:")]),
    ("several_data_lines", b"data: a\ndata:b\ndata\ndata:  c\n\n", [data(b"a\nb\n\n c")]),
    ("data_without_colon", b"data\n\n", [data(b"")]),
    ("data_empty", b"data:\n\n", [data(b"")]),
    ("data_twice_empty", b"data\ndata\n\n", [data(b"\n")]),
    ("event_name", b"event: message_start\ndata: {}\n\n", [data(b"{}", "message_start")]),
    ("event_name_is_of_one_event", b"event: x\ndata: 1\n\ndata: 2\n\n", [data(b"1", "x"), data(b"2")]),
    ("the_last_event_name_counts", b"event: x\nevent:\ndata: 1\n\n", [data(b"1")]),
    ("event_without_data", b"event: ping\n\n", [no_data(event="ping")]),
    ("comment", b": keep-alive\n\n", [no_data()]),
    ("comment_before_an_event", b":\n: data: no\ndata: a\n\n", [data(b"a")]),
    ("comment_after_the_data", b"data: a\n: OPENROUTER PROCESSING\n\n", [data(b"a")]),
    ("unknown_fields", b"foo: 1\nDATA: 2\n data: 3\ndata : 4\ndata: a\n\n", [data(b"a")]),
    ("unknown_field_only", b"foo: 1\n\n", [no_data()]),
    ("id", b"id: 7\ndata: a\n\n", [("", b"a", "7", None, True)]),
    ("id_with_nul_is_ignored", b"id: 7\0\ndata: a\n\n", [data(b"a")]),
    ("retry", b"retry: 3000\n\n", [("", None, None, 3000, True)]),
    ("retry_not_digits_is_ignored", b"retry: 3s\nretry: -1\nretry: \xd9\xa3\ndata: a\n\n", [data(b"a")]),
    # Python refuses to read more than 4300 digits; nobody waits that many milliseconds.
    ("retry_absurd_is_ignored", b"retry: " + b"9" * 5000 + b"\ndata: a\n\n", [data(b"a")]),
    ("bom", b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", [data(b"a"), data(b"b")]),
    ("bom_then_blank_line", b"\xef\xbb\xbf\n\ndata: a\n\n", [no_data(), data(b"a")]),
    ("bom_then_line_end", b"\xef\xbb\xbf\ndata: a\n\n", [data(b"a")]),
    ("bom_only", b"\xef\xbb\xbf", [no_data(complete=False)]),
    ("bom_in_the_middle", b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [data(b"a"), no_data()]),
    ("bom_twice", b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", [no_data()]),
    ("no_final_blank_line", b"data: a\n\ndata: [DONE]\n", [data(b"a"), data(b"[DONE]", complete=False)]),
    ("no_final_line_end", b"data: [DONE]", [data(b"[DONE]", complete=False)]),
    ("cut_in_a_field_name", b"data: a\n\nda", [data(b"a"), no_data(complete=False)]),
    ("utf8", "data: żółć 🦊\n\n".encode(), [data("żółć 🦊".encode())]),
    ("utf8_cut", b"data: \xf0\x9f\xa6", [data(b"\xf0\x9f\xa6", complete=False)]),
    ("unicode_line_ends_are_text", "data: a\u2028b\u0085c\x0b\x0c\n\n".encode(), [
        data("a\u2028b\u0085c\x0b\x0c".encode())
    ]),
    ("nul_in_data", b"data: a\0b\n\n", [data(b"a\0b")]),
    ("openai_end", b'data: {"choices":[]}\n\ndata: [DONE]\n\n', [data(b'{"choices":[]}'), DONE]),
]  # fmt: skip
each_row = pytest.mark.parametrize(("stream", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])


def said(event: sse.Event) -> Said:
    value = event.data if event.has_data else None
    return (event.event, value, event.id, event.retry_ms, event.complete)


def decode(chunks: Iterable[bytes]) -> list[sse.Event]:
    decoder = sse.SSEDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.end()


def splits(stream: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, and cut in two at every place."""
    halves = [[stream[:at], stream[at:]] for at in range(len(stream) + 1)]
    return [[stream], [stream[at : at + 1] for at in range(len(stream))], *halves]


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


# Mostly what decides about boundaries, so that random streams have many.
PIECES = [b"\n", b"\r", b"\r\n", b"\n\n", b"data", b"data: ", b"event: e", b":", b" ", b"id: 1", b"x", sse.BOM]
streams = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)
places = st.lists(st.integers(0, 200), max_size=8)


@each_row
def test_a_stream_is_read_as_the_standard_says_however_it_is_split(stream: bytes, expected: list[Said]) -> None:
    for chunks in splits(stream):
        events = decode(chunks)

        assert [said(event) for event in events] == expected, chunks
        assert b"".join(event.raw for event in events) == stream


@given(streams, places)
def test_any_split_gives_the_same_events_and_their_raws_are_the_stream(stream: bytes, at: list[int]) -> None:
    whole = decode([stream])

    events = decode(cut(stream, at))

    assert [(said(event), event.raw) for event in events] == [(said(event), event.raw) for event in whole]
    assert b"".join(event.raw for event in events) == stream


def reference(stream: bytes) -> list[tuple[str, bytes]]:
    """The standard's own procedure, line by line, on the whole stream; events with data only."""
    text = stream.removeprefix(sse.BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[tuple[str, bytes]] = []
    name, lines = "", list[bytes]()
    for line in text.split(b"\n")[:-1]:  # the rest has no line end
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not line:
            events += [(name, b"\n".join(lines))] if lines else []
            name, lines = "", []
        elif field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value.decode()
    return events


@given(streams, places)
def test_events_are_those_of_the_standards_procedure(stream: bytes, at: list[int]) -> None:
    events = decode(cut(stream, at))

    complete = [(event.event, event.data) for event in events if event.complete and event.has_data]
    assert complete == reference(stream)


# -- what clients may see ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "forwardable"),
    [
        (b"data: a\n\n", True),
        (b"data:\n\n", False),
        (b"data: \n\n", False),
        (b"data\n\n", False),
        (b"event: x\ndata:\n\n", False),
        (b"data:\ndata:\n\n", False),
        (b"data:  \t\n\n", False),
        (b": ping\n\n", True),
        (b"\n", True),
        (b"event: ping\n\n", False),
        (b"id: 1\n\n", False),
        (b"retry: 1\n: comment\n\n", False),
        (b"foo\n\n", False),
    ],
)
def test_only_data_and_comments_may_be_forwarded(block: bytes, forwardable: bool) -> None:
    [event] = decode([block])

    assert event.is_forwardable is forwardable


def test_the_repr_of_an_event_shows_no_data() -> None:
    [event] = decode([b"event: x\ndata: my password"])

    assert repr(event) == "Event('x', 11 bytes of data, 26 raw, incomplete)"


# -- the splitter --------------------------------------------------------------------------------------------


def assert_passes_whole_events(chunks: list[bytes]) -> list[bytes]:
    """The splitter's law; gives what was returned before the end."""
    splitter = sse.EventSplitter()
    passed = [splitter.feed(chunk) for chunk in chunks]
    rest = splitter.end()
    assert b"".join(passed) + rest == b"".join(chunks)
    for count in range(1, len(passed) + 1):
        if sent := b"".join(passed[:count]):
            # Nothing is pending there: an event that follows, even after a comment, is read by itself.
            events = [(event.event, event.data) for event in decode([sent, b": x\ndata: next\n\n"])]
            assert events[-1] == ("", b"next")
    return passed


@each_row
def test_the_splitter_passes_whole_events_however_they_are_split(stream: bytes, expected: list[Said]) -> None:
    for chunks in splits(stream):
        assert_passes_whole_events(chunks)


@given(streams, places)
def test_the_splitter_passes_whole_events_of_any_stream(stream: bytes, at: list[int]) -> None:
    assert_passes_whole_events(cut(stream, at))


@given(streams, places)
def test_the_splitter_holds_no_event_that_is_complete(stream: bytes, at: list[int]) -> None:
    splitter = sse.EventSplitter()
    for chunk in cut(stream, at):
        splitter.feed(chunk)

    rest = splitter.end()

    # An LF CR at the very end may be half a line end: it alone may keep a complete event.
    complete = [event for event in decode([rest]) if event.complete and event.has_data]
    assert not complete or rest.endswith(b"\n\r")


@pytest.mark.parametrize(
    ("name", "chunks", "passed"),
    [
        ("whole", [b"data: a\n\n"], [b"data: a\n\n"]),
        ("one_and_a_half", [b"data: a\n\nda", b"ta: c\n\n"], [b"data: a\n\n", b"data: c\n\n"]),
        ("cr_streams_are_not_delayed", [b"data: a\r\r", b"data: b\r\r"], [b"data: a\r\r", b"data: b\r\r"]),
        ("half_a_crlf_is_held", [b"data: a\r\n\r", b"\ndata: b"], [b"", b"data: a\r\n\r\n"]),
        ("one_line_end_is_held", [b"data: a\n", b"\n"], [b"", b"data: a\n\n"]),
        ("comments", [b": ping\n\n"], [b": ping\n\n"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_the_splitter_passes_at_each_chunk(name: str, chunks: list[bytes], passed: list[bytes]) -> None:
    assert assert_passes_whole_events(chunks) == passed


def test_a_chunk_of_whole_events_is_passed_on_uncopied() -> None:
    chunk = b'data: {"a":1}\n\ndata: [DONE]\n\n'

    assert sse.EventSplitter().feed(chunk) is chunk


@given(streams)
def test_split_events_gives_the_raws_of_the_decoder(stream: bytes) -> None:
    raws = [event.raw for event in decode([stream])]

    assert list(sse.split_events(stream)) == raws


# -- bounds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_over_the_bound_is_an_error(size: int) -> None:
    stream = b"data: a\n\ndata: " + b"x" * 100
    decoder, splitter = sse.SSEDecoder(max_event_bytes=50), sse.EventSplitter(max_event_bytes=50)
    chunks = [stream[at : at + size] for at in range(0, len(stream), size)]

    for feed in (decoder.feed, splitter.feed):
        with pytest.raises(sse.SSEError, match="longer than 50 bytes"):
            list(map(feed, chunks))


def test_a_complete_event_over_the_bound_is_an_error_to_the_decoder() -> None:
    with pytest.raises(sse.SSEError):
        sse.SSEDecoder(max_event_bytes=50).feed(b"data: " + b"x" * 100 + b"\n\n")


def test_many_events_within_the_bound_are_no_error() -> None:
    stream = b"data: 12345678\n\n" * 100

    assert len(sse.SSEDecoder(max_event_bytes=16).feed(stream)) == 100
    assert sse.EventSplitter(max_event_bytes=16).feed(stream) == stream


SIZE = 1 << 15


@pytest.mark.parametrize(
    ("stream", "size"),
    [
        (b"data: " + b"x" * ((1 << 18) - 8) + b"\n\n", 1),  # one event, byte by byte
        (b"data: " + b"x" * SIZE + b"\r\n\r\n", 1),
        (b"data: " + b"x" * (1 << 22) + b"\n\n", 1 << 14),  # a picture
        (b"\n" * SIZE, 1),  # blank lines only
        (b"data\n\n" * SIZE, 6 * SIZE),  # as many events as possible in one chunk
        (b"data\r\n\r\n" * SIZE, 8 * SIZE),
        (b"data\n\n" * SIZE, 40),
        (b"data\n" * SIZE + b"\n", 10),  # as many lines as possible in one event
        (b"x\r" * SIZE, 3),
    ],
    ids=["lf", "crlf", "picture", "blank", "events_lf", "events_crlf", "events_split", "lines", "cr"],
)
def test_the_work_is_linear_for_any_chunks(stream: bytes, size: int) -> None:
    decoder, splitter = sse.SSEDecoder(), sse.EventSplitter()

    for at in range(0, len(stream), size):
        decoder.feed(stream[at : at + size])
        splitter.feed(stream[at : at + size])
    decoder.end()

    # Two bytes are looked at again at each chunk, and blank lines by two searches.
    assert decoder.scanned_bytes <= 4 * len(stream)
    assert splitter.scanned_bytes <= 4 * len(stream)


# -- writing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "event", "expected"),
    [
        ("{}", None, b"data: {}\n\n"),
        (b"{}", "", b"data: {}\n\n"),
        (b"{}", "ping", b"event: ping\ndata: {}\n\n"),
        ("a\nb\r\nc\rd\n", None, b"data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
        (" a", None, b"data:  a\n\n"),
        ("ż", "ż", "event: ż\ndata: ż\n\n".encode()),
    ],
)
def test_an_event_is_written(value: str | bytes, event: str | None, expected: bytes) -> None:
    assert sse.encode(value, event) == expected


@pytest.mark.parametrize("empty", ["", b""])
def test_an_event_without_data_is_never_written(empty: str | bytes) -> None:
    with pytest.raises(ValueError, match="data"):
        sse.encode(empty, "ping")


@pytest.mark.parametrize("name", ["a\nb", "a\rdata: x", "\n"])
def test_a_name_cannot_begin_another_line(name: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        sse.encode("x", name)


@given(st.binary(min_size=1), st.text().filter(lambda name: "\n" not in name and "\r" not in name))
def test_what_is_written_is_read_back_with_line_ends_as_lf(value: bytes, name: str) -> None:
    written = sse.encode(value, name)

    [event] = decode([written])

    assert event.data == value.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    # One space after the colon belongs to the syntax, so a name's own first space stays.
    assert event.event == name
    assert event.complete
    assert event.raw == written


@given(st.text())
def test_a_comment_says_nothing(text: str) -> None:
    [event] = decode([sse.comment(text)])

    assert not event.has_data
    assert event.is_forwardable
    assert event.complete
