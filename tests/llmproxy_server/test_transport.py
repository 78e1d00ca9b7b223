"""What goes over the wire to an upstream, which failures come back, and what becomes of the connections."""

import asyncio
import gc
import gzip
import logging
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import pytest

from llmproxy_core.errors import (
    UpstreamConnectError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
)
from llmproxy_core.llm import Timeouts, UpstreamRequest
from llmproxy_core.services import Pool
from llmproxy_server.transport_body import ResponseBody
from tests.llmproxy_server.transporting import OFF, WAIT_S, call, get, post, read, rest, soon, transporting, until
from tests.upstream import (
    Body,
    Call,
    Chunk,
    Cut,
    End,
    Head,
    Raw,
    Reached,
    Reset,
    Stall,
    Step,
    Upstream,
    Wait,
    refusing_url,
    reply,
    silent_url,
)

SECRET = "sk-do-not-tell"
SHORT_S = 0.1


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
        with pytest.raises(UpstreamConnectError):
            await call(transport, get(f"{upstream.base_url}/{bad}"))

        assert upstream.connections_total == 0


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


async def test_what_the_body_iterator_raises_after_the_head_passes_through_the_read() -> None:
    go_on = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await go_on.wait()
        raise ClientGone

    script: list[Step] = [Body(1), Head(), Chunk(b"y"), Stall()]
    async with Upstream(script, early=True) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url, pieces()))
        assert await read(body) == b"y"
        go_on.set()

        with pytest.raises(ClientGone):
            await read(body)

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


# ------------------------------------------------------------------------------------------------ failures

OK = b"HTTP/1.1 200 OK\r\n"
GARBAGE_HEADS = {
    "another protocol": b"SSH-2.0-x\r\n\r\n",
    "no text": b"\xff\xfe\x00\r\n\r\n",
    "bad status": b"HTTP/1.1 abc OK\r\n\r\n",
    "bad version": b"HTTP/9.9 200 OK\r\n\r\n",
    "space in a name": OK + b"a b: c\r\n\r\n",
    "NUL": OK + b"a: b\x00c\r\n\r\n",
    "bare CR": OK + b"a: b\rc: d\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "two framings": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": OK + b"Content-Length: -1\r\n\r\n",
    "transfer coding": OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "two transfer codings": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "long field": OK + b"a: " + b"b" * 40_000 + b"\r\n\r\n",
    "long status line": b"HTTP/1.1 200 " + b"b" * 40_000 + b"\r\n\r\n",
    "many fields": OK + b"a: b\r\n" * 200 + b"\r\n",
    "switched protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
}


@pytest.mark.parametrize("head", GARBAGE_HEADS.values(), ids=GARBAGE_HEADS.keys())
async def test_a_garbage_head_is_garbage(head: bytes) -> None:
    async with Upstream([Raw(head), Stall()]) as upstream, transporting() as transport:
        with pytest.raises(UpstreamGarbage) as caught:
            await call(transport, post(upstream.base_url))

        assert (caught.value.status, caught.value.code, caught.value.retryable) == (502, "upstream_garbage", True)
        await soon((await upstream.received()).gone)
        assert transport.connections_in_use == 0


@pytest.mark.parametrize("script", [[Cut()], [Reset()], [Raw(OK + b"a: b\r\nc"), Cut()], [Raw(OK), Reset()]], ids=repr)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_an_end_before_the_head_is_a_cut_and_is_not_tried_again(method: str, script: list[Step]) -> None:
    async with Upstream(script) as upstream, transporting() as transport:
        with pytest.raises(UpstreamCut) as caught:
            await call(transport, UpstreamRequest(method, upstream.base_url, []))

        assert (caught.value.status, caught.value.code, caught.value.retryable) == (502, "upstream_cut", True)
        assert transport.connections_in_use == 0
        assert len(upstream.requests) == 1


async def test_a_refused_connection_says_so_and_no_secret() -> None:
    with refusing_url() as url:
        async with transporting() as transport:
            with pytest.raises(UpstreamConnectError) as caught:
                await call(transport, post(f"{url}/v1?key={SECRET}", b"{}", ("authorization", SECRET)))

    host = url.removeprefix("http://")
    assert caught.value.message == f"Could not connect to {host}: connection refused"
    assert (caught.value.status, caught.value.code) == (502, "upstream_connect")


