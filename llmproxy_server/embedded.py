"""The configuration that is used when there is no file: every provider whose key is in the environment, and a demo."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from llmproxy_server.demo_models import MODELS

EMBEDDED = "embedded default"
"""What stands for the file's name in messages."""

DEMO_MODELS = MODELS
"""The names that the demo LLM documents; `GET /v1/models` lists them."""


@attrs.frozen
class KnownProvider:
    """A vendor. Its name is also its provider's; the first of *variables* that is set holds the key."""

    name: str
    variables: tuple[str, ...]
    base_url: str
    models: tuple[str, ...]


KNOWN_PROVIDERS = (
    KnownProvider(
        "openai",
        ("OPENAI_API_KEY",),
        "https://api.openai.com/v1",
        (
            "gpt-*",
            "chatgpt-*",
            "o1*",
            "o3*",
            "o4*",
            "computer-use-*",
            "codex-*",
            "text-embedding-*",
            "omni-moderation-*",
            "davinci-*",
            "babbage-*",
            "ft:*",
        ),
    ),
    KnownProvider("anthropic", ("ANTHROPIC_API_KEY", "CLAUDE_API_KEY"), "https://api.anthropic.com", ("claude-*",)),
    KnownProvider(
        "gemini",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        "https://generativelanguage.googleapis.com",
        ("gemini-*", "gemma-*", "models/gemini-*", "models/gemma-*"),
    ),
    KnownProvider(
        "mistral",
        ("MISTRAL_API_KEY",),
        "https://api.mistral.ai/v1",
        (
            "mistral-*",
            "codestral-*",
            "devstral-*",
            "magistral-*",
            "ministral-*",
            "pixtral-*",
            "voxtral-*",
            "open-mistral-*",
            "open-mixtral-*",
        ),
    ),
)


def embedded_config(env: Mapping[str, str]) -> dict[str, object]:
    """
    The embedded default for *env*, in the form that a file would have.

    Two routes, `/v1` and Gemini's `/v1beta`, whose group `default` chooses by model. Without any key the demo answers
    for every model.
    """
    llms: dict[str, object] = {}
    for provider in KNOWN_PROVIDERS:
        variable = next((name for name in provider.variables if env.get(name, "").strip()), None)
        if variable is not None:
            llms[provider.name] = _llm(provider, variable)
    models = [*DEMO_MODELS, "demo*", *([] if llms else ["*"])]
    llms["demo"] = {"provider": "demo", "models": models}
    members = list(llms)
    llms["default"] = {"provider": "by_model", "members": members}
    # SDKs ask for the model `org/name` at /v1/models/org%2Fname.
    routes = [{"path_prefix": it, "target_llm": "default", "encoded_slash": True} for it in ("/v1", "/v1beta")]
    return {"llm": llms, "route": routes}


def _llm(provider: KnownProvider, variable: str) -> dict[str, object]:
    return {
        "provider": provider.name,
        "base_url": provider.base_url,
        "token_env": variable,
        "models": list(provider.models),
    }
