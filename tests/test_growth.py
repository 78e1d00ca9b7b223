"""Cost and memory do not grow: with routes, with processors elsewhere, with uptime, with the length of a stream."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any

import attrs
import pytest

from llmproxy_core import (
    Dialect,
    Exchange,
    Handler,
    Headers,
    LLMConfig,
    Operation,
    ProcessorType,
    ProviderType,
    Reply,
    Response,
    Services,
    Stream,
    hookimpl,
)
from llmproxy_core.body import PulledBody
from llmproxy_core.config import structure
from llmproxy_core.errors import RouteNotFound
from llmproxy_core.gateway import Gateway, build
from llmproxy_core.model_map import ModelMap
from llmproxy_core.outcome import End
from llmproxy_core.plugins import Registry
from llmproxy_core.prices import ModelPrice
from llmproxy_core.processor import Processor
from llmproxy_core.relay import Flow, Whole, deliver
from llmproxy_core.request import Request
from llmproxy_core.tasks import Tasks
from llmproxy_core.text import Replace
from llmproxy_server import demo
from llmproxy_server.bounds import BOUNDS
from tests.answers import chat_chunk, completion, reply, sse
from tests.growth import calls, instances, kept, work
from tests.llmproxy_server.edging import HELLO, NoConfig, ask, post, request
from tests.proxy import STANDARD_PLUGINS, Proxy
from tests.rawclient import connected
from tests.upstream import Call, Upstream

ANSWER = json.dumps(completion("Hello")).encode()
QUESTION = json.dumps(HELLO).encode()
Run = Callable[[], object]


# -- a gateway without a network -------------------------------------------------------------------------------------


class Instant:
    """An LLM that has its answer, so that a call is over without a turn of the loop."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.models = ModelMap()

    async def send(self, exchange: Exchange) -> Response:
        api = exchange.request.api
        assert api is not None
        return Reply(exchange, ANSWER, dialect=self._dialect, api=api, head=self._dialect.scan_reply(api, ANSWER))

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return ()

    async def aclose(self) -> None:
        """Nothing is held."""


class Passes:
    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        return await call_next(exchange)


@hookimpl
def llmproxy_providers() -> Iterable[ProviderType[Any]]:
    def instant(config: LLMConfig, services: Services) -> Instant:
        return Instant(services.dialects["openai"])

    return [ProviderType(name="instant", config=LLMConfig, build=instant)]


@hookimpl
def llmproxy_processors() -> Iterable[ProcessorType[Any]]:
    def passes(config: NoConfig, services: Services) -> Processor:
        return Passes()

    return [ProcessorType(name="passes", config=NoConfig, build=passes, operations=frozenset(Operation))]


class Plugin:
    llmproxy_providers = staticmethod(llmproxy_providers)
    llmproxy_processors = staticmethod(llmproxy_processors)


def gateway(*, routes: int = 1, processors: int = 1, models: int = 0) -> Gateway:
    """
    *routes* of one processor each; the last has all that are left of *processors*.

    *models* more LLMs are there that no route leads to.
    """
    registry = Registry.of(*STANDARD_PLUGINS, Plugin)
    names = [f"p{number}" for number in range(processors)]
    table = [
        {"path_prefix": f"/route-{number:05}/v1", "target_llm": "llm", "processors": names[:1]}
        for number in range(routes)
    ]
    if len(names) > 1:
        table[-1]["processors"] = names[1:]
    mapping = {
        "llm": {
            "llm": {"provider": "instant"},
            **{f"llm{number}": {"provider": "instant"} for number in range(models)},
        },
        "processor": {name: {"type": "passes"} for name in names},
        "route": table,
    }
    config, _ = structure(mapping, registry, {})

    def services(llm: Callable[[str], Any]) -> Services:
        return Services(llm=llm, transport=_no_network, tasks=Tasks(), dialects=registry.dialects, clock=lambda: 1.0)

    return build(config, registry, services)


