"""
A policy sees what real providers say, however their answers came and whoever gets them.

A phrase of each channel of each recorded answer is rewritten: it reaches no client, and all else arrives as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core import Exchange, Handler, Operation, ProcessorType, Replace, Response, Services, hookimpl
from llmproxy_core.chat import AudioPart, ChatReply, Part, ReasoningPart, RefusalPart, TextPart, ToolCall
from llmproxy_core.testing.grammar import check_stream
from tests.exact import post
from tests.matrix import REWRITE, NoKeys
from tests.overheard import overheard
from tests.proxy import Proxy
from tests.recordings import CHATS, Recording, recordings
from tests.speaking import SPEAKERS, Speaker, called, llm_at, said, thought
from tests.upstream import Upstream, replay

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)
CASES = [it for it in recordings(status=200, fails=False) if it.protocol in CHATS]
CUTS = tuple(range(7, 200_000, 61))
_RUN = re.compile(r"[A-Za-z0-9 ,.]{12,}")


class Rewriting:
    """A plugin whose processor rewrites *phrase*."""

    def __init__(self) -> None:
        self.phrase = ""

    async def rewrite(self, exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        words = {self.phrase: REWRITE}
        response.rewrite(lambda channel: Replace(words))
        return response

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        def build(config: NoKeys, services: Services) -> Any:
            return self.rewrite

        return [ProcessorType("test_rewriting", NoKeys, build, frozenset({Operation.CHAT}))]


@attrs.frozen
class Played:
    """A recorded answer, and who it came from."""

    case: Recording
    reply: ChatReply

    @classmethod
    def of(cls, case: Recording) -> Played:
        return cls(case, cls._speaker(case).read(case.response_body, stream=case.grammar is not None))

    @staticmethod
    def _speaker(case: Recording) -> Speaker:
        return Speaker(case.dialect, array=case.grammar == "gemini-array")

    @property
    def clients(self) -> Iterator[Speaker]:
        """All who would be given it: of Gemini's own clients those that ask for its form."""
        own = self._speaker(self.case)
        return (it for it in SPEAKERS if it.name != own.name or it == own or self.case.grammar is None)

    @property
    def phrases(self) -> set[str]:
        """One of each channel; none that the request has, which some answers repeat."""
        found: dict[type[Part], str] = {}
        for part in self.reply.choices[0].content if self.reply.choices else ():
            runs = [run for run in _RUN.findall(_text(part)) if run[:16].strip() not in self.case.request_body.decode()]
            if runs:
                found.setdefault(type(part), max(runs, key=len)[:16].strip())
        return set(found.values())

    def check(self, got: ChatReply, phrase: str) -> None:
        assert said(got) == said(self.reply).replace(phrase, REWRITE)
        assert thought(got) == thought(self.reply).replace(phrase, REWRITE)
        calls = [
            (name, json.loads(json.dumps(arguments, ensure_ascii=False).replace(phrase, REWRITE)))
            for name, arguments in called(self.reply)
        ]
        assert called(got) == calls


def _text(part: Part) -> str:
    match part:
        case TextPart() | ReasoningPart() | RefusalPart():
            return part.text
        case ToolCall():
            return part.arguments
        case AudioPart():
            return part.transcript or ""
        case _:
            return ""


PLAYED = [played for played in map(Played.of, CASES) if played.phrases]


def mapping(case: Recording, url: str) -> dict[str, Any]:
    return {
        "llm": {"main": llm_at(case.dialect, url)},
        "processor": {"rewriting": {"type": "test_rewriting"}},
        "route": [{"path_prefix": "/", "target_llm": "main", "operations": ["chat"], "processors": ["rewriting"]}],
    }


def test_most_recordings_say_enough() -> None:
    assert len(PLAYED) > len(CASES) * 0.6
    assert {played.case.dialect for played in PLAYED} == {speaker.name for speaker in SPEAKERS}


@pytest.mark.parametrize("played", PLAYED, ids=lambda played: str(played.case))
async def test_a_recorded_phrase_is_rewritten_for_every_client(played: Played) -> None:
    rewriting = Rewriting()
    upstream = Upstream(replay(played.case, CUTS))
    async with upstream, Proxy(mapping(played.case, upstream.url), plugins=[*PLUGINS, rewriting]) as proxy:
        for client in played.clients:
            for rewriting.phrase in played.phrases:
                await check(played, client, rewriting.phrase, proxy.url)


async def check(played: Played, client: Speaker, phrase: str, url: str) -> None:
    stream = played.case.grammar is not None
    path = client.path(stream=stream, model="a-model")
    seen = await post(url + path, client.body(stream=stream, model="a-model"), client.headers())

    where = f"{phrase!r} to {client}: {seen.body[-2000:]!r}"
    assert (seen.status, seen.whole) == (200, True), where
    assert not any(phrase in text for text in overheard(seen.body)), where
    if stream:
        own = client.name == played.case.dialect
        assert check_stream(str(client), seen.body, strict=not own) == [], where
    played.check(client.read(seen.body, stream=stream), phrase)
