"""`GET /api/requests` of a proxy with real upstreams."""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import llmproxy_anthropic
import llmproxy_cache
import pytest

from llmproxy_core.outcome import End
from llmproxy_server.access_log import LOGGER
from tests.llmproxy_server.edging import HELLO, Answer, ask, post, request
from tests.llmproxy_server.metrics.scraping import scrape
from tests.llmproxy_server.reloading import Reloadable
from tests.llmproxy_server.test_reload_admin import RELOAD
from tests.proxy import SECRET, Proxy, openai_at, with_server
from tests.rawclient import connected
from tests.resilience.flocks import fails, group, says
from tests.script import Stall
from tests.upstream import Upstream, completion, reply

LIST = "/api/requests"
CHAT = "/v1/chat/completions"


async def got(port: int, data: bytes, *, method: str = "POST") -> Answer:
    async with connected(port) as client:
        return await ask(client, data, method=method)


async def called(proxy: Proxy, id: str, **members: Any) -> Answer:
    """A call of that id, which is over."""
    answer = await got(proxy.port, post({**HELLO, **members}, CHAT, f"X-Request-Id: {id}"))
    await proxy.outcome(len(proxy.exchanges))
    return answer


async def explained(proxy: Proxy, id: str) -> Any:
    answer = await got(proxy.port, request("GET", f"{LIST}/{id}"))
    assert (answer.status, answer["content-type"], answer["cache-control"]) == (200, "application/json", "no-store")
    return answer.json


async def test_a_call_that_fell_over_is_told_with_each_attempt_and_why_the_next() -> None:
    async with Upstream(fails(503)) as a, Upstream(says("hello")) as b, Proxy(group("fallback", a, b)) as proxy:
        before = datetime.now(UTC)
        assert (await called(proxy, "r-1")).status == 200

        told = await explained(proxy, "r-1")

    first, second = told.pop("attempts")
    assert (first["llm"], first["status"], first["next"]) == ("a", 503, "upstream: the next member")
    assert (second["llm"], second["status"], second["error"]) == ("b", 200, None)
    assert min(first["ms"], second["ms"]) >= 0
    assert told["duration_ms"] >= first["ms"]
    started, ended = (datetime.fromisoformat(told[name]) for name in ("started_at", "ended_at"))
    assert abs((started - before).total_seconds()) < 2  # the machine may be busy
    assert 0 <= (ended - started).total_seconds() <= told["duration_ms"] / 1000 + 0.002  # both are cut to a millisecond
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["started_at"])
    assert {name: told[name] for name in ("request_id", "route", "operation", "status", "end", "model")} == {
        "request_id": "r-1",
        "route": "/v1",
        "operation": "chat",
        "status": 200,
        "end": "completed",
        "model": "gpt-4o-mini",
    }
    assert (told["input_tokens"], told["output_tokens"], told["usage_source"]) == (9, 3, "reported")


async def test_a_call_that_failed_is_told_with_its_code_and_no_message() -> None:
    async with Upstream(fails(400, message="You said: Hello")) as a, Proxy(openai_at(a.base_url)) as proxy:
        assert (await called(proxy, "r-1")).status == 400

        answer = await got(proxy.port, request("GET", f"{LIST}/r-1"))

    assert (answer.json["status"], answer.json["end"]) == (400, End.FAILED)
    assert answer.json["error"] == answer.json["attempts"][0]["error"]
    assert b"Hello" not in answer.body


async def test_a_call_whose_client_left_is_told_with_the_cost_of_the_call_that_the_cache_shares() -> None:
    over = asyncio.Event()
    mapping = openai_at("", prices={"*": {"input": "1.00", "output": "2.00"}}, route={"processors": ["cache"]})
    mapping["processor"] = {"cache": {"type": "cache"}}
    async with Upstream([Stall()]) as upstream:
        mapping["llm"]["openai"]["base_url"] = upstream.base_url
        async with Proxy(mapping, plugins=[llmproxy_cache]) as proxy:
            async with connected(proxy.port) as client:
                client.send(post(HELLO, CHAT, "X-Request-Id: r-1"))
                await upstream.received()
                proxy.exchanges[0].on_billed(lambda _: over.set())
            await asyncio.wait_for(over.wait(), 10)
            told = await explained(proxy, "r-1")
            scraped = await scrape(proxy)

    (attempt,) = told["attempts"]
    assert (told["status"], told["end"], told["usage_source"]) == (499, "abandoned", "estimated")
    assert told["cost"] == f"${told['input_tokens'] / 1e6:.9f}".rstrip("0")
    assert attempt["ms"] is not None
    assert scraped.total("llmproxy_tokens_processed_total") == told["input_tokens"] > 0


async def test_an_llm_that_was_passed_over_is_told_with_the_reason() -> None:
    async with Upstream() as a, Upstream(says("hello")) as b:
        mapping = group("fallback", a, b)
        mapping["llm"]["a"] |= {"provider": "anthropic"}
        async with Proxy(mapping, plugins=[llmproxy_anthropic]) as proxy:
            await called(proxy, "r-1", logit_bias={"1": 2})

            told = await explained(proxy, "r-1")

    (passed,) = told["passed_over"]
    assert (passed["llm"], passed["error"], passed["status"]) == ("a", "unsupported", None)


