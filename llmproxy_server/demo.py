"""The provider `demo`: an LLM in process, for a first answer without a key, for tests and for demonstrations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from llmproxy_core.attempt import Attempt
from llmproxy_core.body import PulledBody
from llmproxy_core.chat import ChatReply
from llmproxy_core.deadline import deadline_exceeded
from llmproxy_core.dialect import Api, Dialect, Operation, ReplyHead
from llmproxy_core.errors import InternalError, ProxyError, RouteNotFound, Unsupported, UpstreamCut, UpstreamError
from llmproxy_core.exchange import Exchange
from llmproxy_core.hookspecs import ProviderType, hookimpl
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.model_map import ModelMap
from llmproxy_core.money import Price
from llmproxy_core.option import between, option, some_seconds
from llmproxy_core.price_config import price_of
from llmproxy_core.prices import ModelPrice
from llmproxy_core.response import Reply, Response, Stream
from llmproxy_core.services import Services
from llmproxy_server import demo_text
from llmproxy_server.demo_models import MODELS, demo_headers, error_of, printable
from llmproxy_server.demo_stream import Paced, stalled, steps

_SLOWER = 10  # times, between two pieces of demo/slow
_PIECES_BEFORE_STALL = 3


@attrs.frozen(kw_only=True)
class DemoConfig(LLMConfig):
    """The keys of an LLM that answers by itself, without a model and without a network."""

    delay_ms: float = option(
        "Milliseconds between two pieces of a streamed answer.",
        default=20.0,
        validator=between(0, 60_000, "a number of milliseconds"),
    )
    slow_first_byte_s: float = option(
        "Seconds until `demo/slow` begins to answer.", default=2.0, validator=between(0, 3_600, "a number of seconds")
    )
    stall_s: float = option(
        "Seconds of silence after which `demo/stall` fails, as `timeouts.idle_s` does it for LLMs over HTTP.",
        default=30.0,
        validator=some_seconds,
    )


class DemoLLM:
    """Answers in the dialect of whoever asks. What it says is made by `demo_text`; here is how it is said."""

    def __init__(self, config: DemoConfig, services: Services) -> None:
        self._config = config
        self._services = services
        self.models = ModelMap(config.models, config.model)

    async def send(self, exchange: Exchange) -> Response:
        model = self._model(exchange)
        attempt = exchange.attempt(self._config.name, model)
        attempt.sent_s = attempt.started_s
        exchange.attempts.append(attempt)
        try:
            response = await self._answer(exchange, model, attempt)
        except ProxyError as error:
            attempt.failed(error, exchange.clock())
            attempt.status = error.upstream_status if isinstance(error, UpstreamError) else None
            raise
        attempt.status, attempt.headers_s = response.status, exchange.clock()
        return response

    async def prices(self, model: str | None) -> Sequence[ModelPrice | None]:
        return (ModelPrice("demo", self._price(model)),)

    def _price(self, model: str | None) -> Price:
        """Nothing, unless the configuration wants to be tried out with a price."""
        return price_of(model, self._config.prices) or Price(0, 0)

    async def aclose(self) -> None:
        """Nothing is held."""

    def _model(self, exchange: Exchange) -> str:
        """The model to play: as asked, unless the configuration says otherwise."""
        asked = exchange.request.model
        sent = self.models.sent(MODELS[0] if asked is None else asked)
        if sent is None:
            name = printable(asked or MODELS[0])
            raise RouteNotFound(f'No LLM here serves the model "{name}"', code="model_not_found", param="model")
        return sent

    async def _answer(self, exchange: Exchange, model: str, attempt: Attempt) -> Response:
        operation = exchange.request.operation
        if operation is not Operation.CHAT:
            raise Unsupported(
                f"The built-in demo answers chat only, not {operation}; configure an LLM of a provider for it"
            )
        dialect, api = _spoken(exchange, self._services.dialects)
        if (error := error_of(model)) is not None:
            error.headers = tuple(demo_headers(model))
            error.dialect, error.body = dialect.name, dialect.write_error(error, exchange.id)
            raise error
        chat = exchange.request.chat
        reply = demo_text.answer(chat, model=model, created=int(self._services.now()))
        if model == "demo/slow":
            await _silence(exchange, self._config.slow_first_byte_s)
        if exchange.request.head.stream and self._config.supports_streaming:
            return self._stream(exchange, reply, dialect, api, attempt)
        return await self._whole(exchange, reply, dialect, api, attempt)

    async def _whole(self, exchange: Exchange, reply: ChatReply, dialect: Dialect, api: Api, attempt: Attempt) -> Reply:
        if reply.model == "demo/cut":
            raise UpstreamCut("The demo cut the answer off, as asked")
        if reply.model == "demo/stall":
            await _silence(exchange, self._config.stall_s)
            raise stalled(self._config.stall_s)
        words = tuple(choice.finish.reason.value for choice in reply.choices if choice.finish is not None)
        return Reply(
            exchange,
            dialect.write_reply(api, reply),
            dialect=dialect,
            api=api,
            head=ReplyHead(reply.usage, reply.model, words, reply.id),
            headers=demo_headers(reply.model),
            llm=self._config.name,
            price=self._price(reply.model),
            attempt=attempt,
        )

    def _stream(self, exchange: Exchange, reply: ChatReply, dialect: Dialect, api: Api, attempt: Attempt) -> Stream:
        stream = Stream(
            exchange,
            self._body(reply, dialect, api),
            dialect=dialect,
            api=api,
            headers=demo_headers(reply.model),
            content_type=api.stream_type,
            llm=self._config.name,
            price=self._price(reply.model),
            attempt=attempt,
        )
        stream.model = reply.model
        return stream

    def _body(self, reply: ChatReply, dialect: Dialect, api: Api) -> PulledBody:
        """The stream, usage always included: the relay withholds it from a client that did not ask."""
        played = list(steps(reply))
        stall_s, delay_s = None, self._config.delay_ms / 1000
        if reply.model == "demo/slow":
            delay_s *= _SLOWER
        elif reply.model == "demo/cut":
            played = played[: len(played) // 2]
        elif reply.model == "demo/stall":
            played, stall_s = played[:-1][:_PIECES_BEFORE_STALL], self._config.stall_s
        writer = dialect.writer(api, usage=True)
        chunks = filter(None, (writer.write(events, None) for events in played))
        paced = Paced(chunks, delay_s=delay_s, stall_s=stall_s)
        return PulledBody(paced.read, tasks=self._services.tasks, close=paced.close)


async def _silence(exchange: Exchange, seconds: float) -> None:
    """Say nothing for *seconds*; UpstreamTimeout at the deadline, as by the clocks of LLMs over HTTP."""
    if exchange.deadline_s is not None and (left_s := exchange.deadline_s - exchange.clock()) < seconds:
        await asyncio.sleep(left_s)
        raise deadline_exceeded()
    await asyncio.sleep(seconds)


def _spoken(exchange: Exchange, dialects: Mapping[str, Dialect]) -> tuple[Dialect, Api]:
    """
    The wire form to answer in: the client's; of a call that a processor makes, that of the client it works for.

    A background call is nobody's: any dialect that knows chat will do.
    """
    asking: Exchange | None = exchange
    while asking is not None:
        source = asking.client or asking.request
        if source.dialect is not None:
            apis = [source.api, *source.dialect.apis]
            return source.dialect, next(api for api in apis if api is not None and api.operation is Operation.CHAT)
        asking = asking.parent
    for dialect in dialects.values():
        for api in dialect.apis:
            if api.operation is Operation.CHAT:
                return dialect, api
    raise InternalError("No registered dialect knows chat, so the demo cannot answer")


@hookimpl
def llmproxy_providers() -> Iterable[ProviderType[Any]]:
    return [ProviderType("demo", DemoConfig, DemoLLM)]
