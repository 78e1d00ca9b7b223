"""What an LLM's calls cost: the configuration's word first, then the price list's, asked once per model."""

import asyncio
from typing import Any

import attrs
import pytest

from llmproxy_core import (
    End,
    HttpLLM,
    HttpLLMConfig,
    ModelPrice,
    Money,
    Operation,
    Price,
    ProxyError,
    Request,
    Response,
    Tasks,
    UpstreamConnectError,
    UpstreamError,
)
from tests.llmproxy_core.conversation import APIS, DIALECT, SOON_S, question
from tests.llmproxy_core.http_call import ANSWER, BASE, STREAM, Called, chat, models, opaque
from tests.llmproxy_core.transport_double import Played, services

OWN, LISTED = Price(1_000_000_000, 2_000_000_000), Price(3_000_000_000, 4_000_000_000)
OF_OWN, OF_LISTED = Money(9 * 1_000 + 3 * 2_000), Money(9 * 3_000 + 3 * 4_000)


class PriceList:
    """Knows every model but those that are `unknown…`, and who asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.was_asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def find(self, base_url: str, model: str) -> ModelPrice | None:
        self.asked.append((base_url, model))
        self.was_asked.set()
        await asyncio.wait_for(self.go_on.wait(), SOON_S)
        return None if model.startswith("unknown") else ModelPrice(f"the list's {model}", LISTED)


class Priced(Called):
    """An LLM with a price list."""

    def __init__(self, *script: Played | ProxyError, tasks: Tasks, **config: Any) -> None:
        super().__init__(*script, tasks=tasks, **config)
        self.list = PriceList()
        table: dict[str, Any] = {"name": "fake", "provider": "openai", "base_url": BASE, **config}
        lent = attrs.evolve(services(self.transport, tasks, clock=self.clock), prices=self.list)
        self.llm = HttpLLM(HttpLLMConfig(**table), DIALECT, lent)

    async def names(self, model: str | None) -> list[str | None]:
        found = await asyncio.wait_for(self.llm.prices(model), SOON_S)
        return [None if it is None else it.name for it in found]


OWN_PRICES = (("gpt-4o", OWN), ("gpt-*", Price(5, 5)), ("other", OWN))

# -- what may be billed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "asked", "expected", "looked_up"),
    [
        ({}, "gpt-4o", ["the list's gpt-4o"], 1),
        ({}, "unknown", [None], 1),
        ({"prices": OWN_PRICES}, "gpt-4o", ["gpt-4o"], 0),
        ({"prices": OWN_PRICES}, "gpt-4o-mini", ["gpt-*"], 0),  # an entry has one name, whatever is asked for
        ({"prices": OWN_PRICES}, "llama", ["the list's llama"], 1),
        ({"models": (("cheap", "gpt-4o"),)}, "cheap", ["the list's gpt-4o"], 1),  # what is sent is billed
        ({"models": (("cheap", "gpt-4o"),)}, "unlisted", [], 0),
        ({"model": "gpt-4o"}, None, ["the list's gpt-4o"], 1),
        ({"model": "gpt-4o"}, "llama", ["the list's gpt-4o"], 1),
        ({}, None, [None], 0),  # the provider chooses
    ],
)
async def test_the_configuration_comes_first_then_the_list(
    tasks: Tasks, config: dict[str, Any], asked: str | None, expected: list[str | None], looked_up: int
) -> None:
    called = Priced(tasks=tasks, **config)

    assert await called.names(asked) == expected
    assert len(called.list.asked) == looked_up
    assert {base for base, _ in called.list.asked} <= {BASE}


async def test_the_list_is_asked_once_per_model_whatever_it_says(tasks: Tasks) -> None:
    called = Priced(ANSWER, ANSWER, tasks=tasks)

    for _ in range(3):
        for model in ("gpt-4o", "unknown", "gpt-4o-mini"):
            await called.names(model)
    await called.send()
    await called.send()

    assert [model for _, model in called.list.asked] == ["gpt-4o", "unknown", "gpt-4o-mini"]


async def test_the_wait_for_the_list_is_no_time_of_the_attempt(tasks: Tasks) -> None:
    called = Priced(ANSWER, tasks=tasks)
    called.list.go_on.clear()
    exchange = called.exchange(chat())

    async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
        group.create_task(called.llm.send(exchange))
        await called.list.was_asked.wait()
        called.clock.advance(3)
        called.list.go_on.set()

    assert [attempt.started_s for attempt in exchange.attempts] == [1003.0]


async def test_calls_that_come_together_ask_the_list_once(tasks: Tasks) -> None:
    """It may take a while at first, when it is loaded."""
    called = Priced(tasks=tasks)
    called.list.go_on.clear()

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(called.names("gpt-4o")) for _ in range(10)]
        await asyncio.sleep(0)
        called.list.go_on.set()

    assert [task.result() for task in asking] == [["the list's gpt-4o"]] * 10
    assert len(called.list.asked) == 1


async def test_who_leaves_while_the_list_is_asked_keeps_nobody_from_the_answer(tasks: Tasks) -> None:
    called = Priced(tasks=tasks)
    called.list.go_on.clear()
    leaves = tasks.start(called.names("gpt-4o"), name="leaves")
    stays = tasks.start(called.names("gpt-4o"), name="stays")
    await asyncio.sleep(0)

    leaves.cancel()
    called.list.go_on.set()

    assert await asyncio.wait_for(stays, SOON_S) == ["the list's gpt-4o"]


async def test_the_memory_of_models_is_bounded(tasks: Tasks) -> None:
    called = Priced(tasks=tasks)

    for number in range(2000):
        await called.names(f"model-{number}")

    assert len(called.llm._prices._known) <= 512


# -- what a response costs -------------------------------------------------------------------------------------------


async def _cost(response: Response) -> Money | None:
    await response.reply()
    assert response.outcome is not None
    return response.outcome.cost


@pytest.mark.parametrize("answer", [ANSWER, STREAM], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("config", "cost"),
    [({}, OF_LISTED), ({"prices": (("gpt-4o-mini", OWN),)}, OF_OWN), ({"model": "unknown"}, None)],
)
async def test_a_response_has_the_price_of_the_model_that_was_sent(
    tasks: Tasks, answer: Played, config: dict[str, Any], cost: Money | None
) -> None:
    called = Priced(answer, tasks=tasks, **config)

    assert await _cost(await called.send()) == cost


async def test_embeddings_have_a_price(tasks: Tasks) -> None:
    called = Priced(Played([b'{"object":"list","data":[],"usage":{"prompt_tokens":5,"total_tokens":5}}']), tasks=tasks)
    api = APIS["openai.embeddings"]
    body = b'{"model":"gpt-4o","input":"hi"}'

    response = await called.send(Request(operation=Operation.EMBEDDINGS, dialect=DIALECT, api=api, body=body))
    response.finish(End.COMPLETED)

    assert response.outcome is not None
    assert response.outcome.cost == Money(5 * 3_000)


@pytest.mark.parametrize("request_", [models(), opaque()], ids=["models", "opaque"])
async def test_what_is_not_billed_by_tokens_asks_for_no_price(tasks: Tasks, request_: Request) -> None:
    called = Priced(Played([b"{}"]), tasks=tasks, model="gpt-4o")

    response = await called.send(request_)
    response.finish(End.COMPLETED)

    assert response.price is None
    assert called.list.asked == []


async def test_a_client_that_leaves_while_the_price_is_looked_up_has_sent_nothing(tasks: Tasks) -> None:
    called = Priced(STREAM, tasks=tasks)
    called.list.go_on.clear()
    sending = tasks.start(called.send(chat(question(stream=True))), name="call")
    await asyncio.wait_for(called.list.was_asked.wait(), SOON_S)

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending

    assert called.transport.requests == []


# -- what was sent and not answered ----------------------------------------------------------------------------------


async def _answering(called: Called) -> None:
    """Wait until an answer has begun."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert called.transport.bodies


