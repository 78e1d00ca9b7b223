"""
enhance_query: an LLM rewrites what the user asked last, before the request goes on to the route's LLM.

What later processors may know: `ENHANCED`, a note with the text as it was and as it is now.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmproxy_core import Operation, ProcessorType, hookimpl
from llmproxy_enhance_query.config import DEFAULT_PROMPT, EnhanceQueryConfig
from llmproxy_enhance_query.processor import ENHANCED, FAILED, Enhanced, EnhanceQuery
from llmproxy_enhance_query.question import Question, extra_cost_bound

__all__ = [
    "ENHANCED",
    "Enhanced",
    "EnhanceQuery",
    "EnhanceQueryConfig",
    "Question",
    "extra_cost_bound",
    "DEFAULT_PROMPT",
    "FAILED",
]


@hookimpl
def llmproxy_processors() -> Iterable[ProcessorType[Any]]:
    return [
        ProcessorType(
            name=name,
            config=EnhanceQueryConfig,
            build=EnhanceQuery,
            operations=frozenset({Operation.CHAT}),
            skippable=True,
            extra_cost_bound=extra_cost_bound,
        )
        for name in ("enhance_query", "openai_chat")
    ]
