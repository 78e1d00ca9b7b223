"""The Mistral protocol, and the provider that speaks it: dialect and provider type `mistral`."""

from collections.abc import Iterable
from typing import Any

from llmproxy_core import Dialect, ProviderType, hookimpl
from llmproxy_mistral.dialect import MistralDialect
from llmproxy_mistral.provider import MistralConfig, build

__all__ = ["MistralConfig", "MistralDialect", "llmproxy_dialects", "llmproxy_providers"]


@hookimpl
def llmproxy_dialects() -> Iterable[Dialect]:
    return [MistralDialect()]


@hookimpl
def llmproxy_providers() -> Iterable[ProviderType[Any]]:
    return [ProviderType("mistral", MistralConfig, build, {"chat": "mistral"}, "chat")]
