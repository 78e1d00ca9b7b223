"""What calls through a real proxy make move."""

from __future__ import annotations

import asyncio
import json

import pytest

from llmproxy_core import End as EndOf
from tests.exact import ask, post
from tests.llmproxy_server.metrics.scraping import MODEL, QUESTION, chat, priced_at, scrape, scrape_until
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import connected
from tests.script import EVENT_STREAM
from tests.upstream import (
    Chunk,
    Cut,
    End,
    Head,
    Reached,
    Stall,
    Step,
    Upstream,
    Wait,
    chat_chunk,
    completion,
    error,
    reply,
    sse,
    stream,
    usage_chunk,
)

STREAMED = stream(chat_chunk("Hel"), chat_chunk("lo", finish="stop"), usage_chunk(prompt=9, completion=3))


async def test_a_plain_call_is_counted_with_its_time_tokens_and_cost() -> None:
    async with (
        Upstream(reply(completion("Hi", prompt=9, completion=3))) as upstream,
        Proxy(priced_at(upstream.base_url)) as proxy,
    ):
        assert (await chat(proxy)).status == 200
        seen = await scrape(proxy)

    assert seen("llmproxy_requests_total", model=MODEL, status="200") == 1
    assert seen("llmproxy_request_duration_seconds_count", model=MODEL) == 1
    assert 0 < seen("llmproxy_request_duration_seconds_sum", model=MODEL) < 20
    assert seen("llmproxy_request_duration_seconds_bucket", model=MODEL, le="+Inf") == 1
    assert seen("llmproxy_tokens_processed_total", model=MODEL, type="input") == 9
    assert seen("llmproxy_tokens_processed_total", model=MODEL, type="output") == 3
    assert seen("llmproxy_cost_usd_total", model=MODEL) == pytest.approx(0.009 + 0.006)
    assert seen("llmproxy_overhead_seconds_count") == 1
    assert seen("llmproxy_active_requests", model=MODEL) == 0
    assert seen("llmproxy_time_to_first_token_seconds_count", model=MODEL) == 0


async def test_tokens_are_told_apart_by_their_kind() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 7},
        "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 5},
    }
    body = {**completion("Hi"), "usage": usage}
    async with Upstream(reply(body)) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        await chat(proxy)
        seen = await scrape(proxy)

    found = {
        it: seen("llmproxy_tokens_processed_total", model=MODEL, type=it)
        for it in seen.values("llmproxy_tokens_processed_total", "type")
    }
    assert found == {
        "input": 100,
        "output": 50,
        "cached_input": 40,
        "reasoning": 30,
        "audio_input": 7,
        "audio_output": 5,
    }


async def test_a_stream_is_counted_with_its_first_and_its_other_tokens() -> None:
    async with Upstream(STREAMED) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        assert (await chat(proxy, stream=True)).whole
        seen = await scrape_until(proxy, "llmproxy_requests_total", 1, model=MODEL, status="200")

    assert seen("llmproxy_time_to_first_token_seconds_count", model=MODEL) == 1
    assert seen("llmproxy_time_per_output_token_seconds_count", model=MODEL) == 1
    assert seen("llmproxy_tokens_processed_total", model=MODEL, type="output") == 3
    assert seen("llmproxy_active_streams") == 0


async def test_calls_and_streams_are_seen_while_they_last() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    held: list[Step] = [
        Head(200, EVENT_STREAM),
        Chunk(sse(chat_chunk("a"), done=False)),
        Reached(begun),
        Wait(go_on),
        Chunk(sse(chat_chunk("b"))),
        End(),
    ]
    async with Upstream(held) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            calling = group.create_task(chat(proxy, stream=True))
            await begun.wait()
            during = await scrape(proxy)
            go_on.set()
        assert calling.result().whole
        await proxy.outcome()
        after = await scrape(proxy)

    assert during("llmproxy_active_requests", model=MODEL) == 1
    assert during("llmproxy_active_streams") == 1
    assert during("llmproxy_in_flight_requests") == 1
    assert during("llmproxy_open_connections") == 2  # the call's, and the scrape's
    assert during("llmproxy_buffered_request_bytes") == len(json.dumps({**QUESTION, "stream": True}))
    assert during("llmproxy_requests_total", model=MODEL, status="200") == 0
    for name in ("llmproxy_active_streams", "llmproxy_in_flight_requests", "llmproxy_buffered_request_bytes"):
        assert after(name) == 0
    assert after("llmproxy_active_requests", model=MODEL) == 0


