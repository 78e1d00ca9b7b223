"""Making generations: what each configuration gets of its own, and what all of them share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from llmproxy_core.config import Config, ServerConfig, is_loopback
from llmproxy_core.endpoint import Endpoint
from llmproxy_core.errors import ConfigError
from llmproxy_core.gateway import Gateway, build
from llmproxy_core.llm import LLMClient, Transport
from llmproxy_core.plugins import Registry
from llmproxy_core.resources import Lease, Resources
from llmproxy_core.services import Pool, Services
from llmproxy_core.tasks import Tasks
from llmproxy_server import logs
from llmproxy_server.access_log import AccessLog
from llmproxy_server.admission import Admission
from llmproxy_server.backlog import Backlog
from llmproxy_server.door import Door, Endpoints, FanOut, Observer, Shared, by_path, default_dialect
from llmproxy_server.door_id import RequestIds
from llmproxy_server.front import addresses
from llmproxy_server.generation import Certificate, Generation
from llmproxy_server.health import Health
from llmproxy_server.installed import VERSION
from llmproxy_server.life import Life
from llmproxy_server.log_content import ContentText
from llmproxy_server.log_redact import Redaction
from llmproxy_server.log_steps import Steps, steps_of
from llmproxy_server.metrics.endpoint import metrics_endpoints
from llmproxy_server.metrics.metering import Metering, Scope
from llmproxy_server.prices import BundledPrices, needs_list
from llmproxy_server.providers import Providers
from llmproxy_server.recent import Recent
from llmproxy_server.recent_endpoint import recent_endpoints
from llmproxy_server.record import Recorder
from llmproxy_server.sharing import unshared
from llmproxy_server.telemetry.export import Drops, Export
from llmproxy_server.telemetry.tracer import LaterSpans, Tracer
from llmproxy_server.tokenizer import BundledTokenizer
from llmproxy_server.wire_head import HeadWriter

MakeTransport = Callable[[Pool, Tasks], Transport]


class Maker:
    """Makes generations, and holds what outlives them. One for each process."""

    def __init__(
        self,
        registry: Registry,
        health: Health,
        metering: Metering,
        *,
        tasks: Tasks,
        life: Life,
        admission: Admission,
        make_transport: MakeTransport,
        observers: Sequence[Observer],
        fan_out: FanOut | None,
        adapt: Callable[[Services], Services] | None = None,
        exposed: Collection[bool] = (),
    ) -> None:
        """
        *exposed*: True where the sockets of the own endpoints, False where those of the routes were opened by others,
        at an address that other machines reach, whatever a configuration says.
        """
        self.resources = Resources()
        self.prices = BundledPrices()
        self.tokenizer = BundledTokenizer()
        self.drops = Drops()
        self.backlog = Backlog()
        self.log: logs.BatchHandler | None = None
        self.more_endpoints: list[Endpoint] = []
        """Those of the process itself."""
        self._registry = registry
        self._health = health
        self._metering = metering
        self._tasks = tasks
        self._life = life
        self._admission = admission
        self._make_transport = make_transport
        self._observers = tuple(observers)
        self._fan_out = fan_out
        self._adapt = adapt
        self._exposed = exposed
        self._ids = RequestIds()
        self._heads = HeadWriter()

    async def make(self, given: Config, config: Config) -> Generation:
        """
        The generation of *config*, which is *given* with the settings that only a restart changes.

        The price list is there, where its calls will ask for prices.
        ConfigError with every problem that shows only now, or whatever a plugin raises; nothing is left then.
        """
        if problems := list(unshared(config)):
            raise ConfigError(problems)
        lease, tasks, scope = self.resources.lease(), Tasks(), self._metering.scope()
        steps = steps_of(config.server)
        try:
            certificate = Certificate.read(config.server)
            gateway = build(config, self._registry, lambda llm: self._services(llm, tasks, lease, scope, steps))
            export = self._export(config, lease)
            recent = _recent(config.server, lease)
            shared = self._shared(gateway, scope, steps, export, recent)
            endpoints = by_path([*self._endpoints(config, recent), *self._registry.endpoints.values()])
            doors = tuple(_doors(config.server, shared, endpoints, self._exposed))
            if needs_list(config):
                await self.prices.ready()
        except BaseException:
            await tasks.drain(0)
            await lease.release()
            raise
        return Generation(
            given=given,
            config=config,
            gateway=gateway,
            tasks=tasks,
            scope=scope,
            shared=shared,
            doors=doors,
            certificate=certificate,
            export=export,
        )

    def _export(self, config: Config, lease: Lease) -> Export | None:
        """Where traces go, the same for equal configurations; it is started once it is served from."""
        telemetry = config.telemetry
        if not telemetry.traces:
            return None
        make = partial(Export, telemetry, self.drops, VERSION)
        return lease.get(("traces", telemetry), make, _closed_export, "export of traces")

    def _services(
        self, llm: Callable[[str], LLMClient], tasks: Tasks, lease: Lease, scope: Scope, steps: Steps | None
    ) -> Services:
        def transport(pool: Pool) -> Transport:
            # It has the process's tasks, since it may outlive this gateway.
            return lease.get(("transport", pool), lambda: self._make_transport(pool, self._tasks), _closed, "transport")

        services = Services(
            llm=llm,
            transport=transport if steps is None else steps.transports(transport),
            tasks=tasks,
            prices=self.prices,
            tokenizer=self.tokenizer,
            meter=scope.meter,
            lease=lease,
            dialects=self._registry.dialects,
            around=None if steps is None else steps.around,
        )
        return services if self._adapt is None else self._adapt(services)

    def _shared(
        self, gateway: Gateway, scope: Scope, steps: Steps | None, export: Export | None, recent: Recent | None
    ) -> Shared:
        observers = self._observers
        return Shared(
            gateway=gateway,
            admission=self._admission,
            life=self._life,
            recorder=self._recorder(gateway, scope, steps, export, recent),
            dialect=default_dialect(self._registry),
            observers=tuple(observers if steps is None else [steps.begin, *observers]),
            fan_out=self._fan_out,
            ids=self._ids,
            heads=self._heads,
        )

    def _recorder(
        self, gateway: Gateway, scope: Scope, steps: Steps | None, export: Export | None, recent: Recent | None
    ) -> Recorder:
        content_bytes = logs.content_bytes(gateway.config.server)
        telemetry, tracer = gateway.config.telemetry, None
        if export is not None:
            tracer = Tracer(telemetry, export, LaterSpans(gateway))
            if telemetry.capture_content:
                content_bytes = max(content_bytes, logs.kept_bytes(telemetry.max_content_bytes))
        content = ContentText(self._registry.dialects.values()) if gateway.config.server.log.log_content else None
        log = AccessLog(gateway.services.clock, self.log, content=content, steps=steps)
        return Recorder(
            log, scope.calls(gateway), tracer, self._health, recent, content_bytes=content_bytes, backlog=self.backlog
        )

    def _endpoints(self, config: Config, recent: Recent | None) -> Iterator[Endpoint]:
        yield from self._health.endpoints()
        yield from Providers(self._health).endpoints()
        providers = {name: llm.provider for name, llm in config.llms.items()}
        yield from metrics_endpoints(self._metering, providers, VERSION)
        if recent is not None:
            yield from recent_endpoints(recent, Redaction(logs.secrets_of(config)))
        yield from self.more_endpoints

    async def aclose(self) -> None:
        """Close all that generations share, whoever has it."""
        await self.resources.aclose()


def _doors(server: ServerConfig, shared: Shared, own: Endpoints, exposed: Collection[bool]) -> Iterator[Door]:
    for address in addresses(server):
        here: Endpoints = own if address.own_only or server.own_endpoints is True else {}
        loopback = is_loopback(address.host) and address.own_only not in exposed
        yield Door(shared, here, loopback=loopback, routes=not address.own_only)


def _recent(server: ServerConfig, lease: Lease) -> Recent | None:
    """What is kept of the last calls: the same across reloads that leave its size alone."""
    most = server.recent_requests
    return lease.get(("recent", most), partial(Recent, most)) if most else None


async def _closed(transport: Transport) -> None:
    await transport.aclose()


async def _closed_export(export: Export) -> None:
    """Its last spans have a while to leave."""
    await asyncio.to_thread(export.close)
