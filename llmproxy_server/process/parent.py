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
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.plugins import Registry
from llmproxy_core.tasks import Tasks
from llmproxy_server import logs
from llmproxy_server.cli_exit import ExitCode
from llmproxy_server.loader import Loaded
from llmproxy_server.log_events import get_logger
from llmproxy_server.metrics.metering import Metering
from llmproxy_server.metrics.slot import zero_gauges
from llmproxy_server.metrics.upkeep import Upkeep
from llmproxy_server.process import messages
from llmproxy_server.process.child import Child
from llmproxy_server.process.drains import Drains
from llmproxy_server.process.inherited import Inherited
from llmproxy_server.process.notify import Notifier
from llmproxy_server.process.reloading import PREPARE_S, Reloading
from llmproxy_server.process.said import said_of
from llmproxy_server.process.slots import Slot, Slots
from llmproxy_server.process.spawn import Spawn, spawn_worker
from llmproxy_server.process.takeover import Takeover
from llmproxy_server.reload import Reloaded, about_to_end, report, result_of
from llmproxy_server.signals import HangUp, handled
from llmproxy_server.source import Snapshot, Source
from llmproxy_server.watch import Watch

_log = get_logger()
GRACE_S = 5.0
"""How much longer than its own clocks a worker may take to end."""
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own in it, which only we can read


