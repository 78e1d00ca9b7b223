"""docs/metrics.md tells of every metric there is, and of no other; so does every page that names one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import llmproxy_cache
import llmproxy_cost_limit

from llmproxy_server.metrics.process import watch_spans
from tests.exact import post
from tests.llmproxy_server.metrics.scraping import MODEL, chat, priced_at, scrape_until
from tests.proxy import Proxy
from tests.upstream import Upstream, chat_chunk, completion, error, reply, stream, usage_chunk

DOCS = Path(__file__).parents[3] / "docs"
METRIC = re.compile(
    r"\b(?:llmproxy|gen_ai_client)_[a-z0-9_]+?(?:_total|_bytes|_ratio|_seconds)(?:_bucket|_count|_sum)?\b"
    r"|\b(?:llmproxy|gen_ai_client)_[a-z0-9_]+(?=\{)"
)
"""What is written as only metrics are: with a unit at its end, or with labels."""
PAGE = re.compile(r"`((?:llmproxy|gen_ai_client|process)_[a-z0-9_]*[a-z0-9])`")
SUFFIX = re.compile(r"_(bucket|count|sum)$")


async def exported(mapping: dict[str, Any]) -> set[str]:
    """The names of all metrics, once everything has happened that makes one."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    streamed = stream(chat_chunk("a"), chat_chunk("b", finish="stop"), usage_chunk())
    mapping["processor"] = {"cache": {"type": "cache"}, "limit": {"type": "cost_limit", "total_usd": "1000"}}
    mapping["route"][0]["processors"] = ["limit", "cache"]
    async with (
        Upstream(streamed) as upstream,
        Proxy({**mapping, **_target(mapping, upstream)}, plugins=[llmproxy_cache, llmproxy_cost_limit]) as proxy,
    ):
        watch_spans(proxy.server.metering.sampler, lambda: 0.0)
        embedded = reply({"object": "list", "data": [], "usage": {"prompt_tokens": 4, "total_tokens": 4}})
        upstream.then(streamed, reply({**completion("Hi"), "usage": usage}), reply(error("Busy"), status=503), embedded)
        for number in range(3):
            await chat(proxy, stream=number == 0, user=str(number))
        await post(f"{proxy.base_url}/embeddings", json.dumps({"model": MODEL, "input": "x"}).encode())
        seen = await scrape_until(proxy, "llmproxy_upstream_errors_total", 1, llm="openai", code="status_503")
    return {line.split(" ")[2] for line in seen.text.splitlines() if line.startswith("# TYPE")}


def _target(mapping: dict[str, Any], upstream: Upstream) -> dict[str, Any]:
    return {"llm": {"openai": {**mapping["llm"]["openai"], "base_url": upstream.base_url}}}


async def test_every_metric_is_documented_and_no_other() -> None:
    released = await exported(priced_at("http://127.0.0.1:9/v1", breaker={}))
    newest = await exported(
        {**priced_at("http://127.0.0.1:9/v1", breaker={}), "telemetry": {"newest_metric_names": True}}
    )
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")

    documented = set(PAGE.findall(text))
    # A provider that writes to its cache would make it; OpenAI's protocol does not tell.
    unseen = {"gen_ai_client_inference_usage_cache_write_input_tokens_total"}

    assert documented - unseen == released | newest


def test_what_pages_say_of_metrics_is_said_of_metrics_that_there_are() -> None:
    there = set(PAGE.findall((DOCS / "metrics.md").read_text(encoding="utf-8")))

    named = {(path.name, it) for path in DOCS.glob("*.md") for it in METRIC.findall(path.read_text(encoding="utf-8"))}

    assert len(named) > 30
    assert [it for it in sorted(named) if it[1] not in there and SUFFIX.sub("", it[1]) not in there] == []
