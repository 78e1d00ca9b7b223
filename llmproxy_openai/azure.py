"""OpenAI's API as Azure serves it: another header for the key, a version in the query, deployments in the path."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import attrs

from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.option import matches, option
from llmproxy_core.secret import Secret


@attrs.frozen(kw_only=True)
class OpenAIConfig(HttpLLMConfig):
    """The keys of an LLM of the provider `openai`."""

    api_version: str | None = option(
        "Azure only: the `api-version` in every call's query. The key then goes in the header `api-key`, and a "
        "`base_url` that is the resource's host alone means its deployments, which the model names.",
        default=None,
        validator=matches(r"[0-9A-Za-z.-]{1,64}", "a version such as 2024-10-21"),
        example="2024-10-21",
    )


def azure_base(base_url: str) -> str:
    """What paths are put behind: a resource's host alone means its `/openai`. A path of the operator's own stays."""
    return base_url.removesuffix("/openai") + "/openai" if _is_bare(base_url) else base_url


def azure_model_base(base_url: str) -> str | None:
    """What paths of a deployment's API are put behind, `{model}` its name; None where the operator wrote a path."""
    return azure_base(base_url) + "/deployments/{model}" if _is_bare(base_url) else None


def _is_bare(base_url: str) -> bool:
    return urlsplit(base_url).path.rstrip("/") in {"", "/openai"}


def azure_query(api_version: str) -> str:
    """The part of the query that every call has."""
    return f"api-version={quote(api_version, safe='')}"


def azure_auth(key: Secret) -> list[tuple[str, str]]:
    """The headers that present *key*."""
    return [("api-key", key.reveal())]
