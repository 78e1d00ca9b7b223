"""Which names may become labels: those that the operator, or the author of a price list, has written."""

from __future__ import annotations

import asyncio
from typing import Any

import llmproxy_cost_limit
import llmproxy_enhance_query
import pytest

from llmproxy_core.errors import UpstreamError
from llmproxy_core.money import Price
from llmproxy_core.prices import ModelPrice
from tests.llmproxy_server.metrics.counting import Counting
from tests.llmproxy_server.metrics.scraping import MODEL, PRICES, chat, priced_at, scrape
from tests.proxy import Proxy, openai_at
from tests.upstream import Upstream, completion, reply

URL = "http://127.0.0.1:9/v1"


class List:
    """A price list with one entry, for all models of a generation."""

    async def find(self, base_url: str, model: str) -> ModelPrice | None:
        return ModelPrice("gpt-9", Price(1, 2)) if model.startswith("gpt-9-") else None


class LateList(List):
    """It is loaded when *there* is set."""

    def __init__(self) -> None:
        self.there = asyncio.Event()

    async def find(self, base_url: str, model: str) -> ModelPrice | None:
        await self.there.wait()
        return await super().find(base_url, model)


def refuse(counting: Counting, model: str) -> None:
    """A processor refuses a call before anything is sent."""
    exchange = counting.exchange(model)
    counting.begin(exchange)
    counting.end(exchange, status=402)


@pytest.mark.parametrize(
    ("llm", "asked", "sent", "label"),
    [
        ({"models": [MODEL]}, MODEL, MODEL, MODEL),
        ({"models": ["gpt-*"]}, "gpt-made-up", "gpt-made-up", "other"),
        ({"models": {"fast": MODEL}}, "fast", MODEL, "fast"),
        ({"models": {"any-*": MODEL}}, "any-thing", MODEL, MODEL),
        ({"model": MODEL}, "made-up", MODEL, MODEL),
        ({"prices": PRICES}, MODEL, MODEL, MODEL),
        ({"prices": {"gpt-*": PRICES[MODEL]}}, "gpt-made-up", "gpt-made-up", "other"),
        ({}, "made-up", "made-up", "other"),
        ({}, "gpt-9-2030-01-01", "gpt-9-2030-01-01", "gpt-9"),
    ],
    ids=["listed", "glob", "mapped", "glob mapped", "override", "priced", "glob priced", "anything", "price list"],
)
def test_a_name_is_a_label_where_somebody_else_than_the_caller_wrote_it(
    llm: dict[str, Any], asked: str, sent: str, label: str
) -> None:
    counting = Counting(openai_at(URL, **llm), prices=List())

    for _ in range(2):
        counting.one(asked, sent=sent)

    assert counting.models() == {label}
    assert counting.models("llmproxy_tokens_processed_total") == {label}
    assert counting.models("llmproxy_cost_usd_total") == {label}
    assert counting.value("llmproxy_active_requests", model=label) == 0


def test_a_name_of_the_configuration_is_counted_also_when_nothing_was_sent() -> None:
    counting = Counting(priced_at(URL))
    exchange = counting.exchange(MODEL)

    counting.begin(exchange)
    counting.end(exchange, status=402)

    assert counting.value("llmproxy_requests_total", model=MODEL, status="402") == 1


def test_a_name_that_only_an_attempt_told_is_remembered_for_who_comes_without_one() -> None:
    counting = Counting(openai_at(URL), prices=List())
    counting.one("gpt-9-x")
    exchange = counting.exchange("gpt-9-x")  # the cache has it

    counting.begin(exchange)
    assert counting.value("llmproxy_active_requests", model="gpt-9") == 1
    counting.end(exchange)

    assert counting.value("llmproxy_requests_total", model="gpt-9", status="200") == 2
    assert counting.value("llmproxy_active_requests", model="gpt-9") == 0


def test_a_name_of_the_price_list_is_counted_also_when_nothing_was_sent() -> None:
    counting = Counting(openai_at(URL), prices=List())

    refuse(counting, "gpt-9-x")
    refuse(counting, "made-up")

    assert counting.value("llmproxy_requests_total", model="gpt-9", status="402") == 1
    assert counting.value("llmproxy_requests_total", model="other", status="402") == 1


async def test_a_name_is_looked_up_again_once_the_price_list_is_there() -> None:
    prices = LateList()
    counting = Counting(openai_at(URL), prices=prices)

    refuse(counting, "gpt-9-x")
    prices.there.set()
    refuse(counting, "gpt-9-x")

    assert counting.value("llmproxy_requests_total", model="other", status="402") == 1
    assert counting.value("llmproxy_requests_total", model="gpt-9", status="402") == 1


