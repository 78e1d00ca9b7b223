"""The bundled price list: what the package means by a price is what ours costs, and it is loaded late, once, alone."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import Usage as PackageUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    PriceVariant,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.types import ModelPrice as Rates

from llmproxy_core import Money, Price, Usage
from llmproxy_core.prices import ModelPrice
from llmproxy_server.prices import BundledPrices
from tests.llmproxy_server.cli_process import TIMEOUT_S, environment
from tests.proxy import Proxy, openai_at

ROOT = Path(__file__).parents[2]
URL = "https://llm.example/v1"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PER = 10**9
"""Nanodollars: a price of 1 is a dollar per million tokens."""


def usd(text: str) -> Decimal:
    return Decimal(text)


def listing(
    prices: Rates | list[ConditionalPrice], variants: list[PriceVariant] | None = None, *, borrowed: bool = False
) -> DataSnapshot:
    """A list of one model, `m`, of the provider at URL, or of another one's that it is *borrowed* from."""
    info = ModelInfo("m", ClauseEquals("m"), prices=prices, price_variants=variants)
    there = Provider("owner", "Owner", r"https://owner\.example", models=[info])
    here = Provider(
        "here", "Here", r"https://llm\.example", models=[] if borrowed else [info], fallback_model_providers=["owner"]
    )
    return DataSnapshot([here, there], from_auto_update=False)


async def found(data: DataSnapshot, at: datetime = NOON, model: str = "m", url: str = URL) -> Price | None:
    entry = await BundledPrices(lambda: data, lambda: at).find(url, model)
    return None if entry is None else entry.price


# -- what a price means ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "model", "usage", "cost"),
    [
        pytest.param(
            "https://api.openai.com/v1",
            "gpt-4o-2024-08-06",
            Usage(1000, 100, cached_input_tokens=400),
            "0.003",  # 600 at 2.50, 400 at 1.25, 100 at 10.00
            id="cached",
        ),
        pytest.param(
            "https://api.openai.com/v1",
            "gpt-4o",
            Usage(1000, 100, cached_input_tokens=400, service_tier="priority"),
            "0.0051",  # 600 at 4.25, 400 at 2.125, 100 at 17.00
            id="service tier",
        ),
        pytest.param(
            "https://api.anthropic.com/v1",
            "claude-3-5-haiku-latest",
            Usage(1000, 100, cached_input_tokens=400, cache_write_tokens=200),
            "0.000952",  # 400 at 0.80, 400 at 0.08, 200 at 1.00, 100 at 4.00
            id="written",
        ),
        pytest.param(
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "gemini-2.5-pro",
            Usage(200_000, 100),
            "0.251",  # 1.25 and 10.00
            id="just below a tier",
        ),
        pytest.param(
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "gemini-2.5-pro",
            Usage(200_001, 100),
            "0.5015025",  # 2.50 and 15.00, for the whole call
            id="just above it",
        ),
    ],
)
async def test_known_calls_cost_what_their_providers_charge(url: str, model: str, usage: Usage, cost: str) -> None:
    entry = await BundledPrices(now=lambda: NOON).find(url, model)

    assert entry is not None
    assert entry.price.cost(usage) == Money.usd(cost)


SWEPT = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
    "mistral": "https://api.mistral.ai/v1",
    "x-ai": "https://api.x.ai/v1",
}
TIERS = [None, "default", "flex", "priority", "fast", "unheard-of"]


async def swept() -> AsyncIterator[tuple[str, ModelInfo, ModelPrice | None]]:
    """Models of the bundled list, their provider's URL, and what we make of them."""
    bundled = BundledPrices(now=lambda: NOON)
    for provider in get_snapshot().providers:
        url = SWEPT.get(provider.id)
        for info in provider.models if url else []:
            assert url is not None
            if provider.find_model(info.id) is info:  # else its id is no name for it
                yield url, info, await bundled.find(url, info.id)


def usage_of(chance: random.Random) -> Usage:
    asked = chance.choice([10, 5_000, 150_000, 1_000_000])
    cached = chance.randrange(asked)
    written = chance.randrange(asked - cached)
    return Usage(asked, chance.randrange(50_000), cached, written, service_tier=chance.choice(TIERS))


def package_cost(url: str, model: str, usage: Usage) -> Money:
    """What the package says that *usage* costs."""
    counts = PackageUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    context = {"service_tier": usage.service_tier} if usage.service_tier else None
    priced = calc_price(counts, model, provider_api_url=url, genai_request_timestamp=NOON, price_context=context)
    return Money.usd(priced.total_price)


