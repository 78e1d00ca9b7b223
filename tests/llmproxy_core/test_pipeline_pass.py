"""`on_error = "pass"`: a processor that fails is passed over, and the call goes on as if it were not there."""

import asyncio
import logging

import pytest

from llmproxy_core import (
    Exchange,
    GuardrailBlocked,
    Handler,
    InternalError,
    ProcessorFailed,
    ProxyError,
    Response,
    Tasks,
    UpstreamCut,
    UpstreamError,
)
from llmproxy_core.pipeline import Step, compose
from llmproxy_core.testing import Answer
from tests.llmproxy_core.chains import BUG, RaisingWatcher, lenient, run_steps
from tests.llmproxy_core.conversation import (
    WAYS,
    Doing,
    Way,
    events,
    exchange,
    own_request,
    said,
    whole,
)
from tests.llmproxy_core.filters import Upper


async def _forward(call: Exchange, call_next: Handler) -> Response:
    return await call_next(call)


# -- when it fails ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_one_that_fails_before_it_asks_is_left_out_and_the_request_is_as_it_was(tasks: Tasks, way: Way) -> None:
    async def broken(call: Exchange, call_next: Handler) -> Response:
        call.request = call.request.with_model("another")
        raise BUG

    ran = await run_steps(way, lenient(Doing(broken)), tasks=tasks)

    assert said(ran.body) == "hello"
    assert [request.model for request in ran.llm.requests] == ["gpt-4o-mini"]


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_one_that_fails_after_the_answer_leaves_the_answer(tasks: Tasks, way: Way) -> None:
    async def broken(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)
        response.watch(lambda channel: RaisingWatcher(BUG))
        response.rewrite(lambda channel: Upper())
        raise BUG

    ran = await run_steps(way, lenient(Doing(broken)), tasks=tasks)

    assert (said(ran.body), ran.error) == ("hello", None)
    assert len(ran.llm.requests) == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_what_others_asked_of_the_answer_stays(tasks: Tasks, way: Way) -> None:
    async def broken(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)
        response.rewrite(lambda channel: Upper())
        raise BUG

    async def exclaim(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)
        response.rewrite(lambda channel: Doubling())
        return response

    for steps in [
        (Step("outer", Doing(exclaim)), lenient(Doing(broken))),
        (lenient(Doing(broken)), Step("inner", Doing(exclaim))),
    ]:
        ran = await run_steps(way, *steps, tasks=tasks)

        assert said(ran.body) == "hellohello"


class Doubling:
    """Says everything twice."""

    def __init__(self) -> None:
        self._heard = ""

    def feed(self, text: str) -> str:
        self._heard += text
        return ""

    def flush(self) -> str:
        return self._heard * 2


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_answer_that_it_has_read_is_still_there(tasks: Tasks, way: Way) -> None:
    async def broken(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)
        assert (await response.reply()).text == "hello"
        raise BUG

    ran = await run_steps(way, lenient(Doing(broken)), tasks=tasks)

    assert said(ran.body) == "hello"
    assert len(ran.llm.requests) == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_answer_that_broke_while_it_read_is_asked_for_again(tasks: Tasks, way: Way) -> None:
    async def broken(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)
        try:
            await response.reply()
        except UpstreamError:
            raise BUG from None
        raise AssertionError

    cut = Answer(events("half", finish=None, usage=False, done=False))
    ran = await run_steps(way, lenient(Doing(broken)), tasks=tasks, script=[cut, way.answer("hello")])

    assert said(ran.body) == "hello"
    assert len(ran.llm.requests) == 2


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_the_error_that_it_was_given_is_what_there_is_without_it(tasks: Tasks, way: Way) -> None:
    async def broken(call: Exchange, call_next: Handler) -> Response:
        try:
            return await call_next(call)
        except UpstreamError as error:
            raise BUG from error

    gone = UpstreamCut("gone")
    ran = await run_steps(way, lenient(Doing(broken)), tasks=tasks, script=[Answer(error=gone)])

    assert ran.error is gone
    assert len(ran.llm.requests) == 1


async def test_of_several_calls_the_last_counts(tasks: Tasks) -> None:
    async def broken(call: Exchange, call_next: Handler) -> Response:
        try:
            await call_next(call)
        except UpstreamError:
            await call_next(call)
        raise BUG

    ran = await run_steps(
        WAYS[0],
        lenient(Doing(broken)),
        tasks=tasks,
        script=[Answer(error=UpstreamCut("gone")), WAYS[0].answer("hello")],
    )

    assert said(ran.body) == "hello"
    assert len(ran.llm.requests) == 2


