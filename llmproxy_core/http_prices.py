"""What the models of one LLM cost: its own configuration first, then the list that all share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from fnmatch import fnmatchcase

from llmproxy_core.money import Price
from llmproxy_core.prices import ModelPrice, Prices

_REMEMBERED = 512  # the names of models are the callers' choice, so the memory of them is bounded


class ModelPrices:
    """The price of each model that is sent to an LLM, looked up once."""

    def __init__(self, own: Sequence[tuple[str, Price]], base_url: str, shared: Prices) -> None:
        """*own* are patterns of names and their prices, the first that matches counts; *shared* is asked by the URL."""
        self._own = own
        self._base_url = base_url
        self._shared = shared
        self._known: dict[str, ModelPrice | None] = {}
        self._finding = asyncio.Lock()

    async def of(self, sent: str) -> ModelPrice | None:
        """None: nobody knows it."""
        if sent in self._known:
            return self._known[sent]
        async with self._finding:  # all who ask at first ask for the same models
            if sent not in self._known:
                found = self._own_price(sent) or await self._shared.find(self._base_url, sent)
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[sent] = found
            return self._known[sent]

    def _own_price(self, sent: str) -> ModelPrice | None:
        own = (ModelPrice(it, price) for it, price in self._own if it == sent or fnmatchcase(sent, it))
        return next(own, None)
