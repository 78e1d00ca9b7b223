"""Bodies as they arrive: taken in turns where they come in many chunks, and no more of them held than is wanted."""

import asyncio
from functools import partial

import attrs
import pytest

from llmproxy_core.errors import BadRequest
from llmproxy_server.wire.chunked import MOST_A_TURN
from llmproxy_server.wire.in_turn import InTurn
from llmproxy_server.wire.request_body import MOST_AT_ONCE_BYTES, MOST_HELD_BYTES, Arriving
from tests.llmproxy_server.edging import answer, request
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.upstream import Upstream, completion, reply

SHORT = b"1\r\nx\r\n"
LAST = b"0\r\n\r\n"
MANY = 10 * MOST_A_TURN


@attrs.define(eq=False)
class Feeding:
    """Feeds a body as a connection does, and remembers what it was told."""

    paused: bool = False
    feeds: int = 0
    rest: bytes = b""

    def pause_body(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_body(self) -> None:
        assert self.paused
        self.paused = False

    def feed_later(self, body: Arriving) -> None:
        asyncio.get_running_loop().call_soon(self.feed, body, b"")

    def feed(self, body: Arriving, data: bytes) -> None:
        self.feeds += 1
        self.rest += body.feed(data)


def chunked() -> tuple[Feeding, Arriving]:
    feeding = Feeding()
    return feeding, Arriving(None, feeding, asyncio.get_running_loop())


async def whole(body: Arriving) -> bytes:
    found = b""
    async with asyncio.timeout(20):
        while size := await body.more():
            piece = body.take()
            assert len(piece) == size
            found += piece
    return found


async def test_of_many_chunks_that_came_at_once_some_are_taken_each_turn() -> None:
    feeding, body = chunked()

    feeding.feed(body, SHORT * MANY + LAST + b"GET")

    assert body.take() == b"x" * MOST_A_TURN
    assert (feeding.paused, body.complete) == (True, False)
    assert await whole(body) == b"x" * (MANY - MOST_A_TURN)
    assert MANY / MOST_A_TURN <= feeding.feeds <= MANY / MOST_A_TURN + 1
    assert (feeding.rest, feeding.paused) == (b"GET", False)


async def test_what_comes_meanwhile_is_taken_behind_it() -> None:
    feeding, body = chunked()

    feeding.feed(body, SHORT * MANY)
    feeding.feed(body, b"3\r\nend\r\n" + LAST)

    assert await whole(body) == b"x" * MANY + b"end"


async def test_large_chunks_are_taken_in_one_turn() -> None:
    feeding, body = chunked()

    feeding.feed(body, b"10000\r\n" + b"x" * 0x10000 + b"\r\n" + LAST)

    assert (body.complete, feeding.feeds, feeding.paused) == (True, 1, False)


async def test_what_is_malformed_behind_many_chunks_is_refused() -> None:
    feeding, body = chunked()

    feeding.feed(body, SHORT * MANY + b"no chunk\r\n")

    with pytest.raises(BadRequest):
        await whole(body)


async def test_a_body_that_nobody_reads_holds_its_client_back_and_goes_on_when_it_is_read() -> None:
    feeding = Feeding()
    body = Arriving(2 * MOST_HELD_BYTES, feeding, asyncio.get_running_loop())

    feeding.feed(body, b"x" * (MOST_HELD_BYTES + 1))
    assert feeding.paused

    assert await asyncio.wait_for(body.more(), 5) == len(body.take()) == MOST_HELD_BYTES + 1
    reading = asyncio.get_running_loop().create_task(whole(body))
    await until(lambda: not feeding.paused)
    feeding.feed(body, b"y" * MOST_HELD_BYTES)

    assert await reading == b"y" * (MOST_HELD_BYTES - 1)
    assert feeding.rest == b"y"
    assert not feeding.paused


async def test_while_somebody_waits_more_may_come_at_once_and_what_was_told_of_stays_until_it_is_taken() -> None:
    feeding = Feeding()
    body = Arriving(3 * MOST_AT_ONCE_BYTES, feeding, asyncio.get_running_loop())
    told = asyncio.get_running_loop().create_task(body.more())
    await asyncio.sleep(0)

    paused = []
    for data in (b"x" * MOST_AT_ONCE_BYTES, b"y"):
        feeding.feed(body, data)
        paused.append(feeding.paused)

    assert paused == [False, True]
    assert await told == MOST_AT_ONCE_BYTES + 1
    told = asyncio.get_running_loop().create_task(body.more())
    await until(lambda: not feeding.paused)
    feeding.feed(body, b"z")
    assert await told == 1
    assert body.take() == b"x" * MOST_AT_ONCE_BYTES + b"yz"


async def test_a_call_in_chunks_of_one_byte_is_served_and_so_is_what_follows_it() -> None:
    data = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'.ljust(2 * MOST_A_TURN)
    head = request("POST", "/v1/chat/completions", "Content-Type: application/json", "Transfer-Encoding: chunked")
    bytewise = b"".join(b"1\r\n%c\r\n" % byte for byte in data)

    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(head + bytewise + LAST + request("GET", "/livez"))

        assert (await answer(client)).status == 200
        assert (await answer(client, method="GET")).status == 200
        assert upstream.requests[0].body == data


async def test_however_many_connections_have_many_chunks_one_is_served_each_turn() -> None:
    loop = asyncio.get_running_loop()
    in_turn, turn, served = InTurn(loop), [0], list[tuple[int, str]]()

    def work(name: str, left: int) -> None:
        served.append((turn[0], name))
        if left:
            in_turn.add(partial(work, name, left - 1))

    for name in "abc":
        in_turn.add(partial(work, name, 1))
    for _ in range(8):
        await asyncio.sleep(0)
        turn[0] += 1

    assert served == [(n, name) for n, name in enumerate("abcabc")]
