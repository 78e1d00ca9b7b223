"""A member of a group of which it is known how busy and how quick it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.outcome import Outcome
from llmproxy_core.prices import ModelPrice
from llmproxy_core.resilience.failure import Failure, failure_of
from llmproxy_core.response import Response

DECAY_S = 10.0
"""After which what was measured counts for little more than a third."""
FAILED_S = 1.0
"""A failure counts as a call under way, and as so much more time: who fails at once must not look quick, or idle."""


class Measured:
    """The LLM *llm*, its calls counted and timed."""

    def __init__(self, llm: LLMClient, weight: float, clock: Callable[[], float]) -> None:
        self.in_flight = 0
        self.weight = weight
        """Above 0."""
        self.llm = llm
        self._clock = clock
        self._peak_s = 0.0
        self._measured_s = clock()
        self._failures = 0.0
        self._failed_s = self._measured_s

    @property
    def models(self) -> ModelMap:
        return self.llm.models

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return await self.llm.prices(model)

    async def aclose(self) -> None:
        """It belongs to somebody else."""

    def expected_s(self) -> float:
        """Seconds that another call may take to begin; of one that was never measured nothing, so that it will be."""
        age_s = self._clock() - self._measured_s
        return (self._peak_s * math.exp(-age_s / DECAY_S) + FAILED_S * self.failures) * (self.in_flight + 1)

    @property
    def failures(self) -> float:
        """How many of its calls have failed, those of some time ago for less."""
        if not self._failures:
            return 0.0
        return self._failures * math.exp((self._failed_s - self._clock()) / DECAY_S)

    async def send(self, exchange: Exchange) -> Response:
        self.in_flight += 1
        began_s = self._clock()
        try:
            response = await self.llm.send(exchange)
        except BaseException as error:
            self.in_flight -= 1
            if isinstance(error, ProxyError):
                self._failed(failure_of(error))
            else:  # the client has left: it would have taken that long, at least
                self._took(self._clock() - began_s)
            raise
        response.on_finish(partial(self._ended, began_s))
        return response

    def _ended(self, began_s: float, outcome: Outcome) -> None:
        self.in_flight -= 1
        self._took((outcome.first_byte_s or outcome.ended_s) - began_s)

    def _failed(self, failure: Failure) -> None:
        if failure is not Failure.CALLER and failure is not Failure.OURS:  # which tell nothing of it
            self._failures, self._failed_s = self.failures + 1, self._clock()

    def _took(self, seconds: float) -> None:
        """A slower one counts at once, a quicker one little by little (peak EWMA)."""
        now = self._clock()
        if seconds > self._peak_s:
            self._peak_s = seconds
        else:
            kept = math.exp(-(now - self._measured_s) / DECAY_S)
            self._peak_s = self._peak_s * kept + seconds * (1 - kept)
        self._measured_s = now
