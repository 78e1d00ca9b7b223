"""Connections that come at once are taken at once, also by a loop that is busy."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Iterator

import pytest
import uvloop

from llmproxy_server.listener import AT_ONCE
from llmproxy_server.log_events import warm_up
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, openai_at, with_server

NOWHERE = openai_at("http://127.0.0.1:9/v1")
MANY = 2 * AT_ONCE


async def turns(proxy: Proxy, clients: int) -> int:
    """How often the loop turns until it has the connections of so many *clients*, who all came while it was busy."""
    connections = proxy.server.edges[0].connections
    before, turned = len(connections), 0
    waiting = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(clients)]
    try:
        async with asyncio.timeout(10):
            while len(connections) < before + clients:
                await asyncio.sleep(0)
                turned += 1
    finally:
        for client in waiting:
            client.close()
    return turned


@pytest.mark.parametrize("most", [0, 1000], ids=["without a bound", "bounded"])
async def test_clients_that_come_at_once_do_not_wait_for_a_turn_of_the_loop_each(most: int) -> None:
    async with Proxy(with_server(NOWHERE, max_connections=most)) as proxy:
        assert await turns(proxy, MANY) < MANY / 2


async def test_no_more_are_taken_at_once_than_there_is_room_for() -> None:
    async with Proxy(with_server(NOWHERE, max_connections=3)) as proxy:
        connections = proxy.server.edges[0].connections
        waiting = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(5)]
        await until(lambda: len(connections) == 3)
        held = set(connections)
        for _ in range(20):
            await asyncio.sleep(0)
        assert set(connections) == held

        for client in waiting[:3]:
            client.close()
        await until(lambda: len(connections - held) == 2)
        for client in waiting[3:]:
            client.close()


@pytest.fixture
def one_descriptor_left() -> Iterator[Callable[[], None]]:
    """Called, it leaves the process one more descriptor than it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def leave_one() -> None:
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, before[1]))

    yield leave_one
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("most", [0, 1000], ids=["without a bound", "bounded"])
def test_running_out_of_descriptors_is_said_once(
    most: int, one_descriptor_left: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def run_out() -> None:
        async with Proxy(with_server(NOWHERE, max_connections=most)) as proxy:
            connections = proxy.server.edges[0].connections
            waiting = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(3)]
            one_descriptor_left()
            await until(lambda: len(connections) == 1)
            await until(lambda: "could not be accepted" in caplog.text)
            for client in waiting:  # each leaves room for another, for a moment
                client.close()
                await until(lambda: not connections)

    warm_up()  # as `serve` does: a module could not be read any more
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # asyncio's own says it itself, a thousand times
        runner.run(run_out())

    assert caplog.text.count("a connection could not be accepted") == 1
