"""What a gateway lends to those it builds, as far as a test has it: scripted LLMs, stores in memory, no network."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from llmproxy_core.dialect import Dialect
from llmproxy_core.llm import LLMClient, Transport
from llmproxy_core.memory import MemoryConfig, MemoryStore
from llmproxy_core.prices import NoPrices, Prices
from llmproxy_core.services import Pool, RouteView, Services
from llmproxy_core.stores import Store
from llmproxy_core.tasks import Tasks
from llmproxy_core.testing.clock import FakeClock

TODAY_S = 1_800_000_000.0
"""Seconds since the epoch at which the tests begin."""


def scripted_services(
    llm: LLMClient,
    *,
    tasks: Tasks,
    llms: Mapping[str, LLMClient] | None = None,
    stores: Mapping[str, Store] | None = None,
    prices: Prices | None = None,
    dialects: Mapping[str, Dialect] | None = None,
    clock: Callable[[], float] | None = None,
    now: Callable[[], float] | None = None,
) -> Services:
    """
    Services to build a processor with, for a `Pipeline` around *llm*.

    `services.route` knows every route, and *llm* as its target, `scripted`; `services.llm` knows that one and *llms*;
    `services.store` the *stores*, without any of these one in memory named `memory`. Whatever else is asked for is a
    KeyError. *now* gives seconds since the epoch; chance is the same in every run. There is no network.
    """
    now = now or FakeClock(TODAY_S)
    known = {"scripted": llm, **(llms or {})}
    lent = stores or {"memory": MemoryStore(MemoryConfig(), now)}
    return Services(
        llm=known.__getitem__,
        transport=no_network,
        tasks=tasks,
        route=lambda name: RouteView(name, llm, "scripted"),
        store=lent.__getitem__,
        prices=prices or NoPrices(),
        dialects=dialects or {},
        clock=clock or FakeClock(),
        now=now,
        random=random.Random(0),  # noqa: S311 - no secret is made with it
    )


def no_network(pool: Pool) -> Transport:
    """A transport that a test does not have."""
    raise LookupError("there is no network in this test: give services with a transport of its own")
