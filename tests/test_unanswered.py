"""What a provider took and never answered whole is billed by estimate; what it never had, or refused, is not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmproxy_core import End, Money, Outcome, UsageSource
from tests.answers import completion, error, reply
from tests.exact import post
from tests.llmproxy_server.edging import post as post_bytes
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.script import Chunk, Cut, Head, Reset, Script, Stall, Step
from tests.upstream import Upstream, refusing_url

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "x" * 400}]}
PRICES = {"*": {"input": "1.00", "output": "2.00"}}
BODY = json.dumps(completion("word " * 80)).encode()
HALF: list[Step] = [Head(headers={"content-type": "application/json"}, framing=len(BODY)), Chunk(BODY[:-20])]


def mapping(base_url: str, **llm: Any) -> dict[str, Any]:
    return openai_at(base_url, prices=PRICES, **llm)


async def outcome_of(script: Script, **llm: Any) -> Outcome:
    async with Upstream(script) as upstream, Proxy(mapping(upstream.base_url, **llm)) as proxy:
        await post(f"{proxy.base_url}/chat/completions", json.dumps(QUESTION).encode())
        return await proxy.outcome()


async def test_a_plain_answer_that_is_cut_is_billed_for_what_came() -> None:
    outcome = await outcome_of([*HALF, Cut()])

    assert outcome.end is End.FAILED
    assert outcome.usage is not None
    assert outcome.usage.source is UsageSource.ESTIMATED
    assert 100 <= outcome.usage.input_tokens <= 120
    assert 80 <= outcome.usage.output_tokens <= len(BODY) // 4
    assert outcome.cost is not None
    assert outcome.cost > Money()


async def test_an_upstream_that_takes_too_long_is_billed_for_the_question() -> None:
    outcome = await outcome_of([Stall()], timeouts={"first_byte_s": 0.1})

    assert outcome.usage is not None
    assert (outcome.usage.source, outcome.usage.output_tokens) == (UsageSource.ESTIMATED, 0)
    assert outcome.usage.input_tokens >= 100


async def test_a_client_that_leaves_while_the_upstream_works_is_billed_for_the_question() -> None:
    async with Upstream([Stall()]) as upstream, Proxy(mapping(upstream.base_url)) as proxy:
        async with connected(proxy.port) as client:
            client.send(post_bytes(QUESTION))
            await upstream.received()
        outcome = await proxy.outcome()

    assert outcome.end is End.ABANDONED
    assert outcome.usage is not None
    assert outcome.usage.input_tokens >= 100
    assert outcome.cost == Money(outcome.usage.input_tokens * 1000)
    assert outcome.model == "m"


async def test_a_client_that_leaves_in_the_middle_of_a_plain_answer_is_billed_for_what_came() -> None:
    async with Upstream([*HALF, Stall()]) as upstream, Proxy(mapping(upstream.base_url)) as proxy:
        async with connected(proxy.port) as client:
            client.send(post_bytes(QUESTION))
            request = await upstream.received()
            async with asyncio.timeout(5):
                while request.chunks_sent == 0 or proxy.exchanges[0].attempts[0].headers_s is None:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            for _ in range(10):  # the piece is read in the turns after the head
                await asyncio.sleep(0)
        outcome = await proxy.outcome()

    assert outcome.end is End.ABANDONED
    assert outcome.usage is not None
    assert outcome.usage.output_tokens > 50


@pytest.mark.parametrize(
    "script",
    [reply(error("no"), status=500), reply(error("no"), status=429), [Cut()], [Reset()], reply(error("in a 200"))],
    ids=["500", "429", "cut before its head", "reset before its head", "an error in a 200"],
)
async def test_what_the_upstream_refused_or_never_began_costs_nothing(script: Script) -> None:
    outcome = await outcome_of(script)

    assert outcome.end is End.FAILED
    assert (outcome.usage, outcome.cost) == (None, None)


async def test_an_upstream_that_was_not_reached_costs_nothing() -> None:
    with refusing_url() as url:
        async with Proxy(mapping(f"{url}/v1")) as proxy:
            await post(f"{proxy.base_url}/chat/completions", json.dumps(QUESTION).encode())
            outcome = await proxy.outcome()

    assert (outcome.usage, outcome.cost) == (None, None)
