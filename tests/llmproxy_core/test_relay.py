"""The one way from a response to the client, whole or piece by piece, pulled or pushed, well or badly ended."""

import asyncio
import json
from typing import Any

import pytest

from llmproxy_core import (
    Channel,
    ClientView,
    End,
    Exchange,
    GuardrailBlocked,
    Handler,
    InternalError,
    Money,
    Reply,
    Request,
    Response,
    Stream,
    Tasks,
    TextFilter,
    Unsupported,
    UpstreamCut,
    Usage,
)
from llmproxy_core.chat import ChatReply, Choice, Finish, FinishReason, TextPart
from llmproxy_core.relay import Whole, deliver
from llmproxy_core.testing import Answer, ScriptedBody, ScriptedLLM
from llmproxy_core.text import Replace, WordWatcher
from tests.answers import DONE
from tests.llmproxy_core.conversation import (
    APIS,
    CHAT,
    COMPLETIONS,
    COST,
    DIALECT,
    EMBEDDINGS,
    SOON_S,
    STREAMED,
    USED,
    WAYS,
    Asking,
    Doing,
    Way,
    events,
    exchange,
    go,
    question,
    run,
    said,
    values,
    whole,
)
from tests.llmproxy_core.flows import PUSHED, client_of, flow_of, streamed, taken, whole_of
from tests.llmproxy_core.path_model_dialect import GENERATE, PathModelDialect
from tests.recordings import without_usage_chunk

# -- five ways, one answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_every_client_gets_the_answer_as_it_asked_for_it(tasks: Tasks, way: Way) -> None:
    done = await go(way, "hello ", "world", tasks=tasks)

    assert said(done.body) == "hello world"
    assert done.result.outcome.end is End.COMPLETED
    if way.leaves_as_stream:
        assert done.result.content_type == "text/event-stream"
        assert done.body.endswith(DONE)
        assert b'"usage":{' not in done.body
    else:
        assert done.result.content_type == "application/json"
        answer = json.loads(done.body)
        assert answer["object"] == "chat.completion"
        assert answer["usage"]["total_tokens"] == USED.total_tokens
        assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("way", [way for way in WAYS if way.leaves_as_stream], ids=str)
async def test_a_stream_tells_the_usage_to_who_asked_for_it(tasks: Tasks, way: Way) -> None:
    done = await go(way, "hello", tasks=tasks, usage=True)

    told = [value["usage"]["total_tokens"] for value in values(done.body) if value.get("usage")]
    assert told == [USED.total_tokens]
    assert values(done.body)[-1]["choices"] == []


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_every_response_has_ended_before_or_with_its_exchange(tasks: Tasks, way: Way) -> None:
    order: list[str] = []

    async def note(call: Exchange, call_next: Handler) -> Response:
        call.on_finish(lambda outcome: order.append("exchange"))
        response = await call_next(call)
        response.on_finish(lambda outcome: order.append("response"))
        return response

    done = await go(way, "hello", processors=[Doing(note)], tasks=tasks)

    assert order == ["response", "exchange"]
    assert done.response.outcome is not None
    assert done.response.outcome.end is End.COMPLETED
    assert all(body.ends == 1 for body in done.llm.bodies)


async def test_a_reply_in_the_clients_form_passes_as_the_bytes_received(tasks: Tasks) -> None:
    odd = b' {"model" : "m", "choices": [], "x_unknown": 1}\n'

    done = await run(Answer(whole=odd), tasks=tasks)

    assert done.body == odd


@PUSHED
async def test_a_stream_in_the_clients_form_passes_as_the_bytes_received(tasks: Tasks, pushed: bool) -> None:
    chunks = [b": hello\n\n", *events("a", "b")]

    done = await run(Answer(chunks), tasks=tasks, stream=True, pushed=pushed)

    assert done.body == without_usage_chunk(b"".join(chunks))
    assert len(done.result.pieces) <= len(chunks)
    assert all(done.result.pieces)  # nothing is written that says nothing


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_status_and_headers_of_the_maker_cross(tasks: Tasks, way: Way) -> None:
    headers = [("x-ratelimit-limit", "9")]
    call = exchange(tasks, body=question(stream=way.leaves_as_stream))
    response: Response
    if way.arrives_as_stream:
        body = ScriptedBody(events("hi"), tasks)
        response = Stream(call, body, dialect=DIALECT, api=CHAT, status=201, headers=headers)
    else:
        response = Reply(call, whole("hi"), dialect=DIALECT, api=CHAT, status=201, headers=headers)

    delivery = await asyncio.wait_for(deliver(response, client_of(stream=way.leaves_as_stream)), SOON_S)

    assert (delivery.status, delivery.headers) == (201, headers)
    call.finish(End.ABANDONED)


async def test_what_is_no_response_is_refused(tasks: Tasks) -> None:
    with pytest.raises((TypeError, AttributeError, InternalError)):
        await deliver(object(), client_of())  # type: ignore[arg-type]


# -- one dialect to another ------------------------------------------------------------------------------------------

