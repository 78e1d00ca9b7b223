"""
The parent: it holds the sockets and the workers, serves nothing itself, and reads the configuration for all.

A worker that dies is replaced on the same sockets, so what waited in its queue is answered. A reload is prepared by
all workers and then served by all, or by none.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs

from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.plugins import Registry
from llmproxy_core.tasks import Tasks
from llmproxy_server import logs
from llmproxy_server.difference import difference
from llmproxy_server.generation import Certificate, kept_settings
from llmproxy_server.loader import Loaded
from llmproxy_server.log_events import get_logger
from llmproxy_server.metrics.metering import Metering
from llmproxy_server.metrics.upkeep import Upkeep
from llmproxy_server.process import messages
from llmproxy_server.process.child import Child
from llmproxy_server.process.notify import Notifier
from llmproxy_server.process.said import said_of
from llmproxy_server.reload import Reloaded, report, result_of
from llmproxy_server.server import EXIT_AT_ONCE
from llmproxy_server.signals import HangUp, handled
from llmproxy_server.source import Snapshot, Source
from llmproxy_server.watch import Watch

_log = get_logger()
PREPARE_S = 30.0
"""How long a worker may take to build a configuration."""
ASK_S = 0.5
"""How long one may take to answer a look-up that is asked in all."""
CHANGE_S = 5.0
"""The same for a call that changes something."""
SHORT_LIFE_S = 5.0
"""A worker that served less long than this is not replaced at once, but after a while that grows."""
MOST_PAUSE_S = 10.0
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own in it, which only we can read


class CannotBegin(Exception):
    """The workers could not begin; *problems* say why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("the workers could not begin")
        self.problems = list(problems)


@attrs.define
class Slot:
    """A worker's place: its sockets, and the process that has it now."""

    name: str
    listening: Sequence[socket.socket]
    own: Sequence[socket.socket] | None
    child: Child | None = None
    short_lives: int = 0
    """How many of its workers died young, one after the other."""


