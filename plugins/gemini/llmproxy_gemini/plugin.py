"""The plugin: Gemini's dialect, and the provider that speaks it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from llmproxy_core import BaseUrl, Dialect, HttpLLM, HttpLLMConfig, ProviderType, Services, hookimpl, option
from llmproxy_gemini.dialect import GeminiDialect


@attrs.frozen(kw_only=True)
class GeminiConfig(HttpLLMConfig):
    """The keys of an LLM of Google's."""

    base_url: BaseUrl = option(
        "Where the API is, as Google's SDK takes it; the version is put behind it when it is not there.",
        default="https://generativelanguage.googleapis.com",
        example="https://generativelanguage.googleapis.com/v1beta",
    )


def build(config: GeminiConfig, services: Services) -> HttpLLM:
    """An LLM that is called as the Gemini API is."""
    return HttpLLM(config, GeminiDialect(), services)


@hookimpl
def llmproxy_dialects() -> Iterable[Dialect]:
    return [GeminiDialect()]


@hookimpl
def llmproxy_providers() -> Iterable[ProviderType[Any]]:
    types = {"generate": "gemini"}
    return [ProviderType(name="gemini", config=GeminiConfig, build=build, types=types, default_type="generate")]
