"""The GenAI metrics, under the released names and the newest."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from llmproxy_core.errors import UpstreamError
from llmproxy_server.metrics.genai_families import SECONDS, TOKENS
from tests.exact import post
from tests.llmproxy_server.metrics.counting import Counting
from tests.llmproxy_server.metrics.scraping import MODEL, chat, priced_at, scrape, scrape_until
from tests.proxy import Proxy, openai_at
from tests.upstream import Upstream, chat_chunk, completion, reply, stream, usage_chunk

URL = "https://llm.example/v1"
LABELS = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": MODEL,
    "gen_ai_response_model": MODEL,
    "server_address": "llm.example",
    "server_port": "443",
}


def test_the_buckets_are_those_of_the_conventions() -> None:
    assert (SECONDS[0], SECONDS[-1]) == (0.01, 81.92)
    assert all(round(high / low, 6) == 2 for low, high in itertools.pairwise(SECONDS))
    assert (TOKENS[:3], TOKENS[-1]) == ((1, 4, 16), 67108864)


def test_an_attempt_is_counted_under_the_released_names() -> None:
    counting = Counting(priced_at(URL))

    counting.one(MODEL, seconds=5.1, stream=True, first_byte_s=0.2)

    assert counting.cells("gen_ai_client_operation_duration_seconds", **LABELS)[-1] == pytest.approx(5.1)
    assert counting.cells("gen_ai_client_operation_time_to_first_chunk_seconds", **LABELS)[-1] == pytest.approx(0.2)
    assert counting.cells("gen_ai_client_operation_time_per_output_chunk_seconds", **LABELS)[-1] == pytest.approx(0.1)
    tokens = {
        kind: counting.cells("gen_ai_client_token_usage", gen_ai_token_type=kind, **LABELS)[-1]
        for kind in ("input", "output")
    }
    assert tokens == {"input": 100, "output": 50}
    assert "gen_ai_client_inference_duration_seconds" not in counting.metering.snapshot().totals


def test_the_newest_names_are_a_matter_of_configuration() -> None:
    counting = Counting({**priced_at(URL), "telemetry": {"newest_metric_names": True}})

    counting.one(MODEL, seconds=5.1, stream=True, first_byte_s=0.2)

    sums = {
        name: counting.cells(f"gen_ai_client_inference_{name}", **LABELS)[-1]
        for name in (
            "duration_seconds",
            "time_to_first_chunk_seconds",
            "time_per_output_chunk_seconds",
            "operation_input_tokens",
            "operation_output_tokens",
            "usage_input_tokens_total",
            "usage_output_tokens_total",
        )
    }
    assert sums == {
        "duration_seconds": pytest.approx(5.1),
        "time_to_first_chunk_seconds": pytest.approx(0.2),
        "time_per_output_chunk_seconds": pytest.approx(0.1),
        "operation_input_tokens": 100,
        "operation_output_tokens": 50,
        "usage_input_tokens_total": 100,
        "usage_output_tokens_total": 50,
    }
    assert not {"gen_ai_client_operation_duration_seconds", "gen_ai_client_token_usage"} & set(
        counting.metering.snapshot().totals
    )


@pytest.mark.parametrize(
    ("newest", "families"),
    [
        (True, {"gen_ai_client_embeddings_duration_seconds", "gen_ai_client_embeddings_operation_input_tokens"}),
        (False, {"gen_ai_client_operation_duration_seconds", "gen_ai_client_token_usage"}),
    ],
)
async def test_embeddings_are_counted_apart_from_inference_and_have_no_output(newest: bool, families: set[str]) -> None:
    embedding = {"object": "list", "data": [], "model": MODEL, "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    async with Upstream(reply(embedding)) as upstream:
        configured = {**priced_at(upstream.base_url), "telemetry": {"newest_metric_names": newest}}
        async with Proxy(configured) as proxy:
            await post(f"{proxy.base_url}/embeddings", json.dumps({"model": MODEL, "input": "x"}).encode())
            seen = await scrape(proxy)

    duration, tokens = sorted(families, key=lambda name: "token" in name)
    assert {name.removesuffix("_count") for name, _ in seen.samples if re.match("gen_ai_.*_count$", name)} == families
    assert seen.total(f"{duration}_count", gen_ai_operation_name="embeddings") == 1
    assert seen.total(f"{tokens}_sum") == 4
    assert seen.values(f"{tokens}_sum", "gen_ai_token_type") <= {"input"}


def test_a_failure_is_told_by_its_kind() -> None:
    counting = Counting(priced_at(URL))
    labels = {name: value for name, value in LABELS.items() if name != "gen_ai_response_model"}

    counting.one(MODEL, error=UpstreamError("no", status=429, upstream_status=429, code="made_up"))

    assert counting.cells("gen_ai_client_operation_duration_seconds", error_type="429", **labels)[-1] == pytest.approx(
        0.3
    )


def test_a_plain_answer_has_no_chunks() -> None:
    counting = Counting(priced_at(URL))

    counting.one(MODEL)

    assert "gen_ai_client_operation_time_to_first_chunk_seconds" not in counting.metering.snapshot().totals


@pytest.mark.parametrize(
    ("asked", "sent", "answered", "requested", "responded"),
    [
        ("fast", MODEL, MODEL, MODEL, MODEL),
        ("fast", MODEL, "made-up-by-the-provider", MODEL, None),
        ("made-up", "made-up", "made-up", "other", None),
    ],
)
def test_models_are_those_sent_and_answered_as_far_as_they_are_known(
    asked: str, sent: str, answered: str, requested: str, responded: str | None
) -> None:
    counting = Counting(openai_at(URL, models={"fast": MODEL, "*": "fast"}))

    counting.one(asked, sent=sent, answered=answered)

    (labels,) = [dict(it) for it in counting.metering.snapshot().of("gen_ai_client_operation_duration_seconds").cells]
    assert labels["gen_ai_request_model"] == requested
    assert labels.get("gen_ai_response_model") == responded


async def test_calls_through_a_proxy_are_counted() -> None:
    streamed = stream(chat_chunk("a"), chat_chunk("b", finish="stop"), usage_chunk(prompt=9, completion=3))
    async with Upstream(streamed) as upstream, Proxy(priced_at(upstream.base_url)) as proxy:
        host, _, port = upstream.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
        await chat(proxy, stream=True)
        labels = {**LABELS, "server_address": host, "server_port": port}
        seen = await scrape_until(proxy, "gen_ai_client_operation_duration_seconds_count", 1, **labels)

    assert seen("gen_ai_client_operation_time_to_first_chunk_seconds_count", **labels) == 1
    assert seen("gen_ai_client_operation_time_per_output_chunk_seconds_count", **labels) == 1
    assert seen("gen_ai_client_token_usage_sum", gen_ai_token_type="output", **labels) == 3


async def test_what_is_no_work_of_a_model_is_not_counted() -> None:
    embedding = {"object": "list", "data": [], "model": MODEL, "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    async with (
        Upstream(reply({"object": "list", "data": []})) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
    ):
        upstream.then(reply(completion("Hi")), reply(embedding))
        await chat(proxy)
        await post(f"{proxy.base_url}/embeddings", b'{"model":"m","input":"x"}')
        seen = await scrape(proxy)

    assert seen.values("gen_ai_client_operation_duration_seconds_count", "gen_ai_operation_name") == {
        "chat",
        "embeddings",
    }
    assert seen.total("gen_ai_client_operation_duration_seconds_count") == 2
