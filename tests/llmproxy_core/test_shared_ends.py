"""How a shared response ends, what was asked of it, and who pays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from llmproxy_core import (
    ClientView,
    End,
    Exchange,
    GuardrailBlocked,
    InternalError,
    Money,
    Outcome,
    ProxyError,
    Reply,
    Stream,
    Tasks,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    share,
)
from llmproxy_core.chat import ChatEvent, TextDelta
from llmproxy_core.relay import Whole, deliver
from llmproxy_core.shared import SharedStream
from llmproxy_core.sse import DEFAULT_MAX_EVENT_BYTES
from llmproxy_core.testing import ScriptedBody
from llmproxy_core.text import Replace, WordWatcher
from tests.llmproxy_core.conversation import (
    CHAT,
    COST,
    DIALECT,
    EMBEDDINGS,
    ERROR_EVENT,
    PRICE,
    USED,
    events,
    exchange,
    own_request,
    said,
    whole,
)
from tests.llmproxy_core.sharing import ANSWER, PLENTY, Chunk, Reading, Source, turns, until_idle

# -- how it ends -----------------------------------------------------------------------------------------------------


async def test_when_the_last_reader_leaves_the_upstream_is_let_go_of(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER[:2], asyncio.Event(), *ANSWER[2:])
    shared = await source.shared()
    readers = [Reading(shared, source.first), Reading(shared, source.another())]
    for reader in readers:
        await reader.next()

    readers[0].leave()
    await turns()
    assert source.body.ends == 0
    readers[1].leave()

    assert source.body.ends == 1
    assert [outcome.end for outcome in source.ends] == [End.ABANDONED]
    assert not shared.open
    await until_idle(tasks)
    assert [outcome.end for reader in readers for outcome in reader.ends] == [End.ABANDONED] * 2


async def test_who_joins_nobody_left_is_refused_and_told_no_half_truth(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER)
    shared = await source.shared()
    Reading(shared, source.first).leave()

    with pytest.raises(RuntimeError, match="no longer be joined"):
        shared.join(source.another())


async def test_one_whose_exchange_was_over_before_it_joined_is_not_the_last_to_leave(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER)
    shared = await source.shared()
    gone = source.another()
    gone.finish(End.ABANDONED)

    left = shared.join(gone)
    reading = Reading(shared, source.first)
    shared.close()

    assert left.outcome is not None
    assert left.outcome.end is End.ABANDONED
    assert await reading.next() == ANSWER[0]
    reading.leave()
    assert source.body.ends == 1


async def test_what_nobody_joined_ends_when_it_is_closed(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER)
    shared = await source.shared()

    shared.close()
    shared.close()

    assert source.body.ends == 1
    assert [outcome.end for outcome in source.ends] == [End.ABANDONED]
    await until_idle(tasks)


BROKEN: list[tuple[str, Sequence[Chunk], type[ProxyError]]] = [
    ("cut", [*ANSWER[:2], UpstreamCut("reset")], UpstreamCut),
    ("ended early", ANSWER[:2], UpstreamCut),
    ("garbage", [*ANSWER[:2], b"data: {garbage\n\n" * 2], UpstreamGarbage),
    ("error event", [*ANSWER[:2], ERROR_EVENT], UpstreamError),
    ("too long an event", [*ANSWER[:2], b"data: " + b"x" * DEFAULT_MAX_EVENT_BYTES], UpstreamGarbage),
    ("cut at once", [UpstreamCut("reset")], UpstreamCut),
]


@pytest.mark.parametrize(("chunks", "kind"), [it[1:] for it in BROKEN], ids=[it[0] for it in BROKEN])
@pytest.mark.parametrize("max_bytes", [PLENTY, 1])
async def test_what_breaks_it_reaches_each_reader_after_the_good_part(
    tasks: Tasks, chunks: Sequence[Chunk], kind: type[ProxyError], max_bytes: int
) -> None:
    source = Source(tasks, *chunks)
    shared = await source.shared(max_bytes)
    readers = [Reading(shared, source.first), Reading(shared, source.another())]

    got = await asyncio.gather(*(reader.rest() for reader in readers))

    good = b"".join(it for it in chunks[:2] if isinstance(it, bytes))
    assert [it[: len(good)] for it in got] == [good] * 2
    assert [type(reader.error) for reader in readers] == [kind] * 2
    assert [outcome.end for reader in readers for outcome in reader.ends] == [End.FAILED] * 2
    assert [outcome.end for outcome in source.ends] == [End.FAILED]
    assert not shared.open
    assert source.body.ends == 1


async def test_the_verdict_of_a_watcher_reaches_each_reader(tasks: Tasks) -> None:
    def block(word: str) -> None:
        raise GuardrailBlocked("Not allowed")

    source = Source(tasks, *events("fine ", "so far ", "canary", " never"))
    source.response.watch(lambda channel: WordWatcher(["canary"], block))
    shared = await source.shared()
    readers = [Reading(shared, source.first), Reading(shared, source.another())]

    got = await asyncio.gather(*(reader.rest() for reader in readers))

    assert [said(it) for it in got] == ["fine so far "] * 2
    assert [type(reader.error) for reader in readers] == [GuardrailBlocked] * 2
    assert [outcome.end for reader in readers for outcome in reader.ends] == [End.REFUSED] * 2
    assert [outcome.end for outcome in source.ends] == [End.REFUSED]


async def test_who_waits_is_told_when_the_one_who_reads_is_stopped(tasks: Tasks) -> None:
    """The process ends: the pump is cancelled, perhaps before its first step."""
    source = Source(tasks, asyncio.Event(), *ANSWER)
    shared = await source.shared()
    assert isinstance(shared, SharedStream)
    reader = Reading(shared, source.first)

    shared._task.cancel()
    got = await reader.rest()

    assert got == b""
    assert isinstance(reader.error, InternalError)
    assert source.body.ends == 1
    assert [outcome.end for outcome in source.ends] == [End.FAILED]


async def test_its_exchange_ended_from_outside_ends_all(tasks: Tasks) -> None:
    gate = asyncio.Event()
    source = Source(tasks, ANSWER[0], gate, *ANSWER[1:])
    shared = await source.shared()
    reader = Reading(shared, source.first)
    await reader.next()

    source.exchange.finish(End.ABANDONED)
    gate.set()
    await reader.rest()

    assert reader.got == ANSWER[0]
    assert isinstance(reader.error, UpstreamCut)
    assert [outcome.end for outcome in source.ends] == [End.ABANDONED]


# -- what was subscribed below ---------------------------------------------------------------------------------------


async def test_what_was_asked_of_the_response_is_done_once(tasks: Tasks) -> None:
    source = Source(tasks, *events("my se", "cret is", " out"))
    seen = list[str]()

    class Listening:
        def feed(self, text: str) -> None:
            seen.append(text)

        def end(self) -> None:
            seen.append("|")

    async def louder(stream: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
        async for event in stream:
            yield TextDelta(event.choice, event.text.upper()) if isinstance(event, TextDelta) else event

    below = source.response.keep_body(PLENTY)
    source.response.rewrite(lambda channel: Replace({"secret": "hidden"}))
    source.response.watch(lambda channel: Listening())
    source.response.replace(louder)
    above = source.response.keep_body(PLENTY)
    shared = await source.shared()
    readers = [Reading(shared, source.first), *(Reading(shared, source.another()) for _ in range(3))]

    got = await asyncio.gather(*(reader.rest() for reader in readers))

    assert [said(it) for it in got] == ["MY HIDDEN IS OUT"] * 4
    assert "".join(seen) == "my hidden is out|"
    assert below.body is not None
    assert said(below.body.data) == "my secret is out"
    assert above.body is not None
    assert said(above.body.data) == "MY HIDDEN IS OUT"


async def test_each_reader_asks_for_itself_above(tasks: Tasks) -> None:
    source = Source(tasks, *events("my se", "cret is", " out"))
    shared = await source.shared()
    filtered, plain = shared.join(source.first), shared.join(source.another())
    filtered.rewrite(lambda channel: Replace({"secret": "hidden"}))

    replies = await asyncio.gather(filtered.reply(), plain.reply())

    assert [reply.text for reply in replies] == ["my hidden is out", "my secret is out"]


# -- who pays --------------------------------------------------------------------------------------------------------


async def test_only_the_first_caller_pays(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER)
    bills = list[Outcome]()
    source.first.on_billed(bills.append)
    shared = await source.shared()
    readers = [Reading(shared, source.first), Reading(shared, source.another()), Reading(shared, source.another())]

    await asyncio.gather(*(reader.rest() for reader in readers))

    first, *others = [reader.ends[0] for reader in readers]
    assert (first.usage, first.cost) == (USED, Money(COST))
    assert [(it.usage, it.cost) for it in others] == [(None, Money(0))] * 2
    assert [(bill.usage, bill.cost) for bill in bills] == [(USED, Money(COST))]
    assert {it.model for it in (first, *others)} == {"gpt-4o-mini"}
    assert {it.finish for it in (first, *others)} == {("stop",)}
    assert [reader.response.usage for reader in readers] == [USED] * 3


async def test_the_first_caller_pays_for_what_goes_on_without_it(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER)
    bills = list[Outcome]()
    source.first.on_billed(bills.append)
    shared = await source.shared()
    first, other = Reading(shared, source.first), Reading(shared, source.another())
    await first.next()

    first.leave()
    assert not bills
    await other.rest()

    assert [(it.end, it.usage, it.cost) for it in first.ends] == [(End.ABANDONED, None, None)]
    assert [(bill.end, bill.usage, bill.cost) for bill in bills] == [(End.ABANDONED, USED, Money(COST))]
    assert (other.ends[0].usage, other.ends[0].cost) == (None, Money(0))


async def test_what_was_read_before_all_had_left_is_billed_as_an_estimate(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER[:3], asyncio.Event())
    bills = list[Outcome]()
    source.first.on_billed(bills.append)
    shared = await source.shared()
    first, other = Reading(shared, source.first), Reading(shared, source.another())
    await other.next()

    first.leave()
    other.leave()

    (bill,) = bills
    assert bill.usage is not None
    assert bill.usage.source == "estimated"
    assert bill.cost is not None
    assert bill.cost.nanodollars > 0
    assert other.ends[0].cost == Money(0)


# -- a whole answer --------------------------------------------------------------------------------------------------


def made_reply(owner: Exchange, text: str) -> Reply:
    body = whole(text)
    return Reply(
        owner, body, dialect=DIALECT, api=CHAT, head=DIALECT.scan_reply(CHAT, body), price=PRICE, headers=[("a", "b")]
    )


async def test_a_whole_answer_can_be_joined_at_any_time(tasks: Tasks) -> None:
    first = exchange(tasks)
    detached = first.detach(first.request)
    response = made_reply(detached, "my secret")
    response.rewrite(lambda channel: Replace({"secret": "hidden"}))
    kept = response.keep_body(PLENTY)

    shared = await share(response, max_bytes=1, tasks=tasks)
    shared.close()
    owners = [first, exchange(tasks), exchange(tasks)]
    got = [await deliver(shared.join(owner), ClientView(DIALECT, CHAT)) for owner in owners]
    for owner in owners:
        owner.finish(End.COMPLETED)

    assert shared.open
    assert [said(it.body) for it in got if isinstance(it, Whole)] == ["my hidden"] * 3
    assert [it.headers for it in got] == [[("a", "b")]] * 3
    assert kept.body is not None
    assert said(kept.body.data) == "my hidden"
    assert detached.outcome is not None
    assert detached.outcome.end is End.COMPLETED
    outcomes = [owner.outcome for owner in owners if owner.outcome is not None]
    assert [(it.usage, it.cost) for it in outcomes] == [(USED, Money(COST)), (None, Money(0)), (None, Money(0))]
    assert [(it.model, it.finish) for it in outcomes] == [("gpt-4o-mini", ("stop",))] * 3


async def test_a_whole_answer_that_a_watcher_stops_is_not_shared(tasks: Tasks) -> None:
    def block(word: str) -> None:
        raise GuardrailBlocked("Not allowed")

    first = exchange(tasks)
    detached = first.detach(first.request)
    response = made_reply(detached, "a canary")
    response.watch(lambda channel: WordWatcher(["canary"], block))

    with pytest.raises(GuardrailBlocked):
        await share(response, max_bytes=PLENTY, tasks=tasks)

    assert detached.outcome is not None
    assert detached.outcome.end is End.REFUSED


async def test_embeddings_are_shared_as_they_are(tasks: Tasks) -> None:
    body = b'{"object":"list","data":[{"embedding":[0.10]}],"usage":{"prompt_tokens":1,"total_tokens":1}}'
    first = exchange(tasks, api=EMBEDDINGS, body=b'{"model":"m","input":"x"}')
    detached = first.detach(first.request)
    response = Reply(detached, body, dialect=DIALECT, api=EMBEDDINGS)

    shared = await share(response, max_bytes=PLENTY, tasks=tasks)
    joined = await deliver(shared.join(first), ClientView(DIALECT, EMBEDDINGS))

    assert isinstance(joined, Whole)
    assert joined.body == body
    first.finish(End.COMPLETED)


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_answer_of_a_child_ends_its_parents_too(tasks: Tasks, streamed: bool) -> None:
    first = exchange(tasks)
    detached = first.detach(first.request)
    child = detached.child(own_request())
    response = (
        Stream(child, ScriptedBody(ANSWER, tasks), dialect=DIALECT, api=CHAT) if streamed else made_reply(child, "x")
    )

    shared = await share(response, max_bytes=PLENTY, tasks=tasks)
    await deliver(shared.join(first), ClientView(DIALECT, CHAT))
    first.finish(End.COMPLETED)

    assert detached.outcome is not None
    assert detached.outcome.end is End.COMPLETED


async def test_an_opaque_stream_cannot_be_shared(tasks: Tasks) -> None:
    owner = exchange(tasks)
    response = Stream(owner, ScriptedBody([b"x"], tasks), dialect=DIALECT, api=None)

    with pytest.raises(TypeError, match="opaque"):
        await share(response, max_bytes=PLENTY, tasks=tasks)

    owner.finish(End.ABANDONED)
