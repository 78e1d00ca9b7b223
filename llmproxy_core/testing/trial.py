"""Single calls as the checks make them: each with a new processor, judged where it must have succeeded."""

from __future__ import annotations

from collections.abc import Iterator

from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ProcessorFailed, RequestRejected
from llmproxy_core.testing.asked import Asked, chat, in_short, other
from llmproxy_core.testing.chunks import Chunked, plain
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.heard import Heard, hear
from llmproxy_core.testing.played import Play
from llmproxy_core.testing.said import Said
from llmproxy_core.testing.stage import Run, Stage
from llmproxy_core.testing.stand import Stand
from llmproxy_core.testing.verdict import NotConforming
from llmproxy_core.testing.ways import PLAIN, WAYS, Way


def says(declared: Declared, said: Said, way: Way, chunked: Chunked | None = None) -> Play:
    """The LLM says *said* on its *way*."""
    asked = chat(declared, stream=way.leaves_as_stream)
    assert asked.api is not None
    chunks = chunked or plain(said, declared.dialect, asked.api)
    return Play(said, way.arrives_as_stream, chunks.chunks)


async def call(stand: Stand, asked: Asked, way: Way, play: Play, *, bare: bool = False) -> Run:
    """A call through a new processor, or *bare*."""
    async with Stage(stand, bare=bare) as stage:
        return await stage.call(asked, way, play)


async def completed(stand: Stand, asked: Asked, way: Way, play: Play, *, bare: bool = False) -> Run:
    """A call that must succeed."""
    run = await call(stand, asked, way, play, bare=bare)
    must_complete(stand.declared, run)
    return run


def must_complete(declared: Declared, run: Run) -> None:
    """NotConforming when the call failed, or the LLM was passed by."""
    if run.result is None:
        raise NotConforming(f"{run.where}: the call was cancelled, though its client was there")
    error = run.error
    if isinstance(error, ProcessorFailed):
        raise NotConforming(f"{run.where}: the processor raised what is no ProxyError: {in_short(error)}")
    if isinstance(error, RequestRejected):
        raise NotConforming(
            f"{run.where}: the call was refused: {in_short(error)}; declare a question, answers or a config that it "
            "lets pass"
        )
    if error is not None:
        raise NotConforming(f"{run.where}: the call failed, though the LLM answered: {in_short(error)}")
    if not run.main and not declared.answers_itself:
        raise NotConforming(
            f"{run.where}: the processor answered without asking the LLM (`call_next`); declare answers_itself = True "
            "when that is meant"
        )


def heard(declared: Declared, run: Run) -> Heard:
    """What the client of a chat understood."""
    assert run.asked.api is not None
    try:
        return hear(declared.dialect, run.asked.api, run.body, stream=run.asked.stream)
    except NotConforming as finding:
        raise NotConforming(f"{run.where}: {finding}") from finding


def chat_trials(stand: Stand) -> Iterator[tuple[Asked, Way, Said, Play]]:
    """Every declared answer on every way; none where the processor does not act on chat."""
    declared = stand.declared
    if Operation.CHAT not in stand.operations:
        return
    for way in WAYS:
        for said in declared.answers:
            yield chat(declared, stream=way.leaves_as_stream), way, said, says(declared, said, way)


def trials(stand: Stand) -> Iterator[tuple[Asked, Way, Play]]:
    """As `chat_trials`, and a sample of every other operation."""
    yield from ((asked, way, play) for asked, way, _, play in chat_trials(stand))
    for operation in stand.operations:
        if operation is not Operation.CHAT and (asked := other(stand.declared, operation)) is not None:
            yield asked, PLAIN, Play(Said())
