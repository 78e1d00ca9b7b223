"""A worker: a process that serves what its parent says, on sockets that its parent holds."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_core.errors import ConfigError, PayloadTooLarge, Problem, raise_unless_bug
from llmproxy_core.headers import Headers
from llmproxy_core.plugins import Registry
from llmproxy_server import logs
from llmproxy_server.banner import banner
from llmproxy_server.generation import Prepared
from llmproxy_server.installed import VERSION
from llmproxy_server.loader import Loaded
from llmproxy_server.log_events import get_logger
from llmproxy_server.metrics.metering import Metering
from llmproxy_server.process import messages
from llmproxy_server.process.channel import Channel, to_parent
from llmproxy_server.process.messages import Begin, Place, Reply, ToWorker
from llmproxy_server.process.said import read_reloaded
from llmproxy_server.process.spawn import HELD_BACK
from llmproxy_server.reload import Reloaded, read_aside, tell_health
from llmproxy_server.runtime import loop_factory, settle_memory_once, take_short_turns
from llmproxy_server.server import Server
from llmproxy_server.source import Snapshot, with_lines

_log = get_logger()
_GONE = Problem("", "the parent of the workers is gone: nothing can be reloaded")
_SLACK_S = 0.3
"""How much longer than for a worker is waited for the parent, which may be stuck itself."""
EXIT_FAILED = 1
T = TypeVar("T")


class Worker:
    """One worker's life, from its first message to its end."""

    def __init__(self, channel: Channel[ToWorker]) -> None:
        self._channel = channel
        self._server: Server
        self._registry: Registry
        self._begin: Begin
        self._changes: asyncio.Queue[messages.Prepare | messages.Commit | messages.Abort] = asyncio.Queue()
        self._prepared: dict[int, Prepared] = {}
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._ending = asyncio.Event()

    async def run(self) -> int:
        """Serve until the parent says stop, or is gone; gives the exit code."""
        begin = await self._channel.receive()
        if not isinstance(begin, Begin):
            return EXIT_FAILED
        self._begin = begin
        try:
            await self._serve()
        except ConfigError as error:
            self._channel.send(messages.Failed([Place.of(it) for it in error.problems]))
            await self._channel.flush()
            return EXIT_FAILED
        return 0

    async def _serve(self) -> None:
        begin = self._begin
        self._registry = Registry.load()
        loaded = Snapshot.from_bytes(begin.snapshot).load(self._registry)
        handler = logs.configure(loaded.config)
        handler.addFilter(Numbered(begin.slot))
        first = loaded if begin.first == begin.snapshot else self._first()
        self._server = server = Server(
            loaded.config,
            self._registry,
            running=first.config.server,
            listening=_sockets(begin.listening),
            own_listening=None if begin.own_listening is None else _sockets(begin.own_listening),
            reloader=self,
            fan_out=self,
            metering=Metering.of_worker(Path(begin.metrics), begin.slot),
            log=handler,
        )
        server.health.drained.begin(begin.drained)
        try:
            await server.start()
        except ConfigError as error:
            raise ConfigError(with_lines(error.problems, loaded)) from error
        server.number = begin.number
        server.life.sockets_stay = begin.handed_down
        tell_health(server.health, Reloaded(begin.reload_ok, begin.number))
        greeting = self._greeting(loaded) if begin.greets else ""
        server.watch_loop()
        take_short_turns()
        settle_memory_once(server.life.has_all)
        self._channel.send(messages.Ready(greeting))
        hearing = [
            server.tasks.start(self._listen(), name="messages of the parent"),
            server.tasks.start(self._change(), name="reloads"),
        ]
        await self._ending.wait()
        _log.info("draining", calls=server.admission.in_flight)
        for task in hearing:
            task.cancel()
        await asyncio.gather(*hearing, return_exceptions=True)
        for number in list(self._prepared):
            await self._discard(number)
        await server.stop()

    def _first(self) -> Loaded:
        """What the parent began with, for what only a restart changes. Its certificate may be gone by now."""
        return Snapshot.from_bytes(self._begin.first).load(self._registry, certificate=False)

    def _greeting(self, loaded: Loaded) -> str:
        server = self._server
        lines = banner(
            loaded,
            server.gateway,
            url=server.url,
            own_url=server.own_url,
            version=VERSION,
            handed_down=self._begin.handed_down,
        )
        return "\n".join(lines)

    # -- what the parent says ------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, messages.Stop):
                if message.relieved:
                    self._server.relieve()
                self._end()
            elif isinstance(message, messages.Prepare | messages.Commit | messages.Abort):
                self._changes.put_nowait(message)
            elif isinstance(message, messages.Outcome):
                tell_health(self._server.health, Reloaded(message.ok, self._server.number))
            elif isinstance(message, messages.Drain):
                self._server.health.drained.change(message.llm, message.drained)
            elif isinstance(message, messages.Ask):
                _ = self._server.tasks.start(self._answer(message), name="an endpoint, for another worker")
            elif isinstance(message, messages.Answers | messages.ReloadOver):
                self._heard(message.id, message)
        if not self._ending.is_set():
            _log.error("the parent is gone: this worker drains and ends")
            shutil.rmtree(self._begin.metrics, ignore_errors=True)  # what the parent would have done
        self._end()

    def _end(self) -> None:
        self._ending.set()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)

    async def _change(self) -> None:
        """Do what reloads consist of, in order, while other messages are answered."""
        while True:
            message = await self._changes.get()
            if isinstance(message, messages.Prepare):
                await self._prepare(message)
            elif isinstance(message, messages.Commit):
                self._commit(message)
            else:
                await self._discard(message.number)

    async def _prepare(self, message: messages.Prepare) -> None:
        problems: Sequence[Problem] = ()
        try:
            loaded = await read_aside(partial(self._load, message.snapshot))
            try:
                self._prepared[message.number] = await self._server.prepare(loaded.config)
            except ConfigError as error:
                problems = with_lines(error.problems, loaded)
        except ConfigError as error:
            problems = error.problems
        except BaseException as bug:  # noqa: BLE001 - a plugin's code runs here; the parent says it
            raise_unless_bug(bug)
            _log.error("a configuration could not be prepared", exc_info=bug)
            problems = [
                Problem("", f"could not be prepared ({type(bug).__name__}): a mistake in llmproxy or in a plugin")
            ]
        self._channel.send(messages.Prepared(message.number, [Place.of(it) for it in problems]))

    def _load(self, snapshot: bytes) -> Loaded:
        return Snapshot.from_bytes(snapshot).load(self._registry)

    def _commit(self, message: messages.Commit) -> None:
        if (prepared := self._prepared.pop(message.number, None)) is not None:
            self._server.commit(prepared)
            self._server.number = message.generation
        self._channel.send(messages.Committed(message.number))

    async def _discard(self, number: int) -> None:
        if (prepared := self._prepared.pop(number, None)) is not None:
            await prepared.discard()

    async def _answer(self, asked: messages.Ask) -> None:
        headers = Headers([(name, value) for name, value in asked.headers])
        try:
            reply = await self._server.ask(asked.method, asked.path, asked.query, headers, asked.body)
        except BaseException as error:  # noqa: BLE001 - whatever the endpoint raises, who asked is answered
            raise_unless_bug(error)
            _log.error("an endpoint failed", path=asked.path, exc_info=error)
            reply = EndpointReply(b"{}", status=500)
        if not self._channel.send(messages.Answer(asked.id, Reply.of(reply))):
            self._channel.send(messages.Answer(asked.id, messages.NO_ANSWER))

    # -- what is asked of the parent -----------------------------------------------------------------------------

    async def everywhere(self, endpoint: Endpoint, request: EndpointRequest) -> EndpointReply:
        """
        See FanOut: all workers' answers.

        Where the parent is gone or gives no answer, our own, with the others' missing. PayloadTooLarge: the request is
        too long to be passed on.
        """
        assert endpoint.merge is not None
        id = next(self._numbers)
        asked = messages.AskAll(id, request.method, request.path, request.query, list(request.headers), request.body)
        timeout_s = messages.patience_s(request.method) + _SLACK_S
        heard = await self._told(id, asked, messages.Answers, timeout_s)
        if heard is not None:
            return endpoint.merge([it.reply() for it in heard.replies])
        replies = [messages.NO_ANSWER.reply() for _ in range(self._begin.workers)]
        replies[int(self._begin.slot) - 1] = await endpoint.handle(request)
        return endpoint.merge(replies)

    async def reload(self, cause: str) -> Reloaded:
        """See Reloader: the parent reloads all workers, or none."""
        id = next(self._numbers)
        heard = await self._told(id, messages.Reload(id, cause), messages.ReloadOver, None)
        if heard is None:
            return Reloaded(False, self._server.number, (_GONE,), busy=True)
        return read_reloaded(heard.said)

    def stop(self) -> None:
        """Reloads are the parent's."""

    async def _told(self, id: int, question: messages.Told, answer: type[T], timeout_s: float | None) -> T | None:
        """The parent's answer; None when it is gone, or silent for so long."""
        if self._ending.is_set():
            return None
        waiting: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[id] = waiting
        try:
            if not self._channel.send(question):
                raise PayloadTooLarge("Too long to be passed on to the other workers")
            async with asyncio.timeout(timeout_s):
                found = await waiting
        except TimeoutError:
            return None
        finally:
            del self._waiting[id]
        return found if isinstance(found, answer) else None

    def _heard(self, id: int, message: object) -> None:
        waiting = self._waiting.get(id)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)


class Numbered(logging.Filter):
    """Adds the worker's number to what the process logs; the lines of calls, which are no records, have none."""

    def __init__(self, number: str) -> None:
        super().__init__()
        self._number = number

    def filter(self, record: logging.LogRecord) -> bool:
        record.fields = {"worker": self._number, **getattr(record, "fields", {})}
        return True


def _sockets(descriptors: Sequence[int]) -> list[socket.socket]:
    """Those that were handed down, and that no process of a plugin's gets."""
    found = [socket.socket(fileno=it) for it in descriptors]
    for each in found:
        each.set_inheritable(False)
    return found


def _hear_no_signals() -> None:
    """
    What a terminal or a service manager sends to all processes is the parent's to understand.

    They are handled, not ignored: what is ignored stays so in the processes that plugins start.
    """
    for number in HELD_BACK:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)


def main() -> int:
    """Of `python -m llmproxy_server.process.worker DESCRIPTOR`, which only the parent calls."""
    _hear_no_signals()
    connected = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(connected.fileno(), False)

    async def run() -> int:
        return await Worker(await to_parent(connected)).run()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            return runner.run(run())
        finally:
            logs.flush()


if __name__ == "__main__":
    sys.exit(main())
