"""Streams at the edge: how they go out, how they fail, and what happens when the client leaves or does not read."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from llmproxy_core.chat import ChatEvent, TextDelta
from llmproxy_core.dialect import Api
from llmproxy_core.exchange import Exchange
from llmproxy_core.outcome import End as Ending
from llmproxy_core.outcome import Outcome
from llmproxy_core.processor import Handler
from llmproxy_core.response import Response
from llmproxy_openai import OpenAIDialect
from llmproxy_server.call import Call
from llmproxy_server.wire.connection import Connection
from llmproxy_server.wire.request_body import Arrived
from tests.faults import Wrapped
from tests.llmproxy_server.edging import (
    HELLO,
    STREAM,
    Processing,
    answer,
    ask,
    chunks,
    head,
    many,
    post,
    processed,
    request,
)
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import Client, connected
from tests.upstream import (
    Chunk,
    Cut,
    End,
    Flood,
    Head,
    Reached,
    Stall,
    Step,
    Upstream,
    Wait,
    chat_chunk,
    completion,
    error,
    reply,
    sse,
    stream,
)

pytestmark = pytest.mark.usefixtures("both_ways")

ONE = sse(chat_chunk("one"), done=False)
TWO = sse(chat_chunk("two"), done=False)
REST = sse(chat_chunk(None, finish="stop"))
OPAQUE = {"operations": ["chat", "opaque"]}


def events(body: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in body.split(b"\n\n") if event]


# -- how it goes out -----------------------------------------------------------------------------------------------


async def test_a_stream_passes_as_it_comes_and_ends_with_the_last_chunk() -> None:
    first, go_on = asyncio.Event(), asyncio.Event()
    script: list[Step] = [Head(), Chunk(ONE), Reached(first), Wait(go_on), Chunk(REST), End()]
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post(STREAM))

        got = await head(client)
        assert (got.status, got["content-type"]) == (200, "text/event-stream")
        assert (got["cache-control"], got["x-accel-buffering"]) == ("no-cache", "no")
        assert await client.until(b"\r\n") == b"%x\r\n" % len(ONE)
        assert await client.exactly(len(ONE) + 2) == ONE + b"\r\n"
        go_on.set()
        assert await chunks(client) == (REST, True)
        assert (await proxy.outcome()).end is Ending.COMPLETED
        assert (await ask(client, request("GET", "/livez"))).status == 200  # the connection is kept


async def test_http_1_0_gets_a_stream_that_ends_with_the_connection() -> None:
    async with (
        Upstream(stream(chat_chunk("x"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post(STREAM).replace(b"HTTP/1.1", b"HTTP/1.0", 1))

        assert "transfer-encoding" not in got
        assert got["connection"] == "close"
        assert got.body == sse(chat_chunk("x"))


@pytest.mark.usefixtures("heads_soon")
async def test_the_head_of_a_stream_does_not_wait_for_a_slow_first_piece() -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Head(), Wait(go_on), Chunk(ONE + REST), End()]
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post(STREAM))

        assert (await head(client)).status == 200
        go_on.set()
        assert await chunks(client) == (ONE + REST, True)


async def test_the_effects_of_a_call_come_before_the_end_of_its_answer() -> None:
    settling, go_on = asyncio.Event(), asyncio.Event()

    async def settle(outcome: Outcome) -> None:
        settling.set()
        await go_on.wait()

    async def account(exchange: Exchange, call_next: Handler) -> Response:
        exchange.on_finish(settle)
        return await call_next(exchange)

    async with Upstream(stream(chat_chunk("x"))) as upstream:
        upstream.then(reply(completion("x")))
        async with (
            Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(account)]) as proxy,
            connected(proxy.port) as client,
        ):
            client.send(post())
            await asyncio.wait_for(settling.wait(), 5)
            settling.clear()
            go_on.set()
            assert (await answer(client)).status == 200

            go_on.clear()
            client.send(post(STREAM))
            await head(client)
            await client.until(b"[DONE]\n\n\r\n")
            await asyncio.wait_for(settling.wait(), 5)
            go_on.set()
            assert await client.until(b"0\r\n\r\n") == b"0\r\n\r\n"


async def test_effects_that_take_long_do_not_hold_the_client_for_ever() -> None:
    never = asyncio.Event()

    async def settle(outcome: Outcome) -> None:
        await never.wait()

    async def account(exchange: Exchange, call_next: Handler) -> Response:
        exchange.on_finish(settle)
        return await call_next(exchange)

    async with Upstream(stream(chat_chunk("x"))) as upstream:
        mapping = with_server(processed(openai_at(upstream.base_url)), settle_timeout_s=0.05)
        async with Proxy(mapping, plugins=[Processing(account)]) as proxy, connected(proxy.port) as client:
            assert (await ask(client, post(STREAM))).complete
            never.set()


# -- how it fails --------------------------------------------------------------------------------------------------


async def test_a_stream_that_breaks_ends_with_its_error_event_and_without_the_last_chunk() -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Head(), Chunk(ONE), Wait(go_on), Cut()]
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post(STREAM, "/v1/chat/completions", "X-Request-Id: the-id"))
        await head(client)
        await client.until(ONE + b"\r\n")
        go_on.set()

        raw = await client.rest()  # a reset would raise

        size, _, body = raw.partition(b"\r\n")
        assert len(body) == int(size, 16) + 2  # one whole chunk, then nothing
        assert body.startswith(b"data: ")
        assert body.endswith(b"\n\n\r\n")
        said = json.loads(body[6:])["error"]
        assert (said["code"], said["request_id"]) == ("upstream_cut", "the-id")
        outcome = await proxy.outcome()
        assert outcome.end is Ending.FAILED
        assert outcome.error is not None
        assert outcome.error.code == "upstream_cut"


async def test_what_was_good_comes_before_the_error_of_the_same_read() -> None:
    bad = sse(error("out of luck"), done=False)
    script: list[Step] = [Head(), Chunk(ONE + bad), End()]
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post(STREAM))

        first, second = events(got.body)
        assert (got.status, got.complete, first) == (200, False, ONE)
        assert b"out of luck" in second


@pytest.mark.parametrize("last", [Cut(), End()], ids=["cut", "empty"])
async def test_a_stream_that_fails_before_it_has_begun_has_a_status_of_its_own(last: Step) -> None:
    async with (
        Upstream([Head(), last]) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post(STREAM))

        assert (got.status, got.code, got["content-type"]) == (502, "upstream_cut", "application/json")
        assert (await proxy.outcome()).end is Ending.FAILED
        assert (await ask(client, request("GET", "/livez"))).status == 200


async def test_an_error_event_that_comes_first_is_a_status_too() -> None:
    script: list[Step] = [Head(), Chunk(sse(error("no"), done=False)), End()]
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post(STREAM))

        assert got.status >= 500
        assert b"no" in got.body


async def test_a_filter_that_breaks_ends_the_stream_so_that_the_client_sees_it() -> None:
    async def transform(source: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
        async for event in source:
            if isinstance(event, TextDelta) and event.text == "two":
                raise KeyError("a bug")
            yield event

    async def replace(exchange: Exchange, call_next: Handler) -> Response:
        response = await call_next(exchange)
        response.replace(transform)
        return response

    go_on = asyncio.Event()
    async with (
        Upstream([Head(), Chunk(ONE), Wait(go_on), Chunk(TWO + REST), End()]) as upstream,
        Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(replace)]) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post(STREAM))
        await head(client)
        await client.until(b"one")
        go_on.set()

        body, complete = await rest_of_chunks(client)

        assert not complete
        assert b"processor_failed" in body
        assert b"[DONE]" not in body
        assert b"a bug" not in body
        assert (await proxy.outcome()).end is Ending.FAILED


async def rest_of_chunks(client: Client) -> tuple[bytes, bool]:
    """What still comes, and whether it ends as a chunked body should."""
    raw = await client.rest()
    return raw, raw.endswith(b"\r\n0\r\n\r\n")


async def test_an_opaque_answer_that_breaks_has_no_end() -> None:
    go_on = asyncio.Event()
    script: list[Step] = [Head(200, {"content-type": "audio/ogg"}), Chunk(b"abc"), Wait(go_on), Cut()]
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url, route=OPAQUE)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(request("GET", "/v1/audio/1"))
        got = await head(client)
        go_on.set()

        body, complete = await chunks(client)

        assert (got.status, body, complete) == (200, b"abc", False)
        assert (await proxy.outcome()).end is Ending.FAILED


async def test_an_opaque_answer_that_breaks_before_its_first_byte_is_a_502() -> None:
    script: list[Step] = [Head(200, {"content-type": "audio/ogg"}, 10), Cut()]
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url, route=OPAQUE)) as proxy,
        connected(proxy.port) as client,
    ):
        assert (await ask(client, request("GET", "/v1/audio/1"))).status == 502


@pytest.mark.parametrize("split", range(1, len(ONE), 23))
async def test_whatever_byte_the_upstream_stops_at_the_client_sees_that_it_did(split: int) -> None:
    script: list[Step] = [Head(), Chunk(ONE), Chunk(TWO[:split]), Cut()]
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        got = await ask(client, post(STREAM))

        first, *_, last = events(got.body)
        assert (got.complete, first) == (False, ONE)
        assert b'"error"' in last
        assert b"[DONE]" not in got.body


# -- the client leaves ---------------------------------------------------------------------------------------------


async def left(proxy: Proxy, upstream: Upstream) -> None:
    """The client has left: the upstream knows it, and the outcome says so."""
    assert (await proxy.outcome()).end is Ending.ABANDONED
    await until(lambda: not proxy.server.edges[0].calls)
    assert proxy.server.admission.in_flight == 0


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["plain", "stream"])
async def test_a_client_that_leaves_while_it_waits_ends_the_upstream_call(body: dict[str, object]) -> None:
    async with Upstream([Stall()]) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        async with connected(proxy.port) as client:
            client.send(post(body))
            received = await upstream.received()

        await asyncio.wait_for(received.gone.wait(), 1)
        await left(proxy, upstream)


async def test_a_client_that_leaves_mid_stream_ends_the_upstream_call_before_its_next_chunk() -> None:
    go_on = asyncio.Event()
    async with (
        Upstream([Head(), Chunk(ONE), Wait(go_on), Chunk(TWO), Stall()]) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
    ):
        async with connected(proxy.port) as client:
            client.send(post(STREAM))
            await client.until(ONE + b"\r\n")

        received = upstream.requests[0]
        await asyncio.wait_for(received.gone.wait(), 1)
        assert received.chunks_sent == 1
        await left(proxy, upstream)


@pytest.mark.usefixtures("heads_soon")
async def test_a_client_that_leaves_after_a_slow_head_ends_the_upstream_call() -> None:
    async with Upstream([Head(), Stall()]) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        async with connected(proxy.port) as client:
            client.send(post(STREAM))
            await head(client)

        await asyncio.wait_for(upstream.requests[0].gone.wait(), 1)
        await left(proxy, upstream)


async def test_a_client_that_says_it_sends_no_more_is_taken_as_gone() -> None:
    async with (
        Upstream([Head(), Chunk(ONE), Stall()]) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post(STREAM))
        await client.until(ONE + b"\r\n")

        client.writer.write_eof()

        await client.rest()
        await left(proxy, upstream)


async def test_a_client_that_leaves_before_its_body_is_complete_is_no_exchange() -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        async with connected(proxy.port) as client:
            client.send(post()[:-5])
            await until(lambda: proxy.server.admission.buffered_bytes > 0)

        await until(lambda: not proxy.server.edges[0].calls)
        assert not proxy.exchanges
        assert not upstream.requests
        assert proxy.server.admission.buffered_bytes == 0


async def test_a_client_that_leaves_while_it_uploads_ends_the_upstream_call() -> None:
    async with Upstream([Stall()], early=True) as upstream, Proxy(openai_at(upstream.base_url, route=OPAQUE)) as proxy:
        async with connected(proxy.port) as client:
            client.send(request("POST", "/v1/files", "Content-Length: 1000") + b"some")
            await upstream.received()

        await left(proxy, upstream)
        await upstream.until(lambda: upstream.connections_open == 0)


@pytest.mark.wire
async def test_a_client_that_leaves_while_nothing_more_of_it_is_read_ends_the_upstream_call() -> None:
    async with Upstream([Stall()]) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        async with connected(proxy.port) as client:
            client.send(post(STREAM))
            await upstream.received()
            client.send(request("GET", "/livez") * 5000)
            (connection,) = proxy.server.edges[0].connections
            assert isinstance(connection, Connection)
            await until(lambda: connection._reading_paused)

        await left(proxy, upstream)


async def test_effects_are_settled_though_the_client_has_left() -> None:
    settled = asyncio.Event()

    async def settle(outcome: Outcome) -> None:
        await asyncio.sleep(0)
        settled.set()

    async def account(exchange: Exchange, call_next: Handler) -> Response:
        exchange.on_finish(settle)
        return await call_next(exchange)

    async with (
        Upstream([Head(), Chunk(ONE), Stall()]) as upstream,
        Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(account)]) as proxy,
    ):
        async with connected(proxy.port) as client:
            client.send(post(STREAM))
            await client.until(ONE + b"\r\n")

        await asyncio.wait_for(settled.wait(), 5)
        await left(proxy, upstream)


# -- the client does not read --------------------------------------------------------------------------------------


async def test_five_clients_that_do_not_read_hold_the_upstream_back() -> None:
    """Megabytes go into the kernel's buffers on loopback; what would grow without end is ours."""
    chunk = sse(chat_chunk("x" * 16_000), done=False)
    upstream = Upstream([Head(), Flood(chunk)], send_buffer_bytes=65_536, timeout_s=30)
    async with upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        async with many(proxy.port, 5, read_buffer_bytes=16_384) as clients:
            for client in clients:
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                client.send(post(STREAM))
            await upstream.received(5)
            for received in upstream.requests:
                await received.held_back(0.2)

            assert upstream.bytes_sent < 5 * 12_000_000
            buffered = [
                protocol.socket.get_write_buffer_size()
                for protocol in proxy.server.edges[0].connections
                if protocol.socket is not None
            ]
            assert len(buffered) == 5
            assert max(buffered) < 300_000  # the high-water mark, and one read of the upstream
            async with connected(proxy.port) as other:
                assert (await ask(other, request("GET", "/livez"))).status == 200
        for received in upstream.requests:
            await asyncio.wait_for(received.gone.wait(), 5)
        assert {(await proxy.outcome(n)).end for n in range(1, 6)} == {Ending.ABANDONED}


