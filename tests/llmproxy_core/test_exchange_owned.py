"""Everything that is opened in the name of an exchange ends with it, and what it used is added up."""

import asyncio
from math import inf

import pytest

from llmproxy_core import (
    Caller,
    End,
    Exchange,
    GuardrailBlocked,
    Handler,
    Money,
    Outcome,
    Request,
    Response,
    Stream,
    Tasks,
    UpstreamCut,
    UpstreamError,
    Usage,
)
from llmproxy_core.dialect import Operation
from llmproxy_core.testing import Answer, FakeClock, ScriptedLLM
from tests.llmproxy_core.conversation import (
    CHAT,
    COST,
    DIALECT,
    PRICE,
    USED,
    WAYS,
    Asking,
    Doing,
    Way,
    events,
    exchange,
    go,
    opened,
    own_request,
    run,
    whole,
)

# -- what it owns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", list(End))
async def test_an_open_response_ends_abandoned_with_its_exchange(tasks: Tasks, end: End) -> None:
    call, ends = exchange(tasks), list[Outcome]()
    response, body = opened(call, tasks, b"never read")
    response.on_finish(ends.append)

    call.finish(end)

    assert [outcome.end for outcome in ends] == [End.ABANDONED]
    assert body.ends == 1


async def test_a_response_that_has_ended_keeps_its_own_end(tasks: Tasks) -> None:
    call = exchange(tasks)
    response, body = opened(call, tasks)
    response.finish(End.COMPLETED)

    call.finish(End.FAILED, UpstreamCut("another attempt"))

    assert response.outcome is not None
    assert response.outcome.end is End.COMPLETED
    assert body.ends == 1


async def test_a_response_opened_under_a_finished_exchange_is_ended_at_once(tasks: Tasks) -> None:
    """A task went on after the client had left."""
    call = exchange(tasks)
    call.finish(End.ABANDONED)

    response, body = opened(call, tasks, b"never read")

    assert response.outcome is not None
    assert response.outcome.end is End.ABANDONED
    assert body.ends == 1
    assert await response.read() == b""


async def test_the_dropped_first_response_of_a_retry_ends_with_the_exchange(tasks: Tasks) -> None:
    async def drop_one(call: Exchange, call_next: Handler) -> Response:
        await call_next(call)
        return await call_next(call)

    done = await run([Answer(events("dropped")), Answer(events("kept"))], Doing(drop_one), tasks=tasks, stream=True)

    assert [response.outcome and response.outcome.end for response in done.llm.responses] == [
        End.ABANDONED,
        End.COMPLETED,
    ]
    assert [body.ends for body in done.llm.bodies] == [1, 1]
    assert done.result.outcome.end is End.COMPLETED


async def test_a_processor_that_raises_after_the_answer_orphans_nothing(tasks: Tasks) -> None:
    async def regret(call: Exchange, call_next: Handler) -> Response:
        await call_next(call)
        raise GuardrailBlocked("no")

    done = await run(Answer(events("hi")), Doing(regret), tasks=tasks, stream=True)

    assert done.result.outcome.end is End.REFUSED
    assert done.response.outcome is not None
    assert done.response.outcome.end is End.ABANDONED
    assert [body.ends for body in done.llm.bodies] == [1]


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_the_outcome_of_an_exchange_tells_what_was_used_and_paid(tasks: Tasks, way: Way) -> None:
    done = await go(way, "hello", tasks=tasks)

    outcome = done.result.outcome
    assert outcome.end is End.COMPLETED
    assert outcome.usage == USED
    assert outcome.cost == Money(COST)
    assert outcome.model == "gpt-4o-mini"
    assert outcome.finish == ("stop",)
    assert outcome.first_byte_s is not None


async def test_all_attempts_are_added_up_and_the_last_gives_the_model(tasks: Tasks) -> None:
    async def twice(call: Exchange, call_next: Handler) -> Response:
        await (await call_next(call)).reply()
        return await call_next(call)

    last = whole("b").replace(b"gpt-4o-mini", b"gpt-5")
    script = [Answer(whole=whole("a"), price=PRICE), Answer(whole=last, price=PRICE)]

    done = await run(script, Doing(twice), tasks=tasks)

    assert done.result.outcome.usage == Usage(18, 6)
    assert done.result.outcome.cost == Money(2 * COST)
    assert done.result.outcome.model == "gpt-5"
    assert len(done.result.exchange.attempts) == 2


async def test_nothing_reported_is_none_not_zero(tasks: Tasks) -> None:
    done = await run(Answer(events("hi", usage=False), price=PRICE), tasks=tasks, stream=True)

    assert done.result.outcome.usage is None
    assert done.result.outcome.cost is None


async def test_an_answer_without_a_price_has_usage_and_no_cost(tasks: Tasks) -> None:
    done = await run(Answer(events("hi")), tasks=tasks, stream=True)

    assert done.result.outcome.usage == USED
    assert done.result.outcome.cost is None


