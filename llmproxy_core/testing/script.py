"""An LLM that plays a script."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import attrs

from llmproxy_core.body import Sink
from llmproxy_core.dialect import Api, Dialect
from llmproxy_core.errors import ProxyError, UpstreamCut
from llmproxy_core.exchange import Exchange
from llmproxy_core.model_map import ModelMap
from llmproxy_core.money import Price
from llmproxy_core.prices import ModelPrice
from llmproxy_core.request import Request
from llmproxy_core.response import Reply, Response, Stream
from llmproxy_core.tasks import Tasks


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

    pushes = False

    def __init__(self, chunks: Sequence[bytes | ProxyError | asyncio.Event], tasks: Tasks) -> None:
        self._chunks = list(chunks)
        self._tasks = tasks
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pump: asyncio.Task[None] | None = None
        self.ends = 0
        """How often it was closed or released: 1 in the end, or its connection was lost."""

    def whole(self) -> bytes | None:
        return None

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
        attempt = exchange.attempt("scripted", exchange.request.model)
        exchange.attempts.append(attempt)
        await asyncio.sleep(0)
        answer = self._script.pop(0) if self._script else Answer(error=UpstreamCut("The script is over"))
        if answer.error is not None:
            attempt.failed(answer.error, exchange.clock())
            raise answer.error
        response: Response
        if answer.whole is not None:
            head = self._dialect.scan_reply(self._api, answer.whole)
            response = Reply(
                exchange,
                answer.whole,
                dialect=self._dialect,
                api=self._api,
                head=head,
                price=answer.price,
                attempt=attempt,
            )
        else:
            body = ScriptedBody(answer.chunks, self._tasks)
            self.bodies.append(body)
            response = Stream(exchange, body, dialect=self._dialect, api=self._api, price=answer.price, attempt=attempt)
        self.responses.append(response)
        return response

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        """One entry: the price of the next answer of the script."""
        price = self._script[0].price if self._script else None
        return (None if price is None else ModelPrice("scripted", price),)

    async def aclose(self) -> None:
        """Nothing is held."""