async def test_our_costs_are_the_packages_for_the_models_of_the_great_providers() -> None:
    """A version of the package that comes to mean something else by a tier, a class or a variant is noticed here."""
    chance = random.Random(3)
    compared = tiered = service_tiered = 0
    async for url, info, entry in swept():
        rates = vars(info.get_prices(NOON))
        if entry is None:
            assert "input_mtok" not in rates, info.id
            continue
        compared += 1
        tiered += bool(entry.price.tiers)
        service_tiered += bool(entry.price.service_tiers)
        is_dearer = not rates.keys().isdisjoint({"output_image_mtok", "output_video_mtok"})
        for _ in range(30):
            usage = usage_of(chance)
            ours, theirs = entry.price.cost(usage), package_cost(url, info.id, usage)
            assert ours == theirs or (is_dearer and ours > theirs), (info.id, usage)

    assert compared > 200
    assert tiered > 20
    assert service_tiered > 20


async def test_every_bundled_model_has_a_price_or_none() -> None:
    """Whatever unit, constraint or odd number the list holds, it is read; and it is bounded by its bound."""
    bundled, urls = BundledPrices(now=lambda: NOON), 0
    usage = Usage(10**6, 10**6, 10**5, 10**5, audio_input_tokens=10**5, audio_output_tokens=10**5)
    for provider in get_snapshot().providers:
        url = re.sub(r"\(.*?\)\??|\[.*?\]\+?|\$|\\", "", provider.api_pattern)
        try:
            is_found = get_snapshot().find_provider(None, None, url) is provider
        except LookupError:
            continue  # a pattern that is not as easily turned into an address
        urls += is_found
        for info in provider.models if is_found else []:
            entry = await bundled.find(url, info.id)
            if entry is not None:
                assert len(entry.name) <= 128
                assert Money() <= entry.price.cost(usage) <= entry.price.bound(10**6, 10**6)

    assert urls > 30


async def test_every_class_is_turned_into_nanodollars() -> None:
    data = listing(
        Rates(
            input_mtok=usd("2.5"),
            output_mtok=usd("10"),
            cache_read_mtok=usd("0.003625"),
            cache_write_mtok=usd("3.13"),
            input_audio_mtok=usd("40"),
            output_audio_mtok=usd("0.08333333333333334"),  # a third more than can be said, rounded
        )
    )

    price = await found(data)

    assert price == Price(2_500_000_000, 10 * PER, 3_625_000, 3_130_000_000, 40 * PER, 83_333_333)


async def test_token_tiers_begin_where_any_class_has_one() -> None:
    data = listing(
        Rates(
            input_mtok=TieredPrices(usd("1"), [Tier(500, usd("5")), Tier(200, usd("2"))]),
            output_mtok=TieredPrices(usd("10"), [Tier(200, usd("20"))]),
            cache_read_mtok=usd("0.5"),
        )
    )

    price = await found(data)

    half = PER // 2
    tiers = ((200, Price(2 * PER, 20 * PER, half)), (500, Price(5 * PER, 20 * PER, half)))
    assert price == Price(1 * PER, 10 * PER, half, tiers=tiers)


@pytest.mark.parametrize(
    "rates",
    [
        pytest.param(Rates(), id="nothing"),
        pytest.param(Rates(input_mchars=usd("15")), id="characters"),
        pytest.param(Rates(audio_hours=usd("0.36"), input_audio_hours=usd("0.36")), id="hours of audio"),
        pytest.param(Rates(input_document_kpages=usd("1")), id="pages"),
    ],
)
async def test_what_is_not_priced_by_tokens_has_no_price(rates: Rates) -> None:
    assert await found(listing(rates)) is None


async def test_fees_that_are_no_matter_of_tokens_are_left_out() -> None:
    rates = Rates(input_mtok=usd("1"), output_mtok=usd("2"), requests_kcount=usd("12"), web_searches_kcount=usd("10"))

    assert await found(listing(rates)) == Price(1 * PER, 2 * PER)


async def test_an_embedding_model_costs_nothing_for_output() -> None:
    assert await found(listing(Rates(input_mtok=usd("0.02")))) == Price(20_000_000, 0)


async def test_output_that_may_be_images_costs_what_images_do() -> None:
    rates = Rates(input_mtok=usd("1"), output_mtok=usd("2.5"), output_image_mtok=usd("30"))

    assert await found(listing(rates)) == Price(1 * PER, 30 * PER)


# -- service tiers, days and hours -------------------------------------------------------------------------------------

STANDARD = Rates(input_mtok=usd("2"), output_mtok=usd("4"), cache_read_mtok=usd("1"))
AUTUMN = StartDateConstraint(date(2026, 10, 12))
VARIANTS = [
    PriceVariant({"service_tier": "default"}, Rates()),
    PriceVariant({"service_tier": "priority"}, Rates(input_mtok=usd("3"), output_mtok=usd("6")), AUTUMN),
    PriceVariant({"processing": "batch"}, Rates(input_mtok=usd("1"), output_mtok=usd("2"))),
    PriceVariant({"service_tier": "flex", "region": "eu"}, Rates(input_mtok=usd("9"))),
]


