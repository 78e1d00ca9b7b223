"""One call, its one end, and everything that ends with it."""

import asyncio
import logging

import pytest

from llmproxy_core import (
    End,
    Exchange,
    Handler,
    Note,
    Outcome,
    Response,
    Tasks,
    UpstreamCut,
    Usage,
)
from llmproxy_core.testing import Answer
from tests.llmproxy_core.conversation import (
    SOON_S,
    Doing,
    exchange,
    opened,
    own_request,
    run,
    whole,
)

# -- notes -----------------------------------------------------------------------------------------------------------


async def test_processors_leave_notes_under_typed_keys(tasks: Tasks) -> None:
    count, other = Note[int]("count"), Note[int]("count")
    call = exchange(tasks)

    call.notes[count] = 3

    assert call.notes[count] == 3
    assert call.notes.get(count) == 3
    assert count in call.notes
    assert call.notes.get(other) is None  # keys are objects, not names: two plugins never collide
    assert other not in call.notes
    assert repr(count) == "Note('count')"


async def test_a_note_that_was_not_left_is_a_key_error(tasks: Tasks) -> None:
    with pytest.raises(KeyError):
        exchange(tasks).notes[Note[int]("absent")]


# -- its one end -----------------------------------------------------------------------------------------------------


async def test_the_first_finish_decides(tasks: Tasks) -> None:
    call, ends = exchange(tasks), list[Outcome]()
    call.on_finish(ends.append)
    error = UpstreamCut("cut")

    call.finish(End.FAILED, error)
    call.finish(End.ABANDONED)
    call.finish(End.COMPLETED)

    assert [(outcome.end, outcome.error) for outcome in ends] == [(End.FAILED, error)]
    assert call.outcome is ends[0]


async def test_callbacks_run_inner_to_outer_whenever_they_were_registered(tasks: Tasks) -> None:
    order: list[str] = []

    def layer(name: str) -> Doing:
        async def act(call: Exchange, call_next: Handler) -> Response:
            call.on_finish(lambda outcome: order.append(f"{name} before"))
            response = await call_next(call)
            call.on_finish(lambda outcome: order.append(f"{name} after"))
            return response

        return Doing(act)

    await run(Answer(whole=whole("hi")), layer("outer"), layer("middle"), layer("inner"), tasks=tasks)

    assert order == ["inner before", "inner after", "middle before", "middle after", "outer before", "outer after"]


async def test_the_order_holds_when_an_inner_processor_was_called_twice(tasks: Tasks) -> None:
    order: list[str] = []

    async def retry(call: Exchange, call_next: Handler) -> Response:
        with pytest.raises(UpstreamCut):
            await call_next(call)
        call.on_finish(lambda outcome: order.append("retry"))
        return await call_next(call)

    async def inner(call: Exchange, call_next: Handler) -> Response:
        call.on_finish(lambda outcome: order.append("inner"))
        return await call_next(call)

    await run([Answer(error=UpstreamCut("1")), Answer(whole=whole("hi"))], Doing(retry), Doing(inner), tasks=tasks)

    assert order == ["inner", "inner", "retry"]


