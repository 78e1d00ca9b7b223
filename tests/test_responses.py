"""`POST /v1/responses` through the proxy: to its own provider as it is, to and from chat completions translated."""

from __future__ import annotations

import json
from typing import Any

from llmproxy_core.testing.grammar import check_stream
from tests.answers import chat_chunk, completion, reply, stream, usage_chunk
from tests.exact import Seen, ask, post
from tests.proxy import Proxy, openai_at
from tests.recordings import recording
from tests.script import Chunk, Cut, Head, Step
from tests.upstream import End, Upstream

PLAIN = recording("openai/responses-json-document-openai-responses-encodes-base64-0")
STREAMED = recording("openai/responses-stream-openai-responses-streaming-usage-0")
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
RESPONSES = {"model": "gpt-4o", "input": "Hi", "store": False}


async def call(script: list[Step], path: str, body: bytes, **llm: Any) -> tuple[Seen, Upstream]:
    async with Upstream(script) as upstream, Proxy(openai_at(upstream.base_url, **llm)) as proxy:
        seen = await post(f"{proxy.base_url}{path}", body)
        await proxy.outcome()
        return seen, upstream


def encoded(**members: Any) -> bytes:
    return json.dumps(members).encode()


def events_of(body: bytes) -> list[Step]:
    return [Head(headers={"content-type": "text/event-stream"}), Chunk(body), End()]


async def test_its_own_provider_gets_and_gives_the_bytes_as_they_are() -> None:
    seen, upstream = await call(reply(PLAIN.response_body), "/responses", PLAIN.request_body, type="responses")
    assert (seen.status, seen.body) == (200, PLAIN.response_body)
    assert upstream.requests[0].body == PLAIN.request_body
    assert upstream.requests[0].target.endswith("/responses")


async def test_a_stream_of_its_own_provider_passes_as_it_is() -> None:
    script = events_of(STREAMED.response_body)
    seen, _ = await call(script, "/responses", STREAMED.request_body, type="responses")
    assert seen.body == STREAMED.response_body


async def test_a_model_that_is_mapped_is_shown_by_the_name_it_was_asked_by() -> None:
    script = events_of(STREAMED.response_body)
    seen, upstream = await call(
        script, "/responses", STREAMED.request_body, type="responses", models={"gpt-5": "gpt-5-2025-08-07"}
    )
    assert json.loads(upstream.requests[0].body)["model"] == "gpt-5-2025-08-07"
    assert seen.body == STREAMED.response_body.replace(b"gpt-5-2025-08-07", b"gpt-5")


async def test_a_client_of_responses_is_answered_by_chat_completions() -> None:
    seen, upstream = await call(reply(completion("Hello")), "/responses", encoded(**RESPONSES))
    assert upstream.requests[0].target.endswith("/chat/completions")
    assert json.loads(upstream.requests[0].body)["messages"] == CHAT["messages"]
    assert seen.status == 200
    assert json.loads(seen.body)["output"][0]["content"][0]["text"] == "Hello"


async def test_a_stream_of_chat_completions_becomes_one_of_a_response() -> None:
    script = stream(chat_chunk("Hel"), chat_chunk("lo"), chat_chunk(None, finish="stop"), usage_chunk())
    seen, _ = await call(script, "/responses", encoded(**RESPONSES, stream=True))
    assert check_stream("openai-responses", seen.body) == []
    assert b'"text":"Hello"' in seen.body


ASKED = {
    "instructions": "Be brief.",
    "temperature": 0.25,
    "top_p": 0.5,
    "max_output_tokens": 77,
    "parallel_tool_calls": False,
    "metadata": {"a": "b"},
    "tool_choice": "required",
    "tools": [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}],
    "reasoning": {"effort": None, "summary": None},
    "text": {"format": {"type": "json_object"}},
    "user": None,
}
REPEATED = ASKED | {
    "text": {"format": {"type": "json_object"}, "verbosity": "medium"},
    "tools": [{"description": None, "strict": False} | ASKED["tools"][0]],  # type: ignore[index]
    "store": False,
    "truncation": "disabled",
}


async def test_a_translated_response_repeats_what_was_asked() -> None:
    seen, _ = await call(reply(completion("{}")), "/responses", encoded(**RESPONSES, **ASKED))
    out = json.loads(seen.body)
    assert {name: out[name] for name in REPEATED} == REPEATED