async def test_variants_by_service_tier_alone_are_service_tiers() -> None:
    """What a variant does not say is as in the standard price; other variants are nothing that an answer tells."""
    price = await found(listing(STANDARD, VARIANTS))

    assert price is not None
    assert price.service_tiers == (("priority", Price(3 * PER, 6 * PER, 1 * PER)),)


async def test_a_service_tier_of_another_day_is_none() -> None:
    assert await found(listing(STANDARD, VARIANTS), datetime(2026, 10, 11, 23, 59, tzinfo=UTC)) == Price(
        2 * PER, 4 * PER, 1 * PER
    )


async def test_a_borrowed_price_comes_without_the_lenders_service_tiers() -> None:
    data = listing(STANDARD, VARIANTS, borrowed=True)

    assert await found(data) == Price(2 * PER, 4 * PER, 1 * PER)
    usage = PackageUsage(input_tokens=10**6)
    provider, model = data.find_provider_model("m", None, None, URL)
    context = {"service_tier": "priority"}
    assert model.calc_price(usage, provider, genai_request_timestamp=NOON, price_context=context).total_price == 2


CHANGING = [
    ConditionalPrice(prices=Rates(input_mtok=usd("1"), output_mtok=usd("1"))),
    ConditionalPrice(AUTUMN, prices=Rates(input_mtok=usd("2"), output_mtok=usd("2"))),
]


@pytest.mark.parametrize(("day", "rate"), [(date(2026, 10, 11), 1), (date(2026, 10, 12), 2)])
async def test_the_price_is_that_of_the_day(day: date, rate: int) -> None:
    price = await found(listing(CHANGING), datetime.combine(day, time(12), UTC))

    assert price == Price(rate * PER, rate * PER)


@pytest.mark.parametrize("hour", [0, 5, 12, 23])
@pytest.mark.parametrize("bounds", [(time(4), time(6)), (time(22, tzinfo=UTC), time(3, tzinfo=UTC))])
@pytest.mark.parametrize("peak", ["0.5", "8"])
async def test_of_the_hours_of_a_day_the_dearest_counts(peak: str, bounds: tuple[time, time], hour: int) -> None:
    """Whenever it is asked for, and whether the hours are the dear or the cheap ones."""
    hours = ConditionalPrice(TimeOfDateConstraint(*bounds), prices=Rates(input_mtok=usd(peak), output_mtok=usd(peak)))
    at = datetime(2026, 11, 20, hour, tzinfo=UTC)

    price = await found(listing([*CHANGING, hours]), at)

    dearest = max(int(usd(peak) * PER), 2 * PER)
    assert price == Price(dearest, dearest)


# -- who is asked for what ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "model"),
    [
        pytest.param("http://127.0.0.1:11434/v1", "gpt-4o", id="a server of one's own"),
        pytest.param("https://api.openai.com/v1", "nobody-knows-it", id="an unknown model"),
        pytest.param("https://api.deepseek.com", "deepseek-chat" + "-x" * 200, id="no name of a model"),
        pytest.param("", "", id="nothing"),
    ],
)
async def test_what_nobody_knows_has_no_price(url: str, model: str) -> None:
    assert await BundledPrices().find(url, model) is None


async def test_a_model_is_known_by_the_beginning_of_its_name() -> None:
    entry = await BundledPrices().find("https://api.deepseek.com", "deepseek-chat-x")

    assert entry is not None
    assert entry.name == "deepseek-chat"


async def test_the_entry_is_named_by_the_list_not_by_the_client() -> None:
    bundled = BundledPrices()

    names = {await bundled.find("https://api.openai.com/v1", it) for it in ("gpt-4o", "gpt-4o-2024-08-06", "GPT-4o")}

    assert [entry.name for entry in names if entry] == ["gpt-4o"]


async def test_names_that_clients_make_up_are_not_remembered() -> None:
    data = listing(STANDARD)
    bundled = BundledPrices(lambda: data)

    for number in range(100):
        await bundled.find(URL, f"made-up-{number}")

    assert (len(data._provider_cache), len(data._provider_misses), len(data._lookup_cache)) == (1, 0, 0)


# -- loading -----------------------------------------------------------------------------------------------------------


