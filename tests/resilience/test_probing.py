"""Active probes: what is asked of an LLM that nobody calls, and what follows from its answer."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import llmproxy_ollama
import pytest

from llmproxy_core import (
    Exchange,
    HttpLLMConfig,
    ModelMap,
    ModelPrice,
    ProviderType,
    Response,
    Tasks,
    Unsupported,
    hookimpl,
)
from tests.llmproxy_server.metrics.scraping import scrape
from tests.llmproxy_server.reloading import Reloadable
from tests.proxy import Proxy, openai_at
from tests.resilience.flocks import ask, fails, one, says
from tests.resilience.test_providers import drain, health, providers
from tests.script import Chunk, Cut, Head
from tests.upstream import Call, Step, Upstream, Wait, reply

OFTEN = {"every_s": 0.05}
LIST = reply({"object": "list", "data": []})
SOME_S = 0.3
"""Time for several probes, to see that there is none."""


def answering(chat: list[Step], models: list[Step]) -> Callable[[Call], Any]:
    """An upstream whose answers are not like its list of models."""

    async def handle(call: Call) -> None:
        await call.play(*(models if call.received.target.endswith("/models") else chat))

    return handle


def probes(upstream: Upstream) -> int:
    return sum(it.target.endswith("/models") for it in upstream.requests)


async def for_some_time() -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(SOME_S, over.set)
    await asyncio.wait_for(over.wait(), 10)


async def until_it_is(proxy: Proxy, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What is said of the LLM `a`, once that holds."""
    async with asyncio.timeout(10):
        while True:
            said: dict[str, Any] = (await providers(proxy.url))["a"]
            if holds(said):
                return said


async def test_an_llm_that_nobody_calls_is_known_to_be_well() -> None:
    async with Upstream(LIST) as upstream, Proxy(one(upstream, tried=False, probe=OFTEN)) as proxy:
        probe = await upstream.received(1)
        await upstream.received(2)  # what came of the first is known by then
        said = (await providers(proxy.url))["a"]
        scraped = await scrape(proxy)

    assert (probe.method, probe.target) == ("GET", "/v1/models")
    assert probe.values("authorization") != []
    assert (said["state"], said["probe_every_s"]) == ("ok", 0.05)
    assert scraped("llmproxy_llm_availability", llm="a") == 1
    assert scraped("llmproxy_upstream_last_success_timestamp_seconds", llm="a") > 0


async def test_a_probe_is_no_call_of_a_clients() -> None:
    async with Upstream(LIST) as upstream, Proxy(one(upstream, probe=OFTEN, max_in_flight=1)) as proxy:
        await upstream.received(3)
        said = (await providers(proxy.url))["a"]
        scraped = await scrape(proxy)

    assert proxy.exchanges == []
    assert "latency" not in said
    assert scraped.total("llmproxy_requests_total") == 0
    assert scraped.total("llmproxy_upstream_duration_seconds_count") == 0
    assert scraped.total("llmproxy_tokens_processed_total") == 0


async def test_an_llm_that_fails_its_probes_is_not_available_until_one_goes_well() -> None:
    async with Upstream(LIST) as upstream, Proxy(one(upstream, tried=False, probe=OFTEN, models=["m"])) as proxy:
        upstream.then(fails(503))
        failing = await until_it_is(proxy, lambda it: it["state"] == "failing")
        upstream.then(fails(503), fails(503), fails(503), fails(503))
        await upstream.received(2)
        out, word = await scrape(proxy), await health(proxy.url)
        upstream.script = LIST
        await until_it_is(proxy, lambda it: it["state"] == "ok")
        back = await scrape(proxy)

    assert failing["last_error"]["status"] == 503
    assert word == ("degraded", [("llm.a", "upstream_error")])
    assert (out("llmproxy_llm_availability", llm="a"), back("llmproxy_llm_availability", llm="a")) == (0, 1)
    assert (out("llmproxy_model_availability", model="m"), back("llmproxy_model_availability", model="m")) == (0, 1)


