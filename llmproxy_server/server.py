"""The server: from a checked configuration to a process that serves, reloads, drains and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs

from llmproxy_core.attempt import Attempt
from llmproxy_core.config import Config, ServerConfig, is_loopback
from llmproxy_core.endpoint import EndpointReply
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.gateway import Gateway
from llmproxy_core.headers import Headers
from llmproxy_core.plugins import Registry
from llmproxy_core.services import Services
from llmproxy_core.tasks import Tasks
from llmproxy_server import bounds, descriptors, logs
from llmproxy_server.admission import Admission
from llmproxy_server.door import FanOut, Observer
from llmproxy_server.edge import Edge
from llmproxy_server.front import HOST, OWN_ENDPOINTS, Front, bound_host
from llmproxy_server.generation import Certificate, Generation, Prepared, kept_settings
from llmproxy_server.health import Health
from llmproxy_server.health_reason import Growing
from llmproxy_server.installed import VERSION
from llmproxy_server.lag import Lag
from llmproxy_server.life import GOODBYE_S, Life
from llmproxy_server.listener import Listener
from llmproxy_server.log_events import get_logger
from llmproxy_server.log_follow import LogFollower
from llmproxy_server.maker import Maker, MakeTransport
from llmproxy_server.metrics.metering import Metering
from llmproxy_server.metrics.process import watch_log, watch_server, watch_spans
from llmproxy_server.probing import Probing
from llmproxy_server.reload import Reloader, reload_endpoint
from llmproxy_server.runtime import loop_factory, settle_memory_once, take_short_turns
from llmproxy_server.signals import HangUp, handled
from llmproxy_server.transport_making import make_transport as make_usual_transport

if TYPE_CHECKING:
    from llmproxy_server.pages.server import Page

_log = get_logger()
_LOOK_S = 0.02
EXIT_AT_ONCE = 130
"""The exit code of a second Ctrl-C, as a shell reports a process that SIGINT ended."""


class Server:
    """
    Serves one configuration at a time.

    `run` is the whole life of a process; `start`, `stop` and `aclose` are its parts, for those who have a loop. While
    it runs, `prepare` builds another configuration beside the one that is served, and `commit` serves that.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        *,
        observers: Sequence[Observer] = (),
        make_transport: MakeTransport = make_usual_transport,
        started: Callable[[Server], None] | None = None,
        stopping: Callable[[], None] | None = None,
        running: ServerConfig | None = None,
        listening: Sequence[socket.socket] | None = None,
        own_listening: Sequence[socket.socket] | None = None,
        reloader: Reloader | None = None,
        fan_out: FanOut | None = None,
        log: logs.BatchHandler | None = None,
        adapt: Callable[[Services], Services] | None = None,
        pages: Sequence[Page] = (),
        metering: Metering | None = None,
    ) -> None:
        """
        *observers* are told of every exchange that begins, *started* once, when the ports are open, *stopping* when a
        drain begins in `serve`. *running*: what only a restart changes is as there, whatever *config* says; None: as in
        *config*.

        *listening* and *own_listening* are bound sockets to be used instead of binding `host` and `own_endpoints`. The
        *reloader* is what SIGHUP (in `serve`) and `POST /api/reload` call; without one there is neither. *log* writes
        the log of this process, and is adapted to each configuration; None: that is somebody else's business.
        *metering* is where this process counts; None: it is the only one. *adapt* changes what plugins are lent.

        *pages* are shown beside the routes, over aiohttp.
        """
        self.registry = registry
        self.tasks = Tasks()
        self.life = Life()
        self.reloader = reloader
        self.hand_over: Callable[[], object] | None = None
        """What SIGUSR2 (in `serve`) calls."""
        self.admission = Admission.of(config.server)
        self.number = 0
        """Of the generation that is served from; the first is 1, unless whoever made this one says otherwise."""
        self.metering = Metering.alone() if metering is None else metering
        self.health = Health(
            config,
            self.life,
            version=VERSION,
            clock=time.monotonic,
            in_flight=lambda: self.admission.in_flight,
            tasks=self.tasks,
        )
        self._probing = Probing(self.tasks, self._probed)
        self._lag = Lag(lambda: self.gateway, self.metering.meter)
        self.health.add(self._lag.reasons)
        self._given = config
        self._running = config.server if running is None else running
        self._current: Generation
        self.generations: list[Generation] = []
        """Those that are not closed: the one that is served from is the last."""
        self._log = LogFollower()
        self._maker = Maker(
            registry,
            self.health,
            self.metering,
            tasks=self.tasks,
            life=self.life,
            admission=self.admission,
            make_transport=make_transport,
            observers=observers,
            fan_out=fan_out,
            adapt=adapt,
            exposed=[
                own_only
                for own_only, sockets in ((False, listening), (True, own_listening))
                if not all(is_loopback(bound_host(it)) for it in sockets or ())
            ],
        )
        self._log.handler = self._maker.log = log
        drops = self._maker.drops
        self.health.add(
            Growing(
                "traces", "spans_dropped", "spans were dropped since the start", lambda: drops.count, time.monotonic
            )
        )
        self._front = Front(self.tasks, {HOST: listening, OWN_ENDPOINTS: own_listening}, pages)
        self._started = started
        self._stopping = stopping
        self._ending = asyncio.Event()
        self._closed = False

    # -- start ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Build the gateway and open the ports.

        ConfigError when the configuration cannot be served: a factory's problem, an address that cannot be bound, a
        certificate that cannot be read. Nothing is left open then.
        """
        try:
            if self.reloader is not None:
                self._maker.more_endpoints.append(reload_endpoint(self.reloader))
            effective, _ = kept_settings(self._running, self._given.server)
            self._current = await self._maker.make(self._given, attrs.evolve(self._given, server=effective))
            self.generations.append(self._current)
            self._log.take(self._given, self._given)
            self.number = self.number or 1
            self._follow()
            await self._front.open(self._current)
        except BaseException:
            self.life.begin()
            await self.aclose()
            raise
        self.life.ready = True
        self.life.begin()
        self._watch()
        self._log.begin()
        self.life.late = self._load_late()
        if self._started is not None:
            self._started(self)

    def watch_loop(self) -> None:
        """Measure the lag of the event loop, and name who blocks it: where the process is ours, and no test's."""
        self._lag.start()

    def _watch(self) -> None:
        """Have it counted what we hold."""
        watch_server(
            self.metering.sampler,
            connections=lambda: self._front.connections,
            admission=self.admission,
        )
        self.admission.start()
        watch_log(self.metering.sampler, logs.dropped)
        watch_spans(self.metering.sampler, lambda: self._maker.drops.count)
        bounds.export(self, self.metering.meter)
        self.metering.start()

    def _load_late(self) -> list[Callable[[], bool]]:
        """
        Load what takes a while and no call waits for: what exports traces.

        Gives whether that is there. A process that starts is ready then; one that serves already stays so.
        """
        late: list[Callable[[], bool]] = []
        if (export := self._current.export) is not None:
            export.start()
            late.append(export.ready.is_set)
        return late

    # -- while it runs -------------------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """What is served: the configuration that was given last, with what only a restart changes as it was."""
        return self._current.config if self.generations else self._given

    @property
    def gateway(self) -> Gateway:
        """What calls that begin now are served by."""
        return self._current.gateway

    @property
    def certificate(self) -> Certificate:
        """The one of the handshakes that come."""
        return self._current.certificate

    @property
    def edges(self) -> Sequence[Edge]:
        """One for each address, that of the routes first."""
        return self._front.edges

    @property
    def listeners(self) -> Sequence[Listener]:
        """As `edges`."""
        return self._front.listeners

    @property
    def url(self) -> str:
        """Where it serves: scheme, host and port."""
        return self._front.listeners[0].url

    @property
    def own_url(self) -> str | None:
        """Where its own endpoints are; None when they are not served."""
        if self.config.server.own_endpoints is False:
            return None
        return self._front.listeners[-1].url

    async def ask(self, method: str, path: str, query: str, headers: Headers, body: bytes) -> EndpointReply:
        """What an endpoint of the proxy's own answers, of this process alone; RouteNotFound when there is none."""
        self.write_down()
        return await self._current.ask(method, path, query, headers, body)

    def write_down(self) -> None:
        """Write down now all calls that are over by now, in the metrics and for the log."""
        self._maker.backlog.write()

    # -- another configuration -----------------------------------------------------------------------------------

    def is_serving(self, config: Config) -> bool:
        """Whether *config* is what was given last, its certificate's files included. ConfigError: unreadable ones."""
        if config != self._current.given:
            return False
        return Certificate.read(self.config.server).digest == self.certificate.digest

    async def prepare(self, config: Config) -> Prepared:
        """
        Build everything that *config* needs beside what is served; nothing else is changed.

        ConfigError with all problems; what it raises besides is a plugin's bug. Nothing is left behind then either. Its
        secrets are kept out of the logs from now on.
        """
        effective, kept = kept_settings(self.config.server, config.server)
        self._log.take(config, self.config)
        try:
            generation = await self._maker.make(config, attrs.evolve(config, server=effective))
        except (ConfigError, SystemExit) as error:
            ended = Problem("", "a plugin tried to end the process when it was built")
            found = error.problems if isinstance(error, ConfigError) else [ended]
            problems = self._log.without_secrets(found)
            self._log.leave(config, self.config)
            raise ConfigError(problems) from error
        except BaseException:
            self._log.leave(config, self.config)
            raise
        return Prepared(generation, kept, lambda: self._log.leave(config, self.config))

    def commit(self, prepared: Prepared) -> None:
        """
        Serve *prepared* from now on. It cannot fail, and awaits nothing.

        Calls that have begun end with what they began with; what only they used is closed after the last of them.
        """
        old, self._current = self._current, prepared.generation
        self.generations.append(self._current)
        self.number += 1
        old.scope.replaced()
        self.admission.follow(self.config.server)
        self._front.lead_to(self._current)
        self._log.follow(self.config)
        self._follow()
        _ = self._load_late()
        _ = self.tasks.start(self._retire(old), name="the end of a generation")

    def _follow(self) -> None:
        """Those who watch the process are to watch the current generation."""
        self._current.scope.activate()
        self.health.configure(self.config, self.gateway.stores, self.gateway.llms)
        self._probing.follow(self.gateway)

    def _probed(self, llm: str, attempt: Attempt) -> None:
        self.health.probed(llm, attempt)
        self._current.scope.probed(llm, attempt)

    async def _retire(self, old: Generation) -> None:
        await old.over()
        if self._closed:
            return
        await old.aclose(old.config.server.drain_timeout_s)
        self.generations.remove(old)
        self._log.leave(old.given, self.config)

    # -- stop ----------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """
        Drain: accept nothing more, and give what is in flight `drain_timeout_s` to finish.

        Calls that are left are then ended as failed, their clients told; all effects are settled, all is closed.
        """
        self._wind_down()
        if self.life.sockets_stay:
            await self._say_goodbye()
        await self._front.close_doors(self._current.clock)
        timeout_s = self.config.server.drain_timeout_s
        due_s = self._current.clock() + timeout_s
        ended = await self._front.finish(timeout_s)
        while self.life.sockets_stay and not ended and not await self._are_gone():
            ended = await self._front.finish(due_s - self._current.clock())
        for generation in list(self.generations):
            await generation.background_over(due_s)
        await self._front.written(due_s - self._current.clock())  # a stream is over when the last of it is written
        if ended:
            _log.warning("ended calls that were not over in time", calls=ended, drain_timeout_s=timeout_s)
        await self.aclose()

    async def _say_goodbye(self) -> None:
        """
        Leave what is in the kernel's queues to the others, and serve on those who are here.

        Each answer says that the connection ends, so who asks again in that time does so elsewhere, and no request
        crosses the end of its connection. The first look is after some turns of the loop: what has just been accepted
        shows as a connection by then.
        """
        await self._front.stop_listening()
        due_s = asyncio.get_running_loop().time() + min(GOODBYE_S, self.config.server.drain_timeout_s)
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._front.is_empty or asyncio.get_running_loop().time() >= due_s:
                return

    async def _are_gone(self) -> bool:
        """
        Wait until no connection is left, or for as long as one has to hear of its end; False: a call has begun on one.

        The head of an answer that began before the end did not speak of it: whoever got that may ask once more.
        """
        due_s = asyncio.get_running_loop().time() + GOODBYE_S
        while not self._front.has_calls:
            if self._front.is_empty or asyncio.get_running_loop().time() >= due_s:
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    def _wind_down(self) -> None:
        self.life.draining = True
        self._probing.stop()
        if self.reloader is not None:
            self.reloader.stop()

    async def aclose(self) -> None:
        """Close everything now. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._wind_down()
        self._lag.stop()
        self.admission.stop()
        self.metering.stop()
        await self._front.aclose()
        timeout_s = self.config.server.settle_timeout_s
        await asyncio.gather(*(generation.aclose(timeout_s) for generation in self.generations))
        await self.tasks.drain(timeout_s)
        await self._maker.aclose()
        self.write_down()
        self._log.end()

    # -- a whole process -----------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, drain, and give the exit code. A second SIGINT ends the process at once."""
        self._log.handler = self._maker.log = handler = logs.configure(self._given)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            try:
                return runner.run(self.serve())
            finally:
                handler.flush()

    async def serve(self) -> int:
        """As `run`, in the running loop."""
        ending = self._ending

        def interrupted() -> None:
            if ending.is_set():
                self.write_down()
                logs.flush()
                os._exit(EXIT_AT_ONCE)
            ending.set()

        handlers: dict[int, Callable[[], object]] = {signal.SIGTERM: ending.set, signal.SIGINT: interrupted}
        if self.reloader is not None and hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = HangUp(ending.set, partial(self._reload, self.reloader))
        if self.hand_over is not None and hasattr(signal, "SIGUSR2"):
            handlers[signal.SIGUSR2] = self.hand_over
        with handled(handlers):
            await self._until_the_end()
        _log.info("stopped")  # from now on signals change nothing
        return 0

    def relieve(self) -> None:
        """Another process serves on our sockets: `serve` drains and returns."""
        self.life.sockets_stay = self.life.draining = True
        self._ending.set()

    async def _until_the_end(self) -> None:
        """Serve until the end is asked for, and drain."""
        limit = descriptors.raise_limit()
        await self.start()
        descriptors.say(limit, self.config.server)
        self.watch_loop()
        take_short_turns()
        settle_memory_once(self.life.has_all)
        await self._ending.wait()
        if self._stopping is not None:
            self._stopping()
        _log.info("draining", calls=self.admission.in_flight)
        await self.stop()

    def _reload(self, reloader: Reloader) -> None:
        _ = self.tasks.start(reloader.reload("SIGHUP"), name="reload")
