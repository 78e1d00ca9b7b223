"""Prices as an operator writes them become prices of tokens, or a message that says where they are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy_core import Money, Price, Usage
from llmproxy_core.config_types import structured
from llmproxy_core.option import Misreadings
from llmproxy_core.price_config import Prices

PER = 10**9


def read(**table: Any) -> Price:
    [(name, price)] = structured(Prices, {"m": table}, {})
    assert name == "m"
    assert isinstance(price, Price)
    return price


def test_every_class_of_tokens_has_its_key() -> None:
    price = read(input=1, output=2, cached_input=3, cache_write=4, audio_input=5, audio_output=6)

    assert price == Price(1 * PER, 2 * PER, 3 * PER, 4 * PER, 5 * PER, 6 * PER)


def test_a_service_tier_is_a_whole_price_with_token_tiers_of_its_own() -> None:
    tiers = [
        {"above_input_tokens": 500, "input": 40, "output": 40},
        {"above_input_tokens": 200, "input": 30, "output": 30, "audio_input": 90},
    ]
    flex = {"input": "0.5", "output": "0.25", "audio_output": 7, "tiers": tiers}

    price = read(input=1, output=2, audio_input=9, service_tiers={"flex": flex, "priority": {"input": 8, "output": 8}})

    assert price.cost(Usage(100, 0)) == Money(100_000)
    assert price.cost(Usage(100, 0, service_tier="priority")) == Money(800_000)
    assert price.cost(Usage(100, 100, service_tier="flex")) == Money(75_000)
    assert price.cost(Usage(300, 0, audio_input_tokens=300, service_tier="flex")) == Money(27_000_000)
    assert price.cost(Usage(501, 0, service_tier="flex")) == Money(20_040_000)
    assert price.bound(1, 1) == Money(130_000)


def test_a_table_of_prices_can_be_a_key() -> None:
    """Equal configurations are told by their hash."""
    tiers = {"flex": {"input": 1, "output": 1, "tiers": [{"above_input_tokens": 2, "input": 1, "output": 1}]}}

    assert len({read(input=1, output=2, service_tiers=tiers), read(input=1, output=2, service_tiers=tiers)}) == 1


TWICE = [{"above_input_tokens": 5, "input": 1, "output": 1}] * 2


def test_tiers_that_begin_together_are_named_wherever_they_stand() -> None:
    tables = {
        "a": {"input": 1, "output": 1, "tiers": TWICE},
        "b": {"input": 1, "output": 1, "service_tiers": {"flex": {"input": 1, "output": 1, "tiers": TWICE}}},
    }

    with pytest.raises(Misreadings) as caught:
        structured(Prices, tables, {})

    assert [it.path for it in caught.value.found] == [("a", "tiers"), ("b", "service_tiers", "flex", "tiers")]
