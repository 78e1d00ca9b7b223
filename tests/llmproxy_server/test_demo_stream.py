"""The pace of a demo's stream. Delays that a test is not to see are an hour long: it ends before, or fails."""

import asyncio

import pytest

from llmproxy_core.errors import UpstreamTimeout
from llmproxy_server.demo_stream import Paced

AN_HOUR_S = 3600.0
CHUNKS = [b"a", b"b", b"c"]


async def read_all(paced: Paced) -> list[bytes]:
    chunks = []
    while chunk := await paced.read():
        chunks.append(chunk)
    return chunks


async def test_all_chunks_come_and_then_the_end() -> None:
    async with asyncio.timeout(5):
        chunks = await read_all(Paced(CHUNKS, delay_s=0.001))

    assert chunks == CHUNKS


async def test_without_a_delay_others_still_get_their_turn() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(others())
        await read_all(Paced(CHUNKS, delay_s=0))
        task.cancel()

    assert turns >= len(CHUNKS)


async def test_the_first_chunk_does_not_wait() -> None:
    paced = Paced(CHUNKS, delay_s=AN_HOUR_S)

    async with asyncio.timeout(5):
        assert await paced.read() == b"a"


@pytest.mark.parametrize("stall_s", [None, AN_HOUR_S], ids=["between chunks", "stalled"])
async def test_closing_ends_a_wait_at_once_and_no_chunk_comes(stall_s: float | None) -> None:
    paced = Paced(CHUNKS if stall_s is None else [b"a"], delay_s=AN_HOUR_S, stall_s=stall_s)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        await paced.read()
        reading = group.create_task(paced.read())
        await asyncio.sleep(0)  # the reader waits now

        paced.close()

        assert await reading == b""
        assert await paced.read() == b""


async def test_a_stall_ends_as_an_idle_upstream_does() -> None:
    paced = Paced([b"a"], delay_s=0, stall_s=0.01)

    async with asyncio.timeout(5):
        assert await paced.read() == b"a"
        with pytest.raises(UpstreamTimeout) as caught:
            await paced.read()

    assert caught.value.code == "upstream_timeout_idle"