async def test_nothing_of_what_was_said_nor_who_called_is_told() -> None:
    async with Upstream(says("A bird.")) as upstream, Proxy(openai_at(upstream.base_url, token_env="KEY")) as proxy:
        await got(proxy.port, post({**HELLO, "user": "somebody"}, CHAT, "X-Request-Id: r-1", "X-Secret: hidden"))
        await proxy.outcome()

        answer = await got(proxy.port, request("GET", f"{LIST}/r-1"))

    for text in (b"Hello", b"bird", b"somebody", b"hidden", b"127.0.0.1", SECRET.encode()):
        assert text not in answer.body


async def test_a_secret_that_an_upstream_echoes_is_cut_out() -> None:
    echo = reply(completion("Hello"), headers={"x-request-id": f"for {SECRET}"})
    async with Upstream(echo) as upstream, Proxy(openai_at(upstream.base_url, token_env="KEY")) as proxy:
        await called(proxy, "r-1")

        assert (await explained(proxy, "r-1"))["upstream_request_id"] == "for ***"


async def test_the_list_has_the_newest_fifty_first() -> None:
    async with Upstream(says("hello")) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        for number in range(53):
            await called(proxy, f"r-{number}")

        listed = (await got(proxy.port, request("GET", LIST))).json

        assert [it["request_id"] for it in listed["requests"]] == [f"r-{number}" for number in range(52, 2, -1)]
        assert listed["requests"][0] == await explained(proxy, "r-52")


async def test_a_call_that_is_not_kept_is_not_found() -> None:
    async with (
        Upstream(says("hello")) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), recent_requests=1)) as proxy,
    ):
        await called(proxy, "r-1")
        await called(proxy, "r-2")

        gone = await got(proxy.port, request("GET", f"{LIST}/r-1"))

        assert (gone.status, gone.code) == (404, "request_not_found")
        assert (await got(proxy.port, request("GET", f"{LIST}/never"))).status == 404
        assert (await explained(proxy, "r-2"))["request_id"] == "r-2"


async def test_our_own_endpoints_and_refused_requests_are_no_calls() -> None:
    async with Upstream(says("hello")) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        await got(proxy.port, request("GET", "/health"))
        await got(proxy.port, post(HELLO, "/nowhere"))

        assert (await got(proxy.port, request("GET", LIST))).json == {"requests": []}


async def test_calls_are_kept_where_the_log_has_no_lines_of_them() -> None:
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.ERROR)
    try:
        async with Upstream(says("hello")) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
            await called(proxy, "r-1")

            assert (await explained(proxy, "r-1"))["attempts"][0]["llm"] == "openai"
    finally:
        logger.setLevel(logging.NOTSET)


async def test_without_a_window_there_is_no_endpoint() -> None:
    async with (
        Upstream(says("hello")) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), recent_requests=0)) as proxy,
    ):
        await called(proxy, "r-1")

        assert (await got(proxy.port, request("GET", LIST))).code == "route_not_found"
        assert (await got(proxy.port, request("GET", f"{LIST}/r-1"))).code == "route_not_found"


@pytest.mark.parametrize("path", [LIST, f"{LIST}/r-1"])
async def test_only_this_machine_may_look_at_calls(path: str) -> None:
    async with (
        Upstream(says("hello")) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), cors_allowed_origins=["*"])) as proxy,
    ):
        await called(proxy, "r-1")

        forwarded = await got(proxy.port, request("GET", path, "X-Forwarded-For: 127.0.0.1"))
        page = await got(proxy.port, request("GET", path, "Origin: https://page.example"))

        assert (forwarded.status, forwarded.code) == (403, "local_only")
        assert (page.status, page.code) == (403, "origin_not_allowed")
        assert (await got(proxy.port, request("GET", path))).status == 200


async def test_what_is_kept_outlives_a_reload_that_leaves_its_size_alone(tmp_path: Path) -> None:
    async with Upstream(says("hello")) as upstream:
        mapping = openai_at(upstream.base_url)
        async with Reloadable(tmp_path, mapping) as proxy:

            async def listed() -> list[str]:
                return [it["request_id"] for it in (await got(proxy.port, request("GET", LIST))).json["requests"]]

            await got(proxy.port, post(HELLO, CHAT, "X-Request-Id: r-1"))
            proxy.write(with_server(mapping, max_in_flight=7))
            assert (await got(proxy.port, RELOAD)).status == 200
            await got(proxy.port, post(HELLO, CHAT, "X-Request-Id: r-2"))

            assert await listed() == ["r-2", "r-1"]

            proxy.write(with_server(mapping, recent_requests=10))
            assert (await got(proxy.port, RELOAD)).status == 200

            assert await listed() == []
