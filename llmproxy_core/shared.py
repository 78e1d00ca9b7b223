"""One response for many exchanges: it is read once, and whoever joins gets all of it from its first byte."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator

from llmproxy_core.body import Pumped
from llmproxy_core.dialect import ReplyHead
from llmproxy_core.errors import InternalError, ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.money import Price
from llmproxy_core.outcome import End
from llmproxy_core.relay import Flow, Whole, deliver
from llmproxy_core.request import ClientView
from llmproxy_core.response import Reply, Response, Stream
from llmproxy_core.tasks import Tasks


class Shared(ABC):
    """
    A response that several exchanges answer with, after all that was subscribed to it; it is finished here.

    What joins is told its usage, but costs nothing: the exchange that the response belongs to is billed, or the one
    that detached it.
    """

    @abstractmethod
    def join(self, exchange: Exchange) -> Response:
        """The response for *exchange*, from the beginning. Only while `open`; a RuntimeError after that."""

    @property
    @abstractmethod
    def open(self) -> bool:
        """Whether one more can join."""

    @abstractmethod
    def close(self) -> None:
        """Those who waited have joined: end what nobody reads. Who comes later may still join while it is `open`."""


async def share(response: Response, *, max_bytes: int, tasks: Tasks) -> Shared:
    """
    *response*, to be joined.

    A stream is read at the pace of its fastest reader; once it is longer than *max_bytes*, at the pace of the slowest,
    and nobody can join any more. When the last reader leaves before its end, the response's exchange is abandoned.
    Raises the ProxyError, with the exchange finished, when a whole answer fails on the way (a watcher's verdict).
    Cancelled, it leaves the exchange to whoever opened it.
    """
    if isinstance(response, Stream) and response.api is not None:
        return SharedStream(response, max_bytes, tasks)
    if isinstance(response, Stream):
        raise TypeError("an opaque answer cannot be shared")
    try:
        delivered = await deliver(response, ClientView(response.dialect, response.api))
    except ProxyError as error:
        _finish(response, End.of(error), error)
        raise
    assert isinstance(delivered, Whole)
    _finish(response, End.COMPLETED)
    return SharedReply(response, delivered)


def _finish(response: Response, end: End, error: ProxyError | None = None) -> None:
    """End the exchange of *response*, and those whose child it is."""
    exchange: Exchange | None = response.exchange
    while exchange is not None:
        exchange.finish(end, error)
        exchange = exchange.parent


def _price_for(exchange: Exchange, made: Response) -> Price | None:
    """Nothing for who only joins; who is billed has no price of its own besides (its attempts are the response's)."""
    return None if exchange.attempts is made.exchange.attempts else Price(0, 0)


class SharedReply(Shared):
    """A whole answer: all of it is here."""

    def __init__(self, response: Reply, whole: Whole) -> None:
        self._response = response
        self._whole = whole

    @property
    def open(self) -> bool:
        return True

    def close(self) -> None:
        """It has ended."""

    def join(self, exchange: Exchange) -> Reply:
        made, whole = self._response, self._whole
        return Reply(
            exchange,
            whole.body,
            dialect=made.dialect,
            api=made.api,
            head=ReplyHead(made.usage, made.model, made.finish_words),
            status=whole.status,
            headers=whole.headers,
            content_type=whole.content_type,
            llm=made.llm,
            price=_price_for(exchange, made),
            billed=False,
        )


class SharedStream(Shared):
    """A stream: one task reads it, as far as its readers want it."""

    def __init__(self, response: Stream, max_bytes: int, tasks: Tasks) -> None:
        assert response.api is not None
        self._response = response
        self._max_bytes = max_bytes
        self._tasks = tasks
        self._flow = Flow(
            response,
            ClientView(response.dialect, response.api, stream=True, wants_usage=True),
            tells_errors=False,
        )
        self._pieces: list[bytes] = []
        self._dropped = 0
        """How many pieces there were before the first of these."""
        self._size = 0
        self.over = False
        self.error: ProxyError | None = None
        self._readers: set[_Reader] = set()
        self._idle: dict[_Reader, asyncio.Future[None]] = {}
        """Those that have got all there is, and wait for more."""
        self._wanted = asyncio.Event()
        self._task = tasks.start(self._pump(), name="shared stream")
        # Whatever stops the task, even before its first step, must be told to those who wait.
        self._task.add_done_callback(lambda _: self._end(InternalError("The answer could not be passed on")))

    @property
    def open(self) -> bool:
        return self._size <= self._max_bytes and self.error is None

    def join(self, exchange: Exchange) -> Stream:
        if not self.open:
            raise RuntimeError("this answer can no longer be joined")
        reader = _Reader(self, self._tasks)
        made = self._response
        joined = Stream(
            exchange,
            reader,
            dialect=made.dialect,
            api=made.api,
            status=made.status,
            headers=made.headers,
            content_type=made.content_type,
            llm=made.llm,
            price=_price_for(exchange, made),
            billed=False,
            redact=made.redact,
        )
        joined.max_bytes = made.max_bytes
        if joined.outcome is None:  # one whose exchange is over has left before it came, and was not the last
            self._readers.add(reader)
        return joined

    # -- the one who reads ---------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        await self._read()
        self._end(self._flow.error)

    async def _read(self) -> None:
        pieces = self._flow.pieces()
        try:
            async for piece in pieces:
                if piece:
                    self._take(piece)
                if not self._flow.complete and self._flow.error is None:  # else this was the last, and ends here
                    self._wanted.clear()
                    await self._wanted.wait()
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    def _take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake()

    def _end(self, error: ProxyError | None) -> None:
        if self.over:
            return
        self.over, self.error = True, error
        self._flow.error = error
        self._flow.finish()
        self._wake()

    def _wake(self) -> None:
        for more in self._idle.values():
            if not more.done():
                more.set_result(None)
        self._idle.clear()

    # -- those who get it ----------------------------------------------------------------------------------------

    def piece(self, position: int) -> bytes | None:
        """The piece at *position*; None while it is not there."""
        at = position - self._dropped
        return self._pieces[at] if at < len(self._pieces) else None

    async def more(self, reader: _Reader) -> None:
        """Return when there is more for *reader*, which has got all there is, or when it is over."""
        more = self._idle[reader] = asyncio.get_running_loop().create_future()
        self._want()
        try:
            await more
        finally:
            self._idle.pop(reader, None)

    def _want(self) -> None:
        """Have the next piece read; beyond the bound only once all have got what there is, which is then let go."""
        if self._size > self._max_bytes:
            if len(self._idle) < len(self._readers):
                return
            self._dropped += len(self._pieces)
            self._pieces.clear()
        self._wanted.set()

    def leave(self, reader: _Reader) -> None:
        if reader not in self._readers:
            return
        self._readers.remove(reader)
        if (more := self._idle.pop(reader, None)) is not None and not more.done():
            more.set_result(None)
        if not self._readers:
            self.close()
        elif self._size > self._max_bytes:
            self._want()  # the slowest may have been this one

    def close(self) -> None:
        if self.over or self._readers:
            return
        self.over, self.error = True, InternalError("Nobody waited for this answer any more")
        _finish(self._response, End.ABANDONED)
        self._task.cancel()


class _Reader(Pumped):
    """The body of one who joined."""

    __slots__ = ("_position", "_shared")

    def __init__(self, shared: SharedStream, tasks: Tasks) -> None:
        super().__init__(tasks)
        self._shared = shared
        self._position = 0

    async def read(self) -> bytes:
        shared = self._shared
        while not self._closed:
            if (piece := shared.piece(self._position)) is not None:
                self._position += 1
                return piece
            if not shared.over:
                await shared.more(self)
            elif shared.error is not None:
                raise shared.error
            else:
                return b""
        return b""

    def close(self) -> None:
        if self._end():
            self._shared.leave(self)

    def release(self) -> None:
        self.close()
