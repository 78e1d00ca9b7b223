"""The configuration of LLMs that choose among others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.option import between, each, matches, option, plain_text
from llmproxy_core.resilience.breaker import share
from llmproxy_core.resilience.failure import Failure


@attrs.frozen
class Rank:
    """How a member stands in its group."""

    priority: int = 1
    weight: float = 1.0


@attrs.frozen(kw_only=True)
class GroupConfig(LLMConfig):
    """The keys of an LLM that chooses among others."""

    members: tuple[str, ...] = option(
        "The names of its LLMs, in order of preference; groups may be members of groups.",
        validator=each(plain_text),
        example=["openai", "local"],
    )
    ranks: tuple[Rank, ...] = ()
    """Those of its members, as their own tables have them; no key of the table."""

    def named(self) -> tuple[str, ...]:
        """The LLMs that it may call."""
        return self.members


@attrs.frozen(kw_only=True)
class ByModelConfig(GroupConfig):
    """The keys of an LLM that picks among others by the model that a request names."""


@attrs.frozen(kw_only=True)
class FallbackConfig(GroupConfig):
    """The keys of an LLM whose members stand in for each other."""

    on_rate_limit: str | None = option(
        "The LLM that is asked next when a member is rate limited; a member or another.",
        default=None,
        refers_to="llm",
        example="local",
    )
    on_context_window: str | None = option(
        "The LLM that is asked next when a request is too long for a member. Absent: the caller gets that answer.",
        default=None,
        refers_to="llm",
        example="large",
    )
    on_content_policy: str | None = option(
        "The LLM that is asked next when a member refuses a request for its content, by an error or by an answer that "
        "says nothing else. Absent: the caller gets that answer.",
        default=None,
        refers_to="llm",
        example="local",
    )
    on_model_not_found: str | None = option(
        "The LLM that is asked next when a provider does not know the model. Absent: the caller gets that answer.",
        default=None,
        refers_to="llm",
        example="local",
    )

    resume: bool = option(
        "Where a stream breaks off in the middle of its text, the next member that can (`prefill`) goes on with it, in "
        "the same answer. `x-llmproxy-resume` says `allowed` for it, and the log how often it was done.",
        default=False,
    )
    max_ejected_share: float = option(
        "The share of its members that their breakers may shut at once, one in any case: the others are called though "
        "they fail, rather than overrun those that are left.",
        default=0.5,
        validator=share,
    )

    def by_kind(self) -> Mapping[Failure, str]:
        """The LLM that is asked next after each kind of failure."""
        named = {
            Failure.RATE_LIMIT: self.on_rate_limit,
            Failure.CONTEXT_WINDOW: self.on_context_window,
            Failure.CONTENT_POLICY: self.on_content_policy,
            Failure.MODEL_NOT_FOUND: self.on_model_not_found,
        }
        return FrozenMap((kind, name) for kind, name in named.items() if name is not None)

    def named(self) -> tuple[str, ...]:
        return (*self.members, *self.by_kind().values())


@attrs.frozen(kw_only=True)
class BalanceConfig(FallbackConfig):
    """The keys of an LLM that spreads calls over its members, which stand in for each other."""

    strategy: Literal["weighted", "round_robin", "least_in_flight", "peak_ewma"] = option(
        "`weighted`: by lot, as `weight` in the members' tables says; `round_robin`: in turn; `least_in_flight`: the "
        "one with the fewest calls; `peak_ewma`: the one that will likely begin to answer first.",
        default="weighted",
    )


_STICKY = matches(
    r"user|conversation|header:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", '"user", "conversation" or "header:NAME"'
)


@attrs.frozen(kw_only=True)
class StickyConfig(FallbackConfig):
    """The keys of an LLM that asks the same member for the same caller."""

    by: str = option(
        "What stays with one member: `conversation` (how it begins), `user` (as the request names him) or "
        "`header:NAME`.",
        default="conversation",
        validator=_STICKY,
    )


@attrs.frozen(kw_only=True)
class RaceConfig(FallbackConfig):
    """The keys of an LLM that asks a second member when one is slow to begin, and answers with who begins first."""

    after_ms: int | None = option(
        "Milliseconds for which a member is waited for alone. Absent: as `after_percentile` says; with both, until "
        "20 of its times are known.",
        default=None,
        validator=between(0, 600_000, "a number of milliseconds"),
        example=1500,
    )
    after_percentile: float | None = option(
        "A member is waited for alone for as long as so many percent of its recent calls took to their first token; "
        "2 s until 20 are known. Absent: 95, unless `after_ms` is set.",
        default=None,
        validator=between(1, 100, "a percentage"),
        example=95,
    )
    max_extra: float = option(
        "The share of the last 100 calls that may have had a second one; 0: none.",
        default=0.05,
        validator=between(0, 1),
    )
