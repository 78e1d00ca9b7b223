"""Processors as a stranger writes them, each with one fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import attrs

from llmproxy_core import (
    Channel,
    End,
    Exchange,
    Handler,
    Outcome,
    PulledBody,
    Reply,
    Request,
    Response,
    Services,
    Stream,
    UpstreamError,
    option,
)
from llmproxy_core.chat import ChatEvent, ChatReply, ChatRequest, Message, TextPart, UsageReported
from tests.llmproxy_core.good_processors import EVERYTHING, kind, of


async def _blocks(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    response = await call_next(exchange)
    time.sleep(0.08)  # noqa: ASYNC251, TID251 - the fault
    return response


async def _blocks_later(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    async def save(outcome: Outcome) -> None:
        time.sleep(0.08)  # noqa: ASYNC251, TID251 - the fault

    exchange.on_finish(save)
    return await call_next(exchange)


async def _without_usage(events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    async for event in events:
        if not isinstance(event, UsageReported):
            yield event


async def _drops_usage(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    response = await call_next(exchange)
    response.replace(_without_usage)
    return response


async def _retells(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    """Its own reply holds the text, and nothing else of the answer."""
    reply = await (await call_next(exchange)).reply()
    choices = tuple(attrs.evolve(it, content=(TextPart(it.text),)) for it in reply.choices)
    return Reply.of_chat(exchange, ChatReply("mine", "mine", choices))


class _Bytes:
    """Passes a text on in pieces of five bytes, whatever character ends there."""

    def feed(self, text: str) -> str:
        data = text.encode()
        return "".join(data[at : at + 5].decode(errors="replace") for at in range(0, len(data), 5))

    def flush(self) -> str:
        return ""


async def _splits_utf8(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    response = await call_next(exchange)
    response.rewrite(lambda channel: _Bytes())
    return response


class _PerPiece:
    """Replaces a word only where it comes in one piece."""

    def feed(self, text: str) -> str:
        return text.replace("東京", "Tokyo")

    def flush(self) -> str:
        return ""


async def _filters_each_piece(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    response = await call_next(exchange)
    response.rewrite(lambda channel: _PerPiece())
    return response


async def _iterates(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    """Reads the stream, and answers with one of its own making."""
    response = await call_next(exchange)
    if not isinstance(response, Stream):
        return response
    pieces: list[bytes] = []
    while piece := await response.read():
        pieces.append(piece)
    response.finish(End.COMPLETED)
    left = iter(pieces)

    async def read() -> bytes:
        return next(left, b"")

    body = PulledBody(read, tasks=services.tasks)
    return Stream(exchange, body, dialect=response.dialect, api=response.api)


async def _wraps(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    """Reads the stream as it comes, as text."""
    response = await call_next(exchange)
    if not isinstance(response, Stream):
        return response

    async def read() -> bytes:
        return (await response.read()).decode(errors="replace").encode()

    body = PulledBody(read, tasks=services.tasks, close=lambda: response.finish(End.COMPLETED))
    return Stream(exchange, body, dialect=response.dialect, api=response.api)


async def _swallows_cancellation(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    try:
        return await call_next(exchange)
    except BaseException:  # noqa: BLE001 - the fault
        return await call_next(exchange)


async def _drops_a_response(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    await call_next(exchange)
    return await call_next(exchange)


async def _leaks_a_detached_one(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    await call_next(exchange.detach(exchange.request))
    return await call_next(exchange)


async def _leaves_a_task(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    task = services.tasks.start(asyncio.Event().wait(), name="forgotten")
    exchange.log_fields["task"] = task.get_name()
    return await call_next(exchange)


class _KeepsTheCall:
    """What belongs to a call is kept on the instance."""

    def __init__(self, config: object, services: Services) -> None:
        self._request: Request | None = None

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        self._request = exchange.request
        await asyncio.sleep(0)
        exchange.request = self._request
        return await call_next(exchange)


class _OneFilter:
    """One filter for all calls."""

    def __init__(self, config: object, services: Services) -> None:
        self._held = ""

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        response.rewrite(self._channel)
        return response

    def _channel(self, channel: Channel) -> _OneFilter | None:
        return self if channel.kind == "text" else None

    def feed(self, text: str) -> str:
        text = self._held + text
        self._held = text[-3:]
        return text[:-3]

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held


class _Remembers:
    """The second call of an instance gets another answer than the first."""

    def __init__(self, config: object, services: Services) -> None:
        self._seen: set[str] = set()

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        text = exchange.request.chat.messages[-1].text
        if text in self._seen:
            exchange.request = exchange.request.with_model("cheaper-1")
        self._seen.add(text)
        return await call_next(exchange)


class _Hoard:
    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        self._held += text
        return ""

    def flush(self) -> str:
        return self._held


async def _holds_all_back(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    response = await call_next(exchange)
    response.rewrite(lambda channel: _Hoard())
    return response


async def _changes_the_request(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    exchange.request = exchange.request.with_model("cheaper-1")
    return await call_next(exchange)


async def _reads_the_request(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    exchange.log_fields["asked"] = exchange.request.chat.messages[-1].text
    return await call_next(exchange)


async def _reads_the_answer(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    response = await call_next(exchange)
    response.keep_body(1000)
    return response


async def _hides_errors(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    response = await call_next(exchange)
    try:
        return Reply.of_chat(exchange, await response.reply())
    except UpstreamError as error:
        raise UpstreamError("Something went wrong") from error


async def _unbilled(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    """Asks a model in the name of an exchange that nobody knows."""
    chat = ChatRequest("scripted-1", (Message("user", (TextPart("Is it good?"),)),))
    stranger = Exchange(
        Request.of_chat(chat), id=exchange.id, route=exchange.route, tasks=services.tasks, clock=services.clock
    )
    async with stranger:
        await (await services.route(exchange.route).llm.send(stranger)).reply()
    return await call_next(exchange)


async def _looks_into_everything(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    response = await call_next(exchange)
    response.watch(lambda channel: None)  # an opaque answer has no text: a TypeError
    return response


async def _asks_nobody(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    return Reply.of_chat(exchange, ChatReply("mine", "mine", ()))


@attrs.frozen(kw_only=True)
class RateConfig:
    """A rate without a validator, with an example that is no number."""

    per_minute: int = option("How many a minute.", default=60)


class _Rate:
    def __init__(self, config: RateConfig, services: Services) -> None:
        self._every_s = 60 / config.per_minute

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        return await call_next(exchange)


@attrs.frozen(kw_only=True)
class MisledConfig:
    """Its documentation shows what is not accepted."""

    per_minute: int = option("How many a minute.", default=60, example="sixty")


BAD: dict[str, Any] = {
    "blocks the loop": of(_blocks),
    "blocks the loop once the call is over": of(_blocks_later),
    "drops the usage": of(_drops_usage),
    "retells the answer": of(_retells),
    "splits UTF-8": of(_splits_utf8),
    "filters each piece for itself": of(_filters_each_piece),
    "iterates the stream": of(_iterates),
    "wraps the stream": of(_wraps),
    "swallows cancellation": of(_swallows_cancellation),
    "drops a response": of(_drops_a_response),
    "leaks a detached exchange": of(_leaks_a_detached_one),
    "leaves a task": of(_leaves_a_task),
    "keeps the call on itself": kind("keeps_the_call", _KeepsTheCall),
    "has one filter for all": kind("one_filter", _OneFilter),
    "remembers calls": kind("remembers", _Remembers),
    "holds all back": of(_holds_all_back),
    "changes the request": of(_changes_the_request),
    "reads the request": of(_reads_the_request),
    "reads the answer": of(_reads_the_answer),
    "hides errors": of(_hides_errors),
    "asks without paying": of(_unbilled),
    "looks into what is opaque": of(_looks_into_everything, operations=EVERYTHING),
    "asks nobody": of(_asks_nobody),
    "cannot stand zero": kind("rate", _Rate, config=RateConfig),
    "shows a wrong example": kind("misled", _Rate, config=MisledConfig),
}
