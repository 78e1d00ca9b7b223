"""Listening sockets: an address, an edge behind it, and a bound on open connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from math import inf

from llmproxy_core.tasks import Tasks
from llmproxy_server.client_socket import LINGER_S
from llmproxy_server.edge import Edge
from llmproxy_server.log_events import get_logger

_log = get_logger()
BACKLOG = 1024
AT_ONCE = 64
"""Connections that are accepted each time that the loop turns; then others have their turn."""
_RETRY_S = 1.0
_QUIET_S = 60.0
"""How often it is said that connections cannot be accepted."""


class Listener:
    """
    Accepts connections for an edge.

    How it does may change while it runs: the sockets themselves, and what waits in their queues, stay.
    """

    def __init__(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
        """*sockets* are bound; they are closed when it stops."""
        self.sockets = sockets
        self._tls = tls
        self._handshake_timeout_s = 0.0
        self._max_connections = 0
        self._edge: Edge
        self._tasks: Tasks
        self._servers: list[asyncio.Server] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._said_s = -inf

    @property
    def url(self) -> str:
        """Where the first socket listens."""
        host, port = self.sockets[0].getsockname()[:2]
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def start(self, edge: Edge, tasks: Tasks, *, max_connections: int, handshake_timeout_s: float) -> None:
        """Accept from now on. *max_connections*: 0 for no bound; over it, connections wait in the kernel's queue."""
        for listening in self.sockets:
            listening.setblocking(False)
        self._edge, self._tasks = edge, tasks
        self._max_connections, self._handshake_timeout_s = max_connections, handshake_timeout_s
        if max_connections or self._tls is not None:
            self._accept_by_hand()
            return
        loop = asyncio.get_running_loop()
        for listening in self.sockets:
            # A copy: it is closed, and the socket is not, when connections are to be counted later.
            server = await loop.create_server(partial(self._protocol, listening), sock=listening.dup(), backlog=BACKLOG)
            self._servers.append(server)

    def change(self, *, tls: ssl.SSLContext | None, max_connections: int, handshake_timeout_s: float) -> None:
        """
        For the connections to come: another certificate, or other bounds. Those that are open stay.

        *tls* is None exactly when it was at the start.
        """
        self._tls, self._max_connections, self._handshake_timeout_s = tls, max_connections, handshake_timeout_s
        if self._servers and max_connections:
            for server in self._servers:
                server.close()
            self._servers.clear()
            self._accept_by_hand()
        self._room.set()

    def closed(self) -> None:
        """A connection of ours has ended."""
        self._room.set()

    def _protocol(self, listening: socket.socket) -> asyncio.Protocol:
        """
        For a connection that the loop has accepted; those that wait behind it are taken, too.

        uvloop accepts one each time that it turns (libuv from 1.45 on). That takes a tenth of a second while a thousand
        clients are served, and a thousand others that come at once would wait for minutes.
        """
        try:
            self._take_waiting(listening)
        except OSError as error:  # the loop meets it as well, and sees to it
            self._say(error)
        return self._edge.protocol()

    def _accept_by_hand(self) -> None:
        """Slower than the loop's own way, but each connection is counted, and has the certificate of its moment."""
        for listening in self.sockets:
            listening.listen(BACKLOG)
            self._accepting.append(self._tasks.start(self._accept(listening), name="accept"))

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._max_connections and self._open >= self._max_connections:
                self._room.clear()
                await self._room.wait()
            try:
                if (connection := await _waiting(listening, loop)) is not None:
                    self._take(connection)
                self._take_waiting(listening)
            except OSError as error:
                self._say(error)
                await asyncio.sleep(_RETRY_S)

    def _say(self, error: OSError) -> None:
        """The client is gone again, or we are out of descriptors; then each connection would be told of."""
        now_s = time.monotonic()
        if now_s - self._said_s >= _QUIET_S:
            self._said_s = now_s
            _log.warning("a connection could not be accepted", reason=error.strerror)

    def _take_waiting(self, listening: socket.socket) -> None:
        """Accept the connections that wait in *listening*, some at once, as far as there is room. OSError."""
        for _ in range(AT_ONCE):
            if self._max_connections and self._open >= self._max_connections:
                return
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                return  # there is none, or another process has taken it
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        handshake = self._tasks.start(self._serve(connection), name="handshake")
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._shaken)

    @property
    def arriving(self) -> int:
        """Connections that were accepted, and are not the edge's yet: they shake hands."""
        return len(self._handshakes)

    @property
    def _open(self) -> int:
        """Connections that are open or about to be; for a moment, one may count as both."""
        return len(self._edge.connections) + self.arriving

    def _shaken(self, handshake: asyncio.Task[None]) -> None:
        self._handshakes.discard(handshake)
        self._room.set()

    async def _serve(self, connection: socket.socket) -> None:
        made = False
        timeout_s, goodbye_s = (None, None) if self._tls is None else (self._handshake_timeout_s, LINGER_S)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._edge.protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=timeout_s,
                ssl_shutdown_timeout=goodbye_s,
            )
            made = True
        except (OSError, ssl.SSLError):
            pass  # it left during the handshake, or does not speak TLS: nobody is there to be told
        finally:
            if not made:
                connection.close()

    async def stop(self) -> None:
        """Accept no more. What has been accepted goes on, handshakes too."""
        await _cancelled(self._accepting)
        for server in self._servers:
            server.close()
        for listening in self.sockets:
            listening.close()

    async def aclose(self) -> None:
        """As `stop`; handshakes end as well."""
        await self.stop()
        if self._tls is None:
            # They end with this turn of the loop. Cancelled in it, uvloop never tells the edge that they are lost.
            await asyncio.gather(*self._handshakes, return_exceptions=True)
        await _cancelled(self._handshakes)


async def _cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    begun = list(tasks)
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)


async def _waiting(listening: socket.socket, loop: asyncio.AbstractEventLoop) -> socket.socket | None:
    """
    Wait until a connection can be accepted from *listening*, which does not block; gives it where that had to be done.

    `loop.sock_accept`, cancelled in the moment that it has accepted one, would lose that; the loop of Windows has no
    readers, and nothing else.
    """
    ready = asyncio.Event()
    try:
        loop.add_reader(listening, ready.set)
    except NotImplementedError:
        return (await loop.sock_accept(listening))[0]
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listening)
    return None


def listen(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """
    Sockets bound to every address that *host* stands for. OSError, with the address in it, when that fails.

    *reuse_port*: others of this user may bind the same, and the kernel spreads connections over all.
    """
    name = host.removeprefix("[").removesuffix("]")
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)
            sockets.append(listening)
            if sys.platform != "win32":  # there it would let another program take the port away from us
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # A free port chosen for the first address is taken for the others too.
            chosen = sockets[0].getsockname()[1] if port == 0 and len(sockets) > 1 else address[1]
            listening.bind((address[0], chosen, *address[2:]))
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets
