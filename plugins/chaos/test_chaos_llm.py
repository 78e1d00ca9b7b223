"""The LLM around another one, over real sockets: what stands above it meets its faults as a provider's."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from test_chaos_kit import (
    NUMBERS,
    PRICES,
    Chaotic,
    always,
    below,
    numbers,
    said,
    streaming,
    told,
)

from llmproxy_core import End
from tests.answers import chat_chunk, completion, reply, sse
from tests.exact import Seen
from tests.llmproxy_server.metrics.scraping import scrape
from tests.rawclient import connected
from tests.script import Chunk, Cut, Head, Stall, Step
from tests.upstream import EVENT_STREAM, Upstream

ANSWER = reply(completion("yes"))
AFTER_TEN = {"after_chars": 10}
TEN = "one two "
"""What may pass in ten characters: whole pieces."""
SO_FAR = sse(*map(chat_chunk, ("one ", "two ", "three ")), done=False)
"""The beginning of a stream."""
SOON = {"initial_backoff_s": 0.001}
COST = 9 * 1000 + 3 * 2000
"""Of what `completion` and `usage_chunk` tell, at PRICES, in nanodollars."""


async def ask(faults: dict[str, Any], *, stream: bool = False) -> tuple[Seen, Chaotic, int]:
    """An answer, the proxy that gave it, and how many calls came to the upstream."""
    async with (
        Upstream(numbers() if stream else ANSWER) as upstream,
        Chaotic(below(upstream.base_url, faults)) as proxy,
    ):
        seen = await proxy.ask(stream=stream)
        await proxy.outcome()
        return seen, proxy, len(upstream.requests)


# -- before its member is asked --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "code", "status", "sent"),
    [
        ({"error": always(status=529)}, "upstream_error", 529, True),
        ({"connect": always()}, "upstream_connect", None, False),
        ({"timeout": always(ms=5)}, "upstream_timeout_first_byte", None, True),
    ],
    ids=["error", "connect", "timeout"],
)
async def test_a_failed_call_is_an_attempt_as_any_other(
    faults: dict[str, Any], code: str, status: int | None, sent: bool
) -> None:
    seen, proxy, calls = await ask(faults)

    (attempt,) = proxy.last.attempts
    assert (attempt.llm, attempt.model, attempt.status) == ("flaky", "gpt-4o-mini", status)
    assert attempt.error is not None
    assert attempt.error.code == code == told(seen)["code"]
    assert attempt.ended_s is not None
    assert (attempt.sent_s is not None) == sent
    assert calls == 0
    assert proxy.injected == [list(faults)]


async def test_latency_comes_before_its_member_is_asked() -> None:
    seen, proxy, _ = await ask({"latency": always(ms=60)})

    (attempt,) = proxy.last.attempts
    assert json.loads(seen.body) == completion("yes")
    assert attempt.llm == "openai"
    assert attempt.started_s - proxy.last.started_s >= 0.06


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

    (attempt,) = proxy.last.attempts
    assert said(seen) == TEN
    assert told(seen)["code"] == code
    assert not seen.whole
    assert attempt.llm == "openai"
    assert attempt.error is not None
    assert attempt.error.code == code
    assert proxy.injected == [list(faults)]


async def test_a_stream_that_was_cut_is_paid_for_once() -> None:
    _, proxy, _ = await ask({"cut": always(**AFTER_TEN)}, stream=True)

    (attempt,), (outcome,) = proxy.last.attempts, proxy.outcomes
    assert outcome.end is End.FAILED
    assert outcome.usage is not None
    assert outcome.usage.output_tokens > 0  # an estimate of what was read: nothing was told yet
    assert attempt.outcome is not None
    assert attempt.outcome.usage == outcome.usage
    assert attempt.outcome.cost == outcome.cost


async def test_a_stream_that_is_shorter_breaks_before_its_end() -> None:
    seen, _, _ = await ask({"cut": always(after_chars=10_000)}, stream=True)

    assert said(seen) == NUMBERS
    assert told(seen)["code"] == "upstream_cut"
    assert b'"finish_reason":"stop"' not in seen.body


@pytest.mark.parametrize(
    "faults", [{"stall": always(ms=60, **AFTER_TEN)}, {"slow_drip": always(ms=8)}], ids=["stall", "slow_drip"]
)
async def test_a_stream_that_only_waits_keeps_its_bytes_and_its_bill(faults: dict[str, Any]) -> None:
    untouched, _, _ = await ask({"cut": {"share": 0}}, stream=True)
    seen, proxy, _ = await ask(faults, stream=True)

    (attempt,), (outcome,) = proxy.last.attempts, proxy.outcomes
    assert seen.body == untouched.body
    assert seen.whole
    assert outcome.ended_s - outcome.started_s >= 0.06
    assert outcome.cost is not None
    assert outcome.cost.nanodollars == COST
    assert attempt.outcome is not None
    assert attempt.outcome.end is End.COMPLETED
    assert attempt.outcome.usage == outcome.usage


async def test_the_connection_of_a_stream_that_came_whole_is_used_again() -> None:
    async with (
        Upstream(numbers()) as upstream,
        Chaotic(below(upstream.base_url, {"stall": always(ms=1)})) as proxy,
    ):
        for _ in range(3):
            await proxy.ask(stream=True)

    assert [it.connection for it in upstream.requests] == [1, 1, 1]


async def test_the_connection_of_a_stream_that_was_cut_is_closed() -> None:
    held: list[Step] = [Head(200, EVENT_STREAM), Chunk(SO_FAR), Stall()]
    async with Upstream(held) as upstream, Chaotic(below(upstream.base_url, {"cut": always(**AFTER_TEN)})) as proxy:
        await proxy.ask(stream=True)
        (received,) = upstream.requests
        await asyncio.wait_for(received.gone.wait(), 10)


async def test_a_client_that_leaves_in_a_silence_ends_the_call() -> None:
    an_hour = {"stall": always(ms=3_600_000, **AFTER_TEN)}
    async with Upstream(numbers()) as upstream, Chaotic(below(upstream.base_url, an_hour)) as proxy:
        async with connected(proxy.port) as client:
            client.send(streaming(proxy.port))
            await client.until(b"two ")
        outcome = await proxy.outcome()

    assert outcome.end is End.ABANDONED
    assert proxy.injected == [["stall"]]


@pytest.mark.parametrize("fault", ["cut", "garbage"])
async def test_a_plain_answer_fails_as_a_whole_and_is_paid_for(fault: str) -> None:
    seen, proxy, calls = await ask({fault: always(**AFTER_TEN)})

    (attempt,), (outcome,) = proxy.last.attempts, proxy.outcomes
    assert (seen.status, told(seen)["code"], calls) == (502, f"upstream_{fault}", 1)
    assert outcome.cost is not None
    assert outcome.cost.nanodollars == COST
    assert attempt.error is not None
    assert attempt.error.code == f"upstream_{fault}"


async def test_what_the_upstream_itself_breaks_is_its_own() -> None:
    broken: list[Step] = [Head(200, EVENT_STREAM), Chunk(SO_FAR), Cut()]
    async with Upstream(broken) as upstream, Chaotic(below(upstream.base_url, {"slow_drip": always(ms=1)})) as proxy:
        seen = await proxy.ask(stream=True)

    assert told(seen)["code"] == "upstream_cut"
    assert "chaos" not in told(seen)["message"]


async def test_chaos_around_chaos_is_billed_once() -> None:
    mapping = below("", {"stall": always(ms=1)}, members=["inner"])
    mapping["llm"]["inner"] = {**mapping["llm"]["flaky"], "members": ["openai"]}
    async with Upstream(numbers()) as upstream:
        mapping["llm"]["openai"]["base_url"] = upstream.base_url
        async with Chaotic(mapping) as proxy:
            seen = await proxy.ask(stream=True)
            outcome = await proxy.outcome()

    (attempt,) = proxy.last.attempts
    assert said(seen) == NUMBERS
    assert outcome.cost is not None
    assert outcome.cost.nanodollars == COST
    assert attempt.outcome is not None
    assert attempt.outcome.cost == outcome.cost
    assert proxy.injected == [["stall", "stall"]]


# -- what stands above it --------------------------------------------------------------------------------------------


def falling_over(base_url: str, faults: dict[str, Any]) -> dict[str, Any]:
    """A group of the wrapper and of an LLM that works."""
    mapping = below(base_url, faults)
    steady = {"provider": "openai", "base_url": base_url, "prices": PRICES}
    group = {"provider": "fallback", "members": ["flaky", "steady"], "retries": SOON}
    mapping["llm"] |= {"steady": steady, "group": group}
    mapping["route"][0]["target_llm"] = "group"
    return mapping


@pytest.mark.parametrize(
    "faults",
    [
        {"error": always(status=503)},
        {"error": always(status=429, retry_after_s=60)},
        {"connect": always()},
        {"timeout": always()},
        {"cut": always()},
        {"garbage": always()},
        {"timeout": always(clock="idle", ms=20)},
    ],
    ids=["error", "rate limit", "connect", "first_byte", "cut", "garbage", "idle"],
)
async def test_a_group_falls_over_before_the_first_token(faults: dict[str, Any]) -> None:
    async with Upstream(numbers()) as upstream, Chaotic(falling_over(upstream.base_url, faults)) as proxy:
        seen = await proxy.ask(stream=True)
        outcome = await proxy.outcome()

    first, second = proxy.last.attempts
    assert said(seen) == NUMBERS  # the role alone, which came from the first, is no answer
    assert seen.whole
    assert outcome.end is End.COMPLETED
    assert first.error is not None
    assert (second.llm, second.error) == ("steady", None)


async def test_a_group_does_not_fall_over_behind_the_first_token() -> None:
    faults = {"cut": always(**AFTER_TEN)}
    async with Upstream(numbers()) as upstream, Chaotic(falling_over(upstream.base_url, faults)) as proxy:
        seen = await proxy.ask(stream=True)

    assert said(seen) == TEN
    assert told(seen)["code"] == "upstream_cut"
    assert len(upstream.requests) == 1


async def test_retries_of_its_own_table_stand_above_its_faults() -> None:
    faults = {"error": {"share": 0.5, "status": 503}}
    async with (
        Upstream(ANSWER) as upstream,
        Chaotic(below(upstream.base_url, faults, retries={**SOON, "max_retries": 10})) as proxy,
    ):
        seen = [(await proxy.ask()).status for _ in range(3)]
        tried = [attempt.llm for exchange in proxy.exchanges for attempt in exchange.attempts]

    assert seen == [200, 200, 200]
    assert tried.count("openai") == 3
    assert tried.count("flaky") == sum(len(it) for it in proxy.injected if isinstance(it, list)) > 0


# -- the models of its member ----------------------------------------------------------------------------------------


async def test_its_map_names_what_its_member_is_asked_for() -> None:
    async with (
        Upstream(ANSWER) as upstream,
        Chaotic(below(upstream.base_url, {"connect": {"share": 0}}, models={"fast": "gpt-4o-mini"})) as proxy,
    ):
        seen = await proxy.ask(model="fast")
        unknown = await proxy.ask(model="other")
        listed = proxy.gateway.routes[0].llm.models.names
        (received,) = upstream.requests

    assert json.loads(received.body)["model"] == "gpt-4o-mini"
    assert json.loads(seen.body)["model"] == "fast"
    assert (unknown.status, told(unknown)["code"]) == (404, "model_not_found")
    assert listed == ["fast"]


async def test_its_models_and_prices_are_those_of_its_member() -> None:
    async with Chaotic(below("http://127.0.0.1:9/v1", {"connect": {"share": 0}})) as proxy:
        flaky, member = (proxy.gateway.services.llm(name) for name in ("flaky", "openai"))
        priced = [await it.prices("gpt-4o-mini") for it in (flaky, member)]

        assert flaky.models is member.models

    assert priced[0] == priced[1] != ()


async def test_faults_are_counted() -> None:
    async with Upstream() as upstream, Chaotic(below(upstream.base_url, {"connect": always()})) as proxy:
        await proxy.ask()
        seen = await scrape(proxy)

    assert seen("llmproxy_chaos_faults_total", fault="connect") == 1
