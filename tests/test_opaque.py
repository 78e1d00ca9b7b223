"""What the dialect does not know is forwarded where a route lists `opaque`: both ways in a stream, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from llmproxy_core import End as Ending
from llmproxy_core import Exchange, Handler, Response
from tests.exact import ask, post
from tests.llmproxy_server.edging import Processing, answer, processed, request
from tests.proxy import SECRET, Proxy, openai_at
from tests.rawclient import Client, connected
from tests.upstream import Body, Chunk, Cut, End, Flood, Framing, Head, Raw, Step, Upstream, Wait, completion, reply

OPAQUE = {"operations": ["chat", "models", "opaque"], "encoded_slash": True}
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
WAIT_S = 20


@asynccontextmanager
async def opaque(*script: Step, early: bool = False) -> AsyncIterator[tuple[Upstream, Proxy]]:
    """An upstream that plays *script*, behind a proxy whose route lists opaque."""
    upstream = Upstream(script, early=early, send_buffer_bytes=65_536, timeout_s=WAIT_S)
    async with upstream, Proxy(openai_at(upstream.base_url, route=OPAQUE, token_env="KEY")) as proxy:
        yield upstream, proxy


# -- what passes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "POST", "PUT", "PATCH"])
async def test_every_method_passes_with_its_query_and_body(method: str) -> None:
    body = b"\x00body" if method in ("POST", "PUT", "PATCH") else b""
    async with opaque(*reply(b"done", 200, {"content-type": "text/plain"})) as (upstream, proxy):
        seen = await ask(method, f"{proxy.url}/v1/files/x?a=b%20c&d&a=%2F", body)

        assert (seen.status, seen.body, seen.header("content-type")) == (200, b"done", "text/plain")
        (sent,) = upstream.requests
        assert (sent.method, sent.target, sent.body) == (method, "/v1/files/x?a=b%20c&d&a=%2F", body)
        assert (await proxy.outcome()).end is Ending.COMPLETED


@pytest.mark.parametrize("status", [200, 201, 302, 400, 404, 409, 413, 418, 422, 429, 500, 503, 529])
async def test_every_status_passes_with_its_body(status: int) -> None:
    body = b'{"anything": "at all"}'
    async with opaque(*reply(body, status, {"content-type": "application/x", "retry-after": "7"})) as (_, proxy):
        seen = await ask("GET", f"{proxy.url}/v1/files")

    assert (seen.status, seen.body, seen.whole) == (status, body, True)
    assert (seen.header("content-type"), seen.header("retry-after")) == ("application/x", "7")


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_our_own_key_is_no_affair_of_the_callers_here_either(status: int) -> None:
    async with opaque(*reply({"error": {"message": f"bad key {SECRET}"}}, status)) as (_, proxy):
        seen = await ask("GET", f"{proxy.url}/v1/files")

    assert seen.status == 502
    assert json.loads(seen.body)["error"]["code"] == "upstream_auth"
    assert SECRET.encode() not in seen.body


@pytest.mark.parametrize("status", [200, 404])
async def test_an_answer_to_head_does_not_claim_another_length_than_that_of_get(status: int) -> None:
    head = b"HTTP/1.1 %d X\r\nContent-Type: text/plain\r\nContent-Length: 50\r\n\r\n" % status
    async with opaque(Raw(head)) as (_, proxy), connected(proxy.port) as client:
        for _ in range(2):
            client.send(request("HEAD", "/v1/files/x"))
            found = await answer(client, method="HEAD")

            assert found.status == status
            assert "content-length" not in found


async def test_an_upload_of_several_parts_passes_as_it_is() -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\xff\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x"
    async with opaque(*reply({"text": "hello"})) as (upstream, proxy):
        url = f"{proxy.url}/v1/audio/transcriptions"
        seen = await ask("POST", url, form, [("content-type", kind), ("authorization", "Bearer the caller's")])

        assert json.loads(seen.body) == {"text": "hello"}
        assert upstream.requests[0].body == form
        assert upstream.requests[0].header("content-type") == kind
        assert upstream.requests[0].header("authorization") == f"Bearer {SECRET}"


async def test_what_changes_nothing_is_sent_again_where_a_kept_connection_was_closed_without_a_word() -> None:
    async with opaque(*reply({"text": "hello"})) as (upstream, proxy):
        upstream.then(reply({}), [Cut()])
        for _ in range(2):
            seen = await ask("GET", f"{proxy.url}/v1/files")
            assert seen.status == 200

        assert len(upstream.requests) == 3


@pytest.mark.parametrize(("method", "body"), [("POST", b"\x00body"), ("POST", b""), ("DELETE", b""), ("PATCH", b"{}")])
async def test_what_may_have_been_done_is_not_sent_again(method: str, body: bytes) -> None:
    async with opaque(*reply({})) as (upstream, proxy):
        upstream.then(reply({}), [Cut()])
        await ask("GET", f"{proxy.url}/v1/files")
        seen = await ask(method, f"{proxy.url}/v1/files/x/cancel", body)

        assert (seen.status, json.loads(seen.body)["error"]["code"]) == (502, "upstream_cut")
        assert [sent.method for sent in upstream.requests] == ["GET", method]


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 529])
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_an_error_that_quotes_our_key_passes_without_it(status: int, kind: str) -> None:
    quoting = b'{"error": {"message": "bad: authorization: Bearer %b"}}' % SECRET.encode()
    async with opaque(*reply(quoting, status, {"content-type": kind, "etag": '"1"'})) as (_, proxy):
        seen = await ask("GET", f"{proxy.url}/v1/files")
        outcome = await proxy.outcome()

    assert (seen.status, seen.header("content-type"), seen.header("etag")) == (status, kind, '"1"')
    assert seen.body == quoting.replace(SECRET.encode(), b"***")
    assert outcome.end is Ending.FAILED


async def test_an_error_in_which_no_key_can_be_found_is_told_in_our_words() -> None:
    packed = gzip.compress(b'{"error": {"message": "Bearer %b"}}' % SECRET.encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip", "etag": '"1"', "retry-after": "7"}
    async with opaque(*reply(packed, 503, headers)) as (_, proxy):
        seen = await ask("GET", f"{proxy.url}/v1/files")

    assert (seen.status, seen.header("retry-after")) == (503, "7")
    assert (seen.header("content-encoding"), seen.header("etag")) == (None, None)
    assert json.loads(seen.body)["error"]["message"]


async def test_failures_open_the_breaker_and_a_wait_that_was_asked_for_is_kept() -> None:
    async with Upstream(reply({}, 500)) as upstream:
        mapping = openai_at(upstream.base_url, route=OPAQUE, breaker={"window_s": 60})
        async with Proxy(mapping) as proxy:
            codes = [(await ask("GET", f"{proxy.url}/v1/files")).status for _ in range(30)]

        assert codes[0] == 500
        assert codes[-1] == 503
        assert len(upstream.requests) < 30


# -- without buffering -----------------------------------------------------------------------------------------------


async def test_the_upstream_gets_the_beginning_of_an_upload_before_its_end_is_sent() -> None:
    begun = asyncio.Event()
    script: list[Step] = [
        Body(5),
        Head(200, {"content-type": "text/plain"}),
        Chunk(b"first"),
        Wait(begun),
        Body(),
        End(),
    ]
    async with opaque(*script, early=True) as (upstream, proxy), connected(proxy.port) as client:
        client.send(request("POST", "/v1/audio", "Content-Length: 10") + b"12345")
        await client.until(b"first")

        begun.set()
        client.send(b"67890")
        await client.until(b"0\r\n\r\n")

        assert upstream.requests[0].body == b"1234567890"


async def test_an_upload_is_held_back_by_an_upstream_that_does_not_read() -> None:
    """64 MiB are offered; what is taken is what the kernel's buffers hold, and the proxy holds next to nothing."""
    piece, count = b"x" * 65_536, 1024
    read_on = asyncio.Event()
    total = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal total
        await reader.readuntil(b"\r\n\r\n")
        await read_on.wait()
        while (size := int(await reader.readuntil(b"\r\n"), 16)) > 0:
            total += len(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        Proxy(openai_at(f"http://127.0.0.1:{port}/v1", route=OPAQUE)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(request("POST", "/v1/files", f"Content-Length: {len(piece) * count}"))
        sent = await _push(client, piece, count)

        assert sent < 48 * 1024 * 1024
        assert proxy.server.admission.buffered_bytes == 0
        read_on.set()
        for _ in range(sent // len(piece), count):
            client.writer.write(piece)
            await asyncio.wait_for(client.writer.drain(), WAIT_S)
        await client.until(b"ok")
    assert total == len(piece) * count


async def _push(client: Client, piece: bytes, count: int) -> int:
    """Send *piece* up to *count* times, until nothing more is taken; how many bytes were."""
    client.writer.transport.set_write_buffer_limits(high=0)
    for number in range(count):
        client.writer.write(piece)
        try:
            await asyncio.wait_for(client.writer.drain(), 0.5)
        except TimeoutError:
            return (number + 1) * len(piece)
    return count * len(piece)


async def test_a_download_is_held_back_by_a_client_that_does_not_read() -> None:
    piece, count = b"y" * 65_536, 1024
    script: list[Step] = [Head(200, {"content-type": "audio/mpeg"}), Flood(piece, count), End()]
    async with opaque(*script) as (upstream, proxy), connected(proxy.port, read_buffer_bytes=16_384) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(request("GET", "/v1/files/1/content"))
        received = await upstream.received()
        await received.held_back(0.2)

        assert received.bytes_sent < 32 * 1024 * 1024
        (connection,) = proxy.server.edges[0].connections
        assert connection.socket is not None
        assert connection.socket.get_write_buffer_size() < 400_000
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        body = 0
        while (size := int(await client.until(b"\r\n") if body else await _first_size(client), 16)) > 0:
            body += len(await client.exactly(size + 2)) - 2
        assert body == len(piece) * count


async def _first_size(client: Client) -> bytes:
    await client.until(b"\r\n\r\n")
    return await client.until(b"\r\n")


@pytest.mark.parametrize("framing", ["chunked", 100])
async def test_an_answer_that_is_cut_does_not_look_complete(framing: Framing) -> None:
    script: list[Step] = [Head(200, {"content-type": "audio/mpeg"}, framing), Chunk(b"half"), Cut()]
    async with opaque(*script) as (_, proxy):
        seen = await ask("GET", f"{proxy.url}/v1/files/1/content")

        assert (seen.status, seen.body, seen.whole) == (200, b"half", False)
        assert (await proxy.outcome()).end is Ending.FAILED


# -- what does not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/v1/v1", "/v1/v1/", "/v1/v1/chat/completions", "/v1/v1/models", "/v1/v1/files"],
)
async def test_a_doubled_version_is_not_forwarded_but_says_so(path: str) -> None:
    async with opaque(*reply(b"{}")) as (upstream, proxy):
        seen = await post(proxy.url + path, CHAT)

        assert seen.status == 404
        assert "/v1 twice" in json.loads(seen.body)["error"]["message"]
        assert not upstream.requests


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "/v1/Chat/Completions",
        "/v1/%63hat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/chat%2F%2Fcompletions",
        "/v1/completion%53",
    ],
)
async def test_no_spelling_brings_a_served_operation_past_its_processors(path: str) -> None:
    """Servers may read these as the operation itself; forwarded as opaque, no policy would see them."""
    async with opaque(*reply(completion("hi"))) as (upstream, proxy):
        seen = await post(proxy.url + path, CHAT)

        assert seen.status == 400
        assert json.loads(seen.body)["error"]["code"] == "ambiguous_path"
        assert not upstream.requests


