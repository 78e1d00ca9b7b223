"""Windows begin and end by the wall clock; a call stays in the one that it was admitted in."""

from __future__ import annotations

import asyncio

import pytest
from test_cost_limit_shared import INPUT, OUTPUT, Limited, Wall, asking, bound, epoch, limited, usd

from llmproxy_core import Window
from tests.answers import completion, reply
from tests.script import Reached, Wait
from tests.upstream import Upstream

BOUND = bound(asking())
TRUE_COST = 9 * INPUT + 3 * OUTPUT
ONE_CALL = usd(BOUND)

EDGES = [
    # key, window, the last second of one, the first second of the next
    ("hourly_usd", Window.HOUR, "2026-11-20T12:59:59", "2026-11-20T13:00:00"),
    ("daily_usd", Window.DAY, "2028-02-28T23:59:59", "2028-02-29T00:00:00"),
    ("monthly_usd", Window.MONTH, "2026-12-31T23:59:59", "2027-01-01T00:00:00"),
]
EVERY_EDGE = pytest.mark.parametrize(("key", "window", "last", "first"), EDGES, ids=[row[0] for row in EDGES])


@EVERY_EDGE
async def test_a_spent_budget_is_whole_again_when_its_window_begins_anew(
    key: str, window: Window, last: str, first: str
) -> None:
    wall = Wall(epoch(last))
    async with (
        Upstream(reply(completion("yes"))) as upstream,
        Limited(limited(upstream.base_url, {key: ONE_CALL}), wall=wall) as proxy,
    ):
        paid, refused = await proxy.ask(), await proxy.ask()
        wall.now = epoch(first)
        fresh = await proxy.figures(window)
        paid_again, refused_again = await proxy.ask(), await proxy.ask()

    assert [it.status for it in (paid, refused, paid_again, refused_again)] == [200, 429, 200, 429]
    assert refused.header("retry-after") == "1"
    assert fresh == (0, 0)


@EVERY_EDGE
async def test_a_call_is_booked_in_the_window_that_admitted_it(key: str, window: Window, last: str, first: str) -> None:
    """The next window is not charged for it, neither while it runs nor after."""
    wall = Wall(epoch(last))
    under_way, go_on = asyncio.Event(), asyncio.Event()
    async with (
        Upstream(reply(completion("yes"))) as upstream,
        Limited(limited(upstream.base_url, {key: ONE_CALL, "total_usd": "1"}), wall=wall) as proxy,
        asyncio.TaskGroup() as tasks,
    ):
        upstream.then([Reached(under_way), Wait(go_on), *reply(completion("yes"))])
        slow = tasks.create_task(proxy.ask())
        await asyncio.wait_for(under_way.wait(), 10)
        before = await proxy.figures(window)
        wall.now = epoch(first)
        meanwhile = await proxy.figures(window)
        other = await proxy.ask()
        go_on.set()
        seen = await slow
        after, in_all = await proxy.figures(window), await proxy.figures(Window.TOTAL)

    assert (seen.status, other.status) == (200, 200)
    assert before == (0, BOUND)
    assert meanwhile == (0, 0)
    assert after == (TRUE_COST, 0)
    assert in_all == (2 * TRUE_COST, 0)


async def test_a_clock_that_is_set_back_opens_no_budget_again() -> None:
    wall = Wall(epoch("2026-11-20T23:59:59"))
    async with (
        Upstream(reply(completion("yes"))) as upstream,
        Limited(limited(upstream.base_url, {"daily_usd": ONE_CALL}), wall=wall) as proxy,
    ):
        wall.now = epoch("2026-11-21T00:00:01")
        first = await proxy.ask()
        wall.now = epoch("2026-11-20T23:59:59")
        second = await proxy.ask()

    assert (first.status, second.status) == (200, 429)
    assert second.header("retry-after") == str(86_400 + 1)
