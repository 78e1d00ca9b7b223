"""The texts that Prometheus reads, and who gets which."""

from __future__ import annotations

import asyncio
import sys

import pytest

from llmproxy_server.metrics.exposition import wants_text
from tests.exact import ask
from tests.llmproxy_server.metrics.scraping import MODEL, Scrape, chat, priced_at, scrape
from tests.needs import need_program
from tests.proxy import Proxy
from tests.upstream import Upstream, chat_chunk, completion, error, reply, stream, usage_chunk

OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


async def used(proxy: Proxy, upstream: Upstream) -> None:
    """Calls that make nearly every metric have a series."""
    streamed = stream(chat_chunk("a"), chat_chunk("b", finish="stop"), usage_chunk())
    upstream.then(reply(completion("Hi")), streamed, reply(error("Slow down"), status=429), reply(completion("Hi")))
    await chat(proxy)
    await chat(proxy, stream=True)
    await chat(proxy)
    await chat(proxy, model="made-up")


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (OPEN_METRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"),
        (
            "application/openmetrics-text; version=banana",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
    ],
)
async def test_who_asks_gets_the_form_that_they_can_read(accept: str | None, content_type: str) -> None:
    async with Upstream() as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        await used(proxy, upstream)
        headers = [] if accept is None else [("accept", accept)]
        seen = await ask("GET", f"{proxy.url}/api/metrics", headers=headers)
        plain = await scrape(proxy)

    assert seen.header("content-type") == content_type
    found = Scrape.of(seen.body.decode(), open_metrics="openmetrics" in content_type)
    same = {key for key in plain.samples if key[0].startswith("llmproxy_requests")}
    assert same
    assert {key: found.samples[key] for key in same} == {key: plain.samples[key] for key in same}


@pytest.mark.parametrize(
    ("accept", "text"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/json, text/plain, */*", False),
        ("text/plain", True),
        ("TEXT/PLAIN;version=0.0.4", True),
        (OPEN_METRICS, True),
    ],
)
def test_who_asks_for_text_gets_text_where_others_get_json(accept: str, text: bool) -> None:
    assert wants_text(accept) is text


async def test_every_family_says_what_it_means_and_every_histogram_adds_up() -> None:
    async with Upstream() as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        await used(proxy, upstream)
        seen = await scrape(proxy)

    helped = {line.split(" ", 3)[2] for line in seen.text.splitlines() if line.startswith("# HELP")}
    typed = {line.split(" ")[2]: line.split(" ")[3] for line in seen.text.splitlines() if line.startswith("# TYPE")}
    assert helped == set(typed)
    for name in (name for name, kind in typed.items() if kind == "histogram"):
        assert seen.total(f"{name}_bucket", le="+Inf") == seen.total(f"{name}_count")
    assert seen("llmproxy_requests_total", model=MODEL, status="200") == 2
    assert seen.has("llmproxy_build_info", version="0.1.0", python=sys.version.split()[0])
    assert seen("llmproxy_metric_series") > 30
    assert 0 < seen("llmproxy_metric_capacity_ratio") < 0.1
    assert "_serves" not in seen.text


@pytest.mark.parametrize("newest", [False, True])
async def test_promtool_has_nothing_to_say(newest: bool) -> None:
    promtool = need_program("promtool", package="prometheus")
    async with Upstream() as upstream:
        mapping = {**priced_at(upstream.base_url), "telemetry": {"newest_metric_names": newest}}
        async with Proxy(mapping) as proxy:
            await used(proxy, upstream)
            seen = await scrape(proxy)
    process = await asyncio.create_subprocess_exec(
        *(promtool, "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )

    said, _ = await asyncio.wait_for(process.communicate(seen.text.encode()), 60)

    assert (process.returncode, said.decode()) == (0, "")


async def test_a_head_request_has_no_body() -> None:
    async with Upstream() as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        seen = await ask("HEAD", f"{proxy.url}/api/metrics")

    assert (seen.status, seen.body) == (200, b"")
