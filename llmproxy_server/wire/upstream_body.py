"""
The body of an upstream's answer, while its connection is held and after that: read, or pushed to a sink.

`close` lets go of the connection in any stage, and nothing is told after it. `release` holds it until the end has come,
for DRAIN_S at most.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from math import inf

from llmproxy_core.body import Passing, Sink
from llmproxy_core.errors import InternalError, ProxyError, raise_unless_bug
from llmproxy_core.llm import Timeouts
from llmproxy_server import transport_words
from llmproxy_server.transport_clock import UnderWay
from llmproxy_server.wire.upstream_answer import COMPLETE, Answer
from llmproxy_server.wire.upstream_connection import UpstreamConnection

READ_BUFFER_BYTES = 65_536
"""The kernel is not read on while more than twice this waits for the reader."""
MOST_WAITING_BYTES = 2 * READ_BUFFER_BYTES
DRAIN_S = 1.0
"""How long the rest of a complete answer is waited for, so that its connection can be kept."""

_log = logging.getLogger("llmproxy")


class UpstreamBody(Answer):
    """
    A Body, once the head is here. What came before a failure is given before that is raised.

    While it holds its connection it is under way.
    """

    __slots__ = (
        "_closed", "_connection", "_due", "_fed", "_feeding", "_first_due", "_held_back", "_idle_s", "_passing",
        "_paused", "_sink", "_taken", "_time", "_timeouts", "_under_way", "_unsent", "_upload", "_waiter",
        "_waiting_bytes",
    )  # fmt: skip

    # All that it begins with is set by `UpstreamCall.send`, in the one step that makes the call.
    _connection: UpstreamConnection | None
    _under_way: UnderWay[UpstreamConnection]
    _timeouts: Timeouts
    _upload: asyncio.Task[None] | None
    _unsent: bool  # the request, or a part of it
    _waiter: asyncio.Future[None] | None
    _waiting_bytes: int  # with their framing
    _taken: bool
    _closed: bool
    _held_back: bool  # the upstream, by us
    _sink: Sink | None
    _paused: bool  # by the sink
    _feeding: bool
    _due: float  # when the wait that goes on must end
    _first_due: float  # when the body's first byte must be here; from the head on
    _passing: Passing | None  # of the sink, since it was fed last; from the head on
    _fed: bool  # from here on, once it is attached
    _idle_s: float
    _time: Callable[[], float]

    # -- news ----------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """There may be news, for the sink or for the reader."""
        if self._sink is not None:
            self._feed()
        elif self._closed:
            self._drop_parts()
        elif self.parts or self._connection is None:
            self._wake()
            if self._waiting_bytes > MOST_WAITING_BYTES:
                self._hold_back()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _drop_parts(self) -> None:
        """Nobody reads any more; what comes until the end is not much, or not worth the connection."""
        self.parts.clear()
        if self._waiting_bytes > MOST_WAITING_BYTES:
            self.close()

    # -- read ----------------------------------------------------------------------------------------------------

    pushes = True

    def whole(self) -> bytes | None:
        """All of it, if it came in the same read as the head, or before anybody asked."""
        if self.stage is not COMPLETE or self._taken or self._closed:
            return None
        self._closed = True
        parts = self.parts
        return parts.pop() if len(parts) == 1 else self._take_parts()

    async def read(self) -> bytes:
        """What has come, at least a byte; b"" at the end."""
        if self._closed:
            return b""
        while not self.parts:
            if self._connection is None:
                return self._end()
            await self._wait()
        return self._take_parts()

    async def _wait(self) -> None:
        self._expect_more()
        self._waiter = waiter = self._under_way.loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
            self._due = inf

    def _take_parts(self) -> bytes:
        parts = self.parts
        if len(parts) == 1:
            data = parts.pop()
        else:
            data = b"".join(parts)
            parts.clear()
        self._taken = True
        self._waiting_bytes = 0
        if self._held_back:
            self._read_on()
        return data

    def _end(self) -> bytes:
        failure = self.failure
        if failure is None:
            return b""
        # A copy: with the traceback of this one we would hold the frames that hold us.
        raise copy.copy(failure) if isinstance(failure, ProxyError) else failure

    def _hold_back(self) -> None:
        connection = self._connection
        if not self._held_back and connection is not None and connection.transport is not None:
            self._held_back = True
            connection.transport.pause_reading()

    def _read_on(self) -> None:
        self._held_back = False
        connection = self._connection
        if connection is not None and connection.transport is not None:
            connection.transport.resume_reading()

    # -- pushed --------------------------------------------------------------------------------------------------

    def attach(self, sink: Sink) -> None:
        """Push to *sink* from now on; what is here already at once."""
        if self._closed:
            return
        self._sink = sink
        self._idle_s = self._timeouts.idle_s or inf
        self._time = self._under_way.loop.time
        self._fed = False
        self._expect_more()
        self._feed()

    def pause(self) -> None:
        self._paused = True
        self._passing = None
        self._due = inf

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._expect_more()
            self._feed()

    def _feed(self) -> None:
        """Give the sink what is here, unless it has enough, and then the end, if that is here."""
        sink = self._sink
        if sink is None or self._feeding:  # or: it resumed us while it was fed
            return
        self._feeding = True
        parts = self.parts
        try:
            while parts and not self._paused:
                data = parts.pop() if len(parts) == 1 and not self._waiting_bytes else self._take_parts()
                if self._fed:  # the clocks know of a wait that ends no later than this one
                    self._due = self._time() + self._idle_s
                else:
                    self._fed = self._taken = True
                    self._expect_more()
                sink.feed(data)
            if self._connection is None:
                if self._sink is not None and not (parts or self._paused):
                    self._sink = None
                    failure = self.failure
                    sink.end(failure if failure is None or isinstance(failure, ProxyError) else _not_passed_on())
            elif self._waiting_bytes > MOST_WAITING_BYTES:
                self._hold_back()
        except BaseException as bug:  # noqa: BLE001 - the sink's bug; the connection must live on without it
            raise_unless_bug(bug)
            self._give_up(sink)
        finally:
            self._feeding = False

    def _give_up(self, sink: Sink) -> None:
        """The sink has a bug, which is logged; it must still learn that nothing more comes."""
        _log.exception("the body of an answer could not be passed on")
        told = self._sink is None
        self.close()
        if not told:
            sink.end(_not_passed_on())

    def _expect_more(self) -> None:
        """The next piece is waited for from now on."""
        if self._connection is None:
            return
        idle_s = self._timeouts.idle_s
        idle_due = self._under_way.loop.time() + idle_s if idle_s else inf
        self._wait_until(idle_due if self._taken else self._first_due)

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection now, unless the end has come."""
        self._stop()
        if self._connection is not None:
            self.break_off(transport_words.cut(self._host))
            self._let_go()
        self._wake()

    def release(self) -> None:
        """Keep the connection if the end comes soon; what comes until then is bounded by the read buffer."""
        if self._closed:
            return
        if self._connection is None and not self.parts:
            self._closed = True
            self._sink = None
            return
        self._stop()
        if self._connection is not None:
            if self._held_back:
                self._read_on()
            self._wait_until(self._under_way.loop.time() + DRAIN_S)

    def _stop(self) -> None:
        self._closed = True
        self._sink = self._passing = None
        self.parts.clear()
        self._waiting_bytes = 0

    def _let_go(self) -> None:
        """The answer is over, one way or the other: the connection can be kept if it ended well, and was all asked."""
        connection = self._connection
        if connection is None:
            return
        self._connection = None
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None
        if self.stage is not COMPLETE or not self._keeps or self._unsent or self.spoiled:
            connection.abort()
            return
        if self._held_back and connection.transport is not None:
            connection.transport.resume_reading()
        connection.pool.put(connection)

    def _wait_until(self, due: float) -> None:
        """A wait begins; whoever ends it sets `_due` to inf."""
        self._due = due
        if due < self._under_way.at:
            self._under_way.look_by(due)


def _not_passed_on() -> InternalError:
    return InternalError("The answer could not be passed on")