@pytest.mark.parametrize("script", [[Raw(b"garbage\r\n")], [Cut()], [Head(), Chunk(b"x"), Cut()]], ids=repr)
async def test_no_error_carries_the_request_with_it(script: list[Step]) -> None:
    """aiohttp's exceptions hold the request's URL and headers; a log of ours must not find them."""
    async with Upstream([*script, Stall()]) as upstream, transporting() as transport:
        request = post(f"{upstream.base_url}?key={SECRET}", b"{}", ("authorization", SECRET))
        with pytest.raises(UpstreamError) as caught:
            await rest(await call(transport, request))

    upstream.take_errors()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert SECRET not in repr(caught.value.__dict__)


async def test_a_name_that_cannot_be_resolved_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*args: object, **kwargs: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)  # the only way to be sure of an answer
    async with transporting() as transport:
        with pytest.raises(UpstreamConnectError) as caught:
            await call(transport, get("http://upstream.invalid/v1"))

    assert caught.value.message == "Could not connect to upstream.invalid: its name cannot be resolved"


async def test_an_upstream_without_tls_says_so() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, transporting() as transport:
        with pytest.raises(UpstreamConnectError, match="no TLS connection can be agreed on"):
            await call(transport, get(f"https://127.0.0.1:{_port(server)}/"))


async def test_the_connect_time_out_in_the_tls_handshake() -> None:
    async with Upstream() as upstream, transporting() as transport:
        with pytest.raises(UpstreamConnectError) as caught:
            async with asyncio.timeout(2):
                await transport.open(get(upstream.url.replace("http:", "https:")), Timeouts(SHORT_S, None, None, None))

        assert caught.value.status == 504
        await upstream.until(lambda: upstream.connections_open == 0)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody signed, with its key."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    pem = folder / "both.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(folder / "key.pem")]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = [openssl, "req", "-x509", *key, *name, "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    pem.write_bytes((folder / "certificate.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return pem


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def _tls_server(certificate: Path) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 2\r\n\r\nok")
        await reader.read()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)


async def test_a_certificate_that_nobody_signed_is_refused(certificate: Path) -> None:
    async with await _tls_server(certificate) as server, transporting() as transport:
        port = _port(server)

        with pytest.raises(UpstreamConnectError) as caught:
            await call(transport, get(f"https://127.0.0.1:{port}/"))

    assert "its TLS certificate is not trusted (self" in caught.value.message  # self-signed or self signed


async def test_a_certificate_that_is_trusted_serves_and_its_connection_is_kept(certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with await _tls_server(certificate) as server, transporting(tls=trusting) as transport:
        port = _port(server)

        assert await rest(await call(transport, get(f"https://127.0.0.1:{port}/"))) == b"ok"


# ------------------------------------------------------------------------------------------------ time-outs


async def test_the_connect_time_out() -> None:
    with silent_url() as url:
        async with transporting() as transport:
            with pytest.raises(UpstreamConnectError) as caught:
                async with asyncio.timeout(2):
                    await transport.open(get(url), Timeouts(SHORT_S, None, None, None))

    assert (caught.value.status, caught.value.code) == (504, "upstream_connect")
    assert caught.value.message == f"No connection to {url.removeprefix('http://')} within 0.1 seconds"


async def test_the_connect_time_out_bounds_the_wait_for_a_free_connection() -> None:
    async with Upstream([Head(), Stall()]) as upstream, transporting(Pool(max_connections=1)) as transport:
        body = await call(transport, get(upstream.base_url))

        with pytest.raises(UpstreamConnectError):
            async with asyncio.timeout(2):
                await transport.open(get(upstream.base_url), Timeouts(SHORT_S, None, None, None))

        assert transport.connections_in_use == 1
        body.close()


async def test_the_first_byte_time_out_before_the_head() -> None:
    async with Upstream([Stall()]) as upstream, transporting() as transport:
        with pytest.raises(UpstreamTimeout) as caught:
            async with asyncio.timeout(2):
                await transport.open(post(upstream.base_url), Timeouts(None, SHORT_S, None, None))

        assert (caught.value.status, caught.value.code) == (504, "upstream_timeout_first_byte")
        assert caught.value.message == f"127.0.0.1:{upstream.port} did not begin to answer within 0.1 seconds"
        assert transport.connections_in_use == 0
        await soon((await upstream.received()).gone)


async def test_the_first_byte_time_out_does_not_count_while_the_request_is_sent() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(3 * SHORT_S)  # a slow caller: the time is what is tested
        yield b"y"

    async with Upstream(reply([1])) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url, pieces()), Timeouts(None, SHORT_S, None, None))

        assert await rest(body) == b"[1]"


