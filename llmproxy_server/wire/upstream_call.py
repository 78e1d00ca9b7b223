"""
One call over a connection: its request goes out, its answer comes in, and is the body that is read or pushed.

    answer (see upstream_answer)   connection            what is told
    HEAD                           held                  nothing
    a body's stage                 held                  the head; then parts, to the reader or the sink
    COMPLETE                       kept, or closed       the end, after all parts
    BROKEN                         closed                the failure, after all parts

What is told, and the end by whoever reads, is in upstream_body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from math import inf
from time import monotonic

from llmproxy_core.errors import raise_unless_bug
from llmproxy_core.llm import Timeouts, UpstreamRequest
from llmproxy_core.tasks import Tasks
from llmproxy_server import transport_words
from llmproxy_server.transport_request import LAST_CHUNK
from llmproxy_server.wire.upstream_answer import (
    BROKEN,
    CHUNK_LINES,
    COMPLETE,
    HEAD,
    MOST_AT_A_GLANCE,
    one_chunk,
)
from llmproxy_server.wire.upstream_body import MOST_WAITING_BYTES, UpstreamBody
from llmproxy_server.wire.upstream_connection import UpstreamConnection
from llmproxy_server.wire_head import chunk

_SMALL = 1 << 16  # bytes that are worth a copy to save a system call


class UpstreamCall(UpstreamBody):
    """`expect` and `send` first, await what that gives, look at `failure`; if there is none, it is the Body."""

    __slots__ = ("_by_deadline", "_total_due", "unheard")

    _by_deadline: bool
    """What ends with `_total_due` is the time of the whole exchange."""
    _total_due: float
    unheard: bool
    """Whether the upstream has said nothing at all; once it is gone, it may be asked again."""

    # -- the request ---------------------------------------------------------------------------------------------

    def send(
        self,
        request: UpstreamRequest,
        head: bytes,
        connection: UpstreamConnection,
        timeouts: Timeouts,
        began: float,
        *,
        tasks: Tasks,
    ) -> asyncio.Future[None]:
        """
        Write *request*, of which *head* is the head; the future is done when that of the answer is here, or a failure.

        What cannot be written at once follows, while the answer may come already. *began* is the loop's time at which
        the call began.
        """
        under_way = connection.pool.under_way
        self._connection, self._under_way, self._timeouts = connection, under_way, timeouts
        self._waiting_bytes = 0
        self._taken = self._closed = self._held_back = self._paused = self._feeding = False
        self.unheard = self._unsent = True
        self._upload = self._sink = None
        total_s, left_s = timeouts.total_s or inf, request.left_s
        self._by_deadline = by_deadline = left_s < total_s
        self._total_due = due = began + (left_s if by_deadline else total_s)
        self._due = inf
        connection.call = self
        transport, loop, body = connection.transport, under_way.loop, request.body
        assert transport is not None  # nothing has happened since it was found open
        self._waiter = waiter = loop.create_future()
        if body is None or isinstance(body, bytes):
            if not body:
                transport.write(head)
            elif len(body) <= _SMALL:
                transport.write(head + body)
            else:
                transport.writelines((head, body))  # one system call, and no copy
            if not connection.blocked:  # the usual case of `_sent`
                self._unsent = False
                if timeouts.first_byte_s:
                    self._due = loop.time() + timeouts.first_byte_s
        else:
            transport.write(head)
            self._upload = tasks.start(self._send_pieces(body, connection), name="upload")
        request.sent_s = monotonic()
        if due < under_way.at or self._due < under_way.at:
            under_way.look_by(min(due, self._due))
        return waiter

    async def _send_pieces(self, body: AsyncIterator[bytes], connection: UpstreamConnection) -> None:
        try:
            async for piece in body:
                if piece:  # an empty chunk would be the last one
                    await connection.write(chunk(piece))
            await connection.write(LAST_CHUNK)
        except BaseException as error:  # noqa: BLE001 - the caller's iterator may raise what it likes, and it passes on
            raise_unless_bug(error)
            self._upload = None
            self.fail(error.with_traceback(None))  # which holds this frame, and that us
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
            self._wait_until(self._under_way.loop.time() + first_byte_s)

    # -- what happens on the connection --------------------------------------------------------------------------

    def received_head(self, data: bytes) -> None:
        """The same while the stage is HEAD: nobody reads yet, and whoever waits, waits for the head."""
        self.unheard = False
        self._take_head(data)
        stage, connection = self.stage, self._connection
        if stage is COMPLETE and self._keeps and not (self._unsent or self.spoiled) and connection is not None:
            self._connection = None  # the usual case of `_let_go`
            connection.pool.put(connection)
        elif stage is COMPLETE or stage is BROKEN:
            self._let_go()
        elif stage is HEAD:
            return
        else:
            self._begin_to_wait(data)
        waiter = self._waiter
        self._waiter = None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _begin_to_wait(self, data: bytes) -> None:
        """The head is here, and perhaps a part of the body, and more is to come."""
        first_byte_s = self._timeouts.first_byte_s
        self._first_due = self._under_way.loop.time() + first_byte_s if first_byte_s else inf
        self._due = inf
        self._passing = None
        if self.parts:
            self._waiting_bytes = len(data)
            if len(data) > MOST_WAITING_BYTES:
                self._hold_back()

    def received(self, data: bytes) -> None:
        """Bytes of the upstream have come, behind the head."""
        passing = self._passing
        if passing is not None:  # nearly all reads of a stream, which are one event, go no farther than this
            size = len(data)
            line = CHUNK_LINES[size] if size < MOST_AT_A_GLANCE else None
            try:
                if line is not None and passing.knows(data, line):
                    self._due = self._time() + self._idle_s
                    passing.passed = True
                    passing.send(data)
                    return
            except BaseException as bug:  # noqa: BLE001 - as in `_feed`
                raise_unless_bug(bug)
                if self._sink is not None:
                    self._give_up(self._sink)
                return
            self._passing = None
        self._received_other(data)

    def _received_other(self, data: bytes) -> None:
        """The same of what does not just pass."""
        sink, chunks = self._sink, self._chunks
        if (
            sink is not None
            and chunks is not None
            and chunks.between
            and self._fed
            and not (self._waiting_bytes or self._paused or self._feeding)
            and (piece := one_chunk(data))
        ):  # another event: what all that follows would come to
            self._due = self._time() + self._idle_s
            try:
                passing = sink.feed(piece)
            except BaseException as bug:  # noqa: BLE001 - as in `_feed`
                raise_unless_bug(bug)
                self._give_up(sink)
            else:
                if passing is not None and self._sink is sink and not self._paused:
                    self._passing = passing
            return
        if chunks is not None:
            self._take_chunks(data)
        else:
            self.take(data)
        stage = self.stage
        if stage is COMPLETE or stage is BROKEN:
            self._let_go()
        if self._sink is None:
            if self.parts:
                self._waiting_bytes += len(data)
            self._tell()
            return
        if self._paused or self._feeding:  # else it is fed at once
            self._waiting_bytes += len(data)
        self._feed()

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

    def fail(self, error: BaseException) -> None:
        """Have *error* told after what has come, unless all is over; close the connection."""
        if self._connection is not None:
            self.break_off(error)
            self._let_go()
            self._tell()

    def cut(self) -> None:
        """Have the reader, if there is one, find the answer cut."""
        self.fail(transport_words.cut(self._host))

    # -- time ----------------------------------------------------------------------------------------------------

    def check(self, now: float) -> float:
        """End the call if it, or the wait that goes on, takes too long; say when to look again."""
        if self._total_due <= now:
            self.fail(transport_words.total_timeout(self._host, self._timeouts, by_deadline=self._by_deadline))
        elif self._due <= now:
            self._due = inf
            if self._closed:
                self.close()
            elif not self.parts:
                late = transport_words.idle_timeout if self._taken else transport_words.first_byte_timeout
                self.fail(late(self._host, self._timeouts))
        return inf if self._connection is None else min(self._due, self._total_due)