OTHER = PathModelDialect()


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_answer_of_another_protocol_is_written_in_the_clients(tasks: Tasks, way: Way) -> None:
    call = exchange(tasks, body=question(stream=way.leaves_as_stream))
    llm = ScriptedLLM([way.answer("hello ", "world")], dialect=OTHER, api=GENERATE, tasks=tasks)

    delivery = await asyncio.wait_for(deliver(await llm.send(call), client_of(stream=way.leaves_as_stream)), SOON_S)
    if isinstance(delivery, Whole):
        body = delivery.body
    else:
        body = b"".join(await taken(delivery, pushed=way.pushed))
        delivery.finish()

    assert said(body) == "hello world"
    assert llm.responses[0].usage == USED
    if way.leaves_as_stream:
        assert body.endswith(DONE)


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_legacy_client_gets_its_own_form(tasks: Tasks, way: Way) -> None:
    asked = {"model": "m", "prompt": "hi"} | ({"stream": True} if way.leaves_as_stream else {})

    done = await run(
        way.answer("hello ", "world"),
        tasks=tasks,
        api=COMPLETIONS,
        source_api=CHAT,
        body=json.dumps(asked).encode(),
        pushed=way.pushed,
    )

    answers = values(done.body) if way.leaves_as_stream else [json.loads(done.body)]
    assert {answer["object"] for answer in answers} == {"text_completion"}
    assert "".join(choice["text"] for answer in answers for choice in answer["choices"]) == "hello world"


# -- an answer of a processor's own ----------------------------------------------------------------------------------

OWN = ChatReply("r1", "local", (Choice(0, (TextPart("by rule"),), Finish(FinishReason.STOP)),), Usage(1, 1))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_processor_may_answer_every_client(tasks: Tasks, stream: bool) -> None:
    async def answer(call: Exchange, call_next: Handler) -> Response:
        return Reply.of_chat(call, OWN)

    done = await run([], Doing(answer), tasks=tasks, stream=stream)

    assert said(done.body) == "by rule"
    assert done.body.endswith(DONE) is stream
    assert done.llm.requests == []
    assert done.result.outcome.cost is None


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_processor_may_read_an_answer_and_answer_with_it(tasks: Tasks, way: Way) -> None:
    async def read(call: Exchange, call_next: Handler) -> Response:
        return Reply.of_chat(call, await (await call_next(call)).reply())

    done = await go(way, "hello", processors=[Doing(read)], tasks=tasks)

    assert said(done.body) == "hello"
    assert done.result.outcome.end is End.COMPLETED
    assert done.result.outcome.usage == USED  # counted once, though two responses tell it
    assert done.result.outcome.cost == Money(COST)


def _redacting(channel: Channel) -> TextFilter:
    return Replace({"secret": "***"})


def _refuse(word: str) -> None:
    raise GuardrailBlocked("no")


def _watching(response: Response) -> None:
    response.watch(lambda channel: WordWatcher(["canary"], _refuse))


# -- what is no conversation -----------------------------------------------------------------------------------------

VECTORS = b'{"object":"list", "data":[{"embedding":[0.1]}], "model":"e", "usage":{"prompt_tokens":2,"total_tokens":2}}'


async def test_embeddings_pass_unread_whatever_was_subscribed_to_their_text(tasks: Tasks) -> None:
    def ask(response: Response) -> None:
        _watching(response)
        response.rewrite(_redacting)

    done = await run(
        Answer(whole=VECTORS), Asking(ask), tasks=tasks, api=EMBEDDINGS, body=b'{"model":"e","input":"canary"}'
    )

    assert done.body == VECTORS
    assert done.result.outcome.usage == Usage(2, 0)


async def test_model_lists_pass_unread(tasks: Tasks) -> None:
    models = APIS["openai.models"]
    call = exchange(tasks, api=models, body=b"")
    body = b'{"object": "list", "data": []}'

    delivery = await whole_of(Reply(call, body, dialect=DIALECT, api=models), ClientView(DIALECT, models))

    assert (delivery.body, delivery.content_type) == (body, "application/json")


async def test_embeddings_of_another_protocol_are_not_passed_for_ours(tasks: Tasks) -> None:
    call = exchange(tasks, api=EMBEDDINGS, body=b'{"model":"e"}')
    response = Reply(call, VECTORS, dialect=DIALECT, api=APIS["openai.models"])

    with pytest.raises(Unsupported, match=r"openai\.embeddings"):
        await whole_of(response, ClientView(DIALECT, EMBEDDINGS))

    assert response.outcome is not None


# -- opaque ----------------------------------------------------------------------------------------------------------

BINARY = [b"\x00\x01", b"data: [DONE]\n\n", b"\xff" * 10]


