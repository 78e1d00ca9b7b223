"""Bytes that are no request, or more than one: refused or cut, never passed on, and never repeated in an answer."""

import asyncio
import logging
from random import Random

import pytest

from tests.llmproxy_server.edging import answer, ask, many, post, request
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import connected
from tests.upstream import Upstream, Wait, completion, reply

pytestmark = pytest.mark.usefixtures("both_ways")

MARK = b"<mark-of-the-sender>"
HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + JSON

MALFORMED = {
    "no method": b" / HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown method": b"B\x00D /" + MARK + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "tls on a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 40 + b"\r\n\r\n",
    "http/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/2 version": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "http/3.1 version": b"GET / HTTP/3.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\n" + HOST.replace(b"\r", b"") + b"\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "folded field": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\r\n 2\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: a\x00" + MARK + b"\r\n\r\n",
    "CR in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: a\rb\r\n\r\n",
    "field without colon": b"GET / HTTP/1.1\r\n" + HOST + MARK + b"\r\n\r\n",
    "empty field name": b"GET / HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    "two lengths": CHAT + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "two equal lengths": CHAT + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "list of lengths": CHAT + b"Content-Length: 2, 2\r\n\r\n{}",
    "negative length": CHAT + b"Content-Length: -2\r\n\r\n{}",
    "signed length": CHAT + b"Content-Length: +2\r\n\r\n{}",
    "hex length": CHAT + b"Content-Length: 0x2\r\n\r\n{}",
    "huge length": CHAT + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "length and chunked": CHAT + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": CHAT + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "chunked twice": CHAT + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two codings": CHAT + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "unknown coding": CHAT + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "gzip coding": CHAT + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "vertical tab coding": CHAT + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunk size not hex": CHAT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "negative chunk size": CHAT + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "huge chunk size": CHAT + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "chunk longer than told": CHAT + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "chunks ended by LF": CHAT + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    "chunked in HTTP/1.0": CHAT.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "connect": b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute target": b"GET http://localhost/v1/models HTTP/1.1\r\n" + HOST + b"\r\n",
    "authority target": b"GET localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "space in the target": b"GET /v1/mod els HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes in the target": b"GET /v1/\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    "long target": b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "long field": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 40_000 + b"\r\n\r\n",
    "long head of short fields": b"GET / HTTP/1.1\r\n" + HOST + (b"X-A: " + b"a" * 900 + b"\r\n") * 50 + b"\r\n",
    "many fields": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\r\n" * 200 + b"\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_malformed_is_refused_and_the_connection_closed(data: bytes) -> None:
    async with (
        Upstream() as upstream,
        Proxy(with_server(openai_at(upstream.base_url), header_timeout_s=1)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(data)
        client.send(request("GET", "/livez"))  # what follows must not be taken for a request

        got = await answer(client)

        assert 400 <= got.status < 600
        assert got.status != 500
        assert got["content-type"] == "application/json"
        assert got.json["error"]["message"]
        assert got["connection"] == "close"
        assert got["x-request-id"]
        assert got["x-content-type-options"] == "nosniff"
        assert MARK not in got.body
        assert await client.rest() == b""
        assert not upstream.requests


async def test_http_0_9_is_told_which_version_is_spoken() -> None:
    async with Proxy(openai_at("http://127.0.0.1:9/v1")) as proxy, connected(proxy.port) as client:
        assert (await ask(client, b"GET /livez\r\n\r\n")).status == 505


async def test_an_endless_head_is_refused_before_it_ends() -> None:
    async with Proxy(openai_at("http://127.0.0.1:9/v1")) as proxy, connected(proxy.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        for _ in range(60):
            client.send(b"X-A: " + b"a" * 900 + b"\r\n")

        got = await answer(client)

        assert (got.status, got.code) == (431, "header_too_large")


async def test_a_flood_of_nonsense_is_logged_in_few_lines_without_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Proxy(openai_at("http://127.0.0.1:9/v1")) as proxy:
        for _ in range(30):
            async with connected(proxy.port) as client:
                assert (await ask(client, MARK + b"\r\n\r\n")).status == 400

    said = [record for record in caplog.records if record.name.startswith(("llmproxy", "aiohttp"))]
    assert 1 <= len(said) < 15
    assert not [record for record in said if record.exc_info]
    assert MARK.decode() not in caplog.text


async def test_an_upgrade_is_ignored() -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        h2c = post({"model": "m", "messages": []}, "/v1/chat/completions", "Connection: Upgrade", "Upgrade: h2c")
        websocket = request("GET", "/livez", "Connection: Upgrade", "Upgrade: websocket")

        assert (await ask(client, h2c)).status == 200
        assert (await ask(client, websocket)).status == 200
        assert (await ask(client, request("GET", "/livez"))).status == 200


async def test_nonsense_after_a_request_does_not_spoil_its_answer() -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *reply(completion("Hello"))]) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post())
        await upstream.received()
        client.send(MARK + b"\r\n\r\n")
        go_on.set()

        assert (await answer(client)).status == 200
        assert (await answer(client)).status == 400
        assert await client.rest() == b""
        assert len(upstream.requests) == 1


def changed(whole: bytes, random: Random) -> bytes:
    """*whole* with a few bytes put in, left out or replaced."""
    data = bytearray(whole)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(data))
        new = random.choice([b"", b"\r", b"\n", b"\x00", b" ", b":", b"\xff", random.randbytes(3)])
        data[place : place + random.choice([0, 1, 1, 5])] = new
    return bytes(data)


async def test_random_changes_of_a_request_break_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """300 of them, the same each time; the time-outs end those that became half a request."""
    random = Random(7)
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    whole = post(chat, "/v1/chat/completions", "Connection: close")
    # A busy machine may take longer than 0.1 s to look at what has come on a new connection.
    soon = {"header_timeout_s": 0.5, "body_timeout_s": 0.1, "idle_timeout_s": 0.5}
    answered = 0
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), **soon)) as proxy,
    ):
        for _ in range(5):
            async with many(proxy.port, 60) as clients:
                for client in clients:
                    client.send(changed(whole, random))
                for raw in await asyncio.gather(*(client.rest() for client in clients), return_exceptions=True):
                    assert isinstance(raw, bytes | ConnectionResetError), raw
                    answered += isinstance(raw, bytes) and raw.startswith(b"HTTP/1.1 ")
        assert proxy.server.admission.in_flight == proxy.server.admission.buffered_bytes == 0

    assert answered > 290  # a few were never a whole request
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
