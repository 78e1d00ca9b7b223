"""What a caller is told whom a limit refuses."""

from __future__ import annotations

import asyncio
import json

import pytest
from test_cost_limit_shared import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    INPUT,
    OUTPUT,
    Limited,
    Wall,
    asking,
    bound,
    epoch,
    limited,
    usd,
)

from llmproxy_core import Money, Window
from tests.answers import chat_chunk, completion, reply, stream, usage_chunk
from tests.exact import Seen, post
from tests.script import Reached, Wait
from tests.upstream import Upstream

QUESTION = asking()
BOUND = bound(QUESTION)
TRUE_COST = 9 * INPUT + 3 * OUTPUT
"""Of an answer with 9 tokens of input and 3 of output."""

WINDOWS = [
    # key, its word, seconds until it resets at noon of 20 November 2026, and when that is
    ("hourly_usd", "hourly", 3600, "2026-11-20T13:00:00Z"),
    ("daily_usd", "daily", 12 * 3600, "2026-11-21T00:00:00Z"),
    ("monthly_usd", "monthly", 10 * 86_400 + 12 * 3600, "2026-12-01T00:00:00Z"),
    ("total_usd", "total", None, None),
]
PAYERS = {"caller": "caller 'anonymous'", "route": "route '/v1'", "model": "model 'm'"}
EVERY_FORM = pytest.mark.parametrize(
    ("path", "question"),
    [
        (CHAT, QUESTION),
        (CHAT, asking(stream=True)),
        (COMPLETIONS, json.dumps({"model": "m", "prompt": "hi", "max_tokens": 100}).encode()),
        (EMBEDDINGS, json.dumps({"model": "m", "input": "hi" * 1000}).encode()),
    ],
    ids=["chat", "chat, streamed", "completions", "embeddings"],
)


@pytest.mark.parametrize("per", PAYERS)
@pytest.mark.parametrize(("key", "word", "wait_s", "resets_at"), WINDOWS, ids=[row[0] for row in WINDOWS])
async def test_a_window_refuses_with_its_figures(
    key: str, word: str, wait_s: int | None, resets_at: str | None, per: str
) -> None:
    """The third call: one is paid, one is under way, and there is a nanodollar too little for one more."""
    under_way, go_on = asyncio.Event(), asyncio.Event()
    limit = TRUE_COST + 2 * BOUND - 1
    async with Upstream(reply(completion("yes"))) as upstream:
        upstream.then(reply(completion("yes")), [Reached(under_way), Wait(go_on), *reply(completion("yes"))])
        async with Limited(limited(upstream.base_url, {key: usd(limit), "per": per})) as proxy:
            assert (await proxy.ask()).status == 200
            async with asyncio.TaskGroup() as tasks:
                second = tasks.create_task(proxy.ask())
                await asyncio.wait_for(under_way.wait(), 10)
                seen = await proxy.ask()
                go_on.set()

        assert second.result().status == 200
        assert len(upstream.requests) == 2
    error = json.loads(seen.body)["error"]
    message = (
        f"The {word} budget of {PAYERS[per]} is {Money(limit)}: {Money(TRUE_COST)} is spent and {Money(BOUND)} "
        f"reserved for calls under way; this request may cost up to {Money(BOUND)}. "
    )
    assert error["message"].startswith(message)
    assert error["code"] == "budget_exceeded"
    assert error["request_id"]
    assert [value for name, value in seen.headers if name == "x-should-retry"] == ["false"]
    if wait_s is None:
        assert seen.status == 402
        assert seen.header("retry-after") is None
        assert error["message"] == f"{message}The budget does not reset."
    else:
        assert seen.status == 429
        assert seen.header("retry-after") == str(wait_s)
        assert error["message"] == f"{message}The budget resets at {resets_at}."


