"""What becomes of an upstream's answer when its client has left, by the route's `on_disconnect`."""

import asyncio
import gc
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llmproxy_core.errors import UpstreamError
from llmproxy_core.exchange import Exchange
from llmproxy_core.money import Money
from llmproxy_core.outcome import End as Ending
from llmproxy_core.processor import Handler
from llmproxy_core.response import Response
from llmproxy_core.usage import Usage, UsageSource
from llmproxy_server.call import Call
from llmproxy_server.wire.connection import Connection
from tests.llmproxy_server.edging import HELLO, STREAM, Deaf, Processing, answer, ask, head, post, processed, request
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import Client, connected
from tests.upstream import (
    Chunk,
    Cut,
    End,
    Flood,
    Head,
    Received,
    Script,
    Stall,
    Step,
    Upstream,
    Wait,
    chat_chunk,
    completion,
    error,
    reply,
    sse,
    stream,
    usage_chunk,
)

pytestmark = pytest.mark.usefixtures("both_ways")

WAIT_S = 5
ONE = sse(chat_chunk("one"), done=False)
TWO = sse(chat_chunk("two", finish="stop"), done=False)
REST = TWO + sse(usage_chunk())
PRICES = {"*": {"input": "1.00", "output": "2.00"}}  # 1000 and 2000 nanodollars a token
COST = Money(9 * 1_000 + 3 * 2_000)  # of what `completion` and `usage_chunk` tell
USAGE = Usage(9, 3)
DRAIN = {"on_disconnect": "drain"}


@pytest.fixture(params=["wire", "aiohttp"])
def transport(request: pytest.FixtureRequest) -> str:
    """What carries the calls to the upstream."""
    name: str = request.param
    return name


def draining(base_url: str, transport: str = "wire", *, route: dict[str, object] | None = None, **llm: Any) -> Any:
    return openai_at(base_url, route={**DRAIN, **(route or {})}, transport=transport, prices=PRICES, **llm)


def up_to(usd: str) -> dict[str, object]:
    return {"on_disconnect": {"drain_up_to_usd": usd}}


@asynccontextmanager
async def leaving(proxy: Proxy, upstream: Upstream, data: bytes, *, after: bytes = b"") -> AsyncIterator[Received]:
    """A client asks *data*, gets all up to *after*, and has left when this is entered."""
    async with connected(proxy.port) as client:
        client.send(data)
        received = await upstream.received()
        if after:
            await client.until(after)
    await until(lambda: not proxy.server.edges[0].connections)
    yield received


async def is_over(proxy: Proxy) -> None:
    await until(lambda: not proxy.server.edges[0].calls)
    assert proxy.server.admission.in_flight == 0


async def look(exchange: Exchange, call_next: Handler) -> Response:
    """Watches the text, so that the stream is decoded, and pulled."""
    response = await call_next(exchange)
    response.watch(Deaf)
    return response


# -- drain ---------------------------------------------------------------------------------------------------------


async def test_a_plain_answer_is_drained_and_its_usage_is_what_the_upstream_told(transport: str) -> None:
    go_on = asyncio.Event()
    script: Script = [Wait(go_on), *reply(completion("x"))]
    async with Upstream(script) as upstream, Proxy(draining(upstream.base_url, transport)) as proxy:
        async with leaving(proxy, upstream, post()) as received:
            assert proxy.server.admission.in_flight == 1  # the upstream works for it
            go_on.set()
            outcome = await proxy.outcome()

        assert (outcome.end, outcome.error) == (Ending.ABANDONED, None)
        assert (outcome.usage, outcome.cost) == (USAGE, COST)
        await is_over(proxy)
        async with connected(proxy.port) as client:
            assert (await ask(client, post())).status == 200
        assert upstream.connections_total == 1  # it went back to the pool
        assert not received.gone.is_set()


@pytest.mark.usefixtures("heads_soon")
@pytest.mark.parametrize("watched", [False, True], ids=["copied", "watched"])
@pytest.mark.parametrize("after", [b"", b"\r\n\r\n", ONE + b"\r\n"], ids=["at once", "after the head", "mid-stream"])
async def test_a_stream_is_drained_from_wherever_its_client_left(transport: str, watched: bool, after: bytes) -> None:
    go_on = asyncio.Event()
    before: list[Step] = [Wait(go_on), Head()] if not after else [Head(), Wait(go_on)]
    if after.startswith(ONE):
        before = [Head(), Chunk(ONE), Wait(go_on)]
    async with Upstream([*before, Chunk(REST), End()]) as upstream:
        mapping = draining(upstream.base_url, transport)
        plugins = [Processing(look)] if watched else []
        async with Proxy(processed(mapping) if watched else mapping, plugins=plugins) as proxy:
            async with leaving(proxy, upstream, post(STREAM), after=after) as received:
                assert proxy.server.admission.in_flight == 1
                go_on.set()
                outcome = await proxy.outcome()

            assert (outcome.end, outcome.usage, outcome.cost) == (Ending.ABANDONED, USAGE, COST)
            await is_over(proxy)
            async with connected(proxy.port) as client:
                assert (await ask(client, post(STREAM))).complete
            assert upstream.connections_total == 1
            assert not received.gone.is_set()


