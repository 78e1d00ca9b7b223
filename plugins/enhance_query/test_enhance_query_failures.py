"""There is no rewritten text: the request goes on as it came, or the caller learns why it does not."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import llmproxy_enhance_query
import pytest
from llmproxy_enhance_query import ENHANCED, FAILED

from llmproxy_core import End
from tests.exact import post
from tests.llmproxy_server import edging
from tests.proxy import SECRET, Proxy
from tests.rawclient import connected
from tests.upstream import (
    Chunk,
    Cut,
    Head,
    Reset,
    Script,
    Stall,
    Upstream,
    chat_chunk,
    completion,
    error,
    refusing_url,
    reply,
    sse,
    stream,
)

BODY = b'{ "model":"gpt-4o", "messages":[{"content":"caf\\u00e9?", "role":"user"}], "own": 1.0 }'
JSON = {"content-type": "application/json"}


def config(main: Upstream, small_url: str, **keys: Any) -> dict[str, Any]:
    return {
        "llm": {
            "openai": {"provider": "openai", "base_url": main.base_url},
            "small": {"provider": "openai", "base_url": small_url, "token_env": "KEY"},
        },
        "processor": {"enhance_query": {"type": "enhance_query", "llm": "small", **keys}},
        "route": [{"path_prefix": "/v1", "target_llm": "openai", "processors": ["enhance_query"]}],
    }


def refused() -> dict[str, Any]:
    whole: dict[str, Any] = completion("")
    whole["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "No."}
    return whole


@attrs.frozen
class Case:
    """A call for a rewritten text that gives none, and what the caller may be told."""

    script: Script
    code: str = "upstream_error"
    status: int = 502
    retryable: bool = True
    says: str = ""


CASES = {
    "500": Case(reply(error("The engine broke"), 500), says="The engine broke"),
    "500 without a word": Case(reply(b"", 500), says="status 500"),
    "401": Case(reply(error("bad key"), 401), "upstream_auth", retryable=False, says="this gateway's own key"),
    "404": Case(reply(error("no such model", code="model_not_found"), 404), "model_not_found", retryable=False),
    "429": Case(reply(error("slow down", code="rate_limit_exceeded"), 429), "rate_limit_exceeded", says="slow down"),
    "504": Case(reply(error("too slow"), 504), status=504),
    "garbage": Case(reply(b"{garbage"), "upstream_garbage"),
    "a page": Case(reply(b"<html>", headers={"content-type": "text/html"}), "upstream_garbage"),
    "another JSON": Case(reply({"id": "x", "model": "m"}), "upstream_garbage"),
    "an error of status 200": Case(reply(error("overloaded")), says="overloaded"),
    "cut in the head": Case([Cut()], "upstream_cut"),
    "cut in the body": Case([Head(200, JSON, 500), Chunk(b'{"id":'), Cut()], "upstream_cut"),
    "reset in the body": Case([Head(200, JSON, 500), Chunk(b'{"id":'), Reset()], "upstream_cut"),
    "a stream cut": Case([Head(), Chunk(sse(chat_chunk("Half a se"), done=False)), Cut()], "upstream_cut"),
    "a stream without its end": Case(stream(chat_chunk("Half a se"), done=False), "upstream_cut"),
    "a stream that fails": Case(stream(chat_chunk("Half"), error("broke down"), done=False), says="broke down"),
    "no choice": Case(reply({**completion(""), "choices": []}), "upstream_garbage", says="a list with an answer"),
    "an empty text": Case(reply(completion("")), says="without text"),
    "spaces": Case(reply(completion(" \n ")), says="without text"),
    "cut by its length": Case(reply(completion("Half a sen", finish="length")), says="max_output_tokens"),
    "filtered": Case(reply(completion("Half", finish="content_filter")), says="content filter"),
    "refused": Case(reply(refused()), says="refused"),
    "a tool's call": Case(reply(completion("", finish="tool_calls")), says="tool_calls"),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@EVERY_CASE
async def test_the_request_goes_on_as_it_came(case: Case) -> None:
    async with Upstream(reply(completion("ok"))) as main, Upstream(case.script) as small:
        async with Proxy(config(main, small.base_url), plugins=[llmproxy_enhance_query]) as proxy:
            seen = await post(proxy.base_url + "/chat/completions", BODY)
            outcome = await proxy.outcome()

        assert (seen.status, json.loads(seen.body)) == (200, completion("ok"))
        assert [request.body for request in main.requests] == [BODY]
    assert outcome.end is End.COMPLETED
    (exchange,) = proxy.exchanges
    assert exchange.log_fields == {"enhance_query": "failed", "enhance_query_error": case.code}
    assert ENHANCED not in exchange.notes
    assert len(exchange.child_attempts) == 1


@EVERY_CASE
async def test_the_request_is_rejected_when_it_is_to_be(case: Case) -> None:
    async with Upstream() as main, Upstream(case.script) as small:
        mapping = config(main, small.base_url, on_failure="reject")
        async with Proxy(mapping, plugins=[llmproxy_enhance_query]) as proxy:
            seen = await post(proxy.base_url + "/chat/completions", BODY)
            outcome = await proxy.outcome()

        told = json.loads(seen.body)["error"]
        assert (seen.status, told["code"]) == (case.status, FAILED)
        assert told["message"].startswith("The question could not be enhanced: ")
        assert case.says in told["message"]
        assert (seen.header("x-should-retry") != "false") == case.retryable
        assert main.requests == []
    assert outcome.end is End.FAILED


@pytest.mark.parametrize("on_failure", ["original", "reject"])
async def test_nobody_listens_where_the_rewriting_llm_should_be(on_failure: str) -> None:
    async with Upstream(reply(completion("ok"))) as main:
        with refusing_url() as url:
            mapping = config(main, url, on_failure=on_failure)
            async with Proxy(mapping, plugins=[llmproxy_enhance_query]) as proxy:
                seen = await post(proxy.base_url + "/chat/completions", BODY)

        assert seen.status == (200 if on_failure == "original" else 502)
        assert len(main.requests) == (1 if on_failure == "original" else 0)
    assert proxy.exchanges[0].log_fields["enhance_query_error"] == "upstream_connect"


STALLS: dict[str, Script] = {
    "before the head": [Stall()],
    "in the body": [Head(200, JSON, 500), Chunk(b'{"id":'), Stall()],
    "in a stream": [Head(), Chunk(sse(chat_chunk("Half"), done=False)), Stall()],
}


@pytest.mark.parametrize("on_failure", ["original", "reject"])
@pytest.mark.parametrize("script", STALLS.values(), ids=STALLS)
async def test_a_rewriting_that_takes_too_long_is_broken_off(script: Script, on_failure: str) -> None:
    async with Upstream(reply(completion("ok"))) as main, Upstream(script) as small:
        mapping = config(main, small.base_url, on_failure=on_failure, llm_timeout_s=0.1)
        async with Proxy(mapping, plugins=[llmproxy_enhance_query]) as proxy:
            seen = await post(proxy.base_url + "/chat/completions", BODY)
            await asyncio.wait_for(small.requests[0].gone.wait(), 5)

        if on_failure == "original":
            assert (seen.status, main.requests[0].body) == (200, BODY)
        else:
            assert (seen.status, json.loads(seen.body)["error"]["code"], main.requests) == (504, FAILED, [])
            assert "within 0.1 s" in json.loads(seen.body)["error"]["message"]
    assert proxy.exchanges[0].log_fields["enhance_query_error"] == "upstream_timeout_total"


async def test_a_rate_limit_of_the_rewriting_llm_says_when_to_come_back() -> None:
    script = reply(error("slow down"), 429, {"retry-after": "7"})
    async with Upstream() as main, Upstream(script) as small:
        mapping = config(main, small.base_url, on_failure="reject")
        async with Proxy(mapping, plugins=[llmproxy_enhance_query]) as proxy:
            seen = await post(proxy.base_url + "/chat/completions", BODY)

    assert (seen.status, seen.header("retry-after")) == (502, "7")


async def test_what_a_failed_rewriting_used_is_paid_for() -> None:
    async with (
        Upstream(reply(completion("ok", prompt=1, completion=2))) as main,
        Upstream(reply(completion("Half", prompt=10, completion=20, finish="length"))) as small,
        Proxy(config(main, small.base_url), plugins=[llmproxy_enhance_query]) as proxy,
    ):
        await post(proxy.base_url + "/chat/completions", BODY)
        outcome = await proxy.outcome()

    assert outcome.usage is not None
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (11, 22)


LEAVINGS: dict[str, Script] = {"waiting for the head": [Stall()], "reading the body": STALLS["in the body"]}


@pytest.mark.parametrize("script", LEAVINGS.values(), ids=LEAVINGS)
@pytest.mark.parametrize("on_failure", ["original", "reject"])
async def test_a_client_that_leaves_ends_the_rewriting_and_nobody_else_is_asked(
    script: Script, on_failure: str
) -> None:
    async with Upstream() as main, Upstream(script) as small:
        mapping = config(main, small.base_url, on_failure=on_failure)
        async with Proxy(mapping, plugins=[llmproxy_enhance_query]) as proxy:
            async with connected(proxy.port) as client:
                client.send(edging.post(BODY))
                asked = await small.received()

            await asyncio.wait_for(asked.gone.wait(), 5)
            outcome = await proxy.outcome()

        assert outcome.end is End.ABANDONED
        assert main.requests == []
    (exchange,) = proxy.exchanges
    assert [it.llm for it in exchange.child_attempts] == ["small"]


@contextmanager
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """All that is logged within, whatever its level, exceptions and fields included."""
    caplog.set_level(logging.DEBUG)
    lines: list[str] = []
    yield lines
    lines += [f"{caplog.handler.format(record)} {vars(record)!r}" for record in caplog.records]


QUOTING: dict[str, Script] = {
    "an error": reply(error(f"Bad key {SECRET}", code=SECRET), 500),
    "a refused key": reply(error(f"Bad key {SECRET}"), 401),
    "a text": reply(f"who is {SECRET}?".encode(), 503, {"content-type": "text/plain"}),
    "an error of status 200": reply(error(f"Bad key {SECRET}")),
    "an event": stream(chat_chunk("Half"), error(f"Bad key {SECRET}"), done=False),
}


@pytest.mark.parametrize("script", QUOTING.values(), ids=QUOTING)
@pytest.mark.parametrize("on_failure", ["original", "reject"])
async def test_an_error_that_quotes_our_key_shows_it_to_nobody(
    script: Script, on_failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Upstream(reply(completion("ok"))) as main, Upstream(script) as small:
        mapping = config(main, small.base_url, on_failure=on_failure, log_content=True)
        with everything_logged(caplog) as lines:
            async with Proxy(mapping, plugins=[llmproxy_enhance_query]) as proxy:
                seen = await post(proxy.base_url + "/chat/completions", BODY)
                await proxy.outcome()

        assert small.requests[0].header("authorization") == f"Bearer {SECRET}"
        assert seen.status == (200 if on_failure == "original" else 502)
    assert SECRET not in repr(seen)
    assert any("enhance_query_error" in line for line in lines)
    assert SECRET not in "".join(lines)
    assert SECRET not in repr(proxy.exchanges[0].log_fields)
