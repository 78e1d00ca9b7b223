"""What befalls a call: decided by the seed and the number of the call alone."""

from __future__ import annotations

from random import Random

import attrs

from llmproxy_chaos.faults import Faults
from llmproxy_chaos.strike import Strike


@attrs.frozen
class Plan:
    """All that befalls one call."""

    before: tuple[Strike, ...] = ()
    """In this order, before the call is made; the first that fails is the last."""
    within: tuple[Strike, ...] = ()
    """In the midst of the answer, by the places where they come."""

    @classmethod
    def of(cls, faults: Faults, chance: Random) -> Plan:
        """
        What *chance* makes of *faults*.

        Three numbers are drawn for every kind, whether it is configured, and whether it strikes: to change the share
        of one kind leaves all that is decided of the others as it was.
        """
        before: list[Strike] = []
        within: list[Strike] = []
        for name, fault in faults.kinds():
            struck, first, second = chance.random(), chance.random(), chance.random()
            if fault is not None and struck < fault.share:
                strike = fault.strike(name, first, second)
                (before if strike.after_chars is None else within).append(strike)
        within.sort(key=lambda strike: strike.after_chars or 0)
        return cls(tuple(before), tuple(within))


class Dice:
    """Chance for one call after the other; two dice of one seed give the same."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._thrown = 0

    def throw(self) -> Random:
        """The chance of the next call, which neither that of others nor their order of ending has a part in."""
        chance = Random(f"{self._seed}:{self._thrown}")  # noqa: S311 - no secret is made with it
        self._thrown += 1
        return chance