class CannotBegin(Exception):
    """The workers could not begin; *problems* say why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("the workers could not begin")
        self.problems = list(problems)


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
        started: Callable[[str], None],
        notifier: Notifier,
        spawn: Spawn = spawn_worker,
        handed_down: Inherited | None = None,
        prepare_s: float = PREPARE_S,
    ) -> None:
        """
        *snapshot* is what *loaded* was made of. *started* is called once, when all workers serve, with what people are
        told then. *handed_down*: where the slots' sockets come from; None: we opened them. *prepare_s*: see
        `reloading`. CannotBegin when there is no place for what the workers count.
        """
        self._source = source
        self._started = started
        self._notifier = notifier
        self._tasks = Tasks()
        self._one = asyncio.Lock()
        self._ending = asyncio.Event()
        self._begun = False
        self._settled = asyncio.Event()
        """It has begun, or is about to end."""
        self._reload_ok = True
        self._asking: dict[_Question, asyncio.Task[list[messages.Reply]]] = {}
        self._handed_down = Inherited() if handed_down is None else handed_down
        self._is_guest = self._handed_down.predecessor is not None
        """Whether the sockets are still those of the version whose place we take."""
        configured = loaded.config.llms
        self._drains = Drains([it for it in self._handed_down.drained if it in configured], self._tell)
        self._reloading = Reloading(source, snapshot, loaded, registry, prepare_s=prepare_s)
        self._directory, self._metering = _metering([slot.name for slot in slots])
        self.slots = self._reloading.slots = Slots(
            slots,
            spawn,
            self._begin,
            heard=self._heard,
            gone=self._forget,
            upkeep=self._upkeep,
            tasks=self._tasks,
        )
        self._watch = Watch(source.files, partial(self.reload, "file"), self._tasks, read=lambda: source.seen)
        self._takeover = Takeover(
            self._given, self._relieved, drained=lambda: self._drains.names, notifier=notifier, tasks=self._tasks
        )

    # -- its life ------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Until SIGTERM or SIGINT. CannotBegin, with every worker ended, when one could not begin."""
        with handled(self._handlers()):
            await self._run()
        _log.info("stopped")  # from now on signals change nothing
        return 0

    async def _run(self) -> None:
        try:
            if await self.slots.start():
                self._serving()
                await self._ending.wait()
                _log.info("draining", workers=len(self.slots.all))
            elif not self._ending.is_set():
                raise CannotBegin(self.slots.problems or [Problem("", "a worker ended before it served")])
            self._notifier.stopping()
        finally:
            await self._end()

    def _serving(self) -> None:
        self._begun = True
        self._settled.set()
        if (patience_s := self._notifier.watchdog_s) is not None:
            for slot in self.slots.all:
                _ = self._tasks.start(self.slots.watch(slot, patience_s), name="the pulse of a worker")
        self._metering.start()
        self._watch_or_not()
        self._started("\n".join(child.greeting for child in self.slots.children if child.greeting))
        self._announce()

    def _announce(self) -> None:
        """Tell whose place we take, and the service manager, that we serve."""
        if (predecessor := self._handed_down.predecessor) is not None:
            predecessor.relieve(self._on_our_own)
        else:
            self._on_our_own({})

    def _on_our_own(self, drains: Mapping[str, bool]) -> None:
        """Nobody else has our sockets; *drains* is what another one was told while we started."""
        self._is_guest = False
        self._drains.change(drains)
        self._drains.keep(self._reloading.config.llms)
        self._notifier.ready(f"{len(self.slots.all)} workers")

    def end(self) -> None:
        """Drain all workers, and end; so does a new version that does not serve yet."""
        self._takeover.stop()
        self._wind_down(relieved=self._is_guest)

    def _relieved(self) -> None:
        """A new version serves on our sockets."""
        self._wind_down(relieved=True)

    def _wind_down(self, *, relieved: bool) -> None:
        self._ending.set()
        self._settled.set()
        self.slots.stop(relieved=relieved)

    def _given(self) -> Inherited | None:
        """See Takeover: what our slots have, and what our workers were told."""
        if not self._begun or self._ending.is_set():
            return None
        shares = dict.fromkeys(tuple(slot.listening) for slot in self.slots.all)
        own = dict.fromkeys(tuple(slot.own) for slot in self.slots.all if slot.own is not None)
        server = self._reloading.config.server
        return self._handed_down.handed_on(server, tuple(shares), tuple(own), self._drains.names)

    def _handlers(self) -> Mapping[int, Callable[[], object]]:
        def interrupted() -> None:
            if self._ending.is_set():
                self.slots.kill()
                self._clean_up()
                logs.flush()
                os._exit(ExitCode.INTERRUPTED)
            self.end()

        return {
            signal.SIGTERM: self.end,
            signal.SIGINT: interrupted,
            signal.SIGHUP: HangUp(self.end, self._reload_soon),
            signal.SIGUSR2: self._take_over_soon,
        }

    def _take_over_soon(self) -> None:
        _ = self._tasks.start(self._take_over(), name="a new version")

    async def _take_over(self) -> None:
        await self._settled.wait()
        self._takeover.begin()

    def _reload_soon(self) -> None:
        _ = self._tasks.start(self.reload("SIGHUP"), name="reload")

    async def _end(self) -> None:
        """Drain all workers, and leave nothing behind."""
        self.end()
        self._watch.stop()
        self._metering.stop()
        server = self._reloading.config.server
        await self.slots.ended(server.drain_timeout_s + 2 * server.settle_timeout_s + GRACE_S)
        self.slots.kill()
        await self.slots.ended(GRACE_S)
        await self._takeover.over(GRACE_S)
        await self._tasks.drain(0)
        self._notifier.close()
        self._clean_up()

    def _clean_up(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def _begin(self, slot: Slot) -> messages.Begin:
        """What the worker of *slot* is told first."""
        count = len(slot.listening)
        return messages.Begin(
            slot=slot.name,
            snapshot=self._reloading.snapshot.to_bytes(),
            listening=list(slot.descriptors[:count]),
            own_listening=None if slot.own is None else list(slot.descriptors[count:]),
            metrics=str(self._directory),
            number=self._reloading.number,
            workers=len(self.slots.all),
            greets=slot is self.slots.all[0] and not self._begun,
            handed_down=self._handed_down.is_managed,
            first=self._reloading.first,
            reload_ok=self._reload_ok,
            drained=tuple(self._drains.names),
        )

    def _forget(self, slot: Slot) -> None:
        """What the worker of *slot* held is not held any more, as the metrics tell."""
        with suppress(OSError):  # the files are gone, or cannot be had now: whoever takes the slot does it, too
            zero_gauges(self._directory, slot.name)

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
        replies = await self._replies(asked)
        if not child.tell(messages.Answers(asked.id, replies)):
            child.tell(messages.Answers(asked.id, [messages.NO_ANSWER for _ in replies]))

    async def _replies(self, asked: messages.AskAll) -> list[messages.Reply]:
        """What all workers answer. Who looks up what another is looking up at that time gets the same."""
        if asked.method != "GET":
            return await self._gathered(asked)
        question = (asked.path, asked.query, tuple(asked.headers), asked.body)
        if (asking := self._asking.get(question)) is None:
            asking = self._asking[question] = self._tasks.start(self._gathered(asked), name="a look-up in all workers")
            asking.add_done_callback(lambda _: self._asking.pop(question, None))
        return await asyncio.shield(asking)

    async def _gathered(self, asked: messages.AskAll) -> list[messages.Reply]:
        number, timeout_s = self._drains.number(), messages.patience_s(asked.method)

        async def ask(slot: Slot) -> messages.Reply:
            reply = messages.NO_ANSWER if slot.child is None else await slot.child.ask(asked, timeout_s)
            self._drains.heard(number, asked, reply)
            return reply

        return await asyncio.gather(*(ask(slot) for slot in self.slots.all))

    def _tell(self, message: messages.Told) -> None:
        """All workers, those that start included."""
        for child in self.slots.children:
            child.tell(message)

    # -- reloading -----------------------------------------------------------------------------------------------

    async def reload(self, cause: str) -> Reloaded:
        """See Reloader: all workers serve the configuration as it is now, or none does. While they start it waits."""
        await self._settled.wait()
        await self._takeover.settled()  # see Held: a reload of what is about to be replaced would be lost
        async with self._one:
            if self._ending.is_set():
                return about_to_end(self._reloading.number, cause)
            self._notifier.reloading()
            try:
                done = await self._reloading.reload()
            except ConfigError as error:
                done = Reloaded(False, self._reloading.number, tuple(error.problems))
            else:
                self._watch_or_not()
                self._drains.keep(self._reloading.config.llms)
            self._reload_ok = done.ok
            self._upkeep.reloaded(result_of(done))
            self._tell(messages.Outcome(done.ok))
            self._notifier.ready()
        report(done, cause, self._source.name)
        return done

    def stop(self) -> None:
        """See Reloader."""
        self._watch.stop()

    def _watch_or_not(self) -> None:
        if self._reloading.config.server.watch and not self._ending.is_set():
            self._watch.start()
        else:
            self._watch.stop()


_Question = tuple[str, str, tuple[tuple[str, str], ...], bytes]


def _metering(workers: Sequence[str]) -> tuple[Path, Metering]:
    """
    Where the *workers* keep what all read, and our own part of it.

    It is ours alone (0700), and in memory where there is such a place, and room for all. CannotBegin when nowhere is.
    """
    reasons: list[str] = []
    for where in [*([_MEMORY] if _MEMORY.is_dir() else []), Path(tempfile.gettempdir())]:
        try:
            directory = Path(tempfile.mkdtemp(prefix="llmproxy-", dir=where))
            try:
                for each in workers:
                    zero_gauges(directory, each)  # it has its size from now on: no worker finds the place full
                return directory, Metering.of_parent(directory)
            except BaseException:
                shutil.rmtree(directory, ignore_errors=True)
                raise
        except OSError as error:
            reasons.append(f"{where}: {error.strerror or error}")
    raise CannotBegin([Problem("", f"there is no place for what the workers count ({'; '.join(reasons)})")])
