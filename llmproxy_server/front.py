"""All that faces the clients: an edge behind each address, and what they do together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from llmproxy_core.config import ServerConfig
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.exchange import Clock
from llmproxy_core.tasks import Tasks
from llmproxy_server.edge import Edge
from llmproxy_server.generation import Generation
from llmproxy_server.listener import Listener, listen

if TYPE_CHECKING:
    from llmproxy_server.pages.server import Page

HOST, OWN_ENDPOINTS = "server.host", "server.own_endpoints"
_TURNS = 10
"""Turns of the loop that it takes at most to accept a connection, read a request, and begin a call."""
_TAKE_S = 0.1
"""How long a process that was told to stop takes what comes, if it does not cease."""


@attrs.frozen
class Address:
    """Where to listen, and the key that says so. *own_only*: the proxy's own endpoints, and no routes."""

    key: str
    host: str
    port: int
    own_only: bool = False


def addresses(server: ServerConfig) -> Iterator[Address]:
    """That of the routes first."""
    yield Address(HOST, server.host, server.port)
    if isinstance(server.own_endpoints, str):
        host, _, port = server.own_endpoints.rpartition(":")
        yield Address(OWN_ENDPOINTS, host, int(port), own_only=True)


def bound_host(listening: socket.socket) -> str:
    """The address that *listening* is bound to."""
    host: str = listening.getsockname()[0]
    return host


class Front:
    """The listeners and edges of a process: the same, whatever it serves."""

    def __init__(
        self, tasks: Tasks, handed_down: Mapping[str, Sequence[socket.socket] | None], pages: Sequence[Page] = ()
    ) -> None:
        """*handed_down*: bound sockets by the key of their address, to be used instead of binding it."""
        self.edges: list[Edge] = []
        self.listeners: list[Listener] = []
        self._tasks = tasks
        self._handed_down = handed_down
        self._pages = pages

    async def open(self, generation: Generation) -> None:
        """Listen at all addresses, and lead to *generation*. ConfigError when one cannot be had."""
        server = generation.config.server
        for address, door in zip(addresses(server), generation.doors, strict=True):
            tls = None if address.own_only else generation.certificate.context
            listener = Listener(self._sockets(address), tls)
            self.listeners.append(listener)
            self.edges.append(Edge(door, closed=listener.closed))
            if self._pages:
                await self._show(self.edges[-1])
            await listener.start(
                self.edges[-1],
                self._tasks,
                max_connections=server.max_connections,
                handshake_timeout_s=server.header_timeout_s,
            )

    async def _show(self, edge: Edge) -> None:
        from llmproxy_server.pages.server import PageServer  # aiohttp's server is 10 MB that few need

        server = PageServer(edge, self._pages)
        await server.start()
        edge.pages = server

    def _sockets(self, address: Address) -> Sequence[socket.socket]:
        handed_down = self._handed_down.get(address.key)
        if handed_down is not None:
            return handed_down
        try:
            return listen(address.host, address.port)
        except OSError as error:
            reason = error.strerror or str(error)
            message = f"cannot listen on {address.host} port {address.port}: {reason}"
            raise ConfigError([Problem(address.key, message)]) from error

    def lead_to(self, generation: Generation) -> None:
        """From now on calls are *generation*'s; those that are being served go on as they began."""
        server = generation.config.server
        own_only = [address.own_only for address in addresses(server)]
        for listener, edge, door, plain in zip(self.listeners, self.edges, generation.doors, own_only, strict=True):
            edge.lead_to(door)
            listener.change(
                tls=None if plain else generation.certificate.context,
                max_connections=server.max_connections,
                handshake_timeout_s=server.header_timeout_s,
            )

    @property
    def connections(self) -> int:
        return sum(len(edge.connections) for edge in self.edges)

    @property
    def has_calls(self) -> bool:
        return any(edge.calls for edge in self.edges)

    @property
    def is_empty(self) -> bool:
        """Whether no connection is open, or about to be."""
        return not self.connections and not any(listener.arriving for listener in self.listeners)

    # -- the end -------------------------------------------------------------------------------------------------

    async def close_doors(self, clock: Clock) -> None:
        """Take what has come, then accept nothing more, and close the connections on which nothing is served."""
        await self._take_what_has_come(clock)
        await self.stop_listening()
        for edge in self.edges:
            edge.retire()

    async def _take_what_has_come(self, clock: Clock) -> None:
        """Accept and read what the kernel holds for us already: a connection that is closed over it would be reset."""
        due_s = clock() + _TAKE_S
        before, turns = 0, 0
        while turns < _TURNS and clock() < due_s:
            await asyncio.sleep(0)
            taken = sum(len(edge.connections) + len(edge.calls) for edge in self.edges)
            before, turns = taken, turns + 1 if taken == before else 0

    async def stop_listening(self) -> None:
        for listener in self.listeners:
            await listener.stop()

    async def finish(self, timeout_s: float) -> int:
        """Wait until all calls have ended; after *timeout_s* end those that are left, and say how many they were."""
        return sum(await asyncio.gather(*(edge.finish(timeout_s) for edge in self.edges)))

    async def written(self, timeout_s: float) -> None:
        """See Edge."""
        await asyncio.gather(*(edge.written(timeout_s) for edge in self.edges))

    async def aclose(self) -> None:
        """Close everything now."""
        for listener in self.listeners:
            await listener.aclose()
        for edge in self.edges:
            await edge.aclose()
