"""The channel between a parent and a worker: whole messages, in order, over a pair of connected sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import Generic, TypeVar

import msgspec

from llmproxy_server.process.messages import Told, ToParent, ToWorker

_HEAD_BYTES = 4
MAX_BYTES = 64 << 20
"""Of a message: a configuration, or the body of an answer of our own endpoints."""
T = TypeVar("T")


class Channel(Generic[T]):
    """
    One end. `send` never waits: who sends must bound what an end that does not read leaves unanswered.

    *T* is what this end receives.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decoder: msgspec.msgpack.Decoder[T]):
        self._reader = reader
        self._writer = writer
        self._decode = decoder.decode
        self._encode = msgspec.msgpack.Encoder().encode

    def send(self, message: Told) -> bool:
        """
        Send *message*; False when it is too long, and was not sent.

        Nothing happens when the other end is gone: `receive` tells of that.
        """
        if self._writer.is_closing():
            return True
        data = self._encode(message)
        if len(data) > MAX_BYTES:
            return False
        self._writer.write(len(data).to_bytes(_HEAD_BYTES, "big") + data)
        return True

    async def receive(self) -> T | None:
        """The next message; None when the other end is gone, or has sent what is no message."""
        try:
            size = int.from_bytes(await self._reader.readexactly(_HEAD_BYTES), "big")
            if size > MAX_BYTES:
                return None
            return self._decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
            return None

    async def flush(self) -> None:
        """Wait until what was sent has left this process."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def close(self) -> None:
        """Whoever waits in `receive`, at either end, hears that it is over."""
        self._writer.close()


async def to_worker(connected: socket.socket) -> Channel[ToParent]:
    """The parent's end."""
    reader, writer = await asyncio.open_unix_connection(sock=connected)
    return Channel(reader, writer, msgspec.msgpack.Decoder(ToParent))


async def to_parent(connected: socket.socket) -> Channel[ToWorker]:
    """A worker's end."""
    reader, writer = await asyncio.open_unix_connection(sock=connected)
    return Channel(reader, writer, msgspec.msgpack.Decoder(ToWorker))
