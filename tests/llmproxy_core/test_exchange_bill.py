"""Who pays for what: whatever order exchanges, children and detached ones end in, each call is billed exactly once."""

import asyncio
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import End, Exchange, Money, Outcome, Price, Reply, Tasks, Usage
from llmproxy_core.attempt import Attempt
from llmproxy_core.dialect import ReplyHead
from llmproxy_core.pipeline import Step, compose
from llmproxy_core.trace_context import TraceContext
from tests.llmproxy_core.conversation import CHAT, COST, DIALECT, PRICE, USED, Doing, exchange, own_request, whole

# -- any order -------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Node:
    """An exchange, and what must become of it."""

    exchange: Exchange
    payer: "Node | None"
    """Whose bill it goes on: None of a client's own call, and of one that nobody can be billed for."""
    parts: list["Node"] = attrs.field(factory=list)
    """What goes on its own bill."""
    own: Usage = attrs.field(factory=Usage)
    """Of its own responses, made while it was not over."""
    bills: list[Outcome] = attrs.field(factory=list)
    ends: list[Outcome] = attrs.field(factory=list)
    told_early: bool = False

    @property
    def over(self) -> bool:
        return self.exchange.outcome is not None

    @property
    def billed(self) -> bool:
        """Whether its bill must be complete: children are over with it, detached ones take their time."""
        return self.over and all(part.billed for part in self.parts)

    def total(self) -> Usage:
        return sum((part.total() for part in self.parts), self.own)


class World:
    """Exchanges that come from each other, and what is done to them."""

    def __init__(self, tasks: Tasks) -> None:
        self.nodes: list[Node] = []
        self._tasks = tasks
        self._used = 0

    def call(self) -> Node:
        return self._add(exchange(self._tasks), None)

    def _add(self, made: Exchange, payer: Node | None) -> Node:
        node = Node(made, payer)
        self.nodes.append(node)
        if payer is not None:
            payer.parts.append(node)

        def billed(outcome: Outcome) -> None:
            node.told_early |= not node.billed or len(node.ends) != 1
            node.bills.append(outcome)

        made.on_finish(node.ends.append)
        made.on_billed(billed)
        return node

    def child(self, node: Node) -> None:
        self._add(node.exchange.child(own_request()), None if node.over else node)

    def detach(self, node: Node) -> None:
        root = node
        while root.exchange.parent is not None:
            root = next(it for it in self.nodes if it.exchange is root.exchange.parent)
        self._add(node.exchange.detach(own_request()), None if root.over else root)

    def answer(self, node: Node) -> None:
        self._used += 1
        usage = Usage(self._used, 1)  # so that no two sums are alike
        if not node.over:
            node.own += usage
        reply = Reply(
            node.exchange, b"{}", dialect=DIALECT, api=CHAT, head=ReplyHead(usage), llm="x", price=Price(1, 0)
        )
        if self._used % 2:  # the others are open at the end
            reply.finish(End.COMPLETED)

    def finish(self, node: Node) -> None:
        node.exchange.finish(End.COMPLETED)

    def finish_from_within(self, node: Node) -> None:
        """The node ends when another does: a flight ends as its last reader leaves."""
        for other in self.nodes:
            if other is not node and not other.over:
                other.exchange.on_finish(lambda outcome: node.exchange.finish(End.ABANDONED))
                return


VERBS: list[Callable[[World, Node], None]] = [
    World.child,
    World.detach,
    World.detach,
    World.answer,
    World.answer,
    World.finish,
    World.finish_from_within,
]
steps = st.lists(st.tuples(st.sampled_from(range(len(VERBS))), st.integers(0, 30)), max_size=30)


@given(steps)
def test_whatever_ends_first_everything_is_billed_once_and_to_who_caused_it(steps: list[tuple[int, int]]) -> None:
    async def run() -> None:
        world = World(Tasks())
        world.call()
        for verb, index in steps:
            VERBS[verb](world, world.nodes[index % len(world.nodes)])
            _check(world)
        for node in world.nodes:
            node.exchange.finish(End.ABANDONED)
        _check(world)
        assert all(len(node.bills) == 1 for node in world.nodes)

    asyncio.run(run())


