"""Bodies in chunks: read the same however they are split, and refused where two readers could differ."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.errors import BadRequest
from llmproxy_server.wire.chunked import ChunkReader


def read(*pieces: bytes) -> tuple[bytes, bytes, bool]:
    """The body, what follows it, and whether it has ended."""
    reader, parts, rest = ChunkReader(), list[bytes](), b""
    for piece in pieces:
        if reader.ended:
            rest += piece
        else:
            rest = piece[reader.feed(piece, parts) :]
    return b"".join(parts), rest, reader.ended


GOOD = b'5\r\nHello\r\n001;name=value\r\n \r\nA;x="; y"\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\nGET / HTTP/1.1'


@given(st.lists(st.integers(0, len(GOOD)), max_size=8).map(sorted))
def test_any_split_gives_the_same_body(cuts: list[int]) -> None:
    pieces = [GOOD[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(GOOD)], strict=True)]

    assert read(*pieces) == (b"Hello 0123456789", b"GET / HTTP/1.1", True)


def test_a_body_that_goes_on_has_not_ended() -> None:
    assert read(b"5\r\nHel") == (b"Hel", b"", False)
    assert read(b"0\r\n") == (b"", b"", False)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b" 5\r\nHello\r\n",
        b"5\nHello\r\n",
        b"0x5\r\nHello\r\n",
        b"+5\r\nHello\r\n",
        b"-1\r\n",
        b"5_0\r\n",
        b"5\r\nHello!\r\n",
        b"5\r\nHello\n0\r\n",
        b"g\r\n",
        b"11111111111111111\r\n",
        b"ffffffffffffffff\r\n",
        b"5;" + b"x" * 300 + b"\r\n",
        b"5" * 300,
        b"5 ;x\r\nHello\r\n",
        b'5;x="\r\nHello\r\n',
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"7fffffffff\r\n",
        b"5;\x00\r\nHello\r\n",
        b"0\r\nno field\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 3000,
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        read(data)
    with pytest.raises(BadRequest):
        read(*(bytes([byte]) for byte in data))
