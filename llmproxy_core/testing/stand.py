"""The configuration that a processor is tested in: a route with it, the same route without, scripted LLMs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from llmproxy_core import builtin_stores
from llmproxy_core.config import Config, structure
from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.errors import ConfigError
from llmproxy_core.gateway import Gateway, build
from llmproxy_core.hookspecs import ProcessorType, ProviderType, hookimpl
from llmproxy_core.llm import LLMClient
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.plugins import Registry
from llmproxy_core.prices import ModelPrice
from llmproxy_core.services import Services
from llmproxy_core.tasks import Tasks
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.played import PRICE, PlayedLLM
from llmproxy_core.testing.services import scripted_services
from llmproxy_core.testing.verdict import NotConforming

LLM = "scripted"
PROCESSOR = "tested"


class OnePrice:
    """Every model has the price of the scripted one."""

    async def find(self, base_url: str, model: str) -> ModelPrice | None:
        return ModelPrice(LLM, PRICE)


class _Plugin:
    """What a test registers: the tested type, the scripted provider, the dialect."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        return [self._declared.processor_type]

    @hookimpl
    def llmproxy_providers(self) -> Iterable[ProviderType[Any]]:
        def make(config: LLMConfig, services: Services) -> LLMClient:
            return PlayedLLM(self._declared, services.tasks)

        return [ProviderType(LLM, LLMConfig, make)]

    @hookimpl
    def llmproxy_dialects(self) -> Iterable[Dialect]:
        return [self._declared.dialect]


class Stand:
    """Makes gateways around a new processor each. Read once, built often."""

    def __init__(self, declared: Declared) -> None:
        """NotConforming when the type cannot be registered."""
        self.declared = declared
        self.registry = Registry.of(_Plugin(declared), builtin_stores, *declared.plugins)
        for broken in self.registry.broken:
            raise NotConforming(f"the plugin cannot be registered: {broken.reason}")
        self._configs: dict[bool, Config] = {}

    @property
    def operations(self) -> list[Operation]:
        """What the processor acts on, as far as the dialect knows it."""
        return sorted(self.declared.processor_type.operations & self._known())

    def _known(self) -> set[Operation]:
        return {api.operation for api in self.declared.dialect.apis} | {Operation.OPAQUE}

    @property
    def others(self) -> list[Operation]:
        """What it is left out of."""
        return sorted(self._known() - self.declared.processor_type.operations)

    def structured(self, config: Mapping[str, object], *, bare: bool = False) -> Config:
        """The configuration of a gateway whose processor has the keys *config*. ConfigError as an operator gets it."""
        declared = self.declared
        tables: dict[str, dict[str, Mapping[str, object]]] = {
            "llm": {name: {"provider": LLM} for name in (LLM, *declared.llms)},
            "processor": {PROCESSOR: {**config, "type": declared.processor_type.name}},
        }
        for section, more in declared.tables.items():
            tables.setdefault(section, {}).update(more)
        everything = bare or declared.processor_type.skippable
        route = {
            "path_prefix": "/",
            "target_llm": LLM,
            "dialect": declared.dialect.name,
            "operations": [it.value for it in (sorted(self._known()) if everything else self.operations)],
            "processors": [] if bare else [PROCESSOR],
        }
        return structure({**tables, "route": [route]}, self.registry, declared.env)[0]

    def config(self, *, bare: bool = False) -> Config:
        """With the declared keys; NotConforming when they are refused."""
        if bare not in self._configs:
            try:
                self._configs[bare] = self.structured(self.declared.config, bare=bare)
            except ConfigError as error:
                raise NotConforming(f"the configuration it is tested with is refused:\n{error}") from error
        return self._configs[bare]

    def build(self, config: Config, tasks: Tasks) -> Gateway:
        """A gateway with a processor of its own. ConfigError from its factory."""

        def lend(llm: Callable[[str], LLMClient]) -> Services:
            target = PlayedLLM(self.declared, tasks)
            services = scripted_services(target, tasks=tasks, prices=OnePrice(), dialects=self.registry.dialects)
            return self.declared.services(attrs.evolve(services, llm=llm))

        return build(config, self.registry, lend)
