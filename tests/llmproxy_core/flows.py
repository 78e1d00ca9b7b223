"""Answers on their way to a client: whole, pulled or pushed."""

import asyncio

import pytest

from llmproxy_core import ClientView, ProxyError, Response, Stream, Tasks
from llmproxy_core.relay import Flow, Whole, deliver
from llmproxy_core.testing import ScriptedBody
from tests.llmproxy_core.conversation import CHAT, DIALECT, SOON_S, exchange, question

PUSHED = pytest.mark.parametrize("pushed", [False, True], ids=["pulled", "pushed"])


def client_of(*, stream: bool = False, usage: bool = False, opaque: bool = False) -> ClientView:
    return ClientView(DIALECT, None if opaque else CHAT, stream, usage)


def streamed(
    tasks: Tasks, *chunks: bytes | ProxyError | asyncio.Event, opaque: bool = False
) -> tuple[Stream, ScriptedBody]:
    body = ScriptedBody(chunks, tasks)
    call = exchange(tasks, body=question(stream=True))
    return Stream(
        call, body, dialect=DIALECT, api=None if opaque else CHAT, status=201, headers=[("x-ratelimit-limit", "9")]
    ), body


async def flow_of(response: Response, client: ClientView) -> Flow:
    delivery = await asyncio.wait_for(deliver(response, client), SOON_S)
    assert isinstance(delivery, Flow)
    return delivery


async def whole_of(response: Response, client: ClientView) -> Whole:
    delivery = await asyncio.wait_for(deliver(response, client), SOON_S)
    assert isinstance(delivery, Whole)
    return delivery


class Pushed:
    """What a flow pushed."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ends = 0
        self.over = asyncio.Event()

    def write(self, piece: bytes) -> None:
        assert not self.ends, "nothing is written after the end"
        self.pieces.append(piece)

    def ended(self) -> None:
        self.ends += 1
        self.over.set()


async def taken(flow: Flow, *, pushed: bool) -> list[bytes]:
    """All pieces, pulled or pushed."""
    async with asyncio.timeout(SOON_S):
        if not pushed:
            return [piece async for piece in flow.pieces()]
        sink = Pushed()
        flow.attach(sink.write, sink.ended)
        await sink.over.wait()
        await asyncio.sleep(0)
        assert sink.ends == 1
        return sink.pieces
