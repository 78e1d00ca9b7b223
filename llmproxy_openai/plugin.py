"""The plugin: the OpenAI dialect, and the provider that speaks it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmproxy_core.dialect import Dialect
from llmproxy_core.hookspecs import ProviderType, hookimpl
from llmproxy_core.http_llm import HttpLLM
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.services import Services
from llmproxy_openai.dialect import OpenAIDialect


def build(config: HttpLLMConfig, services: Services) -> HttpLLM:
    """An LLM that is called as OpenAI's API is: OpenAI itself, or any compatible server, by its `base_url`."""
    return HttpLLM(config, OpenAIDialect(), services)


@hookimpl
def llmproxy_dialects() -> Iterable[Dialect]:
    return [OpenAIDialect()]


@hookimpl
def llmproxy_providers() -> Iterable[ProviderType[Any]]:
    return [
        ProviderType(name="openai", config=HttpLLMConfig, build=build, types={"chat": "openai"}, default_type="chat")
    ]
