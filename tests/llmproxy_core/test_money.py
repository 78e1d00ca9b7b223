"""Money is exact, and a price counts each class of tokens once."""

from decimal import Decimal
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import Money, Price, Usage

# $2.50 in, $1.25 cached, $3.75 written, $10 out, per million tokens
PRICE = Price(2_500_000_000, 10_000_000_000, cached_input=1_250_000_000, cache_write=3_750_000_000)
PER = 1_000_000


@pytest.mark.parametrize(
    ("amount", "nanodollars"),
    [
        ("2.50", 2_500_000_000),
        (3, 3_000_000_000),
        (Decimal("0.000000001"), 1),
        ("0.0000000005", 1),  # half up
        ("0.00000000049", 0),
        ("1.00000000049999999999999999999999999", 1_000_000_000),  # rounded once, not to 28 digits first
        ("-0.50", -500_000_000),
        ("0", 0),
    ],
)
def test_an_amount_of_dollars_is_read_exactly(amount: str | int | Decimal, nanodollars: int) -> None:
    assert Money.usd(amount) == Money(nanodollars)


@pytest.mark.parametrize(
    "amount", ["", "ten", "1,5", "NaN", "sNaN", "Infinity", "-Infinity", "1e999999", "1e99999999999"]
)
def test_what_is_no_finite_number_is_no_amount(amount: str) -> None:
    with pytest.raises(ValueError, match="not an amount of dollars"):
        Money.usd(amount)


def test_amounts_add_subtract_and_compare() -> None:
    one, two = Money.usd("1"), Money.usd("2")

    assert one + two == Money.usd("3")
    assert one - two == Money.usd("-1")
    assert one < two
    assert two >= one
    assert not one < Money.usd("1.00")
    assert max(one, two) == two


def test_only_nothing_is_falsy() -> None:
    assert not Money()
    assert Money(1)
    assert Money(-1)


def test_equal_amounts_are_one_key() -> None:
    assert len({Money(5), Money.usd("0.000000005")}) == 1


@pytest.mark.parametrize(
    ("nanodollars", "text"), [(0, "$0"), (1, "$0.000000001"), (2_500_000_000, "$2.5"), (-1_000_000_000, "$-1")]
)
def test_an_amount_is_shown_in_dollars_without_an_exponent(nanodollars: int, text: str) -> None:
    assert str(Money(nanodollars)) == text


def test_each_class_of_tokens_has_its_price() -> None:
    usage = Usage(input_tokens=1000, output_tokens=10, cached_input_tokens=300, cache_write_tokens=200)

    cost = PRICE.cost(usage)

    expected = 500 * 2_500 + 300 * 1_250 + 200 * 3_750 + 10 * 10_000
    assert cost == Money(expected)


def test_a_class_without_a_price_of_its_own_costs_what_input_does() -> None:
    usage = Usage(input_tokens=1000, cached_input_tokens=300, cache_write_tokens=200)

    cost = Price(2_500_000_000, 0).cost(usage)

    assert cost == Money(1000 * 2_500)


def test_a_cached_price_of_zero_is_a_price() -> None:
    cost = Price(2_500_000_000, 0, cached_input=0, cache_write=0).cost(
        Usage(input_tokens=100, cached_input_tokens=60, cache_write_tokens=40)
    )

    assert cost == Money()


def test_reasoning_is_not_counted_beside_the_output_it_is_part_of() -> None:
    assert PRICE.cost(Usage(output_tokens=10, reasoning_tokens=10)) == PRICE.cost(Usage(output_tokens=10))


def test_more_cached_tokens_than_input_never_make_a_call_cheaper_than_they_cost() -> None:
    """Some servers report cached tokens beside the input, not in it: the rest must not be negative."""
    cost = PRICE.cost(Usage(input_tokens=10, cached_input_tokens=100))

    assert cost == Money(100 * 1_250)


@pytest.mark.parametrize(("tokens", "rate"), [(200, 1), (201, 2), (500, 2), (501, 5)])
def test_the_highest_tier_reached_prices_the_whole_call(tokens: int, rate: int) -> None:
    tiers = ((500, Price(5 * PER, 0)), (200, Price(2 * PER, 0)))  # the order in which they are given says nothing

    cost = Price(1 * PER, 0, tiers=tiers).cost(Usage(input_tokens=tokens))

    assert cost == Money(tokens * rate)


@given(
    tokens=st.integers(0, 10**7),
    cached=st.integers(0, 10**6),
    output=st.integers(0, 10**6),
    rates=st.tuples(*[st.integers(0, 10**12)] * 3),
)
def test_a_cost_is_rounded_half_up_once(tokens: int, cached: int, output: int, rates: tuple[int, int, int]) -> None:
    usage = Usage(input_tokens=tokens + cached, output_tokens=output, cached_input_tokens=cached)

    cost = Price(rates[0], rates[1], cached_input=rates[2]).cost(usage)

    exact = Fraction(tokens * rates[0] + output * rates[1] + cached * rates[2], PER)
    assert cost.nanodollars == floor(exact + Fraction(1, 2))
