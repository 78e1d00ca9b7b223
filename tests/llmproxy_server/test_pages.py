"""Connections that a page was asked for on: aiohttp has them from then on, and no request on them is lost."""

import asyncio
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiohttp import http_parser, web

from llmproxy_core.errors import ConfigError
from llmproxy_server.pages.server import Page, require_c_parser
from tests.llmproxy_server.edging import HELLO, STREAM, answer, ask, chunks, head, post, request
from tests.page_first import PAGE, PATH
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import Client, connected
from tests.upstream import Upstream, chat_chunk, completion, reply, sse, stream

SHOWN = request("GET", PATH)
NOWHERE = "http://127.0.0.1:9/v1"


class ProxyWithPages(Proxy):
    pages: Sequence[Page] = (PAGE,)  # type: ignore[misc] # of this class alone


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


@pytest.mark.parametrize("cut", range(1, len(SHOWN), 7))
async def test_a_page_may_be_asked_for_in_pieces(cut: int) -> None:
    async with ProxyWithPages(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        client.send(SHOWN[:cut])
        await asyncio.sleep(0)
        client.send(SHOWN[cut:] + request("GET", "/livez"))

        assert (await answer(client)).body == b"shown"
        assert (await answer(client)).status == 200


async def test_a_body_in_pieces_and_a_stream_pass_on_a_connection_that_was_handed_over() -> None:
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
@pytest.mark.parametrize("first", [b"", SHOWN], ids=["first", "handed over"])
async def test_a_page_is_shown_to_no_request_that_the_wire_would_refuse(bad: bytes, first: bytes) -> None:
    async with ProxyWithPages(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        if first:
            assert (await ask(client, first)).body == b"shown"

        got = await ask(client, bad)

        assert 400 <= got.status < 500
        assert got["connection"] == "close"
        assert await client.rest() == b""


async def test_a_connection_that_was_handed_over_counts_and_is_drained() -> None:
    async with ProxyWithPages(openai_at(NOWHERE)) as proxy, connected(proxy.port) as client:
        assert (await ask(client, SHOWN)).body == b"shown"
        assert len(proxy.server.edges[0].connections) == 1

        await proxy.server.stop()

        assert await client.rest() == b""
        assert not proxy.server.edges[0].connections


async def test_a_connection_is_handed_over_under_tls_too(tmp_path: Path) -> None:
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


async def test_without_pages_nothing_is_handed_over() -> None:
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
