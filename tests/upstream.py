"""
A fake upstream on a raw socket: it plays scripts, to the byte, and remembers what it was asked.

Not built on an HTTP library, since none would send garbage, half a head or an RST, nor tell when its writes
block. It is strict where a real server may be lenient: a request that breaks RFC 9112 fails the test.

    async with Upstream(stream(chat_chunk("Hello"))) as upstream:
        ...  # call upstream.base_url
        assert (await upstream.received()).header("authorization") == "Bearer sk-1"
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from tests.answers import (
    DONE,
    Split,
    chat_chunk,
    completion,
    error,
    pieces,
    replay,
    reply,
    sse,
    stream,
    usage_chunk,
)
from tests.connection import Connection, ProtocolViolation
from tests.script import (
    EVENT_STREAM,
    Body,
    Call,
    Chunk,
    Cut,
    Drain,
    End,
    Flood,
    Framing,
    Handler,
    Head,
    Raw,
    Reached,
    Received,
    Reset,
    Script,
    ScriptError,
    Stall,
    Step,
    Wait,
)

__all__ = [
    "DONE",
    "EVENT_STREAM",
    "Body",
    "Call",
    "Chunk",
    "Cut",
    "Drain",
    "End",
    "Flood",
    "Framing",
    "Handler",
    "Head",
    "ProtocolViolation",
    "Raw",
    "Reached",
    "Received",
    "Reset",
    "Script",
    "ScriptError",
    "Split",
    "Stall",
    "Step",
    "Upstream",
    "Wait",
    "chat_chunk",
    "completion",
    "error",
    "pieces",
    "refusing_url",
    "replay",
    "reply",
    "silent_url",
    "sse",
    "stream",
    "usage_chunk",
]


class Upstream:
    """
    The fake upstream, listening on 127.0.0.1 while it is entered.

    *script* answers every request; scripts given to `then` go first, one each in the order of arrival. What
    goes wrong (a request against the protocol or without script, a script that waits in vain, any exception
    of a handler) closes that connection, and is raised when the upstream is left, unless `take_errors` took
    it before.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        early: bool = False,  # play the script when the request's head is there; see the step Body
        send_buffer_bytes: int | None = None,  # SO_SNDBUF; the kernel doubles it and has its own minimum
        timeout_s: float = 10.0,  # of each wait
    ) -> None:
        self.script = script
        self.early = early
        self.timeout_s = timeout_s
        self.requests: list[Received] = []
        self.requests_cut = 0  # the client left before the request was complete
        self.connections_total = 0
        self._send_buffer_bytes = send_buffer_bytes
        self._next: deque[Script] = deque()
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """The root: scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base_url."""
        return f"{self.url}/v1"

    @property
    def connections_open(self) -> int:
        """How many connections are open now."""
        return len(self._connections)

    @property
    def bytes_sent(self) -> int:
        """Over all requests; see Received.bytes_sent."""
        return sum(received.bytes_sent for received in self.requests)

    def then(self, *scripts: Script) -> None:
        """Answer the next requests by *scripts*, one each, before `script` answers again."""
        self._next.extend(scripts)

    async def received(self, count: int = 1) -> Received:
        """The request number *count*, waiting for it."""
        await self.until(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until *holds*; asked whenever a request, script or connection begins or ends."""
        async with asyncio.timeout(self.timeout_s):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def take_errors(self) -> list[Exception]:
        """What went wrong so far, which will then not be raised."""
        taken, self._errors = self._errors, []
        return taken

    async def __aenter__(self) -> Self:
        listening = socket.socket()
        if self._send_buffer_bytes is not None:  # inherited by the sockets accepted
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
        listening.bind(("127.0.0.1", 0))
        self.port: int = listening.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(lambda: Connection(self), sock=listening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for connection in self._connections:
            connection.abort()
        await self.until(lambda: not self._tasks and not self._connections)
        await self._server.wait_closed()
        errors = self.take_errors()
        if errors and failure is None:
            raise ExceptionGroup("what went wrong at the fake upstream", errors)
        if errors and failure is not None:  # the test's own failure says more, but perhaps this is its cause
            failure.add_note(f"also, at the fake upstream: {errors}")

    def stop_listening(self) -> None:
        """Refuse new connections from now on; the open ones stay."""
        self._server.close()

    # What connections tell us.

    def opened(self, connection: Connection) -> tuple[int, asyncio.Task[None]]:
        """Count *connection* and start serving it."""
        self.connections_total += 1
        self._connections.add(connection)
        # Not in a TaskGroup: an upstream may be entered and left in different tasks, as fixtures are, and the
        # failure of one connection must not end the others. The set keeps the reference.
        task = asyncio.get_running_loop().create_task(connection.serve())
        self._tasks.add(task)
        task.add_done_callback(self._served)
        self.change()
        return self.connections_total, task

    def closed(self, connection: Connection) -> None:
        """Forget *connection*."""
        self._connections.discard(connection)
        self.change()

    def take(self, received: Received) -> Script:
        """Note the request *received*; its script."""
        self.requests.append(received)
        self.change()
        if self._next:
            return self._next.popleft()
        return _unscripted if self.script is None else self.script

    def request_cut(self) -> None:
        """Note that a client left before its request was complete."""
        self.requests_cut += 1

    def change(self) -> None:
        """Have every `until` look again."""
        self._changed.set()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(failure := task.exception(), Exception):
            self._errors.append(failure)
        self.change()


async def _unscripted(call: Call) -> None:
    await call.play(*reply(error("the test gave no script for this request"), 500))
    raise ScriptError(f"no script for {call.received.method} {call.received.target}")


@contextmanager
def refusing_url() -> Iterator[str]:
    """The URL of a port that refuses connections; it is bound, so that nobody else gets it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def silent_url() -> Iterator[str]:
    """
    The URL of a port on which connecting hangs, neither accepted nor refused: a full backlog.

    Linux drops a SYN that finds the queue full; the client's kernel tries again after a second.
    """
    with socket.socket() as listening, ExitStack() as fillers:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):  # a backlog of 0 holds one; more do no harm
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
