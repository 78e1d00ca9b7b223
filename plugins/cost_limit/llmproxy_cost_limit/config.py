"""The keys of a `[processor.…]` table of type `cost_limit`."""

from __future__ import annotations

from typing import Literal

import attrs

from llmproxy_core import Money, Window, count, option

IMAGE_TOKENS = 48_169
"""
The most that one image counts at OpenAI.

gpt-4o-mini is the dearest in tokens: 2833 for an image and 5667 for each tile of 512 pixels squared. Fitted into 2048
pixels squared and then to a shorter side of 768, an image has at most 2 x 4 of them (OpenAI, "Images and vision",
"Calculating costs"). Other providers stay below: Anthropic counts some 1600, Gemini 258 for a tile or 1120 in all.
"""


def _some_money(amount: Money) -> None:
    if not amount > Money(0):
        raise ValueError('expected a positive amount such as "25.00"')


@attrs.frozen(kw_only=True)
class CostLimitConfig:
    """Limits what calls may cost, in US dollars. At least one of the five limits is required."""

    per_request_usd: Money | None = option(
        "The most that one request may cost.", default=None, validator=_some_money, example="0.50"
    )
    hourly_usd: Money | None = option(
        "The most that may be spent in an hour of the clock.", default=None, validator=_some_money
    )
    daily_usd: Money | None = option(
        "The most that may be spent in a day (UTC).",
        default=None,
        validator=_some_money,
        example="25.00",
        fills_config_value=True,
    )
    monthly_usd: Money | None = option(
        "The most that may be spent in a month of the calendar (UTC).", default=None, validator=_some_money
    )
    total_usd: Money | None = option("The most that may ever be spent.", default=None, validator=_some_money)
    per: Literal["caller", "route", "model"] = option(
        "Who has such a budget: each caller (of a tenant), each route, or each model by its name in the price list. "
        "A table in several routes has one budget for all of them, unless it is one per route.",
        default="caller",
    )
    assumed_output_tokens: int = option(
        "The longest answer of a request that sets no cap, in tokens; for reserving only, nothing is cut.",
        default=4096,
        validator=count,
    )
    assumed_image_tokens: int = option(
        "The most that an image, document, audio or video counts, in input tokens. The default is OpenAI's largest "
        "image on its dearest model.",
        default=IMAGE_TOKENS,
        validator=count,
    )
    unpriced: Literal["refuse", "allow"] = option(
        "Calls of a model whose price nobody knows: refuse: they are answered 402; allow: they pass uncounted.",
        default="refuse",
    )
    on_store_error: Literal["refuse", "allow"] = option(
        "Calls while the store cannot be asked: refuse: they are answered 503; allow: they pass, and what they cost is "
        "booked when the store is back.",
        default="refuse",
    )
    store: str = option("The store that keeps the accounts.", default="memory", refers_to="store")

    def __attrs_post_init__(self) -> None:
        if self.per_request_usd is None and not self.windows:
            keys = "per_request_usd, hourly_usd, daily_usd, monthly_usd or total_usd"
            raise ValueError(f"it has no limit; expected at least one of {keys}")

    def key_of(self, window: Window) -> str:
        """The key that limits *window*."""
        return next(key for key, it, _ in self.windows if it is window)

    @property
    def windows(self) -> tuple[tuple[str, Window, Money], ...]:
        """
        The limits that have a window: (key, window, amount).

        The longest is first: where several are reached, the caller is told of the one that resets last.
        """
        keys = [
            ("total_usd", Window.TOTAL, self.total_usd),
            ("monthly_usd", Window.MONTH, self.monthly_usd),
            ("daily_usd", Window.DAY, self.daily_usd),
            ("hourly_usd", Window.HOUR, self.hourly_usd),
        ]
        return tuple((key, window, amount) for key, window, amount in keys if amount is not None)
