"""
What it costs to translate between each pair of protocols, over passing the same bytes on.

In one process, without any network: what a call needs of the dialects is done over and over, the pairs in turn, and the
least of all rounds counts. In a proxy at work the same code runs colder; the ratio of two pairs stays.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from bench.table import markdown, shown
from llmproxy_core.body import PulledBody
from llmproxy_core.chat import (
    ChatEvent,
    ChatReply,
    ChatRequest,
    Choice,
    End,
    Finish,
    Finished,
    FinishReason,
    Message,
    Start,
    TextDelta,
    TextPart,
    Tool,
    UsageReported,
)
from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.engine import engine_for
from llmproxy_core.exchange import Exchange
from llmproxy_core.plugins import Registry
from llmproxy_core.request import ClientView, Request
from llmproxy_core.response import Stream
from llmproxy_core.tasks import Tasks
from llmproxy_core.translation import Translation
from llmproxy_core.usage import Usage

CHUNKS = 200
TEXT = "The proxy passes on what it is given, and says what it has changed. " * 4
SCHEMA = b'{"type":"object","properties":{"city":{"type":"string","description":"A city"}},"required":["city"]}'
ASKED = ChatRequest(
    "bench-model",
    (
        Message("system", (TextPart("You are a careful assistant. " + TEXT),)),
        Message("user", (TextPart(TEXT),)),
        Message("assistant", (TextPart(TEXT),)),
        Message("user", (TextPart(TEXT + "What is the weather?"),)),
    ),
    max_output_tokens=500,
    temperature=0.5,
    tools=(Tool("weather", "The weather in a city", SCHEMA), Tool("time", "The time in a city", SCHEMA)),
)
"""About 2 KB in every protocol."""
USED = Usage(500, 200)
REPLY = ChatReply(
    "r-1", "bench-model", (Choice(0, (TextPart(TEXT),), Finish(FinishReason.STOP)),), USED, created=1_700_000_000
)
EVENTS: Sequence[ChatEvent] = (
    Start("r-1", "bench-model", 1_700_000_000),
    *(TextDelta(0, " token" if number % 7 else " words, and more.") for number in range(CHUNKS)),
    Finished(0, Finish(FinishReason.STOP)),
    UsageReported(USED),
    End(),
)


@attrs.frozen
class Side:
    """A protocol, as a client or an LLM speaks it in the bench: the same question, answer and stream in its words."""

    dialect: Dialect
    plain: Api
    streamed: Api
    question: bytes
    answer: bytes
    chunks: tuple[bytes, ...]

    @classmethod
    def of(cls, dialect: Dialect) -> Side | None:
        plain, streamed = (dialect.api_for(Operation.CHAT, stream=it) for it in (False, True))
        if plain is None or streamed is None:
            return None
        writer = dialect.writer(streamed, usage=True)
        chunks = tuple(filter(None, (writer.write([event], None) for event in EVENTS)))
        question, answer = dialect.write_chat(plain, ASKED), dialect.write_reply(plain, REPLY)
        return cls(dialect, plain, streamed, question, answer, chunks)


@attrs.frozen
class Costs:
    """Microseconds of CPU: of a call's request, of its whole answer, and of an event of its stream."""

    request: float
    answer: float
    chunk: float


class Pair:
    """A client of one protocol before an LLM of another, or of its own."""

    def __init__(self, client: Side, llm: Side) -> None:
        self.client = client
        self.llm = llm

    def ask(self) -> None:
        """What a request needs: its head, and the body for the LLM."""
        client, llm = self.client, self.llm
        body = b"%b" % client.question  # a new one: what was found in the last must not help
        request = Request(operation=Operation.CHAT, dialect=client.dialect, api=client.plain, body=body)
        _ = request.head
        own = client is llm
        translation = None if own else Translation(llm="bench", max_output_tokens=1000)
        request.render(
            llm.dialect,
            llm.plain,
            model=None if own else "bench-model",
            stream=None,
            ask_usage=False,
            translation=translation,
        )

    def tell(self) -> None:
        """What a whole answer needs."""
        client, llm = self.client, self.llm
        llm.dialect.scan_reply(llm.plain, llm.answer)
        if client is not llm:
            client.dialect.write_reply(client.plain, llm.dialect.read_reply(llm.plain, llm.answer))

    def stream(self, tasks: Tasks) -> None:
        """What a stream needs, one read for each event."""
        client, llm = self.client, self.llm
        request = Request(operation=Operation.CHAT, dialect=client.dialect, api=client.plain, body=client.question)
        exchange = Exchange(request, id="bench", route="/", tasks=tasks, clock=time.monotonic)
        body = PulledBody(_nothing, tasks=tasks)
        response = Stream(exchange, body, dialect=llm.dialect, api=llm.streamed)
        engine = engine_for(response, ClientView(client.dialect, client.streamed, stream=True, wants_usage=True))
        for chunk in llm.chunks:
            engine.feed(chunk)
        if not engine.done:
            engine.end()
        if engine.error is not None:
            raise engine.error


async def _nothing() -> bytes:
    return b""


def pairs(registry: Registry) -> list[Pair]:
    sides = [side for dialect in registry.dialects.values() if (side := Side.of(dialect)) is not None]
    return [Pair(client, llm) for client in sides for llm in sides]


async def measured(all_pairs: Sequence[Pair], *, rounds: int, calls: int) -> Mapping[tuple[str, str], Costs]:
    """The least CPU of *rounds* of *calls* each, the pairs in turn."""
    tasks = Tasks()
    best: dict[tuple[str, str], Costs] = {}
    for _ in range(rounds):
        for pair in all_pairs:
            key = pair.client.dialect.name, pair.llm.dialect.name
            streams = max(1, calls // 20)
            found = Costs(
                _each(pair.ask, calls),
                _each(pair.tell, calls),
                _each(lambda pair=pair: pair.stream(tasks), streams) / len(pair.llm.chunks),  # type: ignore[misc]
            )
            was = best.get(key, found)
            best[key] = Costs(
                min(was.request, found.request), min(was.answer, found.answer), min(was.chunk, found.chunk)
            )
            await asyncio.sleep(0)
    return best


def _each(work: Callable[[], None], calls: int) -> float:
    """Microseconds of CPU that *work* takes."""
    began = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - began) * 1e6 / calls


def pairs_table(costs: Mapping[tuple[str, str], Costs]) -> str:
    """Pass-through of each LLM's protocol, and what a client of another costs more."""
    body: list[Sequence[str]] = []
    for (client, llm), cost in costs.items():
        own = costs[llm, llm]
        if client == llm:
            body.append([f"{llm}, passed on", shown(cost.request), shown(cost.answer), f"{cost.chunk:.2f}", "", ""])
            continue
        call = cost.request + cost.answer - own.request - own.answer
        more = [f"{call:+.0f}", f"{cost.chunk - own.chunk:+.1f}"]
        body.append([f"{client} to {llm}", shown(cost.request), shown(cost.answer), f"{cost.chunk:.2f}", *more])
    head = [
        "client to LLM",
        "request, µs",
        "answer, µs",
        "event, µs",
        "call over pass-through",
        "event over pass-through",
    ]
    return markdown(head, body)


def run(*, rounds: int, tiny: bool) -> str:
    """Measure all pairs of installed dialects; the table."""
    found = pairs(Registry.load())
    return pairs_table(asyncio.run(measured(found, rounds=1 if tiny else rounds, calls=20 if tiny else 400)))
