"""A configuration takes the place of another one while calls are served, or leaves everything as it was."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.exchange import Exchange
from llmproxy_core.hookspecs import ProcessorType, hookimpl
from llmproxy_core.processor import Handler, Processor
from llmproxy_core.response import Response
from llmproxy_core.services import Pool, Services
from llmproxy_core.tasks import Tasks
from llmproxy_server.transport import AiohttpTransport
from tests.llmproxy_server.edging import (
    HELLO,
    STREAM,
    NoConfig,
    Processing,
    answer,
    ask,
    chunks,
    head,
    many,
    post,
    processed,
    request,
)
from tests.llmproxy_server.metrics.scraping import scrape_until
from tests.llmproxy_server.reloading import TIMEOUT_S, Reloadable, toml
from tests.llmproxy_server.transporting import until
from tests.proxy import openai_at, with_server
from tests.rawclient import connected
from tests.upstream import Chunk, End, Head, Upstream, Wait, chat_chunk, completion, reply, sse

NOWHERE = "http://127.0.0.1:9/v1"
ONE = sse(chat_chunk("one"), done=False)
REST = sse(chat_chunk(None, finish="stop"))


def saying(text: str) -> Upstream:
    return Upstream(reply(completion(text)))


def text_of(body: Any) -> Any:
    return body["choices"][0]["message"]["content"]


# -- what takes effect -----------------------------------------------------------------------------------------------


async def test_calls_after_a_reload_are_served_by_the_new_configuration_on_the_same_connection(tmp_path: Path) -> None:
    async with (
        saying("old") as old,
        saying("new") as new,
        Reloadable(tmp_path, openai_at(old.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        assert text_of((await ask(client, post())).json) == "old"

        done = await proxy.reload(openai_at(new.base_url))

        assert text_of((await ask(client, post())).json) == "new"
        assert (done.ok, done.generation, done.changes) == (True, 2, ("llm.openai changed (base_url)",))


async def test_a_call_keeps_what_it_began_with_to_its_last_byte(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Head(), Chunk(ONE), Wait(go_on), Chunk(REST), End()]) as old,
        saying("new") as new,
        Reloadable(tmp_path, openai_at(old.base_url)) as proxy,
        connected(proxy.port) as streamed,
        connected(proxy.port) as other,
    ):
        streamed.send(post(STREAM))
        assert (await head(streamed)).status == 200
        before = proxy.server.gateway

        for _ in range(3):
            await proxy.reload(openai_at(new.base_url))
            await proxy.reload(with_server(openai_at(new.base_url), max_in_flight=7))
        assert text_of((await ask(other, post())).json) == "new"
        assert before.llms  # it is still what the stream is served from
        go_on.set()

        assert await chunks(streamed) == (ONE + REST, True)


async def test_a_body_that_is_still_sent_reaches_the_gateway_that_the_call_began_with(tmp_path: Path) -> None:
    async with (
        saying("old") as old,
        saying("new") as new,
        Reloadable(tmp_path, openai_at(old.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        whole = post()
        client.send(whole[:-5])
        await until(lambda: bool(proxy.server.edges[0].calls))
        await proxy.reload(openai_at(new.base_url))
        client.send(whole[-5:])

        assert text_of((await answer(client)).json) == "old"


async def test_the_bounds_of_the_server_are_those_of_the_new_configuration(tmp_path: Path) -> None:
    async with (
        saying("Hello") as upstream,
        Reloadable(tmp_path, openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        bounded = with_server(openai_at(upstream.base_url), max_body_bytes=100)
        await proxy.reload(bounded)
        long = {**HELLO, "messages": [{"role": "user", "content": "x" * 100}]}
        assert (await ask(client, post(long))).status == 413
        async with connected(proxy.port) as again:
            assert (await ask(again, post())).status == 200
            await proxy.reload(with_server(bounded, cors_allowed_origins=["https://app.example.com"]))
            origin = "Origin: https://app.example.com"
            allowed = await ask(again, post(HELLO, "/v1/chat/completions", origin))
            assert allowed["access-control-allow-origin"] == "https://app.example.com"
            await proxy.reload(with_server(bounded, allowed_hosts=["llm.example.com"]))
            asked = request("GET", "/livez", host="llm.example.com")
            assert (await ask(again, asked)).status == 200
            assert (await ask(again, post(HELLO, "/v1/chat/completions", origin))).status == 403


async def test_calls_in_flight_count_towards_the_new_bound(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *reply(completion("Hello"))]) as upstream,
        Reloadable(tmp_path, openai_at(upstream.base_url)) as proxy,
        many(proxy.port, 2) as calling,
        connected(proxy.port) as more,
    ):
        for client in calling:
            client.send(post())
        await upstream.received(2)

        await proxy.reload(with_server(openai_at(upstream.base_url), max_in_flight=2))

        assert (await ask(more, post())).status == 503
        go_on.set()
        assert [(await answer(client)).status for client in calling] == [200, 200]
        await until(lambda: proxy.server.admission.in_flight == 0)
        async with connected(proxy.port) as again:
            assert (await ask(again, post())).status == 200


async def test_a_call_that_outlives_a_reload_does_not_bring_back_a_model_that_is_gone(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Wait(go_on), *reply({"error": {"message": "down"}}, 503)]) as upstream,
        Reloadable(tmp_path, openai_at(upstream.base_url, models=["old"])) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post({**HELLO, "model": "old"}))
        await upstream.received()
        await proxy.reload(openai_at(upstream.base_url, models=["new"]))
        go_on.set()
        assert (await answer(client)).status == 503
        scraped = await scrape_until(proxy, "llmproxy_requests_total", 1, model="old", status="503")

    assert scraped("llmproxy_model_availability", model="new") == 0  # it is one and the same LLM
    assert not scraped.has("llmproxy_model_availability", model="old")


async def test_open_connections_can_be_bounded_later_and_no_more(tmp_path: Path) -> None:
    mapping = openai_at(NOWHERE)
    async with Reloadable(tmp_path, mapping) as proxy, connected(proxy.port) as first:
        assert (await ask(first, request("GET", "/livez"))).status == 200
        await proxy.reload(with_server(mapping, max_connections=1))
        async with connected(proxy.port) as second:
            second.send(request("GET", "/livez"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(second.reader.read(1), 0.2)
            assert (await ask(first, request("GET", "/livez"))).status == 200
            await proxy.reload(mapping)
            assert (await answer(second)).status == 200


# -- what stays ------------------------------------------------------------------------------------------------------


async def test_an_identical_file_changes_nothing_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llmproxy")
    mapping = openai_at(NOWHERE)
    async with Reloadable(tmp_path, mapping) as proxy:
        before = proxy.server.gateway

        done = await proxy.reload(mapping)

        assert (done.ok, done.unchanged, done.generation) == (True, True, 1)
        assert proxy.server.gateway is before
        assert "reloaded: unchanged" in caplog.messages


async def test_only_comments_and_order_are_no_change(tmp_path: Path) -> None:
    mapping = openai_at(NOWHERE)
    async with Reloadable(tmp_path, mapping) as proxy:
        server = {"port": 0, "host": "127.0.0.1"}
        proxy.write_text("# a comment\n" + toml({"route": mapping["route"], "server": server, "llm": mapping["llm"]}))

        assert (await proxy.reload()).unchanged


async def test_connections_to_the_upstream_are_kept(tmp_path: Path) -> None:
    async with (
        saying("Hello") as upstream,
        Reloadable(tmp_path, openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        for n in range(5):
            await proxy.reload(with_server(openai_at(upstream.base_url), max_in_flight=100 + n))
            assert (await ask(client, post())).status == 200

        assert upstream.connections_total == 1


async def test_a_transport_that_no_llm_needs_any_more_is_closed_after_its_last_call(tmp_path: Path) -> None:
    made: list[AiohttpTransport] = []

    def make(pool: Pool, tasks: Tasks) -> AiohttpTransport:
        made.append(AiohttpTransport(pool, tasks))
        return made[-1]

    go_on = asyncio.Event()
    async with Upstream([Head(), Chunk(ONE), Wait(go_on), Chunk(REST), End()]) as upstream:
        mapping = openai_at(upstream.base_url)
        async with (
            Reloadable(tmp_path, mapping, server={"make_transport": make}) as proxy,
            connected(proxy.port) as client,
        ):
            client.send(post(STREAM))
            await head(client)
            await proxy.reload(openai_at(upstream.base_url, pool={"max_connections": 3}))
            assert len(made) == 2
            assert made[0].connections_in_use == 1
            go_on.set()
            assert await chunks(client) == (ONE + REST, True)
            await until(lambda: upstream.connections_open == 0)  # idle connections are closed with the transport
            assert (await ask(client, post(STREAM))).complete
            assert upstream.connections_open == 1


def cached(base_url: str) -> dict[str, Any]:
    mapping = openai_at(base_url)
    mapping["processor"] = {"answers": {"type": "cache"}}
    mapping["route"][0]["processors"] = ["answers"]
    return mapping


async def test_cached_answers_are_kept(tmp_path: Path) -> None:
    async with (
        saying("Hello") as upstream,
        Reloadable(tmp_path, cached(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        same = {**HELLO, "temperature": 0}
        assert (await ask(client, post(same))).status == 200
        await proxy.reload(with_server(cached(upstream.base_url), max_in_flight=7))

        again = await ask(client, post(same))

        assert again.status == 200
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("reloads", [False, True], ids=["without a reload", "with a reload after each call"])
async def test_what_was_spent_is_kept(reloads: bool, tmp_path: Path) -> None:
    mapping = openai_at("", prices={"*": {"input": "1", "output": "1000"}})
    mapping["processor"] = {"budget": {"type": "cost_limit", "daily_usd": "0.02"}}
    mapping["route"][0]["processors"] = ["budget"]
    async with saying("Hello") as upstream:
        mapping["llm"]["openai"]["base_url"] = upstream.base_url
        async with Reloadable(tmp_path, mapping) as proxy, connected(proxy.port) as client:
            statuses = []
            for n in range(8):
                asked = {**HELLO, "max_completion_tokens": 10}
                statuses.append((await ask(client, post(asked))).status)
                if reloads:
                    await proxy.reload(with_server(mapping, max_in_flight=100 + n))

    assert statuses == [200] * 4 + [429] * 4


async def test_gateways_do_not_pile_up(tmp_path: Path) -> None:
    async with (
        saying("Hello") as upstream,
        Reloadable(tmp_path, openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        first = weakref.ref(proxy.server.gateway)
        for n in range(5):
            await proxy.reload(with_server(openai_at(upstream.base_url), max_in_flight=100 + n))
            assert (await ask(client, post())).status == 200
        proxy.exchanges.clear()

        await until(lambda: len(proxy.server.generations) == 1)

        gc.collect()
        assert first() is None


async def test_a_proxy_that_serves_stays_ready_while_a_reload_loads_more(tmp_path: Path) -> None:
    """Prices and exporters take a while: whoever balances the load must not leave for that."""
    local = {"demo": {"provider": "openai", "base_url": NOWHERE, "prices": {"*": {"input": "1", "output": "1"}}}}
    first = {"llm": local, "route": [{"path_prefix": "/v1", "target_llm": "demo"}]}
    priced = openai_at("https://api.openai.com/v1")
    traced = {**priced, "telemetry": {"traces": True, "endpoint": "http://127.0.0.1:9"}}
    async with Reloadable(tmp_path, first) as proxy, connected(proxy.port) as client:
        for mapping in (priced, traced):
            assert (await proxy.reload(mapping)).ok
            assert (await ask(client, request("GET", "/readyz"))).status == 200


# -- a plugin's work -------------------------------------------------------------------------------------------------


class Sweeping:
    """A plugin whose processor starts a task that never ends by itself."""

    def __init__(self) -> None:
        self.running = 0

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        def build(config: NoConfig, services: Services) -> Processor:
            _ = services.tasks.start(self._sweep(), name="sweep")

            async def pass_on(exchange: Exchange, call_next: Handler) -> Response:
                return await call_next(exchange)

            return pass_on

        return [ProcessorType(name="test", config=NoConfig, build=build, operations=frozenset(Operation))]

    async def _sweep(self) -> None:
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1


async def test_tasks_that_a_plugin_started_end_with_their_gateway(tmp_path: Path) -> None:
    plugin = Sweeping()
    mapping = with_server(processed(openai_at(NOWHERE)), drain_timeout_s=0)
    async with Reloadable(tmp_path, mapping, plugins=[plugin]) as proxy:
        for n in range(3):
            await proxy.reload(with_server(mapping, max_in_flight=100 + n))

        await until(lambda: plugin.running == 1 and len(proxy.server.generations) == 1)
    assert plugin.running == 0


async def test_a_process_that_ends_does_not_wait_for_the_tasks_of_a_gateway_that_is_over(tmp_path: Path) -> None:
    plugin = Sweeping()
    mapping = with_server(processed(openai_at(NOWHERE)), drain_timeout_s=600, settle_timeout_s=0)
    async with Reloadable(tmp_path, mapping, plugins=[plugin]) as proxy:
        await proxy.reload(with_server(mapping, max_in_flight=7))
        await until(lambda: plugin.running == 2)
        await asyncio.wait_for(proxy.server.stop(), TIMEOUT_S)

        assert plugin.running == 0


async def test_an_effect_that_outlives_its_call_is_waited_for(tmp_path: Path) -> None:
    """It may book what was spent: the store must not be closed under it."""
    go_on, done = asyncio.Event(), asyncio.Event()

    async def around(exchange: Exchange, call_next: Handler) -> Response:
        async def effect(outcome: object) -> None:
            await go_on.wait()
            done.set()

        exchange.on_finish(effect)
        return await call_next(exchange)

    async with saying("Hello") as upstream:
        mapping = with_server(processed(openai_at(upstream.base_url)), settle_timeout_s=0)
        async with (
            Reloadable(tmp_path, mapping, plugins=[Processing(around)]) as proxy,
            connected(proxy.port) as client,
        ):
            assert (await ask(client, post())).status == 200
            await proxy.reload(with_server(mapping, max_in_flight=7))
            assert (await ask(client, request("GET", "/livez"))).status == 200
            assert len(proxy.server.generations) == 2
            go_on.set()
            await asyncio.wait_for(done.wait(), TIMEOUT_S)
            await until(lambda: len(proxy.server.generations) == 1)


# -- what is wrong ---------------------------------------------------------------------------------------------------

BAD = {
    "empty": "",
    "binary": bytes(range(256)),
    "half": '"llm" = {"openai" = {"provider" =',
    "wrong type": 'llm = "openai"\n',
    "unknown LLM": '[[route]]\npath_prefix = "/v1"\ntarget_llm = "opnai"\n[llm.openai]\nprovider = "demo"\n',
    "no route": '[llm.openai]\nprovider = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n',
    "refused by the factory": None,
    "a bug of the factory": None,
    "an exit of the factory": None,
    "a panic of the factory": None,
}


class Panic(BaseException):
    """As a library in Rust raises it: no Exception."""


class Refusing:
    """A plugin whose factory has something against its table, or a bug, once it is told to."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        def build(config: NoConfig, services: Services) -> Processor:
            if self.error is not None:
                raise self.error

            async def pass_on(exchange: Exchange, call_next: Handler) -> Response:
                return await call_next(exchange)

            return pass_on

        return [ProcessorType(name="test", config=NoConfig, build=build, operations=frozenset(Operation))]


