"""A gateway made of a configuration, a plugin whose work can be seen, and a scripted transport."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

import llmproxy_core.groups
import llmproxy_openai.plugin
from llmproxy_core import (
    ConfigError,
    Dialect,
    Exchange,
    Handler,
    HttpLLM,
    HttpLLMConfig,
    LLMClient,
    LLMConfig,
    ModelMap,
    ModelPrice,
    Operation,
    Problem,
    ProcessorType,
    ProviderType,
    ProxyError,
    Reply,
    Request,
    Response,
    Services,
    Tasks,
    hookimpl,
    option,
)
from llmproxy_core.config import structure
from llmproxy_core.gateway import Gateway, build
from llmproxy_core.plugins import Registry
from llmproxy_core.testing import FakeClock
from llmproxy_openai import OpenAIDialect
from tests.llmproxy_core.conversation import CHAT, DIALECT, SOON_S, question, whole
from tests.llmproxy_core.path_model_dialect import PathModelDialect
from tests.llmproxy_core.transport_double import Played, ScriptedTransport, services

LOCAL = {"provider": "openai", "base_url": "http://localhost:1/v1"}
CHAT_ONLY = frozenset({Operation.CHAT})
EVERYTHING = frozenset(Operation)


@attrs.frozen(kw_only=True)
class MarkConfig:
    """Leaves a mark."""

    mark: str = option("What it leaves.", default="m")
    broken: bool = option("Whether its factory refuses.", default=False)


class Mark:
    """Writes its mark on the response headers, so that a chain can be seen from outside."""

    def __init__(self, config: MarkConfig, services: Services) -> None:
        if config.broken:
            raise ConfigError([Problem("mark", "refused by its factory"), Problem("", "and for another reason")])
        self._mark = config.mark

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        exchange.response_headers.append(("x-mark", self._mark))
        return await call_next(exchange)


class NoResponse:
    """A broken processor: it answers with nothing."""

    def __init__(self, config: MarkConfig, services: Services) -> None: ...

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        return None  # type: ignore[return-value]


@attrs.frozen(kw_only=True)
class CannedConfig(LLMConfig):
    """An LLM that says one thing."""

    says: str = option("What it says.", default="canned")
    broken: bool = option("Whether its factory refuses.", default=False)


class Canned:
    def __init__(self, config: CannedConfig, services: Services) -> None:
        if config.broken:
            raise ConfigError([Problem("says", "refused by its factory")])
        self._config = config
        self.models = ModelMap(config.models, config.model)
        self.closed = 0
        self.services = services

    async def send(self, exchange: Exchange) -> Response:
        return Reply(exchange, whole(self._config.says), dialect=DIALECT, api=CHAT)

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return ()

    async def aclose(self) -> None:
        self.closed += 1


class Plugin:
    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        return [
            ProcessorType("chat_mark", MarkConfig, Mark, CHAT_ONLY, skippable=True),
            ProcessorType("mark", MarkConfig, Mark, EVERYTHING),
            ProcessorType("nothing", MarkConfig, NoResponse, EVERYTHING),
        ]

    @hookimpl
    def llmproxy_providers(self) -> Iterable[ProviderType[Any]]:
        return [ProviderType("canned", CannedConfig, Canned)]


class Pathy:
    """A second dialect, and a provider that speaks either."""

    @hookimpl
    def llmproxy_dialects(self) -> Iterable[Dialect]:
        return [PathModelDialect()]

    @hookimpl
    def llmproxy_providers(self) -> Iterable[ProviderType[Any]]:
        types = {"chat": "openai", "generate": "pathy"}
        return [ProviderType("pathy", HttpLLMConfig, _spoken, types, "generate")]


def _spoken(config: HttpLLMConfig, services: Services) -> HttpLLM:
    return HttpLLM(config, OpenAIDialect(), services)


class Made:
    """A gateway, and the transport behind it."""

    def __init__(
        self,
        mapping: Mapping[str, Any],
        tasks: Tasks,
        *script: Played | ProxyError,
        plugins: Sequence[object] = (),
        clock: FakeClock | None = None,
    ) -> None:
        self.transport = ScriptedTransport(script, tasks)
        self.clock = clock or FakeClock()
        self.registry = Registry.of(llmproxy_openai.plugin, llmproxy_core.groups, Plugin(), *plugins)
        assert not self.registry.broken, self.registry.broken
        self.config, _ = structure(mapping, self.registry, {})

        def make(llm: Callable[[str], LLMClient]) -> Services:
            return services(self.transport, tasks, clock=self.clock, llm=llm)

        self.gateway: Gateway = build(self.config, self.registry, make)

    def exchange(self, method: str, path: str, body: bytes = b"") -> Exchange:
        match = self.gateway.match(method, path)
        request = Request(
            operation=match.operation,
            dialect=match.dialect,
            api=match.api,
            method=method,
            path=path,
            body=body,
            path_model=match.path_model,
            relative_path=match.relative_path,
        )
        return self.gateway.begin(match, request, request_id="7")

    async def handle(self, method: str, path: str, body: bytes = b"") -> tuple[Exchange, Response]:
        exchange = self.exchange(method, path, body)
        return exchange, await asyncio.wait_for(self.gateway.handle(exchange), SOON_S)

    async def ask(self, path: str = "/v1/chat/completions", body: bytes | None = None) -> Response:
        return (await self.handle("POST", path, question() if body is None else body))[1]


def one_route(route: Mapping[str, object] | None = None, **llm: object) -> dict[str, Any]:
    return {
        "llm": {"local": {**LOCAL, **llm}},
        "route": [{"path_prefix": "/v1", "target_llm": "local", **(route or {})}],
    }
