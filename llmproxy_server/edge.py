"""All connections that come in by one door, and the calls that they carry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from llmproxy_core.config import ServerConfig
from llmproxy_core.errors import ProxyError
from llmproxy_server.answer import Answer
from llmproxy_server.call import Call
from llmproxy_server.door import Door
from llmproxy_server.door_answer import error_answer
from llmproxy_server.door_id import REQUEST_ID
from llmproxy_server.door_request import BodySource, Client, Incoming
from llmproxy_server.log_events import get_logger
from llmproxy_server.transport_clock import UnderWay
from llmproxy_server.wire.connection import Connection
from llmproxy_server.wire.in_turn import InTurn
from llmproxy_server.wire.request_head import HeadReader

_log = get_logger()
_SWEEP_S = 1.0
_CLOSE_S = 1.0
_LOOK_S = 0.05
_COMPLAINT_S = 1.0


class ClientConnection(Protocol):
    """What is known here of a connection, whatever reads it."""

    @property
    def call(self) -> Call | None:
        """What is being served on it."""
        ...

    @property
    def socket(self) -> asyncio.Transport | None:
        """None when it is lost."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """What was written, and has not left yet."""
        ...

    def tick(self, now: float) -> None: ...

    def retire(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


TakeBack = Callable[[asyncio.Transport, bytes, bool], None]
"""Takes a connection back, with what has come on it since; and whether its client does not take what was written."""


class Borrower(ClientConnection, Protocol):
    """What a connection is lent to, as its protocol, for a request that is answered elsewhere."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def pause_writing(self) -> None: ...

    def ask(self, head: bytes, more: bytes) -> None:
        """The request: *head*, and *more* that came behind it."""
        ...


class Pages(Protocol):
    """Those who borrow a connection when a page is asked for on it. See llmproxy_server.pages."""

    def claims(self, path: str) -> bool: ...

    def protocol(self, incoming: Incoming, back: TakeBack) -> Borrower:
        """What is lent the connection that *incoming* came on, and is a ClientConnection of this edge meanwhile."""
        ...

    async def aclose(self) -> None: ...


