"""The plugin: the OpenAI dialects, and the provider that speaks them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmproxy_core.dialect import Dialect
from llmproxy_core.hookspecs import ProviderType, hookimpl
from llmproxy_core.http_llm import HttpLLM
from llmproxy_core.services import Services
from llmproxy_openai.azure import OpenAIConfig, azure_auth, azure_base, azure_model_base, azure_query
from llmproxy_openai.dialect import OpenAIDialect
from llmproxy_openai.responses import ResponsesDialect

_CHAT = "chat"
_RESPONSES = "responses"


def build(config: OpenAIConfig, services: Services) -> HttpLLM:
    """An LLM that is called as OpenAI's API is: OpenAI itself, or any compatible server, by its `base_url`."""
    dialect = ResponsesDialect() if config.type == _RESPONSES else OpenAIDialect()
    if config.api_version is None:
        return HttpLLM(config, dialect, services)
    return HttpLLM(
        config,
        dialect,
        services,
        base=azure_base(config.base_url),
        # The API of responses is the resource's, all others are a deployment's.
        model_base=None if config.type == _RESPONSES else azure_model_base(config.base_url),
        query=azure_query(config.api_version),
        auth=azure_auth,
    )


@hookimpl
def llmproxy_dialects() -> Iterable[Dialect]:
    return [OpenAIDialect(), ResponsesDialect()]


@hookimpl
def llmproxy_providers() -> Iterable[ProviderType[Any]]:
    types = {_CHAT: OpenAIDialect.name, _RESPONSES: ResponsesDialect.name}
    return [ProviderType(name="openai", config=OpenAIConfig, build=build, types=types, default_type=_CHAT)]
