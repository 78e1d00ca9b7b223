"""What is looked at of the LLMs of a gateway: their breakers, calls in flight, and whether they are in service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from llmproxy_core.gateway import Gateway
from llmproxy_core.groups.guarded import Guarded
from llmproxy_core.groups.layers import layers
from llmproxy_core.groups.places import Places
from llmproxy_core.resilience.breaker import Breaker
from llmproxy_core.resilience.breaker_state import State
from llmproxy_server.metrics.families import BREAKER, LLM_DRAINED, LLM_IN_FLIGHT, SHUT
from llmproxy_server.metrics.values import SCRATCH, Family, Values, labels_of

_NUMBERS = {State.CLOSED: 0.0, State.HALF_OPEN: 0.5, State.OPEN: 1.0}


def watch_llms(gauges: dict[int, Callable[[], float]], values: Values, gateway: Gateway) -> None:
    """Put what is to be read of the LLMs of *gateway* into *gauges*, by cell. None of it is counted call by call."""

    def watch(family: Family, read: Callable[[], float], **labels: str) -> None:
        index = values.place(family, labels_of(**labels))
        if index != SCRATCH:
            gauges[index] = read

    for name, llm in gateway.llms.items():
        guards = [layer for layer in layers(llm) if isinstance(layer, Guarded)]
        for guard in guards:
            if guard.breaker is not None:
                watch(BREAKER, partial(_number, guard.breaker), llm=name, key=guard.key or "")
        if guards:
            watch(LLM_IN_FLIGHT, partial(_in_flight, guards[0].places), llm=name)
            watch(LLM_DRAINED, partial(_drained, guards[0].places), llm=name)
            watch(SHUT, partial(is_shut, guards), llm=name)


def is_shut(guards: Sequence[Guarded]) -> bool:
    """Whether the LLM with these keys, one at least, is not called: it is drained, or all its breakers are open."""
    if guards[0].places.drained:
        return True
    return all(guard.breaker is not None and guard.breaker.state is State.OPEN for guard in guards)


def _number(breaker: Breaker) -> float:
    return _NUMBERS[breaker.state]


def _in_flight(places: Places) -> float:
    return places.in_flight


def _drained(places: Places) -> float:
    return places.drained
