"""What is remembered of the shapes of heads, and that it changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_server.wire.upstream_head import Head, HeadReader
from llmproxy_server.wire.upstream_shape import LEARNED, LONGEST, MISSES, MOST, OFTEN, Shapes
from tests.llmproxy_server.wire.test_upstream_answer import BAD_HEADS, GOOD

FIRST = b"HTTP/1.1 200 OK\r\n"
USUAL = FIRST + b"date: %b\r\nserver: s\r\nX-Request-Id: %b\r\ncontent-length: %b"


def head_of(data: bytes) -> bytes:
    return data.partition(b"\r\n\r\n")[0]


def read(reader: HeadReader | Shapes, head: bytes) -> object:
    said = reader.read(head)
    if said is None:
        return None
    headers = said[1]
    return (said[0], tuple(headers), len(headers), headers.has_repeated, dict(headers.first), *said[2:])


def new(head: bytes) -> object:
    return read(HeadReader(), head)


def shapes() -> Shapes:
    return Shapes(HeadReader())


def test_heads_are_read_as_without_shapes() -> None:
    reader = shapes()
    heads = [head_of(data) for data in [*[data for data, _, _ in GOOD.values()], *BAD_HEADS.values()]]

    for _ in range(2 * OFTEN):
        assert [read(reader, head) for head in heads] == [new(head) for head in heads]


class Counting(HeadReader):
    heads = 0

    def read(self, data: bytes) -> Head | None:
        self.heads += 1
        return super().read(data)


def test_a_head_that_is_alike_but_for_values_is_not_read_in_full() -> None:
    counting = Counting()
    reader = Shapes(counting)

    for number in range(5 * OFTEN):
        head = USUAL % (b"day %d" % number, b"%d" % number, b"%d" % (7 * number))
        assert read(reader, head) == new(head)
    assert counting.heads <= 2 * OFTEN


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b" 1",
        b"1 ",
        b"\t1",
        b"1\t",
        b"1\r",
        b"1\n2",
        b"\r\na: b",
        b"1\r\n",
        b"1\0",
        b"\x7f",
        b"\xc3\xa9",
        b"\xff",
    ],
)
@pytest.mark.parametrize("field", range(3))
def test_a_value_is_read_by_the_same_rules(value: bytes, field: int) -> None:
    reader = shapes()
    for number in range(2 * OFTEN):
        reader.read(USUAL % (b"%d" % number, b"%d" % number, b"%d" % number))

    values = [b"1", b"2", b"3"]
    values[field] = value

    head = USUAL % tuple(values)
    assert read(reader, head) == new(head)


@pytest.mark.parametrize("length", [b"1,1", b"0x1", b"1" * 18, b"1" * 19, b"-1", b"+1", b"1_0", "١".encode(), b"1 1"])
def test_what_is_no_length_is_none_of_a_shape_either(length: bytes) -> None:
    reader = shapes()
    for number in range(2 * OFTEN):
        reader.read(FIRST + b"content-length: %d" % number)

    head = FIRST + b"content-length: " + length
    assert read(reader, head) == new(head)


def test_what_tells_of_the_connection_is_no_value_that_varies() -> None:
    reader = shapes()
    heads = [
        FIRST + b"connection: %b\r\ncontent-length: 1" % said
        for said in (b"keep-alive", b"close", b"keep-alive, close", b"Keep-Alive", b"a")
    ] + [FIRST + b"transfer-encoding: %b" % said for said in (b"chunked", b"gzip", b"gzip, chunked", b"Chunked")]

    for _ in range(2 * OFTEN):
        assert [read(reader, head) for head in heads] == [new(head) for head in heads]


def test_names_that_are_repeated_stay_so() -> None:
    reader = shapes()

    for number in range(2 * OFTEN):
        head = FIRST + b"Set-Cookie: a=%d\r\nvary: a\r\nset-cookie: b=%d\r\ncontent-length: 1" % (number, number * 3)
        assert read(reader, head) == new(head)
    assert len(reader._shapes) == 1


def test_a_value_that_may_be_secret_is_not_kept() -> None:
    reader = shapes()

    for _ in range(2 * OFTEN):
        reader.read(FIRST + b"Set-Cookie: s3cret\r\nx-api-key: s3cret\r\nx-session: s3cret\r\nserver: s")
        reader.read(FIRST + b"Set-Cookie:s3cret")

        (shape,) = reader._shapes.values()
        assert not [name for name in shape.__slots__ if "s3cret" in repr(getattr(shape, name))]
        assert "s3cret" not in repr(list(reader._shapes))


def test_the_memory_of_shapes_is_bounded() -> None:
    reader = shapes()

    for number in range(3 * MOST):
        assert reader.read(FIRST + b"a%d: 1" % number) is not None
        assert len(reader._shapes) <= MOST
    reader = shapes()
    assert reader.read(FIRST + b"a: " + b"b" * LONGEST) is not None
    assert not reader._shapes


def test_an_upstream_of_more_shapes_than_are_kept_is_seldom_learned_from() -> None:
    class Watched(Shapes):
        learned = 0

        def _learn(self, lines: list[bytes], head: Head) -> None:
            self.learned += 1
            super()._learn(lines, head)

    reader = Watched(HeadReader())

    for number in range(2 * MISSES):
        reader.read(FIRST + b"a%d: 1" % (number % (MOST + 1)))
    assert reader.learned == 2 * LEARNED

    for _ in range(2 * OFTEN):  # its heads are others now: these are learned
        reader.read(FIRST + b"server: new")
    counting = reader._reader = Counting()
    reader.read(FIRST + b"server: new")
    assert counting.heads == 0


def test_a_shape_that_is_of_use_stays_when_others_come() -> None:
    counting = Counting()
    reader = Shapes(counting)

    for _ in range(2 * OFTEN):
        reader.read(FIRST + b"server: usual")
    for number in range(5 * MOST):
        reader.read(FIRST + b"a%d: 1" % number)
    heads = counting.heads
    reader.read(FIRST + b"server: usual")
    assert counting.heads == heads


_LINE = st.sampled_from([
    b"a:b: c", b"a:b: d", b"set-cookie:1", b"content-length:41",
    b"a: 1", b"a: 2", b"A: 2", b"a:3", b"a : 4", b"b: 1", b"b: x\ty", b"b: \xe9", b"server: s", b"date: now",
    b"content-length: 1", b"content-length: 2", b"content-length: x", b"Content-Length: 3", b"content-length:4",
    b"transfer-encoding: chunked", b"transfer-encoding: gzip", b"connection: close", b"connection: keep-alive",
    b"set-cookie: 1", b"set-cookie: 2", b"x-request-id: 1", b"x-request-id: 2", b"x-request-id:  3 ", b"", b" a", b"a",
])  # fmt: skip
_BEGIN = st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 404 a: b", b"HTTP/1.1 404 a: c", b"no"])


@given(st.lists(st.tuples(_BEGIN, st.lists(_LINE, max_size=4)), max_size=4))
def test_whatever_came_before_a_head_says_the_same(heads: list[tuple[bytes, list[bytes]]]) -> None:
    reader = shapes()
    written = [b"\r\n".join([begin, *lines]) for begin, lines in heads]
    meant = [new(head) for head in written]

    for _ in range(2 * OFTEN):
        assert [read(reader, head) for head in written] == meant


@given(st.lists(st.binary(max_size=3), min_size=3, max_size=3))
def test_whatever_the_values_are_they_are_read_by_the_same_rules(values: list[bytes]) -> None:
    reader = shapes()
    for number in range(2 * OFTEN):
        reader.read(USUAL % (b"%d" % number, b"%d" % number, b"%d" % number))

    head = USUAL % tuple(values)
    assert read(reader, head) == new(head)
