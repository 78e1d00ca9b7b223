"""
Requests made at random: well-formed ones are read as they are meant, however they are cut; spoiled ones break nothing.

What is spoiled is judged by the strict reader: whatever the edge passes on, that one reads too, and in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.answers import pieces
from tests.llmproxy_server.wire.judge import taken
from tests.llmproxy_server.wire.ours import PROBE, Edge, Told
from tests.llmproxy_server.wire.rows import chunk, get, sized
from tests.llmproxy_server.wire.strict import Request, read_all

SOON_S = 1.0
"""What became half a request by being spoiled is ended by the time-outs."""
DEEP = settings(max_examples=3 * settings().max_examples)
"""A connection costs little, and what is looked for is rare."""
REFUSALS = {400, 405, 408, 413, 415, 417, 421, 431, 501, 505}

NEED_NO_BODY = {404, 405, 415}


class Rig:
    """An edge in an event loop of its own, for functions that hypothesis calls many times."""

    def __init__(self, runner: asyncio.Runner, edge: Edge) -> None:
        self._runner = runner
        self._edge = edge

    def tell(self, pieces: Sequence[bytes], heads: Sequence[str] | None = ()) -> Told:
        return self._runner.run(self._edge.tell(pieces, heads=heads))


@pytest.fixture(scope="module")
def patient() -> Iterator[Rig]:
    yield from _rig(Edge(max_header_count=200))


@pytest.fixture(scope="module")
def hasty() -> Iterator[Rig]:
    yield from _rig(Edge(header_timeout_s=SOON_S, body_timeout_s=SOON_S, idle_timeout_s=SOON_S))


def _rig(edge: Edge) -> Iterator[Rig]:
    with asyncio.Runner() as runner:
        runner.run(edge.__aenter__())
        try:
            yield Rig(runner, edge)
        finally:
            runner.run(edge.__aexit__(None, None, None))


# -- well-formed -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Made:
    """A request, as bytes and as it is meant."""

    data: bytes
    meant: tuple[str, str, bytes]


TCHAR = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAMES = st.text(TCHAR, min_size=1, max_size=12).map(lambda name: f"X-{name}")
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=30)
SEGMENT = st.text("abcXYZ019-._~!$&'()*+,=:@", min_size=1, max_size=12).filter(lambda it: it not in (".", ".."))
QUERY = st.text("abc019-._~!$&'()*+,=:@/?%;", max_size=20).map(lambda it: f"?x{it}")
SPACE = st.sampled_from(["", " ", "  ", "\t", " \t "])
EXTENSION = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b;\\"c"'])
TRAILERS = st.lists(st.tuples(NAMES, VALUES), max_size=2)


@st.composite
def requests(draw: st.DrawFn) -> Made:
    """One of those that a client may send: any method, target, fields, body and framing."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]))
    target = "/v1/files/" + draw(SEGMENT) + draw(st.one_of(st.just(""), QUERY))
    fields = [
        (name, draw(SPACE) + value + draw(SPACE))
        for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=5))
    ]
    body = draw(st.binary(max_size=200))
    framing = draw(st.sampled_from(["none", "sized", "chunked"]))
    if framing == "none":
        body, raw = b"", b""
    elif framing == "sized":
        fields.append((draw(st.sampled_from(["Content-Length", "content-length"])), str(len(body))))
        raw = body
    else:
        fields.append(
            (
                draw(st.sampled_from(["Transfer-Encoding", "TRANSFER-ENCODING"])),
                draw(st.sampled_from([" chunked", "Chunked"])),
            )
        )
        raw = draw(chunks(body))
    if draw(st.booleans()):
        fields.append(("Expect", " 100-continue"))
    fields.insert(draw(st.integers(0, len(fields))), (draw(st.sampled_from(["Host", "host"])), " localhost"))
    head = "".join([f"{method} {target} HTTP/1.1\r\n", *(f"{name}:{value}\r\n" for name, value in fields), "\r\n"])
    return Made(head.encode("latin-1") + raw, (method, target, body))


@st.composite
def chunks(draw: st.DrawFn, body: bytes) -> bytes:
    """*body* in chunks of any sizes, with or without extensions and trailers."""
    cuts = draw(st.lists(st.integers(0, len(body)), max_size=4))
    raw = b"".join(chunk(piece, draw(EXTENSION)) for piece in pieces(body, cuts))
    trailers = "".join(f"{name}: {value}\r\n" for name, value in draw(TRAILERS))
    return raw + b"0" + draw(EXTENSION) + b"\r\n" + trailers.encode("latin-1") + b"\r\n"


