"""An LLM over HTTP: how each answer is told."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from llmproxy_core import (
    End,
    Headers,
    Money,
    Operation,
    Price,
    Reply,
    Request,
    Stream,
    Tasks,
    UpstreamConnectError,
    UpstreamError,
    UpstreamGarbage,
    Usage,
)
from llmproxy_core.llm import Timeouts, UpstreamRequest, UpstreamResponse
from llmproxy_core.relay import Flow, deliver
from tests.answers import DONE
from tests.llmproxy_core.conversation import (
    COST,
    DIALECT,
    EMBEDDINGS,
    ERROR_EVENT,
    PRICE,
    SOON_S,
    USED,
    question,
    said,
    whole,
)
from tests.llmproxy_core.http_call import ANSWER, BASE, KEY, STREAM, Called, chat, models, opaque
from tests.llmproxy_core.transport_double import EVENTS, JSON, Played

# -- the answer ------------------------------------------------------------------------------------------------------


async def test_a_plain_answer_is_a_reply_with_its_facts_and_its_price(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks, prices=(("gpt-*", PRICE),))

    response = await called.send()
    response.finish(End.COMPLETED)

    assert isinstance(response, Reply)
    assert response.body == whole("hello")
    assert response.outcome is not None
    assert (response.outcome.usage, response.outcome.cost, response.outcome.model) == (USED, Money(COST), "gpt-4o-mini")
    assert response.llm == "fake"
    assert [body.ends for body in called.transport.bodies] == [1]


async def test_a_plain_answer_may_come_in_pieces(tasks: Tasks) -> None:
    body = whole("hello")
    called = Called(Played([body[:5], body[5:9], body[9:]]), tasks=tasks)

    response = await called.send()

    assert isinstance(response, Reply)
    assert response.body == body


@pytest.mark.parametrize("content_type", ["text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream"])
async def test_an_event_stream_is_a_stream_and_not_read(tasks: Tasks, content_type: str) -> None:
    called = Called(Played([asyncio.Event()], headers=[("content-type", content_type)]), tasks=tasks)

    response = await called.send(chat(question(stream=True)))

    assert isinstance(response, Stream)
    assert (response.status, response.llm) == (200, "fake")
    response.finish(End.ABANDONED)


async def test_a_provider_that_streams_unasked_is_read_for_a_plain_client(tasks: Tasks) -> None:
    called = Called(STREAM, tasks=tasks)
    call = called.exchange(chat())

    response = await asyncio.wait_for(called.llm.send(call), SOON_S)
    assert call.client is not None
    delivery = await deliver(response, call.client)

    assert not isinstance(delivery, Flow)
    assert said(delivery.body) == "hello"


async def test_a_provider_that_answers_plain_to_a_stream_is_written_as_one(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks)
    call = called.exchange(chat(question(stream=True)))

    response = await asyncio.wait_for(called.llm.send(call), SOON_S)
    assert call.client is not None
    delivery = await deliver(response, call.client)

    assert not isinstance(delivery, Flow)
    assert delivery.body.endswith(DONE)


async def test_model_lists_are_not_looked_into(tasks: Tasks) -> None:
    called = Called(Played([b"whatever the server calls a list"]), tasks=tasks)

    response = await called.send(models())

    assert isinstance(response, Reply)
    assert response.body == b"whatever the server calls a list"
    assert response.usage is None


async def test_embeddings_count_what_they_used(tasks: Tasks) -> None:
    body = b'{"data":[],"model":"e","usage":{"prompt_tokens":5,"total_tokens":5}}'
    called = Called(Played([body]), tasks=tasks, prices=(("e", PRICE),))

    response = await called.send(
        Request(operation=Operation.EMBEDDINGS, dialect=DIALECT, api=EMBEDDINGS, body=b'{"model":"e","input":"x"}')
    )
    response.finish(End.COMPLETED)

    assert response.outcome is not None
    assert (response.outcome.usage, response.outcome.cost) == (Usage(5), Money(5_000))


HEADERS = [
    *JSON,
    ("x-request-id", "req_1"),
    ("x-ratelimit-remaining-tokens", "5"),
    ("openai-processing-ms", "12"),
    ("set-cookie", "session=x"),
    ("server", "cloudflare"),
    ("openai-organization", "org-ours"),
    ("connection", "close"),
    ("content-length", "99"),
]
CROSSING = [("x-ratelimit-remaining-tokens", "5"), ("openai-processing-ms", "12"), ("x-upstream-request-id", "req_1")]


async def test_headers_that_stand_there_twice_cross_in_their_order(tasks: Tasks) -> None:
    repeated = [
        ("x-ratelimit-reset-tokens", "1s"),
        *HEADERS,
        ("set-cookie", "more=y"),
        ("x-ratelimit-reset-tokens", "2s"),
    ]
    called = Called(Played([whole("hi")], headers=repeated), tasks=tasks)

    response = await called.send()

    assert response.headers == [repeated[0], *CROSSING[:-1], repeated[-1], CROSSING[-1]]


async def test_response_headers_cross_by_the_allow_list(tasks: Tasks) -> None:
    called = Called(
        Played([whole("hi")], headers=HEADERS),
        Played([DONE], headers=[*HEADERS[1:], *EVENTS]),
        Played([b"{}"], status=500, headers=HEADERS),
        tasks=tasks,
    )

    reply = await called.send()
    stream = await called.send(chat(question(stream=True)))
    with pytest.raises(UpstreamError) as raised:
        await called.send()

    assert reply.headers == stream.headers == list(raised.value.headers) == CROSSING
    stream.finish(End.ABANDONED)


async def test_a_provider_with_another_name_for_its_id_is_understood(tasks: Tasks) -> None:
    called = Called(Played([whole("hi")], headers=[*JSON, ("request-id", "req_2")]), tasks=tasks)

    response = await called.send()

    assert ("x-upstream-request-id", "req_2") in response.headers


async def test_every_attempt_is_written_down(tasks: Tasks) -> None:
    cut = UpstreamConnectError("refused")
    called = Called(cut, Played([whole("hi")], headers=HEADERS), tasks=tasks)
    call = called.exchange(chat())

    with pytest.raises(UpstreamConnectError):
        await called.llm.send(call)
    called.clock.advance(2)
    await called.llm.send(call)

    first, second = call.attempts
    assert (first.llm, first.model, first.error, first.status, first.headers_s) == (
        "fake",
        "gpt-4o-mini",
        cut,
        None,
        None,
    )
    assert (second.error, second.status, second.upstream_id) == (None, 200, "req_1")
    assert (first.started_s, second.started_s, second.headers_s) == (1000.0, 1002.0, 1002.0)


# -- prices ----------------------------------------------------------------------------------------------------------

CHEAP, DEAR = Price(1, 1), Price(2, 2)


@pytest.mark.parametrize(
    ("prices", "price"),
    [
        ((("gpt-4o-mini", CHEAP), ("gpt-*", DEAR)), CHEAP),
        ((("gpt-*", DEAR), ("gpt-4o-mini", CHEAP)), DEAR),  # the first that fits counts
        ((("claude-*", DEAR), ("*", CHEAP)), CHEAP),
        ((("claude-*", DEAR),), None),
        ((), None),
    ],
)
async def test_the_price_is_found_by_name_or_glob(
    tasks: Tasks, prices: tuple[tuple[str, Price], ...], price: Price | None
) -> None:
    called = Called(ANSWER, Played([DONE], headers=EVENTS), tasks=tasks, prices=prices)

    reply = await called.send()
    stream = await called.send(chat(question(stream=True)))

    assert reply.price == stream.price == price
    stream.finish(End.ABANDONED)


async def test_the_model_sent_is_priced_not_the_one_asked(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks, models=(("alias", "real"),), prices=(("alias", DEAR), ("real", CHEAP)))

    response = await called.send(chat(question(model="alias")))

    assert response.price == CHEAP


async def test_a_call_without_a_model_has_no_price(tasks: Tasks) -> None:
    called = Called(Played([b"{}"]), tasks=tasks, prices=(("*", CHEAP),))

    response = await called.send(models())

    assert response.price is None


# -- encodings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "deflate, gzip", "unknown"])
@pytest.mark.parametrize("kind", ["plain", "stream"])
async def test_a_compressed_answer_nobody_asked_for_is_refused(tasks: Tasks, encoding: str, kind: str) -> None:
    """It would pass by every processor unread."""
    headers = [*(EVENTS if kind == "stream" else JSON), ("content-encoding", encoding)]
    called = Called(Played([b"\x1f\x8b"], headers=headers), tasks=tasks)

    with pytest.raises(UpstreamGarbage, match="encoding"):
        await called.send()

    assert [body.ends for body in called.transport.bodies] == [1]


@pytest.mark.parametrize("encoding", ["identity", "", " Identity "])
async def test_identity_is_no_compression(tasks: Tasks, encoding: str) -> None:
    called = Called(Played([whole("hi")], headers=[*JSON, ("content-encoding", encoding)]), tasks=tasks)

    assert isinstance(await called.send(), Reply)


async def test_a_compressed_error_keeps_its_status_and_loses_its_body(tasks: Tasks) -> None:
    called = Called(Played([b"\x1f\x8b"], status=429, headers=[*JSON, ("content-encoding", "gzip")]), tasks=tasks)

    with pytest.raises(UpstreamError) as raised:
        await called.send()

    assert (raised.value.status, raised.value.body) == (429, None)


# -- opaque ----------------------------------------------------------------------------------------------------------


async def _content(*chunks: bytes) -> AsyncIterator[bytes]:
    for data in chunks:
        yield data


async def test_an_opaque_call_passes_as_it_is_with_our_key(tasks: Tasks) -> None:
    called = Called(Played([b"\x00\x01", b"\x02"], headers=[("content-type", "audio/mpeg")]), tasks=tasks)
    content = _content(b"a", b"b")
    headers = Headers([("content-type", "multipart/form-data; boundary=x"), ("accept", "*/*"), ("x-custom", "no")])

    response = await called.send(
        opaque(path="/audio/speech", method="POST", query="a=1&b=%20x", headers=headers, content=content)
    )

    request = called.transport.request
    assert (request.method, request.url) == ("POST", f"{BASE}/audio/speech?a=1&b=%20x")
    assert request.body is content
    assert sorted(called.transport.headers) == [
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
        ("authorization", f"Bearer {KEY}"),
        ("content-type", "multipart/form-data; boundary=x"),
    ]
    assert isinstance(response, Stream)
    assert (response.api, response.content_type, response.price) == (None, "audio/mpeg", None)
    assert [await response.read() for _ in range(3)] == [b"\x00\x01", b"\x02", b""]
    response.finish(End.COMPLETED)
    await content.aclose()  # type: ignore[attr-defined]


async def test_identity_is_asked_of_opaque_calls_too_and_what_is_encoded_all_the_same_passes(tasks: Tasks) -> None:
    called = Called(Played([b"\x1f\x8b"], headers=[*JSON, ("content-encoding", "gzip"), ("etag", '"1"')]), tasks=tasks)

    response = await called.send(opaque(headers=Headers([("accept-encoding", "gzip")])))

    assert called.transport.header("accept-encoding") == ["identity"]
    assert ("content-encoding", "gzip") in response.headers
    assert ("etag", '"1"') in response.headers
    response.finish(End.ABANDONED)


@pytest.mark.parametrize("status", [204, 206, 301, 304])
async def test_whatever_status_an_opaque_call_has_is_the_clients(tasks: Tasks, status: int) -> None:
    called = Called(Played([b"x"], status=status, headers=[*HEADERS, ("location", "http://inside/")]), tasks=tasks)
    call = called.exchange(opaque())

    response = await asyncio.wait_for(called.llm.send(call), SOON_S)

    assert response.status == status
    names = [name for name, _ in response.headers]
    assert "set-cookie" not in names
    assert "location" not in names
    assert len(names) == len(set(names))
    assert ("x-upstream-request-id", "req_1") in response.headers
    assert (call.attempts[0].status, call.attempts[0].upstream_id) == (status, "req_1")
    response.finish(End.ABANDONED)


async def test_an_opaque_answer_without_a_type_is_bytes(tasks: Tasks) -> None:
    called = Called(Played([b"x"], headers=[]), tasks=tasks)

    response = await called.send(opaque())

    assert response.content_type == "application/octet-stream"
    response.finish(End.ABANDONED)


async def test_an_error_event_in_an_opaque_stream_is_not_looked_at(tasks: Tasks) -> None:
    called = Called(Played([ERROR_EVENT], headers=EVENTS), tasks=tasks)

    response = await called.send(opaque())

    assert isinstance(response, Stream)
    assert await response.read() == ERROR_EVENT
    response.finish(End.COMPLETED)


async def test_in_the_name_of_an_exchange_that_is_over_nothing_is_sent(tasks: Tasks) -> None:
    called = Called(STREAM, tasks=tasks)
    call = called.exchange(chat())
    call.finish(End.ABANDONED)

    with pytest.raises(RuntimeError, match="is over"):
        await called.llm.send(call)

    assert called.transport.requests == []


async def test_an_exchange_that_ends_while_it_is_asked_for_opens_nothing(tasks: Tasks) -> None:
    """The client left while we waited for the head: the connection is given up."""
    called = Called(STREAM, tasks=tasks)
    call, opened = called.exchange(chat(question(stream=True))), called.transport.open

    async def open_late(request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        answer = await opened(request, timeouts)
        call.finish(End.ABANDONED)
        return answer

    called.transport.open = open_late  # type: ignore[method-assign]
    response = await asyncio.wait_for(called.llm.send(call), SOON_S)

    assert response.outcome is not None
    assert response.outcome.end is End.ABANDONED
    assert [body.ends for body in called.transport.bodies] == [1]


@pytest.mark.parametrize("name", ["key", "api_key", "API-Key", "access_token", "%6Bey"])
async def test_a_callers_key_in_the_query_of_an_opaque_call_stays_here(tasks: Tasks, name: str) -> None:
    called = Called(Played([b"{}"]), tasks=tasks)

    response = await called.send(opaque(query=f"a=%20x&{name}=sk-callers&monkey=1"))

    assert called.transport.request.url.endswith("?a=%20x&monkey=1")
    response.finish(End.ABANDONED)


async def test_our_key_in_the_providers_request_id_is_cut_out(tasks: Tasks) -> None:
    told = [*JSON, ("x-request-id", f"req-{KEY}")]
    called = Called(Played([b"{}"], headers=told), tasks=tasks)

    response = await called.send(opaque())

    assert ("x-upstream-request-id", "req-***") in response.headers
    response.finish(End.ABANDONED)
