"""Prices as an operator writes them, in US dollars per million tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated

import attrs

from llmproxy_core.money import Money, Price
from llmproxy_core.option import Misread, Misreadings, WrittenAs, count, option

_AMOUNT = re.compile(r"[0-9]{1,7}(\.[0-9]{1,9})?", re.ASCII)


def read_usd(amount: str | float) -> int:
    """*amount* of dollars in nanodollars; a float counts as the shortest decimal that it is read from."""
    text = amount if isinstance(amount, str) else f"{Decimal(repr(amount)):f}"
    if not _AMOUNT.fullmatch(text):
        raise ValueError('expected dollars, 0 or more, such as "2.50"')
    return Money.usd(text).nanodollars


Usd = Annotated[int, WrittenAs(str | float, read_usd)]
"""Nanodollars; in TOML dollars, as a number or, exact to a billionth, as a string."""


@attrs.frozen(kw_only=True)
class TierTable:
    """Dearer prices for calls with many input tokens."""

    above_input_tokens: int = option(
        "The tier prices a whole call that has more input tokens than this.", validator=count, example=200000
    )
    input: Usd = option("USD per million input tokens.", example="2.50")
    output: Usd = option("USD per million output tokens.", example="15.00")
    cached_input: Usd | None = option(
        "USD per million input tokens read from a cache; input's if absent.", default=None
    )
    cache_write: Usd | None = option(
        "USD per million input tokens written to a cache; input's if absent.", default=None
    )


@attrs.frozen(kw_only=True)
class PriceTable:
    """What a model costs."""

    input: Usd = option("USD per million input tokens.", example="1.25")
    output: Usd = option("USD per million output tokens; 0 for embeddings.", example="10.00")
    cached_input: Usd | None = option(
        "USD per million input tokens read from the provider's cache; absent: as `input`.",
        default=None,
        example="0.125",
    )
    cache_write: Usd | None = option(
        "USD per million input tokens written to the provider's cache; absent: as `input`.", default=None
    )
    tiers: tuple[TierTable, ...] = option("Dearer prices for long inputs; the highest one reached counts.", default=())

    def price(self) -> Price:
        tiers = ((tier.above_input_tokens, _price(tier)) for tier in self.tiers)
        return attrs.evolve(_price(self), tiers=tuple(sorted(tiers, key=lambda tier: tier[0])))


def _price(table: PriceTable | TierTable) -> Price:
    return Price(table.input, table.output, table.cached_input, table.cache_write)


def read_prices(tables: Mapping[str, PriceTable]) -> tuple[tuple[str, Price], ...]:
    found: list[Misread] = []
    for name, table in tables.items():
        bounds = [tier.above_input_tokens for tier in table.tiers]
        if len(set(bounds)) < len(bounds):
            found.append(Misread("expected tiers with different above_input_tokens", name, "tiers"))
    Misreadings.refuse(found)
    return tuple((name, table.price()) for name, table in tables.items())


Prices = Annotated[tuple[tuple[str, Price], ...], WrittenAs(Mapping[str, PriceTable], read_prices)]
"""Model name or glob -> price, in the order written: the first that fits counts."""


def price_of(model: str | None, prices: tuple[tuple[str, Price], ...]) -> Price | None:
    """The price of *model* by the first name or glob that fits; None when none does."""
    if model is None:
        return None
    return next((price for name, price in prices if name == model or fnmatchcase(model, name)), None)
