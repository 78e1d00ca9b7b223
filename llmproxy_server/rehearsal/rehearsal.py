"""One day of a configuration: the proxy, its clients and fake providers in one event loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack

import attrs

from llmproxy_core.config import Config
from llmproxy_core.dialect import Dialect
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.plugins import Registry
from llmproxy_core.services import Services
from llmproxy_core.tasks import Tasks
from llmproxy_server.prices import BundledPrices
from llmproxy_server.rehearsal.advice import Advice, advice
from llmproxy_server.rehearsal.client import Client
from llmproxy_server.rehearsal.diverted import Diverted, origin_of
from llmproxy_server.rehearsal.leaping import LeapingLoop
from llmproxy_server.rehearsal.provider import FakeProvider
from llmproxy_server.rehearsal.questions import Question, questions
from llmproxy_server.rehearsal.script import WELL, Phase, failures, outage
from llmproxy_server.rehearsal.stand_in import refused_key, rehearsed
from llmproxy_server.rehearsal.tally import PhaseTally, RouteTally, Seen
from llmproxy_server.server import Server
from llmproxy_server.tokenizer import BundledTokenizer

_END_S = 1.0


@attrs.frozen
class Rehearsed:
    """
    What a rehearsal showed. The first phase is that in which all is well.

    *unasked* are the routes that serve no chat, and so saw no call; *origins* says at which provider each LLM is.
    """

    phases: Sequence[PhaseTally]
    advice: Sequence[Advice]
    unasked: Sequence[str]
    origins: Mapping[str, str]

    @property
    def alone(self) -> Sequence[PhaseTally]:
        """The phases in which one provider failed alone, so that others might have answered."""
        return [it for it in self.phases if it.phase.provider is not None]

    def concerned(self, tally: PhaseTally) -> Sequence[RouteTally]:
        """The routes that call the provider which fails alone when all is well, their processors too; else all."""
        provider = tally.phase.provider
        if provider is None:
            return tally.routes
        well = self.phases[0].routes
        names = {
            it.route for it in well if any(self.origins.get(llm) == provider for llm in (*it.tries, *it.by_processors))
        }
        return [it for it in tally.routes if it.route in names]

    @property
    def tested(self) -> Sequence[RouteTally]:
        """What the verdict is about: the routes that a provider's failure concerned."""
        return [route for phase in self.alone for route in self.concerned(phase)]

    @property
    def share(self) -> float | None:
        """Of the calls of `tested`, those that were answered well: 0 to 1; None where there was none."""
        calls = sum(it.calls for it in self.tested)
        return sum(it.answered for it in self.tested) / calls if calls else None


def rehearse(
    config: Config,
    registry: Registry,
    *,
    calls: int,
    seed: int = 0,
    fast: bool = False,
    begins: Callable[[Phase], None] = lambda phase: None,
) -> Rehearsed:
    """
    Play the day against *config*, whose keys are stand-ins: *calls* in each phase to each route.

    *fast*: in an event loop in which waiting takes no time. *begins* is told of each phase. ConfigError when the
    configuration cannot be served. No connection is opened but between ports of 127.0.0.1.
    """
    with asyncio.Runner(loop_factory=LeapingLoop if fast else asyncio.SelectorEventLoop) as runner:
        return runner.run(_rehearse(config, registry, calls, seed, begins))


async def _rehearse(
    config: Config, registry: Registry, calls: int, seed: int, begins: Callable[[Phase], None]
) -> Rehearsed:
    tasks = Tasks()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tasks.drain, _END_S)
        providers = _providers(config, registry, tasks)
        for provider in providers.values():
            stack.push_async_callback(provider.aclose)
            await provider.start()
        client = Client(tasks)
        stack.push_async_callback(client.aclose)
        proxy = _Proxy(rehearsed(config), registry, providers, client, seed)
        stack.push_async_callback(proxy.aclose)
        day = _Day(proxy, providers, client, calls, begins)
        phases = await day.play()
        return Rehearsed(phases, advice(config, phases), proxy.unasked, _origins(config))


