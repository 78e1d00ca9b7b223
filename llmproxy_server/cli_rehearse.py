"""`llmproxy rehearse`: what clients would see on a day on which providers fail, with this configuration."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from llmproxy_core.errors import ConfigError
from llmproxy_core.money import Money
from llmproxy_server.cli_exit import ConfigProblems, ExitCode, Refusal, counted, problems_of
from llmproxy_server.cli_load import load_registry
from llmproxy_server.cli_terminal import columns, complain, faint, say, strong
from llmproxy_server.loader import Loaded
from llmproxy_server.rehearsal.rehearsal import Rehearsed
from llmproxy_server.rehearsal.rehearsal import rehearse as play
from llmproxy_server.rehearsal.report import as_json
from llmproxy_server.rehearsal.script import Phase
from llmproxy_server.rehearsal.stand_in import load
from llmproxy_server.rehearsal.tally import PhaseTally, RouteTally
from llmproxy_server.reload import problem_fields
from llmproxy_server.source import Source, with_lines


def rehearse(file: str, *, calls: int, seed: int, fast: bool, json: bool) -> None:
    """Rehearse *file* and print the report; the command ends with CANNOT when it cannot be served."""
    if not file:
        raise Refusal("the name of the configuration file is empty", ExitCode.CANNOT)
    given: dict[str, object] = {"file": file, "calls": calls, "seed": seed, "fast": fast}
    try:
        loaded, done, mistakes = _rehearsed(file, calls=calls, seed=seed, fast=fast)
    except ConfigProblems as refusal:
        if json:
            _say_json({**given, "problems": [problem_fields(it) for it in refusal.problems]})
        raise
    notes = [*_notes(loaded, done), *mistakes.said()]
    if json:
        _say_json({**given, **as_json(done), "notes": notes})
        return
    for line in _report(file, calls, done, notes):
        say(line)


def _rehearsed(file: str, *, calls: int, seed: int, fast: bool) -> tuple[Loaded, Rehearsed, _Mistakes]:
    registry = load_registry()
    with problems_of(file):
        loaded = load(Source(Path(file), {}, dict(os.environ), Path.cwd()).read(), registry)
        begins = _quiet if fast else _progress
        with _Mistakes() as mistakes:
            try:
                done = play(loaded.config, registry, calls=calls, seed=seed, fast=fast, begins=begins)
            except ConfigError as error:
                raise ConfigError(with_lines(error.problems, loaded)) from error
    return loaded, done, mistakes


def _say_json(said: Mapping[str, object]) -> None:
    say(msgspec.json.format(msgspec.json.encode(said)).decode())


def _progress(phase: Phase) -> None:
    if sys.stderr.isatty():
        complain(faint(phase.name))


def _quiet(phase: Phase) -> None:
    """Over before anybody has read it."""


class _Mistakes(logging.Handler):
    """The log of the proxy that is rehearsed: its calls are in the report, so only what went wrong besides counts."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._number = 0
        self._first = ""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message != "exchange":
            self._number += 1
            self._first = self._first or message

    def said(self) -> Iterator[str]:
        if self._number:
            yield f"the proxy logged {counted(self._number, 'error')}, the first of them: {self._first}"

    def __enter__(self) -> _Mistakes:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)


# -- for people ------------------------------------------------------------------------------------------------------


def _report(file: str, calls: int, done: Rehearsed, notes: list[str]) -> Iterator[str]:
    phases = counted(len(done.phases), "phase")
    yield f"{strong(f'rehearsal of {file}')}: {phases}, {counted(calls, 'call')} to each route in each"
    for phase in done.phases:
        yield ""
        yield from _phase(phase, done.concerned(phase))
    yield ""
    yield from _verdict(done)
    if done.advice:
        yield ""
        yield strong("to think about (docs/reliability.md)")
        yield from (f"  route {it.route}: {it.message}" for it in done.advice)
    if notes:
        yield ""
        yield from (f"{strong('note:', 'yellow')} {note}" for note in notes)


def _phase(tally: PhaseTally, routes: Sequence[RouteTally]) -> Iterator[str]:
    yield strong(tally.phase.name)
    yield from columns(_row(route) for route in routes)
    for route in routes:
        if route.errors:
            yield f"      {route.route} told: {_numbers(route.errors)}"
        if route.passed_over:
            yield f"      {route.route} left alone: {_numbers(route.passed_over)}"
    saw = {name: number for name, number in tally.asked.items() if tally.phase.provider in (None, name)}
    yield from (faint(f"      {name} saw {counted(number, 'call')}") for name, number in saw.items())


def _row(tally: RouteTally) -> tuple[str, ...]:
    all_well = tally.answered == tally.calls
    return (
        tally.route,
        f"{tally.answered} of {tally.calls} answered" if not all_well else f"all {tally.calls} answered",
        f"{tally.stood_in} by another LLM" if tally.stood_in else "",
        f"{tally.retried} tried again" if tally.retried else "",
        f"{tally.median_s:.1f} s, at most {tally.worst_s:.1f} s",
        _cost([tally]),
    )


def _numbers(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{number} x {error}" for error, number in errors.items())


def _verdict(done: Rehearsed) -> Iterator[str]:
    if done.share is None:
        called = any(done.phases[0].asked.values())
        yield strong(
            "No route depends on a provider that was called"
            if called
            else "No provider was called: there is none that could fail"
        )
        return
    answered, calls = sum(it.answered for it in done.tested), sum(it.calls for it in done.tested)
    yield strong(
        f"While one provider failed, {answered} of {calls} calls were answered well ({done.share:.1%})",
        "green" if answered == calls else "yellow",
    )
    yield f"What it would have cost: {_cost(done.phases[0].routes)} when all is well,"
    everything = [route for phase in done.phases for route in phase.routes]
    yield f"  {_cost(everything)} in all {counted(len(done.phases), 'phase')}"


def _cost(tallies: Sequence[RouteTally]) -> str:
    known = sum((it.cost for it in tallies), Money())
    tokens = sum(sum(it.tokens) for it in tallies)
    unpriced = any(it.unpriced for it in tallies)
    if unpriced and not known:
        return f"{tokens} tokens (no price known)"
    return f"{known} and more (not all prices are known)" if unpriced else str(known)


def _notes(loaded: Loaded, done: Rehearsed) -> Iterator[str]:
    for route in done.unasked:
        yield f"route {route} serves no chat, or none that a client could ask for: it was not rehearsed"
    used = dict.fromkeys(name for route in loaded.config.routes for name in route.processors)
    if used:
        yield f"processors ran as configured, with all their effects: {', '.join(used)}"
