"""What a process says of itself, and of its reloads."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from llmproxy_server.metrics.meter import Sampler
from llmproxy_server.metrics.metering import Metering
from llmproxy_server.metrics.process import watch_log, watch_process, watch_spans
from llmproxy_server.metrics.snapshot import added_up
from llmproxy_server.metrics.upkeep import Upkeep
from llmproxy_server.metrics.values import Slot, Values
from tests.exact import ask, post
from tests.llmproxy_server.metrics.scraping import MODEL, QUESTION, Scrape, metered, priced_at, scrape
from tests.llmproxy_server.reloading import Reloadable
from tests.proxy import Proxy, openai_at
from tests.upstream import Upstream, completion, reply


async def test_the_process_tells_what_it_takes() -> None:
    began = time.time()
    async with Upstream() as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        first = await scrape(proxy)
        second = await scrape(proxy)

    assert 10e6 < first("process_resident_memory_bytes") < 10e9
    assert first("process_open_fds") > 5
    assert 0 < first("process_cpu_seconds_total") <= second("process_cpu_seconds_total") <= time.process_time()
    assert began <= first("process_start_time_seconds") <= time.time()
    assert first("llmproxy_workers") == 1


def test_where_there_is_no_proc_the_rest_is_told(tmp_path: Path) -> None:
    values = Values.anonymous()
    sampler = Sampler(values)

    watch_process(sampler, tmp_path)
    sampler.sample()

    totals = added_up([Slot(values.series, values.cells)]).totals
    assert {name for name in totals if name.startswith("process_")} == {
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    }


async def test_what_is_lost_of_logs_and_spans_is_counted() -> None:
    lines, spans = 3.0, 0.0
    async with Upstream() as upstream:
        metering = Metering.alone()
        async with metered(Proxy(priced_at(upstream.base_url)), metering) as proxy:
            watch_log(metering.sampler, lambda: lines)
            watch_spans(metering.sampler, lambda: spans)
            first = await scrape(proxy)
            lines, spans = 4.0, 2.0
            second = await scrape(proxy)

    lost = [(it("llmproxy_log_lines_dropped_total"), it("llmproxy_spans_dropped_total")) for it in (first, second)]
    assert lost == [(3, 0), (4, 2)]


async def test_the_loops_lag_is_measured() -> None:
    async with Upstream() as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        proxy.server.watch_loop()
        until_s = time.monotonic() + 0.6
        while time.monotonic() < until_s:
            """The loop does not turn meanwhile."""
        async with asyncio.timeout(20):
            while (await scrape(proxy))("llmproxy_event_loop_lag_seconds_sum") < 0.4:
                """Its timer is late, and has yet to tell."""


# -- reloads ---------------------------------------------------------------------------------------------------------


def test_reloads_are_counted_by_what_became_of_them() -> None:
    values, now = Values.anonymous(), 1000.0
    upkeep = Upkeep(values, lambda: now)

    found = []
    for now, result in ((1001.0, "ok"), (1002.0, "failed"), (1003.0, "unchanged")):  # noqa: B007 - the upkeep asks for it
        upkeep.reloaded(result)  # type: ignore[arg-type]
        snapshot = added_up([Slot(values.series, values.cells)])
        found.append(
            (
                snapshot.of("llmproxy_reloads_total").value(result=result),
                snapshot.of("llmproxy_last_reload_ok").value(),
                snapshot.of("llmproxy_last_reload_success_timestamp_seconds").value(),
            )
        )

    assert found == [(1, 1, 1001), (1, 0, 1001), (1, 1, 1003)]


async def test_a_reload_adds_models_and_takes_none_away(tmp_path: Path) -> None:
    async with (
        Upstream(reply(completion("Hi"))) as upstream,
        Reloadable(tmp_path, priced_at(upstream.base_url)) as reloadable,
    ):
        await _ask(reloadable.port, MODEL)
        before = await _scrape(reloadable.port)
        assert (await reloadable.reload(openai_at(upstream.base_url, models=["new"]))).ok
        await _ask(reloadable.port, "new")
        between = await _scrape(reloadable.port)
        assert not (await reloadable.reload({"route": 7})).ok
        after = await _scrape(reloadable.port)

    requests = "llmproxy_requests_total"
    assert before.values("llmproxy_model_availability", "model") == {MODEL}
    assert after.values("llmproxy_model_availability", "model") == {"new"}
    assert after(requests, model=MODEL, status="200") == after(requests, model="new", status="200") == 1
    assert [it("llmproxy_last_reload_ok") for it in (before, between, after)] == [1, 1, 0]
    assert [after("llmproxy_reloads_total", result=it) for it in ("ok", "failed")] == [1, 1]
    times = [it("llmproxy_last_reload_success_timestamp_seconds") for it in (before, between, after)]
    assert times[0] <= times[1] == times[2]


async def test_an_llm_that_a_reload_took_away_is_not_said_to_be_unavailable(tmp_path: Path) -> None:
    family = "llmproxy_llm_availability"
    async with Upstream(reply({"error": {"message": "no"}}, status=500)) as upstream:
        one = openai_at(upstream.base_url)
        other = {"llm": {"next": one["llm"]["openai"]}, "route": [{"path_prefix": "/v1", "target_llm": "next"}]}
        async with Reloadable(tmp_path, one) as reloadable:
            answered = await post(
                f"http://127.0.0.1:{reloadable.port}/v1/chat/completions", json.dumps(QUESTION).encode()
            )
            failed = await _scrape(reloadable.port)
            assert (await reloadable.reload(other)).ok
            gone = await _scrape(reloadable.port)
            assert (await reloadable.reload(one)).ok
            back = await _scrape(reloadable.port)

    assert answered.status == 500
    assert [it.values(family, "llm") for it in (failed, gone, back)] == [{"openai"}, {"next"}, {"openai"}]
    assert gone(family, llm="next") == 1
    assert failed(family, llm="openai") == back(family, llm="openai") == 0  # what failed stays so until it answers


async def _ask(port: int, model: str) -> None:
    body = f'{{"model":"{model}","messages":[]}}'.encode()
    assert (await post(f"http://127.0.0.1:{port}/v1/chat/completions", body)).status == 200


async def _scrape(port: int) -> Scrape:
    return Scrape.of((await ask("GET", f"http://127.0.0.1:{port}/api/metrics")).body.decode())


async def test_reloads_do_not_grow_what_is_kept(tmp_path: Path) -> None:
    metering = Metering.alone()
    mappings = [priced_at("http://127.0.0.1:9/v1"), priced_at("http://127.0.0.1:9/v1", ask_usage=False)]
    async with Reloadable(tmp_path, mappings[0], server={"metering": metering}) as reloadable:
        for number in range(4):
            assert (await reloadable.reload(mappings[number % 2])).ok
        before = len(metering.values.series), metering.values.used
        for number in range(20):
            assert (await reloadable.reload(mappings[number % 2])).ok

    assert (len(metering.values.series), metering.values.used) == before