class _Proxy:
    """The proxy that is rehearsed; another one for each phase, unless that goes on with what was learned before."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        providers: Mapping[str, FakeProvider],
        client: Client,
        seed: int,
    ) -> None:
        self._config = config
        self._registry = registry
        self._providers = providers
        self._client = client
        self._seed = seed
        self._prices = BundledPrices()
        self._tokenizer = BundledTokenizer()
        self._server: Server | None = None
        self.questions: Mapping[str, Sequence[Question]] = FrozenMap()
        """What can be asked of each route; once it was started."""
        self.unasked: Sequence[str] = ()
        """The routes of which nothing can be."""

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._server.url

    async def start(self) -> None:
        """Start anew. ConfigError when the configuration cannot be served."""
        await self.aclose()
        clock, chance = asyncio.get_running_loop().time, random.Random(self._seed)  # noqa: S311 - to be repeated

        def adapt(services: Services) -> Services:
            # Prices and tokenizer take a while to load, so that all phases share them.
            return attrs.evolve(services, clock=clock, random=chance, prices=self._prices, tokenizer=self._tokenizer)

        self._server = Server(
            self._config,
            self._registry,
            observers=(self._client.observe,),
            make_transport=lambda pool, tasks: Diverted(pool, tasks, self._providers),
            adapt=adapt,
        )
        await self._server.start()
        await self._tokenizer.ready()
        _ = await self._prices.find("", "")  # now, and not while the first call is measured
        asked = questions(self._server.gateway)
        self.questions = FrozenMap((route, it) for route, it in asked.items() if it)
        self.unasked = tuple(route for route, it in asked.items() if not it)

    async def aclose(self) -> None:
        if self._server is not None:
            await self._server.aclose()


def _origins(config: Config) -> Mapping[str, str]:
    """Where each LLM is that is called over HTTP."""
    return {
        name: origin_of(llm.base_url, llm.unix_socket)
        for name, llm in config.llms.items()
        if isinstance(llm, HttpLLMConfig) and llm.enabled
    }


def _providers(config: Config, registry: Registry, tasks: Tasks) -> Mapping[str, FakeProvider]:
    """One for each origin that an LLM is at, by its name."""
    found: dict[str, list[HttpLLMConfig]] = {}
    for name, origin in _origins(config).items():
        llm = config.llms[name]
        assert isinstance(llm, HttpLLMConfig)
        found.setdefault(origin, []).append(llm)
    return {
        origin: FakeProvider(
            origin,
            list(dict.fromkeys(dialect for llm in llms for dialect in _dialects(llm, registry))),
            refused_key=next((key for llm in llms if (key := refused_key(llm)) is not None), None),
            tasks=tasks,
        )
        for origin, llms in found.items()
    }


def _dialects(llm: HttpLLMConfig, registry: Registry) -> Iterator[Dialect]:
    """What a provider of *llm* speaks: its own protocol first, since others may have the same paths."""
    kind = registry.providers[llm.provider]
    own = kind.types.get(llm.type or kind.default_type or "")
    if own is not None:
        yield registry.dialects[own]
    yield from registry.dialects.values()


class _Day:
    """The phases, one after the other."""

    def __init__(
        self,
        proxy: _Proxy,
        providers: Mapping[str, FakeProvider],
        client: Client,
        calls: int,
        begins: Callable[[Phase], None],
    ) -> None:
        self._proxy = proxy
        self._providers = providers
        self._client = client
        self._calls = calls
        self._begins = begins
        self._number = 0

    async def play(self) -> Sequence[PhaseTally]:
        played = [await self._phase(WELL)]
        called = [name for name, asked in played[0].asked.items() if asked]
        with_keys = frozenset(name for name, it in self._providers.items() if it.refused_key is not None)
        failing = [*failures(called, with_keys), *outage(self._providers)] if called else []
        return [*played, *[await self._phase(phase) for phase in failing]]

    async def _phase(self, phase: Phase) -> PhaseTally:
        self._begins(phase)
        if not phase.goes_on:
            await self._proxy.start()
        for name, provider in self._providers.items():
            provider.begin(phase.faults.get(name))
        made: dict[str, list[asyncio.Task[Seen]]] = {route: [] for route in self._proxy.questions}
        async with asyncio.TaskGroup() as group:
            for turn in range(self._calls):
                for route, asked in self._proxy.questions.items():
                    self._number += 1
                    made[route].append(group.create_task(self._ask(asked[turn % len(asked)], self._number)))
                await asyncio.sleep(phase.lasts_s / self._calls)
        routes = [RouteTally(route, [task.result() for task in seen]) for route, seen in made.items()]
        return PhaseTally(phase, routes, {name: it.tries for name, it in self._providers.items()})

    async def _ask(self, question: Question, number: int) -> Seen:
        return await self._client.ask(self._proxy.url, question, number)
