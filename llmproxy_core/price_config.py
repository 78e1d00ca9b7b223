"""Prices as an operator writes them, in US dollars per million tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated

import attrs

from llmproxy_core.frozenmap import FrozenMap
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
class ClassPrices:
    """What the tokens of each class cost."""

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
    cache_write_1h: Usd | None = option(
        "USD per million input tokens written to the provider's cache for an hour; absent: as `cache_write`.",
        default=None,
    )
    audio_input: Usd | None = option("USD per million input tokens of audio; absent: as `input`.", default=None)
    audio_output: Usd | None = option("USD per million output tokens of audio; absent: as `output`.", default=None)

    def price(self) -> Price:
        return Price(
            self.input,
            self.output,
            self.cached_input,
            self.cache_write,
            self.audio_input,
            self.audio_output,
            cache_write_1h=self.cache_write_1h,
        )


@attrs.frozen(kw_only=True)
class TierTable(ClassPrices):
    """Other prices for calls with many input tokens."""

    above_input_tokens: int = option(
        "The tier prices a whole call that has more input tokens than this.", validator=count, example=200000
    )


@attrs.frozen(kw_only=True)
class ServiceTierTable(ClassPrices):
    """Other prices for calls that the provider serves in another tier."""

    tiers: tuple[TierTable, ...] = option("Dearer prices for long inputs; the highest one reached counts.", default=())

    def price(self) -> Price:
        tiers = ((tier.above_input_tokens, tier.price()) for tier in self.tiers)
        return attrs.evolve(super().price(), tiers=tuple(sorted(tiers, key=lambda tier: tier[0])))


@attrs.frozen(kw_only=True)
class PriceTable(ServiceTierTable):
    """What a model costs."""

    service_tiers: Mapping[str, ServiceTierTable] = option(
        "Prices of whole calls by the service tier that the provider says it billed; any other one costs the above.",
        default=FrozenMap(),
        example={"priority": {"input": "2.50", "output": "20.00"}},
    )

    def price(self) -> Price:
        by_name = tuple((name, table.price()) for name, table in self.service_tiers.items())
        return attrs.evolve(super().price(), service_tiers=by_name)


def read_prices(tables: Mapping[str, PriceTable]) -> tuple[tuple[str, Price], ...]:
    found: list[Misread] = []
    for name, table in tables.items():
        _check_tiers(table, (name,), found)
        for tier, prices in table.service_tiers.items():
            _check_tiers(prices, (name, "service_tiers", tier), found)
    Misreadings.refuse(found)
    return tuple((name, table.price()) for name, table in tables.items())


def _check_tiers(table: ServiceTierTable, place: tuple[str, ...], found: list[Misread]) -> None:
    bounds = [tier.above_input_tokens for tier in table.tiers]
    if len(set(bounds)) < len(bounds):
        found.append(Misread("expected tiers with different above_input_tokens", *place, "tiers"))


Prices = Annotated[tuple[tuple[str, Price], ...], WrittenAs(Mapping[str, PriceTable], read_prices)]
"""Model name or glob -> price, in the order written: the first that fits counts."""


def price_of(model: str | None, prices: tuple[tuple[str, Price], ...]) -> Price | None:
    """The price of *model* by the first name or glob that fits; None when none does."""
    if model is None:
        return None
    return next((price for name, price in prices if name == model or fnmatchcase(model, name)), None)