async def test_an_operation_that_the_route_does_not_serve_is_opaque_in_any_spelling() -> None:
    async with opaque(*reply(b"{}")) as (upstream, proxy):
        for path in ("/v1/embeddings", "/v1/embeddings/", "/v1/Embeddings"):
            assert (await post(proxy.url + path, b"{}")).status == 200

        assert [each.target for each in upstream.requests] == ["/v1/embeddings", "/v1/embeddings/", "/v1/Embeddings"]


Subscribe = Callable[[Response], object]


@pytest.mark.parametrize(
    "subscribe",
    [
        pytest.param(lambda response: response.watch(lambda channel: None), id="watch"),
        pytest.param(lambda response: response.rewrite(lambda channel: None), id="rewrite"),
        pytest.param(lambda response: response.replace(lambda events: events), id="replace"),
    ],
)
async def test_a_guard_of_text_does_not_let_an_opaque_answer_pass_unseen(subscribe: Subscribe) -> None:
    async def guard(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        subscribe(response)
        return response

    async with (
        Upstream(reply(b"secret")) as upstream,
        Proxy(processed(openai_at(upstream.base_url, route=OPAQUE)), plugins=[Processing(guard)]) as proxy,
    ):
        seen = await ask("GET", f"{proxy.url}/v1/files")

        assert seen.status == 500
        assert b"secret" not in seen.body
        assert (await proxy.outcome()).end is Ending.FAILED
