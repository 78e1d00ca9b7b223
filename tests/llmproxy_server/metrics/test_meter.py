"""What plugins count with, and what is looked at now and then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import pytest

from llmproxy_core import Exchange, Handler, Meter, ProcessorType, Response, Services, hookimpl
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import ConfigError
from llmproxy_server.metrics.meter import Sampler, StoredMeter
from llmproxy_server.metrics.metering import Metering
from llmproxy_server.metrics.snapshot import Snapshot, added_up
from llmproxy_server.metrics.values import Family, Slot, Values
from tests.llmproxy_server.metrics.scraping import chat, priced_at, scrape
from tests.proxy import Proxy
from tests.upstream import Upstream, completion, reply


def read(values: Values) -> Snapshot:
    return added_up([Slot(values.series, values.cells)])


def test_equal_names_and_labels_are_one_metric() -> None:
    values = Values.anonymous()

    StoredMeter(values).counter("llmproxy_things_total", "Things.", kind="a").add()
    StoredMeter(values).counter("llmproxy_things_total", "Things.", kind="a").add(2)
    StoredMeter(values).counter("llmproxy_things_total", "Things.", kind="b").add(5)

    found = read(values).of("llmproxy_things_total")
    assert (found.value(kind="a"), found.value(kind="b")) == (3, 5)


def test_a_histogram_puts_a_value_on_a_bound_below_it() -> None:
    values = Values.anonymous()
    histogram = StoredMeter(values).histogram("llmproxy_sizes_bytes", "Sizes.", [1, 10])

    for value in (0.5, 1, 1.5, 10, 11):
        histogram.record(value)

    assert read(values).of("llmproxy_sizes_bytes").cells[()] == [2, 2, 1, 24]


def ask_for(name: str, doc: str = "Things.", **labels: Any) -> Callable[[Meter], object]:
    return lambda meter: meter.counter(name, doc, **labels)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (ask_for("things_total"), "expected a name such as"),
        (ask_for("llmproxy_Things_total"), "expected a name such as"),
        (ask_for("llmproxy_things"), "end with _total"),
        (ask_for("llmproxy_things_total", ""), "says what it means"),
        (ask_for("llmproxy_things_total", __x="1"), "not the name of a label"),
        (ask_for("llmproxy_things_total", le="1"), "not the name of a label"),
        (ask_for("llmproxy_things_total", kind=7), "to be text, got int"),
        (lambda meter: meter.gauge("llmproxy_things_total", "Things.", lambda: 1.0), "cannot end with _total"),
        (lambda meter: meter.gauge("llmproxy_things_count", "Things.", lambda: 1.0), "expected a name such as"),
        (lambda meter: meter.histogram("llmproxy_things", "Things.", []), "at least one bucket"),
        (lambda meter: meter.histogram("llmproxy_things", "Things.", [2, 1]), "in rising order"),
    ],
)
def test_what_would_break_a_scrape_is_refused(ask: Callable[[Meter], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(StoredMeter(Values.anonymous()))


def test_gauges_are_those_of_the_gateway_that_serves() -> None:
    metering = Metering.alone()
    first, second, never = (metering.scope() for _ in range(3))
    first.meter.gauge("llmproxy_kept", "Both have it.", lambda: 1.0)
    first.meter.gauge("llmproxy_gone", "The first alone.", lambda: 1.0)
    second.meter.gauge("llmproxy_kept", "Both have it.", lambda: 2.0)
    never.meter.gauge("llmproxy_kept", "Both have it.", lambda: 3.0)

    first.activate()
    metering.sample()
    before = metering.snapshot()
    second.activate()
    metering.sample()
    after = metering.snapshot()

    assert [it.of(name).value() for it in (before, after) for name in ("llmproxy_kept", "llmproxy_gone")] == [
        1,
        1,
        2,
        0,
    ]


def test_what_rises_elsewhere_is_counted_by_how_much_it_rose() -> None:
    values, elsewhere = Values.anonymous(), 5.0
    family = Family("lost_total", "counter", "Lost.")
    values.cells[values.place(family)] = 100  # of a predecessor
    sampler = Sampler(values)
    sampler.counter(family, lambda: elsewhere)

    for elsewhere in (5.0, 5.0, 7.0):  # noqa: B007 - the sampler reads it
        sampler.sample()

    assert read(values).of(family.name).value() == 107


def test_a_gauge_that_fails_is_told_once_and_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    values = Values.anonymous()
    sampler = Sampler(values)
    sampler.gauge(Family("broken", "gauge", "Broken."), lambda: 1 / 0)
    sampler.gauge(Family("whole", "gauge", "Whole."), lambda: 3.0)

    with caplog.at_level(logging.ERROR):
        sampler.sample()
        sampler.sample()

    assert read(values).of("whole").value() == 3
    assert [record.getMessage() for record in caplog.records] == ["a gauge could not be read; it stays at what it was"]


# -- a plugin's ------------------------------------------------------------------------------------------------------


@attrs.frozen
class NoConfig:
    pass


class Plugin:
    """A processor type `counted`, which counts its calls under *name*."""

    def __init__(self, name: str) -> None:
        self._name = name

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        name = self._name

        class Counted:
            def __init__(self, config: NoConfig, services: Services) -> None:
                self._calls = services.meter.counter(name, "Calls.", table=services.table)
                services.meter.gauge("llmproxy_plugin_mood", "Its mood.", lambda: 0.5)

            async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
                self._calls.add()
                return await call_next(exchange)

        return [ProcessorType("counted", NoConfig, Counted, frozenset(Operation))]


def counting(base_url: str) -> dict[str, Any]:
    mapping = priced_at(base_url)
    mapping["processor"] = {"mine": {"type": "counted"}}
    mapping["route"][0]["processors"] = ["mine"]
    return mapping


async def test_what_a_plugin_counts_is_scraped_with_the_rest() -> None:
    plugin = Plugin("llmproxy_plugin_calls_total")
    async with (
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(counting(upstream.base_url), plugins=[plugin]) as proxy,
    ):
        await chat(proxy)
        seen = await scrape(proxy)

    assert seen("llmproxy_plugin_calls_total", table="processor.mine") == 1
    assert seen("llmproxy_plugin_mood") == 0.5


async def test_a_plugin_with_a_name_that_will_not_do_is_named() -> None:
    taking = Proxy(counting("http://127.0.0.1:9/v1"), plugins=[Plugin("no_name_of_ours_total")])

    with pytest.raises(ConfigError, match=r"processor\.mine: .*expected a name such as llmproxy_plugin_things_total"):
        await taking.server.start()
