"""
The view of a plugin's author, held by `mypy --strict` alone: this file is type-checked, never run.

What stands here must stay possible with public names and without casts or ignores.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import assert_type

import attrs

from llmproxy_core import (
    Channel,
    Endpoint,
    EndpointReply,
    EndpointRequest,
    Exchange,
    GuardrailBlocked,
    Handler,
    HttpLLM,
    HttpLLMConfig,
    Keep,
    LLMClient,
    Money,
    Note,
    Operation,
    Outcome,
    Processor,
    ProcessorType,
    Reply,
    Request,
    Response,
    Services,
    Stream,
    TextFilter,
    Usage,
    Watcher,
    hookimpl,
    option,
)
from llmproxy_core.chat import ChatEvent, ChatReply, ChatRequest, Choice, Finish, FinishReason, Message, TextPart

QUESTION: Note[str] = Note("question")


@attrs.frozen(kw_only=True)
class PoliteConfig:
    """Adds a sentence to the system prompt."""

    sentence: str = option("What is added.", default="Please.", fills_config_value=True)
    judge: str | None = option("The LLM that judges the answer.", default=None)


class Polite:
    """Uses every verb of the contract once."""

    def __init__(self, config: PoliteConfig, services: Services) -> None:
        self._config = config
        self._services = services

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        chat = exchange.request.chat
        assert_type(chat, ChatRequest)
        system = Message("system", (TextPart(self._config.sentence),))
        exchange.request = exchange.request.with_chat(attrs.evolve(chat, messages=(system, *chat.messages)))
        exchange.notes[QUESTION] = chat.messages[-1].text
        assert_type(exchange.notes[QUESTION], str)
        exchange.on_finish(self.count)

        if self._config.judge is not None:
            await self._judge(exchange, self._services.llm(self._config.judge))
        response = await call_next(exchange)
        await response.started()
        response.on_finish(self.store)
        assert_type(response.keep_body(1000), Keep)
        response.watch(lambda channel: Guard() if channel.kind == "text" else None)
        response.rewrite(Shout)
        response.replace(without_pings)
        match response:
            case Stream():
                pass
            case Reply(body=body):
                assert_type(body, bytes)
        return response

    async def _judge(self, exchange: Exchange, llm: LLMClient) -> None:
        async with exchange.child(Request.of_chat(ChatRequest("judge", exchange.request.chat.messages))) as child:
            verdict = await (await llm.send(child)).reply()
        assert_type(verdict, ChatReply)
        if "no" in verdict.text:
            raise GuardrailBlocked("The judge said no")

    def count(self, outcome: Outcome) -> None:
        assert_type(outcome.usage, Usage | None)
        assert_type(outcome.cost, Money | None)

    async def store(self, outcome: Outcome) -> None:
        if outcome.body is not None:
            assert_type(outcome.body.data, bytes)


class Canned:
    """Answers by itself."""

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        choice = Choice(0, (TextPart("No."),), Finish(FinishReason.STOP))
        return Reply.of_chat(exchange, ChatReply("canned-1", "canned", (choice,)))


class Guard:
    def feed(self, text: str) -> None:
        if "secret" in text:
            raise GuardrailBlocked("That is not for you")

    def end(self) -> None: ...


class Shout:
    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def feed(self, text: str) -> str:
        return text.upper()

    def flush(self) -> str:
        return ""


async def without_pings(events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    async for event in events:
        yield event


guard: Watcher = Guard()
shout: TextFilter = Shout(Channel())
canned: Processor = Canned()

POLITE = ProcessorType(
    name="polite", config=PoliteConfig, build=Polite, operations=frozenset({Operation.CHAT}), skippable=True
)


@hookimpl
def llmproxy_processors() -> Iterable[ProcessorType[PoliteConfig]]:
    return [POLITE]


async def version(request: EndpointRequest) -> EndpointReply:
    return EndpointReply(b'{"version": 1}')


@hookimpl
def llmproxy_endpoints() -> Iterable[Endpoint]:
    return [Endpoint("GET", "/api/version", version)]


def build(config: HttpLLMConfig, services: Services) -> LLMClient:
    from llmproxy_openai import OpenAIDialect

    return HttpLLM(config, OpenAIDialect(), services)