class Parent:
    """Runs the workers. One event loop, no HTTP."""

    def __init__(
        self,
        source: Source,
        snapshot: Snapshot,
        loaded: Loaded,
        registry: Registry,
        slots: Sequence[Slot],
        *,
        started: Callable[[], None],
        notifier: Notifier,
    ) -> None:
        """*snapshot* is what *loaded* was made of; *started* is called once, when all workers serve."""
        self._source = source
        self._snapshot = snapshot
        self._given = self._config = loaded.config
        """As it was read, and with what only a restart changes as it was."""
        self._registry = registry
        self.slots = list(slots)
        self._started = started
        self._notifier = notifier
        self._number = 1
        self._digest = Certificate.read(loaded.config.server).digest
        self._tasks = Tasks()
        self._one = asyncio.Lock()
        self._ending = asyncio.Event()
        self._begun = False
        self._attempt = 0
        self._directory = _directory()
        self._metering = Metering.of_parent(self._directory)
        self._watch = Watch(source.files, partial(self.reload, "file"), self._tasks)

    # -- its life ------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Until SIGTERM or SIGINT. CannotBegin, with every worker ended, when one could not begin."""
        with handled(self._handlers()):
            await self._run()
        return 0

    async def _run(self) -> None:
        try:
            await self._begin()
            self._notifier.ready(f"{len(self.slots)} workers")
            self._metering.start()
            self._watch_or_not()
            self._started()
            await self._ending.wait()
            self._notifier.stopping()
            _log.info("draining", workers=len(self.slots))
        finally:
            await self._end()
        _log.info("stopped")

    def _handlers(self) -> Mapping[int, Callable[[], object]]:
        def interrupted() -> None:
            if self._ending.is_set():
                self._kill()
                self._clean_up()
                logs.flush()
                os._exit(EXIT_AT_ONCE)
            self._ending.set()

        return {
            signal.SIGTERM: self._ending.set,
            signal.SIGINT: interrupted,
            signal.SIGHUP: HangUp(self._ending.set, self._reload_soon),
        }

    def _reload_soon(self) -> None:
        _ = self._tasks.start(self.reload("SIGHUP"), name="reload")

    async def _begin(self) -> None:
        """Start all, and wait until they serve; return early when the process is told to end."""
        for slot in self.slots:
            await self._start(slot)
            _ = self._tasks.start(self._keep(slot), name="a slot")
        ready = self._tasks.start(self._all_ready(), name="all workers begin")
        ending = self._tasks.start(self._ending_began(), name="the end")
        await asyncio.wait([ready, ending], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not ready.done():
            ready.cancel()
        elif not ready.result():
            raise CannotBegin(self._problems())
        else:
            self._begun = True

    async def _all_ready(self) -> bool:
        """Whether all workers serve, once that is known: False as soon as one has ended before it did."""
        for ready in asyncio.as_completed([slot.child.ready() for slot in self.slots if slot.child is not None]):
            if not await ready:
                return False
        return True

    async def _ending_began(self) -> bool:
        return await self._ending.wait()

    def _problems(self) -> list[Problem]:
        """Why workers could not begin, each reason once."""
        found = dict.fromkeys(it for slot in self.slots if slot.child is not None for it in slot.child.problems)
        return list(found) or [Problem("", "a worker ended before it served")]

    async def _end(self) -> None:
        """Drain all workers, and leave nothing behind."""
        self._ending.set()
        self._watch.stop()
        self._metering.stop()
        for slot in self.slots:
            if slot.child is not None:
                slot.child.tell(messages.Stop())
            for it in (*slot.listening, *(slot.own or ())):
                it.close()  # the worker has its own copy, and closes it when it has taken what waits
        server = self._config.server
        await self._all_ended(server.drain_timeout_s + 2 * server.settle_timeout_s + CHANGE_S)
        self._kill()
        await self._all_ended(CHANGE_S)
        await self._tasks.drain(0)
        self._notifier.close()
        self._clean_up()

    async def _all_ended(self, timeout_s: float) -> None:
        running = [slot.child.process.wait() for slot in self.slots if slot.child is not None]
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*running)

    def _kill(self) -> None:
        for slot in self.slots:
            if slot.child is not None:
                slot.child.kill()

    def _clean_up(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    # -- workers -------------------------------------------------------------------------------------------------

    async def _start(self, slot: Slot) -> Child:
        """A new process for *slot*, with what is served now."""
        begin = messages.Begin(
            slot=slot.name,
            snapshot=self._snapshot.to_bytes(),
            listening=[it.fileno() for it in slot.listening],
            own_listening=None if slot.own is None else [it.fileno() for it in slot.own],
            metrics=str(self._directory),
            number=self._number,
        )
        slot.child = await Child.start(begin, [*slot.listening, *(slot.own or ())], self._heard)
        return slot.child

    async def _keep(self, slot: Slot) -> None:
        """Listen to the worker of *slot*, and to those that take its place."""
        while slot.child is not None:
            child, began_s = slot.child, time.monotonic()
            counting = self._tasks.start(self._count_when_ready(child), name="a worker begins")
            await child.listen()
            counting.cancel()
            self._count()
            if self._ending.is_set() or not self._begun:
                return
            slot.short_lives = slot.short_lives + 1 if time.monotonic() - began_s < SHORT_LIFE_S else 0
            pause_s = min(0.1 * 2 ** min(slot.short_lives - 1, 10), MOST_PAUSE_S) if slot.short_lives else 0.0
            self._mourn(slot, child, pause_s)
            await self._replace(slot, pause_s)

    async def _count_when_ready(self, child: Child) -> None:
        await child.ready()
        self._count()

    def _mourn(self, slot: Slot, child: Child, pause_s: float) -> None:
        _log.error(
            "a worker ended, and is replaced", worker=slot.name, code=child.process.returncode, in_s=round(pause_s, 1)
        )
        for problem in child.problems:
            _log.error("why a worker could not begin", worker=slot.name, path=problem.path, problem=problem.message)

    async def _replace(self, slot: Slot, pause_s: float) -> None:
        """Another worker for *slot*, after *pause_s* seconds; over and over where none can be started."""
        while not await self._ends_within(pause_s):
            try:
                await self._start(slot)
            except OSError as error:
                _log.error("a worker cannot be started", worker=slot.name, reason=error.strerror)
                pause_s = MOST_PAUSE_S
            else:
                self._upkeep.restarted()
                return

    async def _ends_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        return self._ending.is_set()

    def _count(self) -> None:
        self._upkeep.alive(sum(slot.child is not None and slot.child.serves for slot in self.slots))

    @property
    def _upkeep(self) -> Upkeep:
        assert self._metering.upkeep is not None
        return self._metering.upkeep

    # -- what workers ask ----------------------------------------------------------------------------------------

    def _heard(self, child: Child, message: messages.AskAll | messages.Reload) -> None:
        if isinstance(message, messages.Reload):
            _ = self._tasks.start(self._reload_for(child, message), name="reload")
        else:
            _ = self._tasks.start(self._ask_all(child, message), name="an endpoint, of all workers")

    async def _reload_for(self, child: Child, asked: messages.Reload) -> None:
        done = await self.reload(asked.cause)
        child.tell(messages.ReloadOver(asked.id, said_of(done)))

    async def _ask_all(self, child: Child, asked: messages.AskAll) -> None:
        timeout_s = ASK_S if asked.method == "GET" else CHANGE_S
        replies = await asyncio.gather(*(self._ask(slot, asked, timeout_s) for slot in self.slots))
        child.tell(messages.Answers(asked.id, replies))

    async def _ask(self, slot: Slot, asked: messages.AskAll, timeout_s: float) -> messages.Reply:
        if slot.child is None or not slot.child.serves:
            return messages.NO_ANSWER
        return await slot.child.ask(asked, timeout_s)

    # -- reloading -----------------------------------------------------------------------------------------------

    async def reload(self, cause: str) -> Reloaded:
        """See Reloader: all workers serve the configuration as it is now, or none does."""
        async with self._one:
            if self._ending.is_set() or not self._begun:
                problem = Problem("", "the process is about to end, or has not begun")
                return Reloaded(False, self._number, (problem,), busy=True)
            self._notifier.reloading()
            try:
                done = await self._reload()
            except ConfigError as error:
                done = Reloaded(False, self._number, tuple(error.problems))
            else:
                self._watch_or_not()
            self._upkeep.reloaded(result_of(done))
            for slot in self.slots:
                if slot.child is not None:
                    slot.child.tell(messages.Outcome(done.ok))
            self._notifier.ready()
        report(done, cause, self._source.name)
        return done

    def stop(self) -> None:
        """See Reloader."""
        self._watch.stop()

    def _watch_or_not(self) -> None:
        if self._config.server.watch and not self._ending.is_set():
            self._watch.start()
        else:
            self._watch.stop()

    def _read(self) -> tuple[Snapshot, Loaded, bytes]:
        snapshot = self._source.read()
        loaded = snapshot.load(self._registry)
        return snapshot, loaded, Certificate.read(loaded.config.server).digest

    async def _reload(self) -> Reloaded:
        snapshot, loaded, digest = await asyncio.to_thread(self._read)
        if loaded.config == self._given and digest == self._digest:
            return Reloaded(True, self._number, unchanged=True, warnings=loaded.warnings)
        server, kept = kept_settings(self._config.server, loaded.config.server)
        found = difference(self._config, loaded.config)
        await self._prepare_all(snapshot)
        changes = [str(change) for change in found.taking_effect]
        if digest != self._digest:
            changes.append("the certificate was renewed")
        self._given, self._config, self._digest = loaded.config, attrs.evolve(loaded.config, server=server), digest
        logs.configure(self._config)
        return Reloaded(True, self._number, kept_settings=kept, changes=tuple(changes), warnings=loaded.warnings)

    async def _prepare_all(self, snapshot: Snapshot) -> None:
        """Have all serve *snapshot*; ConfigError when one cannot, and then none does."""
        self._attempt += 1
        attempt, data = self._attempt, snapshot.to_bytes()
        children = [slot.child for slot in self.slots if slot.child is not None and slot.child.is_running]
        found = await asyncio.gather(*(child.prepare(attempt, data, PREPARE_S) for child in children))
        problems = _problems_of(children, found)
        if problems:
            for child in children:
                child.tell(messages.Abort(attempt))
            raise ConfigError(problems)
        self._snapshot, self._number = snapshot, self._number + 1
        for slot in self.slots:
            if slot.child in children:
                slot.child.tell(messages.Commit(attempt, self._number))
            elif slot.child is not None:
                slot.child.kill()  # it began meanwhile, with what was served before; the next one has the new


def _problems_of(children: Sequence[Child], found: Sequence[list[Problem] | None]) -> list[Problem]:
    """What stands against serving, each reason once; a worker that said nothing is one."""
    problems: dict[Problem, None] = {}
    for child, said in zip(children, found, strict=True):
        silent = Problem("", f"the worker {child.slot} ended, or was silent, while it was to prepare")
        problems.update(dict.fromkeys([silent] if said is None else said))
    return list(problems)


def _directory() -> Path:
    """Where the workers keep what all read. It is ours alone (0700), and in memory where there is such a place."""
    where = str(_MEMORY) if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="llmproxy-", dir=where))