async def test_an_opaque_answer_is_drained() -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Head(200, {"content-type": "audio/ogg"}), Chunk(b"abc"), Wait(go_on), Chunk(b"d"), End()]
    async with (
        Upstream(script) as upstream,
        Proxy(draining(upstream.base_url, route={"operations": ["chat", "opaque"]})) as proxy,
        leaving(proxy, upstream, request("GET", "/v1/audio/1"), after=b"abc") as received,
    ):
        go_on.set()
        assert (await proxy.outcome()).end is Ending.ABANDONED
        await asyncio.wait_for(received.finished.wait(), WAIT_S)
        assert not received.gone.is_set()
        await is_over(proxy)


@pytest.mark.parametrize("watched", [False, True], ids=["copied", "watched"])
async def test_a_client_that_took_nothing_does_not_hold_the_drain(watched: bool) -> None:
    """It had stopped the upstream, and that waits for nobody any more."""
    flow = Flood(sse(chat_chunk("x" * 16_000), done=False), count=1200)  # more than the kernel holds on the way
    upstream = Upstream([Head(), flow, Chunk(REST), End()], send_buffer_bytes=65_536)
    async with upstream:
        mapping = draining(upstream.base_url)
        plugins = [Processing(look)] if watched else []
        async with Proxy(processed(mapping) if watched else mapping, plugins=plugins) as proxy:
            async with connected(proxy.port, read_buffer_bytes=16_384) as client:
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                client.send(post(STREAM))
                await (await upstream.received()).held_back(0.2)

            outcome = await proxy.outcome()

            assert (outcome.end, outcome.usage) == (Ending.ABANDONED, USAGE)
            await is_over(proxy)


async def test_an_upstream_that_fails_for_nobody_is_told_in_the_outcome_alone(transport: str) -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Head(), Chunk(ONE), Wait(go_on), Cut()]) as upstream,
        Proxy(draining(upstream.base_url, transport)) as proxy,
        leaving(proxy, upstream, post(STREAM), after=ONE),
    ):
        go_on.set()
        outcome = await proxy.outcome()

        assert outcome.end is Ending.ABANDONED
        assert outcome.error is not None
        assert outcome.error.code == "upstream_cut"
        assert outcome.usage is not None
        assert outcome.usage.source is UsageSource.ESTIMATED
        await is_over(proxy)


@pytest.mark.parametrize("last", [[Head(), Cut()], reply(error("no"), 500)], ids=["cut", "refused"])
async def test_an_upstream_that_fails_before_it_answers_nobody_ends_the_call(last: list[Step]) -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *last]) as upstream,
        Proxy(draining(upstream.base_url)) as proxy,
        leaving(proxy, upstream, post(STREAM)),
    ):
        go_on.set()
        outcome = await proxy.outcome()

        assert outcome.end is Ending.ABANDONED
        assert outcome.error is not None
        await is_over(proxy)


async def test_the_clocks_of_the_llm_end_a_drain() -> None:
    async with (
        Upstream([Head(), Chunk(ONE), Stall()]) as upstream,
        Proxy(draining(upstream.base_url, timeouts={"idle_s": 0.2})) as proxy,
        leaving(proxy, upstream, post(STREAM), after=ONE),
    ):
        outcome = await proxy.outcome()

        assert outcome.end is Ending.ABANDONED
        assert outcome.error is not None
        assert outcome.error.code == "upstream_timeout_idle"
        await is_over(proxy)


@pytest.mark.parametrize("script", [[Stall()], [Head(), Chunk(ONE), Stall()]], ids=["awaited", "begun"])
async def test_a_drain_is_cut_when_the_time_to_drain_at_the_end_is_over(script: list[Step]) -> None:
    async with (
        Upstream(script) as upstream,
        Proxy(with_server(draining(upstream.base_url), drain_timeout_s=0.1)) as proxy,
        leaving(proxy, upstream, post(STREAM), after=ONE if len(script) > 1 else b"") as received,
    ):
        await asyncio.wait_for(proxy.server.stop(), WAIT_S)

        assert [outcome.end for outcome in proxy.outcomes] == [Ending.ABANDONED]
        await asyncio.wait_for(received.gone.wait(), WAIT_S)
        assert proxy.server.admission.in_flight == 0


