"""`timeout_s`: a processor's own time for a call, not that of what it waits for inside `call_next`."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llmproxy_core import (
    Exchange,
    GuardrailBlocked,
    Handler,
    ProcessorFailed,
    ProcessorTimeout,
    Reply,
    Response,
    Tasks,
    UpstreamCut,
)
from llmproxy_core.pipeline import Step, compose
from tests.llmproxy_core.conversation import CHAT, DIALECT, SOON_S, Doing, exchange, own_request, whole

LIMIT_S = 60.0


class LoopClock:
    """The clock of the event loop, which a test advances."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return self._time() + self._ahead_s

    async def pass_by(self, seconds: float) -> None:
        """Let *seconds* pass, and whoever waits for them act."""
        self._ahead_s += seconds
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> LoopClock:
    clock = LoopClock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


Act = Callable[[Exchange, Handler], Awaitable[Response]]


async def _send(call: Exchange) -> Response:
    return Reply(call, whole("hi"), dialect=DIALECT, api=CHAT)


async def _serve(call: Exchange, act: Act, send: Handler = _send, *, limit_s: float | None = LIMIT_S) -> Response:
    handler = compose([Step("slow", Doing(act), timeout_s=limit_s)], send)
    return await handler(call)


# -- its own time ----------------------------------------------------------------------------------------------------


async def test_a_processor_that_takes_too_long_is_named(tasks: Tasks) -> None:
    async def stuck(call: Exchange, call_next: Handler) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ProcessorTimeout) as raised:
        await asyncio.wait_for(_serve(exchange(tasks), stuck, limit_s=0.05), SOON_S)

    assert (raised.value.status, raised.value.code) == (500, "processor_timeout")
    assert raised.value.message == "The processor 'slow' took longer than 0.05 s"
    assert isinstance(raised.value.__cause__, TimeoutError)


@pytest.mark.parametrize(("before_s", "after_s", "is_late"), [(25, 25, False), (35, 35, True), (70, 0, True)])
async def test_what_it_takes_before_and_after_adds_up(
    tasks: Tasks, clock: LoopClock, before_s: float, after_s: float, is_late: bool
) -> None:
    async def act(call: Exchange, call_next: Handler) -> Response:
        await clock.pass_by(before_s)
        response = await call_next(call)
        await clock.pass_by(after_s)
        return response

    await _late_or_not(_serve(exchange(tasks), act), is_late)


@pytest.mark.parametrize("calls", [1, 3])
async def test_what_runs_inside_call_next_is_not_its_own(tasks: Tasks, clock: LoopClock, calls: int) -> None:
    async def slow_llm(call: Exchange) -> Response:
        await clock.pass_by(10 * LIMIT_S)
        return await _send(call)

    async def act(call: Exchange, call_next: Handler) -> Response:
        for _ in range(calls - 1):
            await clock.pass_by(LIMIT_S / 2 / calls)
            await call_next(call)
        await clock.pass_by(LIMIT_S / 2 / calls)
        return await call_next(call)

    await _late_or_not(_serve(exchange(tasks), act, slow_llm), is_late=False)


@pytest.mark.parametrize("own_s", [10, 30])  # thrice
async def test_between_several_calls_its_clock_goes_on(tasks: Tasks, clock: LoopClock, own_s: float) -> None:
    async def slow_llm(call: Exchange) -> Response:
        await clock.pass_by(LIMIT_S)
        raise UpstreamCut("again")

    async def act(call: Exchange, call_next: Handler) -> Response:
        for _ in range(3):
            try:
                await call_next(call)
            except UpstreamCut:
                await clock.pass_by(own_s)
        return await _send(call)

    await _late_or_not(_serve(exchange(tasks), act, slow_llm), is_late=3 * own_s > LIMIT_S)


