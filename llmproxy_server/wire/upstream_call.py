"""
One call over a connection: its request goes out, its answer comes in, and is the body that is read or pushed.

    answer (see upstream_answer)   connection            what is told
    HEAD                           held                  nothing
    a body's stage                 held                  the head; then parts, to the reader or the sink
    COMPLETE                       kept, or closed       the end, after all parts
    BROKEN                         closed                the failure, after all parts

`close` lets go of the connection in any stage, and nothing is told after it. `release` holds it until the end has come,
for DRAIN_S at most.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncIterator
from math import inf

from llmproxy_core.body import Sink
from llmproxy_core.errors import InternalError, ProxyError
from llmproxy_core.llm import Timeouts
from llmproxy_core.tasks import Tasks
from llmproxy_server import transport_words
from llmproxy_server.transport_clock import UnderWay
from llmproxy_server.transport_request import LAST_CHUNK
from llmproxy_server.wire.upstream_answer import BROKEN, CHUNKED, COMPLETE, HEAD, Answer
from llmproxy_server.wire.upstream_connection import UpstreamConnection
from llmproxy_server.wire_head import chunk

READ_BUFFER_BYTES = 65_536
"""The kernel is not read on while more than twice this waits for the reader."""
DRAIN_S = 1.0
"""How long the rest of a complete answer is waited for, so that its connection can be kept."""
_SMALL = 1 << 16  # bytes that are worth a copy to save a system call
_MOST_WAITING_BYTES = 2 * READ_BUFFER_BYTES

_log = logging.getLogger("llmproxy")


class UpstreamCall(Answer):
    """
    `send`, await what that gives, look at `failure`; if there is none, it is the Body.

    What came before a failure is given before that is raised. While it holds its connection it is *under_way*.
    """

    __slots__ = (
        "_closed", "_connection", "_due", "_feeding", "_first_due", "_held_back", "_loop", "_paused", "_sink", "_taken",
        "_timeouts", "_total_due", "_under_way", "_unsent", "_upload", "_waiter", "_waiting_bytes", "unheard",
    )  # fmt: skip

    def __init__(
        self,
        connection: UpstreamConnection,
        host: str,
        timeouts: Timeouts,
        began: float,
        under_way: UnderWay[UpstreamCall],
        *,
        of_head: bool,
    ) -> None:
        """*began* is the loop's time at which the call began."""
        super().__init__(host, of_head=of_head)
        self._connection: UpstreamConnection | None = connection
        self._timeouts = timeouts
        self._loop = under_way.loop
        self._under_way = under_way
        self._closed = False
        self._sink: Sink | None = None
        self._feeding = False
        self._paused = False  # by the sink
        self._held_back = False  # the upstream, by us
        self._waiting_bytes = 0  # with their framing
        self._taken = False
        self._unsent = True
        self._upload: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.unheard = True
        """Whether the upstream has said nothing at all; once it is gone, it may be asked again."""
        self._first_due = inf  # when the body's first byte must be here
        self._due = inf  # when the wait that goes on must end
        self._total_due = began + timeouts.total_s if timeouts.total_s else inf
        connection.call = self
        under_way.add(self)
        under_way.look_by(self._total_due)

    # -- the request ---------------------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes | AsyncIterator[bytes] | None, tasks: Tasks) -> asyncio.Future[None]:
        """
        Write the request; the future is done when the head of the answer is here, or a failure.

        What cannot be written at once follows, while the answer may come already.
        """
        connection = self._connection
        assert connection is not None
        transport = connection.transport
        assert transport is not None  # nothing has happened since it was found open
        if body is None or isinstance(body, bytes):
            if not body or len(body) <= _SMALL:
                transport.write(head + body if body else head)
            else:
                transport.write(head)
                transport.write(body)
            if not connection.blocked:
                self._sent()
        else:
            transport.write(head)
            self._upload = tasks.start(self._send_pieces(body, connection), name="upload")
        waiter = self._waiter = self._loop.create_future()
        return waiter

    async def _send_pieces(self, body: AsyncIterator[bytes], connection: UpstreamConnection) -> None:
        try:
            async for piece in body:
                if piece:  # an empty chunk would be the last one
                    await connection.write(chunk(piece))
            await connection.write(LAST_CHUNK)
        except Exception as error:  # noqa: BLE001 - the caller's iterator may raise what it likes, and it passes on
            self._upload = None
            self.fail(error)
        else:
            self._upload = None
            self.unblocked()

    def unblocked(self) -> None:
        """The upstream has taken what was written: if that is all, the wait for its answer begins."""
        connection = self._connection
        if self._unsent and self._upload is None and connection is not None and not connection.blocked:
            self._sent()

    def _sent(self) -> None:
        """All of the request is on its way."""
        self._unsent = False
        first_byte_s = self._timeouts.first_byte_s
        if self.stage is HEAD and first_byte_s:
            self._wait_until(self._loop.time() + first_byte_s)

    # -- what happens on the connection --------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes of the upstream have come."""
        self.unheard = False
        before = self.stage
        if before is CHUNKED:
            self._take_chunks(data)
        else:
            self.take(data)
        stage = self.stage
        if stage is COMPLETE or stage is BROKEN:
            self._let_go()
        if before is HEAD:
            if stage is HEAD:
                return
            self._begin_body()
        if self.parts:
            self._waiting_bytes += len(data)
        if self._sink is not None:
            self._feed()
        else:
            self._tell()

    def _begin_body(self) -> None:
        """The head is here, or what is none."""
        first_byte_s = self._timeouts.first_byte_s
        self._first_due = self._loop.time() + first_byte_s if first_byte_s else inf
        self._due = inf
        self._wake()

    def left(self) -> None:
        """The upstream sends nothing more."""
        self.take_end()
        self._let_go()
        self._tell()

    def lost(self) -> None:
        """The connection is gone."""
        if self._connection is not None:
            self.break_off(transport_words.cut(self._host))
            self._let_go()
            self._tell()

    def _let_go(self) -> None:
        """The answer is over, one way or the other: the connection can be kept if it ended well, and was all asked."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._due = inf
        self._under_way.discard(self)
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.cancel()
        if self._unsent or not self.can_follow:
            connection.abort()
            return
        if self._held_back and connection.transport is not None:
            connection.transport.resume_reading()
        connection.release()

    def fail(self, error: Exception) -> None:
        """Have *error* told after what has come, unless all is over; close the connection."""
        if self._connection is not None:
            self.break_off(error)
            self._let_go()
            self._tell()

    def cut(self) -> None:
        """Have the reader, if there is one, find the answer cut."""
        self.fail(transport_words.cut(self._host))

    def _tell(self) -> None:
        """There may be news, for the sink or for the reader."""
        if self._sink is not None:
            self._feed()
        elif self._closed:
            self._drop_parts()
        elif self.parts or self._connection is None:
            self._wake()
            if self._waiting_bytes > _MOST_WAITING_BYTES:
                self._hold_back()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _drop_parts(self) -> None:
        """Nobody reads any more; what comes until the end is not much, or not worth the connection."""
        self.parts.clear()
        if self._waiting_bytes > _MOST_WAITING_BYTES:
            self.close()

    # -- read ----------------------------------------------------------------------------------------------------

    pushes = True

    def whole(self) -> bytes | None:
        """All of it, if it came in the same read as the head, or before anybody asked."""
        if self.stage is not COMPLETE or self._taken or self._closed:
            return None
        return self._take_parts() if self.parts else b""

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
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
            self._due = inf

    def _take_parts(self) -> bytes:
        parts = self.parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
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
        self._sink = sink
        self._expect_more()
        self._feed()

    def pause(self) -> None:
        self._paused = True
        self._due = inf

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._expect_more()
            self._feed()

    def _feed(self) -> None:
        """Give the sink what is here, unless it has enough, and then the end, if that is here."""
        if self._feeding:
            return  # it resumed us while it was fed
        sink = self._sink
        if sink is None or self._closed:
            return
        self._feeding = True
        try:
            while self.parts and not self._paused:
                data = self._take_parts()
                self._expect_more()
                sink.feed(data)
            if self._connection is None and self._sink is not None and not (self.parts or self._paused):
                self._sink = None
                failure = self.failure
                sink.end(failure if failure is None or isinstance(failure, ProxyError) else _not_passed_on())
            elif self._waiting_bytes > _MOST_WAITING_BYTES:
                self._hold_back()
        except Exception:  # noqa: BLE001 - the sink's bug, which is logged; the connection must live on without it
            _log.exception("the body of an answer could not be passed on")
            self._give_up(sink)
        finally:
            self._feeding = False

    def _give_up(self, sink: Sink) -> None:
        """The sink has a bug; it must still learn that nothing more comes."""
        told = self._sink is None
        self.close()
        if not told:
            sink.end(_not_passed_on())

    def _expect_more(self) -> None:
        """The next piece is waited for from now on."""
        if self._connection is None:
            return
        idle_s = self._timeouts.idle_s
        self._due = due = self._first_due if not self._taken else self._loop.time() + idle_s if idle_s else inf
        if due < self._under_way.at:
            self._under_way.look_by(due)

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
        self._stop()
        if self._connection is not None:
            if self._held_back:
                self._read_on()
            self._wait_until(self._loop.time() + DRAIN_S)

    def _stop(self) -> None:
        self._closed = True
        self._sink = None
        self.parts.clear()
        self._waiting_bytes = 0

    # -- time ----------------------------------------------------------------------------------------------------

    def _wait_until(self, due: float) -> None:
        """A wait begins; whoever ends it sets `_due` to inf."""
        self._due = due
        self._under_way.look_by(due)

    def check(self, now: float) -> float:
        """End the call if it, or the wait that goes on, takes too long; say when to look again."""
        if self._total_due <= now:
            self.fail(transport_words.total_timeout(self._host, self._timeouts))
        elif self._due <= now:
            self._due = inf
            if self._closed:
                self.close()
            elif not self.parts:
                late = transport_words.idle_timeout if self._taken else transport_words.first_byte_timeout
                self.fail(late(self._host, self._timeouts))
        return inf if self._connection is None else min(self._due, self._total_due)


def _not_passed_on() -> InternalError:
    return InternalError("The answer could not be passed on")
