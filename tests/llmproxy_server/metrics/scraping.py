"""What the tests of metrics share: a scrape, taken apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Protocol

import attrs
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from llmproxy_server.metrics.metering import Metering
from tests.exact import Seen, ask, post
from tests.proxy import Proxy, openai_at

MODEL = "gpt-4o-mini"
PRICES = {MODEL: {"input": "1000", "output": "2000"}}
"""Dollars for a million tokens: a thousandth for one of input, two for one of output."""
QUESTION: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
WAIT_S = 20.0


@attrs.frozen
class Scrape:
    """All samples of a scrape, by name and labels."""

    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]
    text: str

    @classmethod
    def of(cls, text: str, *, open_metrics: bool = False) -> Scrape:
        families = read_open_metrics(text) if open_metrics else read_text(text)  # type: ignore[no-untyped-call]
        found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in families:
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in found, f"{key} comes twice"
                found[key] = sample.value
        return cls(found, text)

    def __call__(self, name: str, **labels: str) -> float:
        """The value of one series; 0 when there is none."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def has(self, name: str, **labels: str) -> bool:
        return (name, frozenset(labels.items())) in self.samples

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of that name that have *labels* among theirs."""
        wanted = set(labels.items())
        return sum(value for (it, found), value in self.samples.items() if it == name and wanted <= found)

    def values(self, name: str, label: str) -> set[str]:
        """All values that a label has in the series of that name."""
        return {dict(found)[label] for it, found in self.samples if it == name and label in dict(found)}


class Serving(Protocol):
    @property
    def url(self) -> str: ...


async def scrape(proxy: Serving) -> Scrape:
    seen = await ask("GET", f"{proxy.url}/api/metrics")
    assert seen.status == 200, seen
    return Scrape.of(seen.body.decode())


async def scrape_until(proxy: Serving, name: str, value: float, **labels: str) -> Scrape:
    """Scrape until the series has that value: what is counted once the client has its answer."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = await scrape(proxy)
            if found(name, **labels) == value:
                return found


def priced_at(base_url: str, **llm: Any) -> dict[str, Any]:
    """One LLM at *base_url* with one model, whose price is known."""
    return openai_at(base_url, **{"models": [MODEL], "prices": PRICES, **llm})


async def chat(proxy: Proxy, **fields: object) -> Seen:
    """Ask a question, and read the whole answer."""
    return await post(f"{proxy.base_url}/chat/completions", json.dumps({**QUESTION, **fields}).encode())


def metered(proxy: Proxy, metering: Metering) -> Proxy:
    """*proxy*, not yet entered, with another place for its numbers."""
    proxy.server = proxy.make_server(metering=metering)
    return proxy


__all__ = ["MODEL", "PRICES", "QUESTION", "Scrape", "chat", "metered", "priced_at", "scrape", "scrape_until"]
