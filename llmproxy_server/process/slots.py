"""The workers' places: each has a process, and another one when that dies."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import attrs

from llmproxy_core.errors import Problem
from llmproxy_core.tasks import Tasks
from llmproxy_server.log_events import get_logger
from llmproxy_server.metrics.upkeep import Upkeep
from llmproxy_server.process import messages
from llmproxy_server.process.child import Child, Heard
from llmproxy_server.process.spawn import Spawn

_log = get_logger()
SHORT_LIFE_S = 1.0
"""A worker that dies before it has served so long has failed: after the second in a row its slot waits, longer each
time. One that dies later is replaced at once, however often."""
FIRST_PAUSE_S, MOST_PAUSE_S = 0.1, 10.0


class Pulse:
    """Wakes all who wait, each time."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    async def wait(self) -> None:
        await self._next.wait()

    def beat(self) -> None:
        self._next.set()
        self._next = asyncio.Event()


@attrs.define
class Slot:
    """A worker's place: its sockets, and the process that has it now."""

    name: str
    listening: Sequence[socket.socket]
    own: Sequence[socket.socket] | None
    child: Child | None = None
    failures: int = 0
    """How many of its workers failed, one after the other."""

    descriptors: Sequence[int] = attrs.field(init=False)
    """Of its sockets, by whose numbers its workers know them; also when they are closed here."""

    def __attrs_post_init__(self) -> None:
        self.descriptors = [it.fileno() for it in self.sockets]

    @property
    def sockets(self) -> Sequence[socket.socket]:
        return (*self.listening, *(self.own or ()))


