"""An exchange that has completed, and is finished a moment later since nobody waits to be told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmproxy_core import End, Exchange, Money, Outcome, Reply, ReplyHead, Tasks, UpstreamCut, Usage
from llmproxy_core.testing import FakeClock
from tests.llmproxy_core.conversation import CHAT, COST, DIALECT, PRICE, USED, exchange, own_request, whole


def answered(call: Exchange) -> Reply:
    head = ReplyHead(USED, "gpt-4o-mini", ("stop",))
    return Reply(call, whole("Hi"), dialect=DIALECT, api=CHAT, head=head, llm="main", price=PRICE)


@pytest.mark.parametrize("end", list(End))
async def test_whoever_finishes_it_later_it_ended_well_and_when_it_did(tasks: Tasks, end: End) -> None:
    clock = FakeClock()
    call = exchange(tasks, clock=clock)
    response = answered(call)
    clock.advance(2.0)
    assert call.completes(response)
    clock.advance(5.0)
    before = call.outcome

    call.finish(end, None if end is End.COMPLETED else UpstreamCut("too late"))

    assert before is None
    assert call.outcome is not None
    assert response.outcome is not None
    assert [(it.end, it.error, it.ended_s) for it in (call.outcome, response.outcome)] == [
        (End.COMPLETED, None, call.started_s + 2.0)
    ] * 2
    assert (call.outcome.usage, call.outcome.cost) == (USED, Money(COST))


async def test_who_asks_to_be_told_meanwhile_is_told(tasks: Tasks) -> None:
    call, told = exchange(tasks), list[Outcome]()
    response = answered(call)
    assert call.completes(response)
    call.on_finish(told.append)
    call.on_billed(told.append)
    response.on_finish(told.append)

    call.finish(End.ABANDONED)

    assert [outcome.end for outcome in told] == [End.COMPLETED] * 3


def _nothing(_: Outcome) -> None: ...


WAITING: dict[str, Callable[[Exchange, Reply], object]] = {
    "the end": lambda call, _: call.on_finish(_nothing),
    "the bill": lambda call, _: call.on_billed(_nothing),
    "the response's end": lambda _, response: response.on_finish(_nothing),
    "a child": lambda call, _: call.child(own_request()),
    "a detached one": lambda call, _: call.detach(own_request()),
    "another response": lambda call, _: answered(call),
}


@pytest.mark.parametrize("what", WAITING)
async def test_it_is_finished_at_once_where_somebody_waits_for_it(tasks: Tasks, what: str) -> None:
    call = exchange(tasks)
    response = answered(call)
    WAITING[what](call, response)

    assert not call.completes(response)
    call.finish(End.REFUSED)

    assert call.outcome is not None
    assert call.outcome.end is End.REFUSED


async def test_a_detached_one_is_billed_to_its_origin_at_once(tasks: Tasks) -> None:
    call = exchange(tasks)
    flight = call.detach(own_request())

    assert not flight.completes(answered(flight))
    flight.finish(End.COMPLETED)


async def test_a_child_that_is_begun_meanwhile_ends_with_it(tasks: Tasks) -> None:
    call = exchange(tasks)
    assert call.completes(answered(call))
    child = call.child(own_request())

    call.finish(End.COMPLETED)

    assert child.outcome is not None
    assert child.outcome.end is End.ABANDONED
    assert call.outcome is not None
    assert call.outcome.usage == Usage(USED.input_tokens, USED.output_tokens)


async def test_nobody_is_told_of_what_is_finished_alone_and_all_is_known_of_it(tasks: Tasks) -> None:
    clock, told = FakeClock(), list[Outcome]()
    calls = [exchange(tasks, clock=clock) for _ in range(2)]
    responses = [answered(call) for call in calls]
    calls[0].record(Told(told))
    clock.advance(2.0)
    assert all(call.completes(response) for call, response in zip(calls, responses, strict=True))
    clock.advance(5.0)

    alone = calls[0].finish_alone()
    calls[1].finish(End.COMPLETED)

    assert told == []
    assert alone is calls[0].outcome
    assert alone == calls[1].outcome
    assert responses[0].outcome == responses[1].outcome
    assert calls[0].finish_alone() is None
    calls[0].on_finish(told.append)
    calls[0].on_billed(told.append)
    assert told == [alone, alone]


@pytest.mark.parametrize("what", WAITING)
async def test_what_somebody_waits_for_meanwhile_is_not_finished_alone(tasks: Tasks, what: str) -> None:
    call = exchange(tasks)
    response = answered(call)
    assert call.completes(response)
    WAITING[what](call, response)

    assert call.finish_alone() is None
    assert call.outcome is None
    call.finish(End.COMPLETED)


async def test_what_has_not_completed_is_not_finished_alone(tasks: Tasks) -> None:
    call = exchange(tasks)
    answered(call)

    assert call.finish_alone() is None
    assert call.outcome is None
    call.finish(End.REFUSED)


class Told:
    def __init__(self, told: list[Outcome]) -> None:
        self.finished = self.billed = told.append