# -- what is not drained -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["plain", "stream"])
async def test_cancel_gives_the_answer_up_at_once(transport: str, body: dict[str, object]) -> None:
    mapping_keys: dict[str, object] = {"on_disconnect": "cancel"}
    async with (
        Upstream([Stall()]) as upstream,
        Proxy(draining(upstream.base_url, transport, route=mapping_keys)) as proxy,
        leaving(proxy, upstream, post(body)) as received,
    ):
        await asyncio.wait_for(received.gone.wait(), 1)
        assert (await proxy.outcome()).end is Ending.ABANDONED
        await is_over(proxy)


async def test_a_call_that_was_not_made_is_not_made_for_nobody() -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def dawdle(exchange: Exchange, call_next: Handler) -> Response:
        reached.set()
        await never.wait()
        return await call_next(exchange)

    async with (
        Upstream() as upstream,
        Proxy(processed(draining(upstream.base_url)), plugins=[Processing(dawdle)]) as proxy,
    ):
        async with connected(proxy.port) as client:
            client.send(post())
            await asyncio.wait_for(reached.wait(), WAIT_S)

        assert (await proxy.outcome()).end is Ending.ABANDONED
        await is_over(proxy)
        assert not upstream.requests


async def test_what_waits_between_two_tries_makes_no_other_for_nobody() -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def retry(exchange: Exchange, call_next: Handler) -> Response:
        try:
            return await call_next(exchange)
        except UpstreamError:
            reached.set()
            await never.wait()
            return await call_next(exchange)

    async with (
        Upstream(reply(error("busy"), 503)) as upstream,
        Proxy(processed(draining(upstream.base_url)), plugins=[Processing(retry)]) as proxy,
    ):
        async with connected(proxy.port) as client:
            client.send(post())
            await asyncio.wait_for(reached.wait(), WAIT_S)

        assert (await proxy.outcome()).end is Ending.ABANDONED
        await is_over(proxy)
        assert len(upstream.requests) == 1


async def test_a_drained_try_that_fails_is_the_last_one() -> None:
    go_on = asyncio.Event()
    async with Upstream([Wait(go_on), *reply(error("busy"), 503)]) as upstream:
        retries = {"max_retries": 3, "initial_backoff_s": 0.01}
        async with (
            Proxy(draining(upstream.base_url, retries=retries)) as proxy,
            leaving(proxy, upstream, post()),
        ):
            go_on.set()
            outcome = await proxy.outcome()

            assert outcome.end is Ending.ABANDONED
            await is_over(proxy)
            assert len(upstream.requests) == 1


async def test_an_upload_that_its_client_left_ends_the_upstream_call() -> None:
    async with (
        Upstream([Stall()], early=True) as upstream,
        Proxy(draining(upstream.base_url, route={"operations": ["chat", "opaque"]})) as proxy,
    ):
        async with connected(proxy.port) as client:
            client.send(request("POST", "/v1/files", "Content-Length: 1000") + b"some")
            await upstream.received()

        assert (await proxy.outcome()).end is Ending.ABANDONED
        await is_over(proxy)
        await upstream.until(lambda: upstream.connections_open == 0)


# -- drain_up_to_usd -----------------------------------------------------------------------------------------------


async def test_a_stream_is_drained_until_the_call_has_cost_the_amount(transport: str) -> None:
    """The question is some 10 tokens, so "one" stays below 0.1 cent; 1,000 tokens more are twice that."""
    go_on = asyncio.Event()
    more = sse(chat_chunk("word"), done=False) * 1_000
    async with (
        Upstream([Head(), Chunk(ONE), Wait(go_on), Chunk(more), Stall()]) as upstream,
        Proxy(draining(upstream.base_url, transport, route=up_to("0.001"))) as proxy,
        leaving(proxy, upstream, post(STREAM), after=ONE) as received,
    ):
        assert proxy.server.admission.in_flight == 1
        go_on.set()
        await asyncio.wait_for(received.gone.wait(), WAIT_S)
        outcome = await proxy.outcome()

        assert received.chunks_sent == 2
        assert outcome.end is Ending.ABANDONED
        assert outcome.cost is not None
        assert outcome.cost > Money.usd("0.001")
        await is_over(proxy)


