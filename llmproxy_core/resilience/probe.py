"""How often an LLM is asked for a sign of life, beside the calls that it serves."""

from __future__ import annotations

import random

import attrs

from llmproxy_core.option import between, option

_SPREAD = 0.2  # of the time between two: processes that began together do not ask together


@attrs.frozen(kw_only=True)
class ProbeConfig:
    """When an LLM is asked for its list of models, so that it is known how it is when nobody calls it."""

    every_s: float = option(
        "Seconds from the end of a probe to the next, give or take a fifth; each process asks by itself.",
        default=30.0,
        validator=between(0.05, 86_400, "a number of seconds"),
    )
    timeout_s: float = option(
        "Seconds that a probe may take; the clocks in `timeouts` hold, too.",
        default=10.0,
        validator=between(0.01, 3_600, "a number of seconds"),
    )

    def first_s(self, chance: random.Random) -> float:
        """Seconds until the first probe: all of the time between two, or any part of it."""
        return self.every_s * chance.random()

    def wait_s(self, chance: random.Random) -> float:
        """Seconds until the next probe."""
        return self.every_s * chance.uniform(1 - _SPREAD, 1 + _SPREAD)