def _no_network(pool: object) -> Any:
    raise AssertionError("nothing is called")


def at_once(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run what awaits nothing."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def call(gateway: Gateway, path: str) -> None:
    """A whole call, from its path to the bytes of its answer."""
    match = gateway.match("POST", path)
    asked = Request(
        operation=match.operation,
        dialect=match.dialect,
        api=match.api,
        method="POST",
        path=path,
        headers=Headers(),
        body=bytes(memoryview(QUESTION)),  # what is remembered of a body is its very object's
    )
    exchange = gateway.begin(match, asked, request_id="1")
    response = await gateway.handle(exchange)
    assert exchange.client is not None
    delivered = await deliver(response, exchange.client)
    assert isinstance(delivered, Whole)
    exchange.finish(End.COMPLETED)


def cost(gateway: Gateway, route: int = 0) -> tuple[int, int, int, int]:
    """Steps and function calls of a call to a path that comes for the first time, and of one that has come before."""
    path = f"/route-{route:05}/v1/chat/completions"
    at_once(call(gateway, path))  # what is made once is made
    gateway._index._memory.clear()
    cold = work(lambda: at_once(call(gateway, path)))
    warm = work(lambda: at_once(call(gateway, path)))
    gateway._index._memory.clear()
    return cold, warm, calls(lambda: at_once(call(gateway, path))), calls(lambda: at_once(call(gateway, path)))


@pytest.mark.parametrize("route", [0, 500, 999], ids=["first", "middle", "last"])
def test_a_call_costs_the_same_with_one_route_and_with_a_thousand(route: int) -> None:
    one, thousand = gateway(), gateway(routes=1000)

    assert cost(thousand, route) == cost(one)


def test_a_path_that_nothing_serves_costs_the_same_with_a_thousand_routes() -> None:
    def refused(it: Gateway) -> None:
        with pytest.raises(RouteNotFound):
            it.match("POST", "/nowhere/at/all/v1/chat/completions")

    found = []
    for routes in (1, 1000):
        it = gateway(routes=routes)
        refused(it)
        found.append((work(partial(refused, it)), calls(partial(refused, it))))

    assert found[0] == found[1]


def test_processors_and_llms_that_a_route_does_not_use_cost_it_nothing() -> None:
    plain, crowded = gateway(routes=2), gateway(routes=2, processors=501, models=500)

    assert cost(crowded) == cost(plain)


def test_the_count_notices_a_search() -> None:
    """What these tests stand on: one more step of a loop is seen."""
    short, long = list(range(10)), list(range(11))

    assert work(lambda: [it for it in long if it < 0]) > work(lambda: [it for it in short if it < 0])
    assert calls(lambda: [len([it]) for it in long]) > calls(lambda: [len([it]) for it in short])


def test_a_route_takes_a_bounded_place_in_memory() -> None:
    """As much as the one before it: nothing in it grows with the others."""

    def size(routes: int) -> int:
        tracemalloc.start()
        try:
            it = gateway(routes=routes)
            gc.collect()
            assert len(it.routes) == routes
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    size(1)  # what is imported and cached at the first time is not a route's
    # The least of three: threads that earlier tests have left to load something are counted, too.
    one, hundred, thousand = (min(size(routes) for _ in range(3)) for routes in (1, 101, 1101))
    few, many = (hundred - one) / 100, (thousand - hundred) / 1000

    assert many < 1.5 * few
    assert many < 32 << 10


# -- the length of a stream ------------------------------------------------------------------------------------------


def pass_through(response: Stream) -> None:
    """Nobody watches."""


def watching(response: Stream) -> None:
    class Looks:
        def feed(self, text: str) -> None:
            """All is well."""

        def end(self) -> None:
            """All was."""

    response.watch(lambda channel: Looks())


def rewriting(response: Stream) -> None:
    response.rewrite(lambda channel: Replace({"secret": "[out]"}))


@pytest.mark.parametrize("subscribe", [pass_through, watching, rewriting])
def test_a_chunk_costs_the_same_however_long_the_stream_is(subscribe: Callable[[Stream], None]) -> None:
    it = gateway()

    def cost(chunks: int) -> tuple[int, int]:
        """Function calls, and the most bytes that were held."""
        run = partial(_drain, it, chunks, subscribe)
        count = calls(run)
        tracemalloc.start()
        try:
            run()
            return count, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    cost(1)  # what is made once is made
    (none, _), (hundred, small), (many, large) = cost(0), cost(100), cost(10_000)
    few, all_ = (hundred - none) / 100, (many - none) / 10_000

    assert all_ <= few * 1.01
    assert large <= small + 20_000


def _drain(it: Gateway, chunks: int, subscribe: Callable[[Stream], None]) -> None:
    at_once(_drained(it, chunks, subscribe))


async def _drained(it: Gateway, chunks: int, subscribe: Callable[[Stream], None]) -> None:
    """A stream of so many chunks, to the bytes of its client; what is sent is counted, not kept."""
    match = it.match("POST", "/route-00000/v1/chat/completions")
    body = json.dumps({**HELLO, "stream": True}).encode()
    asked = Request(operation=match.operation, dialect=match.dialect, api=match.api, method="POST", body=body)
    exchange = it.begin(match, asked, request_id="1")
    source = PulledBody(_chunks(chunks), tasks=Tasks())
    response = Stream(exchange, source, dialect=match.dialect, api=match.api, llm="llm")
    subscribe(response)
    assert exchange.client is not None
    flow = await deliver(response, exchange.client)
    assert isinstance(flow, Flow)
    sent = 0
    async for piece in flow.pieces():
        sent += len(piece)
    assert flow.error is None
    assert sent > chunks * len("data: ")
    flow.finish()


def _chunks(count: int) -> Callable[[], Awaitable[bytes]]:
    """Reads the same event so often, then the end of the stream."""
    left = count
    event = sse(chat_chunk("word "), done=False)

    async def read() -> bytes:
        nonlocal left
        left -= 1
        return event if left >= 0 else b"data: [DONE]\n\n" if left == -1 else b""

    return read


# -- uptime ----------------------------------------------------------------------------------------------------------

CALLS = 5_000
"""Twice: what has filled up by then, or is emptied now and then, is no growth."""
BY_CHANCE = 20
HELD = {
    "llmproxy_core.routing.Match": "routes",
    "llmproxy_server.metrics.attempt_series.AttemptSeries": "metric_attempts",
    "llmproxy_server.metrics.call_metrics.Begun": "metric_calls",
    "llmproxy_server.metrics.genai.GenAISeries": "metric_attempts",
    "llmproxy_server.metrics.usual_series.UsualSeries": "metric_attempts",
    "llmproxy_server.wire.upstream_target.Target": "upstream_urls",
}
"""Classes whose objects are remembered, and what remembers them."""


def hostile(number: int) -> bytes:
    """A request of which everything is new that a caller can choose."""
    body: dict[str, Any] = {**HELLO, "model": f"model-{number}"}
    headers = [
        f"X-Hostile-{number}: {number}",
        f"X-Request-Id: {'r' * (number % 100)}{number}",
        f"X-Tenant: tenant-{number}",
        f"OpenAI-Organization: organization-{number}",
        f"Traceparent: 00-{number + 1:032x}-{number + 1:016x}-01",
        f"Cookie: c{number}=1",
    ]
    match number % 10:
        case 0:
            return post(body, f"/open/v1/files/{number}?q={number}", *headers)
        case 1:
            return post(body, f"/v1/nothing/{number}", *headers)
        case 2:
            return request("GET", f"/n{number}", *headers, host=f"h{number}.localhost")
        case 3:
            return post(b"{" + str(number).encode(), "/v1/chat/completions", *headers)
        case 4:
            return request("GET", "/health", *headers, host=f"x{number}.localhost")
        case 5:
            return post({**body, "model": "m" * (7 * (number % 500))}, "/v1/chat/completions", *headers)
        case 6:
            return post({**body, f"k{number}": 1, "user": f"u{number}"}, f"/v1/chat/completions?x={number}", *headers)
        case 7:
            return post(body, "/open/v1/chat/completions", *headers)
        case _:
            return post(body, "/v1/chat/completions", *headers)


class Answering:
    """An upstream whose header names are new each time."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, call: Call) -> None:
        self.calls += 1
        headers = [(f"X-Upstream-{self.calls}", "1"), (f"OpenAI-New-{self.calls}", "2")]
        for step in reply(completion("Hello"), 200, headers):
            await call.play(step)


@attrs.frozen
class Holding:
    """What a server holds."""

    sizes: Counter[str]
    instances: Counter[str]

    def more_than(self, before: Holding) -> tuple[set[str], set[str]]:
        """The containers, and the classes, of which there is more than before."""
        grown = (
            {name for name, count in now.items() if count > then[name] + BY_CHANCE}
            for now, then in ((self.sizes, before.sizes), (self.instances, before.instances))
        )
        sizes, classes = grown
        return sizes, classes


async def asked(proxy: Proxy, numbers: range) -> Counter[int]:
    """Statuses of the answers to hostile requests."""
    statuses = Counter[int]()
    left = list(numbers)
    while left:
        async with connected(proxy.port) as client:
            while left:
                answer = await ask(client, hostile(left.pop(0)))
                statuses[answer.status] += 1
                if ("connection", "close") in answer.headers:
                    break
    return statuses


async def holding(proxy: Proxy, upstream: Upstream) -> Holding:
    """What is held once what the test itself remembers is forgotten."""
    proxy.server.write_down()
    proxy.exchanges.clear()
    proxy.outcomes.clear()
    upstream.requests.clear()
    return Holding(kept(proxy.server), instances())


@pytest.mark.timeout(300)
async def test_after_ten_thousand_calls_nothing_has_grown_but_what_has_a_cap() -> None:
    async with Upstream(Answering()) as upstream:
        mapping = {
            "llm": {
                "demo": {"provider": "demo", "delay_ms": 0},
                "open": {"provider": "openai", "base_url": upstream.base_url},
            },
            "route": [
                {"path_prefix": "/v1", "target_llm": "demo"},
                {"path_prefix": "/open", "target_llm": "open", "operations": ["chat", "opaque"]},
            ],
        }
        async with Proxy(mapping, plugins=[demo]) as proxy:
            first = await asked(proxy, range(CALLS))
            before = await holding(proxy, upstream)
            second = await asked(proxy, range(CALLS, 2 * CALLS))
            after = await holding(proxy, upstream)
            caps = {it.where: it.cap(proxy.server) for it in BOUNDS}
            sizes = {it.where: it.size(proxy.server) for it in BOUNDS}

    grown, classes = after.more_than(before)
    assert first == second
    assert set(first) == {200, 400, 404}
    assert {name for name in grown if caps.get(name, inf) == inf} == set()
    assert {name for name in classes if name not in HELD} == set()
    assert {HELD[name] for name in classes} <= {it.name for it in BOUNDS if caps[it.where] < inf}
    assert {name for name, size in sizes.items() if size > caps[name]} == set()
    assert after.sizes["llmproxy_server.edge.Edge.calls"] == 0


def test_the_walk_finds_what_is_kept() -> None:
    """What the test above stands on: a container anywhere below the root is seen, and who holds it."""

    class Deep:
        __slots__ = ("found",)

        def __init__(self) -> None:
            self.found = {number: number for number in range(7)}

    class Root:
        def __init__(self) -> None:
            inner = Deep()
            self.call = lambda: inner
            self.several = [(Deep(),)]

    sizes = kept(Root())

    here = f"{__name__}.test_the_walk_finds_what_is_kept.<locals>"
    assert sizes == {f"{here}.Deep.found": 14, f"{here}.Root.several": 1}
