"""Several processes with one sum: any of them answers for all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmproxy_server.metrics.metering import Metering
from llmproxy_server.metrics.slot import zero_gauges
from tests.exact import ask
from tests.llmproxy_server.metrics.counting import Counting
from tests.llmproxy_server.metrics.scraping import MODEL, chat, metered, priced_at, scrape, scrape_until
from tests.proxy import Proxy
from tests.upstream import Upstream, completion, error, reply


async def test_any_worker_says_what_all_have_counted(tmp_path: Path) -> None:
    parent = Metering.of_parent(tmp_path)
    assert parent.upkeep is not None
    parent.upkeep.alive(2)
    parent.upkeep.restarted()
    parent.upkeep.reloaded("ok")
    workers = [Metering.of_worker(tmp_path, slot) for slot in ("0", "1")]
    assert [worker.upkeep for worker in workers] == [None, None]
    async with Upstream(reply(completion("Hi", prompt=9, completion=3))) as upstream:
        proxies = [metered(Proxy(priced_at(upstream.base_url)), worker) for worker in workers]
        async with proxies[0], proxies[1]:
            for proxy in (proxies[0], proxies[1], proxies[1]):
                await chat(proxy)
            await scrape_until(proxies[0], "llmproxy_requests_total", 3, model=MODEL, status="200")
            await scrape_until(proxies[1], "llmproxy_requests_total", 3, model=MODEL, status="200")
            found = [await scrape(proxy) for proxy in proxies]
            said = [json.loads((await ask("GET", f"{proxy.url}/metrics")).body) for proxy in proxies]

    for seen in found:
        assert seen("llmproxy_requests_total", model=MODEL, status="200") == 3
        assert seen("llmproxy_tokens_processed_total", model=MODEL, type="input") == 27
        assert seen("llmproxy_request_duration_seconds_count", model=MODEL) == 3
        assert seen("llmproxy_model_availability", model=MODEL) == 1
        assert seen("llmproxy_workers") == 2
        assert seen("llmproxy_worker_restarts_total") == 1
        assert seen("llmproxy_reloads_total", result="ok") == 1
        assert seen("llmproxy_last_reload_ok") == 1
    assert said[0] == said[1]
    assert said[0]["llms"]["openai"]["total_requests"] == 3


async def test_gauges_of_another_worker_are_those_of_the_last_second(tmp_path: Path) -> None:
    workers = [Metering.of_worker(tmp_path, slot) for slot in ("0", "1")]
    workers[1].meter.gauge("llmproxy_held", "What a worker holds.", lambda: 5.0)
    async with Upstream() as upstream:
        proxies = [metered(Proxy(priced_at(upstream.base_url)), worker) for worker in workers]
        async with proxies[0], proxies[1]:
            seen = await scrape_until(proxies[0], "llmproxy_held", 5)

            assert seen("process_resident_memory_bytes") > 10e6
            assert seen("process_open_fds") > 5


async def test_a_model_that_failed_in_one_worker_and_answered_in_another_since_is_available(tmp_path: Path) -> None:
    workers = [Metering.of_worker(tmp_path, slot) for slot in ("0", "1")]
    async with Upstream(reply(error("Broken"), status=500)) as upstream:
        upstream.then(reply(error("Broken"), status=500), reply(completion("Hi")))
        proxies = [metered(Proxy(priced_at(upstream.base_url)), worker) for worker in workers]
        async with proxies[0], proxies[1]:
            await chat(proxies[0])
            await scrape_until(proxies[1], "llmproxy_requests_total", 1, model=MODEL, status="500")
            failed = await scrape(proxies[1])
            await chat(proxies[1])
            await scrape_until(proxies[0], "llmproxy_requests_total", 1, model=MODEL, status="200")
            well = await scrape(proxies[0])

    assert [it("llmproxy_model_availability", model=MODEL) for it in (failed, well)] == [0, 1]


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "not replaced"])
def test_a_dead_workers_counters_stay_and_its_gauges_go(tmp_path: Path, replaced: bool) -> None:
    dead = Counting(priced_at("http://127.0.0.1:9/v1"), Metering.of_worker(tmp_path, "0"))
    dead.one(MODEL)
    dead.begin(dead.exchange(MODEL))
    other = Metering.of_worker(tmp_path, "1")
    assert other.snapshot().of("llmproxy_active_requests").value(model=MODEL) == 1

    if replaced:
        successor = Counting(priced_at("http://127.0.0.1:9/v1"), Metering.of_worker(tmp_path, "0"))
        successor.one(MODEL)
    else:
        zero_gauges(tmp_path, "0")

    snapshot = other.snapshot()
    assert snapshot.of("llmproxy_active_requests").value(model=MODEL) == 0
    assert snapshot.of("llmproxy_requests_total").value(model=MODEL, status="200") == (2 if replaced else 1)
