"""
The price list of the genai-prices package, which comes with its data: nothing is ever fetched.

No other module imports the package. It takes 20 MB, and a quarter of a second; where it was not compiled before, two
seconds, in one of which little else in the process runs. So it is imported only where there is something to pay, in a
thread, and before that is served: the first calls would all wait for their price, and the others for the interpreter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING

import attrs

from llmproxy_core.config import Config
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.money import Money, Price
from llmproxy_core.prices import ModelPrice
from llmproxy_server.log_events import get_logger

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, Tier, TieredPrices
    from genai_prices.types import ModelPrice as Rates

_log = get_logger()

_LONGEST_MODEL = 256
"""No model has a longer name; what clients make up is not looked for in thousands of patterns."""

_MILLION = 1_000_000
_BELOW_ALL = -1

_CLASSES = {
    "input": ["input_mtok"],
    # A usage does not tell the tokens of images and videos from those of text: the dearer ones count.
    "output": ["output_mtok", "output_image_mtok", "output_video_mtok"],
    "cached_input": ["cache_read_mtok"],
    "cache_write": ["cache_write_mtok"],
    "cache_write_1h": ["cache_write_1h_mtok"],
    "audio_input": ["input_audio_mtok"],
    "audio_output": ["output_audio_mtok"],
}
"""
The fields of a Price, and the package's names of what they cost.

