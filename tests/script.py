"""
The words in which a test says what a fake upstream sends, when it waits and how it breaks.

A script is a sequence of steps, or a coroutine function that is given the `Call` and plays steps itself:

    [Head(), Chunk(b"data: 1\\n\\n"), Reached(first_sent), Wait(go_on), Chunk(b"data: 2\\n\\n"), End()]

A response ends with End, Cut, Reset or Stall; a script that says none of them is a mistake, and fails the
test. After End the connection is kept for the next request, unless Cut or Reset follow. When the client goes
away before the end of its answer, the script ends where it is: no later step is played.
"""

import asyncio
import http
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, Protocol

import attrs

Framing = Literal["chunked", "close"] | int  # an int is the Content-Length
Headers = Mapping[str, str] | Sequence[tuple[str, str]]

EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8"}


class ScriptError(Exception):
    """The script asks for what cannot be, or waited longer than the upstream's `timeout_s`."""


@attrs.define(eq=False)
class Received:
    """One request as it came, and what became of its answer."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]  # in order, names as spelled
    connection: int  # which connection of the upstream brought it, from 1
    timeout_s: float
    body: bytes = b""
    body_complete: bool = False

    gone: asyncio.Event = attrs.field(factory=asyncio.Event, repr=False)
    """Set at once when the client closes the connection while the answer is not complete."""

    finished: asyncio.Event = attrs.field(factory=asyncio.Event, repr=False)
    """Set when the script has been played to its end."""

    blocked: asyncio.Event = attrs.field(factory=asyncio.Event, repr=False)
    """Set while the client does not take what was written."""

    flowing: asyncio.Event = attrs.field(factory=asyncio.Event, repr=False)
    """The opposite of `blocked`."""

    chunks_sent: int = 0  # pieces of body: steps Chunk, and each round of Flood
    bytes_sent: int = 0  # head and framing included; at most one step ahead of what the kernel took
    writes_blocked: int = 0  # how often `blocked` was set

    def values(self, name: str) -> list[str]:
        """Every value of the header *name*, in order; its case does not count."""
        return [value for each, value in self.headers if each.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The value of the header *name*, None when it is absent; a header that came twice is an error."""
        values = self.values(name)
        if len(values) > 1:
            raise LookupError(f"{name} came {len(values)} times")
        return values[0] if values else None

    async def held_back(self, for_s: float = 0.1) -> None:
        """Wait until the client has taken nothing for *for_s* seconds, though there is more."""
        async with asyncio.timeout(self.timeout_s):
            while True:
                await self.blocked.wait()
                try:
                    async with asyncio.timeout(for_s):
                        await self.flowing.wait()
                except TimeoutError:
                    return


class Call:
    """One request being answered: what steps act on."""

    def __init__(
        self,
        received: Received,
        transport: asyncio.Transport,
        pull: Callable[[int | None], Awaitable[None]],
    ) -> None:
        self.received = received
        self.transport = transport
        self.framing: Framing | None = None  # None until Head
        self.body_sent = 0
        self.ended = False  # the response is complete
        self.closed = False  # we ended the connection
        self.keep_alive = True  # unless Head said otherwise
        self.pull = pull  # reads the request's body up to that many bytes, or all of it

    async def play(self, *steps: "Step") -> None:
        """Play *steps* in order."""
        for step in steps:
            await step.play(self)

    def write(self, data: bytes) -> None:
        """Write *data* as it is, without waiting."""
        if self.closed:
            raise ScriptError(f"{data!r} after the end of the connection")
        self.received.bytes_sent += len(data)
        self.transport.write(data)

    def write_body(self, data: bytes) -> None:
        """Write a piece of the body in the framing that Head announced."""
        if not data:
            raise ScriptError("an empty chunk would end the body: say End()")
        if self.ended:
            raise ScriptError("a piece of body after End(): say Raw(...)")
        match self.framing:
            case None:
                raise ScriptError("a piece of body before Head: say Raw(...)")
            case "chunked":
                self.write(b"%x\r\n%b\r\n" % (len(data), data))
            case "close":
                self.write(data)
            case length:
                if self.body_sent + len(data) > length:
                    raise ScriptError(f"more body than the {length} bytes announced: say Raw(...)")
                self.write(data)
        self.body_sent += len(data)
        self.received.chunks_sent += 1

    async def hold(self, event: asyncio.Event, reason: object) -> None:
        """Wait for *event*; a ScriptError that names *reason* when that takes too long."""
        try:
            async with asyncio.timeout(self.received.timeout_s):
                await event.wait()
        except TimeoutError:
            raise ScriptError(f"{reason} waited {self.received.timeout_s} s in vain") from None

    async def drain(self, reason: object) -> None:
        """Wait until the kernel has taken everything written."""
        await asyncio.sleep(0)  # where nothing waits, others and the news that the client left get a turn
        await self.hold(self.received.flowing, reason)

    def close(self) -> None:
        """End the connection with FIN, after what was written."""
        self.closed = True
        self.transport.close()