async def test_a_name_whose_price_came_while_the_call_went_on_is_counted_at_its_end() -> None:
    prices = LateList()
    counting = Counting(openai_at(URL), prices=prices)
    exchange = counting.exchange("gpt-9-x")

    counting.begin(exchange)
    prices.there.set()
    counting.end(exchange, status=402)

    assert counting.value("llmproxy_requests_total", model="gpt-9", status="402") == 1
    assert counting.value("llmproxy_active_requests", model="other") == 0


async def test_what_a_budget_refuses_is_counted_by_the_bundled_price_list() -> None:
    configured = openai_at("https://api.openai.com/v1")
    configured["processor"] = {"budget": {"type": "cost_limit", "per_request_usd": "0.0000001"}}
    configured["route"][0] |= {"processors": ["budget"], "operations": ["chat"]}
    async with Proxy(configured, plugins=[llmproxy_cost_limit]) as proxy:
        answers = [(await chat(proxy, model="gpt-4o")).status for _ in range(3)]
        seen = await scrape(proxy)

    assert answers == [402, 402, 402]
    assert seen("llmproxy_requests_total", model="gpt-4o", status="402") == 3
    assert seen.values("llmproxy_requests_total", "status") == {"200", "402"}


@pytest.mark.parametrize("key", ["model", "config_value"])
async def test_the_model_that_a_processors_table_names_is_a_label(key: str) -> None:
    async with Upstream(reply(completion("Better."))) as upstream:
        configured = openai_at(upstream.base_url, models=["my-*"])
        configured["processor"] = {"better": {"type": "enhance_query", "llm": "openai", key: "my-rewriter"}}
        configured["route"][0] |= {"processors": ["better"], "operations": ["chat"]}
        async with Proxy(configured, plugins=[llmproxy_enhance_query]) as proxy:
            await chat(proxy, model="my-thing")
            seen = await scrape(proxy)

    assert seen.total("llmproxy_tokens_processed_total", model="my-rewriter") > 0
    assert seen.values("llmproxy_tokens_processed_total", "model") == {"my-rewriter", "other"}


def test_what_a_processor_chose_for_a_made_up_name_is_counted_each_time() -> None:
    counting = Counting(openai_at(URL, models=["small", "large"]))
    for chosen in ("small", "large", "large"):
        exchange = counting.exchange("auto")
        counting.begin(exchange)
        exchange.request = exchange.request.with_model(chosen)
        counting.attempt(exchange)
        counting.end(exchange)

    found = {
        it: counting.value("llmproxy_requests_total", model=it, status="200") for it in ("small", "large", "other")
    }
    assert found == {"small": 1, "large": 2, "other": 0}


def test_ten_thousand_made_up_names_make_no_series_and_are_not_remembered() -> None:
    counting = Counting(openai_at(URL, models=["gpt-*"], prices=PRICES), prices=List())
    failed = UpstreamError("No", status=404, upstream_status=404, code="made_up_too")
    for name in ("gpt-warm", MODEL, "gpt-9-x"):
        counting.one(name)
        counting.one(name, error=failed)
        counting.one(name, stream=True, first_byte_s=0.1)
    before = counting.metering.snapshot().series

    for number in range(10_000):
        name = f"gpt-made-up-{number}-" + "x" * (number % 200)
        counting.one(name, answered=f"answer-{number}")
        counting.one(name, error=UpstreamError("No", status=404, upstream_status=404, code=f"code-{number}"))

    assert counting.metering.snapshot().series == before
    assert counting.models() == {"other", MODEL, "gpt-9"}
    assert len(counting.calls._guesses) <= 4096
    assert len(counting.calls._attempts._found) <= 4096


def test_more_models_than_there_is_room_for_are_counted_as_other() -> None:
    names = [f"model-{number}" for number in range(3000)]
    counting = Counting(openai_at(URL, models=names))

    for name in names:
        counting.one(name)

    again = Counting(openai_at(URL, models=names), counting.metering)
    again.one(names[0])  # which is there, so that it goes on after a reload

    requests = counting.metering.snapshot().of("llmproxy_requests_total")
    assert requests.value(model=names[0], status="200") == 2
    assert sum(cells[0] for cells in requests.cells.values()) == len(names) + 1
    assert 0 < requests.value(model="other", status="200") < len(names) - 500
    assert counting.value("llmproxy_metric_series_dropped_total") > 0
    assert counting.metering.values.used <= 1.0


async def test_names_with_signs_of_the_text_format_do_not_break_it() -> None:
    listed = 'a"} 1 b\\'
    async with (
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(openai_at(upstream.base_url, models=[listed])) as proxy,
    ):
        await chat(proxy, model=listed)
        for number in range(100):
            await chat(proxy, model=f'a"}} 1\nb\\{number}')
        seen = await scrape(proxy)

    assert seen("llmproxy_requests_total", model=listed, status="200") == 1
    assert seen("llmproxy_requests_total", model="other", status="404") == 100
