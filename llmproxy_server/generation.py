"""What one configuration makes: built beside what is served from, served from, closed after its last call."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress

import attrs

from llmproxy_core.config import Config, ServerConfig
from llmproxy_core.endpoint import EndpointReply, EndpointRequest
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.exchange import Clock
from llmproxy_core.gateway import Gateway
from llmproxy_core.headers import Headers
from llmproxy_core.outcome import End
from llmproxy_core.tasks import Tasks
from llmproxy_server.door import Door, Shared
from llmproxy_server.metrics.metering import Scope
from llmproxy_server.telemetry.export import Export
from llmproxy_server.tls import tls_context, tls_digest


@attrs.frozen(eq=False)
class Certificate:
    """The files of `tls_certificate` and `tls_key`, as they were read. *context* is None without."""

    context: ssl.SSLContext | None
    digest: bytes

    @classmethod
    def read(cls, server: ServerConfig) -> Certificate:
        """ConfigError when the files will not do."""
        try:
            digest = tls_digest(server.tls_certificate, server.tls_key)
            return cls(tls_context(server.tls_certificate, server.tls_key), digest)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError([Problem("server.tls_certificate", f"the certificate or its key: {reason}")]) from error


@attrs.define(eq=False, kw_only=True)
class Generation:
    """
    A gateway, and the doors that lead to it.

    Its calls keep it: `over` is when they, and the work that they shared, have ended. Its tasks are its own, so that
    what a plugin started for it ends with it.
    """

    given: Config
    """As it was read; `config` has the settings of before where only a restart changes them."""
    config: Config
    gateway: Gateway
    tasks: Tasks
    scope: Scope
    """Its metrics."""
    shared: Shared
    doors: tuple[Door, ...]
    """In the order of the addresses."""
    certificate: Certificate
    export: Export | None = None
    """Where its traces go."""
    _closed: bool = False

    @property
    def clock(self) -> Clock:
        return self.gateway.services.clock

    async def ask(self, method: str, path: str, query: str, headers: Headers, body: bytes) -> EndpointReply:
        """What an endpoint of the proxy's own answers; RouteNotFound when there is none. It counts as a call."""
        endpoint, use = self.doors[-1].own(method, path), self.shared.use
        use.enter()
        try:
            return await endpoint.handle(EndpointRequest(method, path, query, headers, body, self.gateway.processors))
        finally:
            use.leave()

    async def over(self) -> None:
        """Wait until nothing uses it: no call, and nothing that calls started and that outlived them."""
        while self.shared.use.count or self.gateway.background:
            await self.shared.use.over()
            await self.background_over()

    async def background_over(self, due_s: float | None = None) -> None:
        """Wait for the work that exchanges shared; until *due_s* of the clock, when that is given."""
        while (background := list(self.gateway.background)) and (due_s is None or self.clock() < due_s):
            one_ended = asyncio.Event()
            for exchange in background:
                exchange.on_finish(lambda _, ended=one_ended: ended.set())  # type: ignore[misc]
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due_s is None else due_s - self.clock()):
                    await one_ended.wait()

    async def aclose(self, timeout_s: float) -> None:
        """
        End what is left of its background work, and close what nobody else uses.

        Its tasks have *timeout_s* seconds to end. May be called again, also before the first call has returned: the
        shorter time counts.
        """
        for exchange in list(self.gateway.background):
            exchange.finish(End.ABANDONED)
        await self.tasks.drain(timeout_s)
        self.shared.recorder.backlog.write()
        if not self._closed:
            self._closed = True
            await self.gateway.aclose()


class Prepared:
    """A configuration that is built, and not yet served from. It is committed, or discarded."""

    def __init__(self, generation: Generation, kept: tuple[KeptSetting, ...], dropped: Callable[[], None]) -> None:
        self.generation = generation
        self.kept = kept
        self._dropped = dropped

    async def discard(self) -> None:
        """Close what was built for it. May be called again."""
        await self.generation.aclose(0)
        self._dropped()


@attrs.frozen
class KeptSetting:
    """A setting that only a restart changes: *running* is what counts, *given* what the configuration says now."""

    name: str
    running: object
    given: object

    def __str__(self) -> str:
        return self.name


_OF_THE_PROCESS = ("host", "port", "own_endpoints", "workers")


def kept_settings(running: ServerConfig, given: ServerConfig) -> tuple[ServerConfig, tuple[KeptSetting, ...]]:
    """*given* with what cannot change while we run as it is, and what that is."""
    names = list(_OF_THE_PROCESS)
    if (running.tls_certificate is None) is not (given.tls_certificate is None):
        names += ["tls_certificate", "tls_key"]  # a port speaks one or the other
    found = [KeptSetting(f"server.{name}", getattr(running, name), getattr(given, name)) for name in names]
    kept = tuple(it for it in found if it.running != it.given)
    return attrs.evolve(given, **{name: getattr(running, name) for name in names}), kept
