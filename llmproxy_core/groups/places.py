"""How many calls an LLM serves at once, over all of its keys, and whether it takes any."""

from __future__ import annotations

from llmproxy_core.resilience.failure import Unavailable

FULL_S = 1.0
"""When to come again to an LLM that is full: nobody knows when one of its calls will end."""


class Places:
    """The calls of the LLM *name* that are in flight; *most* at a time, 0: no bound."""

    __slots__ = ("drained", "in_flight", "most", "name")

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.most = most
        self.in_flight = 0
        self.drained = False
        """An operator has taken it out of service: what is under way ends, nothing new begins."""

    def refusal(self) -> Unavailable | None:
        """Why a call cannot begin now; None where it can."""
        if self.drained:
            return Unavailable(f"The LLM '{self.name}' is out of service", code="llm_drained")
        if self.most and self.in_flight >= self.most:
            return Unavailable(
                f"The LLM '{self.name}' serves all the calls it may", retry_after_s=FULL_S, code="llm_full"
            )
        return None