@pytest.mark.parametrize("child_fails", [False, True])
async def test_what_was_answered_to_a_child_is_not_the_answer(tasks: Tasks, child_fails: bool) -> None:
    """It asked an LLM something of its own, and broke on what that said."""

    async def broken(call: Exchange, call_next: Handler) -> Response:
        async with call.child(own_request("improve this")) as child:
            try:
                await (await call_next(child)).reply()
            except UpstreamError:
                raise BUG from None
        raise BUG

    first = Answer(error=UpstreamCut("gone")) if child_fails else Answer(whole=whole("an improved question"))
    ran = await run_steps(WAYS[0], lenient(Doing(broken)), tasks=tasks, script=[first, Answer(whole=whole("hello"))])

    assert (said(ran.body), ran.error) == ("hello", None)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("asks_first", [False, True])
async def test_one_that_takes_too_long_is_passed_over_too(tasks: Tasks, way: Way, asks_first: bool) -> None:
    async def stuck(call: Exchange, call_next: Handler) -> Response:
        call.request = call.request.with_model("another")
        if asks_first:
            (await call_next(call)).watch(lambda channel: RaisingWatcher(BUG))
        await asyncio.Event().wait()
        raise AssertionError

    ran = await run_steps(way, lenient(Doing(stuck), timeout_s=0.02), tasks=tasks)

    assert said(ran.body) == "hello"
    assert [request.model for request in ran.llm.requests] == ["another" if asks_first else "gpt-4o-mini"]


async def test_one_that_gives_no_response_has_failed(tasks: Tasks) -> None:
    async def forgetful(call: Exchange, call_next: Handler) -> Response:
        await call_next(call)
        return None  # type: ignore[return-value]

    ran = await run_steps(WAYS[0], lenient(Doing(forgetful)), tasks=tasks)

    assert said(ran.body) == "hello"
    assert len(ran.llm.requests) == 1


async def test_a_cancellation_that_is_not_the_calls_own_is_a_bug(tasks: Tasks) -> None:
    """The processor cancelled a task of its own, and let that escape."""

    async def careless(call: Exchange, call_next: Handler) -> Response:
        own = tasks.start(asyncio.Event().wait(), name="own")
        own.cancel()
        await own
        raise AssertionError

    assert said((await run_steps(WAYS[0], lenient(Doing(careless)), tasks=tasks)).body) == "hello"
    strict = await run_steps(WAYS[0], Step("careless", Doing(careless)), tasks=tasks)

    assert isinstance(strict.error, ProcessorFailed)
    assert "'careless'" in strict.error.message


# -- when it does not --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [GuardrailBlocked("no"), UpstreamCut("mine"), InternalError("mine")], ids=repr)
@pytest.mark.parametrize("after", [False, True])
async def test_an_error_for_somebody_outside_is_never_passed_over(tasks: Tasks, error: ProxyError, after: bool) -> None:
    async def refuse(call: Exchange, call_next: Handler) -> Response:
        if after:
            await call_next(call)
        raise error

    ran = await run_steps(WAYS[0], lenient(Doing(refuse)), tasks=tasks)

    assert ran.error is error


@pytest.mark.parametrize("passes_over", [False, True])
async def test_a_refusal_from_a_task_group_is_a_refusal(tasks: Tasks, passes_over: bool) -> None:
    """A guard that looks at the question while the answer is fetched."""
    blocked = GuardrailBlocked("no")

    async def guard(call: Exchange, call_next: Handler) -> Response:
        async def look() -> None:
            raise blocked

        async def fetch() -> Response:
            return await call_next(call)

        async with asyncio.TaskGroup() as group:
            answer = group.create_task(fetch())
            group.create_task(look())
        return answer.result()

    ran = await run_steps(WAYS[0], Step("guard", Doing(guard), passes_over=passes_over), tasks=tasks)

    assert ran.error is blocked
    assert blocked.__cause__ is blocked.__context__ is None  # no cycle through the group


