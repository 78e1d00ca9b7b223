"""Money as an integer count of nanodollars, and prices per token class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import MAX_PREC, ROUND_HALF_UP, Context, Decimal

import attrs

from llmproxy_core.node import node
from llmproxy_core.usage import Usage

_NANO = 1_000_000_000
_PER = 1_000_000  # prices are per million tokens
_HALF = _PER // 2
_EXACT = Context(prec=MAX_PREC)  # the default one rounds to 28 digits, and a second time after that


@node
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

    def __le__(self, other: Money) -> bool:
        return self.nanodollars <= other.nanodollars

    def __gt__(self, other: Money) -> bool:
        return self.nanodollars > other.nanodollars

    def __ge__(self, other: Money) -> bool:
        return self.nanodollars >= other.nanodollars

    def __bool__(self) -> bool:
        return self.nanodollars != 0

    def __str__(self) -> str:
        nanos = self.nanodollars
        if 0 < nanos < _NANO:  # nearly every call costs less than a dollar
            return "$0." + str(_NANO + nanos)[1:].rstrip("0")  # `:09` takes longer
        dollars, nanos = divmod(abs(nanos), _NANO)
        sign = "-" if self.nanodollars < 0 else ""
        if not nanos:
            return f"${sign}{dollars}"
        return f"${sign}{dollars}.{str(_NANO + nanos)[1:].rstrip('0')}"


@attrs.frozen
class Price:
    """
    What one model costs, in nanodollars (0 or more) per million tokens of each class.

    A class without a price of its own costs what its parent does (cached, written and audio input: input; written for
    an hour: written; audio output: output). *tiers* are prices from a number of input tokens on; the highest one
    reached prices the whole call. *service_tiers* are by the provider's names of them; the one that a call was billed
    in prices the whole call, with the token tiers of its own.
    """

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    tiers: tuple[tuple[int, Price], ...] = ()
    service_tiers: tuple[tuple[str, Price], ...] = ()
    cache_write_1h: int | None = None
    _input_rates: tuple[int, ...] = attrs.field(init=False, repr=False, eq=False)
    _output_rates: tuple[int, ...] = attrs.field(init=False, repr=False, eq=False)

    @_input_rates.default
    def _made_input_rates(self) -> tuple[int, ...]:
        written_1h = self.cache_write if self.cache_write_1h is None else self.cache_write_1h
        classes = (self.cached_input, written_1h, self.cache_write, self.audio_input)
        return (self.input, *(self.input if rate is None else rate for rate in classes))

    @_output_rates.default
    def _made_output_rates(self) -> tuple[int, ...]:
        return (self.output, self.output if self.audio_output is None else self.audio_output)

    def cost(self, usage: Usage) -> Money:
        """
        Exact cost of *usage*, rounded half up to a nanodollar once; never negative.

        No token is paid for twice: classes count up to the total that they are part of, in the order cached, written,
        audio. What a provider reports beyond that, or below zero, costs nothing.
        """
        price = self._applied(usage) if self.tiers or self.service_tiers else self
        asked_for, given = usage.input_tokens, usage.output_tokens
        classed = usage.cached_input_tokens or usage.cache_write_tokens or usage.audio_input_tokens
        if not (classed or usage.audio_output_tokens) and asked_for >= 0 <= given:  # nearly all
            return _rounded(asked_for * price.input + given * price.output)
        written_1h = max(0, min(usage.cache_write_1h_tokens, usage.cache_write_tokens))
        written = usage.cache_write_tokens - written_1h
        asked = (usage.cached_input_tokens, written_1h, written, usage.audio_input_tokens)
        return _rounded(
            _total(asked_for, asked, price._input_rates)
            + _total(given, (usage.audio_output_tokens,), price._output_rates)
        )

    def bound(self, input_tokens: int, output_tokens: int) -> Money:
        """
        What no usage of at most *input_tokens* and *output_tokens* costs more than.

        The dearest class of each over all tiers and service tiers: which of them will be billed is known afterwards.
        """
        asked, answered = self._dearest()
        return _rounded(max(input_tokens, 0) * asked + max(output_tokens, 0) * answered)

    def _applied(self, usage: Usage) -> Price:
        """The price that *usage* is billed with, by its service tier and its length."""
        for name, tier in self.service_tiers:
            if name == usage.service_tier:
                return tier._applied(usage)
        reached = [(above, tier) for above, tier in self.tiers if usage.input_tokens > above]
        return max(reached, key=lambda item: item[0])[1]._applied(usage) if reached else self

    def _dearest(self) -> tuple[int, int]:
        """The highest rates of input and of output."""
        inner = [price._dearest() for _, price in (*self.tiers, *self.service_tiers)]
        return (
            max(*self._input_rates, *(asked for asked, _ in inner)),
            max(*self._output_rates, *(answered for _, answered in inner)),
        )


def _total(tokens: int, parts: Iterable[int], rates: Sequence[int]) -> int:
    """*tokens* times the first of *rates*, but *parts* of them, one after the other, times the others."""
    left, total = max(tokens, 0), 0
    if any(parts):  # of most calls there are none
        for part, rate in zip(parts, rates[1:], strict=True):
            counted = min(max(part, 0), left)
            left -= counted
            total += counted * rate
    return total + left * rates[0]


def _rounded(total: int) -> Money:
    return Money((total + _HALF) // _PER)
