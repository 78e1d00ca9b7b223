"""The bytes of an upstream's answer, to be pulled or to be pushed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Protocol

from llmproxy_core.errors import InternalError, ProxyError, raise_unless_bug
from llmproxy_core.tasks import Tasks


class Passing:
    """
    How most events of a stream pass: each in the chunk (RFC 9112, section 7.1) that it came in.

    Instead of feeding a sink what is in *chunk*, whoever reads it asks `knows(chunk, line)`, *line* being the one with
    its size; where that says yes, `send(chunk)` is all there is to do, and `passed` is set. A chunk that says more than
    its size there is fed.
    """

    __slots__ = ("knows", "passed", "send")

    knows: Callable[[bytes, bytes], bool]
    """Whether the sink, who sets it, would pass on what is in the chunk as it is; it has counted it, if so."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        """*send* raises nothing: who is gone is told of elsewhere."""
        self.send = send
        self.passed = False
        """Whether anything has, since this was last set to False."""


class Sink(Protocol):
    """Who takes pushed bytes. `end` is called once, and nothing after it; neither is called once the body is closed."""

    def feed(self, data: bytes) -> Passing | None:
        """Gives how what follows may pass, until this is called again or the sink has the body paused or closed."""
        ...

    def end(self, error: ProxyError | None) -> None: ...


class Body(Protocol):
    """
    Two ways of reading; exactly one is used.

    `read` gives the next bytes, b"" at the end, or raises an UpstreamError. `attach` pushes them to a sink until the
    end; `pause` and `resume` hold the flow. `close` gives up what is left: synchronous, idempotent, safe at any time,
    after which no byte comes. `release` says that what is left does not matter although the answer is complete: the
    connection may be drained and kept.
    """

    @property
    def pushes(self) -> bool:
        """Whether pushing is the cheaper way: `attach` needs no task, the bytes come from whoever reads the network."""
        ...

    def whole(self) -> bytes | None:
        """
        All of it, as one `read` of everything, when all of it is here; None: it must be read, or pushed.

        Who gets it has released the body with it.
        """
        ...

    async def read(self) -> bytes: ...

    def attach(self, sink: Sink) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...

    def release(self) -> None: ...


class Pumped(ABC):
    """A body that is read; it pushes by a pump task, which only `attach` starts."""

    __slots__ = ("_closed", "_flowing", "_pump", "_tasks")

    pushes = False

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._closed = False
        """Whether it was closed or released: it gives no byte more."""
        self._pump: asyncio.Task[None] | None = None
        self._flowing: asyncio.Event | None = None  # made by the first pause

    def whole(self) -> bytes | None:
        return None

    @abstractmethod
    async def read(self) -> bytes:
        """See Body."""

    def attach(self, sink: Sink) -> None:
        self._pump = self._tasks.start(self._push(sink), name="body pump")

    async def _push(self, sink: Sink) -> None:
        try:
            while data := await self.read():
                await self._unpaused()  # paused while it read
                sink.feed(data)
                await self._unpaused()  # paused by the sink: not to read is what holds the upstream
        except ProxyError as error:
            self._tell(sink, error)
        except BaseException as bug:  # the sink's bug: it must still learn that nothing more comes; Tasks logs it
            raise_unless_bug(bug)
            self._tell(sink, InternalError("The answer could not be passed on"))
            raise
        else:
            self._tell(sink, None)

    async def _unpaused(self) -> None:
        if self._flowing is not None:
            await self._flowing.wait()

    def _tell(self, sink: Sink, error: ProxyError | None) -> None:
        if not self._closed:
            sink.end(error)

    def pause(self) -> None:
        if self._flowing is None:
            self._flowing = asyncio.Event()
        self._flowing.clear()

    def resume(self) -> None:
        if self._flowing is not None:
            self._flowing.set()

    def _end(self) -> bool:
        """Stop reading and pushing; whether this was the first call."""
        if self._closed:
            return False
        self._closed = True
        if self._pump is not None and self._pump is not asyncio.current_task():
            self._pump.cancel()
        return True


class PulledBody(Pumped):
    """A body made of a read function."""

    __slots__ = ("_close", "_read", "_release")

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]],
        *,
        tasks: Tasks,
        close: Callable[[], None] | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        """
        *read* gives the next bytes, b"" at the end. *close* frees what is behind it; *release* frees it after a
        complete answer (default: as *close*).
        """
        super().__init__(tasks)
        self._read: Callable[[], Awaitable[bytes]] | None = read
        self._close = close
        self._release = release or close

    async def read(self) -> bytes:
        if self._read is None:
            return b""
        data = await self._read()
        return b"" if self._closed else data  # it may have been closed while we waited

    def close(self) -> None:
        if self._end():
            self._let_go(self._close)

    def release(self) -> None:
        if self._end():
            self._let_go(self._release)

    def _let_go(self, free: Callable[[], None] | None) -> None:
        self._read = self._close = self._release = None  # whoever they belong to may hold us
        if free is not None:
            free()
