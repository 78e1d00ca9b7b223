"""
The machinery under any order of events: chunk, cut, error, cancel, retry, raise, client gone.

Whatever happens, there is exactly one outcome per response and per exchange, and one bill with all that was used in its
name; every body is closed or released once, and no task, child or detached exchange is left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import attrs
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core import (
    Api,
    Dialect,
    Exchange,
    GuardrailBlocked,
    Handler,
    Outcome,
    Processor,
    ProxyError,
    Reply,
    Request,
    Response,
    Tasks,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
    Usage,
)
from llmproxy_core.chat import ChatEvent, ChatReply, ChatRequest, Choice, Finish, FinishReason, Message, TextPart
from llmproxy_core.outcome import End
from llmproxy_core.relay import Flow
from llmproxy_core.testing import Answer, Pipeline, Result, ScriptedLLM
from llmproxy_openai import OpenAIDialect
from tests.recordings import without_usage_chunk

DIALECT = OpenAIDialect()
CHAT = next(api for api in DIALECT.apis if api.name == "openai.chat")
COMPLETIONS = next(api for api in DIALECT.apis if api.name == "openai.completions")


# -- what an upstream may do -----------------------------------------------------------------------------------------

_HEAD = b'{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":['


def _chunk(text: str) -> bytes:
    return b"data: " + _HEAD + b'{"index":0,"delta":{"content":"' + text.encode() + b'"},"finish_reason":null}]}\n\n'


FINISH = b"data: " + _HEAD + b'{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b"data: " + _HEAD + b'],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = (
    b'{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":'
    b'"assistant","content":"hello canary"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,'
    b'"completion_tokens":2,"total_tokens":5}}'
)

pieces: st.SearchStrategy[bytes | ProxyError | asyncio.Event] = st.one_of(
    st.sampled_from(["a", "canary", "b c"]).map(_chunk),
    st.sampled_from(
        [
            FINISH,
            USAGE,
            FINISH + USAGE + DONE,
            DONE,
            b": ping\n\n",
            b'data: {"error":{"message":"overloaded"}}\n\n',
            b"data: {garbage\n\n",
            _chunk("split")[:20],
            UpstreamCut("cut"),
            UpstreamTimeout("idle", code="upstream_timeout_idle"),
        ]
    ),
)
proper = st.lists(st.sampled_from(["a", "canary"]).map(_chunk), max_size=4).map(
    lambda chunks: (*chunks, FINISH, USAGE, DONE)
)
answers = st.one_of(
    proper.map(Answer),
    st.lists(pieces, max_size=6).map(Answer),
    st.just(Answer(whole=WHOLE)),
    st.sampled_from([UpstreamError("503", status=503), UpstreamCut("reset")]).map(lambda error: Answer(error=error)),
)


# -- what processors may do ------------------------------------------------------------------------------------------


class Counting:
    """Counts every outcome it is told: each must come exactly once."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.told: list[Outcome] = []
        self.asked = 0
        self.billed_before: int | None = None
        """How many processors had been told the bill before this one."""

    def bill(self, outcome: Outcome) -> None:
        if self.billed_before is None:  # of the client's own exchange, not of another one's child
            self.billed_before = len(BILLED)
            BILLED.append(self)
        self.told.append(outcome)

    def count(self, outcome: Outcome) -> None:
        self.told.append(outcome)

    async def count_later(self, outcome: Outcome) -> None:
        await asyncio.sleep(0)
        self.told.append(outcome)

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        self.asked += 2
        exchange.on_finish(self.count)
        exchange.on_billed(self.bill if exchange.parent is None and exchange is CURRENT.exchange else self.count)
        if self.verb == "refuse":
            raise GuardrailBlocked("refused")
        if self.verb == "raise":
            raise ZeroDivisionError("a bug")
        if self.verb == "answer":
            text = TextPart("from a file")
            reply = ChatReply("r", "m", (Choice(0, (text,), Finish(FinishReason.STOP)),))
            return Reply.of_chat(exchange, reply)
        if self.verb == "child":
            await self._child(exchange, call_next)
        if self.verb == "siblings":
            async with asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(self._child(exchange, call_next))
        await self._detach(exchange, call_next)
        if self.verb == "pass on a child's":
            child = exchange.child(Request.of_chat(exchange.request.chat))
            response = await call_next(child)
        else:
            response = await self._call(exchange, call_next)
        self._ask(response)
        return await self._after(exchange, call_next, response)

    async def _call(self, exchange: Exchange, call_next: Handler) -> Response:
        try:
            async with asyncio.timeout(0 if self.verb == "time out" else None):
                return await call_next(exchange)
        except UpstreamError:
            if self.verb != "retry":
                raise
        except TimeoutError:
            if self.verb != "time out":
                raise
        return await call_next(exchange)

    def _ask(self, response: Response) -> None:
        if self.verb == "failing callbacks":
            response.on_finish(_fail)
            response.on_finish(_fail_later)
            response.exchange.on_finish(_fail)
            response.exchange.on_finish(_fail_later)
        self.asked += 2
        response.on_finish(self.count)
        response.on_finish(self.count_later)
        match self.verb:
            case "watch":
                response.watch(lambda channel: Blocking())
            case "buggy watch":
                response.watch(lambda channel: Buggy())
            case "rewrite":
                response.rewrite(lambda channel: Upper())
            case "replace":
                response.replace(_passed_on)
            case "replace early":
                response.replace(_cut_short)
            case "buggy replace":
                response.replace(_broken)
            case "keep":
                response.keep_body(1000)
            case _:
                pass

    async def _after(self, exchange: Exchange, call_next: Handler, response: Response) -> Response:
        match self.verb:
            case "raise after":
                raise ZeroDivisionError("a bug")
            case "drop and call again":
                response = await call_next(exchange)
            case "started":
                try:
                    await response.started()
                except UpstreamError:
                    response = await call_next(exchange)
            case "drain":
                reply = await response.reply()
                return Reply.of_chat(exchange, reply)
            case "read and pass on":
                await response.reply()
            case "swallow cancellation":
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    return await call_next(exchange)
            case _:
                pass
        return response

    async def _child(self, exchange: Exchange, call_next: Handler) -> None:
        child = exchange.child(Request.of_chat(ChatRequest("m", (Message("user", (TextPart("q"),)),))))
        self.asked += 1
        child.on_finish(self.count)
        try:
            async with child:
                await (await call_next(child)).reply()
        except ProxyError:
            return

    def _detached(self, exchange: Exchange) -> Exchange:
        background = exchange.detach(Request.of_chat(ChatRequest("m", (Message("user", (TextPart("q"),)),))))
        self.asked += 2
        background.on_finish(self.count)
        background.on_billed(self.count)
        return background

    def _detached_too_late(self, exchange: Exchange) -> None:
        late = self._detached(exchange)
        assert late.outcome is not None or exchange.parent is not None  # a child's parent may still be billed
        late.finish(End.COMPLETED)

    async def _detach(self, exchange: Exchange, call_next: Handler) -> None:
        match self.verb:
            case "detach":
                self._fly(self._detached(exchange), call_next)
            case "detach and wait":
                self._fly(self._detached(exchange), call_next)
                await self._flight
            case "a child detaches":
                async with exchange.child(exchange.request) as child:
                    self._fly(self._detached(child), call_next)
            case "detach for another":
                async with self._detached(exchange) as other:
                    self._fly(self._detached(other), call_next)
            case "detach at the end":
                exchange.on_finish(lambda outcome: self._detached(exchange).finish(End.COMPLETED))
            case "detach after the end":
                exchange.on_billed(lambda outcome: self._detached_too_late(exchange))
            case _:
                pass

    def _fly(self, background: Exchange, call_next: Handler) -> None:
        async def work() -> None:
            try:
                async with background:
                    await (await call_next(background)).reply()
            except ProxyError:
                return

        self._flight = CURRENT.tasks.start(work(), name="flight")
        # A task that is cancelled before it began never enters its `async with`.
        self._flight.add_done_callback(lambda task: background.finish(End.ABANDONED))


