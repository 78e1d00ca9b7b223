"""The bytes of an upstream's answer, to be pulled or to be pushed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from llmproxy_core.errors import InternalError, ProxyError
from llmproxy_core.tasks import Tasks


class Sink(Protocol):
    """Who takes pushed bytes. `end` is called once, and nothing after it; neither is called once the body is closed."""

    def feed(self, data: bytes) -> None: ...

    def end(self, error: ProxyError | None) -> None: ...


class Body(Protocol):
    """
    Two ways of reading; exactly one is used.

    `read` gives the next bytes, b"" at the end, or raises an UpstreamError. `attach` pushes them to a sink until the
    end; `pause` and `resume` hold the flow. `close` gives up what is left: synchronous, idempotent, safe at any time,
    after which no byte comes. `release` says that what is left does not matter although the answer is complete: the
    connection may be drained and kept.
    """

    async def read(self) -> bytes: ...

    def attach(self, sink: Sink) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...

    def release(self) -> None: ...


class PulledBody:
    """A body made of a read function; it pushes by a pump task."""

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
        self._read = read
        self._close = close
        self._release = release
        self._tasks = tasks
        self._closed = False
        self._pump: asyncio.Task[None] | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def read(self) -> bytes:
        if self._closed:
            return b""
        data = await self._read()
        return b"" if self._closed else data  # it may have been closed while we waited

    def attach(self, sink: Sink) -> None:
        self._pump = self._tasks.start(self._push(sink), name="body pump")

    async def _push(self, sink: Sink) -> None:
        try:
            while data := await self.read():
                await self._flowing.wait()  # paused while it read
                sink.feed(data)
                await self._flowing.wait()  # paused by the sink: not to read is what holds the upstream
        except ProxyError as error:
            self._tell(sink, error)
        except Exception:  # the sink's bug: it must still learn that nothing more comes; Tasks logs it
            self._tell(sink, InternalError("The answer could not be passed on"))
            raise
        else:
            self._tell(sink, None)

    def _tell(self, sink: Sink, error: ProxyError | None) -> None:
        if not self._closed:
            sink.end(error)

    def pause(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self._end(self._close)

    def release(self) -> None:
        self._end(self._release or self._close)

    def _end(self, free: Callable[[], None] | None) -> None:
        if self._closed:
            return
        self._closed = True
        if self._pump is not None and self._pump is not asyncio.current_task():
            self._pump.cancel()
        if free is not None:
            free()
