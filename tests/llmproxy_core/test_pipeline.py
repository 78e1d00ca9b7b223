"""A chain is composed once, runs outermost first, and names the processor that broke."""

import asyncio

import pytest

from llmproxy_core import (
    Exchange,
    GuardrailBlocked,
    Handler,
    InternalError,
    Processor,
    ProcessorFailed,
    Reply,
    Response,
    Tasks,
    UpstreamCut,
)
from llmproxy_core.pipeline import Step, compose
from tests.llmproxy_core.conversation import CHAT, DIALECT, SOON_S, Doing, exchange, whole


async def _send(call: Exchange) -> Response:
    return Reply(call, whole("hi"), dialect=DIALECT, api=CHAT)


async def _serve(call: Exchange, *processors: Processor) -> Response:
    steps = [Step(f"p{number}", processor) for number, processor in enumerate(processors)]
    return await asyncio.wait_for(compose(steps, _send)(call), SOON_S)


async def _pass(call: Exchange, call_next: Handler) -> Response:
    return await call_next(call)


async def test_a_chain_of_nothing_is_the_llm_and_its_bugs_are_its_plugins(tasks: Tasks) -> None:
    async def nothing(call: Exchange) -> Response:
        return None  # type: ignore[return-value]

    call = exchange(tasks)

    assert (await compose([], _send)(call)).exchange is call
    with pytest.raises(InternalError, match="provider plugin failed"):
        await compose([], nothing)(call)


async def test_processors_see_the_request_outermost_first_and_the_answer_innermost_first(tasks: Tasks) -> None:
    order: list[str] = []

    def layer(name: str) -> Doing:
        async def act(call: Exchange, call_next: Handler) -> Response:
            order.append(f"{name} asks")
            response = await call_next(call)
            order.append(f"{name} has it")
            return response

        return Doing(act)

    await _serve(exchange(tasks), layer("outer"), layer("inner"))

    assert order == ["outer asks", "inner asks", "inner has it", "outer has it"]


async def test_one_chain_serves_many_calls(tasks: Tasks) -> None:
    handler = compose([Step("p", Doing(_pass))], _send)

    answers = await asyncio.gather(*(handler(exchange(tasks)) for _ in range(20)))

    assert len({id(answer) for answer in answers}) == 20


async def test_a_processor_may_answer_itself(tasks: Tasks) -> None:
    async def answer(call: Exchange, call_next: Handler) -> Response:
        return Reply(call, b"own", dialect=DIALECT, api=CHAT)

    async def never(call: Exchange, call_next: Handler) -> Response:
        raise AssertionError("called behind the back of an answer")

    response = await _serve(exchange(tasks), Doing(answer), Doing(never))

    assert isinstance(response, Reply)
    assert response.body == b"own"


async def test_a_processor_may_call_again(tasks: Tasks) -> None:
    attempts: list[int] = []

    async def retry(call: Exchange, call_next: Handler) -> Response:
        try:
            return await call_next(call)
        except UpstreamCut:
            return await call_next(call)

    async def fail_once(call: Exchange, call_next: Handler) -> Response:
        attempts.append(call.layer.depth)
        if len(attempts) == 1:
            raise UpstreamCut("cut")
        return await call_next(call)

    await _serve(exchange(tasks), Doing(retry), Doing(fail_once))

    assert attempts == [2, 2]


@pytest.mark.parametrize("error", [GuardrailBlocked("no"), UpstreamCut("cut")])
async def test_an_error_for_somebody_outside_passes_as_it_is(tasks: Tasks, error: Exception) -> None:
    async def refuse(call: Exchange, call_next: Handler) -> Response:
        raise error

    with pytest.raises(type(error)) as raised:
        await _serve(exchange(tasks), Doing(_pass), Doing(refuse))

    assert raised.value is error


@pytest.mark.parametrize("after", [False, True])
async def test_a_bug_is_an_internal_error_that_names_the_processor_and_hides_the_cause(
    tasks: Tasks, after: bool
) -> None:
    bug = ZeroDivisionError("sk-canary")

    async def broken(call: Exchange, call_next: Handler) -> Response:
        if after:
            await call_next(call)
        raise bug

    with pytest.raises(ProcessorFailed) as raised:
        await _serve(exchange(tasks), Doing(_pass), Doing(broken), Doing(_pass))

    assert (raised.value.status, raised.value.code) == (500, "processor_failed")
    assert "'p1'" in raised.value.message
    assert "canary" not in raised.value.message
    assert raised.value.__cause__ is bug


async def test_a_cancelled_call_is_no_bug(tasks: Tasks) -> None:
    async def stuck(call: Exchange, call_next: Handler) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(compose([Step("p", Doing(stuck))], _send)(exchange(tasks)), 0.01)


async def test_the_depth_is_that_of_the_processor_that_runs(tasks: Tasks) -> None:
    depths: list[int] = []

    async def note(call: Exchange, call_next: Handler) -> Response:
        depths.append(call.layer.depth)
        try:
            return await call_next(call)
        finally:
            depths.append(call.layer.depth)

    async def broken(call: Exchange, call_next: Handler) -> Response:
        raise GuardrailBlocked("no")

    call = exchange(tasks)
    with pytest.raises(GuardrailBlocked):
        await _serve(call, Doing(note), Doing(note), Doing(broken))

    assert depths == [1, 2, 2, 1]
    assert call.layer.depth == 0