@DEEP
@given(made=st.lists(requests(), min_size=1, max_size=4), data=st.data())
def test_well_formed_requests_are_read_as_meant_however_they_are_cut(
    patient: Rig, made: list[Made], data: st.DataObject
) -> None:
    raw = b"".join(each.data for each in made)
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=6), label="cuts")
    told = patient.tell(pieces(raw, cuts), heads=[each.meant[0] for each in made])

    assert [taken(request) for request in told.requests] == [each.meant for each in made]
    assert [answer.status for answer in told.answers] == [200] * (len(made) + 1)
    assert told.probed
    assert not told.faults


@given(made=requests())
def test_the_strict_reader_reads_what_is_made(made: Made) -> None:
    assert [taken(request) for request in read_all(made.data)[0]] == [made.meant]


# -- spoiled ---------------------------------------------------------------------------------------------------------

NOISE = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\n\r", b"\x00", b" ", b"\t", b":", b",", b";", b"0", b"5", b"\xff", b"\x7f"]
)
LINES = [
    b"Content-Length: 3",
    b"Content-Length: 0",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Host: evil.example",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Expect: 100-continue",
    b"Upgrade: h2c",
    b" folded",
    b"",
    b"GET / HTTP/1.1",
]
PLAIN = [sized(), get(), get(b"Transfer-Encoding: chunked", method=b"POST") + chunk(b"hello") + b"0\r\n\r\n"]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Well-formed requests with a few bytes changed, put in or left out, or lines repeated, moved or put in."""
    data = b"".join(
        draw(
            st.lists(st.one_of(st.sampled_from(PLAIN), requests().map(lambda made: made.data)), min_size=1, max_size=3)
        )
    )
    for _ in range(draw(st.integers(1, 4))):
        data = draw(st.sampled_from([_with_noise, _with_bit, _with_line, _without_line]))(draw, data)
    return data


def _with_noise(draw: st.DrawFn, data: bytes) -> bytes:
    place = draw(st.integers(0, len(data)))
    return data[:place] + draw(NOISE) + data[place + draw(st.sampled_from([0, 0, 1, 2])) :]


def _with_bit(draw: st.DrawFn, data: bytes) -> bytes:
    if not data:
        return data
    place = draw(st.integers(0, len(data) - 1))
    return data[:place] + bytes([data[place] ^ (1 << draw(st.integers(0, 7)))]) + data[place + 1 :]


def _with_line(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from([*LINES, *lines])))
    return b"\r\n".join(lines)


def _without_line(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    del lines[draw(st.integers(0, len(lines) - 1))]
    return b"\r\n".join(lines)


@DEEP
@example(data=b"")
@example(data=b"\r\n" * 5)
@given(data=spoiled())
def test_what_is_spoiled_breaks_nothing_and_is_never_read_in_two_ways(hasty: Rig, data: bytes) -> None:
    strictly, _ = read_all(data + PROBE)

    told = hasty.tell([data], heads=None)

    assert {answer.status for answer in told.answers if answer.status != 200} <= REFUSALS | {404}
    assert all(answer.header("connection") != "close" for answer in told.answers[:-1])
    assert not told.faults
    _check_understood(strictly, told)


@DEEP
@example(data=b"\r\n\r\n" + get(), cuts=[2])
@example(data=b"\r\n" * 3 + sized(), cuts=[2, 4])
@example(data=b"QOST /v1 HTTP/1.1\r\n\nhost: localhost", cuts=[19])
@given(data=spoiled(), cuts=st.lists(st.integers(0, 400), min_size=1, max_size=6))
def test_what_is_spoiled_is_spoiled_however_it_is_cut(hasty: Rig, data: bytes, cuts: list[int]) -> None:
    """But for an answer that needs no body: it closes the connection where the body has not come yet."""
    both = [hasty.tell([data], heads=None), hasty.tell(pieces(data, cuts), heads=None)]

    less, more = sorted(both, key=lambda told: len(told.answers))
    statuses = [answer.status for answer in less.answers]
    assert statuses == [answer.status for answer in more.answers][: len(statuses)]
    passed = [taken(request) for request in less.requests]
    assert passed == [taken(request) for request in more.requests][: len(passed)]
    if len(less.answers) < len(more.answers):
        assert statuses[-1] in NEED_NO_BODY
        assert less.answers[-1].header("connection") == "close"


def _check_understood(strictly: Sequence[Request], told: Told) -> None:
    """Those passed on are among those that the strict reader found, in their order: none is made up, none is other."""
    found = iter([taken(request) for request in strictly])
    passed = [taken(request) for request in told.requests]
    assert all(one in found for one in passed), (passed, strictly)
