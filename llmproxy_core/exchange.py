"""One call: the request, who asked, and everything opened in its name until its one end."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from math import inf
from operator import itemgetter
from types import TracebackType
from typing import Any, Protocol

import attrs

from llmproxy_core.attempt import Attempt, ChildCall, ShownAttempts
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProxyError, forget_tracebacks, raise_unless_bug
from llmproxy_core.layer import Layer, running
from llmproxy_core.money import Money
from llmproxy_core.node import record
from llmproxy_core.notes import Notes
from llmproxy_core.outcome import End, OnFinish, Outcome
from llmproxy_core.request import ClientView, Request
from llmproxy_core.resilience.budget import RetryBudget
from llmproxy_core.resilience.tries import Tries
from llmproxy_core.tasks import Tasks
from llmproxy_core.trace_context import TraceContext, new_span_id

_log = logging.getLogger("llmproxy")
Clock = Callable[[], float]
"""Seconds of a monotonic clock."""


@attrs.frozen
class Caller:
    """
    Who asks. Until keys exist there is one, `anonymous`: a presented credential is never an identity.

    *tenant* is whom the caller belongs to; the same name of two tenants is two callers.
    """

    name: str = "anonymous"
    tenant: str = ""


ANONYMOUS = Caller()
_DEPTH = itemgetter(0)
_COMPLETED, _ABANDONED = End.COMPLETED, End.ABANDONED  # as globals a fifth as dear: each call asks for them


class Owned(Protocol):
    """What an exchange ends with itself: its responses."""

    @property
    def is_awaited(self) -> bool:
        """Whether anybody is to be told of its end, but its exchange."""
        ...

    @property
    def outcome(self) -> Outcome | None: ...

    def cost_so_far(self) -> Money | None: ...

    def finish(self, end: End, error: ProxyError | None = None, *, ended_s: float | None = None) -> None: ...


class Recording(Protocol):
    """Who writes a call down. It must not raise: the call has yet to be ended."""

    def finished(self, outcome: Outcome) -> None:
        """The exchange is over; all callbacks of `on_finish` were called."""
        ...

    def billed(self, bill: Outcome) -> None:
        """All is over that it pays for; all callbacks of `on_billed` were called."""
        ...


@record(eq=False, repr=False)
class Exchange:
    """
    The one mutable object of a call.

    It owns every response opened under it and every child. `finish` may be called by anybody, any number of times
    and at any moment: the first call decides, ends what is still open, and runs the callbacks; nothing in it awaits,
    so that a cancelled task can always call it.
    """

    request: Request
    id: str = attrs.field(kw_only=True)
    route: str = attrs.field(kw_only=True)
    _tasks: Tasks = attrs.field(kw_only=True)
    """Where what goes on after it is run."""
    clock: Clock = attrs.field(kw_only=True)
    client: ClientView | None = attrs.field(kw_only=True, default=None)
    """None for a child, whose answer no client gets."""
    caller: Caller = attrs.field(kw_only=True, default=ANONYMOUS)
    address: str = attrs.field(kw_only=True, default="")
    """The client's, as whose it waits where callers take turns; "" for none. What is asked in its name has it too."""
    deadline_s: float | None = attrs.field(kw_only=True, default=None)
    """When the call must be over, by `clock`; None for no limit of its own."""
    parent: Exchange | None = attrs.field(kw_only=True, default=None)
    _background: set[Exchange] | None = attrs.field(kw_only=True, default=None)
    """The gateway's detached ones."""
    operation: Operation = attrs.field(init=False)
    started_s: float = attrs.field(init=False)
    attempts: list[Attempt] = attrs.field(init=False, factory=list)
    log_fields: dict[str, object] = attrs.field(init=False, factory=dict)
    """What processors have to say in its log line: numbers, text, lists of these. Names of ours cannot be taken."""
    response_headers: list[tuple[str, str]] = attrs.field(init=False, factory=list)
    """Headers of our own for the client, (lower-case name, value)."""
    trace: TraceContext | None = attrs.field(init=False, default=None)
    """Its place in a trace; None where nobody traces: a trace of the client's is then passed on as it came."""
    outcome: Outcome | None = attrs.field(init=False, default=None)
    _responses: list[Owned] = attrs.field(init=False, factory=list)
    _callbacks: list[tuple[int, OnFinish]] | None = attrs.field(init=False, default=None)
    settling: list[asyncio.Task[None]] = attrs.field(init=False, factory=list)
    """Async callbacks that were called: where there are any, `settled` may wait."""
    _billing: list[tuple[int, OnFinish]] | None = attrs.field(init=False, default=None)
    _completed_s: float | None = attrs.field(init=False, default=None)
    """When it had completed, though it is not finished yet."""
    _told: bool = attrs.field(init=False, default=False)
    """Whether the outcome is complete: callbacks of responses run while it is summed up."""
    _bill: Outcome | None = attrs.field(init=False, default=None)
    """Its outcome so far, with that of what it detached."""
    _recording: Recording | None = attrs.field(init=False, default=None)
    _notes: Notes | None = attrs.field(init=False, default=None)  # as others below, made for the few that need it
    _children: list[Exchange] | None = attrs.field(init=False, default=None)
    child_calls: Sequence[ChildCall] = attrs.field(init=False, default=())
    """
    The calls that processors made in its name, and in that of what it detached; a list once there are any.

    They hold lists that grow: what a child detached may make an attempt when the child is over.
    """
    _call_made: ChildCall | None = attrs.field(init=False, default=None)
    """Of a child: what its parent keeps of it."""
    _origin: Exchange | None = attrs.field(init=False, default=None)
    """Who is billed for it, of a detached exchange."""
    _detached: set[Exchange] | None = attrs.field(init=False, default=None)
    """What it detached and is not yet billed for."""
    tries: Tries | None = attrs.field(init=False, default=None)
    """Those that are left, while an LLM that tries again answers it."""
    retry_budget: RetryBudget | None = attrs.field(init=False, default=None)
    """Of the LLM that is being asked, where that has one."""
    awaited: Clock | None = attrs.field(init=False, default=None)
    """Gives `until_s` where that is no matter of its own deadline: of a call that several wait for."""
    passed_over: Sequence[Attempt] = attrs.field(init=False, default=())
    """Those that would have been attempts, had the LLM been fit for it: nothing was sent."""
    _paid: list[Outcome] | None = attrs.field(init=False, default=None)
    """The bills of what it detached and is over, while it is not."""

    def __post_init__(self) -> None:
        self.operation = self.request.operation
        self.started_s = self.clock()

    @property
    def layer(self) -> Layer:
        """The processor that runs now: orders `on_finish` callbacks inner to outer, and owns what is subscribed."""
        return running.get()

    @property
    def notes(self) -> Notes:
        """What processors tell each other about it."""
        if self._notes is None:
            self._notes = Notes()
        return self._notes

    def pass_over(self, attempt: Attempt) -> None:
        """*attempt* would have been made, and was not."""
        self.passed_over = (*self.passed_over, attempt)

    @property
    def child_attempts(self) -> list[Attempt]:
        """The attempts of its children, and of theirs, and of the children of what it detached."""
        return list(_attempts(self.child_calls))

    # -- who waits for it ----------------------------------------------------------------------------------------

    def until_s(self) -> float:
        """
        Until when somebody waits for its answer, by `clock`; inf for no limit, -inf when nobody does any more.

        It may change at any time. What has begun goes on; nothing is begun that only could be over later.
        """
        own_s = inf if self.deadline_s is None else self.deadline_s
        if self.awaited is not None:
            own_s = min(own_s, self.awaited())
        return own_s if self.parent is None else min(own_s, self.parent.until_s())

    def forsake(self) -> None:
        """Its client has left: what has begun goes on, no other try is made for nobody."""
        self.awaited = _never

    # -- what belongs to it --------------------------------------------------------------------------------------

    def attempt(self, llm: str, model: str | None) -> Attempt:
        """
        The record of a call that *llm* is about to make of the request as it is now; put it into `attempts`.

        RuntimeError when this is over: nobody would pay for the call.
        """
        if self.outcome is not None:
            raise RuntimeError(f"exchange {self.id} is over: ask before its end, or `detach` before it what goes on")
        attempt = Attempt(llm, model, self.clock(), request=self.request)
        if self.trace is not None and self.trace.sampled:
            attempt.span_id = new_span_id()
        return attempt

    def own(self, response: Owned) -> None:
        """Take charge of *response*: it ends with the exchange at the latest. Called by the response itself."""
        if self.outcome is not None:  # a task that went on after the client had left
            response.finish(End.ABANDONED)
        else:
            self._responses.append(response)

    def child(self, request: Request) -> Exchange:
        """
        An exchange for another model call in this one's name: same caller and deadline, its cost added to this one's.

        Send it straight to an LLM, as `async with exchange.child(request) as child: await llm.send(child)`. What is to
        be read when that is over, read inside. One of an exchange that is over is over, too, and no LLM answers it.
        """
        child = self._derive(request, parent=self)
        child.settling = self.settling  # who waits for the parent's effects waits for all
        traced = self.trace is not None and self.trace.sampled
        call = ChildCall(running.get().name, child.attempts, child.started_s, span_id=new_span_id() if traced else 0)
        child._call_made, child.child_calls = call, call.calls
        self._shared_calls().append(call)
        self._adopt(child)
        return child

    def branch(self) -> Exchange:
        """
        This exchange once more, for an LLM that is asked while another one is: its request may be swapped apart.

        All that an LLM may look at is this one's, the client, tries and notes too. Its attempts are this one's as soon
        as they are made, and it ends with this one at the latest. Whoever makes it must give it back, to `join`.
        """
        branch = self._derive(self.request, parent=self)
        branch.client, branch.tries = self.client, self.tries
        branch._notes = self.notes
        branch.attempts = ShownAttempts(self.attempts)
        branch.child_calls = self._shared_calls()
        branch.settling = self.settling
        self._adopt(branch)
        return branch

    def join(self, branch: Exchange, *, lost: bool = False) -> None:
        """
        Take over what was made in *branch*, which is over: its responses, callbacks, and what it tells the client.

        Its attempts become the last ones, and who has its response makes that one's `exchange` this one. *lost*: nobody
        wants its answer. What is open of it is then abandoned, and what it cost is all that this one takes.
        """
        for attempt in branch.passed_over:
            self.pass_over(attempt)
        if lost:
            branch.finish(End.ABANDONED)
            return
        made = set(map(id, branch.attempts))
        self.attempts[:] = [*(it for it in self.attempts if id(it) not in made), *branch.attempts]
        self.response_headers += branch.response_headers
        self.log_fields.update(branch.log_fields)
        if self._children is not None and branch.outcome is None:  # else all of it has ended with this one
            self._children.remove(branch)
            self._children += branch._children or ()
            branch._children = None
            self._responses += branch._responses
            branch._responses.clear()
            self._callbacks, branch._callbacks = [*(self._callbacks or ()), *(branch._callbacks or ())], None
            self._billing, branch._billing = [*(self._billing or ()), *(branch._billing or ())], None
        branch.finish(End.COMPLETED)

    def _adopt(self, child: Exchange) -> None:
        """Have *child* end with this one."""
        if self.outcome is not None:
            child.finish(End.ABANDONED)
        else:
            self._children = self._children or []
            self._children.append(child)

    def detach(self, request: Request) -> Exchange:
        """
        A background exchange of the gateway's, for work that several exchanges share: it outlives this one.

        Same caller and client, the notes as they are now, no deadline but the LLM's own: it must not be cut for those
        who wait longer than this one. Whoever detaches it tells until when somebody waits (`awaited`), and must finish
        it. Its attempts are this one's too, and this one is billed for it (`on_billed`): of a child, the exchange it is
        a child of.
        """
        exchange = self._derive(request, parent=None)
        exchange.deadline_s = None
        exchange.client = self.client
        exchange._notes = None if self._notes is None else self._notes.copy()
        exchange.attempts = self.attempts
        origin = self
        while origin.parent is not None:
            origin = origin.parent
        exchange.child_calls = origin._shared_calls()
        if origin._bill is None:
            exchange._origin = origin
            origin._detached = origin._detached or set()
            origin._detached.add(exchange)
        else:  # a task that went on after the client had left: nobody would be billed
            exchange.finish(End.ABANDONED)
        if self._background is not None and exchange.outcome is None:
            self._background.add(exchange)
        return exchange

    def _shared_calls(self) -> list[ChildCall]:
        if not isinstance(self.child_calls, list):
            self.child_calls = []
        return self.child_calls

    def _derive(self, request: Request, *, parent: Exchange | None) -> Exchange:
        derived = Exchange(
            request,
            id=self.id,
            route=self.route,
            tasks=self._tasks,
            clock=self.clock,
            caller=self.caller,
            address=self.address,
            deadline_s=self.deadline_s,
            parent=parent,
            background=self._background,
        )
        derived.trace = self.trace
        return derived

    async def __aenter__(self) -> Exchange:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, ProxyError):
            self.finish(End.of(error), error)
        else:
            self.finish(End.FAILED if isinstance(error, Exception) else End.ABANDONED)

    def cost_so_far(self) -> Money | None:
        """
        What has been spent up to now in its name, children and detached ones included; None where a price is unknown.

        Of an answer under way that is an estimate. A call that was not answered yet is not in it.
        """
        spent = Money()
        for cost in self._costs():
            if cost is None:
                return None
            spent += cost
        return spent

    def _costs(self) -> Iterator[Money | None]:
        if self.outcome is not None:
            yield _spent(self._bill or self.outcome)
        else:
            for response in self._responses:
                yield response.cost_so_far() if response.outcome is None else _spent(response.outcome)
            for child in self._children or ():
                yield from child._costs()
            for part in self._paid or ():
                yield _spent(part)
        for detached in self._detached or ():
            yield from detached._costs()

    # -- its end -------------------------------------------------------------------------------------------------

    def on_finish(self, callback: OnFinish) -> None:
        """
        Call *callback* once with the exchange's outcome, over all attempts and children, inner processors' first.

        What it detached is in it as far as that is over: `on_billed` has all of it.
        On an exchange that is over it runs at once: a reservation made while the client was leaving is released.
        """
        if self.outcome is not None and self._told:
            self.settle(callback, self.outcome)
        else:
            self._callbacks = self._callbacks or []
            self._callbacks.append((running.get().depth, callback))

    def on_billed(self, callback: OnFinish) -> None:
        """
        Call *callback* once all is over that this exchange pays for: itself, and what it detached.

        Its outcome is the exchange's, with the usage and cost of these added: the whole bill. Mostly it runs right
        after the callbacks of `on_finish`; later, when a detached exchange outlives this one.
        """
        if self.outcome is not None and self._bill is not None and not self._detached:
            self.settle(callback, self._bill)
        else:
            self._billing = self._billing or []
            self._billing.append((running.get().depth, callback))

    def record(self, recording: Recording) -> None:
        """Have *recording* told of the end, after all others. There is one of a call that has just begun."""
        self._recording = recording

    def completes(self, response: Owned) -> bool:
        """
        Note that it has completed with *response* now, if nobody is to be told: `finish` may then be called later.

        False: it must be finished at once.
        """
        if self._alone() is not response:
            return False
        self._completed_s = self.clock()
        return True

    def _alone(self) -> Owned | None:
        """The one response, where nobody is to be told of the end but who records it."""
        if self._callbacks or self._billing or self._children or self._detached or self._paid or self._origin:
            return None
        responses = self._responses
        if len(responses) != 1 or self._call_made is not None or responses[0].is_awaited:
            return None
        return responses[0]

    def finish_alone(self) -> Outcome | None:
        """
        Finish it as it `completes`, if there is still nobody to be told; its recording is not told either.

        Gives its outcome, which is the whole bill. None: nothing was done, and `finish` has more to do than this.
        """
        completed_s = self._completed_s
        if completed_s is None or self.outcome is not None or (response := self._alone()) is None:
            return None
        response.finish(_COMPLETED, ended_s=completed_s)
        part = response.outcome
        assert part is not None
        self.outcome = self._bill = outcome = Outcome(
            _COMPLETED,
            None,
            part.usage,
            part.cost,
            part.model,
            part.response_id,
            part.finish,
            None,
            self.started_s,
            part.first_byte_s,
            completed_s,
        )
        self._responses.clear()  # as in `finish`
        self.tries = self.retry_budget = self._recording = None
        self.awaited = _never
        self._told = True
        return outcome

    def finish(self, end: End, error: ProxyError | None = None) -> None:
        """End the exchange, unless it has ended: what is still open under it is abandoned, callbacks run."""
        if self.outcome is not None:
            return
        completed_s, children, open_end = self._completed_s, self._children or (), _ABANDONED
        if completed_s is not None:
            end, error, open_end = _COMPLETED, None, _COMPLETED
        self.outcome = outcome = Outcome(end, error, started_s=self.started_s)
        for child in children:
            child.finish(_ABANDONED)
        for response in self._responses:
            if response.outcome is None:
                response.finish(open_end, ended_s=completed_s)
        self._sum(outcome, children)
        # They hold the exchange: the cycle would keep the bodies of all in memory until a collection.
        self._responses.clear()
        self._children = self.tries = self.retry_budget = None
        self.awaited = _never
        outcome.ended_s = self.clock() if completed_s is None else completed_s
        if self._call_made is not None:
            self._call_made.ended_s = outcome.ended_s
        if self._background is not None:
            self._background.discard(self)
        self._told = True
        if self._callbacks:
            self._call(self._callbacks, outcome)
        if self._recording is not None:
            self._recording.finished(outcome)
        self._bill = outcome if self._paid is None else self._with_paid(outcome)
        if not self._detached:
            self._billed()

    def _with_paid(self, bill: Outcome) -> Outcome:
        """*bill*, with what was detached and that a callback of its end has ended."""
        paid, self._paid = self._paid or (), None
        for part in paid:
            bill = _with_part(bill, part)
        return bill

    def _call(self, callbacks: list[tuple[int, OnFinish]], outcome: Outcome) -> None:
        if len(callbacks) > 1:
            callbacks.sort(key=_DEPTH, reverse=True)  # stable: those of one processor stay in their order
        for _, callback in callbacks:
            self.settle(callback, outcome)
        callbacks.clear()

    def _billed(self) -> None:
        """The bill is complete."""
        assert self._bill is not None
        if self._billing:
            self._call(self._billing, self._bill)
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.billed(self._bill)
        if self._origin is not None:
            origin, self._origin = self._origin, None
            origin._add_to_bill(self, self._bill)

    def _add_to_bill(self, detached: Exchange, part: Outcome) -> None:
        assert self._detached is not None
        self._detached.discard(detached)
        if self._bill is None:
            self._paid = [*(self._paid or ()), part]  # it is summed up when this one ends
            return
        self._bill = _with_part(self._bill, part)
        if not self._detached:
            self._billed()

    def _sum(self, outcome: Outcome, children: Sequence[Exchange]) -> None:
        """Add up what was used: the responses' own model and body are those of the last that was answered with."""
        last: Outcome | None = None
        for response in self._responses:
            if (part := response.outcome) is not None:
                _add(outcome, part)
                last = part
        for child in children:
            if child.outcome is not None:
                _add(outcome, child.outcome)
        if self._paid is not None:
            for part in self._paid:
                _add(outcome, part)
            self._paid = None
        if last is not None:
            outcome.model, outcome.finish, outcome.first_byte_s = last.model, last.finish, last.first_byte_s
            outcome.response_id = last.response_id

    def settle(self, callback: OnFinish, outcome: Outcome) -> None:
        """Run one callback, isolated from the others: a sync one here, an async one in a task of the gateway's."""
        try:
            waiting = callback(outcome)
        except BaseException as bug:  # noqa: BLE001 - isolated: whatever one plugin's callback does, the others still run
            raise_unless_bug(bug)
            _log.exception("a finish callback of exchange %s failed", self.id)
            return
        if waiting is not None and inspect.isawaitable(waiting):
            self.settling.append(self._tasks.start(_wait(waiting), name="settle"))

    @property
    def has_tried_more(self) -> bool:
        """Whether more was asked than one answer of one LLM."""
        return len(self.attempts) > 1 or bool(self.child_calls)

    def forget_tracebacks(self) -> None:
        """
        Cut what the errors under it hold of the frames that they passed; to be called when nobody raises any of them.

        The frames hold the exchange: a cycle that would keep its bodies in memory until a collection.
        """
        if self.outcome is not None:
            forget_tracebacks(self.outcome.error)
        for attempt in (*self.attempts, *self.child_attempts):
            forget_tracebacks(attempt.error)

    def may_repeat(self) -> bool:
        """Whether a call that a kept connection has lost may be made again; it is a try as any other, and a retry."""
        tries, budget = self.tries, self.retry_budget
        return tries is None or (tries.left > 0 and (budget is None or budget.take()))

    def note_repeated(self, attempt: Attempt) -> None:
        """*attempt* was made again over a new connection: a call as any other, also where it failed."""
        attempt.repeated = True
        if self.tries is not None:
            self.tries.left -= 1

    async def settled(self, timeout_s: float) -> None:
        """Wait until the async callbacks are done, at most *timeout_s* seconds; they go on after that."""
        if self.settling:
            await asyncio.wait(self.settling, timeout=timeout_s)


def _never() -> float:
    return -inf


def _attempts(calls: Sequence[ChildCall]) -> Iterator[Attempt]:
    for call in calls:
        yield from call.attempts
        yield from _attempts(call.calls)


def _spent(outcome: Outcome) -> Money | None:
    """What it came to; None where a model worked whose price nobody knows."""
    return Money() if outcome.usage is None and outcome.cost is None else outcome.cost


def _add(outcome: Outcome, part: Outcome) -> None:
    if part.usage is not None:
        outcome.usage = part.usage if outcome.usage is None else outcome.usage + part.usage
    if part.cost is not None:
        outcome.cost = part.cost if outcome.cost is None else outcome.cost + part.cost


def _with_part(outcome: Outcome, part: Outcome) -> Outcome:
    """*outcome*, which was handed out and so must not change, with *part* added."""
    whole = attrs.evolve(outcome)
    _add(whole, part)
    return whole


async def _wait(waiting: Any) -> None:
    await waiting
