"""
A policy sees every channel of every protocol: text, thinking, refusals, tool arguments, and what repeats them.

The canaries of the matrix once more, for each pair of protocols and in each channel that the LLM's protocol has; all
else of the answer arrives as it was.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core import Headers
from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    Finish,
    Finished,
    FinishReason,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
)
from llmproxy_core.testing.grammar import check_stream
from tests.answering import Answering
from tests.exact import Seen, post
from tests.matrix import BLOCK_MESSAGE, BLOCKED, REWRITE, REWRITTEN, Plugin
from tests.overheard import overheard
from tests.proxy import Proxy
from tests.speaking import SPEAKERS, Speaker, called, llm_at, said, thought
from tests.upstream import Chunk, Upstream

DIALECTS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)
SHORT = 3
"""Characters in each event: no word is whole in one."""

THOUGHT, TEXT, QUERY = "Let me look.", "Here it is.", "the weather"


def in_pieces(text: str, make: Callable[[str], ChatEvent]) -> list[ChatEvent]:
    return [make(text[start : start + SHORT]) for start in range(0, len(text), SHORT)]


def logged(text: str) -> bytes:
    """Logprobs that name the token they are of, as the OpenAI dialect reads them."""
    token = {"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": []}
    return json.dumps({"content": [token], "refusal": None}, separators=(",", ":")).encode()


@attrs.frozen
class Spoken:
    """An answer with a canary *word* in one channel."""

    channel: str
    word: str

    @property
    def events(self) -> list[ChatEvent]:
        said: list[ChatEvent] = []
        if self.channel != "refusal":
            said += in_pieces(self._with(THOUGHT, "thinking"), lambda text: ReasoningDelta(0, text))
        if self.channel == "refusal":
            said += in_pieces(self._with(TEXT, "refusal"), lambda text: RefusalDelta(0, text))
        elif self.channel == "logprobs":
            said += in_pieces(self._with(TEXT, "logprobs"), lambda text: TextDelta(0, text, logged(text)))
        else:
            said += in_pieces(self._with(TEXT, "text"), lambda text: TextDelta(0, text))
        if self.channel in ("refusal", "logprobs"):
            return [*said, Finished(0, Finish(FinishReason.STOP))]
        for index, channel in enumerate(("arguments", "later arguments")):
            said.append(ToolCallStart(0, index, f"call{index}0000"[:9], f"look_{index}"))
            arguments = json.dumps({"query": self._with(QUERY, channel)}, separators=(",", ":"))
            said += in_pieces(arguments, self._argument(index))
        return [*said, Finished(0, Finish(FinishReason.TOOL_CALLS))]

    @staticmethod
    def _argument(index: int) -> Callable[[str], ChatEvent]:
        return lambda text: ToolCallDelta(0, index, text)

    def _with(self, text: str, channel: str) -> str:
        return f"{text[:5]}{self.word}{text[5:]}" if channel == self.channel else text

    def check(self, reply: ChatReply) -> None:
        """All of the answer is in *reply*, but that the word is another."""
        here = Spoken(self.channel, REWRITE)
        if self.channel == "refusal":
            assert said(reply) == here._with(TEXT, "refusal")
            return
        assert said(reply) == here._with(here._with(TEXT, "text"), "logprobs")
        assert thought(reply) == here._with(THOUGHT, "thinking")
        if self.channel != "logprobs":
            queries = [here._with(QUERY, channel) for channel in ("arguments", "later arguments")]
            assert called(reply) == [(f"look_{index}", {"query": query}) for index, query in enumerate(queries)]


CHANNELS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"openai", "openai-responses", "anthropic", "gemini", "mistral"}),
    "thinking": frozenset({"openai", "openai-responses", "anthropic", "gemini", "mistral"}),
    "arguments": frozenset({"openai", "openai-responses", "anthropic", "gemini", "mistral"}),
    "later arguments": frozenset({"openai", "openai-responses", "anthropic", "gemini", "mistral"}),
    "refusal": frozenset({"openai", "openai-responses"}),
    "logprobs": frozenset({"openai"}),
}
"""The protocols that have each channel."""

PAIRS = [
    (client, client if client.name == llm.name else llm)
    for client in SPEAKERS
    for llm in SPEAKERS
    if not (llm.array and client.name != llm.name) and not (client.name == llm.name and client.array != llm.array)
]


def mapping(llm: Speaker, url: str) -> dict[str, Any]:
    return {
        "llm": {"main": llm_at(llm.name, url)},
        "processor": {"guard": {"type": "test_guard"}, "filter": {"type": "test_filter"}},
        "route": [
            {"path_prefix": "/", "target_llm": "main", "operations": ["chat"], "processors": ["guard", "filter"]}
        ],
    }


@attrs.frozen
class Stage:
    client: Speaker
    llm: Speaker
    proxy: Proxy
    upstream: Upstream

    async def ask(self, spoken: Spoken, *, stream: bool) -> Seen:
        self.upstream.script = Answering(self.llm, stream, spoken.events).complete()
        path = self.client.path(stream=stream, model="a-model")
        question = self.client.body(stream=stream, model="a-model")
        return await post(self.proxy.url + path, question, self.client.headers())


@asynccontextmanager
async def staged(client: Speaker, llm: Speaker) -> AsyncIterator[Stage]:
    async with Upstream() as upstream, Proxy(mapping(llm, upstream.url), plugins=[*DIALECTS, Plugin()]) as proxy:
        yield Stage(client, llm, proxy, upstream)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("client", "llm"), PAIRS, ids=str)
async def test_a_word_is_rewritten_in_every_channel(client: Speaker, llm: Speaker, stream: bool) -> None:
    async with staged(client, llm) as stage:
        for channel in (it for it, known in CHANNELS.items() if llm.name in known):
            spoken = Spoken(channel, REWRITTEN)
            seen = await stage.ask(spoken, stream=stream)

            where = f"{channel}: {seen.body!r}"
            assert (seen.status, seen.whole) == (200, True), where
            assert not any(REWRITTEN in text for text in overheard(seen.body)), where
            if stream:
                assert check_stream(str(client), seen.body) == [], where
            spoken.check(client.read(seen.body, stream=stream))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("client", "llm"), PAIRS, ids=str)
async def test_a_word_is_blocked_in_every_channel(client: Speaker, llm: Speaker, stream: bool) -> None:
    async with staged(client, llm) as stage:
        for channel in (it for it, known in CHANNELS.items() if llm.name in known):
            seen = await stage.ask(Spoken(channel, BLOCKED), stream=stream)

            where = f"{channel}: {seen.body!r}"
            assert not any(BLOCKED in text for text in overheard(seen.body)), where
            if seen.status == 200:
                assert stream, where
                assert not seen.whole, where
                assert check_stream(str(client), seen.body, failed=True) == [], where
                assert BLOCK_MESSAGE.encode() in seen.body, where
            else:
                error = client.dialect.read_error(seen.status, Headers(seen.headers), seen.body)
                assert error.message == BLOCK_MESSAGE, where


SEALS = {
    "anthropic": ReasoningDelta(0, "", signature="c2ln", provider="anthropic"),
    "openai-responses": ReasoningDelta(0, "", encrypted="c2ln", provider="openai-responses"),
}


@pytest.mark.parametrize(("client", "llm"), PAIRS, ids=str)
async def test_thinking_that_ends_as_a_word_begins_stays_where_it_is(client: Speaker, llm: Speaker) -> None:
    """What the filter holds of it comes before the seal that clients must send back with it, and before the call."""
    events = in_pieces("Let me looks", lambda text: ReasoningDelta(0, text, provider=llm.name))
    events += [SEALS[llm.name]] if llm.name in SEALS else []
    events += [TextDelta(0, "It is."), ToolCallStart(0, 0, "call00000", "look"), ToolCallDelta(0, 0, "{}")]
    events.append(Finished(0, Finish(FinishReason.TOOL_CALLS)))
    async with staged(client, llm) as stage:
        stage.upstream.script = Answering(llm, True, events).complete()
        path, question = client.path(stream=True, model="a-model"), client.body(stream=True, model="a-model")
        seen = await post(stage.proxy.url + path, question, client.headers())

    assert check_stream(str(client), seen.body) == [], seen.body
    parts = client.read(seen.body, stream=True).choices[0].content
    first = next(place for place, part in enumerate(parts) if not isinstance(part, ReasoningPart))
    assert "".join(part.text for part in parts[:first] if isinstance(part, ReasoningPart)) == "Let me looks"
    assert not any(isinstance(part, ReasoningPart) for part in parts[first:])


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("llm", SPEAKERS, ids=str)
def test_a_word_that_passed_would_be_heard(llm: Speaker, stream: bool) -> None:
    for channel in (it for it, known in CHANNELS.items() if llm.name in known):
        steps = Answering(llm, stream, Spoken(channel, BLOCKED).events).complete()
        body = b"".join(step.data for step in steps if isinstance(step, Chunk))

        assert any(BLOCKED in text for text in overheard(body)), f"{channel}: {body!r}"
        if stream and channel in ("text", "thinking") and llm.name != "openai-responses":
            assert BLOCKED.encode() not in body  # it comes in pieces alone
