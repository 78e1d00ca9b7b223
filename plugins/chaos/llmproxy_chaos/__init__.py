"""
chaos: faults of providers, injected by share and seed, to see what becomes of calls when they happen.

The processor `chaos` injects them where a route names it; the provider `chaos` is an LLM around another one, so that
what stands above it (retries, groups) meets them as it would meet a real provider's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmproxy_chaos.config import ChaosConfig, ChaosLLMConfig
from llmproxy_chaos.faults import Faults
from llmproxy_chaos.llm import ChaosLLM, build_llm
from llmproxy_chaos.processor import Chaos, build_processor
from llmproxy_core import Operation, ProcessorType, ProviderType, hookimpl

__all__ = ["Chaos", "ChaosConfig", "ChaosLLM", "ChaosLLMConfig", "Faults"]


@hookimpl
def llmproxy_processors() -> Iterable[ProcessorType[Any]]:
    return [
        ProcessorType(
            name="chaos",
            config=ChaosConfig,
            build=build_processor,
            operations=frozenset(Operation),
            skippable=True,
        )
    ]


@hookimpl
def llmproxy_providers() -> Iterable[ProviderType[Any]]:
    return [ProviderType(name="chaos", config=ChaosLLMConfig, build=build_llm)]
