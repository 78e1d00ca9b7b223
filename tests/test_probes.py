"""Probes of a running proxy: they answer whatever is stuck behind it, and name what that is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from llmproxy_core import Exchange, Handler, Response, Services, StoreType, hookimpl
from llmproxy_server.lag import PERIOD_S
from llmproxy_server.log_events import warm_up
from tests.llmproxy_server.edging import (
    HELLO,
    STREAM,
    Answer,
    NoConfig,
    Processing,
    ask,
    many,
    post,
    processed,
    request,
)
from tests.llmproxy_server.reloading import Reloadable
from tests.proxy import Proxy, openai_at
from tests.rawclient import Client, connected
from tests.upstream import Chunk, Head, Stall, Step, Upstream, chat_chunk, completion, error, reply, sse

AT_MOST_S = 20.0
TRIES = 5
"""A machine that stands still in the wrong moment is what the loop was blocked by last."""
HEALTH = request("GET", "/health")
NOBODY = "http://127.0.0.1:9/v1"
"""Where nothing listens: the discard port needs privileges."""


class Stuck:
    """A plugin with a store that answers nobody."""

    def __init__(self) -> None:
        self.asked = 0

    @hookimpl
    def llmproxy_stores(self) -> Iterable[StoreType[Any]]:
        def build(config: NoConfig, services: Services) -> Any:
            return self

        return [StoreType(name="stuck", config=NoConfig, build=build)]

    def key_value(self, space: str, *, max_bytes: int) -> Any:
        return self

    async def get(self, key: str) -> bytes | None:
        self.asked += 1
        await asyncio.Event().wait()
        return None

    async def aclose(self) -> None:
        """Nothing is open."""


async def health(client: Client) -> dict[str, Any]:
    async with asyncio.timeout(AT_MOST_S):
        answer = await ask(client, HEALTH)
    assert answer.status == 200
    said: dict[str, Any] = answer.json
    return said


async def calm(client: Client) -> dict[str, Any]:
    """What there would be on a machine that never stands still."""
    said = await health(client)
    said["reasons"] = [it for it in said["reasons"] if it["part"] != "event_loop"]
    if said["status"] == "degraded" and not said["reasons"]:
        said["status"] = "ok"
    return said


async def test_it_is_ok_when_all_is() -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy({**openai_at(upstream.base_url), "store": {"s": {"type": "memory"}}}) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post())

        said = await calm(client)

    assert (said["status"], said["reasons"]) == ("ok", [])
    assert said["llms"]["openai"]["state"] == "ok"
    assert said["stores"]["s"] == {"type": "memory", "state": "ok"}


async def test_it_answers_while_an_upstream_and_a_store_are_stuck() -> None:
    """One call waits for its head, another for the rest of its stream; the store has never answered."""
    half: list[Step] = [Head(), Chunk(sse(chat_chunk("one"), done=False)), Stall()]
    stuck = Stuck()
    async with Upstream([Stall()]) as upstream:
        upstream.then(half)
        mapping = {**openai_at(upstream.base_url), "store": {"s": {"type": "stuck"}}}
        async with Proxy(mapping, plugins=[stuck]) as proxy, many(proxy.port, 3) as (waiting, streaming, probe):
            streaming.send(post(STREAM))
            await streaming.until(b"one")
            waiting.send(post(HELLO))
            await upstream.received(2)

            said = await calm(probe)
            live, ready = [(await ask(probe, request("GET", path))).status for path in ("/livez", "/readyz")]

    assert said["status"] == "degraded"
    assert [(it["part"], it["code"]) for it in said["reasons"]] == [("store.s", "store_timeout")]
    assert said["in_flight"] == 2
    assert (live, ready) == (200, 200)


async def test_a_crowd_that_asks_is_a_question_a_second_to_the_store() -> None:
    stuck = Stuck()
    mapping = {**openai_at(NOBODY), "store": {"s": {"type": "stuck"}}}
    async with Proxy(mapping, plugins=[stuck]) as proxy, many(proxy.port, 30) as clients:
        said = await asyncio.gather(*(calm(client) for client in clients))

    assert {it["status"] for it in said} == {"degraded"}
    assert stuck.asked <= 5  # one, on a machine that has time for us


async def test_what_the_upstream_says_is_not_told() -> None:
    async with (
        Upstream(reply(error("the key sk-secret-1 is unknown", kind="sk-secret-2"), 500)) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post())

        answer = await ask(client, HEALTH)

    said = {it["part"]: it["message"] for it in answer.json["reasons"]}
    assert said["llm.openai"] == "its last call failed (status 500)"
    assert b"sk-secret" not in answer.body


async def test_a_reload_that_failed_is_a_reason_until_one_is_well(tmp_path: Path) -> None:
    good = openai_at(NOBODY)
    async with Reloadable(tmp_path, good) as proxy, connected(proxy.port) as client:
        before = await calm(client)
        proxy.write_text("this is no TOML")
        await proxy.reload()
        failed = await calm(client)
        await proxy.reload(good)
        after = await calm(client)

    assert (before["status"], failed["status"], after["status"]) == ("ok", "degraded", "ok")
    assert [it["part"] for it in failed["reasons"]] == ["reload"]
    assert "TOML" not in failed["reasons"][0]["message"]


async def test_a_reload_keeps_what_is_known_of_an_llm_that_stays(tmp_path: Path) -> None:
    before = openai_at(NOBODY)
    after = {**before, "llm": {**before["llm"], "other": before["llm"]["openai"]}}
    async with Reloadable(tmp_path, before) as proxy, connected(proxy.port) as client:
        await ask(client, post())
        done = await proxy.reload(after)
        said = await calm(client)

    assert done.ok
    assert {name: it["state"] for name, it in said["llms"].items()} == {"openai": "failing", "other": "unknown"}


async def test_who_blocked_the_loop_is_named_in_health() -> None:
    async def around(exchange: Exchange, call_next: Handler) -> Response:
        until = time.monotonic() + AT_MOST_S
        while not seen() and time.monotonic() < until:
            time.sleep(0.01)  # noqa: ASYNC251, TID251 - what plugins do that block
        return await call_next(exchange)

    def seen() -> bool:
        finding = lag.watchdog.finding
        return finding is not None and "around" in finding.culprit.who

    warm_up()  # an import that the watchdog would wait for
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(around)]) as proxy,
        connected(proxy.port) as client,
    ):
        lag = proxy.server._lag
        lag.stop()
        lag.start()
        messages = list[str]()
        while not any("by processor" in it for it in messages) and len(messages) < TRIES:
            lag.watchdog.finding = None
            await ask(client, post())
            await asyncio.sleep(2 * PERIOD_S)  # the loop's next timer is what measures it
            said = await health(client)
            messages += [it["message"] for it in said["reasons"] if it["code"] == "event_loop_blocked"]

    assert "by processor 'around' (plugin tests.llmproxy_server.edging.Processing)" in messages[-1]


@pytest.fixture
async def scraped() -> Answer:
    async with Proxy(openai_at(NOBODY)) as proxy, connected(proxy.port) as client:
        return await ask(client, request("GET", "/api/metrics"))


async def test_the_lag_and_the_bounds_are_metrics(scraped: Answer) -> None:
    text = scraped.body.decode()

    assert "\nllmproxy_event_loop_lag_seconds_bucket{" in text
    assert "\nllmproxy_event_loop_lag_worst_seconds " in text
    assert "\nllmproxy_event_loop_blocks_total " in text
    assert '\nllmproxy_bound_size{what="connections"} 1.0\n' in text
    assert '\nllmproxy_bound_cap{what="connections"} +Inf\n' in text
    assert '\nllmproxy_bound_cap{what="in_flight"} 1000.0\n' in text
