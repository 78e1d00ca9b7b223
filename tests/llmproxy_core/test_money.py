"""Money is exact, and a price counts each class of tokens once."""

from decimal import Decimal
from fractions import Fraction
from math import floor

import attrs
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


@pytest.mark.parametrize(
    ("usage", "nanodollars"),
    [
        pytest.param(Usage(10, cached_input_tokens=100), 10 * 1_250, id="more cached than asked"),
        pytest.param(Usage(10, cached_input_tokens=8, cache_write_tokens=8), 8 * 1_250 + 2 * 3_750, id="both"),
        pytest.param(Usage(10, 0, -5, -5), 10 * 2_500, id="parts below zero"),
        pytest.param(Usage(-10, -10, -5, 5, audio_input_tokens=5, audio_output_tokens=5), 0, id="all below zero"),
        pytest.param(Usage(0, 5, audio_output_tokens=50), 5 * 10_000, id="more spoken than answered"),
    ],
)
def test_no_token_is_paid_for_twice_and_none_gives_money_back(usage: Usage, nanodollars: int) -> None:
    assert PRICE.cost(usage) == Money(nanodollars)


def test_audio_has_its_prices() -> None:
    price = Price(
        1 * PER, 2 * PER, cached_input=3 * PER, cache_write=4 * PER, audio_input=50 * PER, audio_output=60 * PER
    )
    usage = Usage(100, 10, 30, 20, audio_input_tokens=40, audio_output_tokens=6)

    assert price.cost(usage) == Money(10 * 1 + 30 * 3 + 20 * 4 + 40 * 50 + 4 * 2 + 6 * 60)


def test_audio_without_a_price_of_its_own_costs_what_text_does() -> None:
    usage = Usage(100, 10, audio_input_tokens=40, audio_output_tokens=6)

    assert PRICE.cost(usage) == PRICE.cost(Usage(100, 10))


def test_audio_that_was_cached_is_paid_for_once_as_cached() -> None:
    price = Price(1 * PER, 0, cached_input=3 * PER, audio_input=50 * PER)

    assert price.cost(Usage(100, 0, 80, audio_input_tokens=50)) == Money(80 * 3 + 20 * 50)


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


# -- service tiers -----------------------------------------------------------------------------------------------------

TIERED = Price(
    1 * PER,
    1 * PER,
    tiers=((200, Price(10 * PER, 10 * PER)),),
    service_tiers=(
        ("priority", Price(3 * PER, 3 * PER)),
        ("flex", Price(5 * PER, 5 * PER, tiers=((100, Price(7 * PER, 7 * PER)),))),
    ),
)


@pytest.mark.parametrize(
    ("service_tier", "tokens", "rate"),
    [
        (None, 200, 1),
        (None, 201, 10),
        ("priority", 200, 3),
        ("priority", 201, 3),  # its own price says nothing of long inputs
        ("flex", 100, 5),
        ("flex", 101, 7),
        ("Priority", 200, 1),  # the provider's own word, as it is
        ("default", 201, 10),
    ],
)
def test_the_service_tier_prices_the_whole_call_with_token_tiers_of_its_own(
    service_tier: str | None, tokens: int, rate: int
) -> None:
    cost = TIERED.cost(Usage(tokens, 4, service_tier=service_tier))

    assert cost == Money((tokens + 4) * rate)


# -- the bound ---------------------------------------------------------------------------------------------------------


def test_the_bound_is_the_dearest_class_of_the_dearest_tier() -> None:
    spoken = Price(1 * PER, 2 * PER, audio_input=9 * PER, audio_output=8 * PER)
    deep = attrs.evolve(TIERED, tiers=((200, attrs.evolve(spoken, cached_input=11 * PER)),))

    assert PRICE.bound(10, 2) == Money(10 * 3_750 + 2 * 10_000)
    assert spoken.bound(10, 2) == Money(10 * 9 + 2 * 8)
    assert TIERED.bound(10, 2) == Money(12 * 10)
    assert deep.bound(10, 2) == Money(10 * 11 + 2 * 8)
    assert PRICE.bound(-10, -2) == Money()


def test_what_is_written_to_a_cache_for_an_hour_has_a_price_of_its_own() -> None:
    hourly = attrs.evolve(Price(10 * PER, 0, cache_write=12 * PER), cache_write_1h=20 * PER)
    usage = Usage(100, cache_write_tokens=50, cache_write_1h_tokens=30)

    assert hourly.cost(usage) == Money(50 * 10 + 20 * 12 + 30 * 20)
    assert attrs.evolve(hourly, cache_write_1h=None).cost(usage) == Money(50 * 10 + 50 * 12)
    assert hourly.bound(1, 0) == Money(20)


RATES = st.integers(0, 10**12)
OWN_RATES = st.none() | RATES
COUNTS = st.integers(-(10**3), 10**7)
NAMES = st.sampled_from(["priority", "flex"])


def prices(inner: st.SearchStrategy[Price] | None = None) -> st.SearchStrategy[Price]:
    nothing: st.SearchStrategy[tuple[()]] = st.just(())
    return st.builds(
        Price,
        RATES,
        RATES,
        OWN_RATES,
        OWN_RATES,
        OWN_RATES,
        OWN_RATES,
        tiers=nothing if inner is None else st.lists(st.tuples(st.integers(0, 10**6), inner), max_size=2).map(tuple),
        service_tiers=nothing if inner is None else st.lists(st.tuples(NAMES, inner), max_size=2).map(tuple),
        cache_write_1h=OWN_RATES,
    )


USAGES = st.builds(
    Usage,
    COUNTS,
    COUNTS,
    COUNTS,
    COUNTS,
    COUNTS,
    audio_input_tokens=COUNTS,
    audio_output_tokens=COUNTS,
    service_tier=st.none() | NAMES,
    cache_write_1h_tokens=COUNTS,
)


@given(price=prices(prices(prices())), usage=USAGES, more=st.integers(0, 10**3))
def test_no_usage_costs_more_than_the_bound_of_its_tokens_or_less_than_nothing(
    price: Price, usage: Usage, more: int
) -> None:
    bound = price.bound(usage.input_tokens + more, usage.output_tokens + more)

    assert Money() <= price.cost(usage) <= bound
