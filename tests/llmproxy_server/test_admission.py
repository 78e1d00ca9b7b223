"""A place for a call: at once, after a while in a queue that is fair, or not at all."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import attrs
import pytest

from llmproxy_core.config import ServerConfig
from llmproxy_core.errors import Overloaded
from llmproxy_server.admission import Admission, Ticket
from tests.llmproxy_server.transporting import until

LONG_S = 60.0
"""Nobody waits so long here: what ends a wait is something else."""


# -- waiting for a place ---------------------------------------------------------------------------------------------


def one_place(
    max_queued: int = 10, timeout_s: float = LONG_S, clock: Callable[[], float] | None = None
) -> tuple[Admission, Ticket]:
    """One place, which is taken."""
    admission = Admission(
        max_in_flight=1,
        max_buffered_bytes=100,
        max_queued=max_queued,
        queue_timeout_s=timeout_s,
        clock=clock or asyncio.get_running_loop().time,
    )
    return admission, admission.enter()


class Waiting:
    """Calls that wait, each in a task; `served` names those that have got a place, in that order."""

    def __init__(self, admission: Admission) -> None:
        self.served: list[str] = []
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[Ticket]] = {}
        self._admission = admission

    async def come(self, *names: str, until: float | None = None) -> None:
        """The first letter of a name is its caller. They wait, or are refused, when this returns."""
        for name in names:
            self.tasks[name] = asyncio.get_running_loop().create_task(self._wait(name, until))
            await asyncio.sleep(0)

    async def _wait(self, name: str, until: float | None) -> Ticket:
        try:
            ticket = await self._admission.wait(name[0], until)
        except Overloaded:
            self.refused.append(name)
            raise
        self.served.append(name)
        return ticket

    async def refusal(self, name: str) -> Overloaded:
        with pytest.raises(Overloaded) as found:
            await asyncio.wait_for(self.tasks[name], 5)
        return found.value

    async def leave(self, name: str) -> None:
        """That call is over."""
        (await asyncio.wait_for(self.tasks[name], 5)).leave()

    async def gone(self, *names: str) -> None:
        """Their clients leave."""
        for name in names:
            self.tasks[name].cancel()
        await asyncio.wait([self.tasks[name] for name in names], timeout=5)


async def test_while_there_is_room_a_place_costs_no_wait() -> None:
    admission = Admission(max_in_flight=2, max_buffered_bytes=1, max_queued=10)

    found = [admission.is_full]
    for _ in range(2):
        admission.enter()
        found.append(admission.is_full)

    assert found == [False, False, True]


async def test_who_waits_gets_the_place_that_becomes_free_and_nobody_else_does() -> None:
    admission, first = one_place()
    waiting = Waiting(admission)
    await waiting.come("a1", "a2")

    first.leave()

    assert admission.is_full  # though its task has not run yet
    with pytest.raises(Overloaded):
        admission.enter()
    await waiting.leave("a1")
    await waiting.leave("a2")
    assert (admission.in_flight, admission.queue.size, admission.is_full) == (0, 0, False)


async def test_places_go_round_the_callers() -> None:
    admission, first = one_place()
    waiting = Waiting(admission)
    await waiting.come("a1", "a2", "a3", "b1")

    first.leave()
    for name in ("b1", "a1", "a2", "a3"):
        await waiting.leave(name)

    assert waiting.served == ["b1", "a1", "a2", "a3"]


async def test_who_waited_long_enough_is_told_to_come_back() -> None:
    admission, first = one_place(timeout_s=0.05)
    waiting = Waiting(admission)
    await waiting.come("a1")

    refused = await waiting.refusal("a1")

    assert (refused.status, refused.code, refused.retry_after_s, refused.retryable) == (503, "overloaded", 1.0, True)
    assert admission.queue.size == 0
    assert admission.shed == {"full": 0, "displaced": 0, "waited": 1, "deadline": 0, "bodies": 0}
    first.leave()
    assert admission.in_flight == 0


async def test_nobody_waits_beyond_its_own_deadline() -> None:
    admission, _ = one_place()
    now = asyncio.get_running_loop().time()
    waiting = Waiting(admission)
    await waiting.come("a1", until=now + 0.05)
    await waiting.come("a2", until=now - 1)

    assert waiting.refused == ["a2"]  # at once
    await waiting.refusal("a1")
    await waiting.refusal("a2")

    assert (admission.shed["deadline"], admission.queue.size) == (2, 0)


async def test_a_full_queue_refuses_at_once() -> None:
    admission, _ = one_place(max_queued=2)
    waiting = Waiting(admission)
    await waiting.come("a1", "b1", "a2", "c1")

    assert waiting.refused == ["a2", "c1"]
    assert admission.shed["full"] == 2
    await waiting.refusal("a2")
    await waiting.refusal("c1")
    await waiting.gone("a1", "b1")


async def test_without_a_queue_nobody_waits() -> None:
    admission, _ = one_place(max_queued=0)

    with pytest.raises(Overloaded):
        await asyncio.wait_for(admission.wait("a"), 5)


async def test_a_newcomer_takes_the_place_of_the_last_of_who_has_most_until_all_have_their_share() -> None:
    admission, first = one_place(max_queued=4)
    waiting = Waiting(admission)
    await waiting.come("a1", "a2", "a3", "a4", "b1", "b2", "b3", "a5", "c1", "d1")

    # b1 and b2 are let in for a4 and a3; b3 and a5 would be more than their callers' share; c1 and d1 are let in for
    # the last of b and of a, who have two.
    await until(lambda: len(waiting.refused) == 6)
    assert waiting.refused == ["a4", "a3", "b3", "a5", "b2", "a2"]
    assert (admission.shed["displaced"], admission.shed["full"]) == (4, 2)
    for name in waiting.refused:
        await waiting.refusal(name)
    first.leave()
    for name in ("b1", "c1", "d1", "a1"):
        await waiting.leave(name)
    assert admission.in_flight == 0


async def test_a_caller_who_leaves_the_queue_makes_room_and_misses_no_turn_of_others() -> None:
    admission, first = one_place(max_queued=2)
    waiting = Waiting(admission)
    await waiting.come("a1", "b1")

    await waiting.gone("b1")
    assert admission.queue.size == 1
    await waiting.come("c1")
    first.leave()
    await waiting.leave("c1")
    await waiting.leave("a1")

    assert (admission.in_flight, waiting.refused) == (0, [])


@pytest.mark.parametrize("order", ["its turn comes first", "it leaves first"])
async def test_a_place_is_not_lost_with_a_caller_who_leaves_just_when_it_is_its_turn(order: str) -> None:
    admission, first = one_place()
    waiting = Waiting(admission)
    await waiting.come("a1", "a2")

    if order == "its turn comes first":
        first.leave()
        waiting.tasks["a1"].cancel()
    else:
        waiting.tasks["a1"].cancel()
        first.leave()

    await waiting.leave("a2")
    assert waiting.tasks["a1"].cancelled()
    assert waiting.served == ["a2"]
    assert (admission.in_flight, admission.queue.size) == (0, 0)


@pytest.mark.parametrize("why", ["waited", "displaced"])
async def test_a_caller_who_leaves_just_when_it_is_refused_is_neither(
    why: str, caplog: pytest.LogCaptureFixture
) -> None:
    admission, first = one_place(max_queued=2)
    waiting = Waiting(admission)
    await waiting.come("a1", "a2")
    if why == "waited":
        admission.queue._give_up("a", next(reversed(admission.queue._lines["a"])), "waited")
    else:
        waiting.tasks["b1"] = asyncio.get_running_loop().create_task(admission.wait("b"))
        asyncio.get_running_loop().call_soon(waiting.tasks["a2"].cancel)
        await asyncio.sleep(0)

    await waiting.gone("a2")

    assert waiting.refused == []
    assert admission.queue.size == (1 if why == "waited" else 2)
    await waiting.gone(*(waiting.tasks.keys() - {"a2"}))
    first.leave()
    assert (admission.in_flight, admission.queue.size, caplog.records) == (0, 0, [])


async def test_no_timer_is_left_of_those_that_waited() -> None:
    loop = asyncio.get_running_loop()
    admission, first = one_place(max_queued=3, timeout_s=3600.0)
    waiting = Waiting(admission)
    await waiting.come("a1", "a2", "a3", "b1")

    first.leave()
    await waiting.leave("b1")
    await waiting.gone("a1", "a2")
    await waiting.refusal("a3")

    timers = [it for it in loop._scheduled if not it.cancelled()]  # type: ignore[attr-defined]
    assert [it for it in timers if "Turns" in repr(it)] == []


async def test_bodies_that_do_not_fit_are_counted() -> None:
    admission, ticket = one_place()

    with pytest.raises(Overloaded):
        ticket.reserve(101)

    assert admission.shed["bodies"] == 1


# -- other bounds ----------------------------------------------------------------------------------------------------


SERVER = ServerConfig(max_in_flight=1, max_queued=10, queue_timeout_s=LONG_S)


@pytest.mark.parametrize(("most", "served"), [(3, 2), (0, 4), (1, 0)])
async def test_a_reload_lets_in_as_many_as_may_be_in_flight_then(most: int, served: int) -> None:
    admission, first = one_place()
    waiting = Waiting(admission)
    await waiting.come("a1", "a2", "a3", "a4")

    admission.follow(attrs.evolve(SERVER, max_in_flight=most))
    await until(lambda: len(waiting.served) == served)

    assert (admission.in_flight, admission.queue.size) == (1 + served, 4 - served)
    first.leave()
    for name in waiting.tasks:
        await waiting.leave(name)
    assert admission.in_flight == 0


async def test_who_waits_when_a_reload_takes_the_queue_away_is_served_and_who_comes_then_is_not() -> None:
    admission, first = one_place()
    waiting = Waiting(admission)
    await waiting.come("a1", "a2", "a3")

    admission.follow(attrs.evolve(SERVER, max_queued=0))
    await waiting.come("b1")

    await waiting.refusal("b1")
    assert (admission.shed["full"], admission.shed["displaced"]) == (1, 0)
    first.leave()
    for name in ("a1", "a2", "a3"):
        await waiting.leave(name)


async def test_a_reload_to_fewer_places_lets_nobody_in_before_there_are_so_few() -> None:
    admission = Admission(max_in_flight=3, max_buffered_bytes=100, max_queued=10, queue_timeout_s=LONG_S)
    tickets = [admission.enter() for _ in range(3)]
    waiting = Waiting(admission)
    await waiting.come("a1")

    admission.follow(SERVER)
    tickets[0].leave()
    tickets[1].leave()
    assert (admission.in_flight, admission.queue.size) == (1, 1)
    tickets[2].leave()

    await waiting.leave("a1")
    assert admission.in_flight == 0


async def test_whoever_comes_leaves_and_waits_in_whatever_order_no_place_is_lost_or_made() -> None:
    chance = random.Random(7)
    admission = Admission(max_in_flight=5, max_buffered_bytes=100, max_queued=8, queue_timeout_s=0.02)
    ended = Counter[str]()
    most = 0

    async def call(caller: str) -> None:
        nonlocal most
        try:
            ticket = await admission.wait(caller) if admission.is_full else admission.enter()
        except Overloaded:
            ended["refused"] += 1
            return
        try:
            most = max(most, admission.in_flight)
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
        finally:
            ticket.leave()
        ended["served"] += 1

    running = set[asyncio.Task[None]]()
    for number in range(3000):
        running.add(asyncio.get_running_loop().create_task(call(chance.choice("aaaabcd"))))
        for task in list(running):
            if chance.random() < 0.02:
                task.cancel()
        if number % 500 == 0:
            admission.follow(attrs.evolve(SERVER, max_in_flight=chance.choice([2, 5]), queue_timeout_s=0.02))
        if chance.random() < 0.3:
            await asyncio.sleep(0)
        running = {task for task in running if not task.done()}
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), 20)

    assert (admission.in_flight, admission.queue.size, admission.queue.longest) == (0, 0, 0)
    assert most <= 5
    assert min(ended["served"], ended["refused"], 3000 - ended.total()) > 50
    assert ended["refused"] == sum(admission.shed.values())
    assert min(admission.shed["full"], admission.shed["displaced"]) > 0


# -- the limit that adapts -------------------------------------------------------------------------------------------


class HurryingClock:
    """A clock on which *step_s* pass each time somebody looks at it."""

    def __init__(self) -> None:
        self.now_s = self.step_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


async def test_a_late_loop_makes_calls_wait_and_a_quick_one_lets_them_in() -> None:
    clock = HurryingClock()
    admission = Admission(
        max_in_flight=100,
        max_buffered_bytes=1,
        max_queued=10,
        queue_timeout_s=LONG_S,
        adaptive_limit=True,
        clock=clock,
    )
    tickets = [admission.enter() for _ in range(20)]
    waiting = Waiting(admission)
    clock.step_s = 1.0
    admission.start()
    await until(lambda: admission.limit == 18)
    await waiting.come("a1")
    for _ in range(2):
        tickets.pop().leave()
    assert (admission.in_flight, admission.queue.size) == (18, 1)

    clock.step_s = 0.0
    await until(lambda: waiting.served == ["a1"])

    admission.stop()
    assert admission.limit == 18 + 4
    for ticket in tickets:
        ticket.leave()
    await waiting.leave("a1")
    assert admission.in_flight == 0


async def test_a_reload_begins_and_ends_to_adapt() -> None:
    admission = Admission.of(SERVER)
    admission.start()
    unasked = admission._looks._timer
    assert unasked is None

    admission.follow(attrs.evolve(SERVER, max_in_flight=100, adaptive_limit=True))
    timer = admission._looks._timer
    assert timer is not None
    admission.follow(attrs.evolve(SERVER, max_in_flight=50, adaptive_limit=True))
    assert (admission._looks._timer, admission.limit) == (timer, 50)
    admission.follow(SERVER)

    assert timer.cancelled()
    assert (admission._looks._timer, admission.limit) == (None, 1)
