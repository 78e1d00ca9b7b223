"""What is counted of a rehearsal: for each phase and route what clients saw, and what it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from statistics import median

import attrs

from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.money import Money
from llmproxy_server.rehearsal.script import Phase


class Came(Enum):
    """What came of a call, for its client."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """It was told of an error before anything else."""
    BROKEN = "broken"
    """Its answer began, and did not end well."""
    GAVE_UP = "gave_up"
    """It heard nothing for as long as SDKs wait."""


class By(Enum):
    """What had a call fail."""

    PROVIDER = "provider"
    BOUND = "bound"
    """A bound of the configuration's own: how many calls at once, how long a queue, how many connections."""
    OURS = "ours"
    """A processor, or the proxy: it would have failed whatever the providers did."""


@attrs.frozen(kw_only=True)
class Seen:
    """One call: what its client saw, and what the proxy did for it."""

    route: str
    stream: bool
    came: Came
    seconds: float
    status: int | None = None
    code: str | None = None
    """Of the error."""
    failed_by: By = By.PROVIDER
    """Where it was not answered."""
    tries: Mapping[str, int] = FrozenMap()
    """The upstream calls that were made for it, by LLM; those of processors are not in it."""
    by_processors: Mapping[str, int] = FrozenMap()
    """The upstream calls that processors made in its name, by LLM."""
    stood_in: bool = False
    """Another LLM answered than the one that was to."""
    passed_over: tuple[str, ...] = ()
    """Why LLMs were not asked that would have been, as codes."""
    cost: Money | None = None
    input_tokens: int = 0
    output_tokens: int = 0


@attrs.frozen
class RouteTally:
    """The calls of one phase to one route."""

    route: str
    seen: Sequence[Seen]

    def number(self, came: Came) -> int:
        return sum(it.came is came for it in self.seen)

    @property
    def calls(self) -> int:
        return len(self.seen)

    @property
    def answered(self) -> int:
        return self.number(Came.ANSWERED)

    @property
    def failed(self) -> int:
        return self.calls - self.answered

    def failed_by(self, by: By) -> Sequence[Seen]:
        """Those that failed, of these causes."""
        return [it for it in self.seen if it.came is not Came.ANSWERED and it.failed_by is by]

    @property
    def retried(self) -> int:
        """Those that took more than one try."""
        return sum(sum(it.tries.values()) > 1 for it in self.seen)

    @property
    def stood_in(self) -> int:
        """Those that were answered well, by another LLM than the one that was to."""
        return sum(it.stood_in and it.came is Came.ANSWERED for it in self.seen)

    @property
    def errors(self) -> Mapping[str, int]:
        """What failed calls were told, and how often: status and code, the code alone within an answer."""
        return told(it for it in self.seen if it.came is not Came.ANSWERED)

    @property
    def tries(self) -> Mapping[str, int]:
        """By LLM."""
        return _total(it.tries for it in self.seen)

    @property
    def by_processors(self) -> Mapping[str, int]:
        """By LLM."""
        return _total(it.by_processors for it in self.seen)

    @property
    def passed_over(self) -> Mapping[str, int]:
        """Why LLMs were not asked, and how often."""
        return _most(code for it in self.seen for code in it.passed_over)

    @property
    def median_s(self) -> float:
        return median(it.seconds for it in self.seen)

    @property
    def worst_s(self) -> float:
        return max(it.seconds for it in self.seen)

    @property
    def cost(self) -> Money:
        """Of the calls whose price is known."""
        return sum((it.cost for it in self.seen if it.cost is not None), Money())

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output."""
        return sum(it.input_tokens for it in self.seen), sum(it.output_tokens for it in self.seen)

    @property
    def unpriced(self) -> int:
        """Calls that used tokens whose price nobody knows."""
        return sum(it.cost is None and it.input_tokens + it.output_tokens > 0 for it in self.seen)


@attrs.frozen
class PhaseTally:
    """One phase. *asked* are the model calls that each provider saw, by its name."""

    phase: Phase
    routes: Sequence[RouteTally]
    asked: Mapping[str, int]

    @property
    def calls(self) -> int:
        return sum(route.calls for route in self.routes)

    @property
    def answered(self) -> int:
        return sum(route.answered for route in self.routes)


def told(failed: Iterable[Seen]) -> Mapping[str, int]:
    """What the clients of calls that *failed* were told, and how often."""
    return _most(_told(it) for it in failed)


def _told(seen: Seen) -> str:
    match seen.came:
        case Came.GAVE_UP:
            return "the client gave up"
        case Came.BROKEN:
            return f"broken off: {seen.code or 'cut'}"
        case _:
            return f"{seen.status} {seen.code or ''}".rstrip()


def _total(numbers: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    total = Counter[str]()
    for each in numbers:
        total.update(each)
    return dict(sorted(total.items()))


def _most(words: Iterable[str]) -> Mapping[str, int]:
    return dict(Counter(words).most_common())
