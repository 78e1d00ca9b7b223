"""Heads of requests: what is read, what is refused, and what is remembered of them."""

import pytest

from llmproxy_core.errors import BadRequest, RequestRejected
from llmproxy_server.door_request import CHUNKED, Incoming
from llmproxy_server.wire.request_head import HeadReader, check_begun

HOST = "Host: localhost"


def read(*lines: str, first: str = "POST /v1/chat/completions HTTP/1.1", reader: HeadReader | None = None) -> Incoming:
    return (reader or HeadReader(100)).read("\r\n".join([first, *lines]).encode("latin-1"))


def test_names_are_lower_case_and_values_without_the_space_around_them() -> None:
    head = read(HOST, "X-One:\t a b \t", "X-Two:", "x-one: c")

    assert list(head.headers) == [("host", "localhost"), ("x-one", "a b"), ("x-two", ""), ("x-one", "c")]
    assert (head.method, head.target, head.version) == ("POST", "/v1/chat/completions", (1, 1))


@pytest.mark.parametrize(
    ("lines", "length"),
    [([], 0), (["Content-Length: 12"], 12), (["Content-Length: 0"], 0), (["Transfer-Encoding: Chunked"], CHUNKED)],
)
def test_the_length_of_the_body_is_told(lines: list[str], length: int) -> None:
    assert read(HOST, *lines).length == length


@pytest.mark.parametrize("value", ["-1", "+1", "1 2", "0x1", "", "1" * 20, "²"])
def test_a_length_is_decimal(value: str) -> None:
    with pytest.raises(BadRequest):
        read(HOST, f"Content-Length: {value}")


@pytest.mark.parametrize(
    ("first", "lines", "kept"),
    [
        ("GET / HTTP/1.1", [], True),
        ("GET / HTTP/1.1", ["Connection: close"], False),
        ("GET / HTTP/1.1", ["Connection: upgrade, Close"], False),
        ("GET / HTTP/1.1", ["Connection: keep-alive", "Connection: close"], False),
        ("GET / HTTP/1.0", [], False),
        ("GET / HTTP/1.0", ["Connection: Keep-Alive"], True),
    ],
)
def test_whether_the_connection_is_kept_is_as_the_client_says(first: str, lines: list[str], *, kept: bool) -> None:
    assert read(HOST, *lines, first=first).keep_alive is kept


@pytest.mark.parametrize(
    ("first", "status"),
    [
        ("GET /", 505),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/2.0", 505),
        ("PRI * HTTP/2.0", 505),
        ("BREW / HTTP/1.1", 501),
        ("get / HTTP/1.1", 501),
        ("GET  / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET / http/1.1", 400),
        ("", 400),
    ],
)
def test_another_request_line_is_refused(first: str, status: int) -> None:
    with pytest.raises(RequestRejected) as refused:
        read(HOST, first=first)

    assert refused.value.status == status


def test_a_line_that_was_looked_at_is_remembered_but_none_with_a_credential() -> None:
    reader = HeadReader(100)
    lines = [
        HOST,
        "Authorization: Bearer s3cret",
        "X-Api-Key: s3cret",
        "Cookie: a=s3cret",
        "X-Our-Token: s3cret",
        "Ocp-Apim-Subscription-Key: s3cret",
        "Traceparent: 00-1",
    ]

    assert list(read(*lines, reader=reader).headers) == list(read(*lines, reader=reader).headers)

    assert reader.remembered == 1
    assert "s3cret" not in repr(reader._known)


@pytest.mark.parametrize(
    "part",
    [b"GET / HTTP/1.1\nHost", b"\x16\x03\x01\x02", b"GET / HTTP/1.1\r\nA: b\rc", b"hello there\r\n", b"GET /\r\n"],
)
def test_what_can_be_no_head_is_refused_before_its_end(part: bytes) -> None:
    with pytest.raises(RequestRejected):
        check_begun(part, 0)


def test_the_beginning_of_a_head_may_be_split_anywhere() -> None:
    head = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: y\r\n\r"

    for seen in range(len(head)):
        check_begun(head[: seen + 1], seen)


@pytest.mark.parametrize("line", ["X", "traceparent", "Authorization", "Host"])
def test_a_line_without_a_colon_is_no_field(line: str) -> None:
    with pytest.raises(BadRequest):
        read(HOST, line)
