"""Calls that are more than one call: children, retries, shared work; and calls that end early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import pytest
from test_cost_limit_shared import INPUT, OUTPUT, Limited, around, asking, bound, limited, usd

from llmproxy_core import (
    End,
    Exchange,
    ExtraCall,
    GuardrailBlocked,
    Handler,
    Money,
    Operation,
    ProcessorType,
    ProxyError,
    Reply,
    Request,
    Response,
    Services,
    Shared,
    Tasks,
    UpstreamError,
    hookimpl,
    option,
    share,
)
from llmproxy_core.chat import ChatRequest, Message, TextPart
from tests.answers import chat_chunk, completion, reply, stream, usage_chunk
from tests.llmproxy_server.edging import Processing
from tests.script import Cut, Reached, Stall
from tests.upstream import Upstream

QUESTION = asking()
BOUND = bound(QUESTION)
TRUE_COST = 9 * INPUT + 3 * OUTPUT


# -- children --------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class AsksConfig:
    """Asks an LLM before the call goes on."""

    llm: str | None = option("Whom.", default=None, refers_to="llm")
    model: str | None = option("For what model.", default=None)
    says: bool = option("Whether it tells what that may cost.", default=True)
    blocks: bool = option("Whether it then refuses the call.", default=False)


class Asks:
    def __init__(self, config: AsksConfig, services: Services) -> None:
        self._config = config
        self._services = services

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        config, route = self._config, self._services.route(exchange.route)
        llm = route.llm if config.llm is None else self._services.llm(config.llm)
        model = exchange.request.model if config.model is None else config.model
        chat = ChatRequest(model, (Message("user", (TextPart("well?"),)),), max_output_tokens=10)
        async with exchange.child(Request.of_chat(chat)) as child:
            await (await llm.send(child)).reply()
        if config.blocks:
            raise GuardrailBlocked("no")
        return await call_next(exchange)


class AsksPlugin:
    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        def most(config: AsksConfig, request: Request) -> Sequence[ExtraCall]:
            return [ExtraCall(config.llm, config.model, 1000, 10)] if config.says else []

        chat = frozenset({Operation.CHAT})
        return [ProcessorType("asks", AsksConfig, Asks, chat, skippable=True, extra_cost_bound=most)]


EXTRA = 1000 * INPUT + 10 * OUTPUT


def asking_first(base_url: str, limit: dict[str, object], processors: Sequence[str], **asks: object) -> dict[str, Any]:
    mapping = limited(base_url, limit, processors=processors)
    mapping["processor"]["asks"] = {"type": "asks", **asks}
    mapping["llm"]["other"] = {**mapping["llm"]["openai"], "prices": {"x": {"input": "10.00", "output": "0"}}}
    return mapping


ORDERS = pytest.mark.parametrize("processors", [["limit", "asks"], ["asks", "limit"]], ids=["inside", "outside"])


@ORDERS
async def test_a_child_is_reserved_for_and_booked_with_its_call(processors: list[str]) -> None:
    for limit, status in ((BOUND + EXTRA - 1, 402), (BOUND + EXTRA, 200)):
        async with Upstream(reply(completion("yes"))) as upstream:
            mapping = asking_first(upstream.base_url, {"total_usd": usd(limit)}, processors)
            async with Limited(mapping, plugins=[AsksPlugin()]) as proxy:
                seen = await proxy.ask()
                figures, records = await proxy.figures(), await proxy.records()

        assert seen.status == status
        if status == 200:
            assert figures == (2 * TRUE_COST, 0)
            assert len(records) == 1
        elif processors[0] == "limit":
            assert figures == (0, 0)
        else:
            assert figures == (TRUE_COST, 0)  # the child was paid for before the call was refused
            assert records[0].end is End.REFUSED


async def test_a_child_is_reserved_for_at_the_price_of_its_own_model() -> None:
    most = BOUND + 1000 * 10 * INPUT
    async with Upstream() as upstream:
        mapping = asking_first(
            upstream.base_url, {"per_request_usd": usd(most - 1)}, ["limit", "asks"], llm="other", model="x"
        )
        async with Limited(mapping, plugins=[AsksPlugin()]) as proxy:
            seen = await proxy.ask()

    assert f"may cost up to {Money(most)}," in json.loads(seen.body)["error"]["message"]


async def test_a_child_of_a_model_without_a_price_is_refused() -> None:
    async with Upstream() as upstream:
        mapping = asking_first(upstream.base_url, {"total_usd": "1"}, ["limit", "asks"], llm="other", model="y")
        async with Limited(mapping, plugins=[AsksPlugin()]) as proxy:
            seen = await proxy.ask()

    assert seen.status == 402
    assert json.loads(seen.body)["error"]["code"] == "price_unknown"


async def test_a_child_that_nobody_told_of_is_an_overrun() -> None:
    async with Upstream(reply(completion("yes", completion=100, prompt=300))) as upstream:
        mapping = asking_first(upstream.base_url, {"total_usd": usd(BOUND)}, ["limit", "asks"], says=False)
        async with Limited(mapping, plugins=[AsksPlugin()]) as proxy:
            seen = await proxy.ask()
            figures, overruns = await proxy.figures(), proxy.limiter.overruns

    assert seen.status == 200
    assert figures == (2 * (300 * INPUT + 100 * OUTPUT), 0)
    assert overruns == 1


@ORDERS
async def test_a_call_that_is_refused_inside_pays_for_its_children(processors: list[str]) -> None:
    async with Upstream(reply(completion("yes"))) as upstream:
        mapping = asking_first(upstream.base_url, {"total_usd": "1"}, processors, blocks=True)
        async with Limited(mapping, plugins=[AsksPlugin()]) as proxy:
            seen = await proxy.ask()
            await proxy.outcome()
            figures = await proxy.figures()

    assert seen.status == 400
    assert figures == ((TRUE_COST, 0) if processors[0] == "limit" else (0, 0))


# -- processors around it --------------------------------------------------------------------------------------------


async def twice(exchange: Exchange, call_next: Handler) -> Response:
    """Takes the second answer, whatever the first is."""
    try:
        response = await call_next(exchange)
        response.finish(End.ABANDONED)
    except UpstreamError:
        pass
    return await call_next(exchange)


@pytest.mark.parametrize("fails", [False, True], ids=["a dropped answer", "an error"])
async def test_a_call_that_is_tried_again_is_reserved_for_again_and_booked_once(fails: bool) -> None:
    answer = reply(completion("yes"))
    for limit, status in ((2 * BOUND - 1, 402), (2 * BOUND, 200)):
        async with Upstream(answer) as upstream:
            upstream.then(reply({}, 500) if fails else answer)
            mapping = around(upstream.base_url, {"total_usd": usd(limit)})
            async with Limited(mapping, plugins=[Processing(twice)]) as proxy:
                seen = await proxy.ask()
                await proxy.outcome()
                figures, records = await proxy.figures(), await proxy.records()
                overruns = proxy.limiter.overruns

        calls = (0 if fails else 1) + (status == 200)
        assert seen.status == status
        assert figures == (calls * TRUE_COST, 0)
        assert [record.cost for record in records] == ([Money(calls * TRUE_COST)] if calls else [])
        assert overruns == 0


async def test_what_each_try_reserved_counts_against_what_all_cost() -> None:
    """Two answers cost more than one was reserved for, and that is no overrun."""
    async with Upstream(reply(completion("yes", prompt=300, completion=100))) as upstream:
        mapping = around(upstream.base_url, {"total_usd": "1"})
        async with Limited(mapping, plugins=[Processing(twice)]) as proxy:
            await proxy.ask()
            figures, overruns = await proxy.figures(), proxy.limiter.overruns

    assert BOUND < figures[0] == 2 * (300 * INPUT + 100 * OUTPUT) < 2 * BOUND
    assert overruns == 0


async def test_all_attempts_inside_it_are_booked() -> None:
    async with Upstream(reply(completion("yes"))) as upstream:
        mapping = around(upstream.base_url, {"total_usd": usd(BOUND)}, inside=True)
        async with Limited(mapping, plugins=[Processing(twice)]) as proxy:
            seen = await proxy.ask()
            figures = await proxy.figures()

    assert seen.status == 200
    assert figures == (2 * TRUE_COST, 0)


async def test_an_answer_that_no_model_worked_for_is_free() -> None:
    async def from_memory(exchange: Exchange, call_next: Handler) -> Response:
        request = exchange.request
        assert request.dialect is not None
        body = json.dumps(completion("again")).encode()
        return Reply(exchange, body, dialect=request.dialect, api=request.api, billed=False)

    async with Upstream() as upstream:
        mapping = around(upstream.base_url, {"total_usd": usd(BOUND)}, inside=True)
        async with Limited(mapping, plugins=[Processing(from_memory)]) as proxy:
            answers = [await proxy.ask() for _ in range(3)]
            figures, records = await proxy.figures(), await proxy.records()

    assert [it.status for it in answers] == [200] * 3
    assert figures == (0, 0)
    assert not records


class Flight:
    """One call in an exchange of its own, for all that ask."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._shared: Shared | None = None

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        async with self._lock:
            if self._shared is None:
                detached = exchange.detach(exchange.request)
                self._shared = await share(await call_next(detached), max_bytes=10_000, tasks=Tasks())
        return self._shared.join(exchange)