async def test_the_total_time_out_before_the_head() -> None:
    async with Upstream([Stall()]) as upstream, transporting() as transport:
        with pytest.raises(UpstreamTimeout) as caught:
            async with asyncio.timeout(2):
                await transport.open(post(upstream.base_url), Timeouts(None, None, None, SHORT_S))

        assert (caught.value.status, caught.value.code) == (504, "upstream_timeout_total")
        assert caught.value.message == f"127.0.0.1:{upstream.port} did not complete its answer within 0.1 seconds"
        await soon((await upstream.received()).gone)


async def test_a_time_out_of_the_body_iterator_is_its_own() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        raise TimeoutError("the caller's")

    async with Upstream(reply({})) as upstream, transporting() as transport:
        with pytest.raises(TimeoutError, match="the caller's"):
            await call(transport, post(upstream.base_url, pieces()), Timeouts())


# ------------------------------------------------------------------------------------------------ connections


async def test_a_connection_carries_one_call_after_the_other() -> None:
    async with Upstream(reply({})) as upstream, transporting() as transport:
        for _ in range(5):
            await rest(await call(transport, post(upstream.base_url)))

        assert (len(upstream.requests), upstream.connections_total) == (5, 1)
        assert transport.connections_in_use == 0


async def test_a_connection_is_kept_when_the_end_came_unread() -> None:
    async with Upstream(reply({})) as upstream, transporting() as transport:
        body = await call(transport, post(upstream.base_url))
        await soon((await upstream.received()).finished)
        await until(lambda: transport.connections_in_use == 0)
        body.close()

        assert await rest(await call(transport, post(upstream.base_url))) == b"{}"
        assert upstream.connections_total == 1


async def test_a_connection_is_not_kept_when_the_upstream_closes_it() -> None:
    async with Upstream([Head(200, {"connection": "close"}, 2), Chunk(b"ok"), End()]) as upstream:
        async with transporting() as transport:
            for _ in range(2):
                assert await rest(await call(transport, post(upstream.base_url))) == b"ok"

        assert upstream.connections_total == 2


async def test_a_connection_is_not_kept_longer_than_the_pool_says() -> None:
    async with Upstream(reply({})) as upstream, transporting(Pool(idle_s=0)) as transport:
        for _ in range(2):
            await rest(await call(transport, post(upstream.base_url)))

        assert upstream.connections_total == 2


async def test_an_answer_to_no_request_is_not_taken_for_the_next_ones() -> None:
    go_on = asyncio.Event()
    stray = OK + b"Content-Length: 5\r\n\r\nstray"
    async with Upstream() as upstream, transporting() as transport:
        upstream.then([*reply([1]), Wait(go_on), Raw(stray), Stall()], reply([2]))
        assert await rest(await call(transport, post(upstream.base_url))) == b"[1]"
        go_on.set()
        first = await upstream.received()
        await until(lambda: first.bytes_sent > len(stray) + 60)
        for _ in range(5):  # the stray answer is read
            await asyncio.sleep(0)

        with pytest.raises(UpstreamGarbage, match="answered before it was asked"):
            await call(transport, post(upstream.base_url))

        assert await rest(await call(transport, post(upstream.base_url))) == b"[2]"
        upstream.take_errors()


@pytest.mark.parametrize("pool", [Pool(max_connections=2), Pool(max_connections_per_host=2)], ids=["all", "host"])
async def test_a_full_pool_makes_calls_wait_for_their_turn(pool: Pool) -> None:
    go_on = asyncio.Event()
    async with Upstream([Head(200, (), 2), Wait(go_on), Chunk(b"ok"), End()]) as upstream:
        async with transporting(pool) as transport, asyncio.TaskGroup() as tasks:

            async def one() -> bytes:
                return await rest(await call(transport, post(upstream.base_url)))

            calls = [tasks.create_task(one()) for _ in range(6)]
            await upstream.received(2)
            assert (transport.connections_in_use, len(upstream.requests)) == (2, 2)
            go_on.set()
            async with asyncio.timeout(WAIT_S):
                assert await asyncio.gather(*calls) == [b"ok"] * 6

        assert upstream.connections_total == 2


# ------------------------------------------------------------------------------------------------ cancellation


async def test_a_cancelled_connect_leaves_nothing() -> None:
    with silent_url() as url:
        async with transporting() as transport:
            opening = asyncio.Task(transport.open(get(url), OFF))
            await until(lambda: transport.connections_in_use == 1)

            await _cancel(opening)

            assert transport.connections_in_use == 0