class Full:
    """A client whose connection is full already when its call begins, and stays so."""

    pushes = True
    blocked = True
    unsent_bytes = 0

    def __init__(self) -> None:
        self.written = 0

    def write(self, *data: bytes) -> None:
        self.written += sum(map(len, data))

    pass_on = write

    async def drain(self) -> None:
        await asyncio.Event().wait()

    def abort(self) -> None: ...

    def over(self) -> None: ...


@pytest.mark.wire
async def test_a_client_that_had_not_read_the_answer_before_holds_the_next_one_back() -> None:
    chunk = sse(chat_chunk("x" * 16_000), done=False)
    upstream = Upstream([Head(), Flood(chunk)], send_buffer_bytes=65_536, timeout_s=30)
    async with upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        edge, client = proxy.server.edges[0], Full()
        whole = post(STREAM)
        begin, _, body = whole.partition(b"\r\n\r\n")
        call = edge.admit(edge.heads.read(begin), Arrived(body), client)
        received = await upstream.received()
        await received.held_back(0.2)

        assert client.written < 1_000_000
        call.leave()
        edge.over(call)
        await asyncio.wait_for(received.gone.wait(), 5)


async def test_a_client_that_reads_nothing_is_cut() -> None:
    chunk = sse(chat_chunk("x" * 16_000), done=False)
    upstream = Upstream([Head(), Flood(chunk)], send_buffer_bytes=65_536)
    async with (
        upstream,
        Proxy(with_server(openai_at(upstream.base_url), write_timeout_s=0.2)) as proxy,
        connected(proxy.port, read_buffer_bytes=16_384) as client,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(post(STREAM))

        await left(proxy, upstream)
        await upstream.until(lambda: upstream.connections_open == 0)


async def test_a_client_that_reads_slowly_is_not_cut() -> None:
    chunk = sse(chat_chunk("x" * 16_000), done=False)
    upstream = Upstream([Head(), Flood(chunk, count=300), Chunk(REST), End()], send_buffer_bytes=65_536)
    async with (
        upstream,
        Proxy(with_server(openai_at(upstream.base_url), write_timeout_s=0.3)) as proxy,
        connected(proxy.port, read_buffer_bytes=16_384) as client,
    ):
        client.send(post(STREAM))
        total = 0
        async with asyncio.timeout(20):
            while data := await client.reader.read(65_536):
                total += len(data)
                if total < 1_500_000:
                    await asyncio.sleep(0.02)
                if data.endswith(b"\r\n0\r\n\r\n"):
                    break
        assert total > 300 * len(chunk)
        assert (await proxy.outcome()).end is Ending.COMPLETED


async def test_a_whole_answer_that_nobody_reads_is_cut_too_and_its_outcome_stays() -> None:
    async with (
        Upstream(reply(completion("x" * 20_000_000))) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), write_timeout_s=0.2)) as proxy,
        connected(proxy.port, read_buffer_bytes=16_384) as client,
        connected(proxy.port) as reading,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(post())
        assert (await proxy.outcome()).end is Ending.COMPLETED
        await until(lambda: not proxy.server.edges[0].calls)
        assert proxy.server.admission.in_flight == 0

        assert len((await ask(reading, post())).body) > 20_000_000


