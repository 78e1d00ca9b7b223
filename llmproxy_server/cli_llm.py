"""An LLM and a route in words, for people. Never a secret: of a key the name of its variable is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llmproxy_core.config import RouteConfig
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_core.plugins import Registry
from llmproxy_core.upstream_url import base_url

_MOST_MODELS = 12


def llm_words(llm: LLMConfig, registry: Registry) -> str:
    """What *llm* is, on one line."""
    if isinstance(llm, GroupConfig):
        parts = [f"{llm.provider} of {', '.join(llm.members)}"]
    elif isinstance(llm, HttpLLMConfig):
        parts = [f"{llm.provider} ({llm.type})" if llm.type else llm.provider, _url(llm, registry), _key(llm)]
    else:
        parts = [f"{llm.provider}, which answers by itself"]
    parts.append(model_words(llm))
    return "; ".join(parts)


def _url(llm: HttpLLMConfig, registry: Registry) -> str:
    dialect = registry.providers[llm.provider].types.get(llm.type or "")
    return llm.base_url if dialect is None else base_url(llm.base_url, registry.dialects[dialect])


def _key(llm: HttpLLMConfig) -> str:
    if llm.token_env is None:
        return "no key"
    return f"key {token_names(llm)} ({'not set' if llm.token is None else 'set'})"


def token_names(llm: HttpLLMConfig) -> str:
    """The environment variables that hold its keys."""
    return llm.token_env if isinstance(llm.token_env, str) else ", ".join(llm.token_env or ())


def model_words(llm: LLMConfig) -> str:
    """Which models *llm* serves, and what it sends instead of what is asked."""
    if not llm.models:
        served = "its members' models" if isinstance(llm, GroupConfig) else "any model"
        return served if llm.model is None else f"{served}, sent as {llm.model}"
    names = [asked if sent is None else f"{asked} -> {sent}" for asked, sent in llm.models]
    more = len(names) - _MOST_MODELS
    listed = ", ".join(names[:_MOST_MODELS]) + (f" and {more} more" if more > 0 else "")
    return f"models {listed}" + ("" if llm.model is None else f", all sent as {llm.model}")


def reached(name: str, llms: Mapping[str, LLMConfig]) -> Iterator[str]:
    """*name* and, for a group, all that it may choose, each once, in the order in which they are met."""
    seen: dict[str, None] = {}
    waiting = [name]
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen[name] = None
        llm = llms[name]
        waiting.extend(llm.members if isinstance(llm, GroupConfig) else ())
    return iter(seen)


def answer_forms(route: RouteConfig) -> str:
    """Which forms of an answer *route* gives."""
    if route.allow_streaming and route.allow_non_streaming:
        return "streamed and plain"
    return "streamed only" if route.allow_streaming else "plain only"


def chain_words(steps: Sequence[str], last: str) -> str:
    """
    >>> chain_words(["limit", "enhance"], "openai")
    'limit -> enhance -> openai'
    """
    return " -> ".join([*steps, last])
