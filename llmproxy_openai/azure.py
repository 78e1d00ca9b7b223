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


def azure_base(base_url: str, *, of_model: bool = True) -> str:
    """
    What every path is put behind; `{model}` in it stands for the deployment. A path of the operator's own stays.

    *of_model*: the API is that of a deployment, as all are but that of responses.
    """
    if urlsplit(base_url).path.rstrip("/") not in {"", "/openai"}:
        return base_url
    root = base_url.removesuffix("/openai") + "/openai"
    return root + "/deployments/{model}" if of_model else root


def azure_query(api_version: str) -> str:
    """The part of the query that every call has."""
    return f"api-version={quote(api_version, safe='')}"


def azure_auth(key: Secret) -> list[tuple[str, str]]:
    """The headers that present *key*."""
    return [("api-key", key.reveal())]
