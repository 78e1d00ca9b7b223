"""Clients that send many requests at once, and perhaps leave."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from llmproxy_server.call import Call
from llmproxy_server.edge import Edge
from llmproxy_server.wire.connection import MOST_KEPT_BYTES, Connection
from llmproxy_server.wire.request_body import Arrived
from tests.llmproxy_server.edging import HELLO, answer, ask, post, request
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.upstream import Upstream, completion, reply

pytestmark = [pytest.mark.usefixtures("both_ways"), pytest.mark.wire]

PING = request("GET", "/livez")
ONE_READ_BYTES = 1 << 18  # of uvloop
NOBODY = "http://127.0.0.1:9/v1"


class Silent:
    """A client of which nothing is known but what it was written."""

    pushes = True
    blocked = False
    unsent_bytes = 0

    def __init__(self) -> None:
        self.written = b""
        self.told = 0

    def write(self, data: bytes, more: bytes = b"", /) -> None:
        self.written += data + more

    def pass_on(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None: ...

    def abort(self) -> None: ...

    def over(self) -> None:
        self.told += 1


def begun(edge: Edge, client: Silent) -> Call:
    """A call whose task has not taken its first step."""
    head, _, body = post().partition(b"\r\n\r\n")
    return edge.admit(edge.heads.read(head), Arrived(body), client)


async def test_of_what_is_sent_ahead_a_little_is_kept_however_much_is_answered() -> None:
    count = 60_000
    async with Proxy(openai_at(NOBODY)) as proxy, connected(proxy.port) as client:
        await ask(client, PING)
        (connection,) = proxy.server.edges[0].connections
        assert isinstance(connection, Connection)
        client.send(PING * count)
        kept = 0
        for _ in range(count):
            assert (await answer(client)).status == 200
            kept = max(kept, len(connection._rest))

    assert count * len(PING) > 6 * ONE_READ_BYTES
    assert kept <= MOST_KEPT_BYTES + ONE_READ_BYTES


async def test_behind_many_requests_a_long_body_comes_through() -> None:
    long = {**HELLO, "user": "x" * 3_000_000}
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(PING * 5_000 + post(long) + PING * 5_000 + post(long))
        statuses = [(await answer(client)).status for _ in range(10_002)]

        assert statuses == [200] * 10_002
        assert [len(it.body) for it in upstream.requests] == [len(post(long).partition(b"\r\n\r\n")[2])] * 2


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_no_call_stays_of_a_client_that_leaves_while_its_next_one_begins(reset: bool) -> None:
    async with Proxy(openai_at(NOBODY)) as proxy, connected(proxy.port) as other:
        edge = proxy.server.edges[0]
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", proxy.port)) as leaving:
                if reset:
                    leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                leaving.sendall(PING * 3)
            await ask(other, PING)
        await until(lambda: len(edge.connections) == 1)

        assert not edge.calls


async def test_a_call_that_is_left_before_its_first_step_is_over_at_once() -> None:
    async with Proxy(openai_at(NOBODY)) as proxy:
        edge, client = proxy.server.edges[0], Silent()

        call = begun(edge, client)
        call.leave()
        told = client.told
        edge.over(call)
        await asyncio.sleep(0)

        assert (told, client.told, client.written) == (1, 1, b"")


async def test_a_call_that_is_stopped_before_its_first_step_is_told_so() -> None:
    async with Proxy(openai_at(NOBODY)) as proxy:
        edge, client = proxy.server.edges[0], Silent()

        call = begun(edge, client)
        call.stop()
        await until(lambda: client.told == 1)
        edge.over(call)

        assert client.written.startswith(b"HTTP/1.1 503 ")
        assert b"shutting down" in client.written


async def test_a_call_that_is_stopped_and_left_before_its_first_step_is_over_once() -> None:
    async with Proxy(openai_at(NOBODY)) as proxy:
        edge, client = proxy.server.edges[0], Silent()

        call = begun(edge, client)
        call.stop()
        call.leave()
        edge.over(call)
        await asyncio.sleep(0)

        assert client.told == 1
