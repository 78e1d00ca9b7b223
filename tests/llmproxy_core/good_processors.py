"""Processors as a stranger writes them, all of them good."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs

from llmproxy_core import (
    Exchange,
    ExtraCall,
    GuardrailBlocked,
    Handler,
    Operation,
    Processor,
    ProcessorType,
    RateLimited,
    Reply,
    Request,
    Response,
    Services,
    UpstreamError,
    Window,
    option,
    positive,
)
from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    ChatRequest,
    Choice,
    Finish,
    FinishReason,
    Message,
    TextPart,
)

CHAT = frozenset({Operation.CHAT})
EVERYTHING = frozenset(Operation)


@attrs.frozen(kw_only=True)
class NoConfig:
    """Nothing to configure."""


def kind(
    name: str,
    build: Callable[[Any, Services], Processor],
    *,
    config: type[Any] = NoConfig,
    operations: frozenset[Operation] = CHAT,
    skippable: bool = False,
) -> ProcessorType[Any]:
    return ProcessorType(name, config, build, operations, skippable=skippable)


def of(act: Callable[[Exchange, Handler, Services], Awaitable[Response]], **declared: Any) -> ProcessorType[Any]:
    """The type of processors that are one function without state."""

    class Doing:
        def __init__(self, config: object, services: Services) -> None:
            self._services = services

        async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
            return await act(exchange, call_next, self._services)

    return kind(act.__name__, Doing, **declared)


# -- good ------------------------------------------------------------------------------------------------------------


async def passes(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    return await call_next(exchange)


class SecretWatcher:
    """Stops an answer that says the word, however it comes."""

    def __init__(self) -> None:
        self._seen = ""

    def feed(self, text: str) -> None:
        self._seen = (self._seen + text)[-20:]
        if "top secret" in self._seen:
            raise GuardrailBlocked("That is not for you")

    def end(self) -> None: ...


async def watches(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    response = await call_next(exchange)
    response.watch(lambda channel: SecretWatcher())
    response.keep_body(10_000)
    return response


@attrs.frozen(kw_only=True)
class RedactConfig:
    """Replaces a word in what the model says."""

    word: str = option("The word.", example="Tokyo", fills_config_value=True)
    mark: str = option("What stands in its place.", default="…")

    def __attrs_post_init__(self) -> None:
        if not self.word:
            raise ValueError("expected a word")


class Redacting:
    """A filter that holds back only what may still become the word."""

    def __init__(self, config: RedactConfig) -> None:
        self._config = config
        self._held = ""

    def feed(self, text: str) -> str:
        word = self._config.word
        *done, self._held = (self._held + text).split(word)
        keep = next((n for n in range(len(word) - 1, 0, -1) if self._held.endswith(word[:n])), 0)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return "".join(piece + self._config.mark for piece in done) + out

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held


class Redact:
    def __init__(self, config: RedactConfig, services: Services) -> None:
        self._config = config

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        response.rewrite(lambda channel: Redacting(self._config) if channel.kind == "text" else None)
        return response


async def answers_itself(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    choice = Choice(0, (TextPart("Nein. 東京"),), Finish(FinishReason.STOP))
    return Reply.of_chat(exchange, ChatReply("canned-1", "canned", (choice,)))


async def other_model(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    exchange.request = exchange.request.with_model("better-1")
    return await call_next(exchange)


async def whole_first(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    """Looks at the whole answer before any of it goes out."""
    response = await call_next(exchange)
    if "top secret" in (await response.reply()).text:
        raise GuardrailBlocked("That is not for you")
    return response


async def _same(events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    async for event in events:
        yield event


async def replaces(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    response = await call_next(exchange)
    response.replace(_same)
    return response


async def tries_again(exchange: Exchange, call_next: Handler, services: Services) -> Response:
    try:
        response = await call_next(exchange)
        await response.started()
    except UpstreamError:
        response = await call_next(exchange)
    return response


@attrs.frozen(kw_only=True)
class AskConfig:
    """Asks a model first."""

    llm: str | None = option("The LLM that is asked; absent: the route's own.", default=None, refers_to="llm")
    patience_s: float = option("Seconds it may take.", default=5.0, validator=positive, example=2.5)


class AsksFirst:
    """Lets a model rewrite the question; what that fails with does not matter."""

    def __init__(self, config: AskConfig, services: Services) -> None:
        self._config = config
        self._services = services

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        chat = exchange.request.chat
        named = self._config.llm
        llm = self._services.llm(named) if named else self._services.route(exchange.route).llm
        question = ChatRequest(chat.model, (Message("user", (TextPart(chat.messages[-1].text),)),))
        try:
            async with exchange.child(Request.of_chat(question)) as child:
                better = (await (await llm.send(child)).reply()).text
        except UpstreamError:
            return await call_next(exchange)
        last = attrs.evolve(chat.messages[-1], content=(TextPart(better),))
        exchange.request = exchange.request.with_chat(attrs.evolve(chat, messages=(*chat.messages[:-1], last)))
        return await call_next(exchange)


def _one_call(config: AskConfig, request: Request) -> list[ExtraCall]:
    return [ExtraCall(config.llm, None, len(request.body), None)]


def asks_first(**declared: Any) -> ProcessorType[Any]:
    return ProcessorType("asks_first", AskConfig, AsksFirst, CHAT, **declared)


ASKS_FIRST = asks_first(extra_cost_bound=_one_call)
REDACT = kind("redact", Redact, config=RedactConfig)


@attrs.frozen(kw_only=True)
class LimitConfig:
    """At most so many calls in a minute."""

    calls: int = option("How many.", validator=positive, example=100)
    store: str = option("Where they are counted.", default="memory", refers_to="store")


class Limit:
    def __init__(self, config: LimitConfig, services: Services) -> None:
        self._config = config
        self._counter = services.store(config.store).counter("limit")

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        if (await self._counter.add(exchange.caller.name, 1, window=Window.MINUTE)).value > self._config.calls:
            raise RateLimited("Too many calls")
        return await call_next(exchange)


LIMIT = kind("limit", Limit, config=LimitConfig, operations=EVERYTHING)