@pytest.mark.parametrize("bug", [[], [BUG]], ids=["", "and a bug"])
async def test_of_several_errors_the_refusal_counts(tasks: Tasks, bug: list[Exception]) -> None:
    blocked = GuardrailBlocked("no")

    async def guard(call: Exchange, call_next: Handler) -> Response:
        raise ExceptionGroup("all", [UpstreamCut("cut"), *bug, ExceptionGroup("more", [blocked])])

    ran = await run_steps(WAYS[0], lenient(Doing(guard)), tasks=tasks)

    assert ran.error is blocked


async def test_a_bug_beside_an_error_of_the_upstream_is_a_bug(tasks: Tasks) -> None:
    async def broken(call: Exchange, call_next: Handler) -> Response:
        raise ExceptionGroup("both", [UpstreamCut("cut"), ExceptionGroup("more", [BUG])])

    ran = await run_steps(WAYS[0], Step("broken", Doing(broken)), tasks=tasks)

    assert isinstance(ran.error, ProcessorFailed)


async def test_the_failure_of_one_inside_is_not_its_own(tasks: Tasks) -> None:
    async def broken(call: Exchange, call_next: Handler) -> Response:
        raise BUG

    async def reads(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)
        await response.reply()
        return response

    async def filters_badly(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)
        response.rewrite(lambda channel: 1 // 0)  # type: ignore[arg-type, return-value]
        return response

    for outer, inner in [(_forward, broken), (reads, filters_badly)]:
        ran = await run_steps(WAYS[0], lenient(Doing(outer)), Step("inner", Doing(inner)), tasks=tasks)

        assert isinstance(ran.error, ProcessorFailed)
        assert "'inner'" in ran.error.message
        assert len(ran.llm.requests) <= 1


@pytest.mark.parametrize("passes_over", [False, True])
async def test_a_bug_of_the_llms_plugin_is_not_the_processors(tasks: Tasks, passes_over: bool) -> None:
    calls = 0

    async def send(call: Exchange) -> Response:
        nonlocal calls
        calls += 1
        raise BUG

    with pytest.raises(InternalError) as raised:
        await compose([Step("innocent", Doing(_forward), passes_over=passes_over)], send)(exchange(tasks))

    assert not isinstance(raised.value, ProcessorFailed)
    assert "innocent" not in raised.value.message
    assert raised.value.__cause__ is BUG
    assert calls == 1


# -- who is told -----------------------------------------------------------------------------------------------------


async def test_what_was_passed_over_is_in_the_log_once_with_its_cause(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(call: Exchange, call_next: Handler) -> Response:
        raise BUG

    await run_steps(WAYS[0], Step("outer", Doing(_forward)), lenient(Doing(broken)), tasks=tasks)

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "The processor 'lenient' failed; exchange test goes on without it"
    assert record.exc_info is not None
    assert record.exc_info[1] is BUG


# -- whose is what was asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_who_asks_of_the_answer_to_anothers_child_is_who_is_named(tasks: Tasks, way: Way) -> None:
    """Else a guard that fails could be passed over for a lenient one below it that brought the answer."""

    async def answers_by_a_child(call: Exchange, call_next: Handler) -> Response:
        return await call_next(call.child(own_request(stream=way.arrives_as_stream)))

    async def guard(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)
        response.watch(lambda channel: RaisingWatcher(BUG))
        return response

    ran = await run_steps(way, Step("guard", Doing(guard)), lenient(Doing(answers_by_a_child)), tasks=tasks)

    assert isinstance(ran.error, ProcessorFailed)
    assert "'guard'" in ran.error.message


async def test_calls_at_once_do_not_mix_up_who_asks(tasks: Tasks) -> None:
    both_inside = asyncio.Barrier(2)
    seen: list[str] = []

    async def inner(call: Exchange, call_next: Handler) -> Response:
        await both_inside.wait()
        return await call_next(call)

    async def hedges(call: Exchange, call_next: Handler) -> Response:
        async def ask() -> Response:
            response = await call_next(call)
            await asyncio.sleep(0)
            seen.append(call.layer.name)
            return response

        async with asyncio.TaskGroup() as group:
            first, _ = group.create_task(ask()), group.create_task(ask())
        seen.append(call.layer.name)
        return first.result()

    ran = await run_steps(WAYS[0], Step("hedges", Doing(hedges)), Step("inner", Doing(inner)), tasks=tasks)

    assert ran.error is None
    assert seen == ["hedges"] * 3
    assert ran.call.layer.name == ""
