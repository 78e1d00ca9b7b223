"""Which connection is used next, who waits for one, and when one goes."""

import asyncio
import gc
import socket
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from llmproxy_core.errors import Overloaded, UpstreamCut
from llmproxy_core.llm import Timeouts
from llmproxy_core.services import Pool
from llmproxy_server.wire.upstream import WireTransport
from llmproxy_server.wire.upstream_connection import UpstreamConnection
from llmproxy_server.wire.upstream_pool import Connections, Origin
from tests.llmproxy_server.transporting import OFF, call, get, post, rest, through, transporting, until
from tests.upstream import Chunk, End, Head, Stall, Step, Upstream, Wait, reply

SHORT_S = 0.1


@pytest.fixture(autouse=True)
def over_the_wire() -> Iterator[None]:
    with through(WireTransport):
        yield


def held(go_on: asyncio.Event) -> list[Step]:
    return [Head(200, (), 2), Wait(go_on), Chunk(b"ok"), End()]


# ------------------------------------------------------------------------------------------------ over sockets


async def test_the_connection_that_was_used_last_is_used_next() -> None:
    events = [asyncio.Event() for _ in range(3)]
    async with Upstream(reply([1])) as upstream, transporting() as transport:
        upstream.then(*map(held, events))
        bodies = []
        for number in range(3):  # one after the other, so that each has its own number
            bodies.append(await call(transport, post(upstream.base_url)))
            await upstream.received(number + 1)
        for number in (0, 2, 1):
            events[number].set()
            await rest(bodies[number])

        for _ in range(2):
            await rest(await call(transport, post(upstream.base_url)))

        assert [each.connection for each in upstream.requests] == [1, 2, 3, 2, 2]