def _check(world: World) -> None:
    for node in world.nodes:
        assert len(node.ends) == node.over
        assert len(node.bills) == node.billed
        assert not node.told_early
        if node.billed:
            (bill,) = node.bills
            assert (bill.usage or Usage()) == node.total()
            assert bill.end is node.ends[0].end
            assert bill.error is node.ends[0].error


# -- one by one ------------------------------------------------------------------------------------------------------


def _paid(owner: Exchange) -> None:
    Reply(owner, whole("x"), dialect=DIALECT, api=CHAT, head=ReplyHead(USED), llm="x", price=PRICE).finish(
        End.COMPLETED
    )


async def test_without_anything_detached_the_bill_is_the_outcome(tasks: Tasks) -> None:
    call, told = exchange(tasks), list[Outcome]()
    call.on_billed(told.append)
    _paid(call)

    call.finish(End.COMPLETED)

    assert told == [call.outcome]
    assert told[0].cost == Money(COST)


async def test_the_outcome_that_was_handed_out_does_not_change(tasks: Tasks) -> None:
    call, told = exchange(tasks), list[Outcome]()
    call.on_billed(told.append)
    shared = call.detach(own_request())
    _paid(call)
    call.finish(End.COMPLETED)
    handed_out, before = call.outcome, attrs.evolve(call.outcome) if call.outcome else None

    _paid(shared)
    shared.finish(End.FAILED)

    assert handed_out is call.outcome == before
    assert [outcome.cost for outcome in told] == [Money(2 * COST)]
    assert told[0].end is End.COMPLETED  # its own: the other's failure was not the call's


async def test_the_bill_comes_after_the_end_even_when_a_callback_ends_what_was_detached(tasks: Tasks) -> None:
    call, order = exchange(tasks), list[str]()
    shared = call.detach(own_request())
    _paid(shared)
    call.on_billed(lambda bill: order.append(f"billed {bill.cost}"))
    call.on_finish(lambda outcome: shared.finish(End.ABANDONED))
    call.on_finish(lambda outcome: order.append(f"finished {outcome.cost}"))

    call.finish(End.ABANDONED)

    assert order == ["finished None", f"billed {Money(COST)}"]


async def test_bills_are_told_inner_processors_first(tasks: Tasks) -> None:
    order: list[str] = []

    def named(name: str) -> Step:
        async def note(call: Exchange, call_next: object) -> Reply:
            call.on_billed(lambda bill: order.append(name))
            call.on_finish(lambda outcome: order.append(f"{name} ends"))
            assert callable(call_next)
            return await call_next(call)  # type: ignore[no-any-return]

        return Step(name, Doing(note))

    async def send(call: Exchange) -> Reply:
        return Reply(call, whole("x"), dialect=DIALECT, api=CHAT)

    call = exchange(tasks)
    call.on_billed(lambda bill: order.append("edge"))
    await compose([named("outer"), named("inner")], send)(call)
    shared = call.detach(own_request())
    call.finish(End.COMPLETED)
    before = list(order)
    shared.finish(End.COMPLETED)

    assert before == ["inner ends", "outer ends"]
    assert order[2:] == ["inner", "outer", "edge"]


async def test_who_asks_for_the_bill_too_late_gets_it_at_once_or_when_it_is_complete(tasks: Tasks) -> None:
    call, told = exchange(tasks), list[str]()
    shared = call.detach(own_request())
    call.finish(End.COMPLETED)
    call.on_billed(lambda bill: told.append("waited"))
    assert told == []

    shared.finish(End.COMPLETED)
    call.on_billed(lambda bill: told.append("at once"))

    assert told == ["waited", "at once"]


async def test_what_a_child_detaches_is_billed_to_the_call_when_the_child_is_long_over(tasks: Tasks) -> None:
    call, bills, of_child = exchange(tasks), list[Outcome](), list[Outcome]()
    call.on_billed(bills.append)
    child = call.child(own_request())
    child.on_billed(of_child.append)
    shared = child.detach(own_request())
    child.finish(End.COMPLETED)
    call.finish(End.COMPLETED)
    assert (len(of_child), bills) == (1, [])

    _paid(shared)
    shared.finish(End.COMPLETED)

    assert [bill.cost for bill in bills] == [Money(COST)]
    assert of_child[0].cost is None


