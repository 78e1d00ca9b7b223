"""The usage of an answer is learned always, wherever and however the provider tells it, and told to who asked."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from llmproxy_core import Exchange, Handler, Response, Usage, UsageSource
from llmproxy_core.text import Replace
from tests.exact import Seen, post
from tests.llmproxy_server.edging import Processing, processed
from tests.proxy import Proxy, openai_at
from tests.upstream import Script, Upstream, chat_chunk, completion, reply, stream, usage_chunk

SPELLINGS = [
    pytest.param(
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
        Usage(10, 5, cached_input_tokens=4, cache_write_tokens=2, reasoning_tokens=3),
        id="OpenAI",
    ),
    pytest.param(
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6},
        Usage(10, 5, cached_input_tokens=4),
        id="DeepSeek",
    ),
    pytest.param(
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "num_cached_tokens": 4},
        Usage(10, 5, cached_input_tokens=4),
        id="Mistral",
    ),
    pytest.param(
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 22,
            "completion_tokens_details": {"reasoning_tokens": 7},
        },
        Usage(10, 12, reasoning_tokens=7),
        id="xAI",
    ),
    pytest.param({"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.01}, Usage(10, 5), id="OpenRouter"),
]
STOP = chat_chunk("x", finish="stop")


def _moonshot(usage: dict[str, Any]) -> dict[str, Any]:
    chunk: dict[str, Any] = json.loads(json.dumps(STOP))
    chunk["choices"][0]["usage"] = usage
    return chunk


@attrs.frozen
class Went:
    seen: Seen
    usage: Usage | None
    sent: dict[str, Any]


async def go(script: Script, *, filtered: bool = False, llm: dict[str, Any] | None = None, **asked: object) -> Went:
    async def around(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        if filtered:
            response.rewrite(lambda channel: Replace({"x": "y"}))
        return response

    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **asked}).encode()
    async with (
        Upstream(script) as upstream,
        Proxy(processed(openai_at(upstream.base_url, **(llm or {}))), plugins=[Processing(around)]) as proxy,
    ):
        seen = await post(f"{proxy.base_url}/chat/completions", body)
        outcome = await proxy.outcome()
        return Went(seen, outcome.usage, json.loads(upstream.requests[0].body))


WANTED: dict[str, Any] = {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize("filtered", [False, True], ids=["copied", "filtered"])
@pytest.mark.parametrize(("spelled", "usage"), SPELLINGS)
async def test_every_spelling_is_understood_wherever_it_stands(
    spelled: dict[str, Any], usage: Usage, filtered: bool
) -> None:
    plain = await go(reply(completion("x") | {"usage": spelled}), filtered=filtered)
    streams = [
        stream(STOP, usage_chunk() | {"usage": spelled}),  # an event of its own
        stream(STOP | {"usage": spelled}),  # on the finish chunk: Mistral
        stream(STOP | {"x_groq": {"id": "r", "usage": spelled}}),
        stream(_moonshot(spelled)),
        stream(chat_chunk("x") | {"usage": {"prompt_tokens": 10, "completion_tokens": 1}}, STOP | {"usage": spelled}),
    ]

    assert plain.usage == usage
    for script in streams:
        for asked in ({}, WANTED):
            assert (await go(script, filtered=filtered, stream=True, **asked)).usage == usage


@pytest.mark.parametrize("filtered", [False, True], ids=["copied", "filtered"])
async def test_the_usage_event_is_for_who_asked(filtered: bool) -> None:
    script = stream(STOP, usage_chunk())

    silent = await go(script, filtered=filtered, stream=True)
    refused = await go(script, filtered=filtered, stream=True, stream_options={"include_usage": False, "own": 1})
    wanted = await go(script, filtered=filtered, stream=True, **WANTED)

    assert [went.seen.body.count(b'"choices":[]') for went in (silent, refused, wanted)] == [0, 0, 1]
    assert [went.sent["stream_options"] for went in (silent, refused, wanted)] == [
        {"include_usage": True},
        {"include_usage": True, "own": 1},
        {"include_usage": True},
    ]
    assert silent.usage == refused.usage == wanted.usage == Usage(9, 3)


async def test_an_upstream_that_ignores_the_question_is_left_in_peace() -> None:
    went = await go(stream(STOP), stream=True, **WANTED)

    assert (went.seen.status, went.seen.whole) == (200, True)
    assert went.usage is not None
    assert went.usage.source is UsageSource.ESTIMATED
    assert b"usage" not in went.seen.body


async def test_an_llm_that_must_not_be_asked_is_not_asked() -> None:
    silent = await go(stream(STOP), llm={"ask_usage": False}, stream=True)
    wanted = await go(stream(STOP, usage_chunk()), llm={"ask_usage": False}, stream=True, **WANTED)

    assert "stream_options" not in silent.sent
    assert silent.usage is not None
    assert silent.usage.source is UsageSource.ESTIMATED
    assert wanted.sent["stream_options"] == {"include_usage": True}  # the client's own question
    assert wanted.usage == Usage(9, 3)


async def test_a_plain_call_is_not_changed() -> None:
    went = await go(reply(completion("x")), temperature=1.0)

    assert went.sent == {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 1.0}
