"""Ollama's own protocol, `/api/chat`, and the provider that speaks it."""

from collections.abc import Iterable
from typing import Any

import attrs

from llmproxy_core import BaseUrl, Dialect, HttpLLM, HttpLLMConfig, ProviderType, Services, hookimpl, option
from llmproxy_ollama.dialect import OllamaDialect


@attrs.frozen(kw_only=True)
class OllamaConfig(HttpLLMConfig):
    """A server of Ollama's, or its cloud."""

    base_url: BaseUrl = option(
        "Where the server is; `/api` is added where it is missing.",
        default="http://127.0.0.1:11434",
        example="https://ollama.com",
    )


def build(config: OllamaConfig, services: Services) -> HttpLLM:
    return HttpLLM(config, OllamaDialect(), services)


@hookimpl
def llmproxy_dialects() -> Iterable[Dialect]:
    return [OllamaDialect()]


@hookimpl
def llmproxy_providers() -> Iterable[ProviderType[Any]]:
    return [
        ProviderType(name="ollama", config=OllamaConfig, build=build, types={"chat": "ollama"}, default_type="chat")
    ]
