"""
LLMs made of other LLMs.

Registered as a plugin: `provider = "by_model"`, "fallback", "balance", "priority", "sticky", "race".

    by_model    one member, chosen by the model
    group       members that stand in for each other, in one of the `orders`
    race        an order of which a second member is asked while the first is slow
    tried       the same again after a failure: around a group, or one LLM
    keys        several keys of one LLM
    guarded     one LLM with one key: its breaker, its rest, its retry budget
    making      which of these an LLM needs
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmproxy_core.group_config import BalanceConfig, ByModelConfig, FallbackConfig, RaceConfig, StickyConfig
from llmproxy_core.groups.by_model import ByModel
from llmproxy_core.groups.making import make_balance, make_fallback, make_priority, make_race, make_sticky
from llmproxy_core.hookspecs import ProviderType, hookimpl


@hookimpl
def llmproxy_providers() -> Iterable[ProviderType[Any]]:
    return [
        ProviderType(name="by_model", config=ByModelConfig, build=ByModel),
        ProviderType(name="fallback", config=FallbackConfig, build=make_fallback),
        ProviderType(name="balance", config=BalanceConfig, build=make_balance),
        ProviderType(name="priority", config=FallbackConfig, build=make_priority),
        ProviderType(name="sticky", config=StickyConfig, build=make_sticky),
        ProviderType(name="race", config=RaceConfig, build=make_race),
    ]
