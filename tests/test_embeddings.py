"""`POST /v1/embeddings`: passed as it is both ways, its usage learned."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmproxy_core import End
from tests.exact import Seen, post
from tests.proxy import Proxy, openai_at
from tests.upstream import Chunk, Head, Step, Upstream, reply
from tests.upstream import End as Complete

FLOATS = b"[0.1, -2.5E-9, 1.0, 12345678901234567890]"
BASE64 = b'"AAAAPwAAgD8="'


def answer(embedding: bytes) -> bytes:
    return (
        b'{"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": ' + embedding + b"}], "
        b'"model": "m", "own": 1, "usage": {"prompt_tokens": 5, "total_tokens": 5}}'
    )


async def embed(script: list[Step], body: bytes, **llm: Any) -> tuple[Seen, Upstream, Proxy]:
    async with Upstream(script) as upstream, Proxy(openai_at(upstream.base_url, **llm)) as proxy:
        seen = await post(f"{proxy.base_url}/embeddings", body)
        await proxy.outcome()
        return seen, upstream, proxy


@pytest.mark.parametrize("embedding", [FLOATS, BASE64], ids=["float", "base64"])
@pytest.mark.parametrize("given", ["text", ["several", "texts"], [1, 2, 3], [[1, 2], [3]]], ids=str)
async def test_what_is_asked_and_answered_passes_to_the_byte(embedding: bytes, given: Any) -> None:
    body = json.dumps({"model": "m", "input": given, "dimensions": 2, "own": [1.0]}).encode()

    seen, upstream, proxy = await embed(reply(answer(embedding)), body)

    assert (seen.status, seen.body) == (200, answer(embedding))
    assert upstream.requests[0].body == body
    usage = proxy.outcomes[0].usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (5, 0)


async def test_another_model_is_all_that_changes() -> None:
    seen, upstream, _ = await embed(
        reply(answer(BASE64)), b'{"model": "fast", "input": "x", "own": 1.0}', models={"fast": "m-large"}
    )

    assert seen.status == 200
    assert upstream.requests[0].body == b'{"model": "m-large", "input": "x", "own": 1.0}'


async def test_a_stream_is_no_answer() -> None:
    seen, _, proxy = await embed([Head(), Chunk(b"data: {}\n\n"), Complete()], b'{"model": "m", "input": "x"}')

    assert seen.status == 502
    assert json.loads(seen.body)["error"]["code"] == "upstream_garbage"
    assert proxy.outcomes[0].end is End.FAILED


async def test_a_request_to_stream_changes_nothing() -> None:
    body = b'{"model": "m", "input": "x", "stream": true}'

    seen, upstream, _ = await embed(reply(answer(FLOATS)), body, supports_streaming=False)

    assert seen.body == answer(FLOATS)
    assert upstream.requests[0].body == body
