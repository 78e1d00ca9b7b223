"""Messages between a parent and its workers come whole and in order, or the channel is over."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from llmproxy_core.endpoint import EndpointReply
from llmproxy_core.errors import Problem
from llmproxy_server.generation import KeptSetting
from llmproxy_server.process import messages
from llmproxy_server.process.channel import MAX_BYTES, Channel, to_parent, to_worker
from llmproxy_server.process.said import read_reloaded, said_of
from llmproxy_server.reload import Reloaded


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Channel[messages.ToParent], Channel[messages.ToWorker]]]:
    ours, theirs = socket.socketpair()
    parent, worker = await to_worker(ours), await to_parent(theirs)
    yield parent, worker
    parent.close()
    worker.close()


async def test_messages_come_whole_and_in_order() -> None:
    sent: list[messages.Told] = [
        messages.Begin("1", b"{}", [3, 4], None, "/metrics", 1, 2, True, False, b"{}", True, ("main",)),
        messages.Prepare(2, b"x" * 200_000),
        messages.Commit(2, 3),
        messages.Drain("main", True),
        messages.Ask(4, "GET", "/health", "", [("a", "b")], b""),
        messages.Answers(5, [messages.Reply.of(EndpointReply(b"{}", 200)), messages.NO_ANSWER]),
        messages.ReloadOver(6, {"ok": True}),
        messages.Stop(),
    ]
    async with pair() as (parent, worker):
        for message in sent:
            parent.send(message)

        got = [await asyncio.wait_for(worker.receive(), 5) for _ in sent]

    assert got == sent


async def test_what_a_newer_worker_is_not_told_by_an_older_parent_is_as_if_there_were_nothing() -> None:
    """Its last fields are not sent by a parent that does not know them."""
    begin = messages.Begin("1", b"", [3], None, "/metrics", 1, 2, True, False, b"", True, ("main",))
    whole = msgspec.msgpack.decode(msgspec.msgpack.encode(begin))
    data = msgspec.msgpack.encode(whole[:-1])
    ours, theirs = socket.socketpair()
    channel = await to_parent(theirs)
    ours.sendall(len(data).to_bytes(4, "big") + data)

    found = await asyncio.wait_for(channel.receive(), 5)

    assert isinstance(found, messages.Begin)
    assert (found.slot, found.drained) == ("1", ())
    channel.close()
    ours.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00",
        b"\x00\x00\x00\x04\xc0",
        b"\x00\x00\x00\x01\xc1",
        b"\x00\x00\x00\x03abc",
        (MAX_BYTES + 1).to_bytes(4, "big"),
    ],
    ids=["nothing", "half a head", "half a message", "garbage", "text", "too long"],
)
async def test_an_end_or_garbage_ends_the_channel(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    channel = await to_parent(theirs)
    ours.sendall(data)
    ours.close()

    assert await asyncio.wait_for(channel.receive(), 5) is None

    channel.send(messages.Ready())  # to nobody: nothing happens
    await channel.flush()
    channel.close()
    channel.send(messages.Ready())


def test_what_became_of_a_reload_is_told_whole() -> None:
    done = Reloaded(
        False,
        3,
        (Problem("route[1].target_llm", "no such LLM", 7, 2),),
        changes=("llm.demo changed",),
        warnings=(Problem("llm.x", "unused"),),
        kept_settings=(KeptSetting("server.port", 1, 2),),
        busy=True,
    )

    again = read_reloaded(said_of(done))

    assert again.problems == done.problems
    assert again.warnings == done.warnings
    assert (again.ok, again.generation, again.changes, again.busy) == (False, 3, ("llm.demo changed",), True)
    assert [it.name for it in again.kept_settings] == ["server.port"]
