"""
A new version takes over: the one that runs starts it on its own sockets, and ends once the new one serves.

Whatever becomes of the new one before that, the old one serves on as if nothing had been.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import msgspec

from llmproxy_core.tasks import Tasks
from llmproxy_server.log_events import get_logger
from llmproxy_server.process.inherited import Inherited
from llmproxy_server.process.notify import Notifier
from llmproxy_server.process.predecessor import READY, RELIEVED, VARIABLE, HandedDown, LastWords, Place
from llmproxy_server.process.spawn import ChildProcess
from llmproxy_server.reload import Reloaded, Reloader, about_to_end

_log = get_logger()
READY_S = 30.0
"""How long the new version may take until it serves."""
GIVE_UP_S = 5.0
"""How long one that took longer may take to end, before it is killed."""
_ENDS = "the process is about to end"
_INIT = 1
"""The id of a container's first process: what ends it ends all others."""


class Successor:
    """The new version, as the old one sees it."""

    def __init__(self, process: ChildProcess, channel: socket.socket) -> None:
        self.process = process
        self.serves = False
        """It has said so."""
        self._channel = channel
        channel.setblocking(False)

    async def is_ready(self) -> bool:
        """Whether it serves, once that is known: False when it has ended before."""
        try:
            self.serves = await asyncio.get_running_loop().sock_recv(self._channel, 1) == READY
        except ConnectionError:
            self.serves = False
        return self.serves

    def relieve_us(self, drains: Mapping[str, bool]) -> None:
        """It is on its own from now on. *drains*: the LLMs that were drained, or restored, since it was started."""
        with suppress(OSError):  # its end shows elsewhere
            self._channel.send(RELIEVED + (msgspec.json.encode(LastWords(dict(drains))) if drains else b""))

    async def ended(self) -> int:
        """Its exit code, negative for a signal."""
        return await asyncio.shield(self.process.ended)

    def close(self) -> None:
        self._channel.close()


Start = Callable[[Inherited], Successor]
"""Starts a new version, which is handed down this. OSError: it cannot."""


