"""
What a call has held is free when it is over: nothing of it waits for a collection, which counts objects and not bytes.

A request may be 32 MB long, and a collection comes by after hundreds of calls.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Mapping
from typing import Any

import attrs
import llmproxy_cache
import llmproxy_chaos
import llmproxy_cost_limit
import llmproxy_enhance_query
import pytest

from llmproxy_core.exchange import Exchange
from llmproxy_core.processor import Handler
from llmproxy_core.response import Response
from tests.growth import left_to_collector
from tests.llmproxy_server.edging import Deaf, Processing, answer, post, request
from tests.llmproxy_server.transporting import until
from tests.mixture import Mixture, as_asked, forgotten
from tests.page_first import PAGE
from tests.proxy import Proxy, openai_at
from tests.rawclient import Client, connected
from tests.upstream import Upstream, refusing_url, silent_url

PLUGINS = (llmproxy_cache, llmproxy_chaos, llmproxy_cost_limit, llmproxy_enhance_query)
SOON_S = 0.3
OTHERS = {
    "llmproxy_server.transport_protocol.UpstreamProtocol",  # with an answer that aiohttp read and nobody asked it for
    "llmproxy_server.wire.upstream_connection.UpstreamConnection",  # uvloop's, closed while it was connected
}
"""What hangs together with objects of libraries, and holds no exchange."""


@attrs.frozen
class Way:
    """What answers the calls of a mixture: an LLM *to*, by a route with more keys."""

    to: str = "up"
    route: Mapping[str, Any] = {}
    server: Mapping[str, Any] = {}


WAYS: dict[str, Way] = {
    "plain": Way(),
    "aiohttp": Way("aiohttp"),
    "retries": Way("again"),
    "fallback": Way("fallback"),
    "resumed": Way("resumed"),
    "race": Way("race"),
    "drained": Way(route={"on_disconnect": "drain"}),
    "a deadline": Way(route={"deadline_s": SOON_S}),
    "cached": Way(route={"processors": ["cache"]}),
    "limited": Way(route={"processors": ["budget"]}),
    "limited and cached": Way(route={"processors": ["budget", "cache"]}),
    "enhanced": Way(route={"processors": ["enhance"]}),
    "chaos": Way(route={"processors": ["chaos"]}),
    "watched": Way(route={"processors": ["watch"]}),
    "logged": Way(server={"log": {"log_content": True}}),
}


def mapping(base_url: str, refusing: str, way: Way) -> dict[str, Any]:
    quickly = {"retries": {"max_retries": 2, "initial_backoff_s": 0.01, "max_backoff_s": 0.01}}
    clocks = {"first_byte_s": SOON_S, "idle_s": SOON_S}
    openai = {
        "provider": "openai",
        "base_url": base_url,
        "timeouts": clocks,
        "pool": {"idle_s": 0.2},
        "prices": {"*": {"input": "1.00", "output": "2.00"}},
    }
    return {
        "server": dict(way.server),
        "llm": {
            "up": openai,
            "second": openai,
            "aiohttp": {**openai, "transport": "aiohttp"},
            "nowhere": {**openai, "base_url": f"{refusing}/v1"},
            "again": {**openai, **quickly},
            "fallback": {"provider": "fallback", "members": ["nowhere", "up", "second"], **quickly},
            "resumed": {"provider": "fallback", "members": ["up", "second"], "resume": True, **quickly},
            "race": {"provider": "race", "members": ["up", "second"], "after_ms": 1, "max_extra": 1.0, **quickly},
        },
        "processor": {
            "cache": {"type": "cache"},
            "budget": {"type": "cost_limit", "total_usd": "500.00"},
            "enhance": {"type": "openai_chat", "config_value": "plain"},
            "chaos": {"type": "chaos", "faults": {"error": {"share": 0.3, "status": [503]}, "cut": {"share": 0.3}}},
            "watch": {"type": "test"},
        },
        "route": [
            {"path_prefix": "/v1", "target_llm": way.to, "operations": ["chat"], **way.route},
            {"path_prefix": "/nowhere/v1", "target_llm": "nowhere", "operations": ["chat"]},
        ],
    }


async def watch(exchange: Exchange, call_next: Handler) -> Response:
    """Looks at the text, and is slow to note the end."""

    async def note(outcome: object) -> None:
        await asyncio.sleep(0)

    exchange.on_finish(note)
    response = await call_next(exchange)
    response.watch(Deaf)
    return response


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_however_a_call_ends_it_holds_nothing_that_only_a_collection_frees(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Proxy, "pages", [PAGE])
    with refusing_url() as refusing:
        async with Upstream(as_asked) as upstream:
            configured = mapping(upstream.base_url, refusing, way)
            async with Proxy(configured, plugins=[*PLUGINS, Processing(watch)]) as proxy:
                mixture = Mixture(proxy.port, ["/v1"], "/nowhere/v1", random.Random(7), page=True)
                await mixture.some(20)  # what is made once is made
                await forgotten(proxy, upstream)
                with left_to_collector() as left:
                    await mixture.some(100)
                    await forgotten(proxy, upstream)

                assert set(left) - OTHERS == set()


# -- requests that are not whole -------------------------------------------------------------------------------------

PART = b"x" * (1 << 20)
SIZED = request("POST", "/v1/chat/completions", "Content-Type: application/json", "Content-Length: 8000000") + PART
CHUNKED = request(
    "POST", "/v1/chat/completions", "Content-Type: application/json", "Transfer-Encoding: chunked"
) + b"%x\r\n%b\r\n3\r\n" % (len(PART), PART)


def reset(client: Client) -> None:
    """Leave by a reset."""
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def read(proxy: Proxy) -> None:
    """All that the client has sent of its body is here."""
    await until(lambda: proxy.server.admission.buffered_bytes >= len(PART))


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("begun", [SIZED, CHUNKED], ids=["sized", "in chunks"])
@pytest.mark.usefixtures("both_ways")
async def test_a_request_whose_client_leaves_while_it_sends_it_is_free_at_once(begun: bytes, *, resets: bool) -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        with left_to_collector() as left:
            for _ in range(3):
                async with connected(proxy.port) as client:
                    client.send(begun)
                    await read(proxy)
                    if resets:
                        reset(client)
                await until(lambda: not proxy.server.edges[0].connections and not proxy.server.edges[0].calls)

        assert left == {}
        assert proxy.server.admission.buffered_bytes == 0


@pytest.mark.parametrize(
    ("begun", "status"),
    [(SIZED, 408), (CHUNKED + b"no chunk\r\n", 400), (CHUNKED.replace(b"/v1", b"/v2", 1), 404)],
    ids=["too slow", "malformed", "no route"],
)
@pytest.mark.usefixtures("both_ways")
async def test_a_request_that_is_refused_while_it_is_sent_is_free_at_once(begun: bytes, status: int) -> None:
    server = {"body_timeout_s": SOON_S}
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url, server=server)) as proxy:
        with left_to_collector() as left:
            async with connected(proxy.port) as client:
                client.send(begun)
                assert (await answer(client)).status == status
            await until(lambda: not proxy.server.edges[0].connections and not proxy.server.edges[0].calls)

        assert left == {}


async def test_a_request_whose_client_leaves_while_its_upstream_is_connected_is_free_at_once() -> None:
    with silent_url() as url:
        async with Proxy(openai_at(url)) as proxy:
            with left_to_collector() as left:
                async with connected(proxy.port) as client:
                    client.send(post())
                    await until(lambda: len(proxy.exchanges) == 1)
                await proxy.outcome()
                proxy.exchanges.clear()
                proxy.outcomes.clear()
                await until(lambda: not proxy.server.edges[0].connections)

            assert left == {}
