"""What a rehearsed configuration does without, and what that cost in the rehearsal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from llmproxy_core.config import Config, RouteConfig
from llmproxy_core.group_config import FallbackConfig, GroupConfig
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_server.cli_llm import reached
from llmproxy_server.rehearsal.diverted import origin_of
from llmproxy_server.rehearsal.script import WELL, Fault, Phase
from llmproxy_server.rehearsal.tally import By, Came, PhaseTally, RouteTally, Seen, told

_LONG_S = 60.0
"""A call that takes longer makes a deadline worth a thought."""
_GONE = (Fault.DOWN, Fault.REFUSES, Fault.KEY)
_PASSING = (Fault.LIMITS, Fault.CUTS)
_LATE = (Fault.SILENT, Fault.SLOW)


@attrs.frozen
class Advice:
    """A sentence for the operator. *kind* is stable, for machines; *calls* are those that it is about."""

    kind: str
    route: str
    provider: str | None
    message: str
    calls: int


def advice(config: Config, phases: Sequence[PhaseTally]) -> Sequence[Advice]:
    """What to think about, each thing once for each route and provider: as it was at its worst."""
    worst: dict[tuple[str, str, str | None], Advice] = {}
    for route in config.routes:
        for it in _of_route(_Behind.of(route, config), phases):
            key = (it.kind, it.route, it.provider)
            if key not in worst or it.calls > worst[key].calls:
                worst[key] = it
    return tuple(worst.values())


@attrs.frozen
class _Behind:
    """What is behind a route: the LLMs that it may reach, and where those over HTTP are."""

    route: RouteConfig
    llms: Mapping[str, LLMConfig]
    origins: Mapping[str, str]

    @classmethod
    def of(cls, route: RouteConfig, config: Config) -> _Behind:
        llms = {name: config.llms[name] for name in reached(route.target_llm, config.llms)}
        for llm in list(llms.values()):  # groups name some for kinds of failures only
            if isinstance(llm, FallbackConfig):
                llms |= {name: config.llms[name] for name in llm.named()}
        origins = {
            name: origin_of(llm.base_url, llm.unix_socket)
            for name, llm in llms.items()
            if isinstance(llm, HttpLLMConfig)
        }
        return cls(route, llms, origins)

    @property
    def falls_over(self) -> bool:
        return any(isinstance(llm, FallbackConfig) for llm in self.llms.values())

    @property
    def retries(self) -> bool:
        return self.falls_over or any(llm.retries is not None for llm in self.llms.values())

    def stands_in(self, provider: str) -> bool:
        """Whether a group may ask somebody who is not at *provider*."""
        single = [name for name, llm in self.llms.items() if not isinstance(llm, GroupConfig)]
        return self.falls_over and any(self.origins.get(name) != provider for name in single)

    def at(self, provider: str) -> Iterator[LLMConfig]:
        return (self.llms[name] for name, origin in self.origins.items() if origin == provider)


def _of_route(behind: _Behind, phases: Sequence[PhaseTally]) -> Iterator[Advice]:
    name = behind.route.name
    for phase in phases:
        provider, fault = phase.phase.provider, phase.phase.fault
        tally = next((it for it in phase.routes if it.route == name), None)
        if tally is None:
            continue
        if phase.phase == WELL and tally.failed:
            message = f"{tally.failed} of {tally.calls} calls failed when all was well: {_numbers(tally.errors)}"
            yield Advice("fails_when_well", name, None, message, tally.failed)
        yield from _of_bounds(behind, phase.phase, tally)
        if fault is None:
            continue
        yield from _of_time(behind, tally)
        if provider is not None and provider in behind.origins.values():
            yield from _of_failures(behind, provider, fault, tally)
            yield from _of_streams(behind, provider, fault, tally)
            yield from _of_breakers(behind, provider, fault, tally)


def _of_bounds(behind: _Behind, phase: Phase, tally: RouteTally) -> Iterator[Advice]:
    if refused := tally.failed_by(By.BOUND):
        message = (
            f"{len(refused)} of {tally.calls} calls were refused by bounds of your own (`max_in_flight`, `max_queued`, "
            f"`pool`) when {_when(phase)}: {_why(refused)}"
        )
        yield Advice("at_bound", behind.route.name, None, message, len(refused))


def _when(phase: Phase) -> str:
    if phase.fault is None:
        return "all was well again" if phase.goes_on else "all was well"
    return f"{'everything' if phase.provider is None else phase.provider} {phase.fault.was}"


def _of_time(behind: _Behind, tally: RouteTally) -> Iterator[Advice]:
    late = sum(it.seconds >= _LONG_S for it in tally.seen)
    if late and behind.route.deadline_s is None:
        message = f"there is no `deadline_s`: {late} of {tally.calls} calls took up to {tally.worst_s:.0f} s"
        yield Advice("no_deadline", behind.route.name, None, message, late)


def _of_failures(behind: _Behind, provider: str, fault: Fault, tally: RouteTally) -> Iterator[Advice]:
    failed_there = tally.failed_by(By.PROVIDER)  # of others no provider's fault is the reason
    if fault in _LATE:
        failed_there = [it for it in failed_there if it.came is not Came.BROKEN]  # of those `_of_streams` tells
    if not failed_there:
        return
    number, why = len(failed_there), _why(failed_there)
    failed = f"{number} of {tally.calls} calls failed when it {fault.was}"
    if fault in _GONE and not behind.stands_in(provider):
        kind, message = "no_stand_in", f"nothing stands in for {provider}: {failed}"
    elif fault in _GONE:
        kind, message = "stand_in_failed", f"others stand in for {provider}, and yet {failed}: {why}"
    elif fault in _PASSING and not behind.retries:
        kind, message = "no_retries", f"nothing is tried again at {provider}, without `retries`: {failed}"
    elif fault in _LATE:
        kind, message = "no_time", f"{provider} and its clocks took the time of another try: {failed}: {why}"
    else:
        return
    yield Advice(kind, behind.route.name, provider, message, number)


def _of_streams(behind: _Behind, provider: str, fault: Fault, tally: RouteTally) -> Iterator[Advice]:
    broken = tally.number(Came.BROKEN)
    if broken and behind.retries and fault in (Fault.CUTS, Fault.SILENT):
        message = (
            f"{broken} of {tally.calls} calls broke off behind the first token when {provider} {fault.was}: nothing "
            "is tried again there; a later `commit` holds text back for as long"
        )
        yield Advice("broken_streams", behind.route.name, provider, message, broken)


def _of_breakers(behind: _Behind, provider: str, fault: Fault, tally: RouteTally) -> Iterator[Advice]:
    if fault is not Fault.DOWN:
        return
    for llm in behind.at(provider):
        tries = tally.tries.get(llm.name, 0)
        if llm.breaker is None and tries >= tally.calls:
            message = (
                f"{llm.name} has no `breaker`: it was called {tries} times for {tally.calls} calls when it {fault.was}"
            )
            yield Advice("no_breaker", behind.route.name, provider, message, tries)


def _why(failed: Iterable[Seen]) -> str:
    return _numbers(told(failed))


def _numbers(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{number} x {error}" for error, number in errors.items())
