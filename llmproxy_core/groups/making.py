"""Which of the parts of this package an LLM needs, by what its table says."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache, partial

import attrs

from llmproxy_core.group_config import BalanceConfig, ByModelConfig, FallbackConfig, RaceConfig, StickyConfig
from llmproxy_core.groups.group import Group, Order
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.keys import Keys
from llmproxy_core.groups.measured import Measured
from llmproxy_core.groups.members import Members
from llmproxy_core.groups.orders import (
    as_written,
    by_priority,
    least_in_flight,
    peak_ewma,
    round_robin,
    sticky,
    weighted,
)
from llmproxy_core.groups.places import Places, Room
from llmproxy_core.groups.race import Race
from llmproxy_core.groups.rest import Rest
from llmproxy_core.groups.said import of_conversation, of_header, of_user
from llmproxy_core.groups.tried import Tried
from llmproxy_core.llm import LLMClient
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_core.resilience.backoff import Retries
from llmproxy_core.resilience.breaker import Breaker
from llmproxy_core.resilience.budget import RetryBudget
from llmproxy_core.services import Services

_TRANSPARENT = (FallbackConfig, ByModelConfig)
"""Groups whose members are called as if nobody stood between."""
Build = Callable[[LLMConfig], LLMClient]


# -- single LLMs -----------------------------------------------------------------------------------------------------


def falling_over(llms: Mapping[str, LLMConfig]) -> frozenset[str]:
    """The LLMs that a group of this package may call when another try is due, itself or through other groups."""
    found = set[str]()
    left = [name for name, llm in llms.items() if isinstance(llm, FallbackConfig) or llm.retries is not None]
    while left:
        llm = llms.get(left.pop())
        if isinstance(llm, _TRANSPARENT):
            left += set(llm.named()) - found
            found.update(llm.named())
    return frozenset(found)


def make_llm(config: LLMConfig, build: Build, services: Services, *, in_group: bool) -> LLMClient:
    """
    What `[llm.NAME]` stands for: what *build* makes, and around it what the table asks for, no more.

    *in_group*: a group that falls over may call it.
    """
    if isinstance(config, FallbackConfig):
        return build(config)
    has_keys = isinstance(config, HttpLLMConfig) and bool(config.keys)
    own = config.breaker is not None or has_keys or config.max_in_flight > 0
    needs_guard = (in_group or own or config.retries is not None) and not isinstance(config, _TRANSPARENT)
    llm = _guarded(config, build, services) if needs_guard else build(config)
    if config.retries is not None or has_keys:
        return Tried(llm, config.retries, services, config.commit)
    return llm


def _guarded(config: LLMConfig, build: Build, services: Services) -> LLMClient:
    """State that a reload does not lose, as long as what it is about stays the same."""
    breaker = config.breaker

    def guard(alone: LLMConfig, rest: Rest, key: str | None = None, key_rest: Rest | None = None) -> Guarded:
        made = None
        if breaker is not None:
            make = partial(Breaker, breaker, services.clock, services.random)
            made = services.kept(("breaker", config, key), make)
        return Guarded(
            build(alone),
            config.name,
            services,
            key=key,
            budget=budget,
            places=places,
            room=room,
            rest=rest,
            key_rest=key_rest,
            breaker=made,
        )

    def rest(*of: Hashable) -> Rest:
        return services.kept(("rest", config.name, *of), partial(Rest, config.name, services.clock))

    room = Room(config.max_in_flight, config.max_queued, config.queue_timeout_s)
    places = services.kept(("places", config.name), partial(Places, config.name, room))
    budget = services.kept(("budget", config.name), partial(RetryBudget, services.clock))
    if not isinstance(config, HttpLLMConfig):
        return guard(config, rest(config))
    # A provider's word to wait is to who asks it, whatever else the table says.
    asked = config.base_url, config.headers
    if not config.keys:
        return guard(config, rest(*asked, config.token))
    whole, keys = rest(*asked), config.keys
    return Keys([guard(attrs.evolve(config, token=it.token), whole, it.name, rest(*asked, it.token)) for it in keys])


# -- groups ----------------------------------------------------------------------------------------------------------


def make_fallback(config: FallbackConfig, services: Services) -> LLMClient:
    return _group(config, services, as_written)


def make_priority(config: FallbackConfig, services: Services) -> LLMClient:
    return _group(config, services, lambda members: by_priority(members, config.ranks, services.random))


def make_sticky(config: StickyConfig, services: Services) -> LLMClient:
    said = {"user": of_user, "conversation": of_conversation}.get(config.by) or of_header(
        config.by.removeprefix("header:").lower()
    )
    return _group(config, services, lambda members: sticky(members, config.members, said, services.random))


def make_race(config: RaceConfig, services: Services) -> LLMClient:
    return _group(config, services, lambda members: Race(members, config, services))


def make_balance(config: BalanceConfig, services: Services) -> LLMClient:
    return _group(config, services, partial(_balanced, config, services))


def _balanced(config: BalanceConfig, services: Services, members: Members) -> Order:
    if config.strategy == "weighted":
        return weighted(members, config.ranks, services.random)
    if config.strategy == "round_robin":
        return round_robin(members)

    @lru_cache(maxsize=1)
    def measured() -> Sequence[Measured]:
        ranked: Iterable[tuple[LLMClient, float]] = zip(
            members.llms, (rank.weight or 1e-6 for rank in config.ranks), strict=True
        )
        return [Measured(llm, weight, services.clock) for llm, weight in ranked]

    order = least_in_flight if config.strategy == "least_in_flight" else peak_ewma
    return order(measured, services.random)


def _group(config: FallbackConfig, services: Services, order: Callable[[Members], Order]) -> LLMClient:
    members = Members(config, services)
    resumes_in = services.tasks if config.resume else None
    group = Group(members, order(members), config.by_kind(), resumes_in=resumes_in)
    return Tried(group, Retries() if config.retries is None else config.retries, services, config.commit)
