"""Hostile and too much load beside what is asked in earnest (section 5, row 34, and what the wire's corpus lacks)."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.exact import Seen, post
from tests.proxy import Proxy, with_server
from tests.resilience.flocks import ask, says
from tests.resilience.goals.kit import guarded
from tests.upstream import Call, Upstream

BOMBS = {
    "deep arrays": b'{"model":"m","messages":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep objects": b'{"model":"m","messages":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "never closed": b'{"model":"m","messages":' + b"[" * 1_000_000,
    "a number without end": b'{"model":"m","messages":[],"seed":' + b"9" * 500_000 + b"}",
    "members without end": b"{" + b",".join(b'"a%d":1' % number for number in range(100_000)) + b"}",
    "a member twice": b'{"model":"m","model":"n","messages":[]}',
    "no UTF-8": b'{"model":"m","messages":[{"role":"user","content":"' + b"\xff\xfe" * 100_000 + b'"}]}',
    "no JSON": b"\0" * 1_000_000,
}


async def test_bombs_under_load_are_refused_and_others_are_served() -> None:
    async with Upstream(says("hello")) as a, Upstream(says("hello")) as b, Proxy(guarded(a, b)) as proxy:
        url = f"{proxy.base_url}/chat/completions"

        async with asyncio.TaskGroup() as group:
            bombs = [group.create_task(post(url, bomb)) for bomb in BOMBS.values() for _ in range(3)]
            asked = [group.create_task(ask(proxy)) for _ in range(100)]

        assert {task.result().status for task in bombs} <= {400, 413, 422}
        assert {task.result().status for task in asked} == {200}
        assert len(a.requests) + len(b.requests) == 100
        assert proxy.server.admission.buffered_bytes == 0


@pytest.mark.parametrize(
    "seconds", [pytest.param(120.0, marks=[pytest.mark.soak, pytest.mark.timeout(600)], id="whole")]
)
async def test_twice_as_much_as_can_be_served_leaves_what_is_served(
    seconds: float, record_property: Callable[[str, object], None]
) -> None:
    """Row 34: goodput of at least 90 percent of its peak, the queue bounded."""
    places = 20

    async def slow(call: Call) -> None:
        await asyncio.sleep(0.05)  # the pace of the upstream, which makes the peak 400 a second
        await call.play(*says("hello"))

    async with Upstream(slow) as a, Upstream(slow) as b:
        mapping = with_server(guarded(a, b), max_in_flight=places, max_queued=places, queue_timeout_s=0.5)
        async with Proxy(mapping) as proxy:
            peak = await _served(proxy, places, seconds / 4)
            served = await _served(proxy, 4 * places, seconds)

        assert set(served) <= {200, 503}
        rates = peak[200] / (seconds / 4), served[200] / seconds
        record_property("row 34", f"{rates[0]:.0f} a second at its peak, {rates[1]:.0f} under twice as much")
        assert rates[1] >= 0.9 * rates[0]


async def _served(proxy: Proxy, clients: int, seconds: float) -> Counter[int]:
    """How *clients* that never pause, but for a moment after a refusal, were answered in *seconds*."""
    until_s = time.monotonic() + seconds
    found: Counter[int] = Counter()

    async def client() -> None:
        while time.monotonic() < until_s:
            seen: Seen = await ask(proxy)
            found[seen.status] += 1
            if seen.status == 503:
                assert json.loads(seen.body)["error"]["code"] == "overloaded"
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return found
