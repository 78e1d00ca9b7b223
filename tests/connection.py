"""One connection of the fake upstream: strict reading of requests, and their answers by script."""

import asyncio
import re
import socket
from typing import Protocol, cast

from tests.script import Call, Received, Script, ScriptError

MAX_HEAD_BYTES = 65_536
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rf"({_TOKEN}) (/[!-~]*) HTTP/1\.1")  # no name of an authority: we are no proxy
_FIELD = re.compile(rf"({_TOKEN}):[ \t]*((?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*")
_CHUNK_SIZE = re.compile(r"[0-9A-Fa-f]{1,8}")


class ProtocolViolation(Exception):
    """The client sent what RFC 9112 forbids, or what no client of ours should send."""


class _PeerLeft(Exception):
    """The client closed the connection while we read."""


class Owner(Protocol):
    """What a connection needs of its upstream."""

    early: bool
    timeout_s: float

    def opened(self, connection: "Connection") -> tuple[int, asyncio.Task[None]]: ...

    def closed(self, connection: "Connection") -> None: ...

    def take(self, received: Received) -> Script: ...

    def change(self) -> None: ...

    def request_cut(self) -> None: ...


class Connection(asyncio.Protocol):
    """One connection: reads requests, plays a script for each, notices at once when the client leaves."""

    def __init__(self, upstream: Owner) -> None:
        self._upstream = upstream
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._left = False
        self._call: Call | None = None
        self._task: asyncio.Task[None] | None = None
        self._number = 0
        self._reading = False  # between a request's head and its end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Whatever the kernel does not take at once blocks: what is sent and what is held back is then exact.
        self._transport.set_write_buffer_limits(0)
        connected: socket.socket = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._number, self._task = self._upstream.opened(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._news.set()

    def eof_received(self) -> bool:
        self._peer_left()
        return True  # the serving task closes

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer_left()
        self._upstream.closed(self)

    def _peer_left(self) -> None:
        if self._left:
            return
        self._left = True
        self._news.set()
        call = self._call
        if call is not None and self._task is not None and not (call.ended or call.closed):
            call.received.gone.set()
            self._task.cancel()  # wherever the script is waiting

    def pause_writing(self) -> None:
        if self._call is not None:
            received = self._call.received
            received.writes_blocked += 1
            received.flowing.clear()
            received.blocked.set()

    def resume_writing(self) -> None:
        if self._call is not None:
            self._call.received.blocked.clear()
            self._call.received.flowing.set()

    def abort(self) -> None:
        """Close at once, without a word to the client's script: the test is over."""
        self._call = None
        self._transport.abort()

    async def serve(self) -> None:
        """Answer one request after the other; raises what went wrong, after closing the connection."""
        try:
            while await self._exchange():
                pass
        except _PeerLeft:
            if self._buffer or self._reading:
                self._upstream.request_cut()
        except ProtocolViolation as violation:
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n%b" % str(violation).encode())
            raise
        except asyncio.CancelledError:
            if not self._left:  # our own shutdown
                raise
        finally:
            if self._left:
                self._transport.abort()
            self._transport.close()

    async def _exchange(self) -> bool:
        """Read a request and answer it by its script; True when the connection can carry another."""
        received = await self._head()
        body = _RequestBody(self, received)
        if not self._upstream.early:
            await self._rest(body)
            if self._buffer:
                raise ProtocolViolation(f"{len(self._buffer)} bytes after the end of the request")
        script = self._upstream.take(received)
        self._call = call = Call(received, self._transport, body.fill)
        if callable(script):
            await script(call)
        else:
            await call.play(*script)
        if call.framing is not None and not (call.ended or call.closed):
            raise ScriptError(f"the script for {received.method} {received.target} says no End, Cut, Reset or Stall")
        received.finished.set()
        self._upstream.change()
        if call.framing is None or call.closed:
            return False
        self._call = None
        if not received.body_complete:
            await self._rest(body)
        return call.keep_alive and (received.header("connection") or "").lower() != "close"

    async def _rest(self, body: "_RequestBody") -> None:
        """Read the rest of *body*."""
        self._reading = True
        try:
            async with asyncio.timeout(self._upstream.timeout_s):
                await body.fill(None)
        except TimeoutError:
            raise ProtocolViolation(f"no complete request within {self._upstream.timeout_s} s") from None
        self._reading = False

    async def _head(self) -> Received:
        head = (await self.until(b"\r\n\r\n"))[:-4].decode("latin-1")
        request_line, *lines = head.split("\r\n")
        if not (match := _REQUEST_LINE.fullmatch(request_line)):
            raise ProtocolViolation(f"request line {request_line!r}")
        fields = []
        for line in lines:
            if not (field := _FIELD.fullmatch(line)):
                raise ProtocolViolation(f"header line {line.split(':')[0]!r}")  # a value may be a secret
            fields.append((field[1], field[2]))
        received = Received(match[1], match[2], tuple(fields), self._number, self._upstream.timeout_s)
        received.flowing.set()
        if len(received.values("host")) != 1:
            raise ProtocolViolation(f"{len(received.values('host'))} Host headers")
        return received

    async def until(self, end: bytes) -> bytes:
        """The bytes up to and with the next *end*."""
        while (place := self._buffer.find(end)) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise ProtocolViolation(f"more than {MAX_HEAD_BYTES} bytes of head")
            await self._more()
        return self._take_bytes(place + len(end))

    async def some(self, most: int) -> bytes:
        """What has come, at least a byte, at most *most*."""
        while not self._buffer:
            await self._more()
        return self._take_bytes(min(most, len(self._buffer)))

    async def exactly(self, count: int) -> bytes:
        """The next *count* bytes."""
        while len(self._buffer) < count:
            await self._more()
        return self._take_bytes(count)

    def _take_bytes(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _more(self) -> None:
        if self._left:
            raise _PeerLeft
        self._news.clear()
        await self._news.wait()


class _RequestBody:
    """Reads the body of one request into it, as its headers frame it."""

    def __init__(self, connection: Connection, received: Received) -> None:
        self._connection = connection
        self._received = received
        self._data = bytearray()
        codings, lengths = received.values("transfer-encoding"), received.values("content-length")
        if len(codings) + len(lengths) > 1 or codings not in ([], ["chunked"]):
            raise ProtocolViolation(f"Transfer-Encoding {codings} and Content-Length {lengths}")
        if lengths and not re.fullmatch(r"[0-9]+", lengths[0]):
            raise ProtocolViolation(f"Content-Length {lengths[0]!r}")
        self._chunked = bool(codings)
        self._length = int(lengths[0]) if lengths else 0

    async def fill(self, at_least: int | None) -> None:
        """Read until *at_least* that many bytes are there, or (None) all are, or the body ends."""
        while not self._received.body_complete and (at_least is None or len(self._data) < at_least):
            await (self._chunk() if self._chunked else self._piece())
        self._received.body = bytes(self._data)

    async def _piece(self) -> None:
        missing = self._length - len(self._data)
        if missing:
            self._data += await self._connection.some(missing)
        self._received.body_complete = len(self._data) == self._length

    async def _chunk(self) -> None:
        size = (await self._connection.until(b"\r\n"))[:-2].decode("latin-1")
        if not _CHUNK_SIZE.fullmatch(size):
            raise ProtocolViolation(f"chunk size {size!r}")
        self._data += await self._connection.exactly(int(size, 16))
        if await self._connection.exactly(2) != b"\r\n":
            raise ProtocolViolation("no line end after a chunk (or trailers, which we never send)")
        self._received.body_complete = int(size, 16) == 0