@pytest.mark.parametrize(("after_s", "is_late"), [(30, False), (90, True)])
async def test_of_calls_at_once_the_last_starts_its_clock_again(
    tasks: Tasks, clock: LoopClock, after_s: float, is_late: bool
) -> None:
    all_inside, first_is_back = asyncio.Barrier(3), asyncio.Event()

    async def slow_llm(call: Exchange) -> Response:
        if await all_inside.wait():
            await first_is_back.wait()
            await clock.pass_by(2 * LIMIT_S)
        return await _send(call)

    async def act(call: Exchange, call_next: Handler) -> Response:
        async def ask() -> Response:
            response = await call_next(call)
            first_is_back.set()
            return response

        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(ask()) for _ in range(3)]
        await clock.pass_by(after_s)
        return calls[0].result()

    await _late_or_not(_serve(exchange(tasks), act, slow_llm), is_late)


async def test_a_childs_call_is_not_its_own_time(tasks: Tasks, clock: LoopClock) -> None:
    async def slow_llm(call: Exchange) -> Response:
        await clock.pass_by(2 * LIMIT_S)
        return await _send(call)

    async def act(call: Exchange, call_next: Handler) -> Response:
        async with call.child(own_request()) as child:
            await (await call_next(child)).reply()
        return await call_next(call)

    await _late_or_not(_serve(exchange(tasks), act, slow_llm), is_late=False)


async def test_what_it_left_running_may_come_back_after_it(tasks: Tasks) -> None:
    """The call of a flight that others wait for too: it is nobody's own time, and ends when it ends."""
    go_on, done, flights = asyncio.Event(), list[Response](), list[asyncio.Task[None]]()

    async def slow_llm(call: Exchange) -> Response:
        await asyncio.wait_for(go_on.wait(), SOON_S)
        return await _send(call)

    async def act(call: Exchange, call_next: Handler) -> Response:
        async def flight() -> None:
            async with call.detach(own_request()) as background:
                done.append(await call_next(background))

        flights.append(tasks.start(flight(), name="flight"))
        await asyncio.sleep(0)
        return await _send(call)

    await _late_or_not(_serve(exchange(tasks), act, slow_llm), is_late=False)
    go_on.set()
    await asyncio.wait_for(flights[0], SOON_S)

    assert len(done) == 1


async def _late_or_not(serving: Awaitable[Response], is_late: bool) -> None:
    if is_late:
        with pytest.raises(ProcessorTimeout):
            await asyncio.wait_for(serving, 1000)
    else:
        assert isinstance(await asyncio.wait_for(serving, 10_000), Reply)


# -- who else has a say ----------------------------------------------------------------------------------------------


async def test_a_processor_that_swallows_the_cancellation_is_waited_for(tasks: Tasks, clock: LoopClock) -> None:
    """Nothing can stop it; what it answers in the end is its answer, however late."""

    async def deaf(call: Exchange, call_next: Handler) -> Response:
        try:
            await clock.pass_by(2 * LIMIT_S)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return await call_next(call)

    await _late_or_not(_serve(exchange(tasks), deaf), is_late=False)


async def test_one_that_turns_the_cancellation_into_an_error_of_its_own_took_too_long(
    tasks: Tasks, clock: LoopClock
) -> None:
    async def rude(call: Exchange, call_next: Handler) -> Response:
        try:
            await clock.pass_by(2 * LIMIT_S)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("the library gave up") from None
        raise AssertionError

    await _late_or_not(_serve(exchange(tasks), rude), is_late=True)


async def test_a_refusal_that_comes_too_late_is_a_refusal(tasks: Tasks, clock: LoopClock) -> None:
    async def late(call: Exchange, call_next: Handler) -> Response:
        try:
            await clock.pass_by(2 * LIMIT_S)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise GuardrailBlocked("no") from None
        raise AssertionError

    with pytest.raises(GuardrailBlocked):
        await _serve(exchange(tasks), late)


async def test_the_clients_leaving_is_no_time_out(tasks: Tasks) -> None:
    begun = asyncio.Event()

    async def stuck(call: Exchange, call_next: Handler) -> Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    serving = tasks.start(_serve(exchange(tasks), stuck), name="call")
    await asyncio.wait_for(begun.wait(), SOON_S)
    serving.cancel()

    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_time_out_of_the_processors_own_is_its_bug_not_this_one(tasks: Tasks) -> None:
    async def impatient(call: Exchange, call_next: Handler) -> Response:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ProcessorFailed) as raised:
        await _serve(exchange(tasks), impatient)

    assert not isinstance(raised.value, ProcessorTimeout)