# -- the status is what was sent -------------------------------------------------------------------------------------


async def test_an_upstreams_error_is_counted_by_its_status_and_kind() -> None:
    async with (
        Upstream(reply(error("Slow down", code="whatever_they_like"), status=429)) as upstream,
        Proxy(priced_at(upstream.base_url)) as proxy,
    ):
        assert (await chat(proxy)).status == 429
        seen = await scrape(proxy)

    assert seen("llmproxy_requests_total", model=MODEL, status="429") == 1
    assert seen("llmproxy_upstream_errors_total", llm="openai", code="status_429") == 1
    assert seen("llmproxy_upstream_duration_seconds_count", llm="openai") == 1
    assert "whatever_they_like" not in seen.text


async def test_a_stream_that_fails_after_its_head_is_counted_by_its_errors_status() -> None:
    cut: list[Step] = [Head(200, EVENT_STREAM), Chunk(sse(chat_chunk("a"), done=False)), Cut()]
    async with Upstream(cut) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        seen = await chat(proxy, stream=True)
        assert (seen.status, seen.whole) == (200, False)
        await proxy.outcome()
        counted = await scrape(proxy)

    assert counted("llmproxy_requests_total", model=MODEL, status="502") == 1
    assert counted("llmproxy_requests_total", model=MODEL, status="200") == 0
    assert counted("llmproxy_upstream_errors_total", llm="openai", code="upstream_cut") == 1


