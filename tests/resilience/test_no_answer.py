"""A plain answer that says nothing, or cannot be read as what was asked, is a failure that another LLM can hide."""

from __future__ import annotations

import json

import llmproxy_anthropic
import llmproxy_gemini
import pytest

from llmproxy_core import End
from tests.answers import completion, reply
from tests.exact import Seen, post
from tests.llmproxy_core.conversation import question
from tests.proxy import Proxy
from tests.resilience.flocks import group, one, says
from tests.upstream import Upstream

UNENDED = [
    b"{}",
    b"[]",
    b'{"choices":[]}',
    b'{"choices":null}',
    b'{"choices":"x"}',
    b'{"choices":[{"message":null}]}',
    b'{"choices":[{"message":{"content":5}}]}',
    b'{"choices":[{"index":0,"message":{"role":"assistant","content":null},"finish_reason":null}]}',
    b'{"detail":"upstream died"}',
    b'{"message":"no","status":500}',
]
ENDED = b'{"choices":[{"message":{"content":5},"finish_reason":"stop"}]}'
"""To know that it is none, all of it must be read: that is done only where it is read anyhow."""


async def asked(proxy: Proxy, protocol: str) -> Seen:
    if protocol == "messages":
        body = json.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}).encode()
        return await post(f"{proxy.base_url}/messages", body, [("anthropic-version", "2023-06-01"), ("x-api-key", "k")])
    if protocol == "responses":
        return await post(f"{proxy.base_url}/responses", b'{"model":"m","input":"hi"}')
    return await post(f"{proxy.base_url}/chat/completions", question())


@pytest.mark.parametrize("protocol", ["chat/completions", "responses", "messages"])
async def test_what_says_nothing_is_asked_of_the_next_member(protocol: str) -> None:
    bodies = UNENDED if protocol == "chat/completions" else [*UNENDED, ENDED]
    async with Upstream() as a, Upstream(says("good")) as b:
        async with Proxy(group("fallback", a, b), plugins=(llmproxy_anthropic,)) as proxy:
            for body in bodies:
                a.script = reply(body)
                seen = await asked(proxy, protocol)

                assert (seen.status, b"good" in seen.body) == (200, True), body
        assert len(a.requests) == len(bodies)


async def test_where_there_is_no_other_the_client_is_told_that_it_is_no_answer() -> None:
    async with Upstream(reply(b'{"detail":"upstream died"}')) as a, Proxy(one(a, tried=False)) as proxy:
        seen = await asked(proxy, "chat/completions")
        outcome = await proxy.outcome()

    assert (seen.status, json.loads(seen.body)["error"]["code"]) == (502, "upstream_garbage")
    assert outcome.end is End.FAILED


async def test_an_answer_that_names_no_end_is_one_all_the_same() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "good"}}
    body = completion("good") | {"choices": [choice]}
    async with Upstream(reply(body)) as a, Proxy(one(a, tried=False)) as proxy:
        assert json.loads((await asked(proxy, "chat/completions")).body) == body


async def test_an_answer_that_goes_on_in_the_background_is_no_failure() -> None:
    body = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "queued", "output": []}
    async with Upstream(reply(body)) as a, Proxy(one(a, tried=False, type="responses")) as proxy:
        seen = await asked(proxy, "responses")

    assert (seen.status, json.loads(seen.body)) == (200, body)


async def test_embeddings_that_cannot_be_translated_are_asked_of_the_next_member() -> None:
    right = {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}
    async with (
        Upstream(reply(b'{"detail":"upstream died"}')) as a,
        Upstream(reply(right)) as b,
        Proxy(group("fallback", a, b), plugins=(llmproxy_gemini,)) as proxy,
    ):
        url = f"{proxy.base_url}/models/m:embedContent"
        seen = await post(url, b'{"content":{"parts":[{"text":"hi"}]}}', [("x-goog-api-key", "k")])

    assert seen.status == 200
    assert json.loads(seen.body)["embedding"]["values"] == [0.5]
