"""How many members of a group may be left alone at once, so that those that are left are not overrun."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from llmproxy_core.group_config import FallbackConfig
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from llmproxy_core.llm import LLMClient
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.resilience.breaker import Breaker, Ejections
from llmproxy_core.resilience.breaker_state import State


def bound_ejections(configs: Iterable[LLMConfig], llms: Mapping[str, LLMClient]) -> None:
    """
    From now on a breaker opens only where every group that has its LLM as a member allows it.

    A group does while no more than its `max_ejected_share` of its members is shut, or no other is.
    """
    bounds: dict[Breaker, list[Callable[[], bool]]] = {}
    for config in configs:
        if isinstance(config, FallbackConfig) and config.enabled:
            members = [_breakers(llms[name]) for name in config.members]
            ejections = Ejections(config.max_ejected_share)
            for own in members:
                for breaker in own:
                    bounds.setdefault(breaker, []).append(partial(_may_open, own, members, ejections))
    for breaker, asked in bounds.items():
        breaker.may_open = partial(_all, asked)


def _breakers(member: LLMClient) -> list[Breaker]:
    """One for each key; none of a group, whose members have theirs."""
    guards = [layer for layer in layers(member) if isinstance(layer, Guarded)]
    return [guard.breaker for guard in guards if guard.breaker is not None]


def _may_open(own: list[Breaker], breakers: list[list[Breaker]], ejections: Ejections) -> bool:
    others = [other for other in breakers if other is not own]
    shut = sum(bool(other) and all(breaker.state is not State.CLOSED for breaker in other) for other in others)
    return ejections.may_eject(shut, len(breakers))


def _all(asked: Sequence[Callable[[], bool]]) -> bool:
    return all(may_open() for may_open in asked)
