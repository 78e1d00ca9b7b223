"""What a connection's last head spares: it changes nothing of what a head means, and is not kept for long."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy_core.errors import RequestRejected
from llmproxy_core.headers import Headers
from llmproxy_core.plugins import Registry
from llmproxy_core.routing import Match
from llmproxy_server.door import Door
from llmproxy_server.door_request import Incoming
from llmproxy_server.wire import last_head
from llmproxy_server.wire.connection import HEAD_KEPT_S, Connection
from llmproxy_server.wire.last_head import END, MAY_DIFFER, LastHead
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
    return LastHead(head, read(head), door, last_head.LONGEST)


def follow(last: LastHead, head: bytes) -> Incoming | None:
    found = last.follow(head + b"the body")
    assert found is None or (last.head, last.incoming) == (head, found)
    return found


def meaning(incoming: Incoming) -> tuple[object, ...]:
    it = incoming
    begin = (it.method, it.target, it.path, it.query, it.version)
    return (*begin, list(it.headers), dict(it.headers.first), it.peer, it.secure, it.length, it.keep_alive)


@pytest.fixture
def door(request: pytest.FixtureRequest) -> Door:
    return object.__new__(Door)  # it is only compared


TRACED = LINE + b"traceparent: 00-4bf92f35-00f067aa-01\r\nX: y\r\nX-Request-Id: a\r\ncontent-length: 2\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "other"),
    [
        (LINE + b"Content-Length: 12\r\n\r\n", LINE + b"Content-Length: 3456\r\n\r\n"),
        (LINE + b"content-length:1\r\nX: y\r\n\r\n", LINE + b"content-length:0\r\nX: y\r\n\r\n"),
        (LINE + b"Content-Length:   7  \r\nX: 7\r\n\r\n", LINE + b"Content-Length:   007  \r\nX: 7\r\n\r\n"),
        (
            LINE + b"X: y\r\nContent-Length: 1\r\n\r\n",
            LINE + b"X: y\r\nContent-Length:2\r\n\r\n",
        ),
        (TRACED, TRACED.replace(b"-00f0", b"-11f1")),
        (TRACED, TRACED.replace(b"-00f0", b"-11f1").replace(b"Id: a", b"Id: b").replace(b": 2", b": 33")),
        (TRACED, TRACED.replace(b"traceparent", b"TraceParent").replace(b"Id: a", b"Id:")),
        (
            LINE + b"tracestate: a=1\r\ntracestate: b=2\r\nDate: now\r\n\r\n",
            LINE + b"tracestate: a=1\r\ntracestate:   c=1, d=3 \r\nDate: then\r\n\r\n",
        ),
    ],
)
def test_a_head_that_differs_in_values_that_nobody_goes_by_means_what_it_says(
    head: bytes, other: bytes, door: Door
) -> None:
    last = kept(head, door)
    usual = last.incoming.usual = object.__new__(Match)  # it is only kept

    for each in (other, head, other):
        found = follow(last, each)
        assert found is not None
        assert meaning(found) == meaning(read(each))
        assert found.usual is usual


@pytest.mark.parametrize(
    "line",
    [
        *(b"Content-Length: " + it for it in (b"", b" ", b"+1", b"-1", b"1 2", b"1,2", b"0x1", b"1" * 19, b"\xb2")),
        b"Content-Length:\t1",
        b"Content-Length : 1",
        b"Content-Length",
        b" 13",
        b"",
    ],
)
def test_a_length_that_is_none_is_left_to_the_reader(line: bytes, door: Door) -> None:
    last = kept(LINE + b"Content-Length: 1\r\nY: z\r\n\r\n", door)
    other = LINE + line + b"\r\nY: z\r\n\r\n"

    assert follow(last, other) is None
    assert follow(last, LINE + b"Content-Length: 12\r\nY: z\r\n\r\n") is not None
    assert follow(last, other) is None
    assert b"12" in last.head
    with pytest.raises(RequestRejected):
        read(other)


@pytest.mark.parametrize(
    "line", [b"traceparent: a\x00b", b"traceparent: a\rb", b"traceparent: a\nb", b"traceparent : a", b"traceparent"]
)
def test_a_line_that_is_no_field_is_refused_also_where_its_value_does_not_matter(line: bytes, door: Door) -> None:
    last = kept(LINE + b"traceparent: a\r\n\r\n", door)
    other = LINE + line + b"\r\n\r\n"

    assert follow(last, other) is None
    assert follow(last, LINE + b"traceparent: b\r\n\r\n") is not None
    assert follow(last, other) is None
    with pytest.raises(RequestRejected, match="well-formed"):
        read(other)


@pytest.mark.parametrize(
    "other",
    [
        TRACED.replace(b"X: y", b"X: z"),
        TRACED.replace(b"X: y", b"Y: y"),
        TRACED.replace(b"traceparent", b"tracestate"),
        TRACED.replace(b"traceparent:", b"traceparent :"),
        TRACED.replace(b"-00f0", b"\t00f0"),
        TRACED.replace(b"-00f0", b"\xe900f0"),
        TRACED.replace(b"traceparent", b"transfer-encoding"),
        TRACED.replace(b"X-Request-Id: a", b"content-length: 2"),
        TRACED.replace(b"localhost", b"evil.test"),
        TRACED.replace(b"/v1/", b"/v2/"),
        TRACED.replace(b"HTTP/1.1", b"HTTP/1.0"),
        TRACED.replace(b"X: y\r\n", b""),
        TRACED.replace(b"X: y\r\n", b"X: y\r\nX: y\r\n"),
    ],
)
def test_a_head_that_differs_in_more_is_left_to_the_reader(other: bytes, door: Door) -> None:
    last, like = kept(TRACED, door), TRACED.replace(b": 2", b": 3")

    assert follow(last, other) is None
    assert last.head == TRACED
    assert follow(last, like) is not None
    assert follow(last, other) is None
    assert follow(last, TRACED) is not None


@pytest.mark.parametrize("head", [TRACED[:-1], TRACED[:40], b"\r\n" + TRACED, b"\r\n\r\n", b""])
def test_what_is_not_just_a_whole_head_is_left_to_the_reader(head: bytes, door: Door) -> None:
    assert kept(TRACED, door).follow(head) is None


def test_a_head_that_has_grown_too_long_is_left_to_the_reader(door: Door) -> None:
    last = kept(TRACED, door)
    spare = last.limit - len(TRACED)

    for _ in range(2):
        assert follow(last, TRACED.replace(b"Id: a", b"Id: a" + b"b" * spare)) is not None
        assert follow(last, TRACED.replace(b"Id: a", b"Id: ab" + b"b" * spare)) is None


def test_a_length_is_never_that_of_a_head_between(door: Door) -> None:
    def head(trace: bytes, length: bytes) -> bytes:
        return LINE + b"traceparent: " + trace + b"\r\nContent-Length: " + length + b"\r\n\r\n"

    last = kept(head(b"a", b"2"), door)

    for each in (head(b"b", b"2"), head(b"c", b"33  "), head(b"d", b"2"), head(b"e", b"33  "), head(b"f", b"33")):
        found = follow(last, each)
        assert found is not None
        assert meaning(found) == meaning(read(each))


PIECES = st.lists(
    st.sampled_from(
        [
            b"Content-Length: ",
            b"content-length:",
            b"traceparent: ",
            b"Traceparent:",
            b"X-Request-Id: ",
            b"1",
            b"22",
            b" ",
            b"\t",
            b"\xff",
            b"\x00",
            b"\r\n",
            b"X: y",
            b"Transfer-Encoding: chunked",
            b"Connection: close",
            b"+",
        ]
    ),
    max_size=10,
).map(b"".join)


def whole(data: bytes) -> bytes:
    """The head that *data* begins with: it ends at the first empty line, as a connection finds it."""
    return data[: data.index(END) + len(END)]


def verdict(taken: Callable[[bytes], Incoming], head: bytes) -> object:
    try:
        return meaning(taken(head))
    except RequestRejected as error:
        return (error.status, error.code, error.message)


@given(PIECES, st.lists(PIECES, min_size=1, max_size=4))
@example(b"traceparent: ", [b"traceparent: \r\n"])
def test_no_head_is_taken_in_another_way_than_the_reader_takes_it(one: bytes, others: list[bytes]) -> None:
    try:
        last = kept(whole(LINE + one + END), object.__new__(Door))
    except RequestRejected:
        return

    for other in others:
        head = whole(LINE + other + END)
        assert verdict(lambda it: follow(last, it) or read(it), head) == verdict(read, head)


VALUES = st.one_of(st.from_regex(r"[0-9]{1,20}", fullmatch=True), st.text(st.characters(max_codepoint=0xFF)))
NAMES = st.sampled_from(["Content-Length", "traceparent", "X-Request-Id", "x-stainless-retry-count", "X", "Host"])


@given(st.lists(st.tuples(NAMES, *[VALUES] * 4), max_size=5))
def test_whatever_the_values_of_the_next_heads_are_they_mean_what_the_reader_says(
    fields: list[tuple[str, ...]],
) -> None:
    first, *others = (
        whole(
            LINE.removesuffix(b"Host: localhost\r\n")
            + "\r\n".join(["Host: a", *(f"{field[0]}: {field[at]}" for field in fields)]).encode("latin-1")
            + END
        )
        for at in (1, 2, 3, 4)
    )
    try:
        last = kept(first, object.__new__(Door))
    except RequestRejected:
        return

    for other in others:
        assert verdict(lambda it: follow(last, it) or read(it), other) == verdict(read, other)


SOME = st.sampled_from(["1", "22", "1 ", " 22", "", " ", "+1"])


@given(st.sets(NAMES, max_size=4), st.data())
def test_values_that_come_back_are_those_of_their_own_head(names: set[str], data: st.DataObject) -> None:
    def head() -> bytes:
        lines = "".join(f"{name}: {data.draw(SOME)}\r\n" for name in sorted(names - {"Host"}))
        return LINE + lines.encode() + b"\r\n"

    try:
        last = kept(head(), object.__new__(Door))
    except RequestRejected:
        return

    for _ in range(8):
        assert verdict(lambda it: follow(last, it) or read(it), other := head()) == verdict(read, other)


class Asked(dict[str, str]):
    """Remembers which names it was asked for."""

    def __init__(self) -> None:
        self.names: set[object] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.names.add(key)
        return default

    def __contains__(self, key: object) -> bool:
        self.names.add(key)
        return False


def test_no_dialect_claims_a_call_by_what_may_differ() -> None:
    headers = Headers()
    headers.first = asked = Asked()

    for dialect in Registry.load().dialects.values():
        for api in dialect.apis:
            dialect.claims(api, headers, "")

    assert "user-agent" in asked.names
    assert not asked.names & MAY_DIFFER


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


async def test_each_call_has_the_id_and_the_trace_that_its_own_head_says() -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        for each in ("first", "second", "second", "third"):
            body = {"model": "m", "messages": [{"role": "user", "content": each}]}
            answer = await ask(client, post(body, "/v1/chat/completions", f"X-Request-Id: {each}"))
            assert dict(answer.headers)["x-request-id"] == each

        assert [it.id for it in proxy.exchanges] == ["first", "second", "second", "third"]


async def test_a_head_that_is_hostile_where_another_value_may_be_is_refused() -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        good = post({"model": "m", "messages": []}, "/v1/chat/completions", "traceparent: a")
        assert (await ask(client, good)).status == 200
        assert (await ask(client, good.replace(b"traceparent: a", b"traceparent: a\x00"))).status == 400


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