async def test_so_does_each_event_of_a_stream_that_has_the_response() -> None:
    script = stream(chat_chunk("{}"), chat_chunk(None, finish="stop"), usage_chunk())
    seen, _ = await call(script, "/responses", encoded(**RESPONSES, **ASKED, stream=True))
    assert check_stream("openai-responses", seen.body) == []
    told = [json.loads(line[6:]) for line in seen.body.splitlines() if line.startswith(b"data: ")]
    whole = [event["response"] for event in told if "response" in event]
    assert [response["status"] for response in whole] == ["in_progress", "in_progress", "completed"]
    for response in whole:
        assert {name: response[name] for name in REPEATED} == REPEATED


async def test_a_client_of_chat_completions_is_answered_by_responses() -> None:
    seen, upstream = await call(reply(PLAIN.response_body), "/chat/completions", encoded(**CHAT), type="responses")
    assert upstream.requests[0].target.endswith("/responses")
    assert json.loads(upstream.requests[0].body) == {
        "model": "gpt-4o",
        "input": [{"role": "user", "content": "Hi"}],
        "store": False,
    }
    answer = json.loads(seen.body)
    assert answer["choices"][0]["message"]["content"].startswith("The text in the PDF")
    assert answer["usage"]["total_tokens"] == 42


async def test_a_stream_of_a_response_becomes_one_of_chat_completions() -> None:
    asked = encoded(**CHAT, stream=True, stream_options={"include_usage": True})
    seen, upstream = await call(events_of(STREAMED.response_body), "/chat/completions", asked, type="responses")
    assert json.loads(upstream.requests[0].body)["stream"] is True
    assert check_stream("openai", seen.body) == []
    assert b'"finish_reason":"tool_calls"' in seen.body


async def test_a_stream_that_is_cut_is_a_response_that_failed() -> None:
    cut = STREAMED.response_body[:6000].rpartition(b"\n\n")[0] + b"\n\n"
    script: list[Step] = [Head(headers={"content-type": "text/event-stream"}), Chunk(cut), Cut()]
    seen, _ = await call(script, "/responses", STREAMED.request_body, type="responses")
    assert seen.body.startswith(cut)
    assert check_stream("openai-responses", seen.body, failed=True, strict=False) == []


async def test_vectors_and_lists_of_models_are_there_too() -> None:
    vectors = encoded(object="list", data=[{"object": "embedding", "index": 0, "embedding": [1.0]}], model="m")
    seen, upstream = await call(reply(vectors), "/embeddings", encoded(model="m", input="x"), type="responses")
    assert (seen.status, seen.body) == (200, vectors)
    assert upstream.requests[0].target.endswith("/embeddings")
    listed = json.dumps({"object": "list", "data": [{"id": "a", "object": "model", "own": 1}]}).encode()
    async with Upstream(reply(listed)) as upstream, Proxy(openai_at(upstream.base_url, type="responses")) as proxy:
        seen = await ask("GET", f"{proxy.base_url}/models")
    assert (seen.status, seen.body) == (200, listed)


async def test_tokens_are_counted_by_the_provider() -> None:
    counted = b'{"object": "response.input_tokens", "input_tokens": 11}'
    asked = encoded(model="gpt-4o", input="Hi")
    seen, upstream = await call(reply(counted), "/responses/input_tokens", asked, type="responses")
    assert (seen.status, seen.body) == (200, counted)
    assert upstream.requests[0].body == asked
    assert upstream.requests[0].target.endswith("/responses/input_tokens")


async def test_what_was_kept_is_asked_for_past_us() -> None:
    kept = b'{"id": "resp_1", "object": "response"}'
    route = {"operations": ["chat", "opaque"]}
    async with (
        Upstream(reply(kept)) as upstream,
        Proxy(openai_at(upstream.base_url, type="responses", route=route)) as proxy,
    ):
        seen = await ask("GET", f"{proxy.base_url}/responses/resp_1?include=x")
    assert (seen.status, seen.body) == (200, kept)
    assert upstream.requests[0].target.endswith("/responses/resp_1?include=x")


async def test_what_the_other_protocol_cannot_say_is_refused_with_its_name() -> None:
    seen, upstream = await call([], "/responses", encoded(**RESPONSES, previous_response_id="resp_1"))
    assert seen.status == 400
    error = json.loads(seen.body)["error"]
    assert (error["param"], error["code"]) == ("previous_response_id", "unsupported")
    assert "openai" in error["message"]
    assert not upstream.requests
