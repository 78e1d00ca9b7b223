"""The moments of a flight that sockets hit by chance alone: who comes or goes just as it begins, lands or ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable

import pytest
from llmproxy_cache.flight import Flight

from llmproxy_core import End, Exchange, InternalError, Response, Stream, Tasks, UpstreamCut
from llmproxy_core.testing import ScriptedBody
from tests.llmproxy_core.conversation import CHAT, DIALECT, SOON_S, events, exchange

TEXTS = [*(f"{n} " + "x" * 300 for n in range(8))]
WIRE = b"".join(events(*TEXTS))


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    tasks = Tasks()
    yield tasks
    await tasks.drain(SOON_S)


class Calling:
    """What a flight calls: it waits for *go_on*, and does *last* just before it answers."""

    def __init__(self, tasks: Tasks, last: Callable[[], object] = lambda: None) -> None:
        self._tasks = tasks
        self._last = last
        self.go_on = asyncio.Event()
        self.calls = 0
        self.body: ScriptedBody | None = None

    async def __call__(self, exchange: Exchange) -> Response:
        self.calls += 1
        await self.go_on.wait()
        self.body = ScriptedBody(events(*TEXTS), self._tasks)
        self._last()
        return Stream(exchange, self.body, dialect=DIALECT, api=CHAT)


def begun(owner: Exchange, calling: Calling, tasks: Tasks, *, max_bytes: int = 1 << 20) -> Flight:
    return Flight(owner.detach(owner.request), calling, max_bytes=max_bytes, tasks=tasks)


async def took(flight: Flight, owner: Exchange) -> bytes:
    """What a client that stays has got in the end."""
    response = await flight.join(owner)
    assert isinstance(response, Stream)
    async with asyncio.timeout(SOON_S):
        got = b""
        while piece := await response.read():
            got += piece
    response.finish(End.COMPLETED)
    owner.finish(End.COMPLETED)
    return got


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def started(tasks: Tasks, flight: Flight, owner: Exchange) -> asyncio.Task[bytes]:
    return tasks.start(took(flight, owner), name="client")


@pytest.mark.parametrize("max_bytes", [1 << 20, 1], ids=["below the bound", "beyond the bound"])
async def test_one_that_is_cancelled_as_it_boards_holds_nobody(tasks: Tasks, max_bytes: int) -> None:
    """
    Its answer is there, and it will never know: a time-out of a processor that then goes on to something else.

    Its exchange is not over, so nobody else ends its part.
    """
    first, other = exchange(tasks), exchange(tasks)
    leaving: list[asyncio.Task[bytes]] = []
    loop = asyncio.get_running_loop()
    calling = Calling(tasks, lambda: loop.call_soon(leaving[0].cancel))
    flight = begun(first, calling, tasks, max_bytes=max_bytes)
    leaving.append(started(tasks, flight, first))
    staying = started(tasks, flight, other)
    await turns()

    calling.go_on.set()
    async with asyncio.timeout(SOON_S):
        got = await staying

    assert got == WIRE
    assert leaving[0].cancelled()
    assert first.outcome is None
    first.finish(End.ABANDONED)


async def test_when_all_are_cancelled_as_they_board_it_ends(tasks: Tasks) -> None:
    first = exchange(tasks)
    leaving: list[asyncio.Task[bytes]] = []
    loop = asyncio.get_running_loop()
    calling = Calling(tasks, lambda: loop.call_soon(leaving[0].cancel))
    flight = begun(first, calling, tasks)
    leaving.append(started(tasks, flight, first))
    await turns()

    calling.go_on.set()
    await turns(10)

    assert flight.exchange.outcome is not None
    assert flight.exchange.outcome.end is End.ABANDONED
    assert calling.body is not None
    assert calling.body.ends == 1
    assert not flight.can_be_joined
    first.finish(End.ABANDONED)


async def test_one_that_is_cancelled_as_it_fails_leaves_no_error_unseen(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio reports an error that nobody looked at."""
    first = exchange(tasks)
    leaving: list[asyncio.Task[bytes]] = []
    loop = asyncio.get_running_loop()

    def fail() -> None:
        loop.call_soon(leaving[0].cancel)
        raise UpstreamCut("reset")

    calling = Calling(tasks, fail)
    flight = begun(first, calling, tasks)
    leaving.append(started(tasks, flight, first))
    await turns()

    calling.go_on.set()
    await turns(10)

    assert leaving[0].cancelled()
    assert flight.exchange.outcome is not None
    assert flight.exchange.outcome.end is End.FAILED
    leaving.clear()
    gc.collect()
    assert not caplog.records
    first.finish(End.ABANDONED)


async def test_a_call_of_one_whose_client_has_left_is_not_made(tasks: Tasks) -> None:
    """A processor's task that goes on after the end of its exchange: nobody would be billed."""
    first = exchange(tasks)
    first.finish(End.ABANDONED)
    calling = Calling(tasks)
    flight = begun(first, calling, tasks)

    with pytest.raises(InternalError, match="stopped"):
        await flight.join(first)
    await turns()

    assert calling.calls == 0
    assert not flight.can_be_joined


async def test_who_waits_is_told_when_the_flight_is_ended_from_outside(tasks: Tasks) -> None:
    """The process ends, and abandons what goes on in the background: here before the first step of its task."""
    first, flights, calling = exchange(tasks), list[Flight](), Calling(tasks)

    async def take_off() -> None:
        flights.append(begun(first, calling, tasks))
        with pytest.raises(InternalError, match="stopped"):
            await flights[0].join(first)

    waiting = tasks.start(take_off(), name="client")
    await turns(1)
    flights[0].exchange.finish(End.ABANDONED)
    async with asyncio.timeout(SOON_S):
        await waiting

    assert calling.calls == 0
    first.finish(End.FAILED)


async def test_a_bug_where_the_answer_lands_is_told(tasks: Tasks) -> None:
    first = exchange(tasks)

    async def opaque(exchange: Exchange) -> Response:
        return Stream(exchange, ScriptedBody([b"x"], tasks), dialect=DIALECT, api=None)

    flight = Flight(first.detach(first.request), opaque, max_bytes=1, tasks=tasks)

    with pytest.raises(InternalError, match="failed"):
        await flight.join(first)

    assert flight.kept is None
    assert flight.exchange.outcome is not None
    assert flight.exchange.outcome.end is End.FAILED
    first.finish(End.FAILED)