async def test_a_client_that_takes_a_whole_answer_too_slowly_is_cut() -> None:
    """A byte now and then is no sign that it will ever have the rest."""
    rate = {"write_timeout_s": 0.2, "write_min_bytes_per_s": 1_000_000_000}
    async with (
        Upstream(reply(completion("x" * 20_000_000))) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), **rate)) as proxy,
        connected(proxy.port, read_buffer_bytes=16_384) as client,
    ):
        client.send(post())
        total = 0
        async with asyncio.timeout(20):
            with suppress(ConnectionError):
                while data := await client.reader.read(16_384):
                    total += len(data)
                    await asyncio.sleep(0.005)  # the pace of the client: nothing is waited for

        assert 0 < total < 20_000_000
        assert (await proxy.outcome()).end is Ending.COMPLETED


async def test_of_whole_answers_that_are_not_taken_the_slowest_client_is_cut() -> None:
    most = 30_000_000
    async with (
        Upstream(reply(completion("x" * 20_000_000))) as upstream,
        Proxy(with_server(openai_at(upstream.base_url), max_unsent_bytes=most)) as proxy,
        connected(proxy.port, read_buffer_bytes=16_384) as unread,
        connected(proxy.port, read_buffer_bytes=16_384) as other,
    ):
        unsent = proxy.server.admission.unsent
        for client, ended in ((unread, 1), (other, 2)):
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(post())
            await proxy.outcome(ended)
        await until(lambda: len(proxy.server.edges[0].calls) == 1)

        assert 0 < unsent.bytes <= most
        other.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await answer(other)).body) > 20_000_000
        unread.writer.transport.resume_reading()  # type: ignore[attr-defined]
        with suppress(ConnectionError):
            assert len(await unread.rest()) < 20_000_000
        assert unsent.bytes == 0


