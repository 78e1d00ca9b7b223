"""How many members of a group may be left alone at once, so that those that are left are not overrun."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from llmproxy_core.llm import LLMClient
from llmproxy_core.resilience.breaker import Breaker, Ejections
from llmproxy_core.resilience.breaker_state import State


def bound_ejections(members: Sequence[LLMClient], max_share: float) -> None:
    """From now on a breaker of *members* opens only while no more than that share of them is shut, or no other."""
    breakers = [_breakers(member) for member in members]
    for own in breakers:
        for breaker in own:
            breaker.may_open = partial(_may_open, own, breakers, Ejections(max_share))


def _breakers(member: LLMClient) -> list[Breaker]:
    """One for each key; none of a group, whose members have theirs."""
    guards = [layer for layer in layers(member) if isinstance(layer, Guarded)]
    return [guard.breaker for guard in guards if guard.breaker is not None]


def _may_open(own: list[Breaker], breakers: list[list[Breaker]], ejections: Ejections) -> bool:
    others = [other for other in breakers if other is not own]
    shut = sum(bool(other) and all(breaker.state is not State.CLOSED for breaker in other) for other in others)
    return ejections.may_eject(shut, len(breakers))
