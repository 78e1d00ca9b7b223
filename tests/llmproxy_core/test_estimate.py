"""Tokens that nobody told are estimated, and marked: of answers that LLMs made, and of no others."""

import asyncio
import json
from collections.abc import Callable, Sequence

import pytest

from llmproxy_core import (
    Api,
    Dialect,
    End,
    Exchange,
    Money,
    Operation,
    Price,
    Reply,
    Request,
    Response,
    Stream,
    Tasks,
    UpstreamCut,
    Usage,
    UsageSource,
)
from llmproxy_core.chat import ChatReply
from llmproxy_core.dialect import ReplyHead
from llmproxy_core.relay import Flow, deliver
from llmproxy_core.testing import ScriptedBody
from llmproxy_openai import OpenAIDialect
from tests.llmproxy_core.conversation import (
    CHAT,
    DIALECT,
    EMBEDDINGS,
    PRICE,
    SOON_S,
    USED,
    events,
    exchange,
    own_request,
    question,
    whole,
)
from tests.llmproxy_core.filters import Logging

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
TOKENS = -(-len(TEXT) // 4)
INPUT = 4 + 1  # the turn, and "hi"
PIECES = [TEXT[start : start + 9] for start in range(0, len(TEXT), 9)]


def _stream(call: Exchange, tasks: Tasks, chunks: Sequence[bytes | UpstreamCut], *, llm: str = "x") -> Stream:
    return Stream(call, ScriptedBody(chunks, tasks), dialect=DIALECT, api=CHAT, llm=llm, price=PRICE)


async def _delivered(response: Response, call: Exchange, *, pushed: bool = False) -> None:
    assert call.client is not None
    async with asyncio.timeout(SOON_S):
        flow = await deliver(response, call.client)
        if not isinstance(flow, Flow):
            return
        if pushed:
            over = asyncio.Event()
            flow.attach(lambda piece: None, over.set)
            await over.wait()
        else:
            async for _ in flow.pieces():
                pass
        flow.finish()


def _asked(tasks: Tasks, *, stream: bool = True) -> Exchange:
    return exchange(tasks, body=question(stream=stream))


def _used(response: Response) -> Usage:
    assert response.outcome is not None
    assert response.outcome.usage is not None
    assert response.outcome.usage is response.usage
    assert response.outcome.cost == PRICE.cost(response.outcome.usage)
    return response.outcome.usage


# -- streams ---------------------------------------------------------------------------------------------------------

COPIED: Callable[[Response], None] = lambda response: None  # noqa: E731
WATCHED: Callable[[Response], None] = lambda response: response.watch(Logging())  # noqa: E731
READERS = pytest.mark.parametrize("ask", [COPIED, WATCHED], ids=["copied", "decoded"])


@READERS
@pytest.mark.parametrize("pushed", [False, True])
@pytest.mark.parametrize(
    ("rest", "end"),
    [
        ([], End.FAILED),
        ([UpstreamCut("cut")], End.FAILED),
        (events(usage=False), End.COMPLETED),
        ([b'data: {"error":{"message":"overloaded"}}\n\n'], End.FAILED),
    ],
    ids=["no end", "cut", "never says", "error"],
)
async def test_a_stream_that_ends_without_a_usage_is_counted(
    tasks: Tasks,
    ask: Callable[[Response], None],
    pushed: bool,
    rest: list[bytes | UpstreamCut],
    end: End,
) -> None:
    call = _asked(tasks)
    response = _stream(call, tasks, [*events(*PIECES, usage=False, finish=None, done=False), *rest])
    ask(response)

    await _delivered(response, call, pushed=pushed)

    used = _used(response)
    assert used.source is UsageSource.ESTIMATED
    assert used.input_tokens == INPUT
    assert TOKENS <= used.output_tokens <= 1.2 * TOKENS
    assert response.outcome is not None
    assert response.outcome.end is end
    assert call.outcome is not None
    assert (call.outcome.usage, call.outcome.cost) == (used, PRICE.cost(used))


@READERS
async def test_of_a_client_that_left_what_was_read_is_counted(tasks: Tasks, ask: Callable[[Response], None]) -> None:
    call = _asked(tasks)
    response = _stream(call, tasks, events(*PIECES, *PIECES))
    ask(response)
    assert call.client is not None
    flow = await deliver(response, call.client)
    assert isinstance(flow, Flow)
    pieces = flow.pieces()
    for _ in PIECES:
        await anext(pieces)

    call.finish(End.ABANDONED)

    assert TOKENS <= _used(response).output_tokens <= 1.2 * TOKENS


async def test_of_a_stream_that_nobody_read_the_question_is_counted(tasks: Tasks) -> None:
    call = _asked(tasks)
    response = _stream(call, tasks, events(*PIECES))

    call.finish(End.ABANDONED)

    assert _used(response) == Usage(INPUT, 0, source=UsageSource.ESTIMATED)


async def test_what_a_processor_reads_is_counted_too(tasks: Tasks) -> None:
    call = _asked(tasks)
    response = _stream(call, tasks, events(*PIECES, usage=False))

    await response.reply()

    assert TOKENS <= _used(response).output_tokens <= 1.2 * TOKENS


@READERS
async def test_what_was_reported_is_never_estimated(tasks: Tasks, ask: Callable[[Response], None]) -> None:
    """Not even when the stream breaks after it."""
    answers: list[list[bytes | UpstreamCut]] = [
        [*events(*PIECES)],
        [*events(*PIECES, done=False), UpstreamCut("cut")],
    ]
    for chunks in answers:
        call = _asked(tasks)
        response = _stream(call, tasks, chunks)
        ask(response)

        await _delivered(response, call)

        assert _used(response) == USED


async def test_the_question_that_counts_is_the_one_that_was_sent(tasks: Tasks) -> None:
    """The next attempt may ask for something else before this one is over."""
    call = _asked(tasks)
    response = _stream(call, tasks, events(*PIECES))
    call.request = own_request("much longer " * 100)

    call.finish(End.ABANDONED)

    assert _used(response).input_tokens == INPUT


# -- whole answers ---------------------------------------------------------------------------------------------------


def _without_usage(text: str) -> bytes:
    answer = json.loads(whole(text))
    del answer["usage"]
    return json.dumps(answer).encode()


def _reply(call: Exchange, body: bytes, *, api: Api = CHAT, llm: str = "x", dialect: Dialect = DIALECT) -> Reply:
    return Reply(call, body, dialect=dialect, api=api, head=dialect.scan_reply(api, body), llm=llm, price=PRICE)


async def test_a_whole_answer_without_a_usage_is_counted(tasks: Tasks) -> None:
    call = _asked(tasks, stream=False)
    response = _reply(call, _without_usage(TEXT))

    await _delivered(response, call)

    assert _used(response) == Usage(INPUT, TOKENS, source=UsageSource.ESTIMATED)


async def test_a_whole_answer_that_reports_its_usage_is_believed(tasks: Tasks) -> None:
    call = _asked(tasks, stream=False)
    response = _reply(call, whole(TEXT))

    await _delivered(response, call)

    assert _used(response) == USED


async def test_embeddings_have_no_output(tasks: Tasks) -> None:
    call = exchange(tasks, api=EMBEDDINGS, body=json.dumps({"model": "e", "input": TEXT}).encode())
    response = _reply(call, b'{"object":"list","model":"e","data":[]}', api=EMBEDDINGS)

    response.finish(End.COMPLETED)

    used = _used(response)
    assert (used.output_tokens, used.source) == (0, UsageSource.ESTIMATED)
    assert TOKENS <= used.input_tokens <= 2 * TOKENS  # the members around the text are few


async def test_an_answer_to_an_exchange_that_is_over_tells_what_it_cost(tasks: Tasks) -> None:
    """A task went on after the client had left; nobody is billed."""
    call = _asked(tasks, stream=False)
    call.finish(End.ABANDONED)

    told, silent = _reply(call, whole(TEXT)), _reply(call, _without_usage(TEXT))

    assert _used(told) == USED
    assert _used(silent).output_tokens == TOKENS
    assert call.outcome is not None
    assert call.outcome.usage is None


# -- what is nobody's to pay -----------------------------------------------------------------------------------------


async def test_an_answer_that_no_llm_made_uses_nothing(tasks: Tasks) -> None:
    call = _asked(tasks, stream=False)
    own, read = _reply(call, _without_usage(TEXT), llm=""), _stream(call, tasks, events(*PIECES, usage=False), llm="")

    await _delivered(read, call)
    own.finish(End.COMPLETED)

    for response in (own, read):
        assert response.outcome is not None
        assert (response.outcome.usage, response.outcome.cost) == (None, None)


@pytest.mark.parametrize(("price", "cost"), [(PRICE, Money()), (None, None)])
@pytest.mark.parametrize("head", [None, ReplyHead(USED)])
async def test_an_answer_that_was_paid_for_elsewhere_uses_nothing(
    tasks: Tasks, price: Price | None, cost: Money | None, head: ReplyHead | None
) -> None:
    call = _asked(tasks, stream=False)
    response = Reply(call, whole(TEXT), dialect=DIALECT, api=CHAT, head=head, llm="x", price=price, billed=False)

    await _delivered(response, call)

    assert response.outcome is not None
    assert (response.outcome.usage, response.outcome.cost) == (None, cost)
    assert response.usage == (None if head is None else USED)  # which it still tells
    call.finish(End.COMPLETED)
    assert call.outcome is not None
    assert (call.outcome.usage, call.outcome.cost) == (None, cost)


async def test_a_stream_that_was_paid_for_elsewhere_uses_nothing(tasks: Tasks) -> None:
    call = _asked(tasks)
    body = ScriptedBody(events(*PIECES), tasks)
    response = Stream(call, body, dialect=DIALECT, api=CHAT, llm="x", price=PRICE, billed=False)

    await _delivered(response, call)

    assert response.outcome is not None
    assert (response.outcome.usage, response.outcome.cost) == (None, Money())


@pytest.mark.parametrize("operation", [Operation.MODELS, Operation.OPAQUE])
async def test_what_is_not_billed_by_tokens_is_not_counted(tasks: Tasks, operation: Operation) -> None:
    call = _asked(tasks)
    api = next((api for api in DIALECT.apis if api.operation is operation), None)
    response = Stream(call, ScriptedBody([b"anything"], tasks), dialect=DIALECT, api=api, llm="x")

    response.finish(End.COMPLETED)

    assert response.outcome is not None
    assert response.outcome.usage is None


# -- what cannot be read ---------------------------------------------------------------------------------------------


async def test_of_what_cannot_be_read_the_length_counts(tasks: Tasks) -> None:
    call = exchange(tasks, body=b'{"model":"m","messages":' + b'"' + b"x" * 400 + b'"}')
    response = Reply(call, b"[" * 400, dialect=DIALECT, api=CHAT, llm="x", price=PRICE)

    response.finish(End.FAILED)

    used = _used(response)
    assert 100 <= used.input_tokens <= 120
    assert used.output_tokens == 100


@pytest.mark.parametrize("text", ["\ud800", "\ud83d\ude00", "字" * 30, "\x00"], ids=ascii)
async def test_no_text_keeps_a_response_from_ending(tasks: Tasks, text: str) -> None:
    call = _asked(tasks, stream=False)
    response = Reply(call, _without_usage(text), dialect=DIALECT, api=CHAT, llm="x", price=PRICE)

    response.finish(End.COMPLETED)

    assert _used(response).output_tokens > 0


class Buggy(OpenAIDialect):
    """A dialect with a bug, as a plugin's may have."""

    def read_reply(self, api: Api, body: bytes) -> ChatReply:
        raise ZeroDivisionError("a bug")


async def test_a_dialects_bug_keeps_no_response_from_ending(tasks: Tasks, caplog: pytest.LogCaptureFixture) -> None:
    call, ends = _asked(tasks, stream=False), list[End]()
    response = Reply(call, whole(TEXT), dialect=Buggy(), api=CHAT, llm="x", price=PRICE)
    call.on_finish(lambda outcome: ends.append(outcome.end))

    call.finish(End.COMPLETED)

    assert ends == [End.COMPLETED]
    assert response.outcome is not None
    assert (response.outcome.usage, response.outcome.cost) == (None, None)
    assert len(caplog.records) == 1


async def test_a_request_of_our_own_is_counted_by_its_meaning(tasks: Tasks) -> None:
    call = exchange(tasks)
    child = call.child(own_request(TEXT))
    response = _stream(child, tasks, [])

    call.finish(End.ABANDONED)

    assert _used(response).input_tokens == 4 + TOKENS


def test_a_request_with_tools_and_media_counts_them() -> None:
    from llmproxy_core.estimate import estimated_usage

    def tokens(*parts: dict[str, object], **members: object) -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": list(parts)}], **members}
        request = Request(operation=Operation.CHAT, dialect=DIALECT, api=CHAT, body=json.dumps(body).encode())
        return estimated_usage(request, 0).input_tokens

    said: dict[str, object] = {"type": "text", "text": TEXT}
    image: dict[str, object] = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    tool = {"type": "function", "function": {"name": "look", "description": TEXT, "parameters": {"type": "object"}}}

    assert tokens(said) == 4 + TOKENS
    assert tokens(said, image) == 4 + TOKENS + 765  # not the length of its bytes
    assert 4 + 2 * TOKENS < tokens(said, tools=[tool]) < 4 + 2 * TOKENS + 20