async def test_a_probe_that_is_not_answered_in_time_has_failed() -> None:
    probe = {**OFTEN, "timeout_s": 0.1}
    never = asyncio.Event()
    async with Upstream([Wait(never), *LIST]) as upstream, Proxy(one(upstream, tried=False, probe=probe)) as proxy:
        asked = await upstream.received()
        await asyncio.wait_for(asked.gone.wait(), 10)
        said = await until_it_is(proxy, lambda it: it["state"] == "failing")

    assert said["last_error"]["code"] == "upstream_timeout_total"


ANSWERS: list[tuple[str, list[Step], str]] = [
    ("a list", reply({"object": "list", "data": [{"id": "m"}]}), "ok"),
    ("no list at that path", fails(404), "ok"),
    ("no such method", fails(405), "ok"),
    ("no list at all", fails(501), "ok"),
    ("a page", reply(b"<html>parked</html>", headers={"content-type": "text/html"}), "failing"),
    ("half a list", reply(b'{"object":"list","data":[{"id":'), "failing"),
    ("something else", reply({"ok": True}), "failing"),
    ("nothing", reply(b""), "failing"),
    ("no content", reply(b"", 204), "failing"),
    ("a redirect", reply(b"", 302, {"location": "http://example.com/"}), "failing"),
    ("a request that is refused", fails(400), "failing"),
    ("a key that is refused", fails(401), "failing"),
    ("a limit", fails(429), "failing"),
]


@pytest.mark.parametrize(("_", "answer", "state"), ANSWERS, ids=[it[0] for it in ANSWERS])
async def test_what_a_probe_is_answered_says_how_the_llm_is(_: str, answer: list[Step], state: str) -> None:
    async with Upstream(answer) as upstream, Proxy(one(upstream, tried=False, probe=OFTEN)) as proxy:
        said = await until_it_is(proxy, lambda it: it["state"] != "unknown")
        scraped = await scrape(proxy)

    assert said["state"] == state
    assert scraped("llmproxy_llm_availability", llm="a") == (state == "ok")


async def test_what_a_failed_probe_has_read_is_given_back_at_once() -> None:
    """Not by a collection, which may take hours to come: each may hold as much as an answer may have."""
    gc.collect()
    gc.disable()
    try:
        cut: list[Step] = [Head(200, {"content-type": "application/json"}, 2_000), Chunk(b"[" * 1_000), Cut()]
        async with Upstream(cut) as upstream, Proxy(one(upstream, tried=False, probe=OFTEN)):
            await upstream.received(5)
            kept = sum(isinstance(it, Exchange) and it.id == "probe" for it in gc.get_objects())
    finally:
        gc.enable()

    assert kept <= 1  # that which is under way


async def test_no_two_probes_are_under_way_at_once() -> None:
    go_on = asyncio.Event()
    async with Upstream(LIST) as upstream:
        upstream.then([Wait(go_on), *LIST])
        async with Proxy(one(upstream, tried=False, probe=OFTEN)):
            await upstream.received()
            await for_some_time()
            during = len(upstream.requests)
            go_on.set()
            await upstream.received(2)

    assert during == 1


async def test_a_drained_llm_is_not_probed() -> None:
    async with Upstream(LIST) as upstream, Proxy(one(upstream, probe=OFTEN)) as proxy:
        await upstream.received()
        await drain(proxy.url)
        before = len(upstream.requests)
        await for_some_time()
        drained = len(upstream.requests)
        await drain(proxy.url, drained=False)
        await upstream.received(drained + 1)

    assert drained <= before + 1  # one was on its way


async def test_a_key_that_rests_is_not_probed() -> None:
    limited = fails(429, ("retry-after", "60"))
    async with (
        Upstream(answering(limited, LIST)) as upstream,
        Proxy(one(upstream, tried=False, max_in_flight=5, probe=OFTEN)) as proxy,
    ):
        assert (await ask(proxy)).status == 429
        before = probes(upstream)
        await for_some_time()

        assert probes(upstream) <= before + 1  # one was on its way


