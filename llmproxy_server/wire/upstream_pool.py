"""
The connections to upstreams: which are idle, how many there may be, who waits for one.

A place is taken before a connection is made and given back when it is closed, so `open` counts the idle, the busy, and
those that are being made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from llmproxy_core.services import Pool
from llmproxy_server.transport_clock import UnderWay
from llmproxy_server.wire.upstream_connection import UpstreamConnection
from llmproxy_server.wire.upstream_shape import Shapes
from llmproxy_server.wire.upstream_tls import keep_session

if TYPE_CHECKING:
    from llmproxy_server.wire.upstream_call import UpstreamCall

_SWEEP_S = 0.5
"""How often idle connections are looked at, at most; so one may be kept that much too long, but is not used."""
_MOST_ORIGINS = 512


class Origin:
    """Where connections go: one host, port and scheme."""

    __slots__ = ("heads", "idle", "name", "open", "port", "tls", "waiting")

    def __init__(self, name: str, port: int, *, tls: bool) -> None:
        self.name = name
        """A host name or an IP address."""
        self.port = port
        self.tls = tls
        self.open = 0
        """Places taken."""
        self.heads: Shapes | None = None
        """The shapes of the heads that come from there, once it is called."""
        self.idle: dict[UpstreamConnection, None] = {}
        """The longest idle first; the one that was used last is used next."""
        self.waiting: deque[_Wait] = deque()
        """Those who wait for a place, the first first."""

    @property
    def unused(self) -> bool:
        return not self.open and not self.waiting


class _Wait:
    """A place in the queue; *given* is a connection, or None for a place to make one in."""

    __slots__ = ("given", "number")

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        self.given: asyncio.Future[UpstreamConnection | None] = loop.create_future()


class Connections:
    """All of a transport's. Only `place` waits; nothing here locks, starts a task, or sets a timer for each."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._most = pool.max_connections or inf
        self._most_per_host = pool.max_connections_per_host or inf
        self._idle_s = pool.idle_s
        self._loop = loop
        self.time = loop.time
        self._origins: dict[tuple[str, int, bool], Origin] = {}
        self._all: set[UpstreamConnection] = set()
        self.under_way = UnderWay(loop, self._all)
        """The clocks of the calls. Whether one is under way, its connection tells: each knows its call."""
        self._none_left: asyncio.Future[None] | None = None
        self._open = 0
        self._waiting = 0
        self._number = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self.closed = False

    @property
    def in_use(self) -> int:
        """Busy, or being made."""
        return self._open - sum([len(origin.idle) for origin in self._origins.values()])

    @property
    def open(self) -> int:
        """Busy, being made, or idle."""
        return self._open

    @property
    def calls(self) -> list[UpstreamCall]:
        """Those under way."""
        return [connection.call for connection in self._all if connection.call is not None]

    def origin(self, name: str, port: int, *, tls: bool) -> Origin:
        """The one of that host, port and scheme."""
        key = (name, port, tls)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= _MOST_ORIGINS:
                self._origins = {key: origin for key, origin in self._origins.items() if not origin.unused}
            origin = self._origins[key] = Origin(name, port, tls=tls)
        return origin

    # -- taking --------------------------------------------------------------------------------------------------

    def take(self, origin: Origin, now: float) -> UpstreamConnection | None:
        """The idle connection that was used last, if there is one that can be used."""
        idle = origin.idle
        while idle:
            connection = idle.popitem()[0]
            transport = connection.transport
            if transport is not None and not transport.is_closing() and now - connection.since < self._idle_s:
                return connection
            connection.abort()
        return None

    async def place(self, origin: Origin) -> UpstreamConnection | None:
        """
        Wait for one's turn: None is the place for a new connection, which `gone` or `give_back` frees.

        Otherwise somebody else's connection, that became idle.
        """
        if not origin.waiting and self._has_room(origin):
            self._count(origin)
            return None
        self._number += 1
        wait = _Wait(self._number, self._loop)
        origin.waiting.append(wait)
        self._waiting += 1
        while True:
            try:
                connection = await wait.given
            except asyncio.CancelledError:
                self._leave_queue(origin, wait)
                raise
            if connection is None or connection.is_open:
                return connection
            wait = _Wait(wait.number, self._loop)  # lost on the way to us: it is still our turn
            origin.waiting.appendleft(wait)
            self._waiting += 1
            self._serve()

    def _leave_queue(self, origin: Origin, wait: _Wait) -> None:
        if wait in origin.waiting:
            origin.waiting.remove(wait)
            self._waiting -= 1
        elif wait.given.cancelled():
            return
        elif (connection := wait.given.result()) is None:  # our turn came in the moment that we left
            self.give_back(origin)
        elif connection.is_open:
            self.put(connection)

    def _has_room(self, origin: Origin) -> bool:
        """Whether a place is free, or was made free by closing the connection that is idle for the longest time."""
        if origin.open >= self._most_per_host:
            if origin.idle:
                self._drop(next(iter(origin.idle)))
        elif self._open >= self._most:
            oldest = [next(iter(it.idle)) for it in self._origins.values() if it.idle]
            if oldest:
                self._drop(min(oldest, key=lambda connection: connection.since))
        return self._open < self._most and origin.open < self._most_per_host

    def _drop(self, idle: UpstreamConnection) -> None:
        """Close it; its place is free, and offered to nobody yet."""
        del idle.origin.idle[idle]
        idle.counts = False
        idle.origin.open -= 1
        self._open -= 1
        idle.abort()

    def add(self, connection: UpstreamConnection) -> None:
        """It stands, in a place that was taken before."""
        if connection.transport is not None:
            self._all.add(connection)
            connection.counts = True
        else:  # lost already
            self.give_back(connection.origin)

    def renounce(self, connection: UpstreamConnection) -> None:
        """Close it, but keep its place, for another one."""
        connection.counts = False
        connection.abort()

    def _count(self, origin: Origin) -> None:
        origin.open += 1
        self._open += 1

    # -- giving back ---------------------------------------------------------------------------------------------

    def put(self, connection: UpstreamConnection) -> None:
        """
        Its call is over, and was answered whole: it is free for another one.

        Unless a part of the request is not sent yet. (Whether it is closing is asked where it is taken.)
        """
        connection.call = None
        transport = connection.transport
        if transport is None or connection.blocked or transport.get_write_buffer_size():
            connection.abort()
            return
        origin = connection.origin
        if not connection.reused:
            connection.reused = True
            if origin.tls:
                keep_session(transport)
        if self._waiting and self._given(connection):
            return
        connection.since = now = self.time()
        if self._sweeper is None:
            if self._idle_s <= 0:
                connection.abort()
                return
            self._sweeper = self._loop.call_at(now + max(self._idle_s, _SWEEP_S), self._sweep)
        origin.idle[connection] = None
        if self._waiting:
            self._serve()

    def _given(self, connection: UpstreamConnection) -> bool:
        """Whether somebody waits for such a *connection*, and has it now."""
        waiting = connection.origin.waiting
        while waiting:
            wait = waiting.popleft()
            self._waiting -= 1
            if not wait.given.done():
                wait.given.set_result(connection)
                return True
        return False

    def gone(self, connection: UpstreamConnection) -> None:
        """It is closed, whoever closed it; its place is free. May be told more than once."""
        if connection in connection.origin.idle:
            del connection.origin.idle[connection]
        if connection.counts:
            connection.counts = False
            self.give_back(connection.origin)

    def lost(self, connection: UpstreamConnection) -> None:
        """Its socket is closed."""
        self._all.discard(connection)
        if not self._all and self._none_left is not None and not self._none_left.done():
            self._none_left.set_result(None)
        self.gone(connection)

    def give_back(self, origin: Origin) -> None:
        """A place is free."""
        origin.open -= 1
        self._open -= 1
        if self._waiting:
            self._serve()

    def _serve(self) -> None:
        """Give free places to those who wait, the first first, whoever can be served."""
        while self._waiting:
            ready = [it for it in self._origins.values() if it.waiting and it.open < self._most_per_host]
            origin = min(ready, key=lambda it: it.waiting[0].number, default=None)
            if origin is None or not self._has_room(origin):
                return
            wait = origin.waiting.popleft()
            self._waiting -= 1
            if not wait.given.done():
                self._count(origin)
                wait.given.set_result(None)

    # -- time, and the end ---------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Close what has been idle for too long."""
        self._sweeper = None
        now = self._loop.time()
        oldest = inf
        for connection in self.all_idle():
            if connection.since + self._idle_s <= now:
                connection.abort()
            else:
                oldest = min(oldest, connection.since)
        if oldest < inf:
            self._sweeper = self._loop.call_at(max(oldest + self._idle_s, now + _SWEEP_S), self._sweep)

    def shapes(self) -> Iterator[Shapes]:
        """What is known of the heads that come from there, for each host."""
        return iter([origin.heads for origin in self._origins.values() if origin.heads is not None])

    def all_idle(self) -> Iterator[UpstreamConnection]:
        return iter([connection for origin in self._origins.values() for connection in origin.idle])

    def close(self) -> None:
        """Close what is idle. Whoever waits gets a place, and finds all closed."""
        self.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in self.all_idle():
            connection.abort()
        for origin in self._origins.values():
            while origin.waiting:
                wait = origin.waiting.popleft()
                self._waiting -= 1
                if not wait.given.done():
                    self._count(origin)
                    wait.given.set_result(None)

    async def wait_closed(self, most_s: float) -> None:
        """Return once the sockets of all connections are closed, or after *most_s* seconds."""
        if self._all:
            self._none_left = self._loop.create_future()
            await asyncio.wait([self._none_left], timeout=most_s)
