"""Streams of which somebody gathers the whole: there is a bound, whoever it is."""

from __future__ import annotations

import json

import llmproxy_cache
import llmproxy_chaos
import pytest

from llmproxy_core import End, Exchange, Handler, Response
from tests.exact import post
from tests.llmproxy_server.edging import Around, Processing, processed
from tests.proxy import Proxy, openai_at
from tests.upstream import Chunk, Head, Upstream, chat_chunk, pieces, usage_chunk
from tests.upstream import End as Complete


def as_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def events(*payloads: object) -> bytes:
    return b"".join(b"data: " + as_json(each) + b"\n\n" for each in payloads)


LONG_CHAT = events(*[chat_chunk("x" * 500)] * 100, usage_chunk()) + b"data: [DONE]\n\n"


async def looked_at(exchange: Exchange, call_next: Handler) -> Response:
    response = await call_next(exchange)
    response.watch(lambda channel: None)
    return response


async def replaced(exchange: Exchange, call_next: Handler) -> Response:
    response = await call_next(exchange)
    response.replace(lambda events: events)
    return response


def long_response() -> bytes:
    response = {"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "in_progress", "output": []}
    item = {"id": "i", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    said = {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0}
    begun = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
    ]
    return events(*begun, *[said | {"delta": "x" * 500}] * 100)


@pytest.mark.parametrize("around", [looked_at, replaced])
async def test_what_is_gathered_of_a_response_for_its_end_has_a_bound(around: Around) -> None:
    """The last event repeats all that was said: who may change that has to remember it."""
    body = long_response()
    async with Upstream([Head(), *map(Chunk, pieces(body, 1000)), Complete()]) as upstream:
        mapping = openai_at(upstream.base_url, max_response_bytes=4096, type="responses")
        async with Proxy(processed(mapping), plugins=[Processing(around)]) as proxy:
            seen = await post(f"{proxy.base_url}/responses", as_json({"model": "m", "stream": True, "input": "hi"}))
            outcome = await proxy.outcome()

    assert (seen.status, seen.whole, outcome.end) == (200, False, End.FAILED)
    assert b"longer than 16384 bytes (max_response_bytes)" in seen.body


async def test_what_is_only_looked_at_has_no_bound() -> None:
    async with Upstream([Head(), *map(Chunk, pieces(LONG_CHAT, 1000)), Complete()]) as upstream:
        mapping = openai_at(upstream.base_url, max_response_bytes=4096)
        async with Proxy(processed(mapping), plugins=[Processing(looked_at)]) as proxy:
            asked = as_json({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]})
            seen = await post(f"{proxy.base_url}/chat/completions", asked)

    assert (seen.status, seen.whole, seen.body.count(b"data: ")) == (200, True, 101)


BETWEEN: dict[str, dict[str, object]] = {"cache": {"processors": ["cached"]}, "chaos": {"target_llm": "faulty"}}


@pytest.mark.parametrize("kind", BETWEEN)
@pytest.mark.parametrize("wants_stream", [False, True])
async def test_what_is_gathered_has_its_bound_whoever_stands_in_between(kind: str, wants_stream: bool) -> None:
    """A plain client gets the whole; one of Responses has all of it repeated at the end."""
    faults = {"cut": {"share": 1.0, "after_chars": 1_000_000}}
    async with Upstream([Head(), *map(Chunk, pieces(LONG_CHAT, 1000)), Complete()]) as upstream:
        mapping = openai_at(upstream.base_url, max_response_bytes=4096, route=BETWEEN[kind])
        mapping["llm"]["faulty"] = {"provider": "chaos", "members": ["openai"], "faults": faults}
        mapping["processor"] = {"cached": {"type": "cache"}}
        async with Proxy(mapping, plugins=[llmproxy_cache, llmproxy_chaos]) as proxy:
            asked = as_json({"model": "m", "input": "hi", "stream": wants_stream})
            seen = await post(f"{proxy.base_url}/responses", asked)

    assert (seen.status, seen.whole) == ((200, False) if wants_stream else (502, True))
    assert b"longer than 16384 bytes (max_response_bytes)" in seen.body
