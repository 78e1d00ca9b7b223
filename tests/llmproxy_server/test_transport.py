"""What goes over the wire to an upstream, and what its answer is."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from importlib.metadata import version

import pytest

from llmproxy_core.errors import (
    UpstreamConnectError,
)
from llmproxy_core.llm import UpstreamRequest
from tests.llmproxy_server.transporting import OFF, WAIT_S, call, get, over, post, read, rest, soon, transporting
from tests.upstream import (
    Body,
    Call,
    Chunk,
    Cut,
    End,
    Head,
    Raw,
    Reached,
    Stall,
    Step,
    Upstream,
    reply,
)

__all__ = ["over"]
pytestmark = pytest.mark.usefixtures("over")

SECRET = "sk-do-not-tell"


# ------------------------------------------------------------------------------------------------ the request


async def test_a_request_goes_out_as_it_is_given_with_four_headers_of_ours() -> None:
    target = "/v1/a%2Fb/%7e/../x;y=1//z?q=%20&r=a+b&s=%C3%A9"
    async with Upstream(reply({})) as upstream, transporting() as transport:
        request = post(upstream.url + target, b'{"a": 1}', ("authorization", SECRET), ("x-a", "1"), ("x-a", "2"))
        body = await call(transport, request)

        assert await rest(body) == b"{}"

        received = await upstream.received()
        assert (received.method, received.target, received.body) == ("POST", target, b'{"a": 1}')
        assert sorted((name.lower(), value) for name, value in received.headers) == [
            ("accept-encoding", "identity"),
            ("authorization", SECRET),
            ("content-length", "8"),
            ("host", f"127.0.0.1:{upstream.port}"),
            ("user-agent", f"llmproxy/{version('llmproxy')}"),
            ("x-a", "1"),
            ("x-a", "2"),
        ]


async def test_headers_that_are_given_replace_ours() -> None:
    async with Upstream(reply({})) as upstream, transporting() as transport:
        given = (("Accept-Encoding", "gzip"), ("user-agent", "x/1"), ("content-type", "application/json"))
        await rest(await call(transport, post(upstream.base_url, b"{}", *given)))

        received = await upstream.received()
        assert received.header("accept-encoding") == "gzip"
        assert received.header("user-agent") == "x/1"
        assert received.header("content-type") == "application/json"


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [("GET", None, None), ("HEAD", None, None), ("DELETE", None, "0"), ("POST", None, "0"), ("POST", b"", "0")],
)
async def test_a_request_without_a_body_says_so(method: str, body: bytes | None, length: str | None) -> None:
    async with Upstream([Head(204, framing=0), End()]) as upstream, transporting() as transport:
        await rest(await call(transport, UpstreamRequest(method, upstream.base_url, [], body)))

        received = await upstream.received()
        assert received.header("content-length") == length
        assert received.header("transfer-encoding") is None


async def test_a_large_body_has_its_length_and_arrives_whole() -> None:
    body = bytes(range(256)) * 20_000  # 5 MB: over the size from which aiohttp warns
    async with Upstream(reply({})) as upstream, transporting() as transport:
        await rest(await call(transport, post(upstream.base_url, body)))

        received = await upstream.received()
        assert received.header("content-length") == str(len(body))
        assert received.body == body


@pytest.mark.parametrize("bad", ["a b", "a\r\nx: y", "a\x00", "ä"])
async def test_a_url_that_would_break_the_request_line_is_not_called(bad: str) -> None:
    async with Upstream(reply({})) as upstream, transporting() as transport:
        with pytest.raises(UpstreamConnectError, match="characters that cannot be sent"):
            await call(transport, get(f"{upstream.base_url}/{bad}"))

        assert upstream.connections_total == 0


@pytest.mark.parametrize(
    "url", ["", "/v1", "http:///v1", "ftp://h/v1", "http://h:x/v1", "http://h:99999/v1", "http://["]
)
async def test_what_is_no_url_of_an_upstream_is_not_called(url: str) -> None:
    async with transporting() as transport:
        with pytest.raises(UpstreamConnectError, match="not one that can be called"):
            await call(transport, get(url))


async def test_a_body_of_pieces_is_sent_as_it_comes() -> None:
    head_is_there, first_is_there = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        await head_is_there.wait()
        yield b"one"
        await first_is_there.wait()
        yield b""
        yield b"two"

    script: list[Step] = [Reached(head_is_there), Body(3), Reached(first_is_there), Body(), *reply([1])]
    async with Upstream(script, early=True) as upstream, transporting() as transport:
        assert await rest(await call(transport, post(upstream.base_url, pieces()))) == b"[1]"

        received = await upstream.received()
        assert received.body == b"onetwo"
        assert received.header("transfer-encoding") == "chunked"
        assert received.header("content-length") is None


async def test_the_answer_may_be_read_while_the_body_is_still_sent() -> None:
    answered = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"ping"
        await answered.wait()
        yield b"end"

    async def echo(call: Call) -> None:
        await call.play(Body(4), Head(200, ()))
        await call.play(Chunk(call.received.body), Body())
        await call.play(Chunk(call.received.body), End())

    async with Upstream(echo, early=True) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url, pieces()))
        assert await read(body) == b"ping"
        answered.set()

        assert await rest(body) == b"pingend"


class ClientGone(Exception):
    """What a caller's body iterator may raise."""


