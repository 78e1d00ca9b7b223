"""The LLM of the conformance tests: it answers every call, and remembers how."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import attrs

from llmproxy_core.body import Sink
from llmproxy_core.chat import ChatReply
from llmproxy_core.dialect import Api, Operation
from llmproxy_core.errors import ProxyError
from llmproxy_core.exchange import Exchange
from llmproxy_core.model_list import ModelInfo
from llmproxy_core.model_map import ModelMap
from llmproxy_core.money import Price
from llmproxy_core.prices import ModelPrice
from llmproxy_core.request import Request
from llmproxy_core.response import Reply, Response, Stream
from llmproxy_core.tasks import Tasks
from llmproxy_core.testing.asked import SeenRequest, chat, rendered
from llmproxy_core.testing.declared import Declared
from llmproxy_core.testing.said import MODEL, Said, in_words
from llmproxy_core.testing.script import ScriptedBody

PRICE = Price(1_000_000_000, 2_000_000_000)  # $1 and $2 per million tokens: no rounding


Piece = bytes | ProxyError | asyncio.Event
"""What a scripted body plays: bytes, an error that is raised, an event that is waited for."""


@attrs.frozen
class Play:
    """
    How a call of a client is answered: *error* is raised; else *said*, as *chunks* where it is streamed.

    *helper_error* is raised for calls of the processor's own.
    """

    said: Said
    streamed: bool = False
    chunks: Sequence[Piece] = ()
    error: ProxyError | None = None
    helper_error: ProxyError | None = None


@attrs.define(eq=False)
class Call:
    """One call that an LLM got. *own*: in a child's name, by the processor."""

    exchange: Exchange
    own: bool
    belongs: bool
    """Whether its exchange is the client's, or was made with `child` or `detach`."""
    shared: bool
    body: bytes
    headers: list[tuple[str, str]]
    looked_into: bool
    """Whether somebody had looked into the client's request before."""
    response: Response | None = None
    played: ScriptedBody | None = None


class PlayedStream(Stream, eq=False):
    """A stream that notices when somebody reads it who should not."""

    delivered: bool = False
    """It was answered with: from here on it is read for the client. A shared one is read for many."""
    touched: bool = False
    """It was read before, and not by `reply()` or `started()`."""
    drained: bool = False
    """`reply()` was asked for."""
    _draining: bool = False

    async def read(self) -> bytes:
        self._look()
        return await super().read()

    def attach(self, sink: Sink) -> None:
        self._look()
        super().attach(sink)

    async def reply(self) -> ChatReply:
        self.drained = self._draining = True
        try:
            return await super().reply()
        finally:
            self._draining = False

    def _look(self) -> None:
        if not (self.delivered or self._draining):
            self.touched = True


class Book:
    """What all LLMs of a gateway have in common: how calls are answered, by the id of their exchange, and the calls."""

    def __init__(self) -> None:
        self.plays: dict[str, Play] = {}
        self.calls: list[Call] = []
        self.clients: set[Exchange] = set()
        """The exchanges of the clients."""
        self.background: Collection[Exchange] = ()
        """The detached exchanges of the gateway."""

    def of(self, exchange: Exchange) -> list[Call]:
        """The calls in the name of a client's *exchange*."""
        return [call for call in self.calls if call.exchange.id == exchange.id]


class PlayedLLM:
    """Answers each call as its book says; calls of a processor's own get the helper's text."""

    def __init__(self, declared: Declared, tasks: Tasks) -> None:
        self._declared = declared
        self._dialect = declared.dialect
        self._tasks = tasks
        self.models = ModelMap()
        self.book = Book()

    async def send(self, exchange: Exchange) -> Response:
        request = exchange.request
        api = self._api(request)
        looked_into = isinstance(request, SeenRequest) and request.looked_into
        body = await self._sent(request, api)
        own, shared = exchange.client is None, exchange in self.book.background
        call = Call(exchange, own, self._belongs(exchange), shared, body, list(request.headers), looked_into)
        self.book.calls.append(call)
        attempt = exchange.attempt("scripted", request.model)
        exchange.attempts.append(attempt)
        await asyncio.sleep(0)
        play = self.book.plays[exchange.id]
        if (error := play.helper_error if own else play.error) is not None:
            attempt.failed(error, exchange.clock())
            raise error
        if own:
            play = Play(attrs.evolve(play.said, text=self._declared.helper_says, calls=(), reasoning="", id="helper"))
        call.response = self._answer(call, play, api)
        return call.response

    def _belongs(self, exchange: Exchange) -> bool:
        oldest = exchange
        while oldest.parent is not None:
            oldest = oldest.parent
        return oldest in self.book.clients or oldest in self.book.background

    def _api(self, request: Request) -> Api | None:
        """The wire form that *request* is sent in: its own, where it has one."""
        if request.api is not None or request.operation is not Operation.CHAT:
            return request.api
        return chat(self._declared, stream=request.chat.stream).api

    async def _sent(self, request: Request, api: Api | None) -> bytes:
        if api is not None:
            return rendered(request, self._dialect, api)
        if request.content is None:
            return request.body
        if isinstance(request.content, bytes):
            return request.content
        return b"".join([piece async for piece in request.content])

    def _answer(self, call: Call, play: Play, api: Api | None) -> Response:
        exchange, dialect = call.exchange, self._dialect
        operation = exchange.request.operation
        if api is None:
            return self._stream(call, [self._sample(operation)], api, "application/octet-stream")
        if operation is Operation.MODELS:
            return self._reply(exchange, dialect.write_models(api, [ModelInfo(MODEL, created=1_700_000_000)]), api)
        if operation is not Operation.CHAT:
            return self._reply(exchange, self._sample(operation), api)
        client, asked_stream = exchange.client, exchange.request.head.stream
        if asked_stream and client is None:
            return self._stream(call, play.said.stream(dialect, api, in_words), api, api.stream_type)
        if play.streamed and (asked_stream or (client is not None and not client.stream)):
            return self._stream(call, play.chunks, api, api.stream_type)
        return self._reply(exchange, play.said.whole(dialect, api), api)

    def _sample(self, operation: Operation) -> bytes:
        sample = self._declared.sample(operation)
        return b"" if sample is None else sample.answer

    def _reply(self, exchange: Exchange, body: bytes, api: Api) -> Reply:
        scanned = api.operation is not Operation.MODELS
        head = self._dialect.scan_reply(api, body) if scanned else None
        price = PRICE if scanned else None
        return Reply(exchange, body, dialect=self._dialect, api=api, head=head, llm="scripted", price=price)

    def _stream(self, call: Call, chunks: Sequence[Piece], api: Api | None, content_type: str) -> Stream:
        call.played = body = ScriptedBody(chunks, self._tasks)
        stream = PlayedStream(
            call.exchange,
            body,
            dialect=self._dialect,
            api=api,
            content_type=content_type,
            llm="scripted",
            price=PRICE,
        )
        stream.delivered = call.shared
        return stream

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return (ModelPrice("scripted", PRICE),)

    async def aclose(self) -> None:
        """Nothing is held."""
