"""
The Anthropic dialect, and the provider that speaks it.

Provider type `anthropic`; `docs/dialects/anthropic.md` says what of the protocol is understood, and how it maps.
"""

from collections.abc import Iterable
from typing import Any

import attrs

from llmproxy_anthropic.dialect import AnthropicDialect
from llmproxy_core import BaseUrl, Dialect, HttpLLM, HttpLLMConfig, ProviderType, Services, hookimpl, option

__all__ = ["AnthropicConfig", "AnthropicDialect", "build", "llmproxy_dialects", "llmproxy_providers"]


@attrs.frozen(kw_only=True)
class AnthropicConfig(HttpLLMConfig):
    """The keys of an LLM that speaks Anthropic's protocol."""

    base_url: BaseUrl = option(
        "Where the API is, as Anthropic's SDKs take it: without the version, which is put behind it.",
        default="https://api.anthropic.com",
    )


def build(config: AnthropicConfig, services: Services) -> HttpLLM:
    """An LLM that is called as Anthropic's API is: Anthropic itself, or a compatible server, by its `base_url`."""
    return HttpLLM(config, AnthropicDialect(), services)


@hookimpl
def llmproxy_dialects() -> Iterable[Dialect]:
    return [AnthropicDialect()]


@hookimpl
def llmproxy_providers() -> Iterable[ProviderType[Any]]:
    return [
        ProviderType(
            name="anthropic",
            config=AnthropicConfig,
            build=build,
            types={"messages": "anthropic"},
            default_type="messages",
        )
    ]