class Edge:
    """Made in a running event loop."""

    def __init__(self, door: Door, *, closed: Callable[[], None] | None = None) -> None:
        """*closed* is called when a connection has ended."""
        self.door = door
        """Whose rules the calls to come follow."""
        self.connections: set[ClientConnection] = set()
        self.calls: set[Call] = set()
        self.pages: Pages | None = None
        self.loop = asyncio.get_running_loop()
        self.in_turn = InTurn(self.loop)
        """What connections have to do of which there may be very much."""
        self._limited = UnderWay(self.loop, self.calls, door.shared.gateway.services.clock)
        """The calls again, of which some have a deadline."""
        self.heads: HeadReader
        self.max_header_bytes: int
        self._on_closed = closed
        self._quiet: asyncio.Event | None = None  # made by who waits for it
        self._empty = asyncio.Event()
        self._complained_s = float("-inf")
        self._unsaid = 0
        self.lead_to(door)
        self._sweep = self.loop.call_later(self._period_s, self._tick)

    def lead_to(self, door: Door) -> None:
        """From now on calls come in by *door*; those that are being served go on with theirs."""
        config = door.shared.config
        self.door = door
        self.heads = HeadReader(config.max_header_count)
        self.max_header_bytes = config.max_header_bytes
        self._period_s = _period_s(config)

    def protocol(self) -> Connection:
        """A protocol for a new connection: what `loop.create_server` is given."""
        return Connection(self)

    # -- calls ---------------------------------------------------------------------------------------------------

    def admit(self, incoming: Incoming, source: BodySource, client: Client) -> Call:
        """The call that a request is, which begins. When it is over the *client* is told, and tells us: `over`."""
        door = self.door
        shared = door.shared
        request_id = shared.ids.of(incoming.headers)
        call = Call(
            door,
            incoming,
            source,
            client,
            self._limited,
            request_id,
            Answer(shared, incoming, source, client, request_id),
            incoming.peer,
            shared.gateway.services.clock(),
        )
        shared.use.enter()
        self.calls.add(call)
        call.begin(self.loop)
        return call

    def over(self, call: Call) -> None:
        """*call* has ended."""
        self.calls.discard(call)
        call.door.shared.use.leave()
        if self._quiet is not None and not self.calls:
            self._quiet.set()

    # -- connections ---------------------------------------------------------------------------------------------

    def opened(self, connection: ClientConnection) -> None:
        self.connections.add(connection)

    def closed(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        self._empty.set()
        if self._on_closed is not None:
            self._on_closed()

    def _tick(self) -> None:
        self._sweep = self.loop.call_later(self._period_s, self._tick)
        now, clock = self.loop.time(), self.door.shared.gateway.services.clock()
        for connection in list(self.connections):
            connection.tick(now)
            if connection.call is not None:
                connection.call.tick(clock)

    def refusal(self, error: ProxyError, address: str) -> tuple[bytes, bytes]:
        """
        The answer, head and body, to what did not become a call, from *address*.

        Logged, but no more than a line a second.
        """
        shared = self.door.shared
        request_id = shared.ids.new()
        self._complain(error, request_id, address)
        whole = error_answer(error, shared.dialect, request_id)
        head = shared.heads.head(
            whole.status,
            [(REQUEST_ID, request_id), *whole.headers],
            whole.content_type,
            now=shared.gateway.services.now(),
            length=len(whole.body),
            connection="close",
        )
        return head, whole.body

    def _complain(self, error: ProxyError, request_id: str, address: str) -> None:
        now = self.loop.time()
        if now - self._complained_s < _COMPLAINT_S:
            self._unsaid += 1
            return
        _log.info(
            "refused what was no request",
            status=error.status,
            error_message=error.message,
            client=address,
            request_id=request_id,
            unsaid_since=self._unsaid,
        )
        self._complained_s, self._unsaid = now, 0

    # -- the end -------------------------------------------------------------------------------------------------

    def retire(self) -> None:
        """Close the connections on which nothing is being served; the others close after their answer."""
        for connection in list(self.connections):
            connection.retire()

    async def finish(self, timeout_s: float) -> int:
        """Wait until all calls have ended; after *timeout_s* end those that are left, and say how many they were."""
        if await self._is_quiet(timeout_s):
            return 0
        left = list(self.calls)
        for call in left:
            call.stop()
        await self._is_quiet(self.door.shared.config.settle_timeout_s + _CLOSE_S)
        return len(left)

    async def _is_quiet(self, timeout_s: float) -> bool:
        due = self.loop.time() + timeout_s
        quiet = self._quiet = self._quiet or asyncio.Event()
        while self.calls:
            quiet.clear()
            try:
                async with asyncio.timeout_at(due):
                    await quiet.wait()
            except TimeoutError:
                return not self.calls
        return True

    async def written(self, timeout_s: float) -> None:
        """Wait until what was written has left for its clients, those that read slowly too, or the time is over."""
        due = self.loop.time() + timeout_s
        while self.loop.time() < due and any(it.unsent_bytes for it in self.connections):  # noqa: ASYNC110 - of transports
            await asyncio.sleep(_LOOK_S)

    async def aclose(self) -> None:
        """Close every connection, whatever it carries, once what was written has reached the client, or soon after."""
        self._sweep.cancel()
        self._limited.stop()
        for connection in list(self.connections):
            connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._all_closed()
        for connection in list(self.connections):
            connection.abort()
        await self._all_closed()
        await self._is_quiet(_CLOSE_S)
        if self.pages is not None:
            await self.pages.aclose()

    async def _all_closed(self) -> None:
        while self.connections:
            self._empty.clear()
            await self._empty.wait()


def _period_s(config: ServerConfig) -> float:
    """How often it is looked at what takes too long."""
    shortest = min(config.header_timeout_s, config.idle_timeout_s, config.body_timeout_s, config.write_timeout_s)
    return min(_SWEEP_S, shortest / 4)
