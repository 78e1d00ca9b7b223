"""A worker: a process that serves what its parent says, on sockets that its parent holds."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.headers import Headers
from llmproxy_core.plugins import Registry
from llmproxy_server import logs
from llmproxy_server.generation import Prepared
from llmproxy_server.log_events import get_logger
from llmproxy_server.metrics.metering import Metering
from llmproxy_server.process import messages
from llmproxy_server.process.channel import Channel, to_parent
from llmproxy_server.process.messages import Begin, Place, Reply, ToWorker
from llmproxy_server.process.said import read_reloaded
from llmproxy_server.reload import Reloaded, tell_health
from llmproxy_server.server import Server, loop_factory, settle_memory
from llmproxy_server.source import Snapshot, with_lines

_log = get_logger()
_GONE = Problem("", "the parent of the workers is gone: nothing can be reloaded")
EXIT_FAILED = 1
T = TypeVar("T")


class Worker:
    """One worker's life, from its first message to its end."""

    def __init__(self, channel: Channel[ToWorker]) -> None:
        self._channel = channel
        self._server: Server
        self._registry: Registry
        self._begin: Begin
        self._prepared: dict[int, Prepared] = {}
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._ending = asyncio.Event()

    async def run(self) -> int:
        """Serve until the parent says stop, or is gone, or somebody sends SIGTERM; gives the exit code."""
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
        self._server = server = Server(
            loaded.config,
            self._registry,
            listening=_sockets(begin.listening),
            own_listening=None if begin.own_listening is None else _sockets(begin.own_listening),
            reloader=self,
            fan_out=self,
            metering=Metering.of_worker(Path(begin.metrics), begin.slot),
            log=handler,
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._ending.set)
        try:
            await server.start()
        except ConfigError as error:
            raise ConfigError(with_lines(error.problems, loaded)) from error
        server.number = begin.number
        server.watch_loop()
        settle_memory()
        self._channel.send(messages.Ready())
        listening = server.tasks.start(self._listen(), name="messages of the parent")
        await self._ending.wait()
        _log.info("draining", worker=begin.slot, calls=server.admission.in_flight)
        listening.cancel()
        await server.stop()

    # -- what the parent says ------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, messages.Stop):
                self._ending.set()
            elif isinstance(message, messages.Prepare):
                await self._prepare(message)  # in order: what is committed next is built by then
            elif isinstance(message, messages.Commit):
                self._commit(message)
            elif isinstance(message, messages.Abort):
                await self._discard(message.number)
            elif isinstance(message, messages.Outcome):
                tell_health(self._server.health, Reloaded(message.ok, self._server.number))
            elif isinstance(message, messages.Ask):
                _ = self._server.tasks.start(self._answer(message), name="an endpoint, for another worker")
            elif isinstance(message, messages.Answers | messages.ReloadOver):
                self._heard(message.id, message)
        if not self._ending.is_set():
            _log.error("the parent is gone: this worker drains and ends", worker=self._begin.slot)
            shutil.rmtree(self._begin.metrics, ignore_errors=True)  # what the parent would have done
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)
        self._ending.set()

    async def _prepare(self, message: messages.Prepare) -> None:
        problems: Sequence[Problem] = ()
        try:
            loaded = Snapshot.from_bytes(message.snapshot).load(self._registry)
            try:
                self._prepared[message.number] = await self._server.prepare(loaded.config)
            except ConfigError as error:
                problems = with_lines(error.problems, loaded)
        except ConfigError as error:
            problems = error.problems
        except Exception as bug:  # noqa: BLE001 - a plugin's code runs here; the parent says it
            _log.error("a configuration could not be prepared", worker=self._begin.slot, exc_info=bug)
            problems = [
                Problem("", f"could not be prepared ({type(bug).__name__}): a mistake in llmproxy or in a plugin")
            ]
        self._channel.send(messages.Prepared(message.number, [Place.of(it) for it in problems]))

    def _commit(self, message: messages.Commit) -> None:
        if (prepared := self._prepared.pop(message.number, None)) is not None:
            self._server.commit(prepared)
            self._server.number = message.generation

    async def _discard(self, number: int) -> None:
        if (prepared := self._prepared.pop(number, None)) is not None:
            await prepared.discard()

    async def _answer(self, asked: messages.Ask) -> None:
        headers = Headers([(name, value) for name, value in asked.headers])
        try:
            reply = await self._server.ask(asked.method, asked.path, asked.query, headers, asked.body)
        except Exception as error:  # noqa: BLE001 - whatever the endpoint raises, who asked is answered
            _log.error("an endpoint failed", worker=self._begin.slot, path=asked.path, exc_info=error)
            reply = EndpointReply(b"{}", status=500)
        self._channel.send(messages.Answer(asked.id, Reply.of(reply)))

    # -- what is asked of the parent -----------------------------------------------------------------------------

    async def everywhere(self, endpoint: Endpoint, request: EndpointRequest) -> EndpointReply:
        """See FanOut: all workers' answers. Where the parent is gone, our own alone."""
        assert endpoint.merge is not None
        id = next(self._numbers)
        heard = await self._told(
            id,
            messages.AskAll(id, request.method, request.path, request.query, list(request.headers), request.body),
            messages.Answers,
        )
        if heard is None:
            return await endpoint.handle(request)
        return endpoint.merge([it.reply() for it in heard.replies])

    async def reload(self, cause: str) -> Reloaded:
        """See Reloader: the parent reloads all workers, or none."""
        id = next(self._numbers)
        heard = await self._told(id, messages.Reload(id, cause), messages.ReloadOver)
        if heard is None:
            return Reloaded(False, self._server.number, (_GONE,), busy=True)
        return read_reloaded(heard.said)

    def stop(self) -> None:
        """Reloads are the parent's."""

    async def _told(self, id: int, question: messages.Told, answer: type[T]) -> T | None:
        if self._ending.is_set():
            return None
        waiting: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[id] = waiting
        try:
            self._channel.send(question)
            found = await waiting
        finally:
            del self._waiting[id]
        return found if isinstance(found, answer) else None

    def _heard(self, id: int, message: object) -> None:
        waiting = self._waiting.get(id)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)


def _sockets(descriptors: Sequence[int]) -> list[socket.socket]:
    return [socket.socket(fileno=it) for it in descriptors]


def main() -> int:
    """Of `python -m llmproxy_server.process.worker DESCRIPTOR`, which only the parent calls."""
    # A terminal sends these to all of its processes: what they mean is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
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
