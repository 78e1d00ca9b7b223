"""Whose budget a call is booked in, and what happens where nobody knows what it costs."""

from __future__ import annotations

import json

import pytest
from test_cost_limit_shared import INPUT, OUTPUT, PRICES, Direct, Limited, around, asking, bound, limited, usd

from llmproxy_core import (
    BudgetExceeded,
    Caller,
    Exchange,
    Handler,
    Money,
    Price,
    Request,
    Response,
    Usage,
)
from llmproxy_core.chat import ChatRequest, Message, TextPart
from tests.answers import completion, reply
from tests.llmproxy_server.edging import Around, Processing
from tests.upstream import Upstream

QUESTION = asking()
BOUND = bound(QUESTION)
TRUE_COST = 9 * INPUT + 3 * OUTPUT


# -- whose budget ----------------------------------------------------------------------------------------------------


def as_caller(people: dict[str, Caller]) -> Around:
    """Takes the caller from a header, as keys will."""

    async def know(exchange: Exchange, call_next: Handler) -> Response:
        exchange.caller = people[exchange.request.headers.get("x-who", "")]
        return await call_next(exchange)

    return know


PEOPLE = {"a": Caller("ann", "acme"), "b": Caller("ann", "umbrella"), "c": Caller("bob", "acme")}


async def test_callers_of_one_name_and_two_tenants_have_a_budget_each() -> None:
    async with Upstream(reply(completion("yes"))) as upstream:
        mapping = around(upstream.base_url, {"total_usd": usd(BOUND)})
        async with Limited(mapping, plugins=[Processing(as_caller(PEOPLE))]) as proxy:
            answers = [(who, (await proxy.ask(x_who=who)).status) for who in "aabbcc"]
            figures = await proxy.figures(payer=("caller", "acme", "ann"))
            records = await proxy.records()

    assert answers == [("a", 200), ("a", 402), ("b", 200), ("b", 402), ("c", 200), ("c", 402)]
    assert figures == (TRUE_COST, 0)
    assert [record.caller for record in records] == ["acme/bob", "umbrella/ann", "acme/ann"]


@pytest.mark.parametrize("per", ["route", "model"])
async def test_a_tenant_learns_nothing_of_what_others_spend(per: str) -> None:
    async with Upstream(reply(completion("yes"))) as upstream:
        mapping = around(upstream.base_url, {"total_usd": usd(BOUND), "per": per})
        async with Limited(mapping, plugins=[Processing(as_caller(PEOPLE))]) as proxy:
            await proxy.ask(x_who="a")
            seen = await proxy.ask(x_who="b")

    message = json.loads(seen.body)["error"]["message"]
    assert seen.status == 402
    assert str(Money(BOUND)) in message
    assert str(Money(TRUE_COST)) not in message
    assert "spent" not in message


async def test_each_model_has_a_budget_by_its_name_in_the_price_list() -> None:
    """So that callers who invent names open no accounts."""
    prices = {**PRICES, "x-*": {"input": "1.00", "output": "2.00"}}
    async with Upstream(reply(completion("yes"))) as upstream:
        mapping = limited(upstream.base_url, {"total_usd": usd(BOUND + 3 * INPUT), "per": "model"}, prices=prices)
        async with Limited(mapping) as proxy:
            answers = [(await proxy.ask(asking(model=name))).status for name in ("m", "m", "x-1", "x-2", "x-3")]
            figures = await proxy.figures(payer=("model", "", "x-*"))

    assert answers == [200, 402, 200, 402, 402]
    assert figures == (TRUE_COST, 0)


@pytest.mark.parametrize("answered", ["a", "b"])
async def test_of_several_models_the_one_that_answered_pays(answered: str) -> None:
    """Which of a group's members it will be is not known at admission; each must have room."""
    prices = {"a": Price(10**9, 10**9), "b": Price(2 * 10**9, 10**9)}
    async with Direct(prices, per="model") as direct:
        await direct.call(direct.request(), Usage(7, 3), prices[answered])
        figures = {name: await direct.figures("model", "", name) for name in prices}

    none = (Money(0), Money(0))
    assert figures == {"a": none, "b": none} | {answered: (prices[answered].cost(Usage(7, 3)), Money(0))}


