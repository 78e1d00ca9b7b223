"""The places of an LLM: how many there are, whose turn it is, and what becomes of them when all goes on at once."""

from __future__ import annotations

import asyncio
from collections import Counter

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.groups.places import Places, Room
from llmproxy_core.resilience.failure import Unavailable

LONG_S = 60.0
FULL = "The LLM 'a' serves as many calls as it may"
WHY = {
    FULL: "full",
    f"{FULL}, and too many of yours wait for it": "displaced",
    f"{FULL}, and the turn of this one did not come in time (queue_timeout_s)": "waited",
    f"{FULL}, and the turn of this one did not come before its deadline": "deadline",
    "The LLM 'a' is out of service": "drained",
}


async def take(places: Places, caller: str, left_s: float = LONG_S) -> Unavailable | None:
    """As whoever calls the LLM does."""
    return await places.turn(caller, left_s) if places.is_full else places.enter(places.room)


# -- one after the other ---------------------------------------------------------------------------------------------


def test_while_there_is_room_a_place_is_taken_without_a_wait() -> None:
    places = Places("a", Room(most=2))

    assert [places.enter(places.room), places.enter(places.room)] == [None, None]

    assert places.is_full
    refused = places.enter(places.room)
    assert refused is not None
    assert (refused.message, refused.code, refused.status, refused.retry_after_s) == (FULL, "llm_full", 503, 1.0)
    places.leave()
    assert (places.is_full, places.refusal(), places.in_flight) == (False, None, 1)


def test_without_a_bound_it_is_never_full() -> None:
    places = Places("a", Room())

    for _ in range(1000):
        assert places.enter(places.room) is None

    assert (places.is_full, places.in_flight) == (False, 1000)


async def test_an_llm_that_is_full_and_lets_nobody_wait_refuses_at_once() -> None:
    places = Places("a", Room(most=1))
    places.enter(places.room)

    refused = await asyncio.wait_for(places.turn("x"), 5)

    assert refused is not None
    assert WHY[refused.message] == "full"
    assert places.in_flight == 1


@pytest.mark.parametrize("full", [True, False])
async def test_a_drained_llm_gives_no_place_and_lets_nobody_wait(full: bool) -> None:
    places = Places("a", Room(most=1, most_waiting=10, wait_s=LONG_S))
    if full:
        places.enter(places.room)
    places.drained = True

    refused = await asyncio.wait_for(take(places, "x"), 5)

    assert refused is not None
    assert (WHY[refused.message], refused.code) == ("drained", "llm_drained")
    assert (places.in_flight, places.waiting) == (int(full), 0)


# -- all at once -----------------------------------------------------------------------------------------------------


class StoppedLoop(asyncio.SelectorEventLoop):
    """An event loop on whose clock no time passes but what a test lets pass."""

    now_s = 1000.0

    def time(self) -> float:
        return self.now_s


@attrs.frozen(eq=False)
class Waiting:
    caller: str
    task: asyncio.Task[None]
    due_s: float
    ends_with: str
    """Why it is refused at `due_s`."""


