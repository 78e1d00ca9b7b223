"""What may be asked of a response, and its exactly-once end."""

import asyncio
import json
import logging

import pytest

from llmproxy_core import (
    End,
    GuardrailBlocked,
    KeptBody,
    Money,
    Outcome,
    Reply,
    Stream,
    Tasks,
    UpstreamCut,
    Usage,
)
from llmproxy_core.chat import ChatReply, Choice, Finish, FinishReason, TextPart
from llmproxy_core.dialect import ReplyHead
from llmproxy_core.testing import FakeClock, ScriptedBody
from tests.llmproxy_core.bodies import a_reply, a_stream
from tests.llmproxy_core.conversation import (
    CHAT,
    DIALECT,
    PRICE,
    SOON_S,
    exchange,
    own_request,
    said,
)

# -- its one end -----------------------------------------------------------------------------------------------------


async def test_the_first_finish_decides_and_frees_the_body_once(tasks: Tasks) -> None:
    response, body = a_stream(tasks)
    ends: list[Outcome] = []
    response.on_finish(ends.append)
    error = UpstreamCut("cut")

    response.finish(End.FAILED, error)
    response.finish(End.COMPLETED)

    assert [(outcome.end, outcome.error) for outcome in ends] == [(End.FAILED, error)]
    assert response.outcome is ends[0]
    assert body.ended == ["close"]


@pytest.mark.parametrize("end", list(End))
async def test_only_a_complete_answer_gives_its_connection_back(tasks: Tasks, end: End) -> None:
    response, body = a_stream(tasks)

    response.finish(end)

    assert body.ended == (["release"] if end is End.COMPLETED else ["close"])


async def test_callbacks_run_in_the_order_asked(tasks: Tasks) -> None:
    response, order = a_reply(tasks), list[str]()
    response.on_finish(lambda outcome: order.append("inner"))
    response.on_finish(lambda outcome: order.append("outer"))

    response.finish(End.COMPLETED)

    assert order == ["inner", "outer"]


