"""One connection to an upstream, and whose call it carries."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, cast

from llmproxy_server.wire.upstream_answer import HEAD
from llmproxy_server.wire.upstream_tls import keep_session

if TYPE_CHECKING:
    from llmproxy_server.wire.upstream_call import UpstreamCall
    from llmproxy_server.wire.upstream_pool import Connections, Origin


class UpstreamConnection(asyncio.Protocol):
    """
    Busy while it has a `call`, which then gets all that happens here; else idle.

    Nothing may come while it is idle: a byte then is an answer to nobody, and ends it.
    """

    __slots__ = ("_drained", "blocked", "call", "counts", "origin", "pool", "reused", "since", "spoke", "transport")

    def __init__(self, pool: Connections, origin: Origin) -> None:
        self.pool = pool
        self.origin = origin
        self.call: UpstreamCall | None = None
        self.transport: asyncio.Transport | None = None
        self.counts = False
        """Whether it holds one of the pool's places."""
        self.reused = False
        """Whether it has carried a call before."""
        self.since = 0.0
        """From when on it is idle, in the loop's time."""
        self.blocked = False
        """Whether the upstream does not take what is written."""
        self.spoke = False
        """Whether it said something that nobody had asked for."""
        self._drained: asyncio.Future[None] | None = None

    # -- of asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of asyncio's

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            self.spoke = True
            self.abort()
        elif call.stage is HEAD:
            call.received_head(data)
        else:
            call.received(data)

    def eof_received(self) -> None:
        if self.call is not None:
            self.call.left()

    def connection_lost(self, exc: Exception | None) -> None:
        call, self.call, self.transport = self.call, None, None
        self.pool.lost(self)
        if call is not None:
            call.lost()

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self.call is not None:
            self.call.unblocked()

    # -- of the call and the pool --------------------------------------------------------------------------------

    def check(self, now: float) -> float:
        """Have the call's clocks looked at, if it carries one; see `UnderWay`."""
        return inf if self.call is None else self.call.check(now)

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    async def write(self, data: bytes) -> None:
        """Write *data*, and return once the upstream takes more; for the one who sends a body in pieces."""
        if self.transport is not None:
            self.transport.write(data)
        if not self.blocked:
            return
        self._drained = asyncio.get_running_loop().create_future()
        try:
            await self._drained
        finally:
            self._drained = None

    def abort(self) -> None:
        """Close at once: a gentler close would wait until the upstream has taken all that was written, if ever."""
        self.call = None
        if self.transport is not None:
            if self.origin.tls and not self.reused:  # of a server that closes after each answer
                keep_session(self.transport)
            self.transport.abort()
        self.pool.gone(self)
