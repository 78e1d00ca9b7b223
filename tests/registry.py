"""A small registry: providers, a processor of each kind, and a dialect with a name and paths only."""

from collections.abc import Iterable
from typing import Any, cast

import attrs

from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.exchange import Exchange
from llmproxy_core.hookspecs import ProcessorType, ProviderType, hookimpl
from llmproxy_core.llm import LLMClient
from llmproxy_core.llm_config import GroupConfig, HttpLLMConfig, LLMConfig
from llmproxy_core.money import Money
from llmproxy_core.option import Check, option, positive
from llmproxy_core.plugins import Registry
from llmproxy_core.processor import Handler
from llmproxy_core.response import Response
from llmproxy_core.secret import Secret
from llmproxy_core.services import Services


class Wire(Dialect):
    """Never reads or writes: a configuration asks a dialect for its name, paths and operations alone."""

    name = "openai"
    apis = (
        Api("openai.chat", Operation.CHAT, "POST", "/chat/completions"),
        Api("openai.embeddings", Operation.EMBEDDINGS, "POST", "/embeddings"),
        Api("openai.models", Operation.MODELS, "GET", "/models", has_body=False),
    )


Wire.__abstractmethods__ = frozenset()


def wire() -> Dialect:
    return cast(Any, Wire)()  # type: ignore[no-any-return]


@attrs.frozen(kw_only=True)
class EnhanceConfig:
    """Another model improves the question first."""

    model: str = option("The model that improves it.", example="gpt-4", fills_config_value=True)
    system_prompt: str = option("What it is told.", default="Improve this question.")
    llm: str | None = option("The LLM that is asked.", default=None)


@attrs.frozen(kw_only=True)
class LimitConfig:
    """A budget."""

    daily_usd: Money = option(
        "The budget.",
        validator=Check('a positive amount such as "25.00"', lambda money: money > Money()),
        example="25.00",
    )
    window_s: float = option("The window.", default=60.0, validator=positive)
    password: Secret | None = option("A secret.", default=None)


def never_built(config: object, services: Services) -> Any:
    raise AssertionError("nothing is built when a configuration is read")


async def passes(exchange: Exchange, call_next: Handler) -> Response:
    return await call_next(exchange)


class Plugin:
    """What the tests of configurations register."""

    @hookimpl
    def llmproxy_dialects(self) -> Iterable[Dialect]:
        return [wire()]

    @hookimpl
    def llmproxy_providers(self) -> Iterable[ProviderType[Any]]:
        client: type[LLMClient] | Any = never_built
        return [
            ProviderType("openai", HttpLLMConfig, client, {"chat": "openai"}, "chat"),
            ProviderType("by_model", GroupConfig, client),
            ProviderType("demo", LLMConfig, client),
        ]

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        chat = frozenset({Operation.CHAT})
        return [
            ProcessorType("openai_chat", EnhanceConfig, never_built, chat, skippable=True),
            ProcessorType("cost_limit", LimitConfig, never_built, chat | {Operation.EMBEDDINGS}),
            ProcessorType("guard", LimitConfig, never_built, chat),
        ]


def registry() -> Registry:
    return Registry.of(Plugin())