async def test_what_the_body_iterator_raises_before_the_head_passes_as_it_is() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        raise ClientGone

    async with Upstream(reply({})) as upstream, transporting() as transport:
        with pytest.raises(ClientGone):
            await call(transport, post(upstream.base_url, pieces()))

        await upstream.until(lambda: upstream.requests_cut == 1 and upstream.connections_open == 0)


@pytest.mark.parametrize("turns", range(5))
async def test_what_the_body_iterator_raises_after_the_head_passes_through_the_read(turns: int) -> None:
    answered = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await answered.wait()
        for _ in range(turns):  # just before, together with, and after the head
            await asyncio.sleep(0)
        raise ClientGone

    script: list[Step] = [Body(1), Head(), Reached(answered), Stall()]
    async with Upstream(script, early=True) as upstream, transporting() as transport:
        with pytest.raises(ClientGone):
            await rest(await call(transport, post(upstream.base_url, pieces())))

        await soon((await upstream.received()).gone)


# ------------------------------------------------------------------------------------------------ the answer


async def test_a_redirect_is_an_answer_and_a_cookie_is_not_kept() -> None:
    async with Upstream() as upstream, transporting() as transport:
        url = f"http://localhost:{upstream.port}/v1"  # for an address, aiohttp would keep no cookie anyway
        headers = {"location": f"{upstream.url}/elsewhere", "set-cookie": "a=b; Path=/"}
        upstream.then(reply({}, 307, headers), reply({}))
        async with asyncio.timeout(WAIT_S):
            response = await transport.open(post(url), OFF)
        await rest(response.body)
        await rest(await call(transport, get(url)))

        assert (response.status, response.headers.get("set-cookie")) == (307, "a=b; Path=/")
        assert [received.target for received in upstream.requests] == ["/v1", "/v1"]
        assert upstream.requests[1].header("cookie") is None


async def test_a_compressed_answer_is_passed_as_it_is() -> None:
    data = gzip.compress(b"hello")
    async with Upstream(reply(data, headers={"content-encoding": "gzip"})) as upstream, transporting() as transport:
        async with asyncio.timeout(WAIT_S):
            response = await transport.open(get(upstream.base_url), OFF)

        assert response.headers.get("content-encoding") == "gzip"
        assert await rest(response.body) == data


async def test_header_names_are_lower_case_and_values_can_be_encoded() -> None:
    head = "HTTP/1.1 200 OK\r\nX-One: a\r\nx-one: b\r\nX-Latin: é\r\n".encode("latin-1")
    head += "X-UTF: é\r\nContent-Length: 0\r\n\r\n".encode()
    async with Upstream([Raw(head), Stall()]) as upstream, transporting() as transport:
        async with asyncio.timeout(WAIT_S):
            response = await transport.open(get(upstream.base_url), OFF)

    pairs = [("x-one", "a"), ("x-one", "b"), ("x-latin", "é"), ("x-utf", "é"), ("content-length", "0")]
    assert list(response.headers) == pairs


@pytest.mark.parametrize(
    ("method", "script", "status", "expected"),
    [
        ("GET", [Head(204, (), 0), End()], 204, b""),
        ("GET", [Raw(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")], 304, b""),
        ("HEAD", [Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")], 200, b""),
        ("POST", [Raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"), *reply([1])], 200, b"[1]"),
        ("POST", reply({}, 503), 503, b"{}"),
        ("POST", [Raw(b"HTTP/1.0 200 OK\r\n\r\nabc"), Cut()], 200, b"abc"),
    ],
    ids=["204", "304", "HEAD", "1xx before", "503", "HTTP/1.0"],
)
async def test_every_status_has_its_body(method: str, script: list[Step], status: int, expected: bytes) -> None:
    script = script if isinstance(script[-1], End | Cut) else [*script, Stall()]
    async with Upstream(script) as upstream, transporting() as transport:
        async with asyncio.timeout(WAIT_S):
            response = await transport.open(UpstreamRequest(method, upstream.base_url, []), OFF)

        assert (response.status, await rest(response.body)) == (status, expected)
