"""One response for many exchanges: what each reader gets, who sets the pace, and who pays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    Response,
    Shared,
    Stream,
    Tasks,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    share,
)
from llmproxy_core.chat import ChatEvent, TextDelta
from llmproxy_core.relay import Flow, Whole, deliver
from llmproxy_core.shared import SharedStream
from llmproxy_core.testing import ScriptedBody
from llmproxy_core.text import Replace, WordWatcher
from tests.llmproxy_core.conversation import (
    CHAT,
    COST,
    DIALECT,
    EMBEDDINGS,
    ERROR_EVENT,
    PRICE,
    SOON_S,
    USED,
    events,
    exchange,
    own_request,
    said,
    whole,
)
from tests.recordings import without_usage_chunk

PLENTY = 1 << 20
Chunk = bytes | ProxyError | asyncio.Event


# -- a response, shared ----------------------------------------------------------------------------------------------


class Source:
    """The response that is shared: of an exchange that a first caller detached."""

    def __init__(self, tasks: Tasks, *chunks: Chunk) -> None:
        self.tasks = tasks
        self.first = exchange(tasks)
        self.exchange = self.first.detach(self.first.request)
        self.ends: list[Outcome] = []
        self.exchange.on_finish(self.ends.append)
        self.body = ScriptedBody(chunks, tasks)
        self.response = Stream(self.exchange, self.body, dialect=DIALECT, api=CHAT, price=PRICE, llm="scripted")

    async def shared(self, max_bytes: int = PLENTY) -> Shared:
        return await share(self.response, max_bytes=max_bytes, tasks=self.tasks)

    def another(self) -> Exchange:
        return exchange(self.tasks)

    @property
    def chunks_left(self) -> int:
        return len(self.body._chunks)


class Reading:
    """One who joined, and reads the answer as its client would, with the usage."""

    def __init__(self, shared: Shared, owner: Exchange) -> None:
        self.exchange = owner
        self.ends: list[Outcome] = []
        owner.on_finish(self.ends.append)
        joined = shared.join(owner)
        assert isinstance(joined, Stream)
        self.response = joined
        self._flow = Flow(joined, ClientView(DIALECT, CHAT, stream=True, wants_usage=True), tells_errors=False)
        self._pieces = self._flow.pieces()
        self.got = b""
        self.over = False

    async def next(self) -> bytes:
        """The next piece; b"" at the end, which ends the exchange."""
        async with asyncio.timeout(SOON_S):
            piece = await anext(self._pieces, None)
        if not piece:
            self.over = True
            self._flow.finish()
            self.exchange.finish(End.of(self._flow.error), self._flow.error)
            return b""
        self.got += piece
        return piece

    async def rest(self) -> bytes:
        while not self.over:
            await self.next()
        return self.got

    @property
    def error(self) -> ProxyError | None:
        return self._flow.error

    def leave(self) -> None:
        self.exchange.finish(End.ABANDONED)


async def turns(count: int = 20) -> None:
    """Let everything that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until_idle(tasks: Tasks) -> None:
    await tasks.drain(SOON_S)


ANSWER = events("a", "b", "c", "d", "e", "f")
ALL = b"".join(ANSWER)
LONG = events(*(f"{n:02} " + "x" * 200 for n in range(12)))
"""About 400 bytes each, so that a bound of 1000 is passed by the third."""


# -- what each gets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(len(ANSWER) + 1))
async def test_who_joins_late_gets_every_byte_from_the_first(tasks: Tasks, after: int) -> None:
    source = Source(tasks, *ANSWER)
    shared = await source.shared()
    first = Reading(shared, source.first)
    for _ in range(after):
        await first.next()

    late = Reading(shared, source.another())

    assert await late.rest() == ALL
    assert await first.rest() == ALL


async def test_who_joins_when_it_is_over_gets_all_of_it(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER)
    shared = await source.shared()
    await Reading(shared, source.first).rest()
    assert source.exchange.outcome is not None

    assert shared.open
    assert await Reading(shared, source.another()).rest() == ALL


async def test_many_readers_are_one_upstream_body(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER)
    shared = await source.shared()
    readers = [Reading(shared, source.first), *(Reading(shared, source.another()) for _ in range(99))]

    got = await asyncio.gather(*(reader.rest() for reader in readers))

    assert set(got) == {ALL}
    assert [outcome.end for reader in readers for outcome in reader.ends] == [End.COMPLETED] * 100
    assert source.body.ends == 1
    assert [outcome.end for outcome in source.ends] == [End.COMPLETED]


async def test_each_gets_it_as_it_asked_for_it(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER)
    shared = await source.shared()
    plain, without_usage = shared.join(source.another()), shared.join(source.another())

    async def take(response: Response, view: ClientView) -> bytes:
        delivered = await deliver(response, view)
        if isinstance(delivered, Whole):
            return delivered.body
        return b"".join([piece async for piece in delivered.pieces()])

    whole_answer, streamed = await asyncio.gather(
        take(plain, ClientView(DIALECT, CHAT)), take(without_usage, ClientView(DIALECT, CHAT, stream=True))
    )

    assert said(whole_answer) == "abcdef"
    assert b'"total_tokens":12' in whole_answer
    assert streamed == without_usage_chunk(ALL)


