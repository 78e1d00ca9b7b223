"""What a connection's last head spares: it changes nothing of what a head means, and is not kept for long."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy_core.errors import RequestRejected
from llmproxy_server.door import Door
from llmproxy_server.door_request import Incoming
from llmproxy_server.wire import last_head
from llmproxy_server.wire.connection import HEAD_KEPT_S, Connection
from llmproxy_server.wire.last_head import LastHead
from llmproxy_server.wire.request_head import HeadReader
from tests.llmproxy_server.edging import ask, post, request
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.upstream import Upstream, completion, reply

LINE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
SECRET = "s3cret-of-the-client"


def read(head: bytes) -> Incoming:
    return HeadReader(100).read(head.removesuffix(b"\r\n\r\n"), peer="192.0.2.1", secure=True)


def kept(head: bytes, door: Door) -> LastHead:
    return LastHead(head, read(head), door)


def meaning(incoming: Incoming) -> tuple[object, ...]:
    it = incoming
    begin = (it.method, it.target, it.path, it.query, it.version)
    return (*begin, list(it.headers), dict(it.headers.first), it.peer, it.secure, it.length, it.keep_alive)


@pytest.fixture
def door(request: pytest.FixtureRequest) -> Door:
    return object.__new__(Door)  # it is only compared


@pytest.mark.parametrize(
    ("head", "other"),
    [
        (LINE + b"Content-Length: 12\r\n\r\n", LINE + b"Content-Length: 3456\r\n\r\n"),
        (LINE + b"content-length:1\r\nX: y\r\n\r\n", LINE + b"content-length:0\r\nX: y\r\n\r\n"),
        (LINE + b"Content-Length:   7  \r\nX: 7\r\n\r\n", LINE + b"Content-Length:   007  \r\nX: 7\r\n\r\n"),
    ],
)
def test_a_head_with_another_length_means_what_it_says(head: bytes, other: bytes, door: Door) -> None:
    last = kept(head, door)

    for each in (other, head, other):
        found = last.but_for_length(each)
        assert found is not None
        assert meaning(found) == meaning(read(each))
        assert (last.head, last.incoming) == (each, found)


@pytest.mark.parametrize(
    "length",
    [b"", b" ", b"+1", b"-1", b"1 2", b"1,2", b"0x1", b"1" * 19, "²".encode(), b"1\r\nX: y", b"1\r\nContent-Length: 1"],
)
def test_a_length_that_is_none_is_left_to_the_reader(length: bytes, door: Door) -> None:
    last = kept(LINE + b"Content-Length: 12\r\nY: z\r\n\r\n", door)

    assert last.but_for_length(LINE + b"Content-Length: " + length + b"\r\nY: z\r\n\r\n") is None


def test_a_head_without_a_length_is_no_measure_for_others(door: Door) -> None:
    last = kept(LINE + b"X: y\r\n\r\n", door)

    assert last.but_for_length(LINE + b"X: y\r\nContent-Length: 1\r\n\r\n") is None


PIECES = st.lists(
    st.sampled_from(
        [
            b"Content-Length: ",
            b"content-length:",
            b"1",
            b"22",
            b" ",
            b"\r\n",
            b"X: y",
            b"Transfer-Encoding: chunked",
            b"+",
        ]
    ),
    max_size=8,
).map(b"".join)


@given(PIECES, PIECES)
def test_no_head_is_taken_in_another_way_than_the_reader_takes_it(one: bytes, two: bytes) -> None:
    try:
        last = kept(LINE + one + b"\r\n\r\n", object.__new__(Door))
    except RequestRejected:
        return

    found = last.but_for_length(LINE + two + b"\r\n\r\n")

    assert found is None or meaning(found) == meaning(read(LINE + two + b"\r\n\r\n"))


def only_connection(proxy: Proxy) -> Connection:
    (connection,) = proxy.server.edges[0].connections
    assert isinstance(connection, Connection)
    return connection


async def test_calls_with_the_same_head_have_bodies_and_lengths_of_their_own() -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        sent = [{"model": "m", "messages": [{"role": "user", "content": "x" * size}]} for size in (5, 5, 500, 7)]
        for body in sent:
            assert (await ask(client, post(body))).status == 200

        assert [json.loads(it.body) for it in upstream.requests] == sent


async def test_what_looked_at_a_head_before_looks_at_the_next_that_differs() -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        assert (await ask(client, post())).status == 200
        assert (await ask(client, post().replace(b"Host: localhost", b"Host: evil.test"))).status != 200


async def test_a_head_and_its_credential_are_not_kept_when_no_call_follows() -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post({"model": "m", "messages": []}, "/v1/chat/completions", f"Authorization: {SECRET}"))
        connection = only_connection(proxy)
        now = connection._loop.time()

        connection.tick(now)
        assert SECRET.encode() in (connection._last or pytest.fail("it is kept for the next call")).head

        connection.tick(now + HEAD_KEPT_S + 1)
        assert connection._last is None


async def test_a_long_head_is_not_kept() -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, request("GET", "/health", "X: " + "y" * last_head.LONGEST))

        assert only_connection(proxy)._last is None
