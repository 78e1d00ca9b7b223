"""A worker as its parent sees it."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from llmproxy_core.errors import Problem
from llmproxy_server.process import messages
from llmproxy_server.process.channel import Channel, to_worker
from llmproxy_server.process.messages import NO_ANSWER, Ask, Begin, Reply, ToParent

T = TypeVar("T")
Heard = Callable[["Child", messages.AskAll | messages.Reload], None]
"""Told of what a worker asks of its parent."""


class Child:
    """One worker's process, from its start to its end. Another one takes its slot then."""

    def __init__(
        self, slot: str, process: asyncio.subprocess.Process, channel: Channel[ToParent], heard: Heard
    ) -> None:
        self.slot = slot
        self.process = process
        self.problems: list[Problem] = []
        """Why it could not begin."""
        self._channel = channel
        self._heard = heard
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Reply]] = {}
        self._prepared: dict[int, asyncio.Future[list[Problem] | None]] = {}
        self._ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(cls, begin: Begin, sockets: Sequence[socket.socket], heard: Heard) -> Child:
        """Start a process on *sockets*, whose descriptors *begin* names. OSError when none can be started."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = (theirs.fileno(), *(it.fileno() for it in sockets))
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "llmproxy_server.process.worker",
                    str(theirs.fileno()),
                    pass_fds=descriptors,
                    stdin=asyncio.subprocess.DEVNULL,
                )
            except BaseException:
                ours.close()
                raise
        child = cls(begin.slot, process, await to_worker(ours), heard)
        child._channel.send(begin)
        return child

    async def listen(self) -> None:
        """Hear what the worker says until it is gone; its process has ended then."""
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, messages.Ready):
                _resolve(self._ready, True)
            elif isinstance(message, messages.Failed):
                self.problems = [it.problem() for it in message.problems]
            elif isinstance(message, messages.Prepared):
                _resolve(self._prepared.get(message.number), [it.problem() for it in message.problems])
            elif isinstance(message, messages.Answer):
                _resolve(self._answers.get(message.id), message.reply)
            else:
                self._heard(self, message)
        for waiting in self._prepared.values():
            _resolve(waiting, None)
        for asked in self._answers.values():
            _resolve(asked, NO_ANSWER)
        self._channel.close()
        await self.process.wait()
        _resolve(self._ready, False)

    async def ready(self) -> bool:
        """Whether it serves, once that is known: False when it ended before it did."""
        return await asyncio.shield(self._ready)

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    @property
    def serves(self) -> bool:
        return self.is_running and self._ready.done() and self._ready.result()

    # -- questions -----------------------------------------------------------------------------------------------

    async def prepare(self, number: int, snapshot: bytes, timeout_s: float) -> list[Problem] | None:
        """What stands against serving *snapshot*; None when the worker ended, or said nothing in time."""
        waiting: asyncio.Future[list[Problem] | None] = asyncio.get_running_loop().create_future()
        self._prepared[number] = waiting
        try:
            self._channel.send(messages.Prepare(number, snapshot))
            async with asyncio.timeout(timeout_s):
                return await waiting
        except TimeoutError:
            return None
        finally:
            del self._prepared[number]

    async def ask(self, asked: messages.AskAll, timeout_s: float) -> Reply:
        """Its own answer; NO_ANSWER when there is none in time."""
        id = next(self._numbers)
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._answers[id] = waiting
        try:
            self._channel.send(Ask(id, asked.method, asked.path, asked.query, asked.headers, asked.body))
            async with asyncio.timeout(timeout_s):
                return await waiting
        except TimeoutError:
            return NO_ANSWER
        finally:
            del self._answers[id]

    def tell(self, message: messages.Told) -> None:
        """Send what is not answered."""
        self._channel.send(message)

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self.process.kill()


def _resolve(waiting: asyncio.Future[T] | None, value: T) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(value)
