"""What models cost: the seam to a price list."""

from __future__ import annotations

from typing import Protocol

import attrs

from llmproxy_core.money import Price


@attrs.frozen
class ModelPrice:
    """The entry of a price list that fits a model. There are as many names as entries, whatever clients ask for."""

    name: str
    price: Price


class Prices(Protocol):
    """A price list."""

    async def find(self, base_url: str, model: str) -> ModelPrice | None:
        """
        The price of *model* at the provider that *base_url* belongs to; None when nobody knows it.

        Never raises. It may take a while when it is asked first; whoever asks keeps the answer.
        """
        ...


class NoPrices:
    """Knows no price."""

    async def find(self, base_url: str, model: str) -> ModelPrice | None:
        return None
