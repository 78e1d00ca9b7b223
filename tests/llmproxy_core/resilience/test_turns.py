"""Calls that wait for a place: as whose they wait, whose turn it is, and what ends a wait."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from llmproxy_core.resilience.turns import Refusal, Turns, caller_of

LONG_S = 60.0
"""Nobody waits so long here: what ends a wait is something else."""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "not:an:address", False),
    ],
)
def test_a_network_that_one_site_has_is_one_caller(one: str, other: str, same: bool) -> None:
    assert (caller_of(one) == caller_of(other)) is same


class Owner:
    """Who counts the places: here it only knows what it got back."""

    def __init__(self) -> None:
        self.given_back = 0
        self.turns = Turns(self.take_back)

    def take_back(self) -> None:
        self.given_back += 1

    async def come(
        self, address: str, *, most: int = 10, wait_s: float = LONG_S, left_s: float = inf
    ) -> asyncio.Task[Refusal | None]:
        """A call that waits, or has been refused, when this returns."""
        waiting = self.turns.wait(address, most=most, wait_s=wait_s, left_s=left_s)
        task = asyncio.get_running_loop().create_task(waiting)
        await asyncio.sleep(0)
        return task


async def told(task: asyncio.Task[Refusal | None]) -> Refusal | None:
    return await asyncio.wait_for(task, 5)


async def test_a_free_place_goes_round_the_callers_and_to_nobody_where_nobody_waits() -> None:
    owner = Owner()
    tasks = [await owner.come(address) for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2")]

    served = list[int]()
    while owner.turns.serve():
        await asyncio.sleep(0)
        served += [number for number, task in enumerate(tasks) if task.done() and number not in served]

    assert served == [2, 0, 1]
    assert [await told(task) for task in tasks] == [None] * 3
    assert (owner.turns.size, owner.given_back) == (0, 0)


async def test_callers_of_one_network_have_one_turn_together() -> None:
    owner = Owner()
    many = [await owner.come(f"2001:db8::{number}") for number in range(1, 4)]
    other = await owner.come("2001:db8:0:1::1")

    owner.turns.serve()

    assert await told(other) is None
    assert not any(task.done() for task in many)
    while owner.turns.serve():
        pass
    assert [await told(task) for task in many] == [None] * 3


@pytest.mark.parametrize(
    ("wait_s", "left_s", "why"), [(0.05, inf, "waited"), (LONG_S, 0.05, "deadline"), (LONG_S, -1.0, "deadline")]
)
async def test_a_wait_ends_with_what_is_over_first(wait_s: float, left_s: float, why: str) -> None:
    owner = Owner()

    waiting = await owner.come("192.0.2.1", wait_s=wait_s, left_s=left_s)

    assert await told(waiting) == why
    assert (owner.turns.size, owner.turns.serve()) == (0, False)


async def test_who_comes_when_too_many_wait_takes_the_place_of_the_last_of_who_has_most_or_none() -> None:
    owner = Owner()
    many = [await owner.come("192.0.2.1", most=3) for _ in range(3)]

    others = [await owner.come(f"192.0.2.{number}", most=3) for number in (1, 2, 3, 4)]

    # A fourth of the first caller's does not fit; the second and the third caller's do, for its last two. Then each
    # has as many as the next, and the fourth caller finds it full.
    assert [await told(others[place]) for place in (0, 3)] == ["full", "full"]
    assert [await told(many[place]) for place in (2, 1)] == ["displaced", "displaced"]
    assert owner.turns.size == 3
    while owner.turns.serve():
        pass
    assert [await told(task) for task in (many[0], others[1], others[2])] == [None] * 3


async def test_a_place_that_was_given_to_who_left_in_that_moment_is_given_back() -> None:
    owner = Owner()
    leaves, stays = await owner.come("192.0.2.1"), await owner.come("192.0.2.1")

    assert owner.turns.serve()
    leaves.cancel()
    await asyncio.wait([leaves], timeout=5)

    assert leaves.cancelled()
    assert owner.given_back == 1
    assert owner.turns.serve()
    assert await told(stays) is None


async def test_a_place_is_not_given_to_who_has_left_already() -> None:
    owner = Owner()
    leaves, stays = await owner.come("192.0.2.1"), await owner.come("192.0.2.1")

    leaves.cancel()  # its task has not run since, so that it still waits
    assert owner.turns.serve()

    assert await told(stays) is None
    await asyncio.wait([leaves], timeout=5)
    assert (leaves.cancelled(), owner.given_back, owner.turns.size) == (True, 0, 0)


async def test_who_is_refused_and_leaves_in_that_moment_gives_nothing_back() -> None:
    owner = Owner()
    first, second = await owner.come("192.0.2.1", most=2), await owner.come("192.0.2.1", most=2)
    loop = asyncio.get_running_loop()

    other = loop.create_task(owner.turns.wait("192.0.2.2", most=2, wait_s=LONG_S))
    loop.call_soon(second.cancel)  # behind the first step of the other, which displaces it
    await asyncio.wait([second], timeout=5)

    assert second.cancelled()
    assert (owner.given_back, owner.turns.size) == (0, 2)
    while owner.turns.serve():
        pass
    assert [await told(first), await told(other)] == [None, None]


async def test_no_timer_is_left_of_those_that_waited() -> None:
    owner = Owner()
    served, left = await owner.come("192.0.2.1"), await owner.come("192.0.2.1")

    owner.turns.serve()
    await told(served)
    left.cancel()
    await asyncio.wait([left], timeout=5)

    timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    assert [it for it in timers if not it.cancelled() and "Turns" in repr(it)] == []