@pytest.mark.parametrize("inside", [False, True], ids=["the limit below the flight", "the limit above the flight"])
async def test_work_that_calls_share_is_booked_once(inside: bool) -> None:
    limit = 5 * BOUND if inside else BOUND
    async with Upstream(reply(completion("yes"))) as upstream:
        mapping = around(upstream.base_url, {"total_usd": usd(limit)}, inside=inside)
        async with Limited(mapping, plugins=[Processing(Flight())]) as proxy:
            answers = await asyncio.gather(*(proxy.ask() for _ in range(5)))
            figures, records = await proxy.figures(), await proxy.records()

        assert len(upstream.requests) == 1
    assert [it.status for it in answers] == [200] * 5
    assert figures == (TRUE_COST, 0)
    assert len(records) == 1


async def test_a_call_that_is_over_before_it_is_admitted_sends_nothing() -> None:
    raised: list[ProxyError] = []

    async def too_late(exchange: Exchange, call_next: Handler) -> Response:
        exchange.finish(End.ABANDONED)
        try:
            return await call_next(exchange)
        except ProxyError as error:
            raised.append(error)
            raise

    async with Upstream() as upstream:
        async with Limited(around(upstream.base_url, {"total_usd": "1"}), plugins=[Processing(too_late)]) as proxy:
            await proxy.ask()
            figures = await proxy.figures()

        assert not upstream.requests
    assert [error.code for error in raised] == ["client_gone"]
    assert figures == (0, 0)


