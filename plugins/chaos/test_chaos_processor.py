"""The processor, over real sockets: what callers get, and what is written of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_chaos_kit import NUMBERS, Chaotic, above, always, numbers, said, streaming, told

from llmproxy_core import End
from tests.answers import completion, reply
from tests.exact import Seen, post
from tests.llmproxy_server.metrics.scraping import scrape
from tests.rawclient import connected
from tests.upstream import Upstream

ANSWER = reply(completion("yes"))
AFTER_TEN = {"after_chars": 10}
TEN = "one two "
"""What may pass in ten characters: whole pieces."""


async def ask(faults: dict[str, Any], *, stream: bool = False, **server: Any) -> tuple[Seen, Chaotic, int]:
    """An answer, the proxy that gave it, and how many calls came to the upstream."""
    async with (
        Upstream(numbers() if stream else ANSWER) as upstream,
        Chaotic(above(upstream.base_url, faults)) as proxy,
    ):
        seen = await proxy.ask(stream=stream)
        await proxy.outcome()
        return seen, proxy, len(upstream.requests)


# -- before the call -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "status", "code"),
    [
        ({"error": always(status=529)}, 529, "upstream_error"),
        ({"error": always(status=401)}, 502, "upstream_auth"),
        ({"connect": always()}, 502, "upstream_connect"),
        ({"timeout": always()}, 504, "upstream_timeout_first_byte"),
    ],
    ids=["error", "auth", "connect", "timeout"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_call_that_fails_does_not_reach_the_llm(
    faults: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    seen, proxy, calls = await ask(faults, stream=stream)

    assert seen.status == status
    assert told(seen)["code"] == code
    assert calls == 0
    assert proxy.injected == [list(faults)]
    assert proxy.outcomes[0].end is End.FAILED


async def test_an_error_says_who_made_it() -> None:
    seen, _, _ = await ask({"error": always(status=503)})

    assert told(seen)["message"] == "The provider answered with status 503 (injected by chaos)"


async def test_an_error_tells_when_to_come_back() -> None:
    seen, _, _ = await ask({"error": always(status=429, retry_after_s=7)})

    assert (seen.status, seen.header("retry-after")) == (429, "7")


async def test_of_several_statuses_each_is_drawn() -> None:
    async with Upstream() as upstream, Chaotic(above(upstream.base_url, {"error": always(status=[429, 503])})) as proxy:
        found = {(await proxy.ask()).status for _ in range(12)}

    assert found == {429, 503}


async def test_latency_delays_the_call_and_nothing_else() -> None:
    async with Upstream(ANSWER) as upstream, Chaotic(above(upstream.base_url, {"latency": always(ms=60)})) as proxy:
        seen = await proxy.ask()
        outcome = await proxy.outcome()

    assert json.loads(seen.body) == completion("yes")
    assert outcome.ended_s - outcome.started_s >= 0.06
    assert proxy.injected == [["latency"]]


async def test_faults_that_come_together_are_told_in_their_order() -> None:
    _, proxy, _ = await ask({"error": always(status=500), "latency": always(ms=1)})

    assert proxy.injected == [["latency", "error"]]


async def test_the_same_seed_fails_the_same_calls() -> None:
    async def statuses(seed: int) -> list[int]:
        faults = {"error": {"share": 0.4, "status": 500}}
        async with Upstream(ANSWER) as upstream, Chaotic(above(upstream.base_url, faults, seed=seed)) as proxy:
            return [(await proxy.ask()).status for _ in range(20)]

    once, again, other = await statuses(5), await statuses(5), await statuses(6)

    assert set(once) == {200, 500}
    assert once == again != other


# -- in the midst of an answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ({"cut": always(**AFTER_TEN)}, "upstream_cut"),
        ({"garbage": always(**AFTER_TEN)}, "upstream_garbage"),
        ({"timeout": always(clock="idle", ms=20, **AFTER_TEN)}, "upstream_timeout_idle"),
        ({"timeout": always(clock="total", **AFTER_TEN)}, "upstream_timeout_total"),
    ],
    ids=["cut", "garbage", "idle", "total"],
)
async def test_a_stream_breaks_off_at_its_place(faults: dict[str, Any], code: str) -> None:
    seen, proxy, _ = await ask(faults, stream=True)

    assert said(seen) == TEN
    assert told(seen)["code"] == code
    assert not seen.whole
    assert b"[DONE]" not in seen.body
    assert proxy.injected == [list(faults)]


async def test_a_stream_that_is_shorter_breaks_before_its_end() -> None:
    seen, _, _ = await ask({"cut": always(after_chars=10_000)}, stream=True)

    assert said(seen) == NUMBERS
    assert told(seen)["code"] == "upstream_cut"
    assert b'"finish_reason":"stop"' not in seen.body


@pytest.mark.parametrize(
    "faults", [{"stall": always(ms=60, **AFTER_TEN)}, {"slow_drip": always(ms=8)}], ids=lambda it: str(*it)
)
async def test_a_stream_that_only_waits_comes_whole(faults: dict[str, Any]) -> None:
    seen, proxy, _ = await ask(faults, stream=True)

    assert said(seen) == NUMBERS
    assert seen.whole
    assert seen.body.endswith(b"data: [DONE]\n\n")
    assert proxy.outcomes[0].ended_s - proxy.outcomes[0].started_s >= 0.06
    assert proxy.injected == [list(faults)]


async def test_what_comes_before_a_silence_is_not_held_back() -> None:
    an_hour = {"stall": always(ms=3_600_000, **AFTER_TEN)}
    async with Upstream(numbers()) as upstream, Chaotic(above(upstream.base_url, an_hour)) as proxy:
        async with connected(proxy.port) as client:
            client.send(streaming(proxy.port))
            await client.until(b"two ")
        outcome = await proxy.outcome()

    assert outcome.end is End.ABANDONED
    assert proxy.injected == [["stall"]]


@pytest.mark.parametrize("fault", ["cut", "garbage"])
async def test_a_plain_answer_fails_as_a_whole_and_is_paid_for(fault: str) -> None:
    seen, proxy, calls = await ask({fault: always(**AFTER_TEN)})

    assert (seen.status, told(seen)["code"]) == (502, f"upstream_{fault}")
    assert calls == 1
    assert proxy.outcomes[0].cost is not None
    assert proxy.outcomes[0].cost.nanodollars == 9 * 1000 + 3 * 2000  # what `completion` tells, at PRICES


async def test_a_plain_answer_is_late_as_a_whole() -> None:
    seen, proxy, _ = await ask({"stall": always(ms=30), "slow_drip": always(ms=30)})

    assert json.loads(seen.body) == completion("yes")
    assert proxy.outcomes[0].ended_s - proxy.outcomes[0].started_s >= 0.06
    assert proxy.injected == [["slow_drip", "stall"]]


async def test_what_is_no_conversation_fails_too() -> None:
    vectors = reply({"object": "list", "data": [], "usage": {"prompt_tokens": 4, "total_tokens": 4}})
    async with Upstream(vectors) as upstream, Chaotic(above(upstream.base_url, {"cut": always()})) as proxy:
        seen = await post(f"{proxy.base_url}/embeddings", b'{"model": "m", "input": "x"}')

    assert (seen.status, told(seen)["code"]) == (502, "upstream_cut")


# -- what is written of it -------------------------------------------------------------------------------------------


async def test_a_call_that_nothing_befalls_is_left_alone() -> None:
    seen, proxy, _ = await ask({"cut": {"share": 0}, "latency": {"share": 0, "ms": 60_000}}, stream=True)

    assert seen.whole
    assert proxy.injected == [None]


async def test_each_fault_is_counted_once_a_call() -> None:
    faults = {"slow_drip": always(ms=1), "cut": always(**AFTER_TEN)}
    async with Upstream(numbers()) as upstream, Chaotic(above(upstream.base_url, faults)) as proxy:
        for _ in range(2):
            await proxy.ask(stream=True)
        seen = await scrape(proxy)

    assert seen("llmproxy_chaos_faults_total", fault="slow_drip") == 2
    assert seen("llmproxy_chaos_faults_total", fault="cut") == 2