class Takeover:
    """Hands over to a new version, when it is asked to. One at a time."""

    def __init__(
        self,
        given: Callable[[], Inherited | None],
        relieved: Callable[[], object],
        *,
        drained: Callable[[], Iterable[str]],
        notifier: Notifier,
        tasks: Tasks,
        start: Start | None = None,
        ready_s: float = READY_S,
    ) -> None:
        """
        *given* gives what is handed down, all that listens here first; None while this process does not serve yet.
        *relieved* is called when the new version serves, and has this process drain and end. *drained* gives the LLMs
        that are out of service now. *start* None: this process's own command line.
        """
        self._given = given
        self._relieved = relieved
        self._drained = drained
        self._notifier = notifier
        self._tasks = tasks
        self._start = start_successor if start is None else start
        self._ready_s = ready_s
        self._attempt: asyncio.Task[None] | None = None
        self._successor: Successor | None = None
        self._stopping = False
        self.is_over = False
        """Whether a new version has taken over."""

    def begin(self) -> None:
        """Start a new version, and let it take over when it serves. The log says what comes of it."""
        if self._stopping or self.is_over:
            _log.info("no new version is started: the process is about to end")
        elif self._attempt is not None:
            _log.info("no new version is started: one is starting")
        elif os.getpid() == _INIT:
            _log.error("no new version can take over from the first process of a container, whose end is everything's")
        elif (given := self._given()) is None:
            _log.error("no new version is started: this one does not serve yet")
        else:
            self._attempt = self._tasks.start(self._try(given), name="a new version")

    def stop(self) -> None:
        """This process is to end, and a new version that does not serve yet ends with it."""
        self._stopping = True
        if self._successor is not None:
            self._successor.process.terminate()

    async def settled(self) -> bool:
        """Whether a new version has taken over; one that is starting is waited for."""
        if self._attempt is not None:
            await asyncio.wait([self._attempt])
        return self.is_over

    async def over(self, timeout_s: float) -> None:
        """Wait for a new version that ends with this process, at most so long."""
        if self._attempt is not None:
            await asyncio.wait([self._attempt], timeout=timeout_s)

    async def _try(self, given: Inherited) -> None:
        try:
            problem = await self._outcome(given)
        finally:
            self._attempt = None
        if self._stopping and not self.is_over:
            _log.info("the new version has not taken over: both end")
        elif problem:
            _log.error("the new version has not taken over: this one serves on", reason=problem)

    async def _outcome(self, given: Inherited) -> str:
        """Why the new version has not taken over; nothing when it has."""
        if self._stopping:
            return _ENDS
        try:
            successor = self._start(given)
        except OSError as error:
            return f"it cannot be started: {error.strerror or error}"
        self._successor = successor
        _log.info("a new version is started, and is to take over", successor=successor.process.pid)
        try:
            if problem := await self._awaited(successor):
                return problem
            self._hand_over(successor, given.drained)
            return ""
        finally:
            self._successor = None
            if not successor.serves:
                successor.process.kill()
            successor.close()

    async def _awaited(self, successor: Successor) -> str:
        """What keeps it from serving; nothing when it serves."""
        try:
            async with asyncio.timeout(self._ready_s):
                if not await successor.is_ready():
                    return f"it ended before it served, with status {await successor.ended()}"
        except TimeoutError:
            # It may serve at this moment, so it is to drain. With its own descriptors nothing that waits is lost.
            successor.process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(GIVE_UP_S):
                    await successor.ended()
            return f"it did not serve within {self._ready_s:g} s"
        if self._stopping:
            # It was told to end in the moment that it began to serve. What it has accepted by now it drains by its own
            # clocks, also when this process is gone before.
            await successor.ended()
            return _ENDS
        return ""

    def _hand_over(self, successor: Successor, drained: Iterable[str]) -> None:
        self.is_over = True
        # The manager hears it from us, whom it listens to, before the new one may speak.
        self._notifier.handed_over(successor.process.pid)
        before, now = set(drained), set(self._drained())
        successor.relieve_us({name: name in now for name in before ^ now})
        _log.info("a new version has taken over: this one drains and ends", successor=successor.process.pid)
        self._relieved()


class Held:
    """
    See Reloader: a reload waits while a new version starts, and is refused when that has taken over.

    The new one may have read the files before they were changed: what this one reloaded then would be lost unsaid.
    """

    def __init__(self, reloader: Reloader, takeover: Takeover, number: Callable[[], int]) -> None:
        """*number* is the generation that is served."""
        self._reloader = reloader
        self._takeover = takeover
        self._number = number

    async def reload(self, cause: str) -> Reloaded:
        if await self._takeover.settled():
            return about_to_end(self._number(), cause)
        return await self._reloader.reload(cause)

    def stop(self) -> None:
        self._reloader.stop()


def start_successor(given: Inherited) -> Successor:
    """
    See Start: this process's own command line, directory and environment.

    What is installed at the path of the interpreter now is what runs.
    """
    assert given.listening is not None
    ours, theirs = socket.socketpair()
    with theirs:
        own = None if given.own is None else Place.of(given.own)
        said = HandedDown(theirs.fileno(), Place.of(given.listening), own, given.drained)
        sockets = [*given.listening.sockets, *([] if given.own is None else given.own.sockets)]
        # The watchdog waits for whoever is the main process: the id in the variable would be ours.
        env = {name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"}
        env[VARIABLE] = msgspec.json.encode(said).decode()
        try:
            process = subprocess.Popen(  # noqa: S603 - the command that this process is
                [sys.executable, *sys.orig_argv[1:]],
                pass_fds=[theirs.fileno(), *(it.fileno() for it in sockets)],
                env=env,
            )
        except BaseException:
            ours.close()
            raise
    return Successor(ChildProcess(process, name=f"successor {process.pid}"), ours)
