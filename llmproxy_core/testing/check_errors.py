"""What the LLM fails with reaches the client as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import attrs

from llmproxy_core.errors import (
    ProcessorFailed,
    ProxyError,
    UpstreamAuthError,
    UpstreamConnectError,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from llmproxy_core.testing.asked import Asked, in_short
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.loop import in_own_loop
from llmproxy_core.testing.played import Piece, Play
from llmproxy_core.testing.stage import Run
from llmproxy_core.testing.stand import Stand
from llmproxy_core.testing.trial import call, heard, trials
from llmproxy_core.testing.verdict import NotConforming

RAISED: Sequence[Callable[[], ProxyError]] = (
    lambda: UpstreamError("Overloaded", status=503, code="overloaded", upstream_status=503, retry_after_s=3),
    lambda: UpstreamError("Too many", status=429, code="rate_limit_exceeded", upstream_status=429, retry_after_s=7),
    lambda: UpstreamError("No such model", status=404, code="model_not_found", upstream_status=404, retryable=False),
    lambda: UpstreamTimeout("Nothing came"),
    lambda: UpstreamConnectError("Nobody is there"),
    lambda: UpstreamAuthError("The provider refused our key"),
)
"""What an LLM raises instead of an answer; made anew for each call."""


def lets_errors_pass(declared: Declared) -> None:
    """
    An error before the first byte, a cut, garbage: the client gets the LLM's own error, never a success.

    With `handles_errors` it may be another one, or none; a processor never fails with a bug of its own.
    """
    stand = Stand(declared)
    in_own_loop(lambda: _lets_pass(stand))


async def _lets_pass(stand: Stand) -> None:
    for asked, way, play in trials(stand):
        for how, make in _failures(stand, asked, play):
            run = await call(stand, asked, way, make())
            _no_bug(f"{run.where}, {how}", run)
            if run.main and not stand.declared.handles_errors:
                expected = (await call(stand, asked, way, make(), bare=True)).error
                _judge(stand, f"{run.where}, {how}", run, expected)
        helpless = attrs.evolve(play, helper_error=UpstreamConnectError("Nobody is there"))
        run = await call(stand, asked, way, helpless)
        _no_bug(f"{run.where}, its own call of an LLM fails", run)


def _failures(stand: Stand, asked: Asked, play: Play) -> Iterator[tuple[str, Callable[[], Play]]]:
    """*play*, failing in every way; made anew for each call: what was raised once is not raised again."""
    for make in RAISED:
        yield f"the LLM raises {make().code}", partial(_raising, play, make)
    if play.streamed and asked.api is not None:
        half = list(play.chunks[: len(play.chunks) // 2])
        told = stand.declared.dialect.error_event(RAISED[0](), "upstream")
        yield "the stream is cut before its first byte", partial(_cut, play, [])
        yield "the stream is cut in the middle", partial(_cut, play, half)
        yield "the stream is cut inside an event", partial(_cut, play, [*half, b"data: {"])
        yield "the stream ends without its terminal event", partial(_ending, play, play.chunks[:-1])
        yield "garbage comes in the middle", partial(_ending, play, [*half, b"data: nonsense\n\n"])
        yield "the LLM tells an error in the middle", partial(_ending, play, [*half, told])


def _raising(play: Play, make: Callable[[], ProxyError]) -> Play:
    return attrs.evolve(play, error=make())


def _cut(play: Play, chunks: Sequence[Piece]) -> Play:
    return attrs.evolve(play, chunks=(*chunks, UpstreamCut("The upstream's answer was cut")))


def _ending(play: Play, chunks: Sequence[Piece]) -> Play:
    return attrs.evolve(play, chunks=chunks)


def _no_bug(where: str, run: Run) -> None:
    if isinstance(run.error, ProcessorFailed):
        raise NotConforming(f"{where}: the processor fails with a bug of its own: {in_short(run.error)}")


def _judge(stand: Stand, where: str, run: Run, expected: ProxyError | None) -> None:
    if expected is None:
        return
    error = run.error
    if error is None:
        raise NotConforming(
            f"{where}: the client got a success instead of {in_short(expected)}; let the error pass, or declare "
            "handles_errors = True"
        )
    if _figures(error) != _figures(expected):
        raise NotConforming(
            f"{where}: {in_short(expected)} became {in_short(error)}; let the error pass, or declare "
            "handles_errors = True"
        )
    if run.asked.stream and run.body and heard(stand.declared, run).ended:
        raise NotConforming(f"{where}: the client's stream ends as if it were complete")


def _figures(error: ProxyError) -> tuple[object, ...]:
    return type(error), error.status, error.code, error.retryable, error.retry_after_s