async def test_a_callback_that_fails_is_logged_and_the_others_run(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    call, ran = exchange(tasks), list[str]()

    def fail(outcome: Outcome) -> None:
        raise ZeroDivisionError("a bug")

    call.on_finish(lambda outcome: ran.append("first"))
    call.on_finish(fail)
    call.on_finish(lambda outcome: ran.append("last"))
    call.finish(End.COMPLETED)

    assert ran == ["first", "last"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "exchange test failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_sync_callback_runs_in_line_and_starts_no_task(tasks: Tasks) -> None:
    call, ran = exchange(tasks), list[Outcome]()
    before = len(asyncio.all_tasks())
    call.on_finish(ran.append)

    call.finish(End.COMPLETED)

    assert len(ran) == 1
    assert len(tasks) == 0
    assert len(asyncio.all_tasks()) == before


async def test_an_async_callback_runs_in_a_task_that_the_gateway_holds(tasks: Tasks) -> None:
    call, ran, go_on = exchange(tasks), list[Outcome](), asyncio.Event()

    async def later(outcome: Outcome) -> None:
        await go_on.wait()
        ran.append(outcome)

    call.on_finish(later)
    call.finish(End.COMPLETED)
    held = len(tasks)
    go_on.set()
    await asyncio.wait_for(call.settled(SOON_S), SOON_S)

    assert held == 1
    assert ran == [call.outcome]


async def test_an_async_callback_that_fails_is_logged(tasks: Tasks, caplog: pytest.LogCaptureFixture) -> None:
    call, ran = exchange(tasks), list[str]()

    async def fail(outcome: Outcome) -> None:
        raise ZeroDivisionError("a bug")

    async def last(outcome: Outcome) -> None:
        ran.append("last")

    call.on_finish(fail)
    call.on_finish(last)
    call.finish(End.COMPLETED)
    await asyncio.wait_for(call.settled(SOON_S), SOON_S)
    await asyncio.sleep(0)

    assert ran == ["last"]
    assert "ZeroDivisionError" in caplog.text


async def test_waiting_for_effects_is_bounded_and_does_not_stop_them(tasks: Tasks) -> None:
    call, ran, go_on = exchange(tasks), list[Outcome](), asyncio.Event()

    async def slow(outcome: Outcome) -> None:
        await go_on.wait()
        ran.append(outcome)

    call.on_finish(slow)
    call.finish(End.COMPLETED)
    await asyncio.wait_for(call.settled(0.01), SOON_S)
    waited_for = len(ran)
    go_on.set()
    await asyncio.wait_for(tasks.drain(SOON_S), SOON_S)

    assert waited_for == 0
    assert len(ran) == 1


async def test_the_effects_of_children_are_waited_for_too(tasks: Tasks) -> None:
    call, ran = exchange(tasks), list[str]()

    async def later(outcome: Outcome) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        ran.append("child settled")

    call.child(own_request()).child(own_request()).on_finish(later)
    call.finish(End.COMPLETED)
    await asyncio.wait_for(call.settled(SOON_S), SOON_S)

    assert ran == ["child settled"]


async def test_there_may_be_nothing_to_wait_for(tasks: Tasks) -> None:
    call = exchange(tasks)
    call.finish(End.COMPLETED)

    await asyncio.wait_for(call.settled(SOON_S), SOON_S)


async def test_a_callback_registered_late_runs_at_once(tasks: Tasks) -> None:
    """A reservation made while the client was leaving is released."""
    call, ran = exchange(tasks), list[Outcome]()
    call.finish(End.ABANDONED)

    call.on_finish(ran.append)

    assert ran == [call.outcome]


async def test_a_late_async_callback_runs_in_a_task(tasks: Tasks) -> None:
    call, ran = exchange(tasks), list[Outcome]()
    call.finish(End.ABANDONED)

    async def later(outcome: Outcome) -> None:
        ran.append(outcome)

    call.on_finish(later)
    await asyncio.wait_for(call.settled(SOON_S), SOON_S)

    assert ran == [call.outcome]


async def test_a_callback_registered_while_the_exchange_ends_sees_the_complete_outcome(tasks: Tasks) -> None:
    """As one that a callback of a response registers: the outcome is not handed out before it is summed up."""
    call, seen = exchange(tasks), list[Usage | None]()
    response, _ = opened(call, tasks)
    response.usage = Usage(9, 3)
    response.on_finish(lambda of_response: call.on_finish(lambda outcome: seen.append(outcome.usage)))

    call.finish(End.COMPLETED)

    assert seen == [Usage(9, 3)]


async def test_a_callback_may_register_another(tasks: Tasks) -> None:
    call, order = exchange(tasks), list[str]()

    def first(outcome: Outcome) -> None:
        order.append("first")
        call.on_finish(lambda outcome: order.append("second"))

    call.on_finish(first)
    call.finish(End.COMPLETED)

    assert order == ["first", "second"]
