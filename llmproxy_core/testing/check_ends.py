"""However a call ends, nothing of it stays open; a client that goes away is never kept."""

from __future__ import annotations

import asyncio

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import UpstreamCut
from llmproxy_core.testing.asked import Asked
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.loop import in_own_loop
from llmproxy_core.testing.played import Play
from llmproxy_core.testing.stage import Run, Stage
from llmproxy_core.testing.stand import Stand
from llmproxy_core.testing.trial import trials
from llmproxy_core.testing.verdict import NotConforming
from llmproxy_core.testing.ways import Way

MOST_STEPS = 1000
"""More awaits than this of one call are not tried one by one."""


def leaves_nothing_open(declared: Declared) -> None:
    """One outcome, every answer finished, every connection closed, no task, whichever way a call ends."""
    stand = Stand(declared)
    in_own_loop(lambda: _nothing_open(stand))


async def _nothing_open(stand: Stand) -> None:
    for asked, way, play in trials(stand):
        await _one(stand, asked, way, play, "the call is complete")
        await _one(stand, asked, way, Play(play.said, error=UpstreamCut("cut")), "the LLM fails")
        if play.streamed:
            half = play.chunks[: len(play.chunks) // 2]
            await _one(stand, asked, way, Play(play.said, True, (*half, UpstreamCut("cut"))), "the stream is cut")
            await _one(stand, asked, way, play, "the client leaves at the first piece", leaves=True)


async def _one(stand: Stand, asked: Asked, way: Way, play: Play, when: str, *, leaves: bool = False) -> None:
    async with Stage(stand) as stage:
        run = stage.begin(asked, way, play)

        def leave(piece: bytes) -> None:
            if leaves and run.task is not None:
                run.task.cancel()

        await stage.serve(run, on_piece=leave)
        if run.dropped:
            raise NotConforming(
                f"{run.where}, {when}: it answers with another response than the one that `call_next` gave, and leaves "
                "that one open: `response.finish(End.ABANDONED)` gives its connection back"
            )
        if found := await open_things(stage, run):
            raise NotConforming(f"{run.where}, {when}: left open: " + ", ".join(found))


async def open_things(stage: Stage, run: Run) -> list[str]:
    """What a call that is over has left behind."""
    found = await stage.leftovers()
    if run.exchange.outcome is None or run.finishes != 1:
        found.append(f"the exchange, which ended {run.finishes} times")
    for made in stage.book.of(run.exchange):
        if made.response is not None and made.response.outcome is None:
            found.append("an answer of the LLM, which nobody finished")
        if made.played is not None and not made.played.ends:
            found.append("a connection to the LLM")
    return found


def lets_cancellation_pass(declared: Declared) -> None:
    """Cancelled at any await, the call is over at once: CancelledError comes out, and all is closed."""
    stand = Stand(declared)
    in_own_loop(lambda: _cancelled_everywhere(stand))


async def _cancelled_everywhere(stand: Stand) -> None:
    first = stand.declared.answers[0]
    for asked, way, play in trials(stand):
        if asked.operation is Operation.CHAT and play.said is not first:
            continue
        for step in range(1, MOST_STEPS):
            if not await _cancelled_at(stand, asked, way, play, step):
                break


async def _cancelled_at(stand: Stand, asked: Asked, way: Way, play: Play, step: int) -> bool:
    """Whether the call waited that often at all."""

    def cancel(at: int) -> None:
        task = asyncio.current_task()
        if at == step and task is not None:
            task.cancel()

    async with Stage(stand) as stage:
        run = await stage.serve(stage.begin(asked, way, play), at_step=cancel)
        if run.result is None:
            if found := await open_things(stage, run):
                raise NotConforming(f"{run.where}, cancelled at await {step}: left open: " + ", ".join(found))
        elif run.steps >= step:
            raise NotConforming(
                f"{run.where}: cancelled at await {step}, the call goes on; let CancelledError pass: catch "
                "`Exception`, never `BaseException`, and raise it again where it must be caught"
            )
        return run.steps >= step
