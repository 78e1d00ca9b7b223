"""The provider of IMPLEMENTING_PROVIDERS.md at work, before clients and servers of its own and of other protocols."""

from __future__ import annotations

import json

import aiohttp
import llmproxy_parley
from llmproxy_parley.dialect import ParleyDialect

from llmproxy_core.chat import End as Ended
from llmproxy_core.chat import TextDelta
from tests.proxy import Proxy, openai_at
from tests.upstream import EVENT_STREAM, Chunk, End, Head, Step, Upstream, chat_chunk, completion, reply, stream

KEY = "the-key-of-the-house"
ANSWER = b'{"id":"t-1","model":"parley-1","says":"Hello.","ended":"limit","tokens":{"in":11,"out":7},"mood":"calm"}'
STREAM = (
    b'event: open\ndata: {"id":"t-1","model":"parley-1"}\n\n'
    b'event: thought\ndata: {"text":"Hm.","stamp":"c3RhbXA="}\n\n'
    b'event: word\ndata: {"says":"Hello."}\n\n'
    b'event: close\ndata: {"ended":"done","tokens":{"in":11,"out":7}}\n\n'
)
CHAT = {
    "model": "parley-1",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
}


def house(upstream: Upstream) -> Proxy:
    mapping = {
        "llm": {"house": {"provider": "parley", "base_url": upstream.url, "token_env": "HOUSE_KEY"}},
        "route": [{"path_prefix": "/v1", "target_llm": "house"}],
    }
    return Proxy(mapping, plugins=[llmproxy_parley], env={"HOUSE_KEY": KEY})


async def ask(proxy: Proxy, path: str, body: object, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.post(proxy.url + path, json=body, headers=headers) as answer:
        return answer.status, await answer.read()


async def test_a_client_of_openais_protocol_is_answered_by_it() -> None:
    async with Upstream(reply(ANSWER)) as upstream, house(upstream) as proxy:
        status, body = await ask(proxy, "/v1/chat/completions", CHAT | {"temperature": 1.7})
        asked = await upstream.received()

    told = json.loads(body)
    assert (status, told["choices"][0]["message"]["content"]) == (200, "Hello.")
    assert told["choices"][0]["finish_reason"] == "length"
    assert (told["usage"]["prompt_tokens"], told["usage"]["completion_tokens"]) == (11, 7)
    assert (asked.target, asked.header("x-parley-key")) == ("/v1/talk", KEY)
    assert json.loads(asked.body) == {
        "model": "parley-1",
        "rules": "Be brief.",
        "turns": [{"who": "human", "says": "Hi"}],
        "heat": 1.0,
        "limit": 1024,
    }


async def test_its_stream_reaches_a_client_of_openais_protocol() -> None:
    script: list[Step] = [
        Head(200, EVENT_STREAM),
        *[Chunk(STREAM[at : at + 7]) for at in range(0, len(STREAM), 7)],
        End(),
    ]
    async with Upstream(script) as upstream, house(upstream) as proxy:
        status, body = await ask(proxy, "/v1/chat/completions", CHAT | {"stream": True})
        asked = await upstream.received()

    assert status == 200
    assert json.loads(asked.body)["live"] is True
    assert b'"content":"Hello."' in body
    assert b'"reasoning_content":"Hm."' in body
    assert body.endswith(b"data: [DONE]\n\n")


async def test_a_client_of_its_own_gets_the_bytes_of_the_server() -> None:
    question = {"turns": [{"who": "human", "says": "Hi"}], "model": "parley-1", "mood": "calm", "limit": 20}
    script: list[Step] = [Head(200, EVENT_STREAM), Chunk(STREAM), End()]
    async with Upstream(reply(ANSWER)) as upstream, house(upstream) as proxy:
        _, body = await ask(proxy, "/v1/talk", question)
        upstream.then(script)
        _, streamed = await ask(proxy, "/v1/talk", question | {"live": True})
        first = await upstream.received()

    assert (body, streamed) == (ANSWER, STREAM)
    assert json.loads(first.body) == question


async def test_what_it_cannot_say_is_refused_in_the_words_of_the_client() -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    async with Upstream() as upstream, house(upstream) as proxy:
        status, body = await ask(proxy, "/v1/chat/completions", CHAT | {"tools": tools})

    told = json.loads(body)["error"]
    assert (status, told["code"], told["param"]) == (400, "unsupported", "tools")
    assert "house" in told["message"]


async def test_its_errors_reach_clients_of_other_protocols_in_their_own_words() -> None:
    error = {"error": {"message": "Slow down", "type": "too_fast"}}
    async with Upstream(reply(error, 429, {"retry-after": "7"})) as upstream, house(upstream) as proxy:
        status, body = await ask(proxy, "/v1/chat/completions", CHAT)

    told = json.loads(body)["error"]
    assert (status, told["message"], told["type"]) == (429, "Slow down", "rate_limit_error")


async def test_a_client_of_its_own_is_answered_by_openai() -> None:
    question = {"model": "m", "turns": [{"who": "human", "says": "Hi"}], "limit": 20}
    pieces = stream(chat_chunk("Hel"), chat_chunk("lo."), chat_chunk(None, finish="stop"))
    async with (
        Upstream(reply(completion("Hello."))) as upstream,
        Proxy(openai_at(upstream.base_url), plugins=[llmproxy_parley]) as proxy,
    ):
        _, plain = await ask(proxy, "/v1/talk", question)
        upstream.then(pieces)
        _, streamed = await ask(proxy, "/v1/talk", question | {"live": True})

    assert json.loads(plain)["says"] == "Hello."
    reader = ParleyDialect().reader(ParleyDialect.apis[0])
    heard = [event for frame in reader.feed(streamed) for event in frame.events]
    assert "".join(event.text for event in heard if isinstance(event, TextDelta)) == "Hello."
    assert isinstance(heard[-1], Ended)
