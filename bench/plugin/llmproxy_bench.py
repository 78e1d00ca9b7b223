"""A processor that does nothing: three of them in a row say what the pipeline itself costs."""

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


@hookimpl
def llmproxy_processors() -> Iterable[ProcessorType[Any]]:
    everything = frozenset(Operation)
    return [ProcessorType(name="bench_nothing", config=NothingConfig, build=Nothing, operations=everything)]
