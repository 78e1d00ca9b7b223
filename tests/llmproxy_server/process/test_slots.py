"""What a worker is told that begins in the moment in which all are to end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmproxy_core.tasks import Tasks
from llmproxy_server.metrics.metering import Metering
from llmproxy_server.process import messages
from llmproxy_server.process.channel import to_parent
from llmproxy_server.process.slots import Slot, Slots

WAIT_S = 5


class Fake:
    """A process that is none; what its parent tells it is read here."""

    pid = 0

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def kill(self) -> None:
        if not self.ended.done():
            self.ended.set_result(-9)


def begin(slot: Slot) -> messages.Begin:
    return messages.Begin(slot.name, b"{}", [], None, "/metrics", 1, 1, False, False, b"{}", True)


@pytest.mark.parametrize("relieved", [True, False])
async def test_a_worker_whose_start_crosses_the_end_is_told_whether_others_have_its_sockets(
    tmp_path: Path, relieved: bool
) -> None:
    started: list[Fake] = []

    def spawn(channel: int, descriptors: Sequence[int]) -> Fake:
        started.append(Fake(socket.socket(fileno=os.dup(channel))))
        # The slot has no worker yet: this end comes before its parent's side of the channel is there.
        asyncio.get_running_loop().call_soon(lambda: slots.stop(relieved=relieved))
        return started[0]

    tasks, metering = Tasks(), Metering.of_parent(tmp_path)
    assert metering.upkeep is not None
    slots = Slots(
        [Slot("1", [], None)],
        spawn,
        begin,
        heard=lambda child, message: None,
        gone=lambda slot: None,
        upkeep=metering.upkeep,
        tasks=tasks,
    )

    assert await asyncio.wait_for(slots.start(), WAIT_S) is False
    channel = await to_parent(started[0].channel)
    told = [await asyncio.wait_for(channel.receive(), WAIT_S) for _ in range(2)]

    assert told == [begin(slots.all[0]), messages.Stop(relieved)]
    channel.close()
    started[0].kill()
    await slots.ended(WAIT_S)
    await tasks.drain(0)
    metering.stop()
