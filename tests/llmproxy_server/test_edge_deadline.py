"""The whole call must be over by its deadline, whatever it waits for, and the time counts from its head on."""

import asyncio
from typing import Any

import pytest

import llmproxy_server.demo
from llmproxy_core.exchange import Exchange
from llmproxy_core.outcome import End as Ending
from llmproxy_core.processor import Handler
from llmproxy_core.response import Response
from tests.llmproxy_server.edging import HELLO, STREAM, Processing, ask, head, post, processed, request
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.upstream import Stall, Upstream, completion, reply

pytestmark = pytest.mark.usefixtures("both_ways")

SOON_S = 0.1
LATER_S = 60.0
WAIT_S = 10
NOBODY = "http://127.0.0.1:9/v1"
"""It is not asked."""
SOON = f"x-llmproxy-timeout-ms: {SOON_S * 1000:.0f}"


def limited(seconds: float, base_url: str = NOBODY, **keys: Any) -> dict[str, Any]:
    return openai_at(base_url, route={"deadline_s": seconds, **keys})


def demo(**keys: Any) -> dict[str, Any]:
    return {
        "llm": {"demo": {"provider": "demo", "models": ["demo*"], "delay_ms": 0}},
        "route": [{"path_prefix": "/v1", "target_llm": "demo", **keys}],
    }


async def never(exchange: Exchange, call_next: Handler) -> Response:
    await asyncio.Event().wait()
    return await call_next(exchange)


async def is_over(proxy: Proxy) -> None:
    async with asyncio.timeout(WAIT_S):
        while proxy.server.edges[0].calls:  # noqa: ASYNC110 - what it waits for is a state of the proxy
            await asyncio.sleep(0)
    assert not proxy.server.edges[0]._limited
    assert proxy.server.admission.in_flight == 0


async def test_a_processor_that_never_comes_back_is_ended() -> None:
    mapping = processed(limited(SOON_S))
    async with Proxy(mapping, plugins=[Processing(never)]) as proxy, connected(proxy.port) as client:
        found = await ask(client, post())

        assert (found.status, found.code) == (504, "deadline_exceeded")
        assert (await proxy.outcome()).end is Ending.FAILED
        await is_over(proxy)


async def test_a_body_that_never_comes_is_ended() -> None:
    async with Proxy(limited(SOON_S)) as proxy, connected(proxy.port) as client:
        client.send(request("POST", "/v1/chat/completions", "Content-Type: application/json", "Content-Length: 99"))
        found = await ask(client, b'{"model":')

        assert (found.status, found.code) == (504, "deadline_exceeded")
        assert not proxy.exchanges
        await is_over(proxy)


@pytest.mark.parametrize("model", ["demo/stall", "demo/slow"])
async def test_the_built_in_llm_ends_by_itself(model: str) -> None:
    async with Proxy(demo(), plugins=[llmproxy_server.demo]) as proxy, connected(proxy.port) as client:
        found = await ask(client, post({**HELLO, "model": model}, "/v1/chat/completions", SOON))

        assert (found.status, found.code) == (504, "deadline_exceeded")
        (attempt,) = proxy.exchanges[0].attempts
        assert attempt.error is not None
        await is_over(proxy)


@pytest.mark.parametrize("watched", [False, True], ids=["pushed", "pulled"])
async def test_a_stream_is_ended_by_an_error_of_its_protocol(watched: bool) -> None:
    async def look(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        response.watch(Deaf)
        return response

    mapping, plugins = demo(deadline_s=0.3), [llmproxy_server.demo, Processing(look)]
    async with Proxy(processed(mapping) if watched else mapping, plugins=plugins) as proxy:
        async with connected(proxy.port) as client:
            found = await ask(client, post({**STREAM, "model": "demo/stall"}))

        assert found.status == 200
        assert not found.complete
        assert b"deadline_exceeded" in found.body
        assert b"[DONE]" not in found.body
        outcome = await proxy.outcome()
        assert outcome.error is not None
        assert (outcome.end, outcome.error.code) == (Ending.FAILED, "deadline_exceeded")
        await is_over(proxy)


class Deaf:
    def __init__(self, channel: object) -> None: ...

    def feed(self, text: str) -> None: ...

    def end(self) -> None: ...


async def test_an_answer_that_is_drained_is_ended_in_silence() -> None:
    mapping = demo(deadline_s=0.3, on_disconnect="drain")
    async with Proxy(mapping, plugins=[llmproxy_server.demo]) as proxy:
        async with connected(proxy.port) as client:
            client.send(post({**STREAM, "model": "demo/stall"}))
            await head(client)

        assert (await proxy.outcome()).end is Ending.ABANDONED
        await is_over(proxy)


@pytest.mark.parametrize("said", ["x-llmproxy-timeout-ms: 60000", "x-stainless-timeout: 60", None])
async def test_the_time_counts_from_the_head_of_the_request_on(said: str | None) -> None:
    """So what it waits for a place, and for its own body, is a part of it."""
    async with (
        Upstream(reply(completion("x"))) as upstream,
        Proxy(limited(LATER_S if said is None else LATER_S + 1, upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        data = post(b'{"model": "m", "messages": []}', "/v1/chat/completions", *([] if said is None else [said]))
        client.send(data[:-1])
        async with asyncio.timeout(WAIT_S):
            while not proxy.server.edges[0].calls:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        (call,) = proxy.server.edges[0].calls
        assert (await ask(client, data[-1:])).status == 200

        (exchange,) = proxy.exchanges
        assert exchange.deadline_s == call.began_s + LATER_S
        assert exchange.started_s > call.began_s
        await is_over(proxy)


async def test_an_upstream_that_stalls_is_ended_by_the_clock_of_its_call() -> None:
    """Which knows more of it than the call's own, and so comes first."""
    async with (
        Upstream([Stall()]) as upstream,
        Proxy(limited(SOON_S, upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        found = await ask(client, post())

        assert (found.status, found.code) == (504, "deadline_exceeded")
        (attempt,) = proxy.exchanges[0].attempts
        assert attempt.error is not None
        assert attempt.error.code == "deadline_exceeded"
        await is_over(proxy)


async def test_a_header_of_ours_that_is_no_number_is_refused_before_the_body_is_read() -> None:
    async with Proxy(limited(LATER_S)) as proxy, connected(proxy.port) as client:
        lines = ("Content-Type: application/json", "Content-Length: 99", "x-llmproxy-timeout-ms: soon")
        found = await ask(client, request("POST", "/v1/chat/completions", *lines))

        assert (found.status, found.json["error"]["param"]) == (400, "x-llmproxy-timeout-ms")
