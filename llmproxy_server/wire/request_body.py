"""Bodies of requests as they come over a connection: each is a BodySource."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Protocol

from llmproxy_core.node import record
from llmproxy_server.door_request import ClientGone
from llmproxy_server.wire.chunked import ChunkReader

MOST_HELD_BYTES = 1 << 17
"""More than that, and nobody reads: the client is not read on."""
MOST_AT_ONCE_BYTES = 1 << 20
"""The same where somebody waits for it: what comes while the loop turns once is looked at in its next turn."""


class Reading(Protocol):
    """Whoever feeds a body, and can be told to wait."""

    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...

    def feed_later(self, body: Arriving) -> None:
        """Feed *body* with nothing when it is its turn: it has left something of what it was fed."""
        ...


@record(eq=False, repr=False)
class Arrived:
    """A body that came with its head, or none at all. Made per call."""

    _data: bytes
    complete: ClassVar[bool] = True

    def take(self) -> bytes:
        data, self._data = self._data, b""
        return data

    async def more(self) -> int:
        return 0

    def fail(self, error: Exception) -> None:
        """Too late: all of it is here."""


class Arriving:
    """A body that is still coming. Read by one at a time."""

    __slots__ = (
        "_chunks",
        "_error",
        "_left",
        "_loop",
        "_parts",
        "_paused",
        "_reading",
        "_unread",
        "_untold",
        "_waiter",
        "complete",
    )

    def __init__(self, length: int | None, reading: Reading, loop: asyncio.AbstractEventLoop) -> None:
        """*length* in bytes; None: in chunks."""
        self._chunks = ChunkReader() if length is None else None
        self._left = length or 0
        self._reading = reading
        self._loop = loop
        self._parts: list[bytes] = []
        self._untold = 0  # bytes in parts that the reader has not been told of
        self._unread = b""  # has come, and waits for its turn to be read
        self._paused = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.complete = False

    def feed(self, data: bytes) -> bytes:
        """
        Take what *data* has of the body; what follows that, once the body is complete.

        Of very many chunks some are taken now, and the next when `Reading.feed_later` feeds it. What is malformed, the
        reader is told.
        """
        if self._error is not None:
            return b""
        if self._unread:
            data, self._unread = self._unread + data, b""
        end = self._take(data)
        if end < len(data) and not self.complete:
            self._unread = data[end:]
            self._reading.feed_later(self)
        if self.complete or self._error is not None or self._parts:
            self._wake()
        self._pace()
        return data[end:] if self.complete else b""

    def _take(self, data: bytes) -> int:
        """Take some of *data*; up to where."""
        if self._chunks is None:
            end = min(len(data), self._left)
            self._left -= end
            self._hold(data if end == len(data) else data[:end])
            self.complete = not self._left
            return end
        pieces: list[bytes] = []
        try:
            end = self._chunks.feed(data, pieces)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for whoever reads the body
            self._error = error
            return len(data)
        if pieces:
            self._hold(b"".join(pieces))  # as pieces of a byte each they would take thirty times as much
        self.complete = self._chunks.ended
        return end

    def _hold(self, piece: bytes) -> None:
        self._parts.append(piece)
        self._untold += len(piece)

    async def more(self) -> int:
        while not self._untold and not self.complete:
            if self._error is not None:
                raise self._error
            self._pace()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        untold, self._untold = self._untold, 0
        return untold

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        self._untold = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _pace(self) -> None:
        """Have the client wait while there is enough of the body here that nobody knows of, and no longer."""
        most = MOST_HELD_BYTES if self._waiter is None else MOST_AT_ONCE_BYTES
        enough = not self.complete and (self._untold > most or self._unread != b"")
        if enough is not self._paused:
            self._paused = enough
            if enough:
                self._reading.pause_body()
            else:
                self._reading.resume_body()

    def fail(self, error: Exception) -> None:
        if not self.complete and self._error is None:
            self._error = error
            self._wake()

    def lost(self) -> None:
        """The connection is gone."""
        self.fail(ClientGone())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