async def test_a_client_that_leaves_is_counted_as_499() -> None:
    begun = asyncio.Event()
    endless: list[Step] = [
        Head(200, EVENT_STREAM),
        Chunk(sse(chat_chunk("a"), done=False)),
        Reached(begun),
        Wait(asyncio.Event()),
    ]
    async with Upstream(endless) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        body = json.dumps({**QUESTION, "stream": True}).encode()
        async with connected(proxy.port) as client:
            client.send(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            await client.until(b"\r\n\r\n")
        assert (await proxy.outcome()).end is EndOf.ABANDONED
        seen = await scrape(proxy)

    assert seen("llmproxy_requests_total", model=MODEL, status="499") == 1
    assert seen("llmproxy_active_requests", model=MODEL) == 0
    assert seen("llmproxy_tokens_processed_total", model=MODEL, type="input") > 0  # estimated, and billed


async def test_a_request_that_never_was_a_call_is_counted_as_other() -> None:
    async with Upstream() as upstream, Proxy(with_server(priced_at(upstream.base_url), max_body_bytes=64)) as proxy:
        assert (await chat(proxy, user="x" * 100)).status == 413
        assert (await ask("GET", f"{proxy.url}/nowhere")).status == 404
        seen = await scrape(proxy)

    assert seen("llmproxy_requests_total", model="other", status="413") == 1
    assert seen("llmproxy_requests_total", model="other", status="404") == 1


async def test_our_own_endpoints_are_not_counted() -> None:
    async with Upstream() as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        for path in ("/health", "/api/metrics", "/metrics"):
            assert (await ask("GET", f"{proxy.url}{path}")).status == 200
        seen = await scrape(proxy)

    assert seen.total("llmproxy_requests_total") == 0


async def test_a_request_that_cannot_be_read_is_counted_where_it_was_refused() -> None:
    async with Upstream() as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        assert (await post(f"{proxy.base_url}/embeddings", b'{"model":')).status == 400
        seen = await scrape(proxy)

    assert seen("llmproxy_requests_total", model="other", status="400") == 1
    assert seen.total("llmproxy_active_requests") == 0


# -- whether a model can be had --------------------------------------------------------------------------------------


async def test_a_model_is_unavailable_from_its_llms_failure_to_its_next_answer() -> None:
    async with Upstream(reply(error("Broken"), status=500)) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        upstream.then(reply(error("Broken"), status=500), reply(error("What?"), status=400), reply(completion("Hi")))
        found = [(await scrape(proxy))("llmproxy_model_availability", model=MODEL)]
        for _ in range(3):
            await chat(proxy)
            found.append((await scrape(proxy))("llmproxy_model_availability", model=MODEL))

    # Never tried; failed; refused by the caller's fault, so it is there; answered.
    assert found == [1, 0, 1, 1]


async def test_a_model_is_available_while_one_of_its_llms_is() -> None:
    async with Upstream(reply(error("Broken"), status=500)) as broken, Upstream(reply(completion("Hi"))) as well:
        mapping = openai_at(broken.base_url, models=[MODEL, "only-here"])
        mapping["llm"]["well"] = {"provider": "openai", "base_url": well.base_url, "models": {MODEL: "sent-name"}}
        mapping["llm"]["group"] = {"provider": "by_model", "members": ["openai"], "models": {"grouped": "only-here"}}
        async with Proxy(mapping) as proxy:
            await chat(proxy)
            seen = await scrape(proxy)

    available = {
        it: seen("llmproxy_model_availability", model=it) for it in seen.values("llmproxy_model_availability", "model")
    }
    assert available == {MODEL: 1, "only-here": 0, "grouped": 0}


# -- our own part of it ----------------------------------------------------------------------------------------------


async def test_the_time_that_an_upstream_takes_is_not_ours() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()
    async with (
        Upstream([Reached(asked), Wait(answer), *reply(completion("Hi"))]) as upstream,
        Proxy(priced_at(upstream.base_url)) as proxy,
    ):
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(chat(proxy))
            await asked.wait()
            asyncio.get_running_loop().call_later(0.5, answer.set)
        seen = await scrape(proxy)

    whole_s = seen("llmproxy_request_duration_seconds_sum", model=MODEL)
    assert whole_s >= 0.5
    assert seen("llmproxy_overhead_seconds_sum") <= whole_s - 0.49


async def test_an_attempt_that_was_given_up_unanswered_is_neither_a_success_nor_a_failure() -> None:
    async with Upstream([Stall()]) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        async with connected(proxy.port) as client:
            body = json.dumps(QUESTION).encode()
            client.send(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            await upstream.received()
        seen = await scrape_until(proxy, "llmproxy_upstream_abandoned_total", 1, llm="openai")
        alone = json.loads((await ask("GET", f"{proxy.url}/metrics")).body)
        upstream.then(reply(completion("Hi")), reply(error("Broken"), status=500))
        await chat(proxy)
        await chat(proxy)
        others = json.loads((await ask("GET", f"{proxy.url}/metrics")).body)

    assert seen("llmproxy_upstream_duration_seconds_count", llm="openai") == 1
    assert alone["llms"]["openai"]["total_requests"] == 1
    assert alone["llms"]["openai"]["success_rate"] is None
    assert others["providers"]["openai"]["total_requests"] == 3
    assert others["providers"]["openai"]["success_rate"] == 0.5


async def test_a_group_is_no_llm_of_the_summary() -> None:
    async with Upstream(reply(completion("Hi"))) as upstream:
        configured = priced_at(upstream.base_url)
        configured["llm"]["both"] = {"provider": "by_model", "members": ["openai"]}
        configured["route"][0]["target_llm"] = "both"
        async with Proxy(configured) as proxy:
            await chat(proxy)
            said = json.loads((await ask("GET", f"{proxy.url}/metrics")).body)

    assert list(said["llms"]) == list(said["providers"]) == ["openai"]
    assert said["llms"]["openai"]["total_requests"] == 1


async def test_a_summary_tells_how_each_llm_and_provider_does() -> None:
    async with Upstream(reply(completion("Hi"))) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        upstream.then(
            reply(completion("Hi")), reply(error("Slow down"), status=429), reply(error("Broken"), status=500)
        )
        for _ in range(4):
            await chat(proxy)
        seen = await ask("GET", f"{proxy.url}/metrics", headers=[("accept", "*/*")])
        text = await ask("GET", f"{proxy.url}/metrics", headers=[("accept", "text/plain;version=0.0.4")])

    said = json.loads(seen.body)
    of_llm = said["llms"]["openai"]
    assert of_llm.pop("provider") == "openai"
    assert said["providers"] == {"openai": of_llm}
    assert of_llm.pop("avg_response_time") > 0
    assert of_llm == {"total_requests": 4, "success_rate": 0.5, "error_counts": {"status_429": 1, "status_500": 1}}
    assert said["units"] == {"avg_response_time": "seconds"}
    assert text.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert b"llmproxy_requests_total" in text.body