async def test_a_reader_may_take_it_pushed(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER)
    shared = await source.shared()
    pulled, pushed = Reading(shared, source.first), shared.join(source.another())
    flow = Flow(pushed, ClientView(DIALECT, CHAT, stream=True, wants_usage=True))  # type: ignore[arg-type]
    got, over = list[bytes](), asyncio.Event()

    flow.attach(got.append, over.set)
    await pulled.rest()
    async with asyncio.timeout(SOON_S):
        await over.wait()
    flow.finish()

    assert b"".join(got) == ALL


# -- who sets the pace -----------------------------------------------------------------------------------------------


async def test_nothing_is_read_ahead_of_the_fastest(tasks: Tasks) -> None:
    """One piece at most, so that a client that stops reading stops the upstream."""
    source = Source(tasks, *ANSWER)
    shared = await source.shared()
    fast, slow = Reading(shared, source.first), Reading(shared, source.another())

    left = []
    for _ in range(3):
        await fast.next()
        await turns()
        left.append(len(ANSWER) - source.chunks_left)

    assert left == [1, 2, 3]
    assert await slow.next() == ANSWER[0]
    await turns()
    assert len(ANSWER) - source.chunks_left == 3
    fast.leave()
    slow.leave()


async def test_who_never_reads_holds_nobody_below_the_bound(tasks: Tasks) -> None:
    source = Source(tasks, *ANSWER)
    shared = await source.shared()
    reading, idle = Reading(shared, source.first), Reading(shared, source.another())

    assert await reading.rest() == ALL
    assert not idle.ends
    idle.leave()


async def test_beyond_the_bound_the_slowest_sets_the_pace_and_nobody_joins(tasks: Tasks) -> None:
    source = Source(tasks, *LONG)
    shared = await source.shared(max_bytes=1000)
    fast, slow = Reading(shared, source.first), Reading(shared, source.another())
    for _ in range(3):
        await fast.next()
    await turns()

    ahead = asyncio.get_running_loop().create_task(fast.next())
    await turns()

    assert not shared.open
    with pytest.raises(RuntimeError, match="no longer be joined"):
        shared.join(source.another())
    assert not ahead.done()
    assert len(LONG) - source.chunks_left == 3
    for _ in range(3):
        await slow.next()
    assert not ahead.done()
    behind = asyncio.get_running_loop().create_task(slow.next())
    assert await ahead == LONG[3]
    assert await behind == LONG[3]
    await turns()
    assert len(LONG) - source.chunks_left == 4
    whole_of_both = await asyncio.gather(fast.rest(), slow.rest())
    assert set(whole_of_both) == {b"".join(LONG)}


async def test_beyond_the_bound_what_all_have_read_is_let_go(tasks: Tasks) -> None:
    source = Source(tasks, *LONG)
    shared = await source.shared(max_bytes=1000)
    assert isinstance(shared, SharedStream)
    readers = [Reading(shared, source.first), Reading(shared, source.another())]
    held = []

    for _ in range(len(LONG)):
        await asyncio.gather(*(reader.next() for reader in readers))
        held.append(sum(len(it) for it in shared._pieces))

    assert max(held) < 1000 + len(LONG[0])
    assert max(held[4:]) <= len(LONG[0])
    for reader in readers:
        reader.leave()


async def test_when_the_slowest_leaves_the_others_go_on(tasks: Tasks) -> None:
    source = Source(tasks, *LONG)
    shared = await source.shared(max_bytes=1000)
    fast, idle = Reading(shared, source.first), Reading(shared, source.another())
    reading = asyncio.get_running_loop().create_task(fast.rest())
    await turns()
    assert not reading.done()

    idle.leave()

    async with asyncio.timeout(SOON_S):
        assert await reading == b"".join(LONG)


async def test_a_reader_whose_wait_was_cancelled_has_left_nothing_behind(tasks: Tasks) -> None:
    """A time-out around one read: it goes on where it was, beyond the bound too."""
    gate = asyncio.Event()
    source = Source(tasks, *LONG[:4], gate, *LONG[4:])
    shared = await source.shared(max_bytes=1000)
    reader = Reading(shared, source.first)
    body = reader.response
    got = [await body.read() for _ in range(4)]

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await body.read()
    gate.set()
    async with asyncio.timeout(SOON_S):
        while piece := await body.read():
            got.append(piece)

    assert b"".join(got) == b"".join(LONG)
    reader.leave()


