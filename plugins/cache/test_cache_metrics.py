"""What the cache counts, as a scrape shows it."""

from __future__ import annotations

import asyncio

from test_cache_kit import Cached, caching, status

from tests.answers import completion, reply
from tests.llmproxy_core.conversation import question
from tests.llmproxy_server.metrics.scraping import scrape
from tests.script import Reached, Wait
from tests.upstream import Upstream


async def test_each_call_is_counted_by_what_the_cache_did() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()
    answer = reply(completion("yes"))
    async with (
        Upstream([Reached(asked), Wait(go_on), *answer]) as upstream,
        Cached(caching(upstream.base_url)) as proxy,
    ):
        before = await scrape(proxy)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            first = group.create_task(proxy.ask(question()))
            await asked.wait()
            second = group.create_task(proxy.ask(question()))
            await proxy.until(lambda: len(proxy.statuses()) == 2 and None not in proxy.statuses())
            go_on.set()
        third = await proxy.ask(question())
        fourth = await proxy.ask(question(), ("cache-control", "no-store"))
        after = await scrape(proxy)

    assert [status(it) for it in (first.result(), second.result(), third, fourth)] == [
        "miss",
        "shared",
        "hit",
        "bypass",
    ]
    results = ("hit", "miss", "shared", "bypass")
    assert [before.has("llmproxy_cache_hits_total", result=it) for it in results] == [True] * 4
    assert [after("llmproxy_cache_hits_total", result=it) for it in results] == [1] * 4
    # Nobody worked for a hit.
    assert after.total("llmproxy_tokens_processed_total", type="output") == 2 * 3
