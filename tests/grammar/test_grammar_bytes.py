"""The rules for the bytes of a stream, whatever they say."""

import pytest

from llmproxy_core.testing.grammar import GRAMMARS, check_stream
from llmproxy_core.testing.grammar.blocks import read_blocks
from llmproxy_core.testing.grammar.node import NotJSON, read_json
from tests.grammar.events import as_array, written
from tests.grammar.right import RIGHT

EVENTS = [protocol for protocol in GRAMMARS if protocol != "gemini-array"]


@pytest.mark.parametrize("protocol", EVENTS)
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(b"data:", b"id: 1\n\ndata:", "an event without data", id="id alone"),
        pytest.param(b"data:", b"retry: 1\n\ndata:", "an event without data", id="retry alone"),
        pytest.param(b"data:", b"data:\n\ndata:", "an event without data", id="empty data"),
        pytest.param(b"data:", b"id: 1\ndata:", "a line 'id'", id="id"),
        pytest.param(b"data:", b"\xef\xbb\xbfdata:", "a line '\\ufeffdata'", id="byte order mark within"),
        pytest.param(b"data: {", b"data: {\ndata: ", "its data has several lines", id="several lines"),
        pytest.param(b"\n", b"\r", "a line ends with a CR alone", id="CR"),
        pytest.param(b'"model":', b'"model": "m", "model":', "a name comes twice in one object", id="twice"),
        pytest.param(b'"hm', b'"h\xff', "the bytes are not UTF-8", id="not UTF-8"),
        pytest.param(b'"hm', b'"h\\ud83d', "half of a surrogate pair", id="half a pair"),
        pytest.param(b'"hm', b'"h\n', "", id="line end in a text"),
        pytest.param(b": 9", b": NaN", "NaN is no JSON number", id="NaN"),
        pytest.param(b": 9", b": 9.5", "not an integer", id="half a token"),
        pytest.param(b": 9", b": true", "not an integer", id="not a number"),
    ],
)
def test_what_is_wrong_with_the_bytes_is_said(protocol: str, old: bytes, new: bytes, said: str) -> None:
    stream = written(RIGHT[protocol]).replace(b'"modelVersion"', b'"model": 1, "modelVersion"')
    assert old in stream

    found = check_stream(protocol, stream.replace(old, new))

    assert any(said in each for each in found), found


@pytest.mark.parametrize("protocol", EVENTS)
def test_a_stream_begins_with_an_event_and_ends_with_a_blank_line(protocol: str) -> None:
    stream = written(RIGHT[protocol])

    assert check_stream(protocol, b"\xef\xbb\xbf" + stream) == ["the stream begins with a byte order mark"]
    assert "no blank line ends it" in check_stream(protocol, stream[:-1])[0]
    assert check_stream(protocol, b"\xef\xbb\xbf" + stream[:-1], strict=False) == []


@pytest.mark.parametrize("protocol", GRAMMARS)
def test_every_byte_of_a_stream_counts(protocol: str) -> None:
    """Cut off anywhere a stream is wrong, by the looser rules too, up to where only line ends are missing."""
    stream = as_array(RIGHT[protocol]) if protocol == "gemini-array" else written(RIGHT[protocol])
    end = len(stream.rstrip())

    right = [at for at in range(0, end, 3) if not check_stream(protocol, stream[:at], strict=False)]

    assert right == []
    assert check_stream(protocol, stream[:end], strict=False) == []


def test_a_protocol_without_grammar_is_an_error() -> None:
    with pytest.raises(KeyError):
        check_stream("cohere", b"")


def test_blocks_are_read_as_clients_read_them() -> None:
    stream = b"\xef\xbb\xbf\n: hi\r\ndata:a\r\ndata:  b\r\n\r\n\nevent: x\rdata\r\r: only\n\nid: 1\nevent"

    blocks = list(read_blocks(stream))

    assert [(block.name, block.data, block.is_comment, block.complete) for block in blocks] == [
        (None, "a\n b", False, True),
        ("x", "", False, True),
        (None, None, True, True),
        ("", None, False, False),
    ]
    assert blocks[0].ends == {b"\r\n"}
    assert blocks[1].ends == {b"\r"}


@pytest.mark.parametrize("text", ["", "{", "nan", "Infinity", '{"a":1,"a":2}', '["\\udc00"]', "[" * 100_000])
def test_json_that_clients_read_differently_is_refused(text: str) -> None:
    with pytest.raises(NotJSON):
        read_json(text)
