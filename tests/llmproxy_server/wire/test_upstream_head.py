"""What is remembered of the heads of answers, and that it changes nothing."""

import pytest

from llmproxy_server.wire.upstream_head import REMEMBERED, HeadReader
from tests.llmproxy_server.wire.test_upstream_answer import BAD_HEADS, GOOD

FIRST = b"HTTP/1.1 200 OK\r\n"


def head_of(data: bytes) -> bytes:
    return data.partition(b"\r\n\r\n")[0]


def read(reader: HeadReader, data: bytes) -> object:
    head = reader.read(head_of(data))
    return None if head is None else (head[0], tuple(head[1]), *head[2:])


def test_a_head_that_was_read_before_is_read_the_same() -> None:
    reader = HeadReader()
    heads = [*[data for data, _, _ in GOOD.values()], *BAD_HEADS.values()]
    new = [read(HeadReader(), data) for data in heads]

    for _ in range(2):
        assert [read(reader, data) for data in heads] == new
    assert None in new


def test_a_line_is_remembered_but_none_with_a_credential() -> None:
    reader = HeadReader()
    lines = [
        b"Server: uvicorn",
        b"Set-Cookie: a=s3cret",
        b"X-Api-Key: s3cret",
        b"X-Session: s3cret",
        b"X-Request-Id: 1",
        b"X-Long: " + b"a" * 200,
    ]

    head = reader.read(FIRST + b"\r\n".join(lines))

    assert head is not None
    assert len(head[1]) == len(lines)
    assert list(reader._fields) == [b"Server: uvicorn"]


def test_the_memory_of_lines_is_bounded() -> None:
    reader = HeadReader()

    for number in range(3 * REMEMBERED):
        assert reader.read(FIRST + b"a: %d" % number) is not None
        assert len(reader._fields) <= REMEMBERED


@pytest.mark.parametrize("length", [b"1,1", b"", b"0x1", b"1" * 19, "١".encode(), b"1 1"])
def test_what_is_no_length_is_never_remembered(length: bytes) -> None:
    reader = HeadReader()

    for _ in range(2):
        assert reader.read(FIRST + b"Content-Length: " + length) is None
    assert not reader._fields