class Slots:
    """Keeps a worker in every slot, until it is told to stop."""

    def __init__(
        self,
        slots: Sequence[Slot],
        spawn: Spawn,
        begin: Callable[[Slot], messages.Begin],
        *,
        heard: Heard,
        gone: Callable[[Slot], None],
        upkeep: Upkeep,
        tasks: Tasks,
    ) -> None:
        """
        *begin* gives what the worker of a slot is to serve now; it is asked when its process is there. *gone* is told
        of a slot whose worker has ended, before another one has it.
        """
        self.all = list(slots)
        self._spawn = spawn
        self._begin = begin
        self._heard = heard
        self._gone = gone
        self._upkeep = upkeep
        self._tasks = tasks
        self._stopping = asyncio.Event()
        self._relieved = False
        self._begun = False
        self._cannot_start: list[Problem] = []
        self._replaced = Pulse()
        self._keeping: list[asyncio.Task[None]] = []

    @property
    def children(self) -> list[Child]:
        """Those that run, whether they serve yet or not."""
        return [child for child in self._children() if child.is_running]

    def _children(self) -> Iterator[Child]:
        return (slot.child for slot in self.all if slot.child is not None)

    # -- its life ------------------------------------------------------------------------------------------------

    async def start(self) -> bool:
        """Start all workers; whether all serve. False as soon as one has ended before it did, or when stopped."""
        for slot in self.all:
            if self._stopping.is_set():
                return False
            try:
                await self._start(slot)
            except OSError as error:
                self._cannot_start = [Problem("", f"a worker cannot be started: {error.strerror or error}")]
                return False
            self._keeping.append(self._tasks.start(self._keep(slot), name="a slot"))
        ready = self._tasks.start(self._all_ready(), name="all workers begin")
        stopping = self._tasks.start(self._wait_for_stop(), name="the end")
        await asyncio.wait([ready, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        self._begun = ready.done() and ready.result()
        ready.cancel()
        return self._begun

    async def _all_ready(self) -> bool:
        for ready in asyncio.as_completed([child.ready() for child in self._children()]):
            if not await ready:
                return False
        return True

    async def _wait_for_stop(self) -> bool:
        return await self._stopping.wait()

    @property
    def problems(self) -> list[Problem]:
        """Why workers could not begin, each reason once."""
        return list(dict.fromkeys(it for child in self._children() for it in child.problems)) + self._cannot_start

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    async def successor(self, child: Child, timeout_s: float) -> bool:
        """Whether another worker serves in the place of *child*, which is gone, within *timeout_s*."""
        slot = next(it for it in self.all if it.name == child.slot)
        try:
            async with asyncio.timeout(timeout_s):
                while slot.child is child and not self._stopping.is_set():
                    await self._replaced.wait()
                return slot.child is not None and slot.child is not child and await slot.child.ready()
        except TimeoutError:
            return False

    def stop(self, *, relieved: bool = False) -> None:
        """
        Let all drain and end; none is replaced any more. Our sockets are closed: the workers have their own.

        *relieved*: others accept on them already.
        """
        self._relieved = self._relieved or relieved
        self._stopping.set()
        self._replaced.beat()
        for child in self._children():
            child.tell(messages.Stop(self._relieved))
        for slot in self.all:
            for it in slot.sockets:
                it.close()

    def kill(self) -> None:
        """End all at once."""
        self._stopping.set()
        for child in self._children():
            child.process.kill()

    async def ended(self, timeout_s: float) -> None:
        """Wait until all have ended, at most so long."""
        if self._keeping:
            await asyncio.wait(self._keeping, timeout=timeout_s)

    # -- a slot --------------------------------------------------------------------------------------------------

    async def _start(self, slot: Slot) -> None:
        """A new process for *slot*."""
        child = await Child.start(slot.name, self._spawn, slot.descriptors, self._heard)
        # Nothing is awaited from here on: a configuration that is committed now reaches this worker in one way.
        child.begin(self._begin(slot))
        slot.child = child
        self._replaced.beat()
        if self._stopping.is_set():
            child.tell(messages.Stop(self._relieved))

    async def _keep(self, slot: Slot) -> None:
        """Listen to the worker of *slot*, and to those that take its place."""
        while (child := slot.child) is not None:
            counting = self._tasks.start(self._count_when_ready(child), name="a worker begins")
            await child.listen()
            counting.cancel()
            self._count()
            self._gone(slot)
            if self._stopping.is_set() or not (self._begun or child.ready_at_s is not None):
                return
            served_s = 0.0 if child.ready_at_s is None else time.monotonic() - child.ready_at_s
            slot.failures = slot.failures + 1 if served_s < SHORT_LIFE_S else 0
            pause_s = pause_after(slot.failures)
            self._mourn(slot, child, pause_s)
            if not await self._replace(slot, pause_s):
                return

    async def watch(self, slot: Slot, patience_s: float) -> None:
        """End the worker of *slot* whenever its event loop has not turned for so long; it is replaced then."""
        while not await self._stopped_within(patience_s / 2):
            child = slot.child
            if child is not None and child.serves and not await child.is_alive(patience_s) and child.is_running:
                _log.error("a worker is stuck, and is ended", worker=slot.name, silent_for_s=patience_s)
                child.process.kill()

    async def _count_when_ready(self, child: Child) -> None:
        await child.ready()
        self._count()

    def _count(self) -> None:
        self._upkeep.alive(sum(child.serves for child in self._children()))

    def _mourn(self, slot: Slot, child: Child, pause_s: float) -> None:
        code = child.process.ended.result()
        _log.error("a worker ended, and is replaced", worker=slot.name, code=code, in_s=round(pause_s, 1))
        for problem in child.problems:
            _log.error("why a worker could not begin", worker=slot.name, path=problem.path, problem=problem.message)

    async def _replace(self, slot: Slot, pause_s: float) -> bool:
        """Another worker for *slot*, after *pause_s* seconds; over and over where none can be started."""
        while not await self._stopped_within(pause_s):
            try:
                await self._start(slot)
            except OSError as error:
                _log.error("a worker cannot be started", worker=slot.name, reason=error.strerror)
                pause_s = MOST_PAUSE_S
            else:
                self._upkeep.restarted()
                return True
        return False

    async def _stopped_within(self, seconds: float) -> bool:
        if seconds and not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
        return self._stopping.is_set()


def pause_after(failures: int) -> float:
    """
    Seconds until the worker of a slot is replaced, where so many have failed in a row.

    >>> [pause_after(count) for count in (0, 1, 2, 3, 4, 100)]
    [0.0, 0.0, 0.1, 0.2, 0.4, 10.0]
    """
    return 0.0 if failures < 2 else min(FIRST_PAUSE_S * 2.0 ** min(failures - 2, 10), MOST_PAUSE_S)
