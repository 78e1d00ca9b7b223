"""The body of an upstream's answer over aiohttp: bytes as they come, three clocks, and whose connection it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

import aiohttp
from aiohttp.streams import EMPTY_PAYLOAD

from llmproxy_core.errors import UpstreamGarbage
from llmproxy_core.llm import Timeouts
from llmproxy_server import transport_errors

DRAIN_S = 1.0
"""How long the rest of a complete answer is waited for, so that its connection can be kept."""


class Response(aiohttp.ClientResponse):
    """aiohttp's response, but one that gives its connection up at once."""

    protocol: aiohttp.client_proto.ResponseHandler

    async def start(self, connection: aiohttp.connector.Connection) -> Response:
        assert connection.protocol is not None
        self.protocol = connection.protocol
        # Nothing can have come since the request was written: this is an answer to nobody's request, and aiohttp
        # would take it for ours.
        if len(self.protocol):
            connection.close()
            raise UpstreamGarbage(f"{self.url.host_port_subcomponent} answered before it was asked")
        await super().start(connection)
        # aiohttp's read time-out has bounded the wait for the head. From here on the body's own clocks count, which
        # stand still while nobody reads.
        self.protocol.read_timeout = None
        self.protocol.start_timeout()
        return self

    def close(self) -> None:
        # A close waits until the upstream has taken what is still to be written, if ever.
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abort()
        super().close()


class ResponseBody:
    """
    Reads the body of *response*; every failure is an UpstreamError.

    What came before a failure is given before that is raised. The connection goes back to the pool when the end has
    come, read or not; it is closed by a failure that is read, by a clock, by `close`, and `DRAIN_S` after `release`.
    While it is held the body is in *holding*.
    """

    def __init__(
        self, response: Response, *, host: str, timeouts: Timeouts, began: float, holding: set[ResponseBody]
    ) -> None:
        """*began* is the loop's time at which the call began."""
        self._response = response
        self._content = response.content
        self._host = host
        self._timeouts = timeouts
        self._taken = 0  # bytes
        self._failure: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._grace: asyncio.TimerHandle | None = None
        self._first_due = self._loop.time() + timeouts.first_byte_s if timeouts.first_byte_s else inf
        self._clock = _Clock(self._loop, began + timeouts.total_s if timeouts.total_s else inf, self._expired)
        self._lost = response.protocol.closed
        if self._lost is not None:
            self._lost.add_done_callback(self._connection_lost)
        self._holding = holding
        holding.add(self)
        self._content.on_eof(self._let_go)  # at once, if the end has come with the head

    async def read(self) -> bytes:
        """What has come, at least a byte; b"" at the end."""
        content = self._content
        if content.total_bytes > self._taken:
            # Not `read_nowait`, which withholds what came before a failure: the last tokens would be lost.
            data = content._read_nowait(-1)
        elif content.is_eof():
            data = b""
        else:
            data = await self._next()
        if not data:
            self._check_end()
        self._taken += len(data)
        return data

    async def _next(self) -> bytes:
        if not self._response.protocol.connected:
            self._connection_lost()
        if (failed := self._content.exception()) is not None:
            raise self._failed(failed) from None
        if self._taken:
            due = self._loop.time() + self._timeouts.idle_s if self._timeouts.idle_s else inf
        else:
            due = self._first_due
        self._clock.start(due)
        try:
            return await self._content.readany()
        except transport_errors.FAILURES as error:
            failure = self._failed(error)
        finally:
            self._clock.stop()
        raise failure from None

    def _failed(self, error: BaseException) -> Exception:
        """Our word for *error*; the connection is closed."""
        if self._failure is None:
            self._failure = transport_errors.upstream_error(error, self._host, self._timeouts)
        self.close()
        return self._failure

    def fail(self, error: Exception) -> None:
        """Have the reader raise *error* after what has come, unless something failed before; close the connection."""
        if self._held and self._content.exception() is None:
            self._failure = error
            self._content.set_exception(aiohttp.ClientPayloadError())  # wakes the reader
            self.close()

    def close(self) -> None:
        """Close the connection now, unless the end has come."""
        if self._held:
            self._let_go()
            self._response.close()

    def release(self) -> None:
        """Keep the connection if the end comes soon; what comes until then is bounded by the read buffer."""
        if self._held and self._grace is None:
            self._grace = self._loop.call_later(DRAIN_S, self.close)

    def _let_go(self) -> None:
        """Forget the connection: it is back in the pool, or about to be closed."""
        self._holding.discard(self)
        self._clock.cancel()
        if self._grace is not None:
            self._grace.cancel()
        if self._lost is not None and not self._lost.done():
            self._lost.remove_done_callback(self._connection_lost)
            # The connection lives on. Somebody must look at how it will end, once, or asyncio reports it as ignored.
            self._lost.remove_done_callback(_seen)
            self._lost.add_done_callback(_seen)

    @property
    def _held(self) -> bool:
        return self in self._holding

    def _expired(self, by_total: bool) -> None:
        """A clock ran out; the idle one only if nothing came in this very turn of the loop."""
        if by_total:
            self.fail(transport_errors.total_timeout(self._host, self._timeouts))
        elif self._content.total_bytes == self._taken:
            late = transport_errors.idle_timeout if self._taken else transport_errors.first_byte_timeout
            self.fail(late(self._host, self._timeouts))

    def _connection_lost(self, lost: asyncio.Future[None] | None = None) -> None:
        """Tell the reader what aiohttp does not: after a framing error it closes the connection, and says nothing."""
        if lost is not None:
            _seen(lost)
        if not self._content.is_eof():
            self.fail(UpstreamGarbage(f"{self._host} broke the framing of its answer"))

    def _check_end(self) -> None:
        """Raise if the end is none: aiohttp takes a reset for the end of a body that is delimited by the close."""
        if self._content is EMPTY_PAYLOAD or not isinstance(self._response.protocol.exception(), aiohttp.ClientOSError):
            return
        headers = self._response.headers
        if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
            raise transport_errors.cut(self._host)


class _Clock:
    """
    One timer for all waits of a body.

    It is not moved for each wait: when it rings too early it is set again, so a busy body costs one timer in each
    idle time, and none per read.
    """

    __slots__ = ("_due", "_expire", "_loop", "_timer", "_total_due")

    def __init__(self, loop: asyncio.AbstractEventLoop, total_due: float, expire: Callable[[bool], None]) -> None:
        """*expire* is told whether it was the total."""
        self._loop = loop
        self._total_due = total_due
        self._due = inf  # of the wait that goes on, in the loop's time
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None
        self._set(total_due)

    def start(self, due: float) -> None:
        """A wait begins that must end by *due*."""
        self._due = due
        if self._timer is None or self._timer.when() > due:
            self.cancel()
            self._set(min(due, self._total_due))

    def stop(self) -> None:
        """The wait is over."""
        self._due = inf

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, when: float) -> None:
        if when < inf:
            self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        assert self._timer is not None
        # Not the time of now: a loop may ring a little early, by the resolution of its clock.
        now, self._timer = self._timer.when(), None
        if self._total_due <= now:
            self._expire(True)
        elif self._due <= now:
            self._due = inf
            self._set(self._total_due)
            self._expire(False)
        else:
            self._set(min(self._due, self._total_due))


def _seen(lost: asyncio.Future[None]) -> None:
    lost.exception()
