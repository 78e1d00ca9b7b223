"""The gateway: one immutable configuration, ready to serve."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs

from llmproxy_core.config import Config, ProcessorConfig, RouteConfig, served_operations
from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.errors import (
    ConfigError,
    Problem,
    RouteNotFound,
    StreamingNotAllowed,
    bug_words,
    raise_unless_bug,
)
from llmproxy_core.exchange import Exchange
from llmproxy_core.fingerprint import fingerprint
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.groups.ejection import bound_ejections
from llmproxy_core.groups.explained import ATTEMPTS_HEADER, attempts_told
from llmproxy_core.groups.making import falling_over, make_llm
from llmproxy_core.hookspecs import ProviderType
from llmproxy_core.llm import LLMClient
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_core.model_list import ModelInfo
from llmproxy_core.pipeline import Step, compose
from llmproxy_core.plugins import Origin, Registry
from llmproxy_core.processor import Handler, Processor
from llmproxy_core.request import Request, client_view
from llmproxy_core.response import Reply, Response
from llmproxy_core.routing import Match, Route, RouteIndex
from llmproxy_core.services import ExtraCall, RouteView, Services
from llmproxy_core.stores import Store

_log = logging.getLogger("llmproxy")

DEFAULT_DIALECT = "openai"
"""What a client is taken to speak where neither it nor the path tells, and the LLM speaks another."""

MakeServices = Callable[[Callable[[str], LLMClient]], Services]
"""Services for a gateway, given the look-up of its LLMs."""


class Gateway:
    """
    Serves exchanges. Nothing of it changes after `build` but what the LLMs and processors keep themselves.

    `match` says what a method and path mean, before a body is read; `begin` opens the exchange; `handle` answers it.
    """

    def __init__(
        self,
        config: Config,
        services: Services,
        llms: Mapping[str, LLMClient],
        routes: Sequence[Route],
        registry: Registry,
        *,
        processors: Mapping[str, Processor] = FrozenMap(),
        stores: Mapping[str, Store] = FrozenMap(),
    ) -> None:
        self.config = config
        self.services = services
        self.llms = llms
        self.routes = routes
        self.registry = registry
        self.stores = stores
        self._processors = processors
        self.background: set[Exchange] = set()
        """Detached exchanges that are not over."""
        self._index = RouteIndex(routes)
        self._chains = {
            (route.name, operation): handler for route in routes for operation, handler in route.chains.items()
        }

    def processors(self, type_name: str) -> Sequence[Processor]:
        """The processors of one type, in the order of their tables."""
        return [it for name, it in self._processors.items() if self.config.processors[name].type.name == type_name]

    def match(self, method: str, path: str) -> Match:
        """What *method* on *path* means here; BadRequest, RouteNotFound or MethodNotAllowed."""
        return self._index.match(method, path)

    def begin(
        self, match: Match, request: Request, *, request_id: str, address: str = "", deadline_s: float | None = None
    ) -> Exchange:
        """
        The exchange of *request*, which came from *address* and must be answered by *deadline_s*.

        BadRequest when its body is no acceptable JSON.
        """
        services, route = self.services, match.route
        return Exchange(
            request,
            id=request_id,
            route=route.name,
            tasks=services.tasks,
            clock=services.clock,
            client=client_view(request, drops_unsupported=route.drops_unsupported),
            address=address,
            deadline_s=deadline_s,
            background=self.background,
        )

    def handle(self, exchange: Exchange) -> Awaitable[Response]:
        """Answer *exchange*: the route's processors, then its LLM. Raises a ProxyError."""
        return self._chains[exchange.route, exchange.operation](exchange)

    async def aclose(self) -> None:
        """
        Close the LLMs, and what no other gateway uses of its stores and connections.

        Exchanges under way are the caller's to end first.
        """
        for name, llm in self.llms.items():
            try:
                await llm.aclose()
            except BaseException as bug:  # noqa: BLE001 - a plugin's bug must not keep the others open
                raise_unless_bug(bug)
                _log.exception("the LLM %s could not be closed", name)
        await self.services.lease.release()


