"""A flow of pieces: pulled, pushed, paused, dropped."""

import asyncio

import pytest

from llmproxy_core import (
    Channel,
    End,
    Exchange,
    Handler,
    ProxyError,
    Response,
    Tasks,
    TextFilter,
    UpstreamCut,
    UpstreamError,
)
from llmproxy_core.testing import Answer, Result
from llmproxy_core.text import Replace
from tests.answers import DONE, chat_chunk, sse
from tests.llmproxy_core.conversation import (
    ERROR_EVENT,
    SOON_S,
    USED,
    Asking,
    Doing,
    chunk,
    events,
    run,
    said,
)
from tests.llmproxy_core.flows import PUSHED, Pushed, client_of, flow_of, streamed, taken
from tests.recordings import without_usage_chunk


def _redacting(channel: Channel) -> TextFilter:
    return Replace({"secret": "***"})


async def test_finishing_a_flow_ends_its_response_and_its_exchange(tasks: Tasks) -> None:
    response, body = streamed(tasks, *events("hi"))
    flow = await flow_of(response, client_of(stream=True))

    await taken(flow, pushed=False)
    before = response.outcome
    flow.finish()

    assert before is None
    assert response.outcome is not None
    assert response.exchange.outcome is not None
    assert response.outcome.end is response.exchange.outcome.end is End.COMPLETED
    assert body.ends == 1


async def test_a_flow_that_is_dropped_early_ends_with_its_exchange(tasks: Tasks) -> None:
    """The client has gone."""
    response, body = streamed(tasks, *events("a", "b"))
    flow = await flow_of(response, client_of(stream=True))

    pieces = flow.pieces()
    await anext(pieces)
    response.exchange.finish(End.ABANDONED)

    assert response.outcome is not None
    assert response.outcome.end is End.ABANDONED
    assert body.ends == 1
    await pieces.aclose()  # type: ignore[attr-defined]


async def test_a_pushed_flow_that_is_dropped_early_writes_no_more(tasks: Tasks) -> None:
    go_on = asyncio.Event()
    response, body = streamed(tasks, events("a")[0], go_on, *events("b"))
    flow, sink = await flow_of(response, client_of(stream=True)), Pushed()
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
    response, _ = streamed(tasks, *events("a", "b", "c"))
    flow, sink = await flow_of(response, client_of(stream=True)), Pushed()

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
    response, _ = streamed(tasks)
    flow, sink = await flow_of(response, client_of(stream=True)), Pushed()
    flow.attach(sink.write, sink.ended)

    flow.feed(DONE)
    flow.feed(events("late")[0])
    flow.end(None)
    flow.end(UpstreamCut("late"))

    assert sink.pieces == [DONE]
    assert sink.ends == 1
    assert flow.error is None


async def test_a_flow_that_is_not_attached_takes_nothing(tasks: Tasks) -> None:
    response, _ = streamed(tasks)
    flow = await flow_of(response, client_of(stream=True))

    flow.feed(DONE)
    flow.end(None)

    assert response.usage is None
    assert flow.error is None


async def test_a_stream_whose_events_are_replaced_can_only_be_pulled(tasks: Tasks) -> None:
    response, _ = streamed(tasks, *events("hi"))
    response.replace(lambda source: source)
    other, _ = streamed(tasks, *events("hi"))

    assert not (await flow_of(response, client_of(stream=True))).pushable
    assert (await flow_of(other, client_of(stream=True))).pushable
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
