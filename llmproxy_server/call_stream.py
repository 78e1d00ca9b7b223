"""
An answer that goes to its client as it comes.

    pulled   the task of its call takes piece after piece: where something is subscribed to them, or the client is none
             that can be pushed to
    pushed   its upstream's connection gives them to the client's, and no task is left until the end
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Protocol

from llmproxy_core.body import Passing
from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.outcome import End
from llmproxy_core.relay import Flow
from llmproxy_server.answer import Answer
from llmproxy_server.door import Door
from llmproxy_server.door_answer import STREAM_HEADERS
from llmproxy_server.door_request import Client, ClientGone

HEAD_HELD_S = 1.0
"""
How long the head of a stream waits for the first piece, which waits for something that is answered.

They go out in one write, and an answer that fails before that can still have its own status.
"""


class StreamedCall(Protocol):
    """What a stream knows of the call that it answers."""

    door: Door
    answer: Answer
    client: Client
    """Now."""
    stream: CallStream | None
    """Until all is over."""
    handed_on: bool
    """Set once the end is no more the business of the task that runs it."""

    @property
    def is_abandoned(self) -> bool:
        """Whether its client has left, and it goes on."""
        ...

    def goes_on(self) -> bool:
        """Asked when the client is found to have left: whether the call goes on without it."""
        ...

    async def settle(self, exchange: Exchange) -> None:
        """Give the effects of the exchange's end their time."""
        ...

    async def fail(self, error: ProxyError) -> None:
        """Tell the client of *error*."""
        ...

    def rest(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do what is left of a pushed stream in a task, and end."""
        ...

    def end(self) -> None:
        """Nothing is left to be done."""
        ...


class CallStream:
    """Sends *flow*, the answer of *call*. It ends with the last chunk when it is complete, and without it when not."""

    __slots__ = (
        "_answer",
        "_call",
        "_clock",
        "_exchange",
        "_head_due_s",
        "_last_piece",
        "_passing",
        "_pulse_due_s",
        "_pulse_s",
        "flow",
        "pushing",
    )

    def __init__(self, call: StreamedCall, flow: Flow, exchange: Exchange) -> None:
        shared = call.door.shared
        self._call = call
        self.flow = flow
        self._exchange = exchange
        self._answer = call.answer
        self._clock = shared.gateway.services.clock
        self._head_due_s: float | None = self._clock() + HEAD_HELD_S
        self._pulse_s = shared.config.keepalive_s if flow.keepalive else 0.0  # 0.0: none
        self._pulse_due_s: float | None = None
        self._last_piece = b""  # of a pushed stream, while it ends
        self._passing: Passing | None = None  # of a pushed stream, once its head is sent
        self.pushing = False

    async def send(self) -> None:
        """Return when all is sent, or the stream is pushed. ProxyError: it failed before anything was sent of it."""
        call, flow, answer = self._call, self.flow, self._answer
        answer.status = flow.status  # it may end, and be written down, before its head is sent
        client = call.client
        if client.pushes and flow.pushes:
            self._push()
            return
        pieces = flow.pieces()
        try:
            piece = await anext(pieces, b"")
            self._head_due_s = None
            if self._failed_first():
                flow.finish()
                assert flow.error is not None
                raise flow.error
            try:
                self._begin(piece)
            except ClientGone:
                self._check_going_on()
            if client.blocked:
                client = await self._taken()
            self._expect_pulse()
            async for piece in pieces:
                try:
                    answer.write(piece)
                except ClientGone:
                    self._check_going_on()
                if client.blocked:
                    client = await self._taken()
                self._expect_pulse()
        finally:
            self._pulse_due_s = None
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
        self._finish()
        await call.settle(self._exchange)
        self._end()

    async def _taken(self) -> Client:
        """Wait until the client has taken enough; gives the client from now on. ClientGone when all ends with it."""
        try:
            await self._call.client.drain()
        except ClientGone:
            self._check_going_on()
        return self._call.client

    def _check_going_on(self) -> None:
        """The client is found to have left: ClientGone again, unless the call goes on without it."""
        if not self._call.goes_on():
            raise ClientGone

    # -- pushed --------------------------------------------------------------------------------------------------

    def _push(self) -> None:
        """Have it pushed to the client from now on. It may be over before this returns."""
        self._call.handed_on = self.pushing = True
        try:
            self.flow.attach(self._pushed, self._push_over)
        except BaseException:
            self._call.handed_on = self.pushing = False
            raise
        if self._call.client.blocked:  # since before this call: it will not be told again
            self.hold()

    def _pushed(self, piece: bytes) -> Passing | None:
        """A piece of the stream has come; gives how others like it may pass."""
        if self._call.stream is not self:
            return None
        if self.flow.ending and self.pushing:
            self._last_piece = piece  # goes out with the end, in one write
            return None
        answer = self._answer
        try:
            if answer.head_sent:
                answer.write(piece)
            elif self._failed_first():
                return None
            else:
                self._begin(piece)
        except ClientGone:
            return None  # of which we are about to be told
        self._expect_pulse()
        if self._passing is None and (send := answer.sends_chunks) is not None:
            self._passing = Passing(send)
        return self._passing

    def _push_over(self) -> None:
        """The stream has ended."""
        call, flow, exchange = self._call, self.flow, self._exchange
        if call.stream is not self or not self.pushing:
            return
        self._pulse_due_s = self._head_due_s = None
        if self._failed_first():
            flow.finish()
            assert flow.error is not None
            call.rest(partial(call.fail, flow.error))
            return
        self._finish()
        last, self._last_piece = self._last_piece, b""
        with suppress(ClientGone):  # of which we are about to be told
            if exchange.settling or not self._answer.head_sent:
                self._begin(last)
                last = b""
            if not exchange.settling:
                self._end(last)
        if exchange.settling:
            call.rest(self._end_settled)
        else:
            call.end()

    async def _end_settled(self) -> None:
        if not self._answer.head_sent:
            self._begin(b"")
        await self._call.settle(self._exchange)
        self._end()

    def hold(self) -> None:
        """The client does not take what was written: a pushed stream waits."""
        if self.pushing:
            self.flow.pause()

    def go_on(self) -> None:
        """The client takes more, or nobody is in its place."""
        if self.pushing:
            self.flow.resume()

    def leave(self) -> None:
        """Nothing more is taken of it."""
        self.pushing = False
        self.flow.detach()

    # -- both ----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """What is due by the clock: the head, or a sign of life. ClientGone."""
        if self._head_due_s is not None and now >= self._head_due_s:
            held = self.flow.release()
            self._begin(held)
            if held:
                self._expect_pulse()
        elif self._pulse_due_s is not None:
            if (passing := self._passing) is not None and passing.passed:
                passing.passed = False
                self._pulse_due_s = now + self._pulse_s
            elif now >= self._pulse_due_s and not self._call.client.blocked:
                self._pulse_due_s = now + self._pulse_s
                self._answer.write(self.flow.keepalive)

    def stop_clocks(self) -> None:
        """Nothing more is sent because it is time: the answer is about to be another one."""
        self._head_due_s = self._pulse_due_s = None

    def _expect_pulse(self) -> None:
        """From now on the silence counts after which the client is sent a sign of life; between events it may be."""
        if self._pulse_s:
            self._pulse_due_s = self._clock() + self._pulse_s

    def _failed_first(self) -> bool:
        """Whether it failed so early that its error can still have a status of its own, for who gets it."""
        if self.flow.error is None or self._answer.head_sent:
            return False
        return self.flow.only_failed and not self._call.is_abandoned

    def _begin(self, piece: bytes) -> None:
        """Send the head, unless that is done, and *piece*."""
        self._head_due_s = None
        if self._answer.head_sent:
            self._answer.write(piece)
            return
        flow = self.flow
        headers = flow.headers if flow.is_opaque else [*STREAM_HEADERS, *flow.headers]
        self._answer.begin(flow.status, headers, flow.content_type, self._exchange.response_headers, piece)

    def _finish(self) -> None:
        flow, exchange = self.flow, self._exchange
        if self._call.is_abandoned:  # the answer is complete, and yet nobody got it
            flow.finish_response()
            exchange.finish(End.ABANDONED, flow.error)
        flow.finish()
        exchange.finish(End.of(flow.error), flow.error)  # its own exchange may be another: a background one's answer

    def _end(self, last: bytes = b"") -> None:
        """End the answer, with *last* as its last piece."""
        if self.flow.error is None:
            self._answer.end(last)
        else:
            self._answer.break_off()
            self._answer.write(last)

    def break_off(self, error: ProxyError) -> None:
        """End it with *error*, in its own protocol, unless it has told of one."""
        if self.flow.error is None:
            self._answer.write(self.flow.last_words(error))
        self._answer.break_off()