def build(config: Config, registry: Registry, make_services: MakeServices) -> Gateway:
    """
    The gateway of *config*, all or nothing: ConfigError with every problem that the types' own factories found.

    *config* is what `config.structure` gave: every name in it stands for something in *registry*.
    """
    llms: dict[str, LLMClient] = {}
    stores: dict[str, Store] = {}
    views: dict[str, RouteView] = {}
    services = attrs.evolve(make_services(llms.__getitem__), route=views.__getitem__, store=stores.__getitem__)
    problems: list[Problem] = []
    for name, store in config.stores.items():
        with _reported(f"store.{name}", problems, registry.origins.get(("store", store.type.name))):
            make = partial(store.type.build, store.config, attrs.evolve(services, table=f"store.{name}"))
            stores[name] = services.lease.get(("store", store), make, _closed, f"store {name}")
    in_groups = falling_over(config.llms)
    for name, llm in config.llms.items():
        if llm.enabled:
            with _reported(f"llm.{name}", problems, registry.origins.get(("provider", llm.provider))):
                own = attrs.evolve(services, table=f"llm.{name}")
                make_one = partial(_built, registry.providers[llm.provider], own)
                llms[name] = make_llm(llm, make_one, own, in_group=name in in_groups)
    steps: dict[str, Step] = {}
    needed = {name for route in config.routes for name in route.processors}
    for name, table in config.processors.items():
        with _reported(
            f"processor.{name}", problems, registry.origins.get(("processor", table.type.name)), needed=name in needed
        ):
            processor = table.type.build(table.config, attrs.evolve(services, table=f"processor.{name}"))
            if not callable(processor):
                raise TypeError(f"expected a processor, got {type(processor).__name__}")
            steps[name] = Step(name, processor, table.timeout_s, table.on_error == "pass")
    if problems:
        raise ConfigError(problems)
    bound_ejections(config.llms.values(), llms)
    builder = _RouteBuilder(config, registry, llms, steps, int(services.now()), services.around)
    routes = [builder.build(route) for route in config.routes]
    views.update((route.name, _view(route, config)) for route in routes)
    processors = {name: step.processor for name, step in steps.items()}
    return Gateway(config, services, llms, routes, registry, processors=processors, stores=stores)


def _built(provider: ProviderType[Any], services: Services, llm: LLMConfig) -> LLMClient:
    return provider.build(llm, services)


async def _closed(store: Store) -> None:
    await store.aclose()


def _view(route: Route, config: Config) -> RouteView:
    """What the processors of *route* may know of it."""
    tables = [config.processors[name] for name in route.config.processors]

    def extra_calls(request: Request) -> list[ExtraCall]:
        acting = (it for it in tables if request.operation in it.type.operations)
        return [call for it in acting for call in it.type.extra_cost_bound(it.config, request)]

    return RouteView(route.name, route.llm, route.config.target_llm, fingerprint(route.config, config), extra_calls)


@contextmanager
def _reported(path: str, problems: list[Problem], origin: Origin | None, *, needed: bool = True) -> Iterator[None]:
    """
    What a factory has against its table becomes problems at *path*; a bug of it is one that names its plugin.

    What no route needs is left out instead: one plugin's bug must not take the others down.
    """
    try:
        yield
    except ConfigError as error:
        if not error.problems or not all(isinstance(it, Problem) for it in error.problems):
            problems.append(Problem(path, f"{origin or 'its plugin'} raised a ConfigError without a Problem"))
            return
        problems.extend(attrs.evolve(it, path=f"{path}.{it.path}" if it.path else path) for it in error.problems)
    except BaseException as bug:  # noqa: BLE001 - it is a plugin's code that runs here, and its author is not here to see it
        raise_unless_bug(bug)
        said = f"{origin or 'its plugin'} could not build it ({bug_words(bug)})"
        _log.exception("%s: %s", path, said)
        if needed:
            problems.append(Problem(path, said))


