"""One call at the edge, from its head to the last byte of its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from math import inf

from llmproxy_core.deadline import STAINLESS_TIMEOUT, TIMEOUT_MS, deadline, deadline_exceeded
from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.endpoint import Endpoint, EndpointRequest
from llmproxy_core.errors import BadRequest, InternalError, Overloaded, ProxyError, forget_tracebacks, raise_unless_bug
from llmproxy_core.exchange import Exchange
from llmproxy_core.gateway import Gateway
from llmproxy_core.node import record
from llmproxy_core.outcome import End
from llmproxy_core.relay import Flow, Whole, as_asked, deliver
from llmproxy_core.request import Request
from llmproxy_core.response import Response
from llmproxy_core.routing import Match
from llmproxy_server.abandoned import Abandoned, drains
from llmproxy_server.admission import Ticket
from llmproxy_server.answer import Answer
from llmproxy_server.call_body import ComingBody
from llmproxy_server.call_stream import CallStream
from llmproxy_server.door import Door
from llmproxy_server.door_answer import endpoint_answer, error_answer, made_here
from llmproxy_server.door_body import check_body, check_coding, check_json, too_large
from llmproxy_server.door_origin import is_preflight, preflight_headers
from llmproxy_server.door_request import BodySource, Client, ClientGone, Incoming
from llmproxy_server.transport_clock import UnderWay

_log = logging.getLogger("llmproxy")
# As globals a fifth as dear: each call asks for them.
_OPAQUE, _COMPLETED, _ABANDONED = Operation.OPAQUE, End.COMPLETED, End.ABANDONED

GRACE_S = 0.1
"""How long after its deadline a call is ended from here: its LLM, or the queue it is in, knows better what was late."""


@record(eq=False, repr=False)
class Call:
    """
    Answers one request. Made by the edge, per call.

    A task runs it, until the answer is complete, or a stream that nobody looks into: that one is pushed from its
    upstream to the client, and no task is left. When the client leaves, the task is cancelled, at whatever await that
    is, and the exchange ends as abandoned at once, in that task; that of a pushed stream ends right there. Where the
    route would have the answer drained, all goes on with nobody as its client (`abandoned`), and the exchange ends as
    abandoned when the answer has ended.
    """

    door: Door
    """What it began with."""
    incoming: Incoming
    _source: BodySource
    client: Client
    _limited: UnderWay[Call]
    """Where those with a deadline are looked at."""
    request_id: str
    answer: Answer
    address: str
    """Of the peer, until the door has told whom that speaks for."""
    began_s: float
    """By the gateway's clock."""
    exchange: Exchange | None = None
    _dialect: Dialect | None = None
    """None until the path has told."""
    _ticket: Ticket | ComingBody | None = None
    """What it holds of what there is for all."""
    _coming: ComingBody | None = None
    stream: CallStream | None = None
    """Once it is known that the answer is one, until all is over."""
    handed_on: bool = False
    """The end is no more the business of the task that runs it."""
    _stopping: ProxyError | None = None
    """What its client is told, while it is being stopped."""
    _is_cut: bool = False
    """Whether its task was cancelled because the client has left: nobody is told."""
    _due_s: float = inf
    """When it is to be ended: its deadline, from its head on, and a little more."""
    _task: asyncio.Task[None] | None = None
    _is_running: bool = False
    """Whether that has taken its first step: a task that is cancelled before runs nothing at all."""
    _abandoned: Abandoned | None = None
    """In the client's place, which has left: the answer is drained."""

    # -- for the log ---------------------------------------------------------------------------------------------

    @property
    def method(self) -> str:
        return self.incoming.method

    @property
    def path(self) -> str:
        return self.incoming.path

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def _gateway(self) -> Gateway:
        return self.door.shared.gateway

    # -- its life ------------------------------------------------------------------------------------------------

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer the request, in a task; its client is told when that is `over`."""
        self._task = loop.create_task(self._run())

    async def _run(self) -> None:
        self._is_running = True
        try:
            try:
                await self._served()
                return
            except asyncio.CancelledError as cancelled:
                if (found := self._why(cancelled)) is None:
                    raise
                error = found
            except ClientGone:
                raise
            except ProxyError as known:
                error = known
            except BaseException as bug:  # noqa: BLE001 - the last seam: the client gets an answer, the log the cause
                raise_unless_bug(bug)
                error = self._internal(bug)
            await self.fail(error)
        except (ClientGone, asyncio.CancelledError) as left:
            self._left(left)
        finally:
            if not self.handed_on:
                self.end()

    def _left(self, error: BaseException) -> None:
        """
        The client has left, of which *error* told.

        Who cancelled the task does not wait for it, so that error is not raised again: the task would keep it, and all
        that is in the frames that it passed.
        """
        self._abandon()
        forget_tracebacks(error)

    def _abandon(self) -> None:
        if self.exchange is not None:
            self.exchange.finish(_ABANDONED)
        elif not self.status:
            self.door.shared.recorder.left(self)

    def end(self) -> None:
        """Nothing is left to be done."""
        if self.stream is not None:
            self.stream.leave()
        self.stream = self._task = None  # each may hold us
        if (exchange := self.exchange) is not None and (exchange.outcome is not None or exchange.has_tried_more):
            exchange.forget_tracebacks()
        if self._ticket is not None:
            self._ticket.leave()
        self.client.over()

    def leave(self) -> None:
        """The client has left: the call ends, or its answer is drained, as its route says."""
        if not self.goes_on():
            self._cut()

    @property
    def is_abandoned(self) -> bool:
        """Whether its client has left, and it goes on."""
        return self._abandoned is not None

    def goes_on(self) -> bool:
        """Whether the call goes on without its client, as its route says: from now on nobody is in that one's place."""
        if self._abandoned is not None:  # a write has failed before anybody told of it
            return True
        exchange, stream = self.exchange, self.stream
        if exchange is None or exchange.outcome is not None or not self._source.complete:
            return False
        policy = next(it.config for it in self._gateway.routes if it.name == exchange.route).on_disconnect
        if not drains(policy, exchange, None if stream is None else stream.flow):
            return False
        exchange.forsake()
        self._abandoned = abandoned = Abandoned(self.client, policy, exchange, self._cut)
        self.client = self.answer.client = abandoned
        if stream is not None:
            stream.go_on()  # a client that took nothing may have held it
        abandoned.watch()
        return True

    def _cut(self) -> None:
        """End the call now, without a word."""
        if self.stream is not None and self.stream.pushing:
            self._abandon()
            self.end()
        elif self._task is not None:
            self._is_cut = True
            self._task.cancel()
            if not self._is_running:
                self._abandon()
                self.end()

    def stop(self) -> None:
        """End the call now: the time to drain is over. Its client is told."""
        self._stop(_shutting_down())

    def _stop(self, error: ProxyError) -> None:
        """End the call now, and tell its client of *error*."""
        if self._abandoned is not None:
            self._cut()
        elif self.stream is not None and self.stream.pushing:
            self.rest(partial(self.fail, error))
        elif self._task is not None and not self._task.done():
            self._task.cancel()
            if self._is_running:
                self._stopping = error
            else:
                self.rest(partial(self.fail, error))

    def check(self, now: float) -> float:
        """See Timed: the call is ended when its deadline is over, whatever it waits for."""
        if now < self._due_s:
            return self._due_s
        exchange = self.exchange
        is_answered = self.answer.head_sent if exchange is None else exchange.outcome is not None
        if not is_answered and self._stopping is None:
            error: ProxyError = deadline_exceeded()
            if exchange is not None and exchange.tries is not None:
                error = exchange.tries.last_word(error)
            self._stop(error)
        return inf

    def tick(self, now: float) -> None:
        """Called now and then while it runs: what is due by the clock. *now* is of the gateway's clock."""
        if self._coming is not None:
            self._coming.tick(now)
        if self.stream is not None:
            with suppress(ClientGone):  # the task that runs the call learns of it by its cancellation
                self.stream.tick(now)

    def _why(self, cancelled: asyncio.CancelledError) -> ProxyError | None:
        """
        The error that the cancellation stands for; None: the client has left, and it goes on.

        Not raised again here: this frame would hold it, and it this frame and, in those of the call, its bodies.
        """
        if self._is_cut:
            return None
        task = self._task
        assert task is not None
        while task.uncancel():
            pass
        if (error := self._stopping) is not None:
            self._stopping = None
            return error
        # A plugin cancelled the task that it runs in, or let the cancellation of one of its own escape.
        return self._internal(cancelled)

    def _internal(self, bug: BaseException) -> InternalError:
        error = InternalError(f"Internal error; the log has its cause under the request id {self.request_id}")
        error.__cause__ = bug
        return error

    # -- the request ---------------------------------------------------------------------------------------------

    def _served(self) -> Coroutine[None, None, None]:
        """
        Look at the head; give what answers the request.

        No coroutine itself: one more that all waits go through would cost each of them.
        """
        door, incoming, answer = self.door, self.incoming, self.answer
        if door.callers.trusts:
            self.address = door.callers.address(incoming)
        if (usual := incoming.usual or door.usual(incoming)) is not None:
            incoming.usual = usual
            answer.keep_alive, answer.cors = incoming.keep_alive, door.unasked
            return self._serve_match(usual)
        door.check(incoming)
        answer.keep_alive = incoming.keep_alive  # where heads are doubtful, so is what follows
        answer.cors = door.cors(incoming)
        if incoming.method == "OPTIONS" and is_preflight(incoming):
            return self._send(Whole(204, list(preflight_headers(incoming)), "", b""))
        if door.is_own(incoming.path):
            return self._serve_own(door.endpoint(incoming))
        try:
            match = door.match(incoming)
        except BadRequest:  # the path is ambiguous: so may be what is meant by the rest
            answer.keep_alive = False
            raise
        self._dialect, answer.id_name = match.dialect, match.dialect.request_id_header
        check_body(match, incoming)
        door.note_usual(incoming, match)
        return self._serve_match(match)

    async def _serve_own(self, endpoint: Endpoint) -> None:
        incoming = self.incoming
        body = b""
        if incoming.length:
            check_coding(incoming.headers)
            check_json(incoming.headers)
            body = await self._body().of_own()
        asked = EndpointRequest(
            incoming.method, incoming.path, incoming.query, incoming.headers, body, self._gateway.processors
        )
        shared = self.door.shared
        shared.recorder.backlog.write()  # it may show what was
        if endpoint.merge is not None and shared.fan_out is not None:
            reply = await shared.fan_out.everywhere(endpoint, asked)
        else:
            reply = await endpoint.handle(asked)
        await self._send(endpoint_answer(reply))
        shared.recorder.log.own(self)

    async def _serve_match(self, match: Match) -> None:
        """Answer what is in order as far as its head tells. *match* is what it asks of the routes."""
        shared, incoming, source = self.door.shared, self.incoming, self._source
        admission = shared.admission
        self._dialect = match.dialect
        self.answer.id_name = match.dialect.request_id_header
        config, content = match.route.config, None
        limit_s, said = config.deadline_s, incoming.headers.first
        asked = TIMEOUT_MS in said or STAINLESS_TIMEOUT in said
        deadline_s = self._deadline(limit_s, asked=asked) if asked or limit_s is not None else None
        limit = shared.config.max_body_bytes if config.max_body_bytes is None else config.max_body_bytes
        if source.complete and admission.in_flight < admission.limit and match.operation is not _OPAQUE:
            body = source.take()
            if len(body) > limit:
                raise too_large(limit)
            self._ticket = admission.enter(len(body))
        else:
            body, content = await self._body().of(match, deadline_s)
        if match.others and body:
            match = match.as_said(body)
            self._dialect = match.dialect
        api = match.api
        request = Request(
            operation=match.operation,
            dialect=match.dialect,
            api=api,
            method=incoming.method if api is None else api.method,
            path=incoming.path,
            query=incoming.query,
            headers=incoming.headers,
            body=body,
            content=content,
            path_model=match.path_model,
            relative_path=match.relative_path,
        )
        gateway = shared.gateway
        self.exchange = exchange = gateway.begin(
            match, request, request_id=self.request_id, address=self.address, deadline_s=deadline_s
        )
        for observe in shared.observers:
            observe(exchange)
        recorded = shared.recorder.begin(self, exchange)
        response = await gateway.handle(exchange)
        shared.recorder.answered(recorded, response)
        assert exchange.client is not None
        whole = as_asked(response, exchange.client)
        if whole is None or self._abandoned is not None or not exchange.completes(response):
            await self._deliver(response, whole, exchange)
            return
        self.answer.send(made_here(whole) if whole.own else whole, exchange.response_headers)
        recorded.completed(len(whole.body))  # it may be written down at once, with the status that was sent
        if self.client.blocked:
            await shared.admission.unsent.taken(self.client)

    async def _deliver(self, response: Response, whole: Whole | None, exchange: Exchange) -> None:
        """Send *response*, as *whole* if that is known, when all is told of it that there is to be told."""
        assert exchange.client is not None
        if whole is not None:
            response.finish(_COMPLETED)
        else:
            delivered = await deliver(response, exchange.client)
            if isinstance(delivered, Flow):
                self.stream = CallStream(self, delivered, exchange)
                await self.stream.send()
                return
            whole = delivered
        self.answer.status = whole.status
        exchange.finish(_COMPLETED if self._abandoned is None else _ABANDONED)
        if exchange.settling:
            await self.settle(exchange)
        await self._send(made_here(whole) if whole.own else whole)

    def _deadline(self, most_s: float | None, *, asked: bool) -> float | None:
        """
        When the call must be over, by the gateway's clock, its route giving it *most_s*: from its head on.

        *asked*: the client may have said how long it waits.
        """
        if asked or most_s is None:
            deadline_s = deadline(self.began_s, most_s, self.incoming.headers.first)
            if deadline_s is None:
                return None
        else:
            deadline_s = self.began_s + most_s
        self._due_s = due_s = deadline_s + GRACE_S
        if due_s < self._limited.at:  # else it is looked at before that anyhow, as nearly all are
            self._limited.look_by(due_s)
        return deadline_s

    def _body(self) -> ComingBody:
        """What gets the body, and the place of the call with it."""
        proceed = self.answer.proceed
        coming = ComingBody(self.door.shared, self.incoming, self._source, self.address, proceed)
        self._ticket = self._coming = coming
        return coming

    # -- the answer ----------------------------------------------------------------------------------------------

    async def _send(self, whole: Whole) -> None:
        self.answer.send(whole, [] if self.exchange is None else self.exchange.response_headers)
        if self.client.blocked:
            await self.door.shared.admission.unsent.taken(self.client)

    def rest(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do what is left, of a pushed stream or before anything was begun, in a task, and end."""
        if self.stream is not None:
            self.stream.pushing = False
        self.handed_on = True
        self._is_running = False
        self._task = asyncio.get_running_loop().create_task(self._to_end(work))

    async def _to_end(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        self._is_running = True
        try:
            await work()
        except (ClientGone, asyncio.CancelledError) as left:
            self._left(left)
        finally:
            self.end()

    def hold(self) -> None:
        """The client does not take what was written."""
        if self.stream is not None:
            self.stream.hold()

    def go_on(self) -> None:
        """The client takes more."""
        if self.stream is not None:
            self.stream.go_on()

    async def settle(self, exchange: Exchange) -> None:
        """Give the effects of the exchange's end their time, also when that to drain is over."""
        try:
            await exchange.settled(self.door.shared.config.settle_timeout_s)
        except asyncio.CancelledError:
            if self._stopping is None or self._task is None or self._task.uncancel():
                raise
            self._stopping = None

    # -- failure -------------------------------------------------------------------------------------------------

    async def fail(self, error: ProxyError) -> None:
        """Tell the client of *error*: by a status, or in the stream that has begun."""
        if isinstance(error, InternalError) and error.__cause__ is not None:
            _log.error("request %s failed: %s", self.request_id, error.message, exc_info=error.__cause__)
        exchange = self.exchange
        if self.stream is not None:
            self.stream.stop_clocks()
        if exchange is not None and self._abandoned is not None:  # nobody is left to be told
            exchange.finish(_ABANDONED, error)
            return
        if exchange is not None:
            exchange.finish(End.of(error), error)
            await self.settle(exchange)
        else:
            self.door.shared.recorder.refused(self, error)
            forget_tracebacks(error)
        if not self.answer.head_sent:
            dialect = self._dialect or self.door.spoken(self.incoming)
            whole = self._told(error, dialect)
            self.door.shared.recorder.log.told(self, whole)
            await self._send(whole)
        elif self.stream is not None:
            self.stream.break_off(error)
        else:
            self.answer.break_off()

    def _told(self, error: ProxyError, dialect: Dialect) -> Whole:
        """What tells of *error*; where a plugin made one that cannot be told, of that."""
        try:
            return error_answer(error, dialect, self.request_id)
        except BaseException as bug:  # noqa: BLE001 - whatever it is made of, its client gets an answer
            raise_unless_bug(bug)
            _log.error("the error of request %s cannot be told", self.request_id, exc_info=bug)
            return error_answer(self._internal(bug), dialect, self.request_id)


def _shutting_down() -> Overloaded:
    return Overloaded("The proxy is shutting down; try again", code="shutting_down")
