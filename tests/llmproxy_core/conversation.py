"""A conversation in OpenAI's dialect: what is asked, what is answered, and the five ways of an answer to a client."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import attrs

from llmproxy_core import Api, Exchange, Handler, Price, Processor, ProxyError, Request, Response, Stream, Tasks, Usage
from llmproxy_core.chat import ChatRequest, Message, TextPart
from llmproxy_core.testing import Answer, FakeClock, Pipeline, Result, ScriptedBody, ScriptedLLM
from llmproxy_openai import OpenAIDialect
from tests.answers import DONE, chat_chunk, completion, sse, usage_chunk

SOON_S = 5
DIALECT = OpenAIDialect()
APIS: dict[str, Api] = {api.name: api for api in DIALECT.apis}
CHAT = APIS["openai.chat"]
COMPLETIONS = APIS["openai.completions"]
EMBEDDINGS = APIS["openai.embeddings"]

PRICE = Price(1_000_000_000, 2_000_000_000)  # $1 and $2 per million tokens
USED = Usage(9, 3)  # what `completion` and `usage_chunk` report
COST = 9 * 1_000 + 3 * 2_000  # nanodollars


# -- what is asked ---------------------------------------------------------------------------------------------------


def question(*, stream: bool = False, usage: bool = False, **members: object) -> bytes:
    """The body of a chat request; *usage*: its client asks for the usage of its stream."""
    body: dict[str, object] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], **members}
    if stream:
        body["stream"] = True
    if usage:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


def own_request(text: str = "hi", *, stream: bool = False) -> Request:
    """A request of a processor's own."""
    return Request.of_chat(ChatRequest("gpt-4o-mini", (Message("user", (TextPart(text),)),), stream=stream))


# -- what is answered ------------------------------------------------------------------------------------------------


def events(*texts: str, usage: bool = True, finish: str | None = "stop", done: bool = True) -> list[bytes]:
    """A stream that says *texts*, one event each."""
    values: list[dict[str, object]] = [chat_chunk(text) for text in texts]
    if finish is not None:
        values.append(chat_chunk(None, finish=finish))
    if usage:
        values.append(usage_chunk())
    return [*(sse(value, done=False) for value in values), *([DONE] if done else [])]


def whole(text: str) -> bytes:
    return json.dumps(completion(text)).encode()


def chunk(delta: dict[str, object], *, index: int = 0, finish: str | None = None, **choice: object) -> bytes:
    """One event of any delta."""
    value = chat_chunk(None)
    value["choices"] = [{"index": index, "delta": delta, "finish_reason": finish, **choice}]
    return sse(value, done=False)


ERROR_EVENT = b'data: {"error":{"message":"The server is overloaded","type":"server_error","code":"overloaded"}}\n\n'


# -- the ways of an answer -------------------------------------------------------------------------------------------


@attrs.frozen
class Way:
    """How an answer comes from the LLM and goes to the client."""

    name: str
    arrives_as_stream: bool
    leaves_as_stream: bool
    pushed: bool = False

    def answer(self, *texts: str, price: Price | None = None) -> Answer:
        if self.arrives_as_stream:
            return Answer(events(*texts), price=price)
        return Answer(whole=whole("".join(texts)), price=price)

    def __str__(self) -> str:
        return self.name


WAYS = [
    Way("reply to plain", False, False),
    Way("reply to stream", False, True),
    Way("stream to plain", True, False),
    Way("stream, pulled", True, True),
    Way("stream, pushed", True, True, pushed=True),
]
STREAMED = WAYS[3:]


# -- processors and runs ---------------------------------------------------------------------------------------------


class Asking:
    """A processor that does one thing with the response."""

    def __init__(self, act: Callable[[Response], object]) -> None:
        self._act = act

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        done = self._act(response)
        if isinstance(done, Awaitable):
            await done
        return response


class Doing:
    """A processor that is one function."""

    def __init__(self, act: Callable[[Exchange, Handler], Awaitable[Response]]) -> None:
        self._act = act

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        return await self._act(exchange, call_next)


@attrs.frozen
class Run:
    """What a run left behind."""

    result: Result
    llm: ScriptedLLM

    @property
    def body(self) -> bytes:
        return self.result.body

    @property
    def response(self) -> Response:
        """The LLM's last."""
        return self.llm.responses[-1]


async def run(
    script: Answer | Sequence[Answer],
    *processors: Processor,
    tasks: Tasks,
    body: bytes | None = None,
    stream: bool = False,
    usage: bool = False,
    pushed: bool = False,
    api: Api = CHAT,
    source_api: Api | None = None,
    clock: FakeClock | None = None,
) -> Run:
    """Ask an LLM that plays *script* through *processors* (the first outermost), and take the answer to its end."""
    answers = [script] if isinstance(script, Answer) else script
    llm = ScriptedLLM(answers, dialect=DIALECT, api=source_api or api, tasks=tasks)
    asked = question(stream=stream, usage=usage) if body is None else body
    async with (
        asyncio.timeout(SOON_S),
        Pipeline(DIALECT, llm, processors=processors, tasks=tasks, clock=clock) as pipeline,
    ):
        result = await pipeline.ask(api, asked, pushed=pushed)
    return Run(result, llm)


async def go(way: Way, *texts: str, processors: Sequence[Processor] = (), tasks: Tasks, usage: bool = False) -> Run:
    """An answer that says *texts* on its *way*."""
    return await run(
        way.answer(*texts, price=PRICE),
        *processors,
        tasks=tasks,
        stream=way.leaves_as_stream,
        usage=usage,
        pushed=way.pushed,
    )


def exchange(tasks: Tasks, *, api: Api = CHAT, body: bytes | None = None, clock: FakeClock | None = None) -> Exchange:
    """An exchange of a client's, outside any pipeline."""
    llm = ScriptedLLM([], dialect=DIALECT, api=api, tasks=tasks)
    return Pipeline(DIALECT, llm, tasks=tasks, clock=clock).exchange(api, question() if body is None else body)


def opened(owner: Exchange, tasks: Tasks, *chunks: bytes) -> tuple[Stream, ScriptedBody]:
    """A stream of *owner*'s that nobody has read."""
    body = ScriptedBody(chunks, tasks)
    return Stream(owner, body, dialect=DIALECT, api=CHAT), body


# -- reading what came -----------------------------------------------------------------------------------------------


def values(body: bytes) -> list[dict[str, Any]]:
    """The JSON values of a stream's events, the end mark left out."""
    data = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event.startswith(b"data: ")]
    return [json.loads(text) for text in data if text != b"[DONE]"]


def said(body: bytes, member: str = "content", choice: int = 0) -> str:
    """All that an answer, whole or streamed, says in *member* of a choice."""
    answers: Iterable[dict[str, Any]] = values(body) if b"\ndata: " in b"\n" + body else [json.loads(body)]
    choices = [it for value in answers for it in value.get("choices", []) if it["index"] == choice]
    return "".join((it.get("delta") or it.get("message") or {}).get(member) or "" for it in choices)


def error_in(body: bytes) -> dict[str, Any]:
    """The error that the last event of a stream tells."""
    found: dict[str, Any] = values(body)[-1]["error"]
    return found


def ended_with(error: ProxyError | None, code: str) -> bool:
    return error is not None and error.code == code
