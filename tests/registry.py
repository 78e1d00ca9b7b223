"""A small registry: providers, a processor of each kind, stores, and a dialect with a name and paths only."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import attrs

from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.exchange import Exchange
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.group_config import GroupConfig
from llmproxy_core.hookspecs import ProcessorType, ProviderType, StoreType, hookimpl
from llmproxy_core.llm import LLMClient
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_core.money import Money
from llmproxy_core.option import Check, count, option, plain_text, positive, some_seconds
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
    llm: str | None = option("The LLM that is asked.", default=None, refers_to="llm")


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


@attrs.frozen(kw_only=True)
class JudgeConfig:
    """A table inside a processor's."""

    llm: str = option("The LLM that judges.", refers_to="llm", example="local")


@attrs.frozen(kw_only=True)
class KeeperConfig:
    """Names tables of every section, in every form, and has a variable of every type."""

    store: str = option("Where things are kept.", default="memory", refers_to="store")
    llms: tuple[str, ...] = option("LLMs.", default=(), refers_to="llm")
    before: str | None = option("Another processor.", default=None, refers_to="processor")
    judge: JudgeConfig | None = option("A judge.", default=None)
    judges: tuple[JudgeConfig, ...] = option("More.", default=())
    by_name: Mapping[str, JudgeConfig] = option("Still more.", default=FrozenMap())
    enabled: bool = option("Whether it keeps anything.", default=True, env="KEEPER_ENABLED")
    ttl_s: float = option("How long.", default=60.0, validator=some_seconds, env="KEEPER_TTL")
    share: float | None = option("How much.", default=None, env="KEEPER_SHARE")
    most: int = option("How many.", default=3, validator=count, env="KEEPER_MOST")
    label: str = option(
        "What it is called.", default="kept", validator=plain_text, fills_config_value=True, env="KEEPER_LABEL"
    )
    password: str | None = option("Not shown.", default=None, secret=True, validator=plain_text, env="KEEPER_PASSWORD")


@attrs.frozen
class MemoryConfig:
    """Kept in this process."""


@attrs.frozen(kw_only=True)
class DiskConfig:
    """Kept in a file."""

    path: str = option("The file.", validator=plain_text, example="store.db", env="DISK_PATH")
    mirror: str | None = option("Another store.", default=None, refers_to="store")


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
            *[ProviderType(name, HttpLLMConfig, client) for name in ("anthropic", "gemini", "mistral")],
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


class Keeping:
    """Stores, and a processor that uses one."""

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        everything = frozenset(Operation)
        return [
            ProcessorType("keeper", KeeperConfig, never_built, everything),
            ProcessorType("purse", KeeperConfig, never_built, everything, needs_shared_store=True),
        ]

    @hookimpl
    def llmproxy_stores(self) -> Iterable[StoreType[Any]]:
        return [StoreType("memory", MemoryConfig, never_built), StoreType("disk", DiskConfig, never_built, shared=True)]


def registry() -> Registry:
    return Registry.of(Plugin(), Keeping())
