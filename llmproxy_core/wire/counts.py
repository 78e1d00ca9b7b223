"""Token counts of a provider, which may be anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmproxy_core.usage import UsageSource

MOST_TOKENS = 1_000_000_000
"""No call uses more; a count above it is a fault and is cut to it, so that sums and prices stay sane."""

_TIER = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII).fullmatch


def tier_word(service_tier: str | None) -> str | None:
    """The service tier when it is a word; what is none counts as not there."""
    return service_tier if service_tier is not None and _TIER(service_tier) else None


class Counts:
    """Reads counts, and remembers (as *source*) whether one of them could not be true."""

    __slots__ = ("source",)

    def __init__(self) -> None:
        self.source = UsageSource.REPORTED

    def read(self, members: Mapping[str, Any], name: str) -> int | None:
        """The count *name*, at most what a call can use; None when it is not there, or is no count."""
        count = members.get(name)
        if count is None:
            return None
        if isinstance(count, bool) or not isinstance(count, (int, float)) or not count >= 0:
            self.source = UsageSource.ESTIMATED
            return None
        return int(self._cut(count, MOST_TOKENS))

    def within(self, total: int, count: int | None) -> int:
        """*count* as a part of *total*."""
        return int(self._cut(count or 0, total))

    def _cut(self, count: float, most: int) -> float:
        if count <= most:
            return count
        self.source = UsageSource.ESTIMATED
        return most