async def test_a_call_leaves_nothing_that_only_a_collection_would_free() -> None:
    """An error holds the frames it passed, these the exchange, and that the error: bodies would stay in memory."""
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        gc.collect()
        before = {id(kept) for kept in gc.get_objects()}  # other tests keep theirs
        gc.disable()
        try:
            cases: list[tuple[bytes, list[Step] | None]] = [
                (post(STREAM), [Head(), Chunk(ONE), Cut()]),
                (post(STREAM), [Head(), Cut()]),
                (post(), reply(error("broken"), 500)),
                (post(b"{"), None),
                (request("GET", "/nowhere"), None),
                (b"nonsense\r\n\r\n", None),
            ]
            for data, script in cases:
                upstream.script = script
                async with connected(proxy.port) as client:
                    await ask(client, data)
            proxy.exchanges.clear()
            proxy.outcomes.clear()

            await until(lambda: not anything_left(before))
        finally:
            gc.enable()


class Failing(Wrapped):
    """What has a bug that shows at the end of a stream."""

    def end(self) -> None:
        raise ValueError("the end")


def failing_end(monkeypatch: pytest.MonkeyPatch) -> None:
    scanner = OpenAIDialect.scanner

    def made(self: OpenAIDialect, api: Api, *, usage: bool) -> Any:
        return Failing(scanner(self, api, usage=usage))

    monkeypatch.setattr(OpenAIDialect, "scanner", made)


