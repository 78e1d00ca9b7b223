"""Answers that wait for their clients: which of them go when there are too many."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from llmproxy_server.client_socket import Stall
from llmproxy_server.door_request import ClientGone
from llmproxy_server.unsent import USUAL_BYTES_PER_S, Unsent

MB = 1 << 20


class Reader:
    """A client that has an answer to take, until it `has_all` or is cut."""

    pushes = blocked = True

    def __init__(self, unsent_bytes: int) -> None:
        self.unsent_bytes = unsent_bytes
        self.is_cut = False
        self._over = asyncio.Event()

    def has_all(self) -> None:
        self.unsent_bytes = 0
        self._over.set()

    def abort(self) -> None:
        self.is_cut = True
        self._over.set()

    async def drain(self) -> None:
        await self._over.wait()
        if self.is_cut:
            raise ClientGone

    def write(self, *data: bytes) -> None: ...

    pass_on = write

    def over(self) -> None: ...


@attrs.define(eq=False)
class Held:
    """10 MB may be held. *now* is the clock."""

    now: float = 0.0
    unsent: Unsent = attrs.field(init=False)
    tasks: list[asyncio.Task[None]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.unsent = Unsent(10 * MB, lambda: self.now)

    async def add(self, size: int) -> Reader:
        reader = Reader(size)
        self.tasks.append(asyncio.get_running_loop().create_task(self.unsent.taken(reader)))
        await asyncio.sleep(0)
        return reader

    async def ends(self) -> list[object]:
        """How those that are over ended."""
        await asyncio.sleep(0)
        return [type(task.exception()) if task.exception() else None for task in self.tasks if task.done()]


@pytest.fixture
async def held() -> Any:
    found = Held()
    yield found
    for task in found.tasks:
        task.cancel()
    await asyncio.wait(found.tasks, timeout=5)


async def test_while_all_fits_nobody_is_cut(held: Held) -> None:
    readers = [await held.add(3 * MB) for _ in range(3)]
    readers[0].has_all()
    assert await held.ends() == [None]

    readers.append(await held.add(4 * MB))

    assert held.unsent.bytes == 10 * MB
    assert not any(reader.is_cut for reader in readers)


async def test_who_takes_its_answer_most_slowly_is_cut_however_long_the_others_have_waited(held: Held) -> None:
    busy = await held.add(8 * MB)
    held.now = 32.0
    busy.unsent_bytes -= 32 * USUAL_BYTES_PER_S
    slow = await held.add(4 * MB)
    held.now = 40.0
    busy.unsent_bytes -= 8 * USUAL_BYTES_PER_S
    slow.unsent_bytes -= 1000

    last = await held.add(2 * MB)

    assert (busy.is_cut, slow.is_cut, last.is_cut) == (False, True, False)
    assert await held.ends() == [ClientGone]
    assert held.unsent.bytes <= 10 * MB


async def test_what_clients_have_taken_meanwhile_makes_room_without_a_cut(held: Held) -> None:
    first = await held.add(9 * MB)
    first.unsent_bytes = 1 * MB

    assert not (await held.add(9 * MB)).is_cut
    assert not first.is_cut


async def test_an_answer_that_is_longer_than_all_that_may_be_held_is_held_alone(held: Held) -> None:
    readers = [await held.add(MB), await held.add(MB)]

    long = await held.add(11 * MB)

    assert [it.is_cut for it in (*readers, long)] == [True, True, False]
    long.has_all()
    assert await held.ends() == [ClientGone, ClientGone, None]
    assert held.unsent._at_most == held.unsent.bytes == 0


# -- one client ------------------------------------------------------------------------------------------------------


@attrs.define
class Transport:
    """One that looks as a test says."""

    size: int
    is_cut: bool = False

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.is_cut = True


def watched(taken: list[int], rate: int = 100) -> bool:
    """Whether one is cut who takes so much in each of these seconds, and may be 10 behind."""
    transport: Any = Transport(1_000_000)
    stall = Stall()
    stall.check(transport, 0.0, 10.0, rate)
    for second, size in enumerate(taken, 1):
        transport.size -= size
        stall.check(transport, float(second), 10.0, rate)
    return bool(transport.is_cut)


@pytest.mark.parametrize(
    ("taken", "rate", "is_cut"),
    [
        ([0] * 10, 100, False),
        ([0] * 11, 100, True),
        ([100] * 100, 100, False),
        ([50] * 19, 100, False),
        ([50] * 25, 100, True),
        ([500_000] + [1] * 12, 100, True),
        ([0] * 9 + [900] + [0] * 9, 100, False),
        ([0, 0, 0, 0, 0, 1] * 20, 0, False),
        ([0] * 11, 0, True),
    ],
    ids=[
        "nothing, not long",
        "nothing",
        "as much as must be",
        "half of it, not long",
        "half of it",
        "much, then next to nothing",
        "in bursts",
        "a byte now and then, without a rate",
        "nothing, without a rate",
    ],
)
def test_who_takes_less_than_the_least_rate_is_cut(taken: list[int], rate: int, is_cut: bool) -> None:
    assert watched(taken, rate) is is_cut


def test_who_has_made_room_for_more_begins_anew() -> None:
    transport: Any = Transport(1000)
    stall = Stall()
    for second in range(100):
        stall.check(transport, float(second), 10.0, 100)
        if second % 9 == 8:
            stall.over()

    assert not transport.is_cut
