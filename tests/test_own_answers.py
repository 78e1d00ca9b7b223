"""Answers that no provider made are marked as ours; what a provider is asked keeps the client's spelling."""

from __future__ import annotations

import json

from llmproxy_core import End
from tests.exact import ask, post
from tests.proxy import Proxy, openai_at
from tests.upstream import Chunk, Cut, Head, Step, Upstream, chat_chunk, reply, sse

MODEL = {"id": "org/name", "object": "model", "created": 1, "owned_by": "org"}


async def test_a_model_list_from_the_configuration_has_the_secure_headers_of_our_own_answers() -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url, models=["a", "b*"])) as proxy:
        seen = await ask("GET", f"{proxy.base_url}/models")

    assert [it["id"] for it in json.loads(seen.body)["data"]] == ["a"]
    assert seen.header("x-content-type-options") == "nosniff"
    assert seen.header("cache-control") == "no-store"


async def test_a_providers_answer_gets_no_headers_of_ours_but_the_ids() -> None:
    async with Upstream(reply(MODEL)) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        seen = await ask("GET", f"{proxy.base_url}/models/name")

    assert json.loads(seen.body) == MODEL
    assert seen.header("x-content-type-options") is None


async def test_a_slash_in_a_models_name_reaches_the_upstream_as_the_client_wrote_it() -> None:
    routed = {"encoded_slash": True}
    async with Upstream(reply(MODEL)) as upstream, Proxy(openai_at(upstream.base_url, route=routed)) as proxy:
        upstream.then(reply(MODEL))

        await ask("GET", f"{proxy.base_url}/models/org%2Fname")
        await ask("GET", f"{proxy.base_url}/models/org/name")

    assert [request.target for request in upstream.requests] == ["/v1/models/org%2Fname", "/v1/models/org/name"]


async def test_an_attempt_whose_stream_broke_has_the_error() -> None:
    script: list[Step] = [
        Head(200, [("content-type", "text/event-stream")]),
        Chunk(sse(chat_chunk("Hi"), done=False)),
        Cut(),
    ]
    question = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'
    async with Upstream(script) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        await post(f"{proxy.base_url}/chat/completions", question)
        health = json.loads((await ask("GET", f"{proxy.url}/health")).body)

    attempt = proxy.exchanges[0].attempts[0]
    assert (attempt.status, proxy.outcomes[0].end) == (200, End.FAILED)
    assert attempt.error is not None
    assert attempt.error.code == "upstream_cut"
    assert health["llms"]["openai"]["state"] == "failing"
