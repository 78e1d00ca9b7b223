"""The provider `mistral`."""

from __future__ import annotations

import attrs

from llmproxy_core import BaseUrl, HttpLLM, HttpLLMConfig, Services, option
from llmproxy_mistral.dialect import MistralDialect


@attrs.frozen(kw_only=True)
class MistralConfig(HttpLLMConfig):
    """The keys of an LLM of the provider `mistral`."""

    base_url: BaseUrl = option(
        "Where the API is: http or https, no query.",
        default="https://api.mistral.ai/v1",
        example="https://api.mistral.ai/v1",
    )


def build(config: MistralConfig, services: Services) -> HttpLLM:
    """An LLM that is called as Mistral's API is."""
    return HttpLLM(config, MistralDialect(), services)
