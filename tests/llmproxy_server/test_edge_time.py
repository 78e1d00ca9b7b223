"""Clients that take their time: heads, bodies, idle connections. Time-outs are of 50-200 ms here."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.llmproxy_server.edging import HELLO, answer, ask, many, post, request
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import Client, connected
from tests.upstream import Upstream, Wait, completion, reply

pytestmark = pytest.mark.usefixtures("both_ways")

NOWHERE = "http://127.0.0.1:9/v1"
PLAIN = reply(completion("Hello"))
CHAT = "/v1/chat/completions"


def slow(**keys: object) -> dict[str, object]:
    return with_server(openai_at(NOWHERE), **keys)


async def drip(client: Client, data: bytes, every_s: float = 0.02) -> None:
    """Send *data* byte by byte until it is sent or the connection ends."""
    for place in range(len(data)):
        if client.writer.is_closing() or client.reader.at_eof():
            return
        client.send(data[place : place + 1])
        await asyncio.sleep(every_s)


@asynccontextmanager
async def dripping(client: Client, data: bytes) -> AsyncIterator[None]:
    """Send *data* byte by byte as long as the block lasts; the proxy may end the connection before."""
    sending = asyncio.get_running_loop().create_task(drip(client, data))
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.wait([sending])


async def test_a_head_that_comes_too_slowly_is_cut() -> None:
    async with Proxy(slow(header_timeout_s=0.15)) as proxy, connected(proxy.port) as client:
        async with dripping(client, request("GET", "/livez", "X-Long: " + "x" * 500)):
            got = await answer(client)

        assert (got.status, got.code, got["connection"]) == (408, "request_timeout", "close")
        assert len(got["x-request-id"]) == 32


@pytest.mark.wire
async def test_a_connection_on_which_nothing_comes_is_closed_without_a_word() -> None:
    async with Proxy(slow(header_timeout_s=0.1)) as proxy, connected(proxy.port) as client:
        assert await client.rest() == b""


async def test_many_slow_heads_do_not_disturb_the_others() -> None:
    async with (
        Proxy(slow(header_timeout_s=0.3)) as proxy,
        many(proxy.port, 40) as clients,
        connected(proxy.port) as other,
    ):
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nX-")

        assert (await ask(other, request("GET", "/livez"))).status == 200
        for client in clients:
            assert (await answer(client)).status == 408


async def test_an_idle_connection_is_closed() -> None:
    async with Proxy(slow(idle_timeout_s=0.1)) as proxy, connected(proxy.port) as client:
        assert (await ask(client, request("GET", "/livez"))).status == 200
        assert await client.rest() == b""


@pytest.mark.wire
async def test_an_empty_line_behind_a_request_is_not_the_beginning_of_the_next() -> None:
    """Some clients end a body with it (RFC 9112 section 2.2), and keep the connection for later."""
    async with Proxy(slow(header_timeout_s=1, idle_timeout_s=30)) as proxy, connected(proxy.port) as client:
        client.send(request("GET", "/livez") + b"\r\n")
        assert (await answer(client)).status == 200
        look_late(proxy, by_s=20)

        assert (await ask(client, request("GET", "/livez"))).status == 200
        look_late(proxy, by_s=40)
        assert await client.rest() == b""


def look_late(proxy: Proxy, *, by_s: float = 1000) -> None:
    """As if the process had been held up: the time is looked at long after, and before anything is read."""
    now = asyncio.get_running_loop().time() + by_s
    for edge in proxy.server.edges:
        for connection in list(edge.connections):
            connection.tick(now)


async def test_a_request_that_came_in_time_is_read_though_we_are_late() -> None:
    async with Proxy(slow()) as proxy, connected(proxy.port) as client:
        assert (await ask(client, request("GET", "/livez"))).status == 200
        client.send(request("GET", "/livez"))
        look_late(proxy)
        assert (await answer(client)).status == 200

        look_late(proxy)
        assert await client.rest() == b""


@pytest.mark.wire
async def test_a_first_request_that_came_in_time_is_read_though_we_are_late() -> None:
    async with Proxy(slow()) as proxy, connected(proxy.port) as client, connected(proxy.port) as other:
        assert (await ask(other, request("GET", "/livez"))).status == 200  # so both are accepted
        client.send(request("GET", "/livez"))
        look_late(proxy)
        assert (await answer(client)).status == 200


async def test_the_head_of_the_next_request_has_its_time_from_its_first_byte() -> None:
    async with Proxy(slow(header_timeout_s=0.1, idle_timeout_s=30)) as proxy, connected(proxy.port) as client:
        assert (await ask(client, request("GET", "/livez"))).status == 200
        await asyncio.sleep(0.25)  # idle longer than a head may take
        client.send(b"GET /live")
        assert (await answer(client)).status == 408


async def test_a_body_that_stops_is_cut() -> None:
    async with Proxy(slow(body_timeout_s=0.1)) as proxy, connected(proxy.port) as client:
        client.send(post()[:-5])

        got = await answer(client)

        assert (got.status, got.code, got["connection"]) == (408, "request_timeout", "close")
        assert await client.rest() == b""
        assert proxy.server.admission.in_flight == 0


async def test_a_body_that_drips_is_cut() -> None:
    async with Proxy(slow(body_timeout_s=0.2, body_min_bytes_per_s=1000)) as proxy, connected(proxy.port) as client:
        client.send(request("POST", CHAT, "Content-Type: application/json", "Content-Length: 1000"))
        async with dripping(client, b"x" * 1000):
            assert (await answer(client)).status == 408


async def test_a_long_body_that_keeps_up_may_take_longer_than_the_timeout() -> None:
    async with Upstream(PLAIN) as upstream:
        mapping = with_server(openai_at(upstream.base_url), body_timeout_s=0.3, body_min_bytes_per_s=1000)
        async with Proxy(mapping) as proxy, connected(proxy.port) as client:
            data = json.dumps(HELLO).encode().ljust(5000)
            client.send(request("POST", CHAT, "Content-Type: application/json", "Content-Length: 5000"))
            for place in range(0, 5000, 500):
                client.send(data[place : place + 500])
                await asyncio.sleep(0.06)

            assert (await answer(client)).status == 200


async def test_a_client_that_waits_for_its_answer_is_not_idle() -> None:
    go_on = asyncio.Event()

    async with Upstream([Wait(go_on), *PLAIN]) as upstream:
        mapping = with_server(
            openai_at(upstream.base_url), idle_timeout_s=0.05, header_timeout_s=0.05, body_timeout_s=0.05
        )
        async with Proxy(mapping) as proxy, connected(proxy.port) as client:
            client.send(post())
            await upstream.received()
            await asyncio.sleep(0.2)
            go_on.set()

            assert (await answer(client)).status == 200
