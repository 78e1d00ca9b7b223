"""The fake upstream fails the test whose client breaks the protocol, or whose script cannot be."""

import asyncio

import pytest

from tests.rawclient import ASK, WAIT_S, connected
from tests.upstream import (
    Body,
    Call,
    Chunk,
    Cut,
    End,
    Head,
    ProtocolViolation,
    Raw,
    Script,
    ScriptError,
    Stall,
    Upstream,
    Wait,
    reply,
)

VIOLATIONS = [
    pytest.param(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n", "request line", id="HTTP/1.0"),
    pytest.param(b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", "request line", id="absolute target"),
    pytest.param(b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", "request line", id="space in the target"),
    pytest.param(b"GET / HTTP/1.1\nHost: h\r\n\r\n", "request line", id="bare LF"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", "header line 'A '", id="space before the colon"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", "header line", id="folded line"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n", "header line 'A'", id="NUL"),
    pytest.param(b"GET / HTTP/1.1\r\nA: b\r\n\r\n", "0 Host", id="no Host"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", "2 Host", id="two Hosts"),
    pytest.param(ASK.replace(b"2\r", b"+2\r"), "Content-Length '\\+2'", id="signed length"),
    pytest.param(ASK.replace(b"Host", b"Content-Length: 2\r\nHost"), "Content-Length", id="two lengths"),
    pytest.param(ASK.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost"), "chunked", id="both framings"),
    pytest.param(ASK.replace(b"Content-Length: 2", b"Transfer-Encoding: gzip"), "gzip", id="other coding"),
    pytest.param(ASK + b"{", "1 bytes after", id="more than the length"),
    pytest.param(
        ASK.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"\r\n",
        "chunk size",
        id="chunk size",
    ),
    pytest.param(
        ASK.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked")[:-2] + b"1\r\nabc",
        "after a chunk",
        id="chunk too long",
    ),
    pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"a" * 70_000, "65536 bytes", id="endless head"),
]


@pytest.mark.parametrize(("request_bytes", "message"), VIOLATIONS)
async def test_a_request_against_the_protocol_fails_the_test(request_bytes: bytes, message: str) -> None:
    async with Upstream(reply({})) as upstream, connected(upstream.port) as client:
        client.send(request_bytes)
        assert (await client.until(b"\r\n")) == b"HTTP/1.1 400 Bad Request\r\n"
        await upstream.until(lambda: upstream.connections_open == 0)

        [violation] = upstream.take_errors()

        assert isinstance(violation, ProtocolViolation)
        with pytest.raises(ProtocolViolation, match=message):
            raise violation
        assert upstream.requests == []


async def test_a_request_that_never_ends_fails_the_test() -> None:
    async with Upstream(reply({}), timeout_s=0.1) as upstream, connected(upstream.port) as client:
        client.send(ASK[:-1])
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")

        [violation] = upstream.take_errors()

        assert "no complete request within 0.1 s" in str(violation)


async def test_a_script_that_waits_in_vain_for_the_request_fails_the_test() -> None:
    async with (
        Upstream([Body(2), *reply({})], early=True, timeout_s=0.1) as upstream,
        connected(upstream.port) as client,
    ):
        client.send(ASK[:-1])
        assert await client.rest() == b""

        [mistake] = upstream.take_errors()

        assert "Body(at_least=2) waited 0.1 s in vain" in str(mistake)


async def test_an_error_is_raised_when_the_upstream_is_left() -> None:
    async def forgotten() -> None:
        async with Upstream() as upstream, connected(upstream.port) as client:
            client.send()
            assert (await client.until(b"\r\n")) == b"HTTP/1.1 500 Internal Server Error\r\n"
            await client.rest()

    with pytest.raises(ExceptionGroup, match="fake upstream") as raised:
        await forgotten()

    assert raised.group_contains(ScriptError, match=r"no script for POST /v1/x")


async def test_the_failure_of_the_test_itself_is_not_hidden() -> None:
    async def failing() -> None:
        async with Upstream() as upstream, connected(upstream.port) as client:
            client.send()
            await client.rest()
            raise KeyError("the test's")

    with pytest.raises(KeyError) as raised:
        await failing()

    assert "no script" in raised.value.__notes__[0]


async def _fails(call: Call) -> None:
    await call.play(Head())
    raise ZeroDivisionError("mine")


MISTAKES: list[tuple[str, Script, type[Exception], str]] = [
    ("no end", [Head(), Chunk(b"x")], ScriptError, "no End, Cut, Reset or Stall"),
    ("waits in vain", [Wait(asyncio.Event())], ScriptError, r"Wait.* waited 0.1 s"),
    ("stalls in vain", [Stall()], ScriptError, r"Stall\(\) waited 0.1 s"),
    ("end without head", [End()], ScriptError, "without Head"),
    ("chunk without head", [Chunk(b"x")], ScriptError, "before Head"),
    ("chunk after end", [Head(), End(), Chunk(b"x")], ScriptError, "after End"),
    ("two heads", [Head(), Head()], ScriptError, "second Head"),
    ("two ends", [Head(), End(), End()], ScriptError, "second End"),
    ("bytes after cut", [Head(), Cut(), Raw(b"x")], ScriptError, "after the end of the connection"),
    ("empty chunk", [Head(), Chunk(b"")], ScriptError, "empty"),
    ("too short", [Head(framing=2), Chunk(b"x"), End()], ScriptError, "1 of 2"),
    ("too long", [Head(framing=2), Chunk(b"xyz")], ScriptError, "more body"),
    ("handler fails", _fails, ZeroDivisionError, "mine"),
]


@pytest.mark.parametrize(("script", "kind", "message"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
async def test_a_mistake_in_a_script_ends_the_connection_and_is_told(
    script: Script, kind: type[Exception], message: str
) -> None:
    async with Upstream(script, timeout_s=0.1) as upstream, connected(upstream.port) as client:
        client.send()
        await client.rest()
        upstream.timeout_s = WAIT_S
        await upstream.until(lambda: upstream.connections_open == 0)

        [mistake] = upstream.take_errors()

        with pytest.raises(kind, match=message):
            raise mistake