@attrs.define(eq=False)
class Crowd:
    """Calls of the callers a, b, c and d, and what is known of them by counting."""

    loop: StoppedLoop
    places: Places
    lines: dict[str, list[Waiting]] = attrs.field(factory=lambda: {caller: [] for caller in "abcd"})
    """By caller those that wait, the first first."""
    passed: dict[str, Counter[str]] = attrs.field(factory=lambda: {caller: Counter() for caller in "abcd"})
    """How often each other caller had its turn, since this one waits and has had none."""
    inside: int = 0
    ends: list[tuple[str, asyncio.Task[None]]] = attrs.field(factory=list)
    """What has come of calls, in that order, since somebody looked."""

    @property
    def waiting(self) -> list[Waiting]:
        return [it for line in self.lines.values() for it in line]

    @property
    def room(self) -> Room:
        return self.places.room

    def start(self, caller: str, left_s: float) -> asyncio.Task[None]:
        return self.loop.create_task(self._call(caller, left_s))

    async def _call(self, caller: str, left_s: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        refused = await take(self.places, caller, left_s)
        self.ends.append(("served" if refused is None else WHY[refused.message], task))

    async def settle(self) -> None:
        for _ in range(3 * len(self.waiting) + 5):  # who is given a place and may not have it hands it on, one by one
            await asyncio.sleep(0)

    # -- what happens ------------------------------------------------------------------------------------------------

    async def come(self, caller: str, left_s: float) -> None:
        was_full, was_drained = self.places.is_full, self.places.drained
        before = {it: len(line) for it, line in self.lines.items()}
        room, wait_s = self.room, min(self.room.wait_s, left_s)
        task = self.start(caller, left_s)
        await self.settle()
        mine, others = self._ends_of(task)
        if was_drained:
            assert (mine, others) == ("drained", [])
        elif not was_full:
            assert (mine, others) == ("served", [])
            self.inside += 1
        elif wait_s <= 0:
            assert (mine, others) == ("deadline", [])
        elif mine is None:
            why = "deadline" if left_s < room.wait_s else "waited"
            if sum(before.values()) == room.most_waiting:  # somebody made way
                [(end, displaced)] = others
                line = next(line for line in self.lines.values() if line and line[-1].task is displaced)
                assert end == "displaced"
                assert len(line) == max(before.values()) >= before[caller] + 2
                line.pop()
            else:
                assert others == []
                assert sum(before.values()) < room.most_waiting
            self.lines[caller].append(Waiting(caller, task, self.loop.time() + wait_s, why))
        else:
            assert (mine, others) == ("full", [])
            total, longest = sum(before.values()), max(before.values())
            assert total > room.most_waiting or (total == room.most_waiting and longest < before[caller] + 2)

    async def end(self, *, and_gone: int | None = None) -> None:
        """A call ends; at the same moment one of those that wait leaves."""
        if not self.inside:
            return
        self.inside -= 1
        self.places.leave()
        waiting = self.waiting
        if and_gone is not None and waiting:
            self._leaves(waiting[and_gone % len(waiting)])
        await self.settle()
        self._served()

    async def gone(self, number: int, *, and_end: bool = False) -> None:
        """One of those that wait leaves; at the same moment a call ends."""
        waiting = self.waiting
        if waiting:
            self._leaves(waiting[number % len(waiting)])
        if and_end and self.inside:
            self.inside -= 1
            self.places.leave()
        await self.settle()
        self._served()

    async def pass_by(self, seconds: float) -> None:
        self.loop.now_s += seconds
        due = {it.task: it for it in self.waiting if it.due_s <= self.loop.time()}
        await self.settle()
        assert {task for _, task in self.ends} == due.keys()
        for end, task in self.ends:
            assert end == due[task].ends_with
            self.lines[due[task].caller].remove(due[task])
        self.ends.clear()

    async def follow(self, room: Room) -> None:
        self.places.follow(room)
        await self.settle()
        self._served()

    # -- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        most = self.room.most
        assert self.ends == []
        assert (self.places.in_flight, self.places.waiting) == (self.inside, len(self.waiting))
        assert not any(it.task.done() for it in self.waiting)
        assert not self.waiting or 0 < most <= self.inside  # nobody waits for a place that is free
        assert self.places.is_full is (0 < most <= self.inside)
        for caller, line in self.lines.items():
            if not line:
                self.passed[caller].clear()

    def _leaves(self, one: Waiting) -> None:
        one.task.cancel()
        self.lines[one.caller].remove(one)
        self.passed[one.caller].clear()  # where a call ends at that moment, this one may just have its turn

    def _ends_of(self, task: asyncio.Task[None]) -> tuple[str | None, list[tuple[str, asyncio.Task[None]]]]:
        """What has come of *task*, None while it waits; and what of others."""
        mine = next((end for end, it in self.ends if it is task), None)
        others = [(end, it) for end, it in self.ends if it is not task]
        self.ends.clear()
        return mine, others

    def _served(self) -> None:
        """Whoever had a turn was the first of its line, whose turn it was; a drained LLM gives it no place."""
        was_served = any(end == "served" for end, _ in self.ends)
        for end, task in self.ends:
            line = next(line for line in self.lines.values() if line and line[0].task is task)
            caller = line.pop(0).caller
            assert end == ("drained" if self.places.drained else "served")
            self.inside += end == "served"
            self.passed[caller].clear()
            for other, others_line in self.lines.items():
                if others_line and other != caller:
                    self.passed[other][caller] += 1
                    assert self.passed[other][caller] <= MOST_PASSED
        self.ends.clear()
        assert not was_served or not self.room.most or self.inside <= self.room.most


MOST_PASSED = 2
"""Turns that another may have first: its own, and that of who began the queue."""


def run(steps: list[tuple[str, str, int]]) -> None:
    """Let *steps* happen, each a kind, a caller and a number; then let all leave, and nothing be left."""
    loop = StoppedLoop()
    try:
        loop.run_until_complete(_happen(loop, steps))
        assert [it for it in loop._scheduled if not it.cancelled()] == []  # type: ignore[attr-defined]
    finally:
        loop.close()


async def _happen(loop: StoppedLoop, steps: list[tuple[str, str, int]]) -> None:
    crowd = Crowd(loop, Places("a", Room(most=1, most_waiting=4, wait_s=10.0)))
    for kind, caller, number in steps:
        if kind == "come":
            await crowd.come(caller, LONG_S)
        elif kind == "come in a hurry":
            await crowd.come(caller, number - 1.0)
        elif kind == "end":
            await crowd.end()
        elif kind == "gone":
            await crowd.gone(number)
        elif kind == "end and gone":
            await crowd.end(and_gone=number)
        elif kind == "gone and end":
            await crowd.gone(number, and_end=True)
        elif kind == "time":
            await crowd.pass_by(float(number))
        elif kind == "room":
            await crowd.follow(Room(most=number % 4, most_waiting=number, wait_s=10.0))
        elif kind == "drain":
            crowd.places.drained = True
            await crowd.come(caller, LONG_S)
            await crowd.end()
            crowd.check()
            crowd.places.drained = False
        crowd.check()
    while crowd.inside or crowd.waiting:
        await (crowd.end() if crowd.inside else crowd.gone(0))
        crowd.check()
    assert (crowd.places.in_flight, crowd.places.waiting) == (0, 0)


KINDS = ["come in a hurry", "end", "gone", "end and gone", "gone and end", "time", "room", "drain", *["come"] * 12]
"""Mostly somebody comes: else it is hardly ever full."""


@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.sampled_from("aaaabcd"), st.integers(min_value=0, max_value=7)),
        max_size=60,
    )
)
def test_no_place_is_lost_or_made_and_turns_are_fair_whatever_happens(steps: list[tuple[str, str, int]]) -> None:
    """Against counting: who waits, who is refused and why, and how often others were served first."""
    run(steps)