class Step(Protocol):
    """One word of a script."""

    async def play(self, call: Call) -> None: ...


Handler = Callable[[Call], Awaitable[None]]
Script = Sequence[Step] | Handler


@attrs.frozen
class Head:
    """The status line and the headers, with the one that says how the body's end will be known: *framing*."""

    status: int = 200
    headers: Headers = attrs.field(factory=lambda: EVENT_STREAM)
    framing: Framing = "chunked"

    async def play(self, call: Call) -> None:
        if call.framing is not None:
            raise ScriptError("a second Head: say Raw(...)")
        call.framing = self.framing
        call.keep_alive = ("connection", "close") not in [(name.lower(), value) for name, value in fields(self.headers)]
        call.write(head_bytes(self.status, self.headers, self.framing))


@attrs.frozen
class Chunk:
    """A piece of body, in a TCP write (and, where the body is chunked, an HTTP chunk) of its own."""

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")

    async def play(self, call: Call) -> None:
        call.write_body(self.data)
        # A reader on the same event loop sees the piece alone: it is told of it in the turn after the next.
        # In theory the kernel may join pieces, so what must be apart needs a Wait between.
        for _ in range(2):
            await asyncio.sleep(0)


@attrs.frozen
class Raw:
    """Bytes outside any framing: garbage, half a head, a wrong chunk size."""

    data: bytes

    async def play(self, call: Call) -> None:
        call.write(self.data)


@attrs.frozen
class Body:
    """
    Wait until *at_least* that many bytes of the request's body have come; None waits for its end.

    Of use only in an `Upstream(early=True)`, which plays the script as soon as the request's head is there.
    """

    at_least: int | None = None

    async def play(self, call: Call) -> None:
        try:
            async with asyncio.timeout(call.received.timeout_s):
                await call.pull(self.at_least)
        except TimeoutError:
            raise ScriptError(f"{self} waited {call.received.timeout_s} s in vain") from None


@attrs.frozen(eq=False)
class Wait:
    """Wait until the test sets *event*."""

    event: asyncio.Event

    async def play(self, call: Call) -> None:
        await call.hold(self.event, self)


@attrs.frozen(eq=False)
class Reached:
    """Tell the test, by setting *event*, that the script came here."""

    event: asyncio.Event

    async def play(self, call: Call) -> None:
        self.event.set()


@attrs.frozen
class Drain:
    """Wait until the kernel has taken everything written."""

    async def play(self, call: Call) -> None:
        await call.drain(self)


@attrs.frozen
class Flood:
    """
    Write *chunk* again and again, each time waiting until the kernel has taken it.

    Ends after *count* times (None: never), or when *until* is set, or with the client.
    """

    chunk: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    count: int | None = None
    until: asyncio.Event | None = None

    async def play(self, call: Call) -> None:
        sent = 0
        while sent != self.count and not (self.until is not None and self.until.is_set()):
            call.write_body(self.chunk)
            sent += 1
            await call.drain(self)


@attrs.frozen
class End:
    """The proper end of the response: the last chunk, or the close, or nothing where the length was told."""

    async def play(self, call: Call) -> None:
        if call.ended:
            raise ScriptError("a second End(): say Raw(...)")
        match call.framing:
            case None:
                raise ScriptError("End() without Head: say Cut()")
            case "chunked":
                call.write(b"0\r\n\r\n")
            case "close":
                call.close()
            case length:
                if call.body_sent != length:
                    raise ScriptError(f"End() after {call.body_sent} of {length} bytes: say Cut()")
        call.ended = True


@attrs.frozen
class Cut:
    """FIN now, whatever is missing."""

    async def play(self, call: Call) -> None:
        await call.drain(self)  # so that a client that leaves meanwhile is noticed
        call.close()


@attrs.frozen
class Reset:
    """RST now; what was written before has left our side."""

    async def play(self, call: Call) -> None:
        await call.drain(self)
        if not call.transport.is_closing():
            linger = struct.pack("ii", 1, 0)  # on, for 0 seconds
            call.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            call.transport.abort()
        call.closed = True


@attrs.frozen
class Stall:
    """Send nothing more, until the client goes away; that it does not is a ScriptError after `timeout_s`."""

    async def play(self, call: Call) -> None:
        await call.hold(asyncio.Event(), self)


def fields(headers: Headers) -> list[tuple[str, str]]:
    """*headers* as a list of names and values."""
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def head_bytes(status: int, headers: Headers = (), framing: Framing = "chunked") -> bytes:
    """The bytes of a response head."""
    phrases = {each.value: each.phrase for each in http.HTTPStatus}
    match framing:
        case "chunked":
            frame = ("Transfer-Encoding", "chunked")
        case "close":
            frame = ("Connection", "close")
        case length:
            frame = ("Content-Length", str(length))
    lines = [f"HTTP/1.1 {status} {phrases.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in [*fields(headers), frame]]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
