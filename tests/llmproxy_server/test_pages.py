"""Connections that a page is asked for on: aiohttp has them for that request, and no other one is lost."""

import asyncio
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiohttp import ClientSession, WSMsgType, http_parser, web

from llmproxy_core.errors import ConfigError
from llmproxy_server.pages.server import Page, require_c_parser
from llmproxy_server.wire.connection import Connection
from tests.llmproxy_server.edging import HELLO, STREAM, answer, ask, chunks, head, post, request
from tests.llmproxy_server.transporting import until
from tests.page_first import PAGE, PATH
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import Client, connected
from tests.upstream import Upstream, Wait, chat_chunk, completion, reply, sse, stream

SHOWN = request("GET", PATH)
NOWHERE = "http://127.0.0.1:9/v1"


async def count(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


class ProxyWithPages(Proxy):
    pages: Sequence[Page] = (PAGE, Page("/counted", count))  # type: ignore[misc] # of this class alone


async def test_what_was_sent_with_the_request_for_a_page_is_answered_in_its_order() -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        ProxyWithPages(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post() + SHOWN + post() + request("GET", "/livez") + SHOWN + post())

        answers = [await answer(client) for _ in range(6)]

        assert [it.status for it in answers] == [200] * 6
        assert [it.body == b"shown" for it in answers] == [False, True, False, False, True, False]
        assert len(upstream.requests) == 3
        assert [it.end.value for it in proxy.outcomes] == ["completed"] * 3


async def test_a_page_behind_a_call_gets_all_of_a_body_of_which_too_much_was_kept() -> None:
    size, go_on = 400_000, asyncio.Event()
    asked = request("POST", "/counted", f"Content-Length: {size}") + b"x" * size
    async with (
        Upstream([Wait(go_on), *reply(completion("Hello"))]) as upstream,
        ProxyWithPages(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post() + asked)
        await upstream.received()
        (connection,) = proxy.server.edges[0].connections
        assert isinstance(connection, Connection)
        await until(lambda: connection._reading_paused)
        go_on.set()

        assert (await answer(client)).status == 200
        assert (await answer(client)).body == str(size).encode()


@pytest.mark.parametrize("cut", range(1, len(SHOWN), 7))
async def test_a_page_may_be_asked_for_in_pieces(cut: int) -> None:
    async with ProxyWithPages(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        client.send(SHOWN[:cut])
        await asyncio.sleep(0)
        client.send(SHOWN[cut:] + request("GET", "/livez"))

        assert (await answer(client)).body == b"shown"
        assert (await answer(client)).status == 200


async def test_a_body_in_pieces_and_a_stream_pass_on_a_connection_that_was_lent() -> None:
    events = sse(chat_chunk("Hello"))
    async with (
        Upstream(stream(chat_chunk("Hello"))) as upstream,
        ProxyWithPages(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        whole = SHOWN + post(STREAM)
        client.send(whole[:-20])
        assert (await answer(client)).body == b"shown"
        client.send(whole[-20:])

        assert (await head(client)).status == 200
        assert await chunks(client) == (events, True)


@pytest.mark.parametrize(
    "bad",
    [
        SHOWN.replace(b"\r\n\r\n", b"\r\nHost: localhost\r\n\r\n"),
        SHOWN.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
        SHOWN.replace(b"Host:", b"Host :"),
        SHOWN.replace(b"localhost", b"evil.example"),
    ],
    ids=["two hosts", "chunked in HTTP/1.0", "space before the colon", "another host"],
)
@pytest.mark.parametrize("first", [b"", SHOWN], ids=["first", "after a page"])
async def test_a_page_is_shown_to_no_request_that_the_wire_would_refuse(bad: bytes, first: bytes) -> None:
    async with ProxyWithPages(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        if first:
            assert (await ask(client, first)).body == b"shown"

        got = await ask(client, bad)

        assert 400 <= got.status < 500
        assert got["connection"] == "close"
        assert await client.rest() == b""


async def test_a_connection_that_was_lent_counts_and_is_drained() -> None:
    async with ProxyWithPages(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        assert (await ask(client, SHOWN)).body == b"shown"
        assert len(proxy.server.edges[0].connections) == 1

        await proxy.server.stop()

        assert await client.rest() == b""
        assert not proxy.server.edges[0].connections


async def test_a_connection_is_lent_under_tls_too(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True, timeout=60)  # noqa: ASYNC221 - before anything runs
    context = ssl.create_default_context(cafile=str(certificate))
    async with Upstream(reply(completion("Hello"))) as upstream:
        mapping = with_server(openai_at(upstream.base_url), tls_certificate=str(certificate), tls_key=str(key))
        async with ProxyWithPages(mapping) as proxy:
            streams = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname="localhost")
            client = Client(*streams)
            client.send(post(HELLO) + SHOWN + post(HELLO))

            answers = [await answer(client) for _ in range(3)]

            assert [it.status for it in answers] == [200] * 3
            assert answers[1].body == b"shown"
            await client.close()


def test_without_the_c_parser_no_page_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)

    with pytest.raises(ConfigError, match="without its C parser"):
        require_c_parser()


async def test_without_pages_nothing_is_lent() -> None:
    async with Proxy(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        assert proxy.server.edges[0].pages is None
        assert (await ask(client, SHOWN)).status == 404


async def test_a_page_that_fails_is_a_500_and_the_connection_goes_on() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        raise web.HTTPNotFound

    class Broken(Proxy):
        pages = (Page("/broken", broken),)

    async with Broken(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        assert (await ask(client, request("GET", "/broken"))).status == 404
        assert (await ask(client, request("GET", "/livez"))).status == 200


async def echo(request: web.Request) -> web.StreamResponse:
    return web.Response(body=await request.read())


async def talk(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str(await socket.receive_str())
    return socket


class ProxyWithForms(Proxy):
    pages: Sequence[Page] = (Page("/echo", echo), Page("/talk", talk), PAGE)  # type: ignore[misc] # of this class alone


CHUNKED = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "asked",
    [
        request("POST", "/echo", "Content-Length: 5") + b"Hello",
        CHUNKED + b"2;a=b\r\nHe\r\n3\r\nllo\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
    ],
    ids=["sized", "in chunks"],
)
async def test_a_page_gets_the_body_of_its_request_however_it_is_cut(asked: bytes) -> None:
    whole = asked + request("GET", "/livez")
    async with ProxyWithForms(openai_at(NOWHERE)) as proxy:
        for cut in range(1, len(whole)):
            async with connected(proxy.port) as client:
                client.send(whole[:cut])
                await asyncio.sleep(0)
                client.send(whole[cut:])

                assert (await answer(client)).body == b"Hello"
                assert (await answer(client)).status == 200


async def test_a_page_gets_no_chunks_that_the_wire_would_refuse() -> None:
    async with ProxyWithForms(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        client.send(CHUNKED + b"5;" + b"x" * 300_000 + b"\r\nHello\r\n0\r\n\r\n")

        got = await answer(client)
        assert (got.status, got.code, got["connection"]) == (400, "malformed_body", "close")
        assert await client.rest() == b""


async def test_a_page_that_does_not_read_the_body_of_its_request_ends_the_connection() -> None:
    async with ProxyWithForms(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        client.send(request("POST", PATH, "Content-Length: 5") + b"Hell")

        assert (await answer(client)).body == b"shown"
        assert await client.rest() == b""


async def test_a_client_that_wants_the_connection_closed_behind_a_page_has_it_closed() -> None:
    async with ProxyWithForms(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        client.send(request("GET", PATH, "Connection: close") + SHOWN)

        assert (await answer(client)).body == b"shown"
        assert await client.rest() == b""


async def test_a_page_may_make_a_websocket_of_its_connection() -> None:
    async with (
        ProxyWithForms(openai_at(NOWHERE)) as proxy,
        ClientSession() as session,
        session.ws_connect(f"{proxy.url}/talk") as socket,
    ):
        await socket.send_str("Hello")

        assert await socket.receive_str() == "Hello"
        assert (await socket.receive()).type is WSMsgType.CLOSE


async def test_a_page_that_has_a_bug_is_a_500_and_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        raise ValueError("a bug")

    class Broken(Proxy):
        pages = (Page("/broken", broken),)

    async with Broken(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        client.send(request("GET", "/broken") + request("GET", "/livez"))

        got = await answer(client)
        assert (got.status, got.code, got["connection"]) == (500, "internal_error", "close")
        assert await client.rest() == b""
    assert 'raise ValueError("a bug")' in caplog.text
