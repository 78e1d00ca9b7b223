"""The one way from a response to the client, whole or piece by piece, pulled or pushed, well or badly ended."""

import asyncio
import json
from collections.abc import Callable

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
    Outcome,
    ProxyError,
    Reply,
    Response,
    Secret,
    Stream,
    Tasks,
    TextFilter,
    Unsupported,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
    Usage,
)
from llmproxy_core.chat import ChatReply, Choice, Finish, FinishReason, TextPart
from llmproxy_core.relay import Flow, Whole, deliver
from llmproxy_core.testing import Answer, Result, ScriptedBody, ScriptedLLM
from llmproxy_core.text import Replace, WordWatcher
from tests.answers import DONE, chat_chunk, completion, sse
from tests.llmproxy_core.conversation import (
    APIS,
    CHAT,
    COMPLETIONS,
    COST,
    DIALECT,
    EMBEDDINGS,
    ERROR_EVENT,
    SOON_S,
    STREAMED,
    USED,
    WAYS,
    Asking,
    Doing,
    Way,
    chunk,
    error_in,
    events,
    exchange,
    go,
    question,
    run,
    said,
    values,
    whole,
)
from tests.llmproxy_core.path_model_dialect import GENERATE, PathModelDialect
from tests.recordings import without_usage_chunk

PUSHED = pytest.mark.parametrize("pushed", [False, True], ids=["pulled", "pushed"])


def _view(*, stream: bool = False, usage: bool = False, opaque: bool = False) -> ClientView:
    return ClientView(DIALECT, None if opaque else CHAT, stream, usage)


def _stream(
    tasks: Tasks, *chunks: bytes | ProxyError | asyncio.Event, opaque: bool = False
) -> tuple[Stream, ScriptedBody]:
    body = ScriptedBody(chunks, tasks)
    call = exchange(tasks, body=question(stream=True))
    return Stream(
        call, body, dialect=DIALECT, api=None if opaque else CHAT, status=201, headers=[("x-ratelimit-limit", "9")]
    ), body


async def _flow(response: Response, client: ClientView) -> Flow:
    delivery = await asyncio.wait_for(deliver(response, client), SOON_S)
    assert isinstance(delivery, Flow)
    return delivery


async def _whole(response: Response, client: ClientView) -> Whole:
    delivery = await asyncio.wait_for(deliver(response, client), SOON_S)
    assert isinstance(delivery, Whole)
    return delivery