async def test_of_several_models_at_one_price_the_one_that_answered_pays() -> None:
    prices = {name: Price(10**9, 10**9) for name in "abc"}
    async with Direct(prices, per="model") as direct:
        await direct.call(direct.request(), Usage(7, 3), prices["b"])
        figures = {name: await direct.figures("model", "", name) for name in prices}

    none = (Money(0), Money(0))
    assert figures == {"a": none, "b": (Money(10_000), Money(0)), "c": none}


async def test_of_several_models_all_must_have_room() -> None:
    prices = {"a": Price(10**9, 10**9), "b": Price(10**9, 10**9)}
    async with Direct(prices, per="model", total_usd=Money(10**9)) as direct:
        await direct.call(direct.request(), Usage(10**6, 0), prices["b"])
        with pytest.raises(BudgetExceeded) as caught:
            await direct.call(direct.request(), Usage(7, 3), prices["a"])
        figures = {name: await direct.figures("model", "", name) for name in prices}

    assert "budget of model 'b'" in caught.value.message
    assert figures == {"a": (Money(0), Money(0)), "b": (Money(10**9), Money(0))}


# -- prices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"total_usd": "1"}, {"per_request_usd": "1"}], ids=["window", "request"])
async def test_a_model_without_a_price_is_refused(limit: dict[str, object]) -> None:
    async with Upstream() as upstream:
        async with Limited(limited(upstream.base_url, limit)) as proxy:
            seen = await proxy.ask(asking(model="mystery-1"))

        assert not upstream.requests
    error = json.loads(seen.body)["error"]
    assert seen.status == 402
    assert (error["code"], error["param"]) == ("price_unknown", "model")
    assert "the model 'mystery-1'" in error["message"]


async def test_a_request_that_names_no_model_is_refused_where_any_may_answer() -> None:
    nameless = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
    async with Upstream() as upstream:
        async with Limited(limited(upstream.base_url, {"total_usd": "1"})) as proxy:
            seen = await proxy.ask(nameless)

        assert not upstream.requests
    assert seen.status == 402
    assert json.loads(seen.body)["error"]["code"] == "price_unknown"


async def test_a_request_that_names_no_model_is_refused_where_an_llm_cannot_say_which_it_would_choose() -> None:
    nameless = Request.of_chat(ChatRequest(None, (Message("user", (TextPart("hi"),)),)))

    async with Direct({}) as direct:
        with pytest.raises(BudgetExceeded) as raised:
            await direct.call(nameless, Usage(1, 1), Price(1, 1))

    assert raised.value.code == "price_unknown"


async def test_a_model_without_a_price_passes_uncounted_where_that_is_allowed() -> None:
    async with Upstream(reply(completion("yes"))) as upstream:
        mapping = limited(upstream.base_url, {"total_usd": "0.000000001", "unpriced": "allow"})
        async with Limited(mapping) as proxy:
            mystery, known = await proxy.ask(asking(model="mystery-1")), await proxy.ask()
            figures, records = await proxy.figures(), await proxy.records()

    assert (mystery.status, known.status) == (200, 402)
    assert figures == (0, 0)
    assert not records


async def test_a_model_that_is_free_passes_when_everything_is_spent() -> None:
    prices = {**PRICES, "free": {"input": "0", "output": "0"}}
    async with (
        Upstream(reply(completion("yes", prompt=10**6))) as upstream,
        Limited(limited(upstream.base_url, {"total_usd": usd(BOUND)}, prices=prices)) as proxy,
    ):
        answers = [(await proxy.ask(asking(model=name))).status for name in ("m", "m", "free")]

    assert answers == [200, 402, 200]


async def test_a_model_that_is_not_served_is_not_found_rather_than_too_dear() -> None:
    async with Upstream() as upstream:
        mapping = limited(upstream.base_url, {"total_usd": "0.000000001"}, models=["other"])
        async with Limited(mapping) as proxy:
            seen = await proxy.ask()

    assert seen.status == 404