async def test_a_callback_that_fails_is_logged_and_the_others_run(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    response, ran = a_reply(tasks), list[str]()

    def fail(outcome: Outcome) -> None:
        raise ZeroDivisionError("a bug")

    response.on_finish(fail)
    response.on_finish(lambda outcome: ran.append("last"))
    response.finish(End.COMPLETED)

    assert ran == ["last"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_sync_callback_starts_no_task_and_an_async_one_does(tasks: Tasks) -> None:
    response, ran = a_reply(tasks), list[str]()

    async def later(outcome: Outcome) -> None:
        ran.append("async")

    response.on_finish(lambda outcome: ran.append("sync"))
    response.finish(End.COMPLETED)
    started_by_sync = len(tasks)
    response.on_finish(later)
    started_by_async = len(tasks)
    await asyncio.wait_for(response.exchange.settled(SOON_S), SOON_S)

    assert (started_by_sync, started_by_async) == (0, 1)
    assert ran == ["sync", "async"]


async def test_a_late_callback_runs_at_once(tasks: Tasks) -> None:
    response, ran = a_reply(tasks), list[Outcome]()
    response.finish(End.ABANDONED)

    response.on_finish(ran.append)

    assert ran == [response.outcome]


async def test_the_cost_is_what_its_own_price_makes_of_its_usage(tasks: Tasks) -> None:
    priced, _ = a_stream(tasks, price=PRICE)
    unpriced, _ = a_stream(tasks)
    unused, _ = a_stream(tasks, price=PRICE)
    priced.usage = unpriced.usage = Usage(10, 1)

    for response in (priced, unpriced, unused):
        response.finish(End.COMPLETED)

    assert [response.outcome and response.outcome.cost for response in (priced, unpriced, unused)] == [
        Money(12_000),
        None,
        None,
    ]


@pytest.mark.parametrize("end", list(End))
async def test_what_was_used_is_told_however_it_ended(tasks: Tasks, end: End) -> None:
    """A client that leaves early is billed what the upstream reported."""
    response, _ = a_stream(tasks, price=PRICE)
    response.usage = Usage(10, 1)

    response.finish(end)

    assert response.outcome is not None
    assert (response.outcome.usage, response.outcome.cost) == (Usage(10, 1), Money(12_000))


async def test_times_are_of_the_clock_of_the_exchange(tasks: Tasks) -> None:
    clock = FakeClock(50.0)
    response, _ = a_stream(tasks, b"x", clock=clock)
    clock.advance(1.0)
    response.note_begun()
    clock.advance(1.0)
    response.note_begun()
    clock.advance(1.0)

    response.finish(End.COMPLETED)

    assert response.outcome is not None
    assert (response.outcome.started_s, response.outcome.first_byte_s, response.outcome.ended_s) == (50.0, 51.0, 53.0)


async def test_a_stream_that_nobody_has_looked_at_has_not_begun(tasks: Tasks) -> None:
    response, _ = a_stream(tasks)

    assert await response.read() == b""
    response.finish(End.FAILED, UpstreamCut("cut"))

    assert response.first_byte_s is None


async def test_the_kept_body_of_the_outermost_who_asked_is_in_the_outcome(tasks: Tasks) -> None:
    response = a_reply(tasks)
    inner, outer = response.keep_body(1000), response.keep_body(1000)
    inner.body, outer.body = KeptBody("a", False, b"inner"), KeptBody("a", False, b"outer")

    response.finish(End.COMPLETED)

    assert response.outcome is not None
    assert response.outcome.body is outer.body


async def test_there_is_no_kept_body_of_an_answer_that_is_not_complete(tasks: Tasks) -> None:
    """All bytes may have come, and the client have gone before its end was sent."""
    response = a_reply(tasks)
    wish = response.keep_body(1000)
    wish.body = KeptBody("a", False, b"all")

    response.finish(End.ABANDONED)

    assert response.outcome is not None
    assert response.outcome.body is None
    assert wish.body is None


# -- replies ---------------------------------------------------------------------------------------------------------


async def test_a_reply_has_the_facts_of_its_head(tasks: Tasks) -> None:
    head = ReplyHead(Usage(1, 2), "m", ("stop", "length"))

    response = Reply(exchange(tasks), b"{}", dialect=DIALECT, api=CHAT, head=head, price=PRICE)
    response.finish(End.COMPLETED)

    assert response.outcome is not None
    assert (response.outcome.usage, response.outcome.model) == (Usage(1, 2), "m")
    assert response.outcome.finish == ("stop", "length")
    assert response.outcome.first_byte_s == response.started_s


async def test_a_reply_without_a_head_knows_nothing(tasks: Tasks) -> None:
    response = Reply(exchange(tasks), b"{}", dialect=DIALECT, api=CHAT)

    assert (response.usage, response.model, response.finish_words) == (None, None, ())


async def test_a_reply_has_always_started(tasks: Tasks) -> None:
    await asyncio.wait_for(a_reply(tasks).started(), SOON_S)


OWN = ChatReply("r1", "local", (Choice(0, (TextPart("from a rule"),), Finish(FinishReason.STOP)),), Usage(2, 3))


async def test_a_processor_answers_in_the_clients_wire_form(tasks: Tasks) -> None:
    response = Reply.of_chat(exchange(tasks), OWN)

    assert said(response.body) == "from a rule"
    assert (response.dialect, response.api) == (DIALECT, CHAT)
    assert json.loads(response.body)["usage"]["total_tokens"] == 5
    assert (response.usage, response.model, response.finish_words) == (None, "local", ("stop",))
    assert response.price is None


async def test_only_a_client_can_be_answered(tasks: Tasks) -> None:
    child = exchange(tasks).child(own_request())

    with pytest.raises(TypeError, match="of a client"):
        Reply.of_chat(child, OWN)


async def test_an_opaque_call_cannot_be_answered_with_a_conversation(tasks: Tasks) -> None:
    call = exchange(tasks)
    assert call.client is not None
    call.client.api = None

    with pytest.raises(TypeError, match="chat request"):
        Reply.of_chat(call, OWN)


# -- the flow --------------------------------------------------------------------------------------------------------


async def test_pausing_holds_the_body(tasks: Tasks) -> None:
    response, body = a_stream(tasks)

    response.pause()
    response.resume()

    assert body.paused == [True, False]


async def test_headers_and_status_are_those_of_whoever_made_it(tasks: Tasks) -> None:
    pairs = [("x-ratelimit-remaining", "1")]

    response = Stream(
        exchange(tasks), ScriptedBody([], tasks), dialect=DIALECT, api=None, status=206, headers=pairs, llm="local"
    )

    assert (response.status, response.headers, response.llm) == (206, pairs, "local")
    assert response.headers is not pairs


async def test_an_answer_is_a_200_of_its_kind_unless_its_maker_says_otherwise(tasks: Tasks) -> None:
    reply, (stream, _) = a_reply(tasks), a_stream(tasks)

    assert (reply.status, reply.content_type, reply.headers) == (200, "application/json", [])
    assert (stream.status, stream.content_type, stream.headers) == (200, "text/event-stream", [])


async def test_a_refusal_is_told_from_a_failure(tasks: Tasks) -> None:
    response, _ = a_stream(tasks, GuardrailBlocked("no"))

    with pytest.raises(GuardrailBlocked):
        await asyncio.wait_for(response.started(), SOON_S)

    assert response.outcome is not None
    assert response.outcome.end is End.REFUSED
