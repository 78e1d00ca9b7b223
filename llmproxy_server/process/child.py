"""A worker as its parent sees it."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from llmproxy_core.errors import Problem
from llmproxy_server.process import messages
from llmproxy_server.process.channel import Channel, to_worker
from llmproxy_server.process.messages import NO_ANSWER, Ask, Begin, Reply, ToParent
from llmproxy_server.process.spawn import Process, Spawn

T = TypeVar("T")
Heard = Callable[["Child", messages.AskAll | messages.Reload], None]
"""Told of what a worker asks of its parent."""
MOST_UNANSWERED = 16
"""Questions that a worker may leave open; others wait until it answers, and not in its channel."""
LAST_WORDS_S = 0.5
"""How long a process that has ended may still be heard: a process of a plugin's may hold its channel open."""
GOODBYE_S = 5.0
"""How long a process may take to end once it has nothing more to say."""


class Child:
    """One worker's process, from its start to its end. Another one takes its slot then."""

    def __init__(self, slot: str, process: Process, channel: Channel[ToParent], heard: Heard) -> None:
        self.slot = slot
        self.process = process
        self.problems: list[Problem] = []
        """Why it could not begin."""
        self.greeting = ""
        """What it wants people to be told when it serves."""
        self.ready_at_s: float | None = None
        """When it began to serve (time.monotonic); None: it has not."""
        self._channel = channel
        self._heard = heard
        self._over = False
        self._numbers = itertools.count(1)
        self._places = asyncio.Semaphore(MOST_UNANSWERED)
        self._answers: dict[int, asyncio.Future[Reply]] = {}
        self._prepared: dict[int, asyncio.Future[list[Problem] | None]] = {}
        self._committed: dict[int, asyncio.Future[None]] = {}
        self._ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(cls, slot: str, spawn: Spawn, descriptors: Sequence[int], heard: Heard) -> Child:
        """
        Start a process that has *descriptors*; it waits for `begin`. OSError when none can be started.

        The process is there before anything is awaited.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = spawn(theirs.fileno(), descriptors)
            except BaseException:
                ours.close()
                raise
        return cls(slot, process, await to_worker(ours), heard)

    def begin(self, message: Begin) -> None:
        """Have it serve."""
        self._channel.send(message)

    async def listen(self) -> None:
        """Hear what the worker says until it is gone; its process has ended then."""
        loop = asyncio.get_running_loop()
        self.process.ended.add_done_callback(lambda _: loop.call_later(LAST_WORDS_S, self._channel.close))
        while (message := await self._channel.receive()) is not None:
            self._hear(message)
        self._over = True
        for waiting in self._prepared.values():
            _resolve(waiting, None)
        for committed in self._committed.values():
            _resolve(committed, None)
        for asked in self._answers.values():
            _resolve(asked, NO_ANSWER)
        self._channel.close()
        impatient = loop.call_later(GOODBYE_S, self.process.kill)
        await asyncio.shield(self.process.ended)
        impatient.cancel()
        _resolve(self._ready, False)

    def _hear(self, message: ToParent) -> None:
        if isinstance(message, messages.Ready):
            self.ready_at_s, self.greeting = time.monotonic(), message.greeting
            _resolve(self._ready, True)
        elif isinstance(message, messages.Failed):
            self.problems = [it.problem() for it in message.problems]
        elif isinstance(message, messages.Prepared):
            _resolve(self._prepared.pop(message.number, None), [it.problem() for it in message.problems])
        elif isinstance(message, messages.Committed):
            _resolve(self._committed.pop(message.number, None), None)
        elif isinstance(message, messages.Answer):
            _resolve(self._answers.pop(message.id, None), message.reply)
        else:
            self._heard(self, message)

    async def ready(self) -> bool:
        """Whether it serves, once that is known: False when it ended before it did."""
        return await asyncio.shield(self._ready)

    @property
    def is_running(self) -> bool:
        return not (self._over or self.process.ended.done())

    @property
    def serves(self) -> bool:
        return self.is_running and self.ready_at_s is not None

    # -- questions -----------------------------------------------------------------------------------------------

    async def prepare(self, number: int, snapshot: bytes, timeout_s: float) -> list[Problem] | None:
        """What stands against serving *snapshot*; None when the worker ended, or said nothing in time."""
        if self._prepared or not self.is_running:
            return None  # it has not even answered the last time
        waiting: asyncio.Future[list[Problem] | None] = asyncio.get_running_loop().create_future()
        self._prepared[number] = waiting
        self._channel.send(messages.Prepare(number, snapshot))
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting
        except TimeoutError:
            return None

    def commit(self, number: int, generation: int) -> asyncio.Future[None]:
        """Have it serve what it has prepared; done once it does, or is gone."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.is_running and self._channel.send(messages.Commit(number, generation)):
            self._committed[number] = waiting
        else:
            waiting.set_result(None)
        return waiting

    async def ask(self, asked: messages.AskAll, timeout_s: float) -> Reply:
        """Its own answer; NO_ANSWER when there is none in time."""
        if not self.serves:
            return NO_ANSWER
        try:
            async with asyncio.timeout(timeout_s), self._places:
                return await self._answer(asked)
        except TimeoutError:
            return NO_ANSWER

    async def _answer(self, asked: messages.AskAll) -> Reply:
        if not self.is_running:
            return NO_ANSWER
        id = next(self._numbers)
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._answers[id] = waiting
        try:
            self._channel.send(Ask(id, asked.method, asked.path, asked.query, asked.headers, asked.body))
            return await waiting
        finally:
            self._answers.pop(id, None)

    async def is_alive(self, timeout_s: float) -> bool:
        """Whether its event loop turns: whether it answers anything within *timeout_s*."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._answer(messages.AskAll(0, "GET", "/livez", "", [], b""))
        except TimeoutError:
            return False
        return True

    def tell(self, message: messages.Told) -> bool:
        """Send what is not answered; False when it is too long for the channel."""
        return self._channel.send(message)


def _resolve(waiting: asyncio.Future[T] | None, value: T) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(value)