@EVERY_FORM
async def test_one_request_that_may_cost_too_much_is_refused(path: str, question: bytes) -> None:
    most = len(question) * INPUT if path == EMBEDDINGS else bound(question)
    streamed = stream(chat_chunk("yes", finish="stop"), usage_chunk())
    answers: list[Seen] = []
    async with Upstream(streamed if b'"stream"' in question else reply(_whole(path))) as upstream:
        for limit in (most, most - 1):
            async with Limited(limited(upstream.base_url, {"per_request_usd": usd(limit)})) as proxy:
                answers.append(await proxy.ask(question, path))

        assert len(upstream.requests) == 1
    admitted, seen = answers
    assert (admitted.status, seen.status) == (200, 402)
    assert seen.header("x-should-retry") == "false"
    assert seen.header("content-type") == "application/json"
    assert seen.header("retry-after") is None
    error = json.loads(seen.body)["error"]
    assert error["code"] == "budget_exceeded"
    assert f"may cost up to {Money(most)}, and one request may cost at most {Money(most - 1)} here" in error["message"]


@EVERY_FORM
async def test_a_window_refuses_every_form_of_request_before_anything_is_sent(path: str, question: bytes) -> None:
    async with Upstream() as upstream:
        async with Limited(limited(upstream.base_url, {"config_value": "0.000000001"})) as proxy:
            seen = await proxy.ask(question, path)

        assert not upstream.requests
    assert seen.status == 429
    assert seen.header("x-should-retry") == "false"
    assert seen.header("content-type") == "application/json"
    error = json.loads(seen.body)["error"]
    assert error["code"] == "budget_exceeded"
    assert "more than the whole budget" in error["message"]


async def test_the_limit_that_resets_last_is_told() -> None:
    """Waiting for the next hour would be in vain while the month is spent."""
    limits = {"hourly_usd": "0.000000001", "daily_usd": "0.000000002", "monthly_usd": "0.000000003"}
    async with Upstream() as upstream, Limited(limited(upstream.base_url, limits)) as proxy:
        seen = await proxy.ask()

    assert seen.header("retry-after") == str(WINDOWS[2][2])


async def test_a_wait_of_less_than_a_second_is_told_as_one() -> None:
    wall = Wall(epoch("2026-11-20T23:59:59") + 0.75)
    async with (
        Upstream() as upstream,
        Limited(limited(upstream.base_url, {"daily_usd": "0.000000001"}), wall=wall) as proxy,
    ):
        seen = await proxy.ask()

    assert seen.header("retry-after") == "1"
    assert seen.header("retry-after-ms") == "250"


async def test_several_tables_in_a_route_all_count() -> None:
    tables = {
        "each": {"daily_usd": "1.00"},
        "all": {"daily_usd": usd(BOUND + TRUE_COST - 1), "per": "route"},
        "one": {"per_request_usd": "0.10"},
    }
    async with (
        Upstream(reply(completion("yes"))) as upstream,
        Limited(limited(upstream.base_url, tables=tables)) as proxy,
    ):
        first, second = await proxy.ask(), await proxy.ask()
        each = await proxy.figures(Window.DAY, table="each")
        every = await proxy.figures(Window.DAY, table="all", payer=("route", "", "/v1"))
        logged = proxy.exchanges[1].log_fields

    assert (first.status, second.status) == (200, 429)
    assert "budget of route '/v1'" in json.loads(second.body)["error"]["message"]
    assert each == every == (TRUE_COST, 0)
    assert logged == {"cost_bound": str(Money(BOUND)), "cost_limit": "all.daily_usd"}


async def test_a_table_in_two_routes_is_one_budget_for_a_caller() -> None:
    async with Upstream(reply(completion("yes"))) as upstream:
        mapping = limited(upstream.base_url, {"daily_usd": usd(BOUND + TRUE_COST - 1)})
        mapping["route"].append({**mapping["route"][0], "path_prefix": "/other/v1"})
        async with Limited(mapping) as proxy:
            first = await proxy.ask()
            second = await post(f"{proxy.url}/other/v1{CHAT}", QUESTION)

    assert (first.status, second.status) == (200, 429)


def _whole(path: str) -> dict[str, object]:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    if path == EMBEDDINGS:
        return {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "usage": usage}
    return completion("yes")
