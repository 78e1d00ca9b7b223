"""A processor leaves the reading of a stream to others, and does not make its client wait for all of it."""

from __future__ import annotations

import asyncio
import contextlib

import attrs

from llmproxy_core.testing.asked import chat
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.heard import hear
from llmproxy_core.testing.loop import in_own_loop
from llmproxy_core.testing.played import Play, PlayedStream
from llmproxy_core.testing.said import Said, in_words
from llmproxy_core.testing.stage import Stage
from llmproxy_core.testing.stand import Stand
from llmproxy_core.testing.trial import call, chat_trials, must_complete
from llmproxy_core.testing.verdict import NotConforming
from llmproxy_core.testing.ways import PULLED, PUSHED, Way

WAIT_S = 2.0
"""How long the first words may take to the client, however slow the machine."""
LONG = 40
"""How often a text is said, so that a filter which holds back a little is told from one that holds back all."""


def leaves_the_stream_alone(declared: Declared) -> None:
    """It never reads a stream: it subscribes, or asks for `reply()` or `started()`."""
    stand = Stand(declared)
    in_own_loop(lambda: _alone(stand))


async def _alone(stand: Stand) -> None:
    for asked, way, _, play in chat_trials(stand):
        run = await call(stand, asked, way, play)
        for made in run.calls:
            if isinstance(made.response, PlayedStream) and made.response.touched:
                raise NotConforming(
                    f"{way}: the processor reads the stream itself, past what others subscribed to; use `watch`, "
                    "`rewrite`, `replace` or `keep_body`, or `await response.reply()` for a whole answer"
                )


def passes_the_answer_on_at_once(declared: Declared) -> None:
    """Without `buffers` the client of a stream gets the first words before the last ones have come."""
    stand = Stand(declared)
    if not declared.buffers:
        in_own_loop(lambda: _at_once(stand))


async def _at_once(stand: Stand) -> None:
    for _, way, said, _ in chat_trials(stand):
        if way in (PULLED, PUSHED) and said.text:
            long = attrs.evolve(said, text=" ".join([said.text] * LONG), calls=())
            await _hold_the_end_back(stand, way, long)


async def _hold_the_end_back(stand: Stand, way: Way, said: Said) -> None:
    """The LLM stops before the end of its text until the client has heard something."""
    declared = stand.declared
    asked = chat(declared, stream=True)
    api = asked.api
    assert api is not None
    chunks = said.stream(declared.dialect, api, in_words)
    cut = len(chunks) - 6  # among the last words: what ends the answer is still to come
    heard_something, go_on = asyncio.Event(), asyncio.Event()
    async with Stage(stand) as stage:
        run = stage.begin(asked, way, Play(said, True, (*chunks[:cut], go_on, *chunks[cut:])))

        def listen(piece: bytes) -> None:
            if not heard_something.is_set() and hear(declared.dialect, api, run.body, stream=True).reply.text:
                heard_something.set()

        async def wait() -> bool:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(heard_something.wait(), WAIT_S)
            in_time = heard_something.is_set()
            go_on.set()
            return in_time

        _, in_time = await asyncio.gather(stage.serve(run, on_piece=listen), wait())
        must_complete(declared, run)
        if run.main and not in_time:
            raise NotConforming(
                f"{way}: the client hears nothing until the whole answer is there; use `watch` or `rewrite` and hold "
                "back as little as the decision needs, or declare buffers = True"
            )