async def test_one_that_leaves_while_it_waits_gets_no_more(tasks: Tasks) -> None:
    gate = asyncio.Event()
    source = Source(tasks, ANSWER[0], gate, *ANSWER[1:])
    shared = await source.shared()
    leaving, staying = Reading(shared, source.first), Reading(shared, source.another())
    await leaving.next()
    waiting = asyncio.get_running_loop().create_task(leaving.response.read())
    await turns()

    leaving.leave()
    gate.set()

    async with asyncio.timeout(SOON_S):
        assert await waiting == b""
    assert await leaving.response.read() == b""
    assert await staying.rest() == ALL


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
    ("too long an event", [*ANSWER[:2], b"data: " + b"x" * (2 << 20)], UpstreamGarbage),
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


# -- under any order of events ---------------------------------------------------------------------------------------


@attrs.frozen
class Step:
    """What happens next: one joins; reader *who* asks for a piece, waits no longer for one, or leaves; time passes."""

    verb: str
    who: int = 0


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["join", "join gone", "read", "read", "read", "give up", "leave", "turn"]),
        st.integers(0, 5),
    ),
    max_size=60,
)
scripts = st.tuples(
    st.lists(st.sampled_from([*LONG[:3], *events("tiny")[:1], b": ping\n\n"]), max_size=8),
    st.sampled_from(["end", "end", "cut", "error event", "early", "stall"]),
)


class Model:
    """Readers that come, read and go, and what must hold of them all."""

    def __init__(self, source: Source, shared: Shared, wire: bytes, *, proper: bool) -> None:
        self.source = source
        self.shared = shared
        self.wire = wire
        self.proper = proper
        self.readers: list[Reading] = []
        self.reads: dict[int, asyncio.Task[bytes]] = {}

    async def take(self, step: Step) -> None:
        match step.verb:
            case "join" if self.shared.open:
                owner = self.source.another() if self.readers else self.source.first
                self.readers.append(Reading(self.shared, owner))
            case "join gone" if self.shared.open:
                gone = self.source.another()
                gone.finish(End.ABANDONED)
                self.shared.join(gone)
            case "turn":
                await turns(3)
            case "read" | "give up" | "leave" if self.readers:
                await self._of(step.who % len(self.readers), step.verb)
            case _:
                pass

    async def _of(self, who: int, verb: str) -> None:
        reader, read = self.readers[who], self.reads.get(who)
        if verb == "read" and not reader.ends and (read is None or read.done()):
            self.reads[who] = asyncio.get_running_loop().create_task(reader.next())
            await turns(2)
        elif verb == "give up" and read is not None:
            await stopped(read)  # its generator is over with it: it can only leave
            reader.leave()
        elif verb == "leave":
            if read is not None:
                await stopped(read)
            reader.leave()

    async def end(self) -> None:
        """Half of those who are left go, the others read to the end."""
        left = [(who, it) for who, it in enumerate(self.readers) if not it.ends]
        for who, reader in left[1::2]:
            if (read := self.reads.get(who)) is not None:
                await stopped(read)
            reader.leave()
        rest = [self.rest(who, reader) for who, reader in left[::2]]
        await asyncio.gather(*rest)
        self.shared.close()

    async def rest(self, who: int, reader: Reading) -> None:
        if (read := self.reads.get(who)) is not None:
            await read
        await reader.rest()

    def check(self) -> None:
        for reader in self.readers:
            assert self.wire.startswith(reader.got)
            (outcome,) = reader.ends
            if outcome.end is End.COMPLETED:
                assert reader.got == self.wire
                assert self.proper
            elif outcome.end is End.FAILED:
                assert reader.got == self.wire
                assert not self.proper
            else:
                assert outcome.end is End.ABANDONED
        (outcome,) = self.source.ends
        assert self.source.body.ends == 1
        assert outcome.end in (End.COMPLETED, End.FAILED, End.ABANDONED)
        if any(reader.ends[0].end is End.COMPLETED for reader in self.readers):
            assert outcome.end is End.COMPLETED


async def stopped(read: asyncio.Task[bytes]) -> None:
    read.cancel()
    await asyncio.wait([read])


@given(scripts, steps, st.sampled_from([PLENTY, 1000, 1]))
def test_in_any_order_each_gets_a_beginning_of_the_whole_and_one_end(
    script: tuple[list[bytes], str], steps: list[Step], max_bytes: int
) -> None:
    async def scenario() -> None:
        tasks = Tasks()
        middle, ending = script
        gate = asyncio.Event()
        last: dict[str, list[Chunk]] = {
            "end": list(events()),
            "stall": [gate, *events()],
            "cut": [UpstreamCut("reset")],
            "error event": [ERROR_EVENT],
            "early": [],
        }
        chunks: list[Chunk] = [*middle, *last[ending]]
        wire = b"".join(it for it in chunks if isinstance(it, bytes) and it is not ERROR_EVENT)
        source = Source(tasks, *chunks)
        model = Model(source, await source.shared(max_bytes), wire, proper=ending in ("end", "stall"))
        async with asyncio.timeout(SOON_S):
            for step in steps:
                await model.take(step)
            gate.set()
            await model.end()
            source.first.finish(End.ABANDONED)
            await until_idle(tasks)
        model.check()

    asyncio.run(scenario())