async def test_a_cancelled_wait_for_a_free_connection_leaves_nothing() -> None:
    async with Upstream([Head(), Stall()]) as upstream, transporting(Pool(max_connections=1)) as transport:
        body = await call(transport, get(upstream.base_url))
        opening = asyncio.Task(transport.open(get(upstream.base_url), OFF))
        await asyncio.sleep(0)

        await _cancel(opening)
        body.close()

        assert transport.connections_in_use == 0
        assert len(upstream.requests) == 1


async def test_a_cancelled_wait_for_the_head_closes_the_connection() -> None:
    async with Upstream([Stall()]) as upstream, transporting() as transport:
        opening = asyncio.Task(transport.open(post(upstream.base_url), OFF))
        received = await upstream.received()

        await _cancel(opening)

        assert transport.connections_in_use == 0
        await soon(received.gone)


async def test_a_cancelled_upload_closes_the_connection_though_it_is_not_taken() -> None:
    """asyncio would keep the socket and what is not yet written until the upstream takes it, if ever."""
    pieces_sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal pieces_sent
        while True:
            pieces_sent += 1
            yield b"x" * 2**16

    async def take_nothing(call: Call) -> None:
        call.transport.pause_reading()
        await call.play(Stall())

    async with Upstream(take_nothing, early=True) as upstream, transporting() as transport:
        opening = asyncio.Task(transport.open(post(upstream.base_url, pieces()), OFF))
        before = -1
        while pieces_sent != before:  # until the kernel takes no more
            before = pieces_sent
            await asyncio.sleep(SHORT_S)
        files = _open_files()

        await _cancel(opening)

        assert transport.connections_in_use == 0
        await until(lambda: _open_files() == files - 1)


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def _cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(WAIT_S):
            await task


# ------------------------------------------------------------------------------------------------ the end


async def test_closing_the_transport_closes_what_is_open_and_what_is_idle() -> None:
    async with Upstream() as upstream, transporting() as transport:
        upstream.then([Head(), Chunk(b"x"), Stall()], [Head(), Chunk(b"x"), Stall()], reply({}))
        waiting = await call(transport, post(upstream.base_url))
        unread = await call(transport, post(upstream.base_url))
        await rest(await call(transport, post(upstream.base_url)))
        assert await read(waiting) == b"x"
        reading = asyncio.Task(waiting.read())
        await asyncio.sleep(0)

        await transport.aclose()

        with pytest.raises(UpstreamCut):
            await reading
        await upstream.until(lambda: upstream.connections_open == 0)
        unread.close()
        with pytest.raises(RuntimeError, match="closed"):
            await transport.open(get(upstream.base_url), OFF)


async def test_a_closed_transport_has_no_open_socket() -> None:
    """Not even for one more turn of the loop, which nobody may give it."""
    async with Upstream([Head(), Stall()]) as upstream, transporting() as transport:
        await call(transport, post(upstream.base_url))
        files = _open_files()

        await transport.aclose()

        assert _open_files() < files


async def test_a_kept_connection_that_ends_badly_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    go_on = asyncio.Event()
    caplog.set_level(logging.WARNING)
    async with Upstream() as upstream, transporting() as transport:
        upstream.then([Head(200, (), 2), Chunk(b"ok"), End(), Wait(go_on), Reset()], reply({}))
        await rest(await call(transport, post(upstream.base_url)))
        go_on.set()
        await upstream.until(lambda: upstream.connections_open == 0)
        for _ in range(5):  # our side hears of it
            await asyncio.sleep(0)

        assert await rest(await call(transport, post(upstream.base_url))) == b"{}"

    gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize("to_the_end", [True, False], ids=["read", "released"])
async def test_a_kept_connection_holds_nothing_of_the_calls_before(to_the_end: bool) -> None:
    def bodies() -> int:
        gc.collect()
        return sum(isinstance(each, ResponseBody) for each in gc.get_objects())

    before = bodies()
    async with Upstream([Head(), Chunk(b"x"), End()]) as upstream, transporting() as transport:

        async def one() -> None:
            body = await call(transport, post(upstream.base_url), Timeouts())
            await (rest(body) if to_the_end else read(body))
            body.release()

        for _ in range(5):
            await one()
            await until(lambda: transport.connections_in_use == 0)

        assert bodies() == before
        assert upstream.connections_total == 1