async def test_after_the_end_nothing_can_be_detached_that_nobody_would_pay_for(tasks: Tasks) -> None:
    background = set[Exchange]()
    call = Exchange(own_request(), id="7", route="/", tasks=tasks, clock=lambda: 0.0, background=background)
    call.finish(End.ABANDONED)

    late = call.detach(own_request())

    assert late.outcome is not None
    assert late.outcome.end is End.ABANDONED
    assert background == set()


async def test_a_callback_of_the_end_may_still_detach(tasks: Tasks) -> None:
    call, bills, late = exchange(tasks), list[Outcome](), list[Exchange]()
    call.on_billed(bills.append)
    call.on_finish(lambda outcome: late.append(call.detach(own_request())))
    call.finish(End.COMPLETED)
    assert bills == []

    _paid(late[0])
    late[0].finish(End.COMPLETED)

    assert [bill.cost for bill in bills] == [Money(COST)]


async def test_a_bill_callback_that_fails_keeps_no_other_from_its_own(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    call, bills = exchange(tasks), list[Outcome]()

    def fail(bill: Outcome) -> None:
        raise ZeroDivisionError("a bug")

    async def later(bill: Outcome) -> None:
        bills.append(bill)

    call.on_billed(fail)
    call.on_billed(later)
    shared = call.detach(own_request())
    call.finish(End.COMPLETED)
    shared.finish(End.COMPLETED)
    await call.settled(5)

    assert len(bills) == 1
    assert len(caplog.records) == 1


# -- attempts and the log --------------------------------------------------------------------------------------------


def _attempt(owner: Exchange, llm: str) -> None:
    owner.attempts.append(Attempt(llm, None, 0.0))


async def test_attempts_of_children_and_theirs_are_the_calls_child_attempts(tasks: Tasks) -> None:
    call = exchange(tasks)
    child = call.child(own_request())
    grandchild = child.child(own_request())
    for owner, name in [(call, "own"), (child, "child"), (grandchild, "grandchild")]:
        _attempt(owner, name)
    child.finish(End.COMPLETED)

    assert [it.llm for it in call.attempts] == ["own"]
    assert [it.llm for it in call.child_attempts] == ["child", "grandchild"]
    assert [it.llm for it in child.child_attempts] == ["grandchild"]


async def test_what_is_detached_makes_the_attempts_of_who_detached_it(tasks: Tasks) -> None:
    """However late: whoever learns from the attempts of a call, at its bill, learns from these."""
    call = exchange(tasks)
    child = call.child(own_request())
    of_call, of_child = call.detach(own_request()), child.detach(own_request())
    child.finish(End.COMPLETED)
    call.finish(End.COMPLETED)

    _attempt(of_call, "call's")
    _attempt(of_child, "child's")
    helper = of_call.child(own_request())
    _attempt(helper, "helper's")

    assert [it.llm for it in call.attempts] == ["call's"]
    assert [it.llm for it in call.child_attempts] == ["child's", "helper's"]


async def test_the_calls_of_processors_are_kept_as_they_were_made(tasks: Tasks) -> None:
    call = exchange(tasks)
    call.trace = TraceContext(1, 2, sampled=True)
    child = call.child(own_request())
    grandchild = child.child(own_request())
    detached = call.detach(own_request())
    helper = detached.child(own_request())
    for each in (grandchild, child, helper):
        each.finish(End.COMPLETED)

    first, second = call.child_calls
    assert [it.attempts for it in (first, second)] == [child.attempts, helper.attempts]
    assert [it.attempts for it in first.calls] == [grandchild.attempts]
    assert [it.ended_s for it in (first, second)] == [each.outcome and each.outcome.ended_s for each in (child, helper)]
    assert len({0, *(it.span_id for it in (first, second, *first.calls))}) == 4, "each has a span of its own"
    assert grandchild.trace is detached.trace is call.trace
