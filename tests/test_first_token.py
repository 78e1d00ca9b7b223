"""When a stream begins, in outcomes, log and metrics: with what it answers, not with what it tells of itself."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core import Exchange, Handler, Outcome, Response
from tests.exact import ask, post
from tests.llmproxy_server.edging import Processing, processed
from tests.proxy import Proxy
from tests.speaking import SPEAKERS, Speaker, llm_at
from tests.test_streams_that_fail_first import BEGUN, SAID
from tests.upstream import EVENT_STREAM, Chunk, Cut, Head, Reached, Step, Upstream, Wait

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)
COMMENT = b": PROCESSING\n\n"


def mapping(llm: str, url: str, *, in_group: bool) -> dict[str, Any]:
    llms: dict[str, Any] = {"it": llm_at(llm, url)}
    if in_group:
        llms["group"] = {"provider": "fallback", "members": ["it"]}
    route = {"path_prefix": "/", "target_llm": "group" if in_group else "it"}
    return {"llm": llms, "route": [route], "server": {"keepalive_s": 0}}


async def untouched(exchange: Exchange, call_next: Handler) -> Response:
    return await call_next(exchange)


async def watched(exchange: Exchange, call_next: Handler) -> Response:
    response = await call_next(exchange)
    response.watch(lambda channel: None)
    return response


async def outcome_and_gate(
    speaker: Speaker, llm: str, before: list[bytes], after: list[bytes], *, watch: bool, in_group: bool
) -> tuple[Outcome, float]:
    """What became of a stream that said *before*, then waited, and said *after* when the time was what is given too."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    first: list[Step] = [Head(200, EVENT_STREAM), *map(Chunk, before), Reached(reached), Wait(go_on)]
    script: list[Step] = [*first, *map(Chunk, after), Cut()]
    async with Upstream(script) as upstream:
        table = processed(mapping(llm, upstream.url, in_group=in_group))
        plugins = [*PLUGINS, Processing(watched if watch else untouched)]
        async with Proxy(table, plugins=plugins) as proxy:
            body, path = speaker.body(stream=True, model="m"), speaker.path(stream=True, model="m")
            async with asyncio.TaskGroup() as group:
                group.create_task(post(proxy.url + path, body, speaker.headers()))
                await reached.wait()
                await ask("GET", f"{proxy.url}/health")  # by then what had come before was read
                gate_s = time.monotonic()
                go_on.set()
            return await proxy.outcome(), gate_s


PAIRS = [(speaker, llm) for llm in SAID for speaker in SPEAKERS]
WAYS = pytest.mark.parametrize("watch", [False, True], ids=["pushed", "watched"])


@pytest.mark.parametrize(("speaker", "llm"), PAIRS, ids=[f"{speaker} of {llm}" for speaker, llm in PAIRS])
@WAYS
@pytest.mark.parametrize("in_group", [False, True], ids=["alone", "in a group"])
async def test_what_comes_before_the_first_token_is_none(
    speaker: Speaker, llm: str, watch: bool, in_group: bool
) -> None:
    before = [COMMENT, *BEGUN[llm], COMMENT]

    outcome, gate_s = await outcome_and_gate(speaker, llm, before, SAID[llm], watch=watch, in_group=in_group)

    assert outcome.first_byte_s is not None
    assert outcome.first_byte_s >= gate_s


@pytest.mark.parametrize(("speaker", "llm"), PAIRS, ids=[f"{speaker} of {llm}" for speaker, llm in PAIRS])
@WAYS
async def test_the_first_token_counts_when_it_comes(speaker: Speaker, llm: str, watch: bool) -> None:
    before = [*BEGUN[llm], *SAID[llm]]

    outcome, gate_s = await outcome_and_gate(speaker, llm, before, [], watch=watch, in_group=False)

    assert outcome.first_byte_s is not None
    assert outcome.first_byte_s < gate_s


OWN = [(speaker, speaker.name) for speaker in SPEAKERS if speaker.name in BEGUN and not speaker.array]


@pytest.mark.parametrize(("speaker", "llm"), OWN, ids=[str(speaker) for speaker, _ in OWN])
@WAYS
async def test_a_stream_that_breaks_before_its_first_token_has_none(speaker: Speaker, llm: str, watch: bool) -> None:
    outcome, _ = await outcome_and_gate(speaker, llm, BEGUN[llm], [], watch=watch, in_group=False)

    assert outcome.first_byte_s is None
