"""`/providers`: how each LLM is, and taking one out of service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from llmproxy_core import Tasks
from tests.exact import Seen
from tests.exact import ask as call
from tests.llmproxy_server.metrics.scraping import scrape
from tests.llmproxy_server.reloading import Reloadable
from tests.proxy import Proxy, openai_at
from tests.resilience.flocks import ask, fails, group, one, says
from tests.upstream import Upstream, Wait, chat_chunk, stream

NOWHERE = "http://127.0.0.1:9/v1"
EAGER = {"min_calls": 1, "open_s": 30.0}
"""A breaker that opens at the first failure."""


async def providers(url: str) -> dict[str, Any]:
    seen = await call("GET", f"{url}/providers")
    assert seen.status == 200, seen
    llms: dict[str, Any] = json.loads(seen.body)["llms"]
    return llms


async def drain(url: str, llm: object = "a", drained: object = True, **more: object) -> Seen:
    body = json.dumps({"llm": llm, "drained": drained, **more}).encode()
    return await call("POST", f"{url}/providers", body, [("content-type", "application/json")])


def why(seen: Seen) -> tuple[int, str, str]:
    error = json.loads(seen.body)["error"]
    return seen.status, error["code"], error["message"]


async def health(url: str) -> tuple[str, list[tuple[str, str]]]:
    """Its word, and part and code of its reasons; but for the event loop's, which is a busy machine's."""
    said = json.loads((await call("GET", f"{url}/health")).body)
    return said["status"], [(it["part"], it["code"]) for it in said["reasons"] if it["part"] != "event_loop"]


# -- what is said ----------------------------------------------------------------------------------------------------


async def test_an_llm_that_was_never_called_is_told_of_as_configured() -> None:
    mapping = openai_at(NOWHERE)
    mapping["llm"]["off"] = {"provider": "openai", "base_url": NOWHERE, "enabled": False}
    async with Proxy(mapping) as proxy:
        assert await providers(proxy.url) == {
            "openai": {"provider": "openai", "enabled": True, "state": "unknown"},
            "off": {"provider": "openai", "enabled": False, "state": "disabled"},
        }


async def test_a_call_in_flight_is_counted_and_its_latency_is_known_when_it_is_over() -> None:
    go_on = asyncio.Event()
    async with Upstream([Wait(go_on), *says("hello")]) as upstream, Proxy(one(upstream, max_in_flight=1)) as proxy:
        asking = Tasks().start(ask(proxy), name="asks")
        await upstream.received()

        during = (await providers(proxy.url))["a"]
        go_on.set()
        assert (await asyncio.wait_for(asking, 10)).status == 200
        after = (await providers(proxy.url))["a"]

    assert (during["state"], during["in_flight"], during["max_in_flight"]) == ("full", 1, 1)
    assert during["keys"] == [{"state": "ok", "rests_s": 0.0}]
    assert (after["state"], after["in_flight"]) == ("ok", 0)
    assert 0 < after["latency"]["last_s"] == after["latency"]["usual_s"] < 10


async def test_the_latency_of_a_stream_ends_with_its_first_bytes() -> None:
    go_on = asyncio.Event()
    head, first, *rest = stream(chat_chunk("a"), chat_chunk("b", finish="stop"))
    async with Upstream([head, first, Wait(go_on), *rest]) as upstream, Proxy(one(upstream)) as proxy:
        asking = Tasks().start(ask(proxy, stream=True), name="asks")
        await upstream.received()
        go_on.set()
        assert (await asyncio.wait_for(asking, 10)).status == 200
        outcome = await proxy.outcome()
        said = (await providers(proxy.url))["a"]

    attempt = proxy.exchanges[0].attempts[0]
    assert outcome.first_byte_s is not None
    assert said["latency"]["last_s"] == pytest.approx(outcome.first_byte_s - attempt.started_s, abs=1e-4)


async def test_the_usual_latency_follows_the_last_ones_slowly() -> None:
    async with Upstream(says("hello")) as upstream, Proxy(one(upstream)) as proxy:
        await ask(proxy)
        first = (await providers(proxy.url))["a"]["latency"]["usual_s"]
        await ask(proxy)
        second = (await providers(proxy.url))["a"]["latency"]

    assert second["usual_s"] == pytest.approx(first + 0.1 * (second["last_s"] - first), abs=2e-4)


async def test_an_open_breaker_is_told_of_by_all_who_tell() -> None:
    async with Upstream(fails(503)) as upstream, Proxy(one(upstream, tried=False, breaker=EAGER)) as proxy:
        before = await scrape(proxy)
        assert (await ask(proxy)).status == 503
        await proxy.outcome()

        said = (await providers(proxy.url))["a"]
        after = await scrape(proxy)
        assert (await health(proxy.url)) == (
            "degraded",
            [("llm.a", "breaker_open"), ("llm.a", "upstream_error")],
        )

    (key,) = said["keys"]
    assert (said["state"], key["state"], key["breaker"]["state"]) == ("open", "open", "open")
    assert (key["breaker"]["calls"], key["breaker"]["failure_rate"], key["breaker"]["opened"]) == (1, 1.0, 1)
    assert 20 < key["breaker"]["retry_in_s"] <= 33
    assert (before("llmproxy_breaker_state", llm="a", key=""), before("llmproxy_llm_availability", llm="a")) == (0, 1)
    assert (after("llmproxy_breaker_state", llm="a", key=""), after("llmproxy_llm_availability", llm="a")) == (1, 0)


async def test_keys_are_named_and_never_told() -> None:
    env = {"KEY_1": "sk-first-0123456789", "KEY_2": "sk-second-0123456789"}
    async with Upstream(says("hello")) as upstream:
        upstream.then(fails(429, ("retry-after", "20")))
        mapping = one(upstream, tried=False, token_env=["KEY_1", "KEY_2"], breaker={})
        async with Proxy(mapping, env=env) as proxy:
            assert (await ask(proxy)).status == 200
            seen = await call("GET", f"{proxy.url}/providers")

    said = json.loads(seen.body)["llms"]["a"]
    assert [(key["name"], key["state"]) for key in said["keys"]] == [("KEY_1", "resting"), ("KEY_2", "ok")]
    assert 10 < said["keys"][0]["rests_s"] <= 20
    assert said["state"] == "ok"
    assert b"sk-" not in seen.body


async def test_an_llm_rests_when_each_of_its_keys_does() -> None:
    async with (
        Upstream(fails(429, ("retry-after", "20"))) as upstream,
        Proxy(one(upstream, tried=False, max_in_flight=5)) as proxy,
    ):
        assert (await ask(proxy)).status == 429
        assert (await providers(proxy.url))["a"]["state"] == "resting"


async def test_a_group_is_as_well_as_its_best_member() -> None:
    async with Upstream(fails(500)) as a, Upstream(says("hello")) as b, Proxy(group("fallback", a, b)) as proxy:
        assert (await ask(proxy)).status == 200
        await proxy.outcome()

        said = await providers(proxy.url)

    assert {name: it["state"] for name, it in said.items()} == {"a": "failing", "b": "ok", "all": "ok"}
    assert said["all"]["members"] == ["a", "b"]
    assert "in_flight" not in said["all"]


# -- out of service, and back ----------------------------------------------------------------------------------------


async def test_a_drained_member_is_asked_no_more_until_it_is_restored() -> None:
    async with Upstream(says("from a")) as a, Upstream(says("from b")) as b, Proxy(group("fallback", a, b)) as proxy:
        done = await drain(proxy.url)
        assert b"from b" in (await ask(proxy)).body
        assert a.requests == []
        assert await health(proxy.url) == ("degraded", [("llm.a", "llm_drained")])
        assert (await providers(proxy.url))["a"]["state"] == "drained"
        out = await scrape(proxy)

        restored = await drain(proxy.url, drained=False)
        assert b"from a" in (await ask(proxy)).body
        assert await health(proxy.url) == ("ok", [])
        back = await scrape(proxy)

    assert (done.status, json.loads(done.body)) == (200, {"llm": "a", "drained": True, "in_flight": 0})
    assert (restored.status, json.loads(restored.body)["drained"]) == (200, False)
    assert (out("llmproxy_llm_drained", llm="a"), out("llmproxy_llm_availability", llm="a")) == (1, 0)
    assert (back("llmproxy_llm_drained", llm="a"), back("llmproxy_llm_availability", llm="a")) == (0, 1)


async def test_who_restores_an_llm_ends_what_its_provider_asked_for() -> None:
    async with (
        Upstream(says("hello")) as upstream,
        Proxy(one(upstream, tried=False, max_in_flight=5)) as proxy,
    ):
        upstream.then(fails(429, ("retry-after", "60000")))
        assert ((await ask(proxy)).status, (await ask(proxy)).status) == (429, 429)
        assert len(upstream.requests) == 1

        await drain(proxy.url, drained=False)

        assert (await ask(proxy)).status == 200


async def test_what_a_drained_llm_is_at_work_on_goes_on() -> None:
    go_on = asyncio.Event()
    async with Upstream([Wait(go_on), *says("hello")]) as upstream, Proxy(one(upstream, max_in_flight=9)) as proxy:
        asking = Tasks().start(ask(proxy), name="asks")
        await upstream.received()

        done = await drain(proxy.url)
        refused = await ask(proxy)
        go_on.set()

        assert (await asyncio.wait_for(asking, 10)).status == 200
        assert json.loads(done.body)["in_flight"] == 1
        assert why(refused)[:2] == (503, "llm_drained")


async def test_it_stays_out_of_service_over_reloads_that_keep_its_table(tmp_path: Path) -> None:
    mapping = one_at(NOWHERE, max_in_flight=5)
    async with Reloadable(tmp_path, mapping) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        await drain(url)

        assert (await proxy.reload({**mapping, "server": {"max_in_flight": 77}})).ok
        kept = (await providers(url))["a"]
        assert (await proxy.reload(one_at(NOWHERE, max_in_flight=6))).ok
        changed = (await providers(url))["a"]
        await drain(url, drained=False)

        assert (kept["state"], changed["state"], changed["max_in_flight"]) == ("drained", "drained", 6)
        assert (await providers(url))["a"]["drained"] is False


def one_at(base_url: str, **llm: Any) -> dict[str, Any]:
    mapping = openai_at(base_url, route={"target_llm": "a"}, **llm)
    mapping["llm"] = {"a": mapping["llm"].pop("openai")}
    return mapping


async def test_an_llm_that_is_not_there_is_answered_with_the_nearest_that_is() -> None:
    mapping = openai_at(NOWHERE)
    async with Proxy(mapping) as proxy:
        status, code, message = why(await drain(proxy.url, "opnai"))

    assert (status, code) == (404, "llm_not_found")
    assert 'did you mean "openai"?' in message


@pytest.mark.parametrize(
    ("llm", "says_what"),
    [("plain", "retries = {}"), ("all", "drain its members"), ("off", "enabled is false")],
)
async def test_what_cannot_be_drained_is_answered_with_what_would_help(llm: str, says_what: str) -> None:
    table = {"provider": "openai", "base_url": NOWHERE}
    mapping = {
        "llm": {
            "plain": table,
            "off": {**table, "enabled": False},
            "member": table,
            "all": {"provider": "fallback", "members": ["member"]},
        },
        "route": [{"path_prefix": "/v1", "target_llm": "plain"}],
    }
    async with Proxy(mapping) as proxy:
        status, code, message = why(await drain(proxy.url, llm))

    assert (status, code) == (409, "llm_not_guarded")
    assert says_what in message


@pytest.mark.parametrize(
    "body",
    [b"{", b"{}", b"[]", b'{"llm":"a"}', b'{"llm":"a","drained":1}', b'{"llm":"a","drained":true,"x":1}', b"\xff"],
)
async def test_what_cannot_be_read_changes_nothing(body: bytes) -> None:
    async with Proxy(one_at(NOWHERE, max_in_flight=5)) as proxy:
        seen = await call("POST", f"{proxy.url}/providers", body, [("content-type", "application/json")])

        assert why(seen)[:2] == (400, "bad_request")
        assert (await providers(proxy.url))["a"]["drained"] is False


async def test_only_a_caller_on_this_machine_may_drain() -> None:
    async with Proxy(one_at(NOWHERE, max_in_flight=5)) as proxy:
        headers = [("content-type", "application/json"), ("x-forwarded-for", "192.0.2.1")]
        seen = await call("POST", f"{proxy.url}/providers", b'{"llm":"a","drained":true}', headers)

        assert seen.status == 403
        assert (await providers(proxy.url))["a"]["drained"] is False


async def test_nothing_is_kept_of_gauges_of_llms_that_a_reload_took_away(tmp_path: Path) -> None:
    async with Reloadable(tmp_path, one_at(NOWHERE, breaker={})) as proxy:
        await drain(f"http://127.0.0.1:{proxy.port}")
        assert (await proxy.reload(openai_at(NOWHERE))).ok
        seen = await call("GET", f"http://127.0.0.1:{proxy.port}/api/metrics")

    assert b'llmproxy_llm_drained{llm="a"} 0.0' in seen.body
