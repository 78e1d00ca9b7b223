"""
cost_limit: what a caller, a route or a model may cost in US dollars, per request, hour, day, month and in all.

Before a call can spend anything, the most that it may cost is reserved; when all is over, what it did cost is booked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmproxy_core import Operation, ProcessorType, hookimpl
from llmproxy_cost_limit.config import CostLimitConfig
from llmproxy_cost_limit.processor import CostLimit, build

__all__ = ["CostLimit", "CostLimitConfig"]


@hookimpl
def llmproxy_processors() -> Iterable[ProcessorType[Any]]:
    return [
        ProcessorType(
            name="cost_limit",
            config=CostLimitConfig,
            build=build,
            operations=frozenset({Operation.CHAT, Operation.EMBEDDINGS, Operation.COUNT_TOKENS}),
            needs_shared_store=True,
            skippable=False,  # money that nobody counts is no money that nobody spends
        )
    ]