@pytest.mark.parametrize("bad", BAD)
async def test_a_bad_configuration_leaves_the_old_one_serving(
    bad: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llmproxy")
    plugin = Refusing()
    async with saying("Hello") as upstream:
        mapping = processed(openai_at(upstream.base_url))
        async with Reloadable(tmp_path, mapping, plugins=[plugin]) as proxy, connected(proxy.port) as client:
            written = BAD[bad]
            if written is None:
                refused = ConfigError([Problem("key", "expected more")])
                plugin.error = {
                    "refused": refused,
                    "a bug": ValueError("oh"),
                    "an exit": SystemExit(3),
                    "a panic": Panic(),
                }[bad.partition(" of ")[0].partition(" by ")[0]]
                proxy.write(with_server(mapping, max_in_flight=7))
            else:
                proxy.write_text(written)

            done = await proxy.reload()

            assert not done.ok
            assert done.problems
            assert all(problem.message for problem in done.problems)
            assert (await ask(client, post())).status == 200
            assert "not reloaded: what was served before goes on" in caplog.messages
            told = [record for record in caplog.records if record.getMessage() == "a problem of the configuration"]
            assert len(told) == len(done.problems)
            plugin.error = None
            assert (await proxy.reload(with_server(mapping, max_in_flight=8))).ok
            assert len(proxy.server.generations) <= 2


async def test_a_file_that_is_gone_is_a_problem_too(tmp_path: Path) -> None:
    async with Reloadable(tmp_path, openai_at(NOWHERE)) as proxy:
        proxy.file.unlink()

        done = await proxy.reload()

        assert [str(problem) for problem in done.problems] == ["there is no such file"]


async def test_every_problem_has_its_line(tmp_path: Path) -> None:
    async with Reloadable(tmp_path, openai_at(NOWHERE), plugins=[plugin := Refusing()]) as proxy:
        proxy.write_text('[llm.a]\nprovider = "opnai"\n\n[[route]]\npath_prefix = "v1"\ntarget_llm = "b"\n')
        read = await proxy.reload()
        proxy.write(processed(openai_at(NOWHERE)))
        plugin.error = ValueError("no")
        built = await proxy.reload()

    assert [(it.line, it.path) for it in read.problems] == [
        (2, "llm.a.provider"),
        (5, "route[1].path_prefix"),
        (6, "route[1].target_llm"),
    ]
    assert [(it.line, it.path) for it in built.problems] == [(4, "processor.around")]


# -- one at a time ---------------------------------------------------------------------------------------------------


async def test_reloads_that_race_come_one_after_the_other(tmp_path: Path) -> None:
    mapping = openai_at(NOWHERE)
    async with Reloadable(tmp_path, mapping) as proxy:
        reloads = []
        for n in range(10):
            proxy.write(with_server(mapping, max_in_flight=100 + n))
            reloads.append(proxy.reload())

        done = await asyncio.gather(*reloads)

        assert all(it.ok for it in done)
        assert [it.generation for it in done] == sorted(it.generation for it in done)
        assert proxy.server.config.server.max_in_flight == 109


async def test_a_reload_while_starting_waits_for_the_start(tmp_path: Path) -> None:
    mapping = openai_at(NOWHERE)
    proxy = Reloadable(tmp_path, mapping)
    proxy.write(with_server(mapping, max_in_flight=7))
    asked = Tasks()
    reloading = asked.start(proxy.reload(), name="reload")
    await asyncio.sleep(0)
    assert not reloading.done()
    async with proxy:
        assert (await asyncio.wait_for(reloading, TIMEOUT_S)).ok
        assert proxy.server.config.server.max_in_flight == 7


async def test_a_reload_while_draining_is_refused(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with Upstream([Wait(go_on), *reply(completion("Hello"))]) as upstream:
        mapping = openai_at(upstream.base_url)
        async with Reloadable(tmp_path, mapping) as proxy, connected(proxy.port) as client:
            client.send(post())
            await upstream.received()
            stopping = Tasks().start(proxy.server.stop(), name="stop")
            await until(lambda: proxy.server.life.draining)

            done = await proxy.reload(with_server(mapping, max_in_flight=7))

            assert (done.ok, done.busy) == (False, True)
            go_on.set()
            assert (await answer(client)).status == 200
            await asyncio.wait_for(stopping, TIMEOUT_S)


async def test_a_drain_waits_for_the_calls_of_every_generation(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with Upstream([Head(), Chunk(ONE), Wait(go_on), Chunk(REST), End()]) as upstream:
        mapping = openai_at(upstream.base_url)
        async with Reloadable(tmp_path, mapping) as proxy, many(proxy.port, 3) as clients:
            for n, client in enumerate(clients):
                client.send(post(STREAM))
                await head(client)
                await proxy.reload(with_server(mapping, max_in_flight=100 + n))
            stopping = Tasks().start(proxy.server.stop(), name="stop")
            await until(lambda: proxy.server.life.draining)
            go_on.set()

            assert [await chunks(client) for client in clients] == [(ONE + REST, True)] * 3
            await asyncio.wait_for(stopping, TIMEOUT_S)


# -- what only a restart changes -------------------------------------------------------------------------------------


async def test_host_port_own_endpoints_and_workers_stay_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mapping = openai_at(NOWHERE)
    async with Reloadable(tmp_path, mapping) as proxy, connected(proxy.port) as client:
        other = with_server(
            mapping, host="0.0.0.0", port=1, allow_anonymous=True, own_endpoints=False, workers=2, max_in_flight=7
        )
        done = await proxy.reload(other)

        assert [it.name for it in done.kept_settings] == [
            "server.host",
            "server.port",
            "server.own_endpoints",
            "server.workers",
        ]
        assert done.changes == ("server changed (max_in_flight, allow_anonymous)",)
        running = proxy.server.config.server
        assert (running.host, running.port, running.own_endpoints, running.workers) == ("127.0.0.1", 0, True, 1)
        assert (await ask(client, request("GET", "/livez"))).status == 200
        told = [it for it in caplog.records if it.getMessage() == "a setting changes only by a restart"]
        assert [it.__dict__["fields"]["setting"] for it in told] == [it.name for it in done.kept_settings]
        again = await proxy.reload()
        assert (again.unchanged, again.kept_settings) == (True, done.kept_settings)
