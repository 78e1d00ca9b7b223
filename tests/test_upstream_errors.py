"""What providers say when they fail, and where they say it, as a client of OpenAI's protocol gets to read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmproxy_core import End, Exchange, Handler, Response
from tests.exact import Seen, post
from tests.llmproxy_server.edging import Processing, processed
from tests.proxy import SECRET, Proxy, openai_at
from tests.upstream import Script, Upstream, chat_chunk, reply, stream

OWN = {"error": {"message": "Slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded", "own": 1}}

SHAPES = [
    pytest.param(429, OWN, 429, OWN["error"], id="OpenAI"),
    pytest.param(
        400,
        {"error": {"message": "API key not valid", "details": [{"reason": "API_KEY_INVALID"}]}},
        502,
        {"code": "upstream_auth"},
        id="Google: our key",
    ),
    pytest.param(401, {"error": {"message": f"bad key {SECRET}"}}, 502, {"code": "upstream_auth"}, id="our key"),
    pytest.param(
        529, {"type": "error", "error": {"type": "overloaded_error", "message": "Full"}}, 529, {"message": "Full"},
        id="Anthropic",
    ),
    pytest.param(400, {"error": {"message": f"your {SECRET}"}}, 400, {"message": "your ***"}, id="it shows our key"),
    pytest.param(200, {"error": {"message": "No", "code": 429}}, 429, {"message": "No"}, id="status 200: OpenRouter"),
]  # fmt: skip
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
WATCHED = pytest.mark.parametrize("watched", [False, True], ids=["copied", "watched"])


async def go(script: Script, *, streamed: bool, watched: bool = False) -> tuple[Seen, Proxy]:
    async def around(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        if watched:
            response.watch(lambda channel: None)
        return response

    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": streamed}
    async with Upstream(script) as upstream:
        mapping = processed(openai_at(upstream.base_url, token_env="KEY"))
        async with Proxy(mapping, plugins=[Processing(around)]) as proxy:
            seen = await post(f"{proxy.base_url}/chat/completions", json.dumps(asked).encode())
            await proxy.outcome()
            return seen, proxy


@STREAMED
@pytest.mark.parametrize("wait", ["1e306", "9" * 308, "inf", "-1"])
async def test_a_wait_that_nobody_can_mean_costs_no_answer(wait: str, streamed: bool) -> None:
    seen, _ = await go(reply(OWN, 429, headers={"retry-after": wait}), streamed=streamed)

    assert (seen.status, seen.whole) == (429, True)


@STREAMED
@pytest.mark.parametrize(("status", "body", "told", "error"), SHAPES)
async def test_every_shape_is_one_that_the_client_knows(
    status: int, body: object, told: int, error: dict[str, Any], streamed: bool
) -> None:
    seen, proxy = await go(reply(body, status), streamed=streamed)

    assert (seen.status, seen.header("content-type")) == (told, "application/json")
    found = json.loads(seen.body)["error"]
    assert found["message"]
    assert {name: found[name] for name in error} == error
    assert SECRET.encode() not in seen.body
    assert proxy.outcomes[0].end is End.FAILED


@WATCHED
@STREAMED
async def test_an_error_as_the_first_event_is_an_error_with_a_status(streamed: bool, watched: bool) -> None:
    seen, proxy = await go(stream(OWN, done=False), streamed=streamed, watched=watched)

    assert (seen.status, json.loads(seen.body)) == (429, OWN)
    assert proxy.outcomes[0].end is End.FAILED


@WATCHED
async def test_an_error_in_mid_stream_is_the_providers_own_without_our_key(watched: bool) -> None:
    error = {"error": {**OWN["error"], "message": f"bad: {SECRET}"}}

    seen, proxy = await go(stream(chat_chunk("so far"), error, done=False), streamed=True, watched=watched)

    assert (seen.status, seen.whole) == (200, False)
    first, last, rest = seen.body.split(b"\n\n")
    assert b"so far" in first
    assert json.loads(last.removeprefix(b"data: ")) == {"error": {**OWN["error"], "message": "bad: ***"}}
    assert rest == b""
    assert proxy.outcomes[0].end is End.FAILED


@WATCHED
async def test_a_plain_client_gets_an_error_in_mid_stream_as_a_status(watched: bool) -> None:
    seen, _ = await go(stream(chat_chunk("so far"), OWN, done=False), streamed=False, watched=watched)

    assert (seen.status, json.loads(seen.body)) == (429, OWN)


VLLM = {"object": "error", "message": "No", "code": 400}
STRINGS = {"code": "bad", "error": "Bad"}


@STREAMED
@pytest.mark.parametrize(("body", "status"), [(VLLM, 400), (STRINGS, 502)])
async def test_an_error_with_status_200_of_another_shape_is_the_providers_own(
    body: dict[str, Any], status: int, streamed: bool
) -> None:
    seen, proxy = await go(reply(body), streamed=streamed)

    assert (seen.status, json.loads(seen.body)) == (status, body)
    assert proxy.outcomes[0].end is End.FAILED


@WATCHED
async def test_an_error_of_another_shape_in_mid_stream_is_the_providers_own(watched: bool) -> None:
    seen, _ = await go(stream(chat_chunk("so far"), STRINGS, done=False), streamed=True, watched=watched)

    assert (seen.status, seen.whole) == (200, False)
    _, last, rest = seen.body.split(b"\n\n")
    assert json.loads(last.removeprefix(b"data: ")) == STRINGS
    assert rest == b""


@WATCHED
async def test_an_error_in_mid_stream_that_clients_would_take_for_a_chunk_is_told_in_our_words(watched: bool) -> None:
    seen, _ = await go(stream(chat_chunk("so far"), VLLM, done=False), streamed=True, watched=watched)

    assert (seen.status, seen.whole) == (200, False)
    _, last, rest = seen.body.split(b"\n\n")
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == VLLM["message"]
    assert rest == b""
