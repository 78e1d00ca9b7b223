"""A processor shares one event loop with all calls, and one instance with all calls of its route."""

from __future__ import annotations

import asyncio

import attrs

from llmproxy_core.dialect import Operation
from llmproxy_core.testing.asked import Asked, chat
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.heard import differences
from llmproxy_core.testing.loop import TimedLoop, in_own_loop
from llmproxy_core.testing.played import Play
from llmproxy_core.testing.said import Said
from llmproxy_core.testing.stage import Run, Stage
from llmproxy_core.testing.stand import Stand
from llmproxy_core.testing.trial import heard, must_complete, says, trials
from llmproxy_core.testing.verdict import NotConforming
from llmproxy_core.testing.ways import WAYS, Way
from llmproxy_core.usage import Usage

TRIES = 5
"""A machine that is busy with other things holds up a step now and then; a processor that blocks does it each time."""
AT_ONCE = 10
PACES = (0, 1, 3)
"""How many turns of the loop one call is behind another: what mixes them up may need them side by side, or apart."""


def does_not_block_the_loop(declared: Declared) -> None:
    """No step of any call holds up the event loop: all other calls of the process would wait."""
    stand = Stand(declared)
    in_own_loop(lambda: _never_blocks(stand), TimedLoop)


async def _never_blocks(stand: Stand) -> None:
    allowed_s = stand.declared.blocking_s
    for asked, way, play in trials(stand):
        longest_s: list[float] = []
        for _ in range(TRIES):
            longest_s.append(await _longest_step(stand, asked, way, play))
            if longest_s[-1] <= allowed_s:
                break
        else:
            raise NotConforming(
                f"{way}: it holds up the event loop for {min(longest_s):.3f} s (the least of {TRIES} tries; allowed: "
                f"{allowed_s:g} s): await what waits (asyncio.sleep, not time.sleep), and give long work to "
                "asyncio.to_thread"
            )


async def _longest_step(stand: Stand, asked: Asked, way: Way, play: Play) -> float:
    """The longest step of a call, in seconds; what building takes is not counted."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TimedLoop)
    async with Stage(stand) as stage:
        await asyncio.sleep(0)
        loop.longest_s = 0.0
        run = await stage.call(asked, way, play)
        await stage.leftovers()  # what goes on in the background is not to block either
        must_complete(stand.declared, run)
        return loop.longest_s


def keeps_nothing_between_calls(declared: Declared) -> None:
    """Many calls at once, and again one after the other, through one instance: each is answered as if it were alone."""
    stand = Stand(declared)
    if Operation.CHAT in stand.operations:
        in_own_loop(lambda: _alone_and_together(stand))


async def _alone_and_together(stand: Stand) -> None:
    for way in WAYS:
        alone = [await _alone(stand, way, number) for number in range(AT_ONCE)]
        for pace in PACES:
            async with Stage(stand) as stage:
                together = [_begin(stage, stand, way, number) for number in range(AT_ONCE)]
                await stage.together(together, pace)
                _compare(stand, way, alone, together, "at once")
                again = [await stage.serve(_begin(stage, stand, way, number, "again-")) for number in range(AT_ONCE)]
                _compare(stand, way, alone, again, "a second time")
        async with Stage(stand) as stage:
            twins = [_begin(stage, stand, way, 0, f"twin-{number}-") for number in range(AT_ONCE)]
            await stage.together(twins, 0)
            _compare(stand, way, alone[:1] * AT_ONCE, twins, "with others that ask the same")


async def _alone(stand: Stand, way: Way, number: int) -> Run:
    async with Stage(stand) as stage:
        return await stage.serve(_begin(stage, stand, way, number))


def _begin(stage: Stage, stand: Stand, way: Way, number: int, again: str = "") -> Run:
    """A call of which everything has *number* in it."""
    declared = stand.declared
    asked = chat(declared, stream=way.leaves_as_stream, text=f"{declared.question} ({number})")
    return stage.begin(asked, way, says(declared, numbered(declared.answers[0], number), way), id=f"{again}{number}")


def numbered(said: Said, number: int) -> Said:
    """*said*, so that it cannot be taken for another."""
    text = f"{number}: {said.text}" + " …" * (number % 3)
    return attrs.evolve(said, text=text, id=f"answer-{number}", usage=Usage(11 + number, 7))


def _compare(stand: Stand, way: Way, alone: list[Run], others: list[Run], when: str) -> None:
    for number, (one, other) in enumerate(zip(alone, others, strict=True)):
        must_complete(stand.declared, one)
        must_complete(stand.declared, other)
        found = differences(heard(stand.declared, other), heard(stand.declared, one))
        sent = [call.body for call in one.main[:1]]
        if other.main and sent and [call.body for call in other.main[:1]] != sent:
            found.append(f"request: {sent[0]!r} became {other.main[0].body!r}")
        if found:
            raise NotConforming(
                f"{way}: call {number} of {AT_ONCE}, {when}, is answered otherwise than alone:\n  "
                + "\n  ".join(found)
                + "\none instance serves all calls: keep what belongs to a call in local variables or in exchange.notes"
            )