class Loader:
    """Data that is there when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self) -> DataSnapshot:
        self.threads.append(threading.current_thread())
        self.begun.set()
        assert self.may_end.wait(TIMEOUT_S)
        return listing(STANDARD)


async def test_all_who_ask_at_first_wait_for_one_load_in_a_thread() -> None:
    load = Loader()
    bundled = BundledPrices(load)

    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
        bundled.start()
        asked = [group.create_task(bundled.find(URL, "m")) for _ in range(20)]
        await asyncio.to_thread(load.begun.wait, TIMEOUT_S)
        asked[0].cancel()  # one who goes away takes nothing from the others
        load.may_end.set()
    bundled.start()
    late = await bundled.find(URL, "m")

    assert asked[0].cancelled()
    assert {task.result() for task in asked[1:]} == {late}
    assert late is not None
    assert load.threads == [load.threads[0]]
    assert load.threads[0] is not threading.main_thread()


async def test_nothing_is_loaded_until_somebody_asks_or_it_is_started() -> None:
    load = Loader()
    load.may_end.set()
    bundled = BundledPrices(load)
    assert not load.begun.is_set()

    bundled.start()

    assert await asyncio.to_thread(load.begun.wait, TIMEOUT_S)


OWN = {"input": "1.00", "output": "2.00"}


@pytest.mark.parametrize("own", [{}, {"gpt-*": OWN}])
async def test_who_will_ask_for_prices_is_served_once_they_are_there(own: dict[str, object]) -> None:
    """The first calls would all wait for it, and the others for the interpreter."""
    load = Loader()
    proxy = Proxy(openai_at(URL, prices=own))
    proxy.server._maker.prices = BundledPrices(load)

    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
        starting = group.create_task(proxy.server.start())
        await asyncio.to_thread(load.begun.wait, TIMEOUT_S)
        assert not proxy.server.listeners
        load.may_end.set()
        await starting
        assert proxy.server.listeners
        await proxy.server.aclose()


async def test_who_asks_for_no_price_waits_for_none() -> None:
    load = Loader()
    proxy = Proxy(openai_at(URL, prices={"*": OWN}))
    proxy.server._maker.prices = BundledPrices(load)

    async with asyncio.timeout(TIMEOUT_S), proxy:
        assert not load.begun.is_set()


async def test_a_package_that_does_not_import_is_logged_once_and_means_no_price(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)  # as if it were not there
    bundled = BundledPrices()
    caplog.set_level(logging.INFO)

    async with asyncio.timeout(TIMEOUT_S):
        answers = await asyncio.gather(*[bundled.find("https://api.openai.com/v1", "gpt-4o") for _ in range(5)])
    answers.append(await bundled.find("https://api.openai.com/v1", "gpt-4o"))

    assert answers == [None] * 6
    assert [record.getMessage().split(";")[0] for record in caplog.records] == ["the bundled prices cannot be loaded"]


async def test_data_that_cannot_be_read_is_logged_once_and_means_no_price(caplog: pytest.LogCaptureFixture) -> None:
    data = listing(Rates(input_mtok=usd("NaN"), output_mtok=usd("1")))
    bundled = BundledPrices(lambda: data)

    assert [await bundled.find(URL, "m") for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1


# -- alone -------------------------------------------------------------------------------------------------------------


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


IS_IMPORTED = """
found = sorted({name.partition(".")[0] for name in sys.modules} & {"genai_prices", "pydantic", "httpx2"})
print("imported:", found)
"""

COMMAND = """
import sys
from llmproxy_server.cli import main
assert main() == 0
"""

SERVER = """
import sys
import llmproxy_server.server
import llmproxy_server.prices
llmproxy_server.prices.BundledPrices()
"""


def test_the_package_is_not_imported_before_a_price_is_asked_for() -> None:
    assert run(SERVER + IS_IMPORTED).splitlines() == ["imported: []"]
    assert run(COMMAND + IS_IMPORTED, "--version").splitlines()[-1] == "imported: []"


OFFLINE = """
import asyncio, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "subprocess.Popen"):
        raise SystemExit(f"{event}{arguments}")
sys.addaudithook(refuse)

async def main():
    from llmproxy_server.prices import BundledPrices
    bundled = BundledPrices()
    bundled.start()
    entry = await bundled.find("https://api.openai.com/v1", "gpt-4o")
    print(entry.name, await bundled.find("https://unheard.example", "x"))

asyncio.run(main())
import threading
print([thread.name for thread in threading.enumerate()])
"""


def test_prices_are_found_without_a_network() -> None:
    assert run(OFFLINE).splitlines() == ["gpt-4o None", "['MainThread']"]


def test_one_module_alone_knows_the_package() -> None:
    sources = [*ROOT.glob("llmproxy_*/**/*.py"), *ROOT.glob("plugins/**/*.py")]
    importing = [path.name for path in sources if re.search(r"(import|from) genai_prices", path.read_text())]

    assert importing == ["prices.py"]
