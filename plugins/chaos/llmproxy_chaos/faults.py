"""The faults that can be configured: a table for each kind, with its share of the calls and its figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import attrs

from llmproxy_chaos import failures
from llmproxy_chaos.amount import Amount, amount, drawn
from llmproxy_chaos.failures import Clock
from llmproxy_chaos.strike import Strike
from llmproxy_core import between, option, seconds

_milliseconds = amount(3_600_000, "milliseconds")
_characters = amount(10_000_000, "a number of characters")


def _statuses(value: Amount) -> None:
    found = (value,) if isinstance(value, int) else value
    if not found or not all(400 <= status <= 599 for status in found):
        raise ValueError("expected a status from 400 to 599, or an array of such")


@attrs.frozen(kw_only=True)
class Fault(ABC):
    """A kind of fault."""

    share: float = option("The share of calls that it befalls, from 0 to 1.", validator=between(0, 1), example=0.05)

    @abstractmethod
    def strike(self, name: str, first: float, second: float) -> Strike:
        """What befalls a call; *first* and *second* are what chance, 0 to below 1, gives for its figures."""


@attrs.frozen(kw_only=True)
class Latency(Fault):
    """The call is made later."""

    ms: Amount = option("Milliseconds, fixed or `[from, to]`.", validator=_milliseconds, example=[50, 400])

    def strike(self, name: str, first: float, second: float) -> Strike:
        return Strike(name, wait_s=drawn(self.ms, first) / 1000)


@attrs.frozen(kw_only=True)
class NoConnection(Fault):
    """No connection to the provider."""

    ms: Amount = option("Milliseconds until that is known, fixed or `[from, to]`.", default=0, validator=_milliseconds)

    def strike(self, name: str, first: float, second: float) -> Strike:
        return Strike(name, wait_s=drawn(self.ms, first) / 1000, failure=failures.no_connection)


@attrs.frozen(kw_only=True)
class ErrorAnswer(Fault):
    """The provider answers with an error."""

    status: Amount = option(
        "The HTTP status, or an array from which each time one is drawn.", validator=_statuses, example=[429, 503, 529]
    )
    retry_after_s: float | None = option(
        "What its `Retry-After` says, in seconds; absent: it has none.", default=None, validator=seconds
    )

    def strike(self, name: str, first: float, second: float) -> Strike:
        statuses = (self.status,) if isinstance(self.status, int) else self.status
        return Strike(name, failure=failures.refused(statuses[int(first * len(statuses))], self.retry_after_s))


@attrs.frozen(kw_only=True)
class TimedOut(Fault):
    """A clock of the call runs out."""

    clock: Clock = option(
        "Which one: `first_byte` instead of an answer, `idle` or `total` in the midst of one.", default="first_byte"
    )
    ms: Amount = option("Milliseconds until it has run out, fixed or `[from, to]`.", default=0, validator=_milliseconds)
    after_chars: Amount = option(
        "With `idle` and `total`: how much text comes before, fixed or `[from, to]`.", default=0, validator=_characters
    )

    def strike(self, name: str, first: float, second: float) -> Strike:
        place = None if self.clock == "first_byte" else drawn(self.after_chars, second)
        return Strike(name, place, drawn(self.ms, first) / 1000, failures.late(self.clock))


@attrs.frozen(kw_only=True)
class Cut(Fault):
    """The answer breaks off."""

    after_chars: Amount = option(
        "How much text comes before, fixed or `[from, to]`.", default=0, validator=_characters, example=200
    )

    def strike(self, name: str, first: float, second: float) -> Strike:
        return Strike(name, drawn(self.after_chars, first), failure=failures.cut)


@attrs.frozen(kw_only=True)
class Garbage(Fault):
    """The answer goes on with what nobody understands."""

    after_chars: Amount = option(
        "How much text comes before, fixed or `[from, to]`.", default=0, validator=_characters, example=200
    )

    def strike(self, name: str, first: float, second: float) -> Strike:
        return Strike(name, drawn(self.after_chars, first), failure=failures.garbage)


@attrs.frozen(kw_only=True)
class Stall(Fault):
    """The answer falls silent, then goes on."""

    ms: Amount = option("Milliseconds of silence, fixed or `[from, to]`.", validator=_milliseconds, example=20000)
    after_chars: Amount = option("How much text comes before, fixed or `[from, to]`.", default=0, validator=_characters)

    def strike(self, name: str, first: float, second: float) -> Strike:
        return Strike(name, drawn(self.after_chars, second), drawn(self.ms, first) / 1000)


@attrs.frozen(kw_only=True)
class SlowDrip(Fault):
    """The answer comes slowly."""

    ms: Amount = option(
        "Milliseconds before each piece of text, fixed or `[from, to]`.", validator=_milliseconds, example=200
    )

    def strike(self, name: str, first: float, second: float) -> Strike:
        return Strike(name, 0, drawn(self.ms, first) / 1000, lasting=True)


@attrs.frozen(kw_only=True)
class Faults:
    """
    What may befall a call, each kind decided for itself.

    The order is that in which they are decided, and come where several come before the call.
    """

    latency: Latency | None = option(
        "`{ share, ms }`: the call is made later.", default=None, example={"share": 0.2, "ms": [50, 400]}
    )
    connect: NoConnection | None = option(
        "`{ share, ms }`: no connection (`upstream_connect`).", default=None, example={"share": 0.01}
    )
    timeout: TimedOut | None = option(
        "`{ share, clock, ms, after_chars }`: the clock `first_byte`, `idle` or `total` runs out.",
        default=None,
        example={"share": 0.01, "clock": "first_byte", "ms": 2000},
    )
    error: ErrorAnswer | None = option(
        "`{ share, status, retry_after_s }`: an error answer; of several statuses one is drawn.",
        default=None,
        example={"share": 0.05, "status": [429, 529], "retry_after_s": 2},
    )
    stall: Stall | None = option(
        "`{ share, ms, after_chars }`: silence in the midst of the answer, which then goes on.",
        default=None,
        example={"share": 0.01, "ms": 20000, "after_chars": 100},
    )
    slow_drip: SlowDrip | None = option(
        "`{ share, ms }`: a wait before each piece of text.", default=None, example={"share": 0.01, "ms": 200}
    )
    cut: Cut | None = option(
        "`{ share, after_chars }`: the answer breaks off (`upstream_cut`).",
        default=None,
        example={"share": 0.02, "after_chars": 200},
    )
    garbage: Garbage | None = option(
        "`{ share, after_chars }`: the answer cannot be understood any more (`upstream_garbage`).",
        default=None,
        example={"share": 0.01, "after_chars": 50},
    )

    def kinds(self) -> Iterator[tuple[str, Fault | None]]:
        """All kinds by name, those that are not configured too."""
        for field in attrs.fields(Faults):
            found: Any = getattr(self, field.name)
            yield field.name, found

    @property
    def configured(self) -> tuple[str, ...]:
        return tuple(name for name, fault in self.kinds() if fault is not None)
