"""Token counts of a provider, which may be anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmproxy_core.usage import UsageSource

MOST_TOKENS = 20_000_000
"""
No call uses more in one count; a count above it is a fault, and is taken as not told.

Twice the largest context window (10 M, Llama 4 Scout), for providers add up the turns of an answer that searches or
runs code; far below what faults look like: clocks, sums over all calls, -1 without its sign.
"""

_TIER = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII).fullmatch
_REPORTED, _ESTIMATED = UsageSource.REPORTED, UsageSource.ESTIMATED


def tier_word(service_tier: str | None) -> str | None:
    """The service tier when it is a word; what is none counts as not there."""
    return service_tier if service_tier is not None and _TIER(service_tier) else None


def true_count(value: object) -> int | None:
    """*value* as a count of tokens that may be true: a whole number, not negative, at most MOST_TOKENS; else None."""
    if type(value) is int:  # nearly all; and no bool
        return value if 0 <= value <= MOST_TOKENS else None
    if type(value) is float and 0 <= value <= MOST_TOKENS and value.is_integer():
        return int(value)
    return None


class Counts:
    """
    Reads the counts of one usage.

    A count that cannot be true is one that was not told. *source* remembers whether there was one, or whether half of
    the usage is wanting: an estimate then. A response fills in the half of an estimate that is 0 with what was sent or
    read, so that a lie bills what silence does.
    """

    __slots__ = ("source",)

    def __init__(self) -> None:
        self.source = _REPORTED

    def read(self, members: Mapping[str, Any], name: str) -> int | None:
        """The count *name*; None when it is not there, or cannot be true."""
        value = members.get(name)
        if value is None:
            return None
        count = true_count(value)
        if count is None:
            self.source = _ESTIMATED
        return count

    def halves(
        self, asked: int | None, answered: int | None, total: int | None, *, has_output: bool = True
    ) -> tuple[int, int] | None:
        """
        Input and output; one that is None is what the other leaves of *total*, else 0, and the usage an estimate.

        Embeddings have no output (*has_output*), and lack nothing without it. None: nothing was told at all, true or
        not.
        """
        if asked is not None and answered is not None:
            return asked, answered
        is_clean = self.source is _REPORTED
        if asked is None and answered is None:
            if is_clean:  # embeddings are told so; else better than nothing
                return None if total is None else (total, 0)
            return 0, 0
        if answered is None:
            assert asked is not None
            rest = -1 if total is None else total - asked
            if rest < 0 or not (rest or is_clean):
                self.source = _ESTIMATED if has_output else self.source
                rest = 0
            return asked, rest
        asked = max(0, (total or 0) - answered)
        self.source = self.source if asked else _ESTIMATED
        return asked, answered

    def within(self, total: int, count: int | None) -> int:
        """*count* as a part of *total*, cut to that."""
        if count is None or count <= total:
            return count or 0
        self.source = _ESTIMATED
        return total
