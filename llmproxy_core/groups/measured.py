"""A member of a group of which it is known how busy and how quick it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from llmproxy_core.exchange import Exchange
from llmproxy_core.llm import LLMClient
from llmproxy_core.model_map import ModelMap
from llmproxy_core.outcome import Outcome
from llmproxy_core.prices import ModelPrice
from llmproxy_core.response import Response

DECAY_S = 10.0
"""After which what was measured counts for little more than a third."""


class Measured:
    """The LLM *llm*, its calls counted and timed."""

    def __init__(self, llm: LLMClient, weight: float, clock: Callable[[], float]) -> None:
        self.in_flight = 0
        self.weight = weight
        """Above 0."""
        self._llm = llm
        self._clock = clock
        self._peak_s = 0.0
        self._measured_s = clock()

    @property
    def models(self) -> ModelMap:
        return self._llm.models

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return await self._llm.prices(model)

    async def aclose(self) -> None:
        """It belongs to somebody else."""

    def expected_s(self) -> float:
        """Seconds that another call may take to begin; of one that was never measured nothing, so that it will be."""
        age_s = self._clock() - self._measured_s
        return self._peak_s * math.exp(-age_s / DECAY_S) * (self.in_flight + 1)

    async def send(self, exchange: Exchange) -> Response:
        self.in_flight += 1
        began_s = self._clock()
        try:
            response = await self._llm.send(exchange)
        except BaseException:
            self.in_flight -= 1
            self._took(self._clock() - began_s)
            raise
        response.on_finish(partial(self._ended, began_s))
        return response

    def _ended(self, began_s: float, outcome: Outcome) -> None:
        self.in_flight -= 1
        self._took((outcome.first_byte_s or outcome.ended_s) - began_s)

    def _took(self, seconds: float) -> None:
        """A slower one counts at once, a quicker one little by little (peak EWMA)."""
        now = self._clock()
        if seconds > self._peak_s:
            self._peak_s = seconds
        else:
            kept = math.exp(-(now - self._measured_s) / DECAY_S)
            self._peak_s = self._peak_s * kept + seconds * (1 - kept)
        self._measured_s = now