async def test_who_leaves_early_pays_though_the_price_is_forgotten_by_then(tasks: Tasks) -> None:
    """Others ask for models that they make up, more than are remembered."""
    called = Priced(Played([b'{"id"', asyncio.Event()]), tasks=tasks)
    exchange = called.exchange(chat())
    sending = tasks.start(called.llm.send(exchange), name="call")
    await _answering(called)
    for number in range(600):
        await called.llm.prices(f"unknown-{number}")

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    exchange.finish(End.ABANDONED)

    assert exchange.outcome is not None
    assert exchange.outcome.cost is not None
    assert exchange.outcome.cost > Money(0)


@pytest.mark.parametrize(
    ("answer", "billed"),
    [
        (Played([b"<html>"]), True),
        (Played([b"{}"], headers=[("content-encoding", "gzip")]), True),
        (Played([b'{"error":{"message":"no"}}']), False),
        (Played([b'{"error":{"message":"no"}}'], status=500), False),
        (UpstreamConnectError("no"), False),
    ],
    ids=["garbage", "an encoding", "an error that says 200", "an error", "nobody there"],
)
async def test_a_failure_is_billed_when_nobody_says_that_nothing_was_used(
    tasks: Tasks, answer: Played | ProxyError, billed: bool
) -> None:
    called = Priced(answer, tasks=tasks)
    exchange = called.exchange(chat())

    with pytest.raises(UpstreamError):
        await asyncio.wait_for(called.llm.send(exchange), SOON_S)
    exchange.finish(End.FAILED)

    assert exchange.outcome is not None
    assert bool(exchange.outcome.cost) is billed
