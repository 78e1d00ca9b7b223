"""
For the tests of plugin authors: an LLM that plays a script, a clock that a test moves, a pipeline without a server.

    async with Pipeline(dialect, ScriptedLLM([Answer([b"data: ..."])]), processors=[MyProcessor()]) as pipeline:
        result = await pipeline.ask(api, body)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType

import attrs

from llmproxy_core.body import Sink
from llmproxy_core.dialect import Api, Dialect
from llmproxy_core.errors import ProxyError, UpstreamCut
from llmproxy_core.exchange import Attempt, Exchange
from llmproxy_core.headers import Headers
from llmproxy_core.model_map import ModelMap
from llmproxy_core.money import Price
from llmproxy_core.outcome import End, Outcome
from llmproxy_core.pipeline import Step, compose
from llmproxy_core.processor import Processor
from llmproxy_core.relay import Flow, Whole, deliver
from llmproxy_core.request import Request, client_view
from llmproxy_core.response import Reply, Response, Stream
from llmproxy_core.tasks import Tasks


class FakeClock:
    """Monotonic seconds that pass only when a test says so."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@attrs.frozen
class Answer:
    """
    What a scripted LLM does once: raise *error*; or a Reply of *whole*; or a Stream of *chunks*.

    A chunk may be an exception, which is raised in its place, or an asyncio.Event, which is waited for.
    """

    chunks: Sequence[bytes | ProxyError | asyncio.Event] = ()
    whole: bytes | None = None
    error: ProxyError | None = None
    price: Price | None = None


class ScriptedBody:
    """A body that plays chunks; the event loop turns once before each."""

    def __init__(self, chunks: Sequence[bytes | ProxyError | asyncio.Event], tasks: Tasks) -> None:
        self._chunks = list(chunks)
        self._tasks = tasks
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pump: asyncio.Task[None] | None = None
        self.ends = 0
        """How often it was closed or released: 1 in the end, or its connection was lost."""

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        if self.ends or not self._chunks:
            return b""
        chunk = self._chunks.pop(0)
        if isinstance(chunk, asyncio.Event):
            await chunk.wait()
            return await self.read()
        if isinstance(chunk, ProxyError):
            raise chunk
        return chunk

    def attach(self, sink: Sink) -> None:
        self._pump = self._tasks.start(self._push(sink), name="scripted body")

    async def _push(self, sink: Sink) -> None:
        try:
            while data := await self.read():
                sink.feed(data)
                await self._flowing.wait()
        except ProxyError as error:
            sink.end(error)
        else:
            if not self.ends:
                sink.end(None)

    def pause(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self.ends += 1
        if self._pump is not None and self._pump is not asyncio.current_task():
            self._pump.cancel()

    def release(self) -> None:
        self.close()


class ScriptedLLM:
    """An LLM that gives one answer of its script for each call; a call beyond the script fails."""

    def __init__(self, script: Sequence[Answer], *, dialect: Dialect, api: Api, tasks: Tasks) -> None:
        """*api* is what the answers' bytes are written in."""
        self._script = list(script)
        self._dialect = dialect
        self._api = api
        self._tasks = tasks
        self.models = ModelMap()
        self.requests: list[Request] = []
        """What was sent, in order."""
        self.bodies: list[ScriptedBody] = []
        self.responses: list[Response] = []

    async def send(self, exchange: Exchange) -> Response:
        self.requests.append(exchange.request)
        attempt = Attempt("scripted", exchange.request.model, exchange.clock())
        exchange.attempts.append(attempt)
        await asyncio.sleep(0)
        answer = self._script.pop(0) if self._script else Answer(error=UpstreamCut("The script is over"))
        if answer.error is not None:
            attempt.error = answer.error
            raise answer.error
        response: Response
        if answer.whole is not None:
            head = self._dialect.scan_reply(self._api, answer.whole)
            response = Reply(
                exchange, answer.whole, dialect=self._dialect, api=self._api, head=head, price=answer.price
            )
        else:
            body = ScriptedBody(answer.chunks, self._tasks)
            self.bodies.append(body)
            response = Stream(exchange, body, dialect=self._dialect, api=self._api, price=answer.price)
        self.responses.append(response)
        return response

    async def aclose(self) -> None:
        """Nothing is held."""


@attrs.define
class Result:
    """What the client of a pipeline got, and how the exchange ended. *error*: raised, or the end of the stream."""

    body: bytes
    outcome: Outcome
    exchange: Exchange
    pieces: list[bytes] = attrs.field(factory=list)
    error: ProxyError | None = None
    content_type: str = ""


class Pipeline:
    """Processors around an LLM, asked as a client would, without sockets. Leaving it waits for background work."""

    def __init__(
        self,
        dialect: Dialect,
        llm: ScriptedLLM,
        *,
        processors: Sequence[Processor] = (),
        tasks: Tasks,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._dialect = dialect
        self._clock = clock or FakeClock()
        self._handler = compose([Step(type(it).__name__, it) for it in processors], llm.send)
        self.tasks = tasks
        self.background: set[Exchange] = set()

    async def __aenter__(self) -> Pipeline:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.tasks.drain(5)

    def exchange(self, api: Api, body: bytes, *, headers: Sequence[tuple[str, str]] = ()) -> Exchange:
        """The exchange of a request with *body* in *api*."""
        request = Request(
            operation=api.operation,
            dialect=self._dialect,
            api=api,
            path=api.path,
            headers=Headers(headers),
            body=body,
        )
        return Exchange(
            request,
            id="test",
            route="/",
            tasks=self.tasks,
            clock=self._clock,
            client=client_view(request),
            background=self.background,
        )

    async def ask(
        self, api: Api, body: bytes, *, headers: Sequence[tuple[str, str]] = (), pushed: bool = False
    ) -> Result:
        """Ask, and take the answer to its end; *pushed* takes a stream by `attach` instead of reading it."""
        exchange = self.exchange(api, body, headers=headers)
        return await self.serve(exchange, pushed=pushed)

    async def serve(self, exchange: Exchange, *, pushed: bool = False) -> Result:
        """Do for *exchange* what an edge does. Cancelling it is the client going away."""
        result = Result(b"", Outcome(End.FAILED), exchange)
        try:
            response = await self._handler(exchange)
            assert exchange.client is not None
            delivery = await deliver(response, exchange.client)
            if isinstance(delivery, Whole):
                exchange.finish(End.COMPLETED)
                result.pieces.append(delivery.body)
            else:
                await (self._push(delivery, result) if pushed and delivery.pushable else self._pull(delivery, result))
                delivery.finish()
                exchange.finish(End.of(delivery.error), delivery.error)  # the response may be another exchange's
                result.error = delivery.error
            result.content_type = delivery.content_type
        except ProxyError as error:
            result.error = error
            exchange.finish(End.of(error), error)
        except asyncio.CancelledError:
            exchange.finish(End.ABANDONED)
            raise
        await exchange.settled(5)
        assert exchange.outcome is not None
        result.body, result.outcome = b"".join(result.pieces), exchange.outcome
        return result

    async def _pull(self, flow: Flow, result: Result) -> None:
        async for piece in flow.pieces():
            result.pieces.append(piece)

    async def _push(self, flow: Flow, result: Result) -> None:
        over = asyncio.Event()
        flow.attach(result.pieces.append, over.set)
        await over.wait()