class Blocking:
    def __init__(self) -> None:
        self._seen = ""

    def feed(self, text: str) -> None:
        self._seen += text
        if "canary" in self._seen:
            raise GuardrailBlocked("a word that is not for you")

    def end(self) -> None:
        """Nothing is held."""


class Buggy:
    def feed(self, text: str) -> None:
        raise ZeroDivisionError("a bug of a watcher")

    def end(self) -> None:
        """Nothing is held."""


class Upper:
    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        text, self._held = self._held, text.upper()
        return text

    def flush(self) -> str:
        return self._held


async def _passed_on(events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    async for event in events:
        yield event


async def _cut_short(events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    async for event in events:
        yield event
        return


async def _broken(events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
    async for event in events:
        yield event
        raise ZeroDivisionError("a bug of a replacement")


def _fail(outcome: Outcome) -> None:
    raise ZeroDivisionError("a bug of a callback")


async def _fail_later(outcome: Outcome) -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError("a bug of a callback")


class Current:
    """The run under way: processors are built before it."""

    tasks: Tasks
    exchange: Exchange


CURRENT = Current()
BILLED: list[Counting] = []

verbs = st.sampled_from(
    [
        "nothing",
        "refuse",
        "raise",
        "answer",
        "child",
        "siblings",
        "pass on a child's",
        "detach",
        "detach and wait",
        "a child detaches",
        "detach for another",
        "detach at the end",
        "detach after the end",
        "retry",
        "watch",
        "buggy watch",
        "rewrite",
        "replace",
        "replace early",
        "buggy replace",
        "keep",
        "raise after",
        "drop and call again",
        "started",
        "drain",
        "read and pass on",
        "time out",
        "failing callbacks",
        "swallow cancellation",
    ]
)


@attrs.frozen
class Run:
    """One run of everything: who stands in the chain, what the upstream does, when the client goes."""

    verbs: tuple[str, ...]
    script: tuple[Answer, ...]
    stream: bool
    legacy: bool
    """The client speaks the API of completions, which the LLM does not."""
    wants_usage: bool
    pushed: bool
    gone_after: int | None
    """Turns of the event loop after which the client has gone (1: the call has begun); None: it stays."""


runs = st.builds(
    Run,
    verbs=st.lists(verbs, max_size=4).map(tuple),
    script=st.lists(answers, max_size=5).map(tuple),
    stream=st.booleans(),
    legacy=st.booleans(),
    wants_usage=st.booleans(),
    pushed=st.booleans(),
    gone_after=st.none() | st.integers(1, 40),
)


@given(run=runs)
def test_any_order_of_events_gives_each_response_and_exchange_exactly_one_end(run: Run) -> None:
    asyncio.run(asyncio.wait_for(_check(run), 20))


async def _check(run: Run) -> None:
    tasks = CURRENT.tasks = Tasks()
    BILLED.clear()
    llm = NotingLLM(run.script, dialect=DIALECT, api=CHAT, tasks=tasks)
    processors = [Counting(verb) for verb in run.verbs]
    chain: list[Processor] = [*processors]
    async with Halting(DIALECT, llm, processors=chain, tasks=tasks) as pipeline:
        exchange = pipeline.exchange(COMPLETIONS if run.legacy else CHAT, _question(run))
        CURRENT.exchange = exchange
        ends, bills = list[Outcome](), list[Outcome]()
        exchange.on_finish(ends.append)
        exchange.on_billed(bills.append)
        result = await _served(pipeline, exchange, run)
        await exchange.settled(5)
        await tasks.drain(5)

    assert len(ends) == 1
    assert ends[0] is exchange.outcome
    assert not pipeline.background
    assert len(tasks) == 0
    for processor in processors:
        assert len(processor.told) == processor.asked
    for response in llm.responses:
        assert response.outcome is not None
    assert [body.ends for body in llm.bodies] == [1] * len(llm.bodies)
    assert len(bills) == 1
    assert bills[0].usage == _used(llm)
    assert _tokens(_used(llm, exchange)) <= _tokens(ends[0].usage) <= _tokens(bills[0].usage)
    assert [processor for processor in reversed(processors) if processor in BILLED] == BILLED
    if result is not None:
        _check_answer(run, result)


class NotingLLM(ScriptedLLM):
    """Knows what nobody pays for: what was asked for an exchange that had ended."""

    def __init__(self, script: Sequence[Answer], *, dialect: Dialect, api: Api, tasks: Tasks) -> None:
        super().__init__(script, dialect=dialect, api=api, tasks=tasks)
        self.too_late: list[Response] = []

    async def send(self, exchange: Exchange) -> Response:
        response = await super().send(exchange)
        if response.outcome is not None:
            self.too_late.append(response)
        return response


def _used(llm: NotingLLM, exchange: Exchange | None = None) -> Usage | None:
    """What all calls used; with *exchange*, those of its own and its children's alone."""
    total: Usage | None = None
    for response in llm.responses:
        origin: Exchange = response.exchange
        while origin.parent is not None:
            origin = origin.parent
        counts = exchange in (None, origin) and response not in llm.too_late
        if counts and response.outcome is not None and (used := response.outcome.usage) is not None:
            total = used if total is None else total + used
    return total


def _tokens(usage: Usage | None) -> int:
    return 0 if usage is None else usage.total_tokens


class Halting(Pipeline):
    """A pipeline whose client pauses after each piece that is pushed."""

    async def _push(self, flow: Flow, result: Result) -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()

        def write(piece: bytes) -> None:
            result.pieces.append(piece)
            flow.pause()
            loop.call_soon(flow.resume)

        flow.attach(write, over.set)
        await over.wait()


def _question(run: Run) -> bytes:
    stream = b',"stream":true' if run.stream else b""
    if run.stream and run.wants_usage:
        stream += b',"stream_options":{"include_usage":true}'
    asked = b'"prompt":"hello"' if run.legacy else b'"messages":[{"role":"user","content":"hello"}]'
    return b'{"model":"m",' + asked + stream + b"}"


async def _served(pipeline: Pipeline, exchange: Exchange, run: Run) -> Result | None:
    """The result, or None when the client had gone before there was one."""
    serving = pipeline.tasks.start(pipeline.serve(exchange, pushed=run.pushed), name="edge")
    if run.gone_after is not None:
        for _ in range(run.gone_after):
            await asyncio.sleep(0)
        serving.cancel()
    try:
        return await serving
    except asyncio.CancelledError:
        assert exchange.outcome is not None
        return None


def _check_answer(run: Run, result: Result) -> None:
    """What the client sees agrees with how the exchange ended."""
    completed = result.outcome.end is End.COMPLETED
    assert completed == (result.error is None)
    if run.stream and result.body:
        assert result.body.endswith(b"data: [DONE]\n\n") == completed
        assert (b'"error"' in result.body) == (not completed)
        assert run.wants_usage or without_usage_chunk(result.body) == result.body
    if run.verbs[:1] == ("watch",):  # outermost: nothing below it can bring the word past it
        assert b"canary" not in result.body