# -- ends ------------------------------------------------------------------------------------------------------------


async def test_a_stream_without_usage_is_booked_by_an_estimate_and_marked() -> None:
    question = asking(stream=True)
    async with (
        Upstream(stream(chat_chunk("0123456789" * 4, finish="stop"))) as upstream,
        Limited(limited(upstream.base_url, {"total_usd": usd(bound(question))})) as proxy,
    ):
        await proxy.ask(question)
        (record,) = await proxy.records()
        figures = await proxy.figures()

    assert record.usage is not None
    assert (record.usage.source, record.usage.output_tokens) == ("estimated", 10)
    assert figures == (record.usage.input_tokens * INPUT + 10 * OUTPUT, 0)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_provider_that_counts_nothing_makes_no_call_free(streamed: bool) -> None:
    """Some local servers say zero, always."""
    question, said = asking(stream=streamed), "0123456789" * 4
    answer = (
        stream(chat_chunk(said, finish="stop"), usage_chunk(0, 0))
        if streamed
        else reply(completion(said, prompt=0, completion=0))
    )
    async with (
        Upstream(answer) as upstream,
        Limited(limited(upstream.base_url, {"total_usd": usd(bound(question))})) as proxy,
    ):
        await proxy.ask(question)
        (record,) = await proxy.records()
        figures = await proxy.figures()

    assert record.usage is not None
    assert (record.usage.source, record.usage.output_tokens) == ("estimated", 10)
    assert figures == (record.usage.input_tokens * INPUT + 10 * OUTPUT, 0)


async def test_a_stream_that_breaks_off_after_a_count_of_its_input_is_booked_with_what_was_said() -> None:
    question = asking(stream=True)
    counted = chat_chunk("") | {"usage": {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9}}
    answer = [*stream(counted, chat_chunk("0123456789" * 4))[:3], Cut()]
    async with (
        Upstream(answer) as upstream,
        Limited(limited(upstream.base_url, {"total_usd": usd(bound(question))})) as proxy,
    ):
        await proxy.ask(question)
        (record,) = await proxy.records()
        figures = await proxy.figures()

    assert record.usage is not None
    assert record.usage.source == "estimated"
    assert record.usage.output_tokens >= 10
    assert figures == (9 * INPUT + record.usage.output_tokens * OUTPUT, 0)


async def test_a_client_that_leaves_pays_for_what_came() -> None:
    question = asking(stream=True)
    sent = asyncio.Event()
    begun = stream(chat_chunk("0123456789" * 4))[:2]
    async with (
        Upstream([*begun, Reached(sent), Stall()]) as upstream,
        Limited(limited(upstream.base_url, {"total_usd": usd(bound(question))})) as proxy,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(question)}\r\n"
        writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + question)
        await asyncio.wait_for(reader.readuntil(b"0123456789"), 10)
        reserved = await proxy.figures()
        writer.close()
        await writer.wait_closed()
        outcome = await proxy.outcome()
        await proxy.exchanges[0].settled(5)
        figures = await proxy.figures()
        (record,) = await proxy.records()

    assert outcome.end is record.end is End.ABANDONED
    assert reserved == (0, bound(question))
    assert record.usage is not None
    assert (record.usage.source, record.usage.output_tokens) == ("estimated", 10)
    assert figures == (record.usage.input_tokens * INPUT + 10 * OUTPUT, 0)
