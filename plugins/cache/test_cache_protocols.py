"""One question is one entry in every protocol: plain or streamed, and whoever's key is in its query."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import llmproxy_anthropic
import llmproxy_cache
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core import CHANGED_HEADER
from llmproxy_core.chat import ChatEvent, Finish, Finished, FinishReason, ReasoningDelta, TextDelta
from llmproxy_core.testing.grammar import check_stream
from tests.answering import Answering
from tests.exact import Seen, post
from tests.proxy import Proxy
from tests.speaking import SPEAKERS, Speaker, llm_at, said, thought
from tests.upstream import Upstream

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral, llmproxy_cache)
STATUS, KEY = "x-llmproxy-cache", "x-llmproxy-cache-key"
SAID: list[ChatEvent] = [
    ReasoningDelta(0, "I know "),
    ReasoningDelta(0, "this."),
    TextDelta(0, "It is "),
    TextDelta(0, "sunny."),
    Finished(0, Finish(FinishReason.STOP)),
]
GEMINI = (Speaker("gemini"), Speaker("gemini", array=True))


@attrs.frozen
class Cached:
    """A proxy with a cache before an LLM that speaks as *llm*."""

    llm: Speaker
    proxy: Proxy
    upstream: Upstream

    async def ask(self, client: Speaker, *, stream: bool, path: str | None = None, query: str = "") -> Seen:
        self.upstream.script = Answering(self._asked_by(client), stream, SAID).complete()
        path = client.path(stream=stream, model="a-model") if path is None else path
        if query:
            path += ("&" if "?" in path else "?") + query
        return await post(
            self.proxy.url + path,
            client.body(stream=stream, model="a-model"),
            [pair for pair in client.headers() if not (query and pair[0] == "x-goog-api-key")],
        )

    def _asked_by(self, client: Speaker) -> Speaker:
        """The upstream of the client's own protocol is asked in the client's own form."""
        return client if client.name == self.llm.name else self.llm


@asynccontextmanager
async def cached(llm: Speaker, **route: str) -> AsyncIterator[Cached]:
    async with Upstream() as upstream:
        chats = {"path_prefix": "/", "target_llm": "main", "operations": ["chat"], "processors": ["cache"]}
        mapping: dict[str, Any] = {
            "llm": {"main": llm_at(llm.name, upstream.url)},
            "processor": {"cache": {"type": "cache"}},
            "route": [chats | route],
        }
        async with Proxy(mapping, plugins=PLUGINS) as proxy:
            yield Cached(llm, proxy, upstream)


def check(client: Speaker, seen: Seen, *, stream: bool) -> None:
    assert (seen.status, seen.whole) == (200, True), seen.body
    if stream:
        assert check_stream(str(client), seen.body) == []
    reply = client.read(seen.body, stream=stream)
    assert (thought(reply), said(reply)) == ("I know this.", "It is sunny.")


@pytest.mark.parametrize("first", [False, True], ids=["plain_first", "stream_first"])
@pytest.mark.parametrize("llm", [Speaker("openai"), Speaker("anthropic"), Speaker("gemini")], ids=str)
@pytest.mark.parametrize("client", SPEAKERS, ids=str)
async def test_the_other_form_of_a_question_is_a_hit(client: Speaker, llm: Speaker, first: bool) -> None:
    async with cached(llm) as stage:
        missed = await stage.ask(client, stream=first)
        await stage.proxy.gateway.services.tasks.drain(10)
        hit = await stage.ask(client, stream=not first)

        assert (missed.header(STATUS), hit.header(STATUS)) == ("miss", "hit")
        check(client, missed, stream=first)
        check(client, hit, stream=not first)
        assert len(stage.upstream.requests) == 1


@pytest.mark.parametrize(("first", "then"), [GEMINI, GEMINI[::-1]], ids=["array_later", "array_first"])
@pytest.mark.parametrize("llm", [Speaker("openai"), Speaker("gemini")], ids=str)
async def test_both_forms_of_geminis_streams_are_one_question(llm: Speaker, first: Speaker, then: Speaker) -> None:
    async with cached(llm) as stage:
        seen = await stage.ask(first, stream=True)
        await stage.proxy.gateway.services.tasks.drain(10)
        again = await stage.ask(then, stream=True)

        assert (seen.header(STATUS), again.header(STATUS)) == ("miss", "hit")
        check(first, seen, stream=True)
        check(then, again, stream=True)


async def test_a_hit_says_what_was_left_out_of_the_question() -> None:
    question = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "safetySettings": []}
    async with cached(Speaker("openai"), on_unsupported="drop") as stage:
        stage.upstream.script = Answering(Speaker("openai"), False, SAID).complete()
        target = stage.proxy.url + Speaker("gemini").path(stream=False, model="a-model")
        seen = [await post(target, json.dumps(question).encode(), Speaker("gemini").headers()) for _ in range(2)]

        assert [it.header(STATUS) for it in seen] == ["miss", "hit"]
        assert [it.header(CHANGED_HEADER) for it in seen] == ["safetySettings=dropped"] * 2
        assert [it.log_fields["changed"] for it in stage.proxy.exchanges] == ["safetySettings=dropped"] * 2


@pytest.mark.parametrize("client", SPEAKERS, ids=str)
async def test_a_key_in_the_query_makes_no_other_question(client: Speaker) -> None:
    async with cached(client) as stage:
        seen = [await stage.ask(client, stream=True, query=f"key=AIza-{number}") for number in range(2)]

        assert [it.header(STATUS) for it in seen] == ["miss", "hit"]
        assert all("AIza" not in received.target for received in stage.upstream.requests)


@pytest.mark.parametrize("query", ["timeout=1", "api-version=2"])
async def test_what_else_a_query_says_makes_another_question(query: str) -> None:
    async with cached(Speaker("openai")) as stage:
        seen = [await stage.ask(Speaker("openai"), stream=False, query=it) for it in ("", query, query)]

        assert [it.header(STATUS) for it in seen] == ["miss", "miss", "hit"]


async def test_a_tuned_model_is_another_one() -> None:
    async with cached(Speaker("gemini")) as stage:
        client = Speaker("gemini")
        path = "/v1beta/{}/a-model:generateContent"
        seen = [await stage.ask(client, stream=False, path=path.format(it)) for it in ("models", "tunedModels")]

        assert [it.header(STATUS) for it in seen] == ["miss", "miss"]
        assert seen[0].header(KEY) != seen[1].header(KEY)