@attrs.frozen
class _RouteBuilder:
    """What all routes are made from."""

    config: Config
    registry: Registry
    llms: Mapping[str, LLMClient]
    steps: Mapping[str, Step]
    created: int
    around: Callable[[str, Handler], Handler] | None

    def build(self, route: RouteConfig) -> Route:
        llm = self.llms[route.target_llm]
        dialects = route_dialects(route, self.config.llms[route.target_llm], self.registry)
        chains: dict[Operation, Handler] = {}
        names: dict[Operation, tuple[str, ...]] = {}
        for operation in sorted(served_operations(route, self.registry.dialects)):
            names[operation] = chain_names(route, operation, self.config.processors)
            chains[operation] = self._chain(route, llm, operation, names[operation])
        return Route(route, llm, dialects, chains, names)

    def _chain(self, route: RouteConfig, llm: LLMClient, operation: Operation, names: tuple[str, ...]) -> Handler:
        send: Handler = llm.send
        if operation is Operation.MODELS:
            send = ModelList(llm, self.created)
        handler = compose([self.steps[name] for name in names], send, self.around)
        if route.expose_attempts:
            handler = _exposing(handler)
        if operation is Operation.CHAT and not (route.allow_streaming and route.allow_non_streaming):
            handler = _one_mode(handler, streaming=route.allow_streaming)
        return handler


def chain_names(route: RouteConfig, operation: Operation, processors: Mapping[str, ProcessorConfig]) -> tuple[str, ...]:
    """The processors of *route* that act on *operation*, outermost first; those it passes by are left out."""
    return tuple(name for name in route.processors if operation in processors[name].type.operations)


def route_dialects(route: RouteConfig, llm: LLMConfig, registry: Registry) -> list[Dialect]:
    """What the clients of *route* may speak; its LLM's own dialect first, which also carries opaque calls."""
    if route.dialect is not None:
        return [registry.dialects[route.dialect]]
    provider = registry.providers[llm.provider]
    kind = (llm.type if isinstance(llm, HttpLLMConfig) else None) or provider.default_type
    own = provider.types.get(kind) if kind is not None else None
    return sorted(registry.dialects.values(), key=lambda it: (it.name != own, it.name != DEFAULT_DIALECT))


def _exposing(handler: Handler) -> Handler:
    """*handler*, with the header that tells of its attempts."""

    async def exposed(exchange: Exchange) -> Response:
        try:
            return await handler(exchange)
        finally:
            exchange.response_headers.append((ATTEMPTS_HEADER, attempts_told(exchange)))

    return exposed


def _one_mode(handler: Handler, *, streaming: bool) -> Handler:
    """*handler*, for streamed calls only or for plain ones only."""
    wanted, fault = ("streamed", '"stream": true') if streaming else ("plain", '"stream": false')

    async def guarded(exchange: Exchange) -> Response:
        if exchange.request.head.stream is not streaming:
            raise StreamingNotAllowed(f"This route serves {wanted} answers only: send {fault}", param="stream")
        return await handler(exchange)

    return guarded


class ModelList:
    """Answers the model list from the configuration where it names models; else the LLM is asked."""

    def __init__(self, llm: LLMClient, created: int) -> None:
        self._llm = llm
        self._created = created

    async def __call__(self, exchange: Exchange) -> Response:
        models, request = self._llm.models, exchange.request  # a group knows its members only once all are built
        if not models.listed or request.dialect is None or request.api is None:
            return await self._llm.send(exchange)
        asked = request.path_model
        if asked is not None and models.sent(asked) is None:
            raise RouteNotFound(f"The model {asked[:128]!r} does not exist here", code="model_not_found", param="model")
        names = models.names if asked is None else [asked]
        infos = [ModelInfo(name, created=self._created) for name in names]
        body = request.dialect.write_models(request.api, infos)
        return Reply(exchange, body, dialect=request.dialect, api=request.api)