async def test_times_are_of_the_monotonic_clock(tasks: Tasks) -> None:
    clock = FakeClock(100.0)

    def pass_time(response: Response) -> None:
        clock.advance(2.0)

    done = await run(Answer(events("hi")), Asking(pass_time), tasks=tasks, stream=True, clock=clock)

    outcome = done.result.outcome
    assert (outcome.started_s, outcome.first_byte_s, outcome.ended_s) == (100.0, 102.0, 102.0)


async def test_a_failed_call_is_not_an_abandoned_one(tasks: Tasks) -> None:
    """Abandoned is nobody's fault; failed is somebody's, and its error says whose."""
    failed = await run(Answer([*events("hi")[:1], UpstreamCut("cut")]), tasks=tasks, stream=True)
    call = exchange(tasks)
    call.finish(End.ABANDONED)

    assert failed.result.outcome.end is End.FAILED
    assert isinstance(failed.result.outcome.error, UpstreamCut)
    assert call.outcome is not None
    assert (call.outcome.end, call.outcome.error) == (End.ABANDONED, None)


async def test_a_client_that_leaves_abandons_everything(tasks: Tasks) -> None:
    llm = ScriptedLLM([Answer([*events("hi")[:1], asyncio.Event()])], dialect=DIALECT, api=CHAT, tasks=tasks)
    call, ends = exchange(tasks, body=b'{"model":"m","messages":[],"stream":true}'), list[Outcome]()
    call.on_finish(ends.append)
    response = await llm.send(call)
    assert isinstance(response, Stream)
    await response.read()
    waiting = tasks.start(response.read(), name="reader")
    await asyncio.sleep(0)

    waiting.cancel()
    call.finish(End.ABANDONED)

    assert [outcome.end for outcome in ends] == [End.ABANDONED]
    assert llm.bodies[0].ends == 1


# -- children --------------------------------------------------------------------------------------------------------


async def test_a_child_has_its_parents_caller_deadline_and_id(tasks: Tasks) -> None:
    call = exchange(tasks)
    call.caller, call.deadline_s = Caller("team"), 1234.5

    child = call.child(own_request())

    assert (child.caller, child.deadline_s, child.id, child.route) == (Caller("team"), 1234.5, call.id, call.route)
    assert child.parent is call
    assert child.client is None
    assert child.operation is Operation.CHAT
    assert child.notes is not call.notes


async def test_what_is_asked_in_an_exchanges_name_waits_in_turn_as_its_client_does(tasks: Tasks) -> None:
    call = exchange(tasks)
    assert call.address == ""  # of a call of nobody's
    call.address = "192.0.2.1"

    derived = [call.child(own_request()), call.branch(), call.detach(own_request())]
    derived.append(derived[0].child(own_request()))

    assert [it.address for it in derived] == ["192.0.2.1"] * 4
    derived[2].finish(End.COMPLETED)


async def _ask_child(call: Exchange, llm: ScriptedLLM) -> str:
    async with call.child(own_request()) as child:
        return (await (await llm.send(child)).reply()).text


@pytest.mark.parametrize("answer", [Answer(whole=whole("helper"), price=PRICE), Answer(events("helper"), price=PRICE)])
async def test_what_a_child_used_and_paid_is_its_parents(tasks: Tasks, answer: Answer) -> None:
    call = exchange(tasks)
    llm = ScriptedLLM([answer, Answer(whole=whole("main"), price=PRICE)], dialect=DIALECT, api=CHAT, tasks=tasks)

    text = await _ask_child(call, llm)
    main = await llm.send(call)
    main.finish(End.COMPLETED)
    call.finish(End.COMPLETED)

    assert text == "helper"
    assert call.outcome is not None
    assert call.outcome.usage == Usage(18, 6)
    assert call.outcome.cost == Money(2 * COST)


async def test_the_cost_of_a_grandchild_arrives(tasks: Tasks) -> None:
    call = exchange(tasks)
    llm = ScriptedLLM([Answer(whole=whole("x"), price=PRICE)], dialect=DIALECT, api=CHAT, tasks=tasks)

    async with call.child(own_request()) as child:
        await _ask_child(child, llm)
    call.finish(End.COMPLETED)

    assert call.outcome is not None
    assert call.outcome.cost == Money(COST)