What is left out costs what it is a part of (images that are read, reasoning; audio from a cache is cached input), or is
no matter of tokens: fees per request, search, page or second are not in a Price.
"""


def needs_list(config: Config) -> bool:
    """Whether there may be a model whose price *config* does not say itself."""
    return any(
        isinstance(llm, HttpLLMConfig) and llm.enabled and all(name != "*" for name, _ in llm.prices)
        for llm in config.llms.values()
    )


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _bundled() -> DataSnapshot:
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()


class BundledPrices:
    """
    See Prices. Models are known by their provider's URL; an LLM of the operator's own has no price here.

    Prices are those of the day on which they are asked for. Where they depend on the time of day the dearest counts.
    *load* gives the data, in a thread.
    """

    def __init__(self, load: Callable[[], DataSnapshot] = _bundled, now: Callable[[], datetime] = _utc_now) -> None:
        self._load = load
        self._now = now
        self._loading: asyncio.Future[DataSnapshot | None] | None = None
        self._is_faulty = False

    async def ready(self) -> None:
        """Return once the data is loaded, or surely cannot be."""
        self.start()
        assert self._loading is not None
        await asyncio.shield(self._loading)

    def start(self) -> None:
        """Begin to load, unless that has begun; it goes on in the background. To be called in the event loop."""
        if self._loading is None:
            self._loading = asyncio.get_running_loop().run_in_executor(None, self._loaded)

    async def find(self, base_url: str, model: str) -> ModelPrice | None:
        """See Prices. All who ask before the data is there wait for the one load."""
        self.start()
        assert self._loading is not None
        data = await asyncio.shield(self._loading)  # who goes away stops waiting, not the load
        if data is None or len(model) > _LONGEST_MODEL:
            return None
        try:
            return _entry(data, base_url, model, self._now().astimezone(UTC))
        except Exception as error:  # noqa: BLE001 - another version of the package may mean anything else
            if not self._is_faulty:
                self._is_faulty = True
                _log.error("the bundled prices could not be read; such models have no price", exc_info=error)
            return None

    def _loaded(self) -> DataSnapshot | None:
        try:
            return self._load()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the package, calls go on without prices
            _log.error("the bundled prices cannot be loaded; only [llm.NAME.prices] count", exc_info=error)
            return None


def known_models() -> Callable[[str, str], bool | None]:
    """
    Whether the provider at a URL has a model, as the bundled list knows it; None where it does not know the provider.

    Loads the list.
    """
    try:
        data = _bundled()
    except Exception:  # noqa: BLE001 - whatever is wrong with the package: nothing is known then
        return lambda base_url, model: None

    def knows(base_url: str, model: str) -> bool | None:
        try:
            provider = data.find_provider(None, None, base_url)
        except LookupError:
            return None
        return provider.find_model(model, all_providers=data.providers) is not None

    return knows


def _entry(data: DataSnapshot, base_url: str, model: str, now: datetime) -> ModelPrice | None:
    # Asked in this way the package remembers URLs, of which there are few, and not the models that clients ask for.
    try:
        provider = data.find_provider(None, None, base_url)
    except LookupError:
        return None
    info = provider.find_model(model, all_providers=data.providers)
    if info is None:
        return None
    # A provider that another one's price is borrowed for does not have its service tiers.
    tiers = _service_tiers(info) if any(info is own for own in provider.models) else []
    found = [_price_at(moment, info, tiers) for moment in _moments(info, now)]
    known = [price for price in found if price is not None]
    if not known:
        return None
    return ModelPrice(info.id, max(known, key=lambda price: price.bound(_MILLION, _MILLION)))


def _service_tiers(info: ModelInfo) -> list[str]:
    return sorted(
        {variant.when["service_tier"] for variant in info.price_variants or () if "service_tier" in variant.when}
    )


def _moments(info: ModelInfo, now: datetime) -> list[datetime]:
    """*now*, and when else on its day (in UTC) a price of *info* begins or ends."""
    from genai_prices.types import TimeOfDateConstraint

    standard = info.prices if isinstance(info.prices, list) else []
    constraints = [each.constraint for each in (*standard, *(info.price_variants or ()))]
    hours = [each for each in constraints if isinstance(each, TimeOfDateConstraint)]
    return [now, *(_on(now, bound) for each in hours for bound in (each.start_time, each.end_time))]


def _on(day: datetime, bound: time) -> datetime:
    """*bound*, which is in UTC unless it says otherwise, as a moment of *day*."""
    at = bound.replace(tzinfo=UTC) if bound.tzinfo is None else bound
    return datetime.combine(day, datetime.combine(day, at).astimezone(UTC).timetz())


def _price_at(moment: datetime, info: ModelInfo, service_tiers: list[str]) -> Price | None:
    price = _converted(info.get_prices(moment))
    if price is None:
        return None
    tiers = [(name, _converted(info.get_prices(moment, {"service_tier": name}))) for name in service_tiers]
    others = tuple((name, tier) for name, tier in tiers if tier is not None and tier != price)
    return attrs.evolve(price, service_tiers=others)


# -- USD per million tokens, as Decimals -> nanodollars ----------------------------------------------------------------


def _converted(rates: Rates) -> Price | None:
    """None when tokens have no price of their own. The package's tiers mean what ours do (a test holds it)."""
    priced = {key: value for key, value in vars(rates).items() if value is not None}
    if "input_mtok" not in priced:
        return None
    classes = {name: [priced[key] for key in keys if key in priced] for name, keys in _CLASSES.items()}
    starts = {tier.start for values in classes.values() for value in values for tier in _tiers(value)}
    tiers = tuple((start, _level(classes, start)) for start in sorted(starts))
    return attrs.evolve(_level(classes, _BELOW_ALL), tiers=tiers)


def _level(classes: Mapping[str, list[Decimal | TieredPrices]], start: int) -> Price:
    """What each class costs in the token tier that begins at *start*."""
    found = {name: max(_nanodollars(value, start) for value in values) for name, values in classes.items() if values}
    return Price(
        found["input"],
        found.get("output", 0),  # embeddings have none
        found.get("cached_input"),
        found.get("cache_write"),
        found.get("audio_input"),
        found.get("audio_output"),
        cache_write_1h=found.get("cache_write_1h"),
    )


def _nanodollars(price: Decimal | TieredPrices, start: int) -> int:
    reached = [tier.price for tier in _tiers(price) if tier.start <= start]  # in rising order
    base = price if isinstance(price, Decimal) else price.base
    return Money.usd(reached[-1] if reached else base).nanodollars


def _tiers(price: Decimal | TieredPrices) -> list[Tier]:
    return [] if isinstance(price, Decimal) else price.tiers
