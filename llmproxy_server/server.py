"""The server: from a checked configuration to a process that serves, drains and ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from llmproxy_core.config import Config, is_loopback
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.gateway import Gateway, build
from llmproxy_core.llm import LLMClient, Transport
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.outcome import End
from llmproxy_core.plugins import Registry
from llmproxy_core.services import Pool, Services
from llmproxy_core.tasks import Tasks
from llmproxy_server import logs
from llmproxy_server.access_log import AccessLog
from llmproxy_server.admission import Admission
from llmproxy_server.door import Door, Endpoints, Observer, Shared, by_path, default_dialect
from llmproxy_server.edge import Edge, require_c_parser
from llmproxy_server.health import Health
from llmproxy_server.life import Life
from llmproxy_server.listener import Listener, listen
from llmproxy_server.prices import BundledPrices
from llmproxy_server.record import Recorder
from llmproxy_server.tls import tls_context
from llmproxy_server.transport import AiohttpTransport

_log = logging.getLogger("llmproxy")
MakeTransport = Callable[[Pool, Tasks], Transport]
EXIT_AT_ONCE = 130
"""The exit code of a second Ctrl-C, as a shell reports a process that SIGINT ended."""
_TURNS = 10
"""Turns of the loop that it takes at most to accept a connection, read a request, and begin a call."""
_TAKE_S = 0.1
"""How long a process that was told to stop takes what comes, if it does not cease."""


class Server:
    """
    Serves one configuration.

    `run` is the whole life of a process; `start`, `stop` and `aclose` are its parts, for those who have a loop.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        *,
        observers: Sequence[Observer] = (),
        make_transport: MakeTransport = AiohttpTransport,
        started: Callable[[Server], None] | None = None,
    ) -> None:
        """*observers* are told of every exchange that begins, *started* once, when the ports are open."""
        self.config = config
        self.registry = registry
        self.tasks = Tasks()
        self.life = Life()
        self.gateway: Gateway
        self.admission = Admission(
            max_in_flight=config.server.max_in_flight, max_buffered_bytes=config.server.max_buffered_bytes
        )
        self._observers = tuple(observers)
        self._make_transport = make_transport
        self._started = started
        self._prices = BundledPrices()
        self._transports: dict[Pool, Transport] = {}
        self._listeners: list[Listener] = []
        self.edges: list[Edge] = []
        self._log_batch: logs.BatchHandler | None = None
        self._closed = False

    # -- start ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Build the gateway and open the ports.

        ConfigError when the configuration cannot be served: a factory's problem, an address that cannot be bound, a
        certificate that cannot be read. Nothing is left open then.
        """
        require_c_parser()
        self.gateway = build(self.config, self.registry, self._services)
        try:
            await self._open()
        except BaseException:
            await self.aclose()
            raise
        self.life.ready = True
        if any(isinstance(llm, HttpLLMConfig) and llm.enabled for llm in self.config.llms.values()):
            self._prices.start()  # now, since it takes a while, and only where there is something to pay
        if self._started is not None:
            self._started(self)

    def _services(self, llm: Callable[[str], LLMClient]) -> Services:
        return Services(
            llm=llm,
            transport=self._transport,
            tasks=self.tasks,
            prices=self._prices,
            dialects=self.registry.dialects,
        )

    def _transport(self, pool: Pool) -> Transport:
        """The transport of all who ask for an equal pool."""
        if pool not in self._transports:
            self._transports[pool] = self._make_transport(pool, self.tasks)
        return self._transports[pool]

    async def _open(self) -> None:
        server = self.config.server
        clock = self.gateway.services.clock
        health = Health(
            self.config, self.life, version=_version(), clock=clock, in_flight=lambda: self.admission.in_flight
        )
        shared = Shared(
            gateway=self.gateway,
            admission=self.admission,
            life=self.life,
            recorder=Recorder(AccessLog(clock, self._log_batch)),
            dialect=default_dialect(self.registry),
            observers=(health.watch, *self._observers),
        )
        own = by_path([*health.endpoints(), *self.registry.endpoints.values()])
        elsewhere = server.own_endpoints if isinstance(server.own_endpoints, str) else None
        here: Endpoints = own if server.own_endpoints is True else {}
        door = Door(shared, here, loopback=is_loopback(server.host))
        await self._listen(door, "server.host", server.host, server.port, self._tls())
        if elsewhere is not None:
            host, _, port = elsewhere.rpartition(":")
            other = Door(shared, own, loopback=is_loopback(host), routes=False)
            await self._listen(other, "server.own_endpoints", host, int(port), None)

    async def _listen(self, door: Door, key: str, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        try:
            listener = Listener(listen(host, port), tls)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError([Problem(key, f"cannot listen on {host} port {port}: {reason}")]) from error
        self._listeners.append(listener)
        edge = Edge(door, closed=listener.closed)
        self.edges.append(edge)
        await listener.start(edge, self.tasks, max_connections=self.config.server.max_connections)

    def _tls(self) -> ssl.SSLContext | None:
        server = self.config.server
        try:
            return tls_context(server.tls_certificate, server.tls_key)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError([Problem("server.tls_certificate", f"the certificate or its key: {reason}")]) from error

    # -- while it runs -------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it serves: scheme, host and port."""
        return self._listeners[0].url

    @property
    def own_url(self) -> str | None:
        """Where its own endpoints are; None when they are not served."""
        if self.config.server.own_endpoints is False:
            return None
        return self._listeners[-1].url

    # -- stop ----------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """
        Drain: accept nothing more, and give what is in flight `drain_timeout_s` to finish.

        Calls that are left are then ended as failed, their clients told; all effects are settled, all is closed.
        """
        self.life.draining = True
        await self._take_what_has_come()
        for listener in self._listeners:
            await listener.stop()
        for edge in self.edges:
            edge.retire()
        timeout_s = self.config.server.drain_timeout_s
        due_s = self.gateway.services.clock() + timeout_s
        ended = sum(await asyncio.gather(*(edge.finish(timeout_s) for edge in self.edges)))
        await self._background_ended(due_s)
        if ended:
            _log.warning("ended %d calls that were not over after %g s (drain_timeout_s)", ended, timeout_s)
        await self.aclose()

    async def _take_what_has_come(self) -> None:
        """Accept and read what the kernel holds for us already: a connection that is closed over it would be reset."""
        due_s = self.gateway.services.clock() + _TAKE_S
        before, turns = 0, 0
        while turns < _TURNS and self.gateway.services.clock() < due_s:
            await asyncio.sleep(0)
            taken = sum(len(edge.connections) + len(edge.calls) for edge in self.edges)
            before, turns = taken, turns + 1 if taken == before else 0

    async def _background_ended(self, due_s: float) -> None:
        """Wait for the work that exchanges shared, and that outlived them."""
        while (background := list(self.gateway.background)) and self.gateway.services.clock() < due_s:
            one_ended = asyncio.Event()
            for exchange in background:
                exchange.on_finish(lambda _, ended=one_ended: ended.set())  # type: ignore[misc]
            with suppress(TimeoutError):
                async with asyncio.timeout(due_s - self.gateway.services.clock()):
                    await one_ended.wait()

    async def aclose(self) -> None:
        """Close everything now. May be called again."""
        if self._closed:
            return
        self._closed = True
        self.life.draining = True
        for listener in self._listeners:
            await listener.stop()
        for edge in self.edges:
            await edge.aclose()
        for exchange in list(self.gateway.background):
            exchange.finish(End.ABANDONED)
        await self.tasks.drain(self.config.server.settle_timeout_s)
        await self.gateway.aclose()
        for transport in self._transports.values():
            await transport.aclose()

    # -- a whole process -----------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, drain, and give the exit code. A second SIGINT ends the process at once."""
        self._log_batch = handler = logs.configure(self.config)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            try:
                return runner.run(self.serve())
            finally:
                handler.flush()

    async def serve(self) -> int:
        """As `run`, in the running loop."""
        ending = asyncio.Event()

        def interrupted() -> None:
            if ending.is_set():
                os._exit(EXIT_AT_ONCE)
            ending.set()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, ending.set)
        loop.add_signal_handler(signal.SIGINT, interrupted)
        try:
            await self.start()
            gc.freeze()  # what is there now stays: collections need not look at it again
            await ending.wait()
            _log.info("draining: %d calls in flight", self.admission.in_flight)
            await self.stop()
            _log.info("stopped")
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)
        return 0


def _version() -> str:
    try:
        return version("llmproxy")
    except PackageNotFoundError:  # pragma: no cover - run from a tree that is not installed
        return "unknown"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one."""
    try:
        import uvloop
    except ImportError:  # pragma: no cover - Windows
        return None
    return uvloop.new_event_loop