@PUSHED
async def test_opaque_bytes_pass_as_they_come(tasks: Tasks, pushed: bool) -> None:
    response, body = streamed(tasks, *BINARY, opaque=True)
    response.content_type = "audio/mpeg"

    flow = await flow_of(response, client_of(opaque=True))
    pieces = await taken(flow, pushed=pushed)
    flow.finish()

    assert pieces == BINARY
    assert (flow.status, flow.content_type, flow.error) == (201, "audio/mpeg", None)
    assert response.outcome is not None
    assert response.outcome.end is End.COMPLETED
    assert body.ends == 1


@PUSHED
async def test_an_opaque_answer_that_breaks_gets_no_event_of_ours(tasks: Tasks, pushed: bool) -> None:
    response, _ = streamed(tasks, BINARY[0], UpstreamCut("reset"), opaque=True)

    flow = await flow_of(response, client_of(opaque=True))
    pieces = await taken(flow, pushed=pushed)
    flow.finish()

    assert b"".join(pieces) == BINARY[0]
    assert isinstance(flow.error, UpstreamCut)
    assert response.exchange.outcome is not None
    assert response.exchange.outcome.end is End.FAILED


async def test_an_opaque_reply_passes_with_its_own_type(tasks: Tasks) -> None:
    call = exchange(tasks, body=question())
    response = Reply(call, b"<html>", dialect=DIALECT, api=None, content_type="text/html")

    delivery = await whole_of(response, client_of(opaque=True))

    assert (delivery.body, delivery.content_type) == (b"<html>", "text/html")


async def test_keeping_an_opaque_reply_keeps_nothing(tasks: Tasks) -> None:
    """There is no wire form to keep it in."""
    response = Reply(exchange(tasks), b"<html>", dialect=DIALECT, api=None)
    keep = response.keep_body(1000)

    await whole_of(response, client_of(opaque=True))

    assert keep.body is None


# -- answers that were read before, or are another exchange's --------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_answer_that_a_processor_has_read_can_still_be_passed_on(tasks: Tasks, way: Way) -> None:
    """A judge reads the whole answer and returns it; what an outer processor then asks of it holds too."""
    read: list[str] = []

    async def judge(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        read.append((await response.reply()).text)
        return response

    outer = Asking(lambda response: response.rewrite(lambda channel: Replace({"tea": "TEA"})))

    taken = await go(way, "tea and", " tea", processors=[outer, Doing(judge)], tasks=tasks)

    assert read == ["tea and tea"]
    assert said(taken.body) == "TEA and TEA"
    assert taken.result.outcome.end is End.COMPLETED
    assert (taken.result.outcome.usage, taken.result.outcome.cost) == (USED, Money(COST))


async def test_an_answer_that_was_read_is_read_again_the_same(tasks: Tasks) -> None:
    response, _ = streamed(tasks, *events("a", "b"))

    assert (await response.reply()).text == (await response.reply()).text == "ab"


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_the_answer_of_a_child_ends_the_childs_parent_too(tasks: Tasks, way: Way) -> None:
    async def ask_another(exchange: Exchange, call_next: Handler) -> Response:
        return await call_next(exchange.child(Request.of_chat(exchange.request.chat)))

    taken = await go(way, "hello", processors=[Doing(ask_another)], tasks=tasks)

    assert said(taken.body) == "hello"
    assert taken.result.exchange.outcome is not None
    assert taken.result.outcome.end is End.COMPLETED
    assert taken.result.outcome.cost == Money(COST)


@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_a_flow_ends_the_exchange_in_whose_name_it_was_made(tasks: Tasks, way: Way) -> None:
    parent = exchange(tasks, body=question(stream=True))
    child = parent.child(Request.of_chat(parent.request.chat))
    response = Stream(child, ScriptedBody(events("x"), tasks), dialect=DIALECT, api=CHAT)

    flow = await flow_of(response, client_of(stream=True))
    await taken(flow, pushed=way.pushed)
    flow.finish()

    assert child.outcome is not None
    assert parent.outcome is not None
    assert (child.outcome.end, parent.outcome.end) == (End.COMPLETED, End.COMPLETED)


LIMIT = b'{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded","own":1}}'


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_an_error_in_a_stream_keeps_the_providers_words_whoever_watches(
    tasks: Tasks, way: Way, watched: bool
) -> None:
    watching = [Asking(lambda response: response.watch(lambda channel: None))] if watched else []
    script = Answer([*events("so far", finish=None, usage=False, done=False), b"data: " + LIMIT + b"\n\n"])

    taken = await run(script, *watching, tasks=tasks, stream=True, pushed=way.pushed)

    assert taken.body.endswith(b"data: " + LIMIT + b"\n\n")


async def test_a_guard_that_would_see_nothing_of_an_opaque_answer_is_told_so(tasks: Tasks) -> None:
    response, _ = streamed(tasks, opaque=True)

    def looking(_: object) -> Any:
        raise AssertionError("nothing is looked at")

    with pytest.raises(TypeError, match="no text"):
        response.watch(looking)
    with pytest.raises(TypeError, match="no text"):
        response.rewrite(looking)
    with pytest.raises(TypeError, match="no text"):
        response.replace(looking)
    response.exchange.finish(End.ABANDONED)
