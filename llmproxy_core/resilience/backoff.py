"""How often a call is tried again, and how long is waited in between."""

from __future__ import annotations

import random

import attrs

from llmproxy_core.option import between, option, some_seconds


@attrs.frozen(kw_only=True)
class Retries:
    """How often a failed call is tried again, and how long is waited before."""

    max_retries: int = option(
        "Tries after the first, over all keys and members of a group and the one reconnect of a kept connection.",
        default=3,
        validator=between(0, 20, "a number of retries"),
    )
    initial_backoff_s: float = option(
        "Longest back-off before the first of them, in seconds.", default=1.0, validator=some_seconds
    )
    max_backoff_s: float = option(
        "Longest back-off before any of them, in seconds; an upstream that asks for a longer wait is not tried again.",
        default=30.0,
        validator=some_seconds,
    )
    backoff_factor: float = option(
        "By how much the longest back-off grows from one to the next.", default=2.0, validator=between(1, 100)
    )
    jitter: float = option(
        "Each back-off is drawn evenly between this part of the longest one and all of it; it comes on top of what an"
        " upstream asks for.",
        default=0.1,
        validator=between(0, 1),
    )

    def wait_s(self, failed: int, chance: random.Random) -> float:
        """
        Seconds to wait before the next try after *failed* ones, 1 or more.

        Full jitter: whoever failed together does not come back together.
        """
        longest_s = self.max_backoff_s
        if failed < 64:  # beyond it the power may overflow, and is the longest wait anyway
            longest_s = min(longest_s, self.initial_backoff_s * self.backoff_factor ** (failed - 1))
        return longest_s * chance.uniform(self.jitter, 1.0)
