"""One response for many exchanges: what each reader gets, and who sets the pace."""

from __future__ import annotations

import asyncio

import pytest

from llmproxy_core import (
    ClientView,
    End,
    Response,
    Tasks,
)
from llmproxy_core.relay import Flow, Whole, deliver
from llmproxy_core.shared import SharedStream
from tests.llmproxy_core.conversation import (
    CHAT,
    DIALECT,
    SOON_S,
    said,
)
from tests.llmproxy_core.sharing import ALL, ANSWER, LONG, Reading, Source, turns
from tests.recordings import without_usage_chunk

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
