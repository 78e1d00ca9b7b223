"""What the limiter counts, as a scrape shows it."""

from __future__ import annotations

from test_cost_limit_shared import Limited, asking, bound, limited, usd
from test_cost_limit_stores import FlakyStore, flaky

from tests.answers import completion, reply
from tests.llmproxy_server.metrics.scraping import scrape
from tests.upstream import Upstream


async def test_calls_that_cost_more_than_was_reserved_are_counted() -> None:
    question = asking()
    async with (
        Upstream(reply(completion("yes", prompt=5, completion=1_000_000))) as upstream,
        Limited(limited(upstream.base_url, {"total_usd": usd(bound(question))})) as proxy,
    ):
        before = await scrape(proxy)
        await proxy.ask(question)
        refused = await proxy.ask(question)
        after = await scrape(proxy)

    assert refused.status == 402
    assert [it("llmproxy_budget_overruns_total") for it in (before, after)] == [0, 1]
    assert after("llmproxy_budget_settlements_waiting", store="memory") == 0


async def test_calls_that_the_store_has_not_booked_are_seen() -> None:
    store = FlakyStore()
    async with (
        Upstream(reply(completion("yes"))) as upstream,
        Limited(flaky(upstream.base_url, on_store_error="allow"), plugins=[store]) as proxy,
    ):
        await proxy.ask()
        store.cut(after=False)
        await proxy.ask()
        during = await scrape(proxy)
        store.mend()
        await proxy.ask()
        after = await scrape(proxy)

    (name,) = during.values("llmproxy_budget_settlements_waiting", "store")
    assert [it("llmproxy_budget_settlements_waiting", store=name) for it in (during, after)] == [1, 0]