class Pushed:
    """What a flow pushed."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ends = 0
        self.over = asyncio.Event()

    def write(self, piece: bytes) -> None:
        assert not self.ends, "nothing is written after the end"
        self.pieces.append(piece)

    def ended(self) -> None:
        self.ends += 1
        self.over.set()


async def _taken(flow: Flow, *, pushed: bool) -> list[bytes]:
    """All pieces, pulled or pushed."""
    async with asyncio.timeout(SOON_S):
        if not pushed:
            return [piece async for piece in flow.pieces()]
        sink = Pushed()
        flow.attach(sink.write, sink.ended)
        await sink.over.wait()
        await asyncio.sleep(0)
        assert sink.ends == 1
        return sink.pieces


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

    delivery = await asyncio.wait_for(deliver(response, _view(stream=way.leaves_as_stream)), SOON_S)

    assert (delivery.status, delivery.headers) == (201, headers)
    call.finish(End.ABANDONED)


async def test_what_is_no_response_is_refused(tasks: Tasks) -> None:
    with pytest.raises((TypeError, AttributeError, InternalError)):
        await deliver(object(), _view())  # type: ignore[arg-type]


# -- one dialect to another ------------------------------------------------------------------------------------------

OTHER = PathModelDialect()


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_answer_of_another_protocol_is_written_in_the_clients(tasks: Tasks, way: Way) -> None:
    call = exchange(tasks, body=question(stream=way.leaves_as_stream))
    llm = ScriptedLLM([way.answer("hello ", "world")], dialect=OTHER, api=GENERATE, tasks=tasks)

    delivery = await asyncio.wait_for(deliver(await llm.send(call), _view(stream=way.leaves_as_stream)), SOON_S)
    if isinstance(delivery, Whole):
        body = delivery.body
    else:
        body = b"".join(await _taken(delivery, pushed=way.pushed))
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


# -- rewriting and watching, on every way ----------------------------------------------------------------------------


def _redacting(channel: Channel) -> TextFilter:
    return Replace({"secret": "***"})


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_filter_holds_on_every_way(tasks: Tasks, way: Way) -> None:
    done = await go(
        way, "a s", "ecr", "et and a sec", processors=[Asking(lambda r: r.rewrite(_redacting))], tasks=tasks
    )

    assert said(done.body) == "a *** and a sec"
    assert b"secret" not in done.body
    assert done.result.outcome.usage == USED


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_inner_processors_change_the_text_first(tasks: Tasks, way: Way) -> None:
    inner = Asking(lambda response: response.rewrite(lambda channel: Replace({"a": "b"})))
    outer = Asking(lambda response: response.rewrite(lambda channel: Replace({"b": "c"})))

    done = await go(way, "a b", processors=[outer, inner], tasks=tasks)

    assert said(done.body) == "c c"


CHANNELS = ["content", "reasoning_content", "refusal"]


@pytest.mark.parametrize("member", CHANNELS)
@PUSHED
async def test_every_text_channel_of_a_stream_is_rewritten(tasks: Tasks, member: str, pushed: bool) -> None:
    chunks = [chunk({member: "a se"}), chunk({member: "cret"}), chunk({}, finish="stop"), DONE]

    done = await run(Answer(chunks), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks, stream=True, pushed=pushed)

    assert said(done.body, member) == "a ***"


@pytest.mark.parametrize("member", CHANNELS)
async def test_every_text_channel_of_a_reply_is_rewritten(tasks: Tasks, member: str) -> None:
    answer = completion("")
    answer["choices"] = [
        {"index": 0, "message": {"role": "assistant", "content": None, member: "a secret"}, "finish_reason": "stop"}
    ]

    done = await run(Answer(whole=json.dumps(answer).encode()), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks)

    assert said(done.body, member) == "a ***"


@PUSHED
async def test_arguments_of_tool_calls_are_rewritten_each_for_itself(tasks: Tasks, pushed: bool) -> None:
    def call(index: int, arguments: str, **more: object) -> dict[str, object]:
        return {"tool_calls": [{"index": index, "function": {"arguments": arguments}, **more}]}

    named = {"type": "function"}
    chunks = [
        chunk({"tool_calls": [{"index": 0, "id": "a", **named, "function": {"name": "f", "arguments": ""}}]}),
        chunk(call(0, '{"x":"sec')),
        chunk({"tool_calls": [{"index": 1, "id": "b", **named, "function": {"name": "g", "arguments": ""}}]}),
        chunk(call(1, 'ret"}')),
        chunk(call(0, 'ret"}')),
        chunk({}, finish="tool_calls"),
        DONE,
    ]

    done = await run(Answer(chunks), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks, stream=True, pushed=pushed)

    arguments = {0: "", 1: ""}
    for value in values(done.body):
        for piece in value["choices"][0]["delta"].get("tool_calls") or []:
            arguments[piece["index"]] += piece["function"].get("arguments") or ""
    assert arguments == {0: '{"x":"***"}', 1: 'ret"}'}


@PUSHED
async def test_choices_are_rewritten_each_for_itself(tasks: Tasks, pushed: bool) -> None:
    chunks = [
        chunk({"content": "sec"}, index=0),
        chunk({"content": "ret"}, index=1),
        chunk({"content": "ret"}, index=0),
        chunk({}, index=0, finish="stop"),
        chunk({}, index=1, finish="stop"),
        DONE,
    ]

    done = await run(Answer(chunks), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks, stream=True, pushed=pushed)

    assert (said(done.body, choice=0), said(done.body, choice=1)) == ("***", "ret")


@PUSHED
async def test_rewritten_text_goes_without_its_logprobs(tasks: Tasks, pushed: bool) -> None:
    """They spell the tokens that are not sent."""
    spelled = {"content": [{"token": "secret", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
    chunks = [chunk({"content": "secret"}, logprobs=spelled), chunk({}, finish="stop"), DONE]

    done = await run(Answer(chunks), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks, stream=True, pushed=pushed)

    assert said(done.body) == "***"
    assert b"secret" not in done.body


async def test_a_rewritten_reply_goes_without_its_logprobs(tasks: Tasks) -> None:
    answer = completion("secret")
    answer["choices"] = [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "secret"},
            "logprobs": {"content": [{"token": "secret", "logprob": -0.1, "bytes": None, "top_logprobs": []}]},
            "finish_reason": "stop",
        }
    ]

    done = await run(Answer(whole=json.dumps(answer).encode()), Asking(lambda r: r.rewrite(_redacting)), tasks=tasks)

    assert said(done.body) == "***"
    assert b"secret" not in done.body


def _refuse(word: str) -> None:
    raise GuardrailBlocked(f"The answer was stopped by the word list: {len(word)} letters")


def _watching(response: Response) -> None:
    response.watch(lambda channel: WordWatcher(["canary"], _refuse))


@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_a_refused_stream_ends_with_what_was_before_and_one_error_event(tasks: Tasks, way: Way) -> None:
    ends: list[Outcome] = []

    def ask(response: Response) -> None:
        _watching(response)
        response.on_finish(ends.append)

    done = await go(way, "before ", "can", "ary", " after", processors=[Asking(ask)], tasks=tasks)

    assert said(done.body) == "before can"
    assert "after" not in done.body.decode()
    assert DONE not in done.body
    assert done.body.count(b'"error"') == 1
    assert error_in(done.body)["code"] == "guardrail_blocked"
    assert error_in(done.body)["request_id"] == "test"
    assert [body.ends for body in done.llm.bodies] == [1]
    assert isinstance(done.result.error, GuardrailBlocked)
    assert ends[0].end is done.result.outcome.end is End.REFUSED


@pytest.mark.parametrize("way", [way for way in WAYS if way not in STREAMED], ids=str)
async def test_an_answer_that_is_refused_before_it_is_sent_is_not_sent(tasks: Tasks, way: Way) -> None:
    done = await go(way, "before canary after", processors=[Asking(_watching)], tasks=tasks)

    assert done.result.pieces == []
    assert isinstance(done.result.error, GuardrailBlocked)
    assert done.response.outcome is not None
    assert done.response.outcome.end is done.result.outcome.end is End.REFUSED


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_watcher_below_a_filter_sees_what_the_filter_takes_away(tasks: Tasks, way: Way) -> None:
    hiding = Asking(lambda response: response.rewrite(lambda channel: Replace({"canary": "bird"})))

    below = await go(way, "canary", processors=[hiding, Asking(_watching)], tasks=tasks)
    above = await go(way, "canary", processors=[Asking(_watching), hiding], tasks=tasks)

    assert isinstance(below.result.error, GuardrailBlocked)
    assert said(above.body) == "bird"


class Buggy:
    def feed(self, text: str) -> None:
        raise ZeroDivisionError("sk-canary")

    def end(self) -> None: ...


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_bug_in_a_watcher_fails_the_answer_and_shows_nothing_of_itself(tasks: Tasks, way: Way) -> None:
    done = await go(way, "hello", processors=[Asking(lambda r: r.watch(lambda channel: Buggy()))], tasks=tasks)

    assert isinstance(done.result.error, InternalError)
    assert done.result.error.code == "processor_failed"
    assert done.result.outcome.end is End.FAILED
    assert done.response.outcome is not None
    assert done.response.outcome.end is End.FAILED
    assert b"sk-canary" not in done.body
    if way in STREAMED:
        assert error_in(done.body)["code"] == "processor_failed"


# -- what fails in mid-stream ----------------------------------------------------------------------------------------

BEFORE = events("hello", usage=False, finish=None, done=False)
FAILURES: list[tuple[str, bytes | ProxyError, str]] = [
    ("cut", UpstreamCut("reset"), "upstream_cut"),
    ("idle", UpstreamTimeout("stalled", code="upstream_timeout_idle"), "upstream_timeout_idle"),
    ("error event", ERROR_EVENT, "overloaded"),
    ("no end", b"", "upstream_cut"),
    ("half an event", b'data: {"id":"x","choi', "upstream_cut"),
]


@pytest.mark.parametrize("rewritten", [False, True], ids=["copied", "rewritten"])
@PUSHED
@pytest.mark.parametrize(("last", "code"), [it[1:] for it in FAILURES], ids=[it[0] for it in FAILURES])
async def test_a_broken_stream_sends_what_was_good_then_one_error_event_and_no_end(
    tasks: Tasks, last: bytes | ProxyError, code: str, pushed: bool, rewritten: bool
) -> None:
    chain = [Asking(lambda r: r.rewrite(_redacting))] if rewritten else []

    done = await run(Answer([*BEFORE, last]), *chain, tasks=tasks, stream=True, pushed=pushed)

    assert said(done.body) == "hello"
    assert error_in(done.body)["code"] == code
    assert done.body.count(b'"error"') == 1
    assert DONE not in done.body
    assert isinstance(done.result.error, UpstreamError)
    assert done.result.outcome.end is End.FAILED
    assert done.result.outcome.error is done.result.error
    assert [body.ends for body in done.llm.bodies] == [1]


@pytest.mark.parametrize(("last", "code"), [it[1:] for it in FAILURES], ids=[it[0] for it in FAILURES])
async def test_a_broken_stream_gives_a_plain_client_an_error_alone(
    tasks: Tasks, last: bytes | ProxyError, code: str
) -> None:
    done = await run(Answer([*BEFORE, last]), tasks=tasks)

    assert done.result.pieces == []
    assert done.result.error is not None
    assert done.result.error.code == code
    assert done.response.outcome is not None
    assert done.response.outcome.end is End.FAILED


@PUSHED
async def test_a_replaced_stream_that_breaks_ends_the_same_way(tasks: Tasks, pushed: bool) -> None:
    def pass_on(source):  # type: ignore[no-untyped-def]
        return source

    done = await run(
        Answer([*BEFORE, UpstreamCut("reset")]),
        Asking(lambda r: r.replace(pass_on)),
        tasks=tasks,
        stream=True,
        pushed=pushed,
    )

    assert said(done.body) == "hello"
    assert error_in(done.body)["code"] == "upstream_cut"
    assert DONE not in done.body


@pytest.mark.parametrize("subscribe", [None, _watching, lambda r: r.replace(lambda source: source)])
@PUSHED
async def test_an_error_event_tells_no_secret(
    tasks: Tasks, subscribe: Callable[[Response], None] | None, pushed: bool
) -> None:
    quoting = b'data: {"error":{"message":"Key sk-canary is over its limit","type":"t","code":"c"}}\n\n'
    body = ScriptedBody([*BEFORE, quoting], tasks)
    call = exchange(tasks, body=question(stream=True))
    response = Stream(call, body, dialect=DIALECT, api=CHAT, redact=Secret("sk-canary").redact)
    if subscribe is not None:
        subscribe(response)

    flow = await _flow(response, _view(stream=True))
    pieces = await _taken(flow, pushed=pushed and flow.pushable)
    flow.finish()

    assert b"sk-canary" not in b"".join(pieces)
    assert error_in(b"".join(pieces))["message"] == "Key *** is over its limit"


async def test_an_answer_that_cannot_be_read_for_who_wants_it_read_is_garbage(tasks: Tasks) -> None:
    done = await run(Answer(whole=b'{"choices":7}'), Asking(_watching), tasks=tasks)

    assert isinstance(done.result.error, UpstreamGarbage)
    assert done.response.outcome is not None
    assert done.response.outcome.end is End.FAILED


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

    delivery = await _whole(Reply(call, body, dialect=DIALECT, api=models), ClientView(DIALECT, models))

    assert (delivery.body, delivery.content_type) == (body, "application/json")


async def test_embeddings_of_another_protocol_are_not_passed_for_ours(tasks: Tasks) -> None:
    call = exchange(tasks, api=EMBEDDINGS, body=b'{"model":"e"}')
    response = Reply(call, VECTORS, dialect=DIALECT, api=APIS["openai.models"])

    with pytest.raises(Unsupported, match=r"openai\.embeddings"):
        await _whole(response, ClientView(DIALECT, EMBEDDINGS))

    assert response.outcome is not None


# -- opaque ----------------------------------------------------------------------------------------------------------

BINARY = [b"\x00\x01", b"data: [DONE]\n\n", b"\xff" * 10]


@PUSHED
async def test_opaque_bytes_pass_as_they_come(tasks: Tasks, pushed: bool) -> None:
    response, body = _stream(tasks, *BINARY, opaque=True)
    response.content_type = "audio/mpeg"

    flow = await _flow(response, _view(opaque=True))
    pieces = await _taken(flow, pushed=pushed)
    flow.finish()

    assert pieces == BINARY
    assert (flow.status, flow.content_type, flow.error) == (201, "audio/mpeg", None)
    assert response.outcome is not None
    assert response.outcome.end is End.COMPLETED
    assert body.ends == 1


@PUSHED
async def test_an_opaque_answer_that_breaks_gets_no_event_of_ours(tasks: Tasks, pushed: bool) -> None:
    response, _ = _stream(tasks, BINARY[0], UpstreamCut("reset"), opaque=True)

    flow = await _flow(response, _view(opaque=True))
    pieces = await _taken(flow, pushed=pushed)
    flow.finish()

    assert b"".join(pieces) == BINARY[0]
    assert isinstance(flow.error, UpstreamCut)
    assert response.exchange.outcome is not None
    assert response.exchange.outcome.end is End.FAILED


async def test_an_opaque_reply_passes_with_its_own_type(tasks: Tasks) -> None:
    call = exchange(tasks, body=question())
    response = Reply(call, b"<html>", dialect=DIALECT, api=None, content_type="text/html")

    delivery = await _whole(response, _view(opaque=True))

    assert (delivery.body, delivery.content_type) == (b"<html>", "text/html")


async def test_keeping_an_opaque_reply_keeps_nothing(tasks: Tasks) -> None:
    """There is no wire form to keep it in."""
    response = Reply(exchange(tasks), b"<html>", dialect=DIALECT, api=None)
    keep = response.keep_body(1000)

    await _whole(response, _view(opaque=True))

    assert keep.body is None


# -- the flow itself -------------------------------------------------------------------------------------------------


async def test_finishing_a_flow_ends_its_response_and_its_exchange(tasks: Tasks) -> None:
    response, body = _stream(tasks, *events("hi"))
    flow = await _flow(response, _view(stream=True))

    await _taken(flow, pushed=False)
    before = response.outcome
    flow.finish()

    assert before is None
    assert response.outcome is not None
    assert response.exchange.outcome is not None
    assert response.outcome.end is response.exchange.outcome.end is End.COMPLETED
    assert body.ends == 1


async def test_a_flow_that_is_dropped_early_ends_with_its_exchange(tasks: Tasks) -> None:
    """The client has gone."""
    response, body = _stream(tasks, *events("a", "b"))
    flow = await _flow(response, _view(stream=True))

    pieces = flow.pieces()
    await anext(pieces)
    response.exchange.finish(End.ABANDONED)

    assert response.outcome is not None
    assert response.outcome.end is End.ABANDONED
    assert body.ends == 1
    await pieces.aclose()  # type: ignore[attr-defined]


async def test_a_pushed_flow_that_is_dropped_early_writes_no_more(tasks: Tasks) -> None:
    go_on = asyncio.Event()
    response, body = _stream(tasks, events("a")[0], go_on, *events("b"))
    flow, sink = await _flow(response, _view(stream=True)), Pushed()
    flow.attach(sink.write, sink.ended)
    for _ in range(10):
        await asyncio.sleep(0)

    response.exchange.finish(End.ABANDONED)
    go_on.set()
    for _ in range(10):
        await asyncio.sleep(0)

    assert said(b"".join(sink.pieces)) == "a"
    assert sink.ends == 0
    assert body.ends == 1


async def test_a_paused_flow_holds_the_upstream(tasks: Tasks) -> None:
    response, _ = _stream(tasks, *events("a", "b", "c"))
    flow, sink = await _flow(response, _view(stream=True)), Pushed()

    def write(piece: bytes) -> None:
        sink.write(piece)
        flow.pause()

    flow.attach(write, sink.ended)
    for _ in range(20):
        await asyncio.sleep(0)
    held = len(sink.pieces)
    for _ in range(20):
        flow.resume()
        await asyncio.sleep(0)
    await asyncio.wait_for(sink.over.wait(), SOON_S)

    assert held == 1
    assert said(b"".join(sink.pieces)) == "abc"


async def test_nothing_is_pushed_after_the_end(tasks: Tasks) -> None:
    response, _ = _stream(tasks)
    flow, sink = await _flow(response, _view(stream=True)), Pushed()
    flow.attach(sink.write, sink.ended)

    flow.feed(DONE)
    flow.feed(b"".join(BEFORE))
    flow.end(None)
    flow.end(UpstreamCut("late"))

    assert sink.pieces == [DONE]
    assert sink.ends == 1
    assert flow.error is None


async def test_a_flow_that_is_not_attached_takes_nothing(tasks: Tasks) -> None:
    response, _ = _stream(tasks)
    flow = await _flow(response, _view(stream=True))

    flow.feed(DONE)
    flow.end(None)

    assert response.usage is None
    assert flow.error is None


async def test_a_stream_whose_events_are_replaced_can_only_be_pulled(tasks: Tasks) -> None:
    response, _ = _stream(tasks, *events("hi"))
    response.replace(lambda source: source)
    other, _ = _stream(tasks, *events("hi"))

    assert not (await _flow(response, _view(stream=True))).pushable
    assert (await _flow(other, _view(stream=True))).pushable
    response.exchange.finish(End.ABANDONED)
    other.exchange.finish(End.ABANDONED)


@PUSHED
async def test_a_started_stream_flows_from_its_beginning(tasks: Tasks, pushed: bool) -> None:
    async def commit(response: Response) -> None:
        await asyncio.wait_for(response.started(), SOON_S)

    role = chunk({"role": "assistant", "content": ""})

    done = await run(Answer([role, *events("a", "b")]), Asking(commit), tasks=tasks, stream=True, pushed=pushed)

    assert done.body == without_usage_chunk(role + b"".join(events("a", "b")))
    assert done.result.outcome.usage == USED


@PUSHED
async def test_a_started_stream_in_one_read_ends_properly(tasks: Tasks, pushed: bool) -> None:
    """What was kept holds the end too: nothing more is read."""

    async def commit(response: Response) -> None:
        await asyncio.wait_for(response.started(), SOON_S)

    done = await run(Answer([b"".join(events("a"))]), Asking(commit), tasks=tasks, stream=True, pushed=pushed)

    assert said(done.body) == "a"
    assert done.result.outcome.end is End.COMPLETED
    assert [body.ends for body in done.llm.bodies] == [1]


@PUSHED
@pytest.mark.parametrize("error", [ERROR_EVENT, UpstreamCut("cut"), b""])
async def test_another_attempt_is_possible_until_a_stream_has_started(
    tasks: Tasks, error: bytes | ProxyError, pushed: bool
) -> None:
    async def retry(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)
        try:
            await response.started()
        except UpstreamError:
            response = await call_next(call)
        return response

    done = await run([Answer([error]), Answer(events("second"))], Doing(retry), tasks=tasks, stream=True, pushed=pushed)

    assert said(done.body) == "second"
    assert [response.outcome and response.outcome.end for response in done.llm.responses] == [
        End.FAILED,
        End.COMPLETED,
    ]
    assert [body.ends for body in done.llm.bodies] == [1, 1]


@PUSHED
async def test_at_most_one_piece_is_written_for_a_read(tasks: Tasks, pushed: bool) -> None:
    stream = b"".join(events(*"abcdef"))
    reads = [stream[place : place + 37] for place in range(0, len(stream), 37)]

    for rewritten in ([], [Asking(lambda r: r.rewrite(_redacting))]):
        done = await run(Answer(reads), *rewritten, tasks=tasks, stream=True, pushed=pushed)

        assert len(done.result.pieces) <= len(reads)
        assert said(done.body) == "abcdef"


async def test_pulling_and_pushing_give_the_same_pieces(tasks: Tasks) -> None:
    def script() -> Answer:
        return Answer([sse(chat_chunk(text), done=False) for text in "abc"] + [b": ping\n\n", *events("d")])

    results: list[Result] = [
        (await run(script(), *chain, tasks=tasks, stream=True, usage=usage, pushed=pushed)).result
        for chain in ([], [Asking(lambda r: r.rewrite(_redacting))])
        for usage in (False, True)
        for pushed in (False, True)
    ]

    for pulled, pushed_ in zip(results[::2], results[1::2], strict=True):
        assert pulled.pieces == pushed_.pieces
        assert pulled.outcome == pushed_.outcome
