"""
A processor that does nothing: three of them in a row say what the pipeline itself costs.

And one that does nothing either, but tells how many tasks the process has: for the soak, since counting them each
second would be a cost that no other system has.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import attrs

from llmproxy_core import Exchange, Handler, Operation, ProcessorType, Response, Services, hookimpl


@attrs.frozen(kw_only=True)
class NothingConfig:
    """Does nothing."""


class Nothing:
    def __init__(self, config: NothingConfig, services: Services) -> None: ...

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        return await call_next(exchange)


class Tasks(Nothing):
    def __init__(self, config: NothingConfig, services: Services) -> None:
        doc = "Tasks of the event loop, that which asks among them."
        services.meter.gauge("llmproxy_bench_tasks", doc, lambda: len(asyncio.all_tasks()))


@hookimpl
def llmproxy_processors() -> Iterable[ProcessorType[Any]]:
    everything = frozenset(Operation)
    return [
        ProcessorType(name="bench_nothing", config=NothingConfig, build=Nothing, operations=everything),
        ProcessorType(name="bench_tasks", config=NothingConfig, build=Tasks, operations=everything),
    ]