async def test_the_model_of_the_answer_is_not_the_childs(tasks: Tasks) -> None:
    call = exchange(tasks)
    helper = whole("x").replace(b"gpt-4o-mini", b"helper")
    llm = ScriptedLLM([Answer(whole=whole("main")), Answer(whole=helper)], dialect=DIALECT, api=CHAT, tasks=tasks)

    (await llm.send(call)).finish(End.COMPLETED)
    await _ask_child(call, llm)
    call.finish(End.COMPLETED)

    assert call.outcome is not None
    assert call.outcome.model == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (None, End.COMPLETED),
        (UpstreamError("503"), End.FAILED),
        (GuardrailBlocked("no"), End.REFUSED),
        (ZeroDivisionError("a bug"), End.FAILED),
        (asyncio.CancelledError(), End.ABANDONED),
    ],
    ids=lambda it: type(it).__name__,
)
async def test_leaving_a_child_ends_it_as_it_was_left(tasks: Tasks, error: BaseException | None, end: End) -> None:
    call = exchange(tasks)
    child = call.child(own_request())

    async def use() -> None:
        async with child:
            if error is not None:
                raise error

    if error is None:
        await use()
    else:
        with pytest.raises(type(error)):
            await use()

    assert child.outcome is not None
    assert child.outcome.end is end
    assert call.outcome is None


async def test_an_open_child_is_abandoned_with_its_parent(tasks: Tasks) -> None:
    call = exchange(tasks)
    child = call.child(own_request())
    _, body = opened(child, tasks, b"never read")

    call.finish(End.COMPLETED)

    assert child.outcome is not None
    assert child.outcome.end is End.ABANDONED
    assert body.ends == 1


async def test_a_child_of_a_finished_exchange_is_over_before_it_begins(tasks: Tasks) -> None:
    call = exchange(tasks)
    call.finish(End.ABANDONED)

    child = call.child(own_request())
    _, body = opened(child, tasks, b"never read")

    assert child.outcome is not None
    assert child.outcome.end is End.ABANDONED
    assert body.ends == 1


# -- detached --------------------------------------------------------------------------------------------------------


def _with_background(tasks: Tasks, background: set[Exchange] | None) -> Exchange:
    request = Request(operation=Operation.CHAT, dialect=DIALECT, api=CHAT, body=b"{}")
    return Exchange(
        request,
        id="7",
        route="/v1",
        tasks=tasks,
        clock=FakeClock(),
        caller=Caller("team"),
        deadline_s=5.0,
        background=background,
    )


async def test_a_detached_exchange_outlives_its_origin_and_is_listed_until_it_ends(tasks: Tasks) -> None:
    background = set[Exchange]()
    call = _with_background(tasks, background)

    shared = call.detach(own_request())
    call.finish(End.ABANDONED)
    still_open = (shared.outcome, set(background))
    shared.finish(End.COMPLETED)

    assert still_open == (None, {shared})
    assert background == set()
    assert shared.outcome is not None
    assert shared.outcome.end is End.COMPLETED


async def test_a_detached_exchange_has_the_caller_and_no_deadline(tasks: Tasks) -> None:
    call = _with_background(tasks, set())

    shared = call.detach(own_request())

    assert (shared.caller, shared.deadline_s, shared.parent, shared.id) == (Caller("team"), None, None, "7")
    shared.finish(End.COMPLETED)


async def test_what_a_detached_exchange_paid_is_billed_to_its_origin(tasks: Tasks) -> None:
    call = _with_background(tasks, set())
    llm = ScriptedLLM([Answer(whole=whole("x"), price=PRICE)], dialect=DIALECT, api=CHAT, tasks=tasks)

    async with call.detach(own_request()) as shared:
        await (await llm.send(shared)).reply()
    call.finish(End.COMPLETED)

    assert call.outcome is not None
    assert call.outcome.cost == Money(COST)
    assert shared.outcome is not None
    assert shared.outcome.cost == Money(COST)


async def test_an_exchange_without_a_gateway_can_be_detached_from(tasks: Tasks) -> None:
    call = _with_background(tasks, None)

    async with call.detach(own_request()) as shared:
        pass

    assert shared.outcome is not None


# -- until when somebody waits ---------------------------------------------------------------------------------------


async def test_an_exchange_is_waited_for_until_its_deadline_and_its_children_no_longer(tasks: Tasks) -> None:
    call = exchange(tasks)
    assert call.until_s() == inf

    child = call.child(own_request())
    call.deadline_s = 10.0

    assert (call.until_s(), child.until_s()) == (10.0, 10.0)


async def test_nothing_is_waited_for_whose_client_has_left_or_that_is_over(tasks: Tasks) -> None:
    left, over = exchange(tasks), exchange(tasks)
    child = left.child(own_request())
    left.deadline_s = 10.0

    left.forsake()
    over.finish(End.COMPLETED)

    assert (left.until_s(), child.until_s(), over.until_s()) == (-inf, -inf, -inf)


async def test_a_detached_exchange_is_waited_for_as_who_detached_it_tells(tasks: Tasks) -> None:
    call = _with_background(tasks, set())
    call.deadline_s = 10.0

    async with call.detach(own_request()) as shared:
        before_s = shared.until_s()
        shared.awaited = lambda: 20.0

        assert (before_s, shared.until_s()) == (inf, 20.0)