@pytest.mark.parametrize("watched", [False, True], ids=["copied", "watched"])
async def test_a_stream_that_stays_below_the_amount_is_drained_to_its_end(watched: bool) -> None:
    go_on = asyncio.Event()
    async with Upstream([Head(), Chunk(ONE), Wait(go_on), Chunk(REST), End()]) as upstream:
        mapping = draining(upstream.base_url, route=up_to("0.001"))
        plugins = [Processing(look)] if watched else []
        async with (
            Proxy(processed(mapping) if watched else mapping, plugins=plugins) as proxy,
            leaving(proxy, upstream, post(STREAM), after=b"one"),
        ):
            go_on.set()
            outcome = await proxy.outcome()

            assert (outcome.end, outcome.usage, outcome.cost) == (Ending.ABANDONED, USAGE, COST)
            await is_over(proxy)


@pytest.mark.parametrize(
    ("keys", "usd", "body"),
    [
        ({"prices": {"another": {"input": "1.00", "output": "2.00"}}}, "1", STREAM),
        ({}, "0.000001", STREAM),
        ({}, "1", HELLO),
    ],
    ids=["without a price", "beyond the amount", "plain"],
)
async def test_what_may_cost_more_than_the_amount_is_cancelled_at_once(
    keys: dict[str, object], usd: str, body: dict[str, object]
) -> None:
    script: list[Step] = [Head(), Chunk(ONE), Stall()] if body is STREAM else [Stall()]
    async with Upstream(script) as upstream:
        mapping = draining(upstream.base_url, route=up_to(usd))
        mapping["llm"]["openai"].update(keys)
        async with (
            Proxy(mapping) as proxy,
            leaving(proxy, upstream, post(body), after=b"one" if body is STREAM else b"") as received,
        ):
            await asyncio.wait_for(received.gone.wait(), 1)
            assert (await proxy.outcome()).end is Ending.ABANDONED
            await is_over(proxy)


# -- many ----------------------------------------------------------------------------------------------------------


async def test_twenty_clients_that_leave_at_random_points_leave_nothing_behind(transport: str) -> None:
    chance = random.Random(20)
    chunks = [sse(chat_chunk(f"{n}"), done=False) for n in range(10)]

    async def leave(proxy: Proxy, number: int) -> None:
        async with connected(proxy.port) as client:
            plain, count = number % 5 == 0, chance.randrange(0, 10)
            client.send(post(HELLO if plain else STREAM))
            if plain:
                await until(lambda: len(proxy.exchanges) > 0)
            else:
                await _read(client, chunks[:count])

    async def answered(call: Any) -> None:
        if b'"stream"' in call.received.body:
            await call.play(*stream(*(chat_chunk(f"{n}") for n in range(10)), usage_chunk()))
        else:
            await call.play(*reply(completion("x")))

    async with Upstream(answered) as upstream, Proxy(draining(upstream.base_url, transport)) as proxy:
        async with asyncio.TaskGroup() as clients:
            for number in range(20):
                clients.create_task(leave(proxy, number))
        await is_over(proxy)
        ends = {outcome.end for outcome in proxy.outcomes}

        assert len(proxy.outcomes) == len(proxy.exchanges)
        assert ends <= {Ending.ABANDONED, Ending.COMPLETED}
        for exchange in proxy.exchanges:  # who left before its call was made has used nothing
            assert exchange.outcome is not None
            assert exchange.outcome.usage == (USAGE if exchange.attempts else None)
        await upstream.until(lambda: all(received.finished.is_set() for received in upstream.requests))
        async with connected(proxy.port) as client:
            client.send(post())
            assert (await answer(client)).status == 200
        assert len(proxy.server.tasks) == 0


async def _read(client: Client, chunks: list[bytes]) -> None:
    await head(client)
    for chunk in chunks:
        await client.until(chunk + b"\r\n")


async def test_a_drained_call_leaves_nothing_that_only_a_collection_would_free() -> None:
    async with Upstream() as upstream, Proxy(draining(upstream.base_url, route=up_to("1"))) as proxy:
        gc.collect()
        before = {id(kept) for kept in gc.get_objects()}  # other tests keep theirs
        gc.disable()
        try:
            lasts: list[list[Step]] = [[Chunk(REST), End()], [Chunk(TWO), Cut()]]
            for last in lasts:
                go_on = asyncio.Event()
                upstream.script = [Head(), Chunk(ONE), Wait(go_on), *last]
                async with connected(proxy.port) as client:
                    client.send(post(STREAM))
                    await client.until(ONE)
                go_on.set()
                await is_over(proxy)
            proxy.exchanges.clear()
            proxy.outcomes.clear()

            def left() -> bool:
                return any(
                    isinstance(kept, Call | Exchange | Connection) and id(kept) not in before
                    for kept in gc.get_objects()
                )

            await until(lambda: not left())
        finally:
            gc.enable()