async def test_each_key_is_probed_and_one_that_works_is_enough() -> None:
    env = {"KEY_1": "sk-first", "KEY_2": "sk-second"}
    seen = set[str]()

    async def handle(call: Call) -> None:
        (key,) = call.received.values("authorization")
        seen.add(key)
        await call.play(*(LIST if key.endswith("second") else fails(401)))

    async with Upstream(handle) as upstream:
        mapping = one(upstream, tried=False, token_env=["KEY_1", "KEY_2"], probe=OFTEN)
        async with Proxy(mapping, env=env) as proxy:
            await upstream.received(3)  # both of a round, and the first of the next
            said = (await providers(proxy.url))["a"]

    assert seen == {"Bearer sk-first", "Bearer sk-second"}
    assert said["state"] == "ok"


# -- the breaker -----------------------------------------------------------------------------------------------------


async def test_probes_close_a_breaker_without_a_call_of_a_clients() -> None:
    breaker = {"min_calls": 1, "open_s": 0.1, "probes": 2}
    async with (
        Upstream(answering(fails(503), LIST)) as upstream,
        Proxy(one(upstream, tried=False, breaker=breaker, probe=OFTEN)) as proxy,
    ):
        assert (await ask(proxy)).status == 503
        said = await until_it_is(
            proxy, lambda it: it["keys"][0]["breaker"]["state"] == "closed" and it["state"] == "ok"
        )

    assert said["keys"][0]["breaker"]["opened"] == 1
    assert len(upstream.requests) - probes(upstream) == 1


async def test_a_page_instead_of_the_list_does_not_close_a_breaker() -> None:
    breaker = {"min_calls": 1, "open_s": 0.1, "probes": 1}
    page = reply(b"<html>parked</html>")
    async with (
        Upstream(answering(fails(503), page)) as upstream,
        Proxy(one(upstream, tried=False, breaker=breaker, probe=OFTEN)) as proxy,
    ):
        assert (await ask(proxy)).status == 503
        said = await until_it_is(proxy, lambda it: it["keys"][0]["breaker"]["opened"] >= 2)

    assert said["last_error"]["code"] == "upstream_garbage"


async def test_a_server_without_a_list_keeps_its_breaker_closed() -> None:
    breaker = {"min_calls": 1, "failure_rate": 0.1}
    async with (
        Upstream(answering(says("hello"), fails(501))) as upstream,
        Proxy(one(upstream, tried=False, breaker=breaker, probe=OFTEN)) as proxy,
    ):
        await upstream.received(4)
        said = (await providers(proxy.url))["a"]
        assert (await ask(proxy)).status == 200

    assert (said["state"], said["keys"][0]["breaker"]["calls"]) == ("ok", 0)


async def test_probes_that_fail_open_the_breaker_and_then_there_are_none() -> None:
    breaker = {"min_calls": 2, "failure_rate": 1.0, "open_s": 30.0}
    async with (
        Upstream(fails(503)) as upstream,
        Proxy(one(upstream, tried=False, breaker=breaker, probe=OFTEN)) as proxy,
    ):
        await until_it_is(proxy, lambda it: it["state"] == "open")
        await for_some_time()

        assert len(upstream.requests) == 2


async def test_a_list_of_models_does_not_stand_against_answers_that_fail() -> None:
    breaker = {"min_calls": 2, "failure_rate": 1.0, "open_s": 30.0}
    async with (
        Upstream(answering(fails(503), LIST)) as upstream,
        Proxy(one(upstream, tried=False, breaker=breaker, probe=OFTEN)) as proxy,
    ):
        assert (await ask(proxy)).status == 503
        begun = probes(upstream)
        await upstream.until(lambda: probes(upstream) >= begun + 3)
        assert (await ask(proxy)).status == 503

        assert (await providers(proxy.url))["a"]["state"] == "open"


# -- their beginning and their end -----------------------------------------------------------------------------------


PROVIDERS = [
    ("openai", llmproxy_anthropic, "/v1/models"),
    ("anthropic", llmproxy_anthropic, "/v1/models"),
    ("gemini", llmproxy_gemini, "/v1beta/models"),
    ("mistral", llmproxy_mistral, "/v1/models"),
    ("ollama", llmproxy_ollama, "/api/tags"),
]


