"""A scripted day: which provider fails how, and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum

import attrs

from llmproxy_core.frozenmap import FrozenMap

RETRY_AFTER_S = 3
LIMIT_PERIOD_S = 2.0 * RETRY_AFTER_S
"""A provider that limits does so for the first half of each period."""
FIRST_TOKEN_S = 0.3
SLOW_FIRST_TOKEN_S = 20.0
ANSWER_S = 0.4
"""From the first token of a stream to its end."""
SLOW_ANSWER_S = 10.0
PHASE_S = 20.0
RECOVERY_S = 60.0


class Fault(Enum):
    """What is the matter with a provider: what it does, and what it did, in the words of a report."""

    LIMITS = ("limits its callers half of the time (429)", "limited its callers")
    DOWN = ("is down (503)", "was down")
    REFUSES = ("refuses connections", "refused connections")
    CUTS = ("cuts its answer to the first try of each call", "cut its answers")
    SILENT = ("goes silent", "went silent")
    KEY = ("refuses a key (401)", "refused a key")
    SLOW = ("is slow", "was slow")

    @property
    def does(self) -> str:
        return self.value[0]

    @property
    def was(self) -> str:
        return self.value[1]


@attrs.frozen
class Phase:
    """A part of the day. *faults* are by provider; who is not there is well."""

    name: str
    faults: Mapping[str, Fault] = FrozenMap()
    of_all: bool = False
    """No provider is left that could answer."""
    lasts_s: float = PHASE_S
    """Its calls are spread over so long; the last of them may take longer."""
    goes_on: bool = False
    """The proxy knows what it has learned in the phase before; else it has just started."""

    @property
    def provider(self) -> str | None:
        """The one that fails alone."""
        return None if self.of_all else next(iter(self.faults), None)

    @property
    def fault(self) -> Fault | None:
        return next(iter(self.faults.values()), None)


WELL = Phase("all is well")


def failures(called: Iterable[str], with_keys: frozenset[str]) -> Iterator[Phase]:
    """The phases in which one of the providers that are *called* fails; only *with_keys* can refuse one."""
    for provider in called:
        for fault in Fault:
            if fault is not Fault.KEY or provider in with_keys:
                yield Phase(f"{provider} {fault.does}", FrozenMap({provider: fault}))


def outage(providers: Iterable[str]) -> Iterator[Phase]:
    """Nobody answers; then all do again."""
    yield Phase("everything is down (503)", FrozenMap(dict.fromkeys(providers, Fault.DOWN)), of_all=True)
    yield Phase("recovery: all is well again", lasts_s=RECOVERY_S, goes_on=True)
