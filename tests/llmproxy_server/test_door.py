"""The parts of the door that need no socket."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.errors import Overloaded, PayloadTooLarge
from llmproxy_core.headers import Headers
from llmproxy_server.admission import Admission
from llmproxy_server.door_body import BodyClock, BodyReader
from llmproxy_server.door_caller import is_local
from llmproxy_server.door_id import RequestIds
from llmproxy_server.door_request import CHUNKED, Incoming
from llmproxy_server.wire_head import HeadWriter, chunk


def incoming(peer: str, *headers: tuple[str, str]) -> Incoming:
    return Incoming("GET", "/health?a=b?c", "/health", "a=b?c", (1, 1), Headers(headers), peer, secure=False)


# -- heads ---------------------------------------------------------------------------------------------------------


def test_a_target_is_a_path_and_a_query() -> None:
    asked = incoming("127.0.0.1")

    assert (asked.path, asked.query) == ("/health", "a=b?c")


def test_an_answers_head_is_written_to_the_byte() -> None:
    writer = HeadWriter()
    headers = [("x-a", "1"), ("X-B", "2\r\nx-evil: 1"), ("b ad", "3"), ("transfer-encoding", "gzip"), ("x-ü", "4")]

    for _ in range(2):  # the second time from memory
        head = writer.head(200, headers, "text/plain", now=0.5, length=3, connection="close")
        assert head == (
            b"HTTP/1.1 200 OK\r\nx-a: 1\r\nx-b: 2x-evil: 1\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n"
            b"connection: close\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"
        )


NAMES = st.sampled_from(["x-a", "X-B", "x-request-id", "b ad", "", "Transfer-Encoding", "x-ü"])
VALUES = st.one_of(st.text(st.characters(max_codepoint=0x17F), max_size=4), st.sampled_from(["x-request-id", "\xa0"]))


@given(st.lists(st.tuples(NAMES, st.one_of(VALUES, st.integers())), max_size=5), st.sampled_from(["", "x-request-id"]))
def test_the_fields_of_a_head_are_those_that_each_has_alone(fields: list[tuple[str, object]], but: str) -> None:
    def lines(*some: tuple[str, object]) -> bytes:
        head = HeadWriter().head(200, some, "", now=0, but=but)
        return head.removeprefix(b"HTTP/1.1 200 OK\r\n").removesuffix(b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n")

    alone = [lines(field) for field in fields]

    assert lines(*fields) == b"".join(alone)
    for (name, value), line in zip(fields, alone, strict=True):
        is_sent = name in ("x-a", "X-B", "x-request-id") and name != but
        text = "".join(letter for letter in str(value) if letter == "\t" or (letter >= " " and letter != "\x7f"))
        assert line == (f"{name.lower()}: {text}\r\n".encode() if is_sent else b"")


def test_a_status_without_a_name_and_a_body_of_unknown_length() -> None:
    head = HeadWriter().head(529, [], "", now=0, chunked=True)

    assert head.startswith(b"HTTP/1.1 529 \r\ntransfer-encoding: chunked\r\ndate: ")


def test_names_are_remembered_within_bounds() -> None:
    writer = HeadWriter()

    for n in range(2000):
        assert f"x-{n}: v".encode() in writer.head(200, [(f"x-{n}", "v")], "", now=0)

    assert len(writer._names) <= 512


def test_a_chunk_has_its_size_in_hex() -> None:
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_ids_of_ours_are_hex_of_the_bits_given() -> None:
    assert RequestIds(lambda bits: (1 << bits) - 1).new() == "f" * 32
    assert RequestIds(lambda bits: 1 << bits - 1).new() == "0" * 32  # of many that are made at once, the last
    ids = RequestIds()
    assert len({ids.new() for _ in range(1000)}) == 1000


# -- callers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_only_this_machine_is_local(peer: str, local: bool) -> None:
    assert is_local(incoming(peer)) is local
    assert not is_local(incoming(peer, ("x-forwarded-proto", "https")))
    if peer:
        ipaddress.ip_address(peer)


# -- bounds --------------------------------------------------------------------------------------------------------


def test_a_place_and_its_bytes_are_given_back_once() -> None:
    admission = Admission(max_in_flight=2, max_buffered_bytes=10)
    one, two = admission.enter(), admission.enter()
    with pytest.raises(Overloaded):
        admission.enter()
    one.reserve(6)
    two.reserve(4)
    with pytest.raises(Overloaded):
        two.reserve(1)

    one.leave()
    one.leave()

    assert (admission.in_flight, admission.buffered_bytes) == (1, 4)
    two.leave()
    assert (admission.in_flight, admission.buffered_bytes) == (0, 0)


def test_no_bound_is_no_bound() -> None:
    admission = Admission(max_in_flight=0, max_buffered_bytes=1)

    assert len([admission.enter() for _ in range(5000)]) == 5000


# -- bodies --------------------------------------------------------------------------------------------------------


class Source:
    """A body of which each wait brings one piece."""

    def __init__(self, *pieces: bytes, complete: bool = False) -> None:
        self.pieces = list(pieces)
        self.complete = complete
        self.failed: Exception | None = None
        self.here = self.pieces.pop(0) if complete else b""

    def take(self) -> bytes:
        here, self.here = self.here, b""
        return here

    async def more(self) -> int:
        piece = self.pieces.pop(0) if self.pieces else b""
        self.here += piece
        return len(piece)

    def fail(self, error: Exception) -> None:
        self.failed = error


def reader(source: Source, now: list[float], begun: list[str] | None = None) -> BodyReader:
    begin = None if begun is None else lambda: begun.append("begun")
    return BodyReader(source, BodyClock(10, 100), lambda: now[0], begin)


async def test_a_body_is_read_whole_within_its_bound_and_paid_for() -> None:
    ticket = Admission(max_in_flight=1, max_buffered_bytes=100).enter()

    assert await reader(Source(b"ab", b"cd"), [0.0]).whole(CHUNKED, 4, ticket) == b"abcd"
    assert await reader(Source(b"ab", b"cd"), [0.0]).whole(4, 4, ticket) == b"abcd"
    assert await reader(Source(b"abcd"), [0.0]).whole(4, 4, ticket) == b"abcd"
    with pytest.raises(PayloadTooLarge):
        await reader(Source(b"ab", b"cd"), [0.0]).whole(CHUNKED, 3, ticket)
    with pytest.raises(PayloadTooLarge):
        await reader(Source(), [0.0]).whole(5, 4, ticket)


async def test_a_client_is_told_to_go_on_once_and_only_when_it_is_waited_for() -> None:
    begun: list[str] = []

    body = reader(Source(b"ab", b"cd"), [0.0], begun)
    assert [piece async for piece in body.pieces(None)] == [b"ab", b"cd"]
    assert begun == ["begun"]
    assert await reader(Source(b"ab", complete=True), [0.0], begun).read() == b"ab"
    assert begun == ["begun"]


@pytest.mark.parametrize(
    ("received", "waited_s", "expired"),
    [(0, 10.0, False), (0, 10.1, True), (500, 9.0, False), (500, 11.0, True)],
)
def test_silence_has_an_end(received: int, waited_s: float, expired: bool) -> None:
    clock = BodyClock(10, 100)
    clock.got(received, 0.0)
    clock.wait(5.0)

    assert clock.expired(5.0 + waited_s) is expired


def test_slow_bytes_buy_only_the_time_that_they_are_worth() -> None:
    clock = BodyClock(10, 100)
    now = 0.0
    for _ in range(100):
        clock.wait(now)
        now += 1.0
        if clock.expired(now):
            break
        clock.got(50, now)  # half the rate

    assert 19 <= now <= 21  # 10 s, and 10 s more for the 1000 bytes that came by then


def test_who_was_fast_in_the_beginning_may_not_be_slow_for_hours() -> None:
    clock = BodyClock(10, 100)
    clock.wait(0.0)
    clock.got(1_000_000, 1.0)
    now = 1.0
    for _ in range(100):
        clock.wait(now)
        now += 5.0
        if clock.expired(now):
            break
        clock.got(1, now)

    assert now <= 16


def test_time_in_which_nobody_waits_does_not_count() -> None:
    clock = BodyClock(10, 100)
    clock.wait(0.0)
    clock.got(10, 1.0)

    assert not clock.expired(1_000_000.0)


def test_without_a_rate_only_silence_counts() -> None:
    clock = BodyClock(10, 0)
    clock.got(1, 0.0)
    for second in range(0, 1000, 9):
        clock.wait(float(second))
        assert not clock.expired(second + 9.0)
        clock.got(1, second + 9.0)


async def test_a_reader_that_waits_too_long_is_ended() -> None:
    source, now = Source(), [0.0]
    body = reader(source, now)
    body._clock.wait(0.0)

    body.tick(9.0)
    assert source.failed is None
    body.tick(10.5)

    assert getattr(source.failed, "status", None) == 408