@pytest.mark.parametrize(("provider", "plugin", "path"), PROVIDERS, ids=[it[0] for it in PROVIDERS])
async def test_each_provider_is_asked_in_its_own_words(provider: str, plugin: object, path: str) -> None:
    async with Upstream(LIST) as upstream:
        mapping = openai_at(upstream.url, provider=provider, probe=OFTEN, route={"dialect": "openai"})
        plugins = [] if provider == "openai" else [plugin]
        async with Proxy(mapping, plugins=plugins):
            probe = await upstream.received()

    assert probe.target.partition("?")[0] == path


def probed(base_url: str, **llm: Any) -> dict[str, Any]:
    return openai_at(base_url, probe=OFTEN, **llm)


async def test_a_reload_that_leaves_the_table_does_not_disturb_a_probe(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with Upstream(LIST) as upstream:
        upstream.then([Wait(go_on), *LIST])
        async with Reloadable(tmp_path, probed(upstream.base_url)) as proxy:
            asked = await upstream.received()

            assert (await proxy.reload({**probed(upstream.base_url), "server": {"max_in_flight": 77}})).ok
            assert not asked.gone.is_set()
            go_on.set()

            await upstream.received(2)
            said = (await providers(f"http://127.0.0.1:{proxy.port}"))["openai"]
    assert said["state"] == "ok"


async def test_a_reload_that_changes_the_table_gives_up_its_probe_and_begins_anew(tmp_path: Path) -> None:
    never = asyncio.Event()
    async with (
        Upstream([Wait(never), *LIST]) as old,
        Upstream(LIST) as new,
        Reloadable(tmp_path, probed(old.base_url)) as proxy,
    ):
        asked = await old.received()

        assert (await proxy.reload(probed(new.base_url))).ok

        await asyncio.wait_for(asked.gone.wait(), 10)
        await new.received(2)
        assert len(old.requests) == 1
        assert (await providers(f"http://127.0.0.1:{proxy.port}"))["openai"]["state"] == "ok"


async def test_probes_end_as_soon_as_the_process_drains() -> None:
    go_on, never = asyncio.Event(), asyncio.Event()
    handle = answering([Wait(go_on), *says("hello")], [Wait(never), *LIST])
    async with Upstream(handle) as upstream, Proxy(one(upstream, tried=False, probe=OFTEN)) as proxy:
        asking = Tasks().start(ask(proxy), name="asks")
        await upstream.until(lambda: len(upstream.requests) - probes(upstream) == 1 == probes(upstream))
        (probe,) = [it for it in upstream.requests if it.target.endswith("/models")]

        stopping = Tasks().start(proxy.server.stop(), name="stops")
        await asyncio.wait_for(probe.gone.wait(), 10)
        await for_some_time()
        assert probes(upstream) == 1
        assert not asking.done(), "what is in flight goes on"
        go_on.set()

        assert (await asyncio.wait_for(asking, 10)).status == 200
        await asyncio.wait_for(stopping, 10)


class Odd:
    """An LLM that cannot be asked for its list of models, and has a bug besides."""

    models = ModelMap()

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.thrice = asyncio.Event()

    async def send(self, exchange: Exchange) -> Response:
        self.asked.append(exchange.operation)
        if len(self.asked) == 3:
            self.thrice.set()
        raise Unsupported("No list") if len(self.asked) == 1 else RuntimeError("oops")

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return ()

    async def aclose(self) -> None:
        """Nothing is held."""


async def test_an_llm_that_cannot_be_probed_is_named_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    odd = Odd()

    class Plugin:
        @hookimpl
        def llmproxy_providers(self) -> list[ProviderType[Any]]:
            return [ProviderType(name="odd", config=HttpLLMConfig, build=lambda config, services: odd)]

    mapping = openai_at("http://127.0.0.1:9/v1", provider="odd", probe=OFTEN, breaker={"min_calls": 1})
    async with Proxy(mapping, plugins=[Plugin()]) as proxy:
        await asyncio.wait_for(odd.thrice.wait(), 10)
        said = (await providers(proxy.url))["openai"]

    assert [it.message for it in caplog.records].count("an LLM cannot be probed") == 1
    assert set(odd.asked) == {"models"}
    assert said["keys"][0]["breaker"] | {"calls": 0, "state": "closed"} == said["keys"][0]["breaker"]
    assert said["state"] == "unknown"