async def test_idle_connections_go_by_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    sweeps = 0
    call_at = loop.call_at

    def counted(when: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        nonlocal sweeps
        sweeps += getattr(callback, "__qualname__", "") == "Connections._sweep"
        return call_at(when, callback, *args)

    monkeypatch.setattr(loop, "call_at", counted)
    go_on = asyncio.Event()
    async with Upstream(held(go_on)) as upstream, transporting(Pool(idle_s=SHORT_S)) as transport:
        bodies = [await call(transport, post(upstream.base_url)) for _ in range(5)]
        go_on.set()
        for body in bodies:
            await rest(body)
        await until(lambda: transport.connections_in_use == 0)
        assert upstream.connections_open == 5

        await upstream.until(lambda: upstream.connections_open == 0)

        assert sweeps == 1
        assert transport.connections_open == 0


async def test_an_idle_connection_makes_room_for_one_to_another_host() -> None:
    async with Upstream(reply([1])) as one, Upstream(reply([2])) as other:
        async with transporting(Pool(max_connections=1)) as transport:
            for upstream in (one, other, one):
                await rest(await call(transport, post(upstream.base_url)))
                assert transport.connections_open == 1
            await one.until(lambda: one.connections_open == 1)
            await other.until(lambda: other.connections_open == 0)

        assert (one.connections_total, other.connections_total) == (2, 1)


async def test_a_call_to_another_host_is_not_held_up_by_those_that_wait_for_a_full_one() -> None:
    go_on = asyncio.Event()
    async with Upstream(held(go_on)) as full, Upstream(reply([2])) as other:
        async with transporting(Pool(max_connections_per_host=1)) as transport, asyncio.TaskGroup() as tasks:
            first = await call(transport, post(full.base_url))
            waiting = [tasks.create_task(call(transport, post(full.base_url))) for _ in range(3)]
            await asyncio.sleep(0)

            assert await rest(await call(transport, post(other.base_url))) == b"[2]"

            go_on.set()
            assert await rest(first) == b"ok"
            for each in waiting:
                assert await rest(await each) == b"ok"

        assert full.connections_total == 1


async def test_new_connections_are_made_side_by_side() -> None:
    """In the handshake, which this upstream does not know of."""
    async with Upstream() as upstream, transporting() as transport:
        url = upstream.url.replace("http:", "https:")
        opening = [asyncio.Task(transport.open(get(url), OFF)) for _ in range(3)]

        await upstream.until(lambda: upstream.connections_open == 3)

        assert transport.connections_in_use == 3
        for each in opening:
            each.cancel()
        await asyncio.wait(opening)
        upstream.take_errors()


async def test_who_leaves_while_a_connection_is_made_takes_no_descriptor_of_others_along() -> None:
    """
    Left in each turn of the loop.

    uvloop before 0.23 closed the descriptor, and the socket of it closed it again when it was collected, tests later
    (MagicStack/uvloop issues 645 and 738): by then the number was that of another connection.
    """
    async with Upstream(reply([1])) as upstream, transporting() as transport:
        for turns in count():
            opening = asyncio.Task(transport.open(get(upstream.url), OFF))
            for _ in range(turns):
                await asyncio.sleep(0)
            if opening.done():
                await rest(opening.result().body)
                break
            opening.cancel()
            await asyncio.wait([opening])
            del opening

            with socket.socket() as given_the_number:
                gc.collect()

                assert given_the_number.getsockname() == ("0.0.0.0", 0)

        assert turns > 2
        assert transport.connections_in_use == 0


async def test_who_waits_too_long_leaves_the_queue() -> None:
    go_on = asyncio.Event()
    async with Upstream(held(go_on)) as upstream, transporting(Pool(max_connections=1)) as transport:
        body = await call(transport, post(upstream.base_url))
        for _ in range(2):
            with pytest.raises(Overloaded) as refused:
                await transport.open(post(upstream.base_url), Timeouts(SHORT_S, None, None, None))
            assert refused.value.code == "pool_full"
        go_on.set()
        await rest(body)

        assert await rest(await call(transport, post(upstream.base_url))) == b"ok"
        assert (upstream.connections_total, len(upstream.requests)) == (1, 2)


async def test_who_waits_when_the_transport_is_closed_is_cut() -> None:
    async with Upstream([Head(), Stall()]) as upstream, transporting(Pool(max_connections=1)) as transport:
        await call(transport, post(upstream.base_url))
        opening = asyncio.Task(transport.open(post(upstream.base_url), OFF))
        await asyncio.sleep(0)

        await transport.aclose()

        with pytest.raises(UpstreamCut):
            await opening
        assert len(upstream.requests) == 1


# ------------------------------------------------------------------------------------------------ turn by turn


class Socket(asyncio.Transport):
    """A transport of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.unsent_bytes = 0

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes


def connection(pool: Connections, origin: Origin) -> UpstreamConnection:
    """One in a place that was taken."""
    made = UpstreamConnection(pool, origin)
    made.connection_made(Socket())
    pool.add(made)
    return made


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_who_waits_first_is_served_first() -> None:
    pool = Connections(Pool(max_connections=1), asyncio.get_running_loop())
    origins = [pool.origin(name, 80, tls=False) for name in "abc"]
    busy = connection(pool, origins[0]) if await pool.place(origins[0]) is None else None
    assert busy is not None
    served: list[int] = []

    async def one(number: int) -> None:
        got = await pool.place(origins[number % 3])
        served.append(number)
        if got is None:
            connection(pool, origins[number % 3]).abort()
        else:
            got.abort()

    async with asyncio.TaskGroup() as tasks:
        for number in range(9):
            tasks.create_task(one(number))
        await turns()
        assert served == []

        busy.abort()

    assert served == list(range(9))
    assert pool.open == pool.in_use == 0


@pytest.mark.parametrize("given", ["connection", "place"])
async def test_a_turn_that_comes_as_its_owner_leaves_goes_to_the_next(given: str) -> None:
    pool = Connections(Pool(max_connections=1), asyncio.get_running_loop())
    origin = pool.origin("a", 80, tls=False)
    assert await pool.place(origin) is None
    busy = connection(pool, origin)
    first, second = asyncio.Task(pool.place(origin)), asyncio.Task(pool.place(origin))
    await turns()

    pool.put(busy) if given == "connection" else busy.abort()
    first.cancel()
    await asyncio.wait([first, second], timeout=1)

    assert first.cancelled()
    assert second.result() is (busy if given == "connection" else None)
    assert pool.open == pool.in_use == 1


async def test_who_is_given_a_connection_that_is_lost_on_its_way_waits_on_and_before_others() -> None:
    pool = Connections(Pool(max_connections=1), asyncio.get_running_loop())
    origin = pool.origin("a", 80, tls=False)
    assert await pool.place(origin) is None
    busy = connection(pool, origin)
    waiting = [asyncio.Task(pool.place(origin)) for _ in range(3)]
    await turns()

    pool.put(busy)
    busy.abort()  # whose place the second is given, since the first is on its way

    for expected in (1, 0, 2):
        await asyncio.wait([waiting[expected]], timeout=1)
        assert waiting[expected].result() is None
        assert pool.open == 1
        pool.give_back(origin)
    assert pool.open == 0


@pytest.mark.parametrize("what", ["unsent", "blocked", "closing"])
async def test_a_connection_that_is_not_clean_is_not_used_again(what: str) -> None:
    pool = Connections(Pool(), asyncio.get_running_loop())
    origin = pool.origin("a", 80, tls=False)
    assert await pool.place(origin) is None
    busy = connection(pool, origin)
    assert isinstance(busy.transport, Socket)
    if what == "unsent":
        busy.transport.unsent_bytes = 1
    elif what == "blocked":
        busy.pause_writing()
    else:
        busy.transport.closed = True

    pool.put(busy)

    assert pool.in_use == 0
    assert pool.take(origin, asyncio.get_running_loop().time()) is None
    assert busy.transport.closed
    assert pool.open == 0
    pool.close()


async def test_origins_that_nobody_uses_are_forgotten() -> None:
    pool = Connections(Pool(), asyncio.get_running_loop())
    used = pool.origin("used", 80, tls=False)
    assert await pool.place(used) is None
    for number in range(2000):
        pool.origin(f"h{number}", 80, tls=False)

    assert len(pool._origins) <= 513
    assert pool.origin("used", 80, tls=False) is used