def failing_event(monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(*given: object) -> bytes:
        raise ValueError("the event")

    monkeypatch.setattr(OpenAIDialect, "error_event", tell)


@pytest.mark.parametrize("fail", [failing_end, failing_event], ids=["the end", "the event of an error"])
async def test_a_stream_whose_end_its_dialect_cannot_tell_ends_all_the_same(
    fail: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = sse(chat_chunk("one"), done=False)
    fail(monkeypatch)
    async with (
        Upstream([Head(), Chunk(one), End()]) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(post(STREAM))
        found = await answer(client)

        assert found.status == 200
        assert found.body.startswith(one)
        assert not found.complete
        assert (await proxy.outcome()).end is Ending.FAILED
        assert proxy.server.admission.in_flight == 0
    assert "ValueError: the e" in caplog.text


def anything_left(before: set[int]) -> bool:
    return any(isinstance(kept, Call | Exchange | Connection) and id(kept) not in before for kept in gc.get_objects())


@pytest.mark.wire
@pytest.mark.parametrize("is_answered", [False, True], ids=["awaited", "not taken"])
async def test_a_call_whose_client_leaves_is_freed_at_once(is_answered: bool) -> None:
    async with (
        Upstream(reply(completion("x" * 20_000_000)) if is_answered else [Stall()]) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
    ):
        gc.collect()
        before = {id(kept) for kept in gc.get_objects()}
        gc.disable()
        try:
            async with connected(proxy.port, read_buffer_bytes=16_384) as client:
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                client.send(post())
                await (proxy.outcome() if is_answered else upstream.received())
            await until(lambda: not proxy.server.edges[0].calls)
            proxy.exchanges.clear()
            proxy.outcomes.clear()

            await until(lambda: not anything_left(before))
        finally:
            gc.enable()
