"""Listening sockets: an address, an edge behind it, and a bound on open connections."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl

from llmproxy_core.tasks import Tasks
from llmproxy_server.edge import Edge

_log = logging.getLogger("llmproxy")
BACKLOG = 1024
_RETRY_S = 1.0


class Listener:
    """Accepts connections for an edge."""

    def __init__(self, sockets: list[socket.socket], tls: ssl.SSLContext | None) -> None:
        self.sockets = sockets
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._room: asyncio.Semaphore | None = None
        self._handshake_timeout_s: float | None = None

    @property
    def url(self) -> str:
        """Where the first socket listens."""
        host, port = self.sockets[0].getsockname()[:2]
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def start(self, edge: Edge, tasks: Tasks, *, max_connections: int) -> None:
        """Accept from now on. *max_connections*: 0 for no bound; over it, connections wait in the kernel's queue."""
        loop = asyncio.get_running_loop()
        if self._tls is not None:
            self._handshake_timeout_s = edge.door.shared.config.header_timeout_s
        if not max_connections:
            for listening in self.sockets:
                server = await loop.create_server(
                    edge.protocol,
                    sock=listening,
                    ssl=self._tls,
                    ssl_handshake_timeout=self._handshake_timeout_s,
                    backlog=BACKLOG,
                )
                self._servers.append(server)
            return
        self._room = asyncio.Semaphore(max_connections)
        for listening in self.sockets:
            listening.listen(BACKLOG)
            accepting = self._accept(listening, edge, tasks, self._room)
            self._accepting.append(tasks.start(accepting, name="accept"))

    def closed(self) -> None:
        """A connection of ours has ended."""
        if self._room is not None:
            self._room.release()

    async def _accept(self, listening: socket.socket, edge: Edge, tasks: Tasks, room: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await room.acquire()
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # the client is gone again, or we are out of descriptors
                room.release()
                _log.warning("a connection could not be accepted: %s", error.strerror)
                await asyncio.sleep(_RETRY_S)
            else:
                handshake = tasks.start(self._serve(connection, edge, room), name="handshake")
                self._handshakes.add(handshake)
                handshake.add_done_callback(self._handshakes.discard)

    async def _serve(self, connection: socket.socket, edge: Edge, room: asyncio.Semaphore) -> None:
        made = False

        def protocol() -> asyncio.BaseProtocol:
            return edge.protocol()

        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol, connection, ssl=self._tls, ssl_handshake_timeout=self._handshake_timeout_s
            )
            made = True
        except (OSError, ssl.SSLError):
            pass  # it left during the handshake, or does not speak TLS: nobody is there to be told
        finally:
            if not made:
                room.release()
                connection.close()

    async def stop(self) -> None:
        """Accept no more. What has been accepted goes on."""
        begun = [*self._accepting, *self._handshakes]
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        for server in self._servers:
            server.close()
        for listening in self.sockets:
            listening.close()


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address that *host* stands for. OSError, with the address in it, when that fails."""
    name = host.removeprefix("[").removesuffix("]")
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # A free port chosen for the first address is taken for the others too.
            chosen = sockets[0].getsockname()[1] if port == 0 and len(sockets) > 1 else address[1]
            listening.bind((address[0], chosen, *address[2:]))
            listening.setblocking(False)
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets
