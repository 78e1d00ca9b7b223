"""Every failure of a call before its answer is an error of ours, which tells no secret."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmproxy_core.errors import (
    Overloaded,
    ProxyError,
    UpstreamConnectError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
)
from llmproxy_core.llm import Timeouts, UpstreamRequest
from llmproxy_core.services import Pool
from tests.llmproxy_server.transporting import call, get, over, post, rest, soon, transporting
from tests.upstream import (
    Chunk,
    Cut,
    Head,
    Raw,
    Reset,
    Stall,
    Step,
    Upstream,
    refusing_url,
    reply,
    silent_url,
)

__all__ = ["over"]
pytestmark = pytest.mark.usefixtures("over")

SECRET = "sk-do-not-tell"
SHORT_S = 0.1
OK = b"HTTP/1.1 200 OK\r\n"


# ------------------------------------------------------------------------------------------------ failures
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

        with pytest.raises(Overloaded) as caught:
            async with asyncio.timeout(2):
                await transport.open(get(upstream.base_url), Timeouts(SHORT_S, None, None, None))

        assert transport.connections_in_use == 1
        body.close()
    assert (caught.value.status, caught.value.code) == (503, "pool_full")
    assert "that `pool` allows became free within 0.1 seconds" in caught.value.message


@pytest.mark.parametrize(("deadline", "status", "code"), [(True, 504, "deadline_exceeded"), (False, 503, "pool_full")])
async def test_the_time_of_the_call_bounds_it_too(deadline: bool, status: int, code: str) -> None:
    async with Upstream([Head(), Stall()]) as upstream, transporting(Pool(max_connections=1)) as transport:
        body = await call(transport, get(upstream.base_url))
        request = get(upstream.base_url)
        request.left_s, total_s = (SHORT_S, 60) if deadline else (60, SHORT_S)

        with pytest.raises(ProxyError) as caught:
            async with asyncio.timeout(2):
                await transport.open(request, Timeouts(None, None, None, total_s))

        body.close()
    assert (caught.value.status, caught.value.code) == (status, code)


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
