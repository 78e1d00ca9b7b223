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
        """The response for *exchange*, from the beginning. Only while `open`."""

    @property
    @abstractmethod
    def open(self) -> bool:
        """Whether one more can join."""

    @abstractmethod
    def close(self) -> None:
        """Nobody will join any more: end what nobody reads."""


async def share(response: Response, *, max_bytes: int, tasks: Tasks) -> Shared:
    """
    *response*, to be joined.

    A stream is read at the pace of its fastest reader; once it is longer than *max_bytes*, at the pace of the slowest,
    and nobody can join any more. When the last reader leaves before its end, the response's exchange is abandoned.
    Raises the ProxyError, with the exchange finished, when a whole answer fails on the way (a watcher's verdict).
    """
    if isinstance(response, Stream) and response.api is not None:
        return SharedStream(response, max_bytes, tasks)
    if isinstance(response, Stream):
        raise TypeError("an opaque answer cannot be shared")
    exchange = response.exchange
    try:
        delivered = await deliver(response, ClientView(response.dialect, response.api))
    except ProxyError as error:
        exchange.finish(End.of(error), error)
        raise
    assert isinstance(delivered, Whole)
    exchange.finish(End.COMPLETED)
    return SharedReply(response, delivered)


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
        self.pieces: list[bytes] = []
        self.dropped = 0
        """How many pieces before the first of these were read by all."""
        self._size = 0
        self.over = False
        self.error: ProxyError | None = None
        self._readers: set[_Reader] = set()
        self._wanted = asyncio.Event()
        self._task = tasks.start(self._pump(), name="shared stream")

    @property
    def open(self) -> bool:
        return self._size <= self._max_bytes and self.error is None

    def join(self, exchange: Exchange) -> Stream:
        reader = _Reader(self, self._tasks)
        self._readers.add(reader)
        made = self._response
        return Stream(
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

    # -- the one who reads ---------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        error: ProxyError | None = InternalError("The answer could not be passed on")
        try:
            await self._read()
            error = self._flow.error
        except ProxyError as failure:
            error = failure
        finally:
            self._end(error)

    async def _read(self) -> None:
        pieces = self._flow.pieces()
        try:
            async for piece in pieces:
                if piece:
                    self._take(piece)
                self._wanted.clear()
                if not self._flow.complete:
                    await self._wanted.wait()
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    def _take(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self._size += len(piece)
        self._wake()

    def _end(self, error: ProxyError | None) -> None:
        self.over, self.error = True, error
        self._flow.error = error
        self._flow.finish()  # of one that was abandoned this changes nothing
        self._wake()

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()

    # -- those who get it ----------------------------------------------------------------------------------------

    def read_up_to(self, position: int) -> None:
        """Called by a reader that has got all before *position*: what nobody needs any more is let go."""
        if self._size <= self._max_bytes:
            return
        slowest = min((reader.position for reader in self._readers), default=position)
        if slowest > self.dropped:
            del self.pieces[: slowest - self.dropped]
            self.dropped = slowest

    def want(self) -> None:
        """Called by a reader that waits for more."""
        if self._size <= self._max_bytes or all(reader.waits for reader in self._readers):
            self._wanted.set()

    def leave(self, reader: _Reader) -> None:
        self._readers.discard(reader)
        if self._readers and not self.over and self._size > self._max_bytes:
            self.want()  # the slowest may have been this one
        self.close()

    def close(self) -> None:
        if not self.over and not self._readers:
            self._response.exchange.finish(End.ABANDONED)
            self._task.cancel()


class _Reader(Pumped):
    """The body of one who joined."""

    __slots__ = ("_more", "_shared", "position")

    def __init__(self, shared: SharedStream, tasks: Tasks) -> None:
        super().__init__(tasks)
        self._shared = shared
        self._more: asyncio.Future[None] | None = None
        self.position = 0

    @property
    def waits(self) -> bool:
        return self._more is not None

    async def read(self) -> bytes:
        shared = self._shared
        while not self._closed:
            if (at := self.position - shared.dropped) < len(shared.pieces):
                piece = shared.pieces[at]
                self.position += 1
                shared.read_up_to(self.position)
                return piece
            if shared.over:
                if shared.error is not None:
                    raise shared.error
                return b""
            self._more = asyncio.get_running_loop().create_future()
            shared.want()
            try:
                await self._more
            finally:
                self._more = None
        return b""

    def wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def close(self) -> None:
        if self._end():
            self.wake()
            self._shared.leave(self)

    def release(self) -> None:
        self.close()
