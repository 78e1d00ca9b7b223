"""In which order the members of a group are asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from hashlib import blake2b

from llmproxy_core.exchange import Exchange
from llmproxy_core.group_config import Rank
from llmproxy_core.groups.group import Order
from llmproxy_core.groups.measured import Measured
from llmproxy_core.groups.members import Members
from llmproxy_core.llm import LLMClient


def as_written(members: Members) -> Order:
    """The order of the table."""
    llms: Sequence[LLMClient] = ()

    def order(exchange: Exchange) -> Sequence[LLMClient]:
        nonlocal llms
        llms = llms or members.llms  # not before all of them are built
        return llms

    return order


def by_priority(members: Members, ranks: Sequence[Rank], chance: random.Random) -> Order:
    """Lower numbers first; among equals by weight, drawn for each exchange."""

    def order(exchange: Exchange) -> Sequence[LLMClient]:
        drawn = _drawn(ranks, chance)
        return [members.llms[place] for place in sorted(drawn, key=lambda place: ranks[place].priority)]

    return order


def weighted(members: Members, ranks: Sequence[Rank], chance: random.Random) -> Order:
    """Drawn for each exchange: a member of twice the weight comes first twice as often."""
    return lambda exchange: [members.llms[place] for place in _drawn(ranks, chance)]


def _drawn(ranks: Sequence[Rank], chance: random.Random) -> list[int]:
    """Places in a random order, heavy ones sooner (Efraimidis and Spirakis); those without weight last."""
    return sorted(
        range(len(ranks)),
        key=lambda place: chance.random() ** (1 / ranks[place].weight) if ranks[place].weight else -1.0,
        reverse=True,
    )


def round_robin(members: Members) -> Order:
    """Each exchange begins with the member after the one that the exchange before began with."""
    turn = 0

    def order(exchange: Exchange) -> Sequence[LLMClient]:
        nonlocal turn
        llms = members.llms
        first, turn = turn % len(llms), turn + 1
        return [*llms[first:], *llms[:first]]

    return order


def least_in_flight(measured: Callable[[], Sequence[Measured]], chance: random.Random) -> Order:
    """Those first that have the fewest calls in flight, for their weight; equals by lot."""
    return lambda exchange: sorted(
        measured(), key=lambda it: (it.in_flight + 1 + it.failures) / it.weight + chance.random() * 1e-6
    )


def peak_ewma(measured: Callable[[], Sequence[Measured]], chance: random.Random) -> Order:
    """
    Those first that would begin to answer soonest: the usual time to the first token, times the calls in flight.

    Equals, as at the beginning, by lot.
    """
    return lambda exchange: sorted(
        measured(), key=lambda it: it.expected_s() / it.weight * (1 + chance.random() * 1e-3) + chance.random() * 1e-9
    )


def sticky(
    members: Members, names: Sequence[str], said: Callable[[Exchange], bytes | None], chance: random.Random
) -> Order:
    """
    The same order whenever *said* gives the same, so that the caches of providers hit; without it one drawn by lot.

    By rendezvous hashing: when a member comes or goes only those change that were, or will be, its own.
    """

    def order(exchange: Exchange) -> Sequence[LLMClient]:
        key = said(exchange)
        if key is None:
            key = chance.randbytes(8)
        places = sorted(range(len(names)), key=lambda place: _score(names[place], key), reverse=True)
        return [members.llms[place] for place in places]

    return order


def _score(name: str, key: bytes) -> bytes:
    return blake2b(key, digest_size=8, key=name.encode()[:64]).digest()
