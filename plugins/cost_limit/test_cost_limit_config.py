"""What may be written in a table, and what is said about what may not."""

from __future__ import annotations

from collections.abc import Mapping

import llmproxy_cost_limit
import pytest
from llmproxy_cost_limit import CostLimitConfig
from test_cost_limit_shared import Limited, Wall, limited

from llmproxy_core import ConfigError, Money, Window, builtin_stores
from llmproxy_core.config import structure
from llmproxy_core.plugins import Registry
from tests.proxy import SECRET, STANDARD_PLUGINS

URL = "http://127.0.0.1:9/v1"


def read(limit: Mapping[str, object]) -> CostLimitConfig:
    registry = Registry.of(*STANDARD_PLUGINS, builtin_stores, llmproxy_cost_limit)
    config = structure(limited(URL, limit), registry, {"KEY": SECRET})[0].processors["limit"].config
    assert isinstance(config, CostLimitConfig)
    return config


def test_every_key_is_read() -> None:
    keys = {
        "per_request_usd": "0.50",
        "hourly_usd": 1,
        "daily_usd": 2.5,
        "monthly_usd": "30.000000001",
        "total_usd": "400",
        "per": "route",
        "assumed_output_tokens": 10,
        "assumed_image_tokens": 20,
        "unpriced": "allow",
        "on_store_error": "allow",
        "store": "memory",
    }

    config = read(keys)

    assert config == CostLimitConfig(
        per_request_usd=Money.usd("0.5"),
        hourly_usd=Money.usd(1),
        daily_usd=Money.usd("2.5"),
        monthly_usd=Money(30_000_000_001),
        total_usd=Money.usd(400),
        per="route",
        assumed_output_tokens=10,
        assumed_image_tokens=20,
        unpriced="allow",
        on_store_error="allow",
    )
    assert [key for key, _, _ in config.windows] == ["total_usd", "monthly_usd", "daily_usd", "hourly_usd"]
    assert config.key_of(Window.HOUR) == "hourly_usd"


def test_the_short_form_is_a_limit_per_day() -> None:
    assert read({"config_value": "25.00"}) == CostLimitConfig(daily_usd=Money.usd(25))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"daily_usd": -3}, 'processor.limit.daily_usd: expected a positive amount such as "25.00", got -3'),
        ({"total_usd": "0"}, 'processor.limit.total_usd: expected a positive amount such as "25.00", got "0"'),
        ({"hourly_usd": "much"}, 'processor.limit.hourly_usd: expected dollars such as "25.00", got "much"'),
        ({"daily_usd": 1, "per": "tenant"}, "processor.limit.per: expected one of"),
        ({"daily_usd": 1, "unpriced": "free"}, "processor.limit.unpriced: expected one of"),
        ({"daily_usd": 1, "assumed_output_tokens": -1}, "processor.limit.assumed_output_tokens: expected a count"),
        ({"daily_usd": 1, "store": "memry"}, 'did you mean "memory"?'),
        ({"daily_us": 1}, "daily_usd"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_mistake_is_told_where_it_is(keys: Mapping[str, object], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(keys)

    assert problem in str(caught.value)


@pytest.mark.parametrize("keys", [{}, {"per": "model", "unpriced": "allow"}], ids=["empty", "none among its keys"])
async def test_a_table_without_a_limit_is_a_mistake(keys: Mapping[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        await Limited(limited(URL, keys), wall=Wall()).server.start()

    assert str(caught.value) == (
        "processor.limit: it has no limit; expected at least one of per_request_usd, hourly_usd, daily_usd, "
        "monthly_usd or total_usd"
    )


def test_it_cannot_be_passed_by() -> None:
    """An operation that it does not act on, and that may cost money, is a problem of the file."""
    mapping = limited(URL, {"daily_usd": 1})
    mapping["route"][0]["operations"] = ["chat", "opaque"]
    registry = Registry.of(*STANDARD_PLUGINS, builtin_stores, llmproxy_cost_limit)

    with pytest.raises(ConfigError) as caught:
        structure(mapping, registry, {"KEY": SECRET})

    assert "opaque" in str(caught.value)
