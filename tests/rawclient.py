"""A client on a raw socket of the test's own event loop: sends and sees exact bytes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

WAIT_S = 20
ASK = b"POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"


class Client:
    """One connection to a server; every wait ends after WAIT_S."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes = ASK) -> None:
        """Write *data*, a complete request when not given."""
        self.writer.write(data)

    async def until(self, end: bytes) -> bytes:
        """The bytes up to and with the next *end*."""
        return await asyncio.wait_for(self.reader.readuntil(end), WAIT_S)

    async def rest(self) -> bytes:
        """The bytes up to the end of the connection."""
        return await asyncio.wait_for(self.reader.read(), WAIT_S)

    async def exactly(self, count: int) -> bytes:
        """The next *count* bytes."""
        return await asyncio.wait_for(self.reader.readexactly(count), WAIT_S)

    async def close(self) -> None:
        """Leave, whatever was not read."""
        self.writer.close()
        with suppress(ConnectionError):  # a reset was scripted
            await asyncio.wait_for(self.writer.wait_closed(), WAIT_S)


class Opening:
    """What each new client does first; nothing, unless a fixture says so."""

    def __init__(self) -> None:
        self.first: Callable[[Client], Awaitable[None]] | None = None


opening = Opening()


@asynccontextmanager
async def connected(port: int, *, read_buffer_bytes: int | None = None) -> AsyncIterator[Client]:
    """A client connected to *port* of 127.0.0.1; *read_buffer_bytes* is its SO_RCVBUF."""
    connecting = socket.socket()
    connecting.setblocking(False)
    if read_buffer_bytes is not None:
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer_bytes)
    await asyncio.get_running_loop().sock_connect(connecting, ("127.0.0.1", port))
    client = Client(*await asyncio.open_connection(sock=connecting, limit=2**20))
    try:
        if opening.first is not None:
            await opening.first(client)
        yield client
    finally:
        await client.close()
