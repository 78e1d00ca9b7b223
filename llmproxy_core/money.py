"""Money as an integer count of nanodollars, and prices per token class."""

from __future__ import annotations

from decimal import MAX_PREC, ROUND_HALF_UP, Context, Decimal
from functools import total_ordering

import attrs

from llmproxy_core.usage import Usage

_NANO = 1_000_000_000
_PER = 1_000_000  # prices are per million tokens
_EXACT = Context(prec=MAX_PREC)  # the default one rounds to 28 digits, and a second time after that


@total_ordering
@attrs.frozen
class Money:
    """An exact amount of US dollars; never a float."""

    nanodollars: int = 0

    @classmethod
    def usd(cls, amount: str | int | Decimal) -> Money:
        """*amount* dollars; rounded half up to a nanodollar. ValueError when it is no finite number."""
        try:
            value = Decimal(amount).scaleb(9, _EXACT)
            return cls(int(value.to_integral_value(rounding=ROUND_HALF_UP)))
        except (ArithmeticError, ValueError) as error:
            raise ValueError(f"not an amount of dollars: {amount!r}") from error

    def __add__(self, other: Money) -> Money:
        return Money(self.nanodollars + other.nanodollars)

    def __sub__(self, other: Money) -> Money:
        return Money(self.nanodollars - other.nanodollars)

    def __lt__(self, other: Money) -> bool:
        return self.nanodollars < other.nanodollars

    def __bool__(self) -> bool:
        return self.nanodollars != 0

    def __str__(self) -> str:
        amount = Decimal(self.nanodollars) / _NANO
        return f"${amount:f}"


@attrs.frozen
class Price:
    """
    What one model costs, in nanodollars per million tokens of each class.

    A class without a price of its own costs what its parent does (cached and written input: input). *tiers* are
    dearer prices from a number of input tokens on; the highest one reached prices the whole call.
    """

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    tiers: tuple[tuple[int, Price], ...] = ()

    def cost(self, usage: Usage) -> Money:
        """Exact cost of *usage*, rounded half up to a nanodollar once."""
        for above, tier in sorted(self.tiers, key=lambda item: item[0], reverse=True):
            if usage.input_tokens > above:
                return tier.cost(usage)
        plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        total = (
            max(plain, 0) * self.input
            + usage.cached_input_tokens * (self.input if self.cached_input is None else self.cached_input)
            + usage.cache_write_tokens * (self.input if self.cache_write is None else self.cache_write)
            + usage.output_tokens * self.output
        )
        return Money((2 * total + _PER) // (2 * _PER))
