"""The protocol Parley for llmproxy, and the provider that speaks it."""

from collections.abc import Iterable
from typing import Any

from llmproxy_core import Dialect, HttpLLM, HttpLLMConfig, ProviderType, Services, hookimpl
from llmproxy_parley.dialect import ParleyDialect


def build(config: HttpLLMConfig, services: Services) -> HttpLLM:
    return HttpLLM(config, ParleyDialect(), services)


@hookimpl
def llmproxy_dialects() -> Iterable[Dialect]:
    return [ParleyDialect()]


@hookimpl
def llmproxy_providers() -> Iterable[ProviderType[Any]]:
    return [
        ProviderType(name="parley", config=HttpLLMConfig, build=build, types={"talk": "parley"}, default_type="talk")
    ]
