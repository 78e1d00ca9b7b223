"""An LLM over HTTP: how each failure is told, and that none tells a secret."""

import asyncio
import json
from math import inf

import pytest

from llmproxy_core import (
    End,
    ProxyError,
    Reply,
    Secret,
    Tasks,
    Timeouts,
    UpstreamAuthError,
    UpstreamConnectError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamRequest,
    UpstreamTimeout,
)
from llmproxy_core.relay import Flow, deliver
from llmproxy_core.upstream_read import read_head, read_whole
from tests.answers import error
from tests.llmproxy_core.conversation import (
    DIALECT,
    SOON_S,
    question,
    whole,
)
from tests.llmproxy_core.http_call import ANSWER, BASE, KEY, Called, chat, opaque
from tests.llmproxy_core.transport_double import EVENTS, JSON, Played, ScriptedTransport

# -- errors ----------------------------------------------------------------------------------------------------------


def _error(status: int, message: str = "it went wrong", headers: list[tuple[str, str]] | None = None) -> Played:
    return Played([json.dumps(error(message, code="some_code")).encode()], status=status, headers=headers or JSON)


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 429, 500, 502, 503, 529])
async def test_the_providers_error_keeps_its_status_and_body(tasks: Tasks, status: int) -> None:
    called = Called(_error(status), tasks=tasks)
    call = called.exchange(chat())

    with pytest.raises(UpstreamError) as raised:
        await asyncio.wait_for(called.llm.send(call), SOON_S)

    assert (raised.value.status, raised.value.upstream_status, raised.value.code) == (status, status, "some_code")
    assert raised.value.body == json.dumps(error("it went wrong", code="some_code")).encode()
    assert call.attempts[0].error is raised.value
    assert call.attempts[0].status == status
    assert [body.ends for body in called.transport.bodies] == [1]


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("kind", ["chat", "opaque"])
async def test_a_refusal_of_our_key_is_our_operators_affair(tasks: Tasks, status: int, kind: str) -> None:
    called = Called(_error(status, f"Incorrect API key provided: {KEY}"), tasks=tasks)
    call = called.exchange(chat() if kind == "chat" else opaque())

    with pytest.raises(UpstreamAuthError) as raised:
        await asyncio.wait_for(called.llm.send(call), SOON_S)

    assert (raised.value.status, raised.value.code, raised.value.retryable) == (502, "upstream_auth", False)
    assert raised.value.upstream_status == status
    assert raised.value.body is None
    assert KEY not in raised.value.message
    assert "Incorrect" not in raised.value.message
    assert call.attempts[0].error is raised.value
    assert [body.ends for body in called.transport.bodies] == [1]


async def test_a_rate_limit_says_how_long_to_wait(tasks: Tasks) -> None:
    called = Called(_error(429, headers=[*JSON, ("retry-after", "7")]), tasks=tasks)

    with pytest.raises(UpstreamError) as raised:
        await called.send()

    assert raised.value.retry_after_s == 7
    assert raised.value.retryable
    assert ("retry-after", "7") in raised.value.headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300])
async def test_redirects_are_refused(tasks: Tasks, status: int) -> None:
    called = Called(Played([b"moved"], status=status, headers=[("location", "http://169.254.169.254/")]), tasks=tasks)

    with pytest.raises(UpstreamGarbage, match="redirects"):
        await called.send()

    assert len(called.transport.requests) == 1
    assert [body.ends for body in called.transport.bodies] == [1]


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamConnectError("refused"),
        UpstreamTimeout("slow"),
        UpstreamCut("reset"),
    ],
    ids=lambda failure: type(failure).__name__,
)
@pytest.mark.parametrize("kind", ["chat", "opaque"])
async def test_a_failure_of_the_transport_passes_and_is_written_down(
    tasks: Tasks, failure: UpstreamError, kind: str
) -> None:
    called = Called(failure, tasks=tasks)
    call = called.exchange(chat() if kind == "chat" else opaque())

    with pytest.raises(UpstreamError) as raised:
        await asyncio.wait_for(called.llm.send(call), SOON_S)

    assert raised.value is failure
    assert call.attempts[0].error is failure


@pytest.mark.parametrize("last", [UpstreamCut("reset"), UpstreamTimeout("idle", code="upstream_timeout_idle")])
async def test_a_plain_answer_that_breaks_is_over(tasks: Tasks, last: UpstreamError) -> None:
    called = Called(Played([b'{"id":', last]), tasks=tasks)
    call = called.exchange(chat())

    with pytest.raises(UpstreamError) as raised:
        await asyncio.wait_for(called.llm.send(call), SOON_S)

    assert raised.value is last
    assert call.attempts[0].error is last
    assert [body.ends for body in called.transport.bodies] == [1]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff\xfe", b'{"id":'])
async def test_an_answer_that_is_no_json_is_garbage(tasks: Tasks, body: bytes) -> None:
    called = Called(Played([body] if body else []), tasks=tasks)

    with pytest.raises(UpstreamGarbage):
        await called.send()

    assert [body.ends for body in called.transport.bodies] == [1]


async def test_a_cancelled_read_gives_the_connection_up(tasks: Tasks) -> None:
    called = Called(Played([b'{"id":', asyncio.Event()]), tasks=tasks)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(called.llm.send(called.exchange(chat())), 0.05)

    assert [body.ends for body in called.transport.bodies] == [1]


async def test_a_cancelled_read_of_an_error_gives_the_connection_up(tasks: Tasks) -> None:
    called = Called(Played([b'{"error":', asyncio.Event()], status=500), tasks=tasks)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(called.llm.send(called.exchange(chat())), 0.05)

    assert [body.ends for body in called.transport.bodies] == [1]


async def test_an_answer_over_the_bound_is_not_read_to_its_end(tasks: Tasks) -> None:
    called = Called(Played([b"x" * 60, b"x" * 60, asyncio.Event()]), tasks=tasks, max_response_bytes=100)

    with pytest.raises(UpstreamGarbage, match="longer than 100 bytes"):
        await called.send()

    assert [body.ends for body in called.transport.bodies] == [1]


async def test_an_answer_of_the_bound_passes(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks, max_response_bytes=len(whole("hello")))

    assert isinstance(await called.send(), Reply)


async def test_an_error_without_end_is_cut(tasks: Tasks) -> None:
    called = Called(Played([b"x" * 600_000, b"x" * 600_000, asyncio.Event()], status=500), tasks=tasks)

    with pytest.raises(UpstreamError) as raised:
        await called.send()

    assert raised.value.status == 500
    assert raised.value.received is None
    assert [body.ends for body in called.transport.bodies] == [1]


async def test_an_error_that_breaks_while_it_is_read_is_still_that_error(tasks: Tasks) -> None:
    called = Called(Played([b'{"error":', UpstreamCut("reset")], status=429), tasks=tasks)

    with pytest.raises(UpstreamError) as raised:
        await called.send()

    assert raised.value.status == 429


async def test_reading_helpers_stop_at_their_bounds(tasks: Tasks) -> None:
    transport = ScriptedTransport([Played([b"abc", b"def"]), Played([b"abc", b"def"])], tasks)
    llm = Called(tasks=tasks)
    await llm.llm.aclose()  # nothing of the transport's is closed with it: others may share it
    upstream = UpstreamRequest("GET", BASE, [])

    first = await transport.open(upstream, Timeouts())
    second = await transport.open(upstream, Timeouts())

    assert await read_head(first, 4) == (b"abcd", False)
    pieces: list[bytes] = []
    await read_whole(second, 6, pieces)
    assert pieces == [b"abc", b"def"]
    assert not llm.transport.closed


# -- secrets ---------------------------------------------------------------------------------------------------------

QUOTED = f"Key {KEY} (header s3cret-header) is over its limit"


def _quoting(tasks: Tasks, *script: Played) -> Called:
    return Called(*script, tasks=tasks, headers=(("x-plain", "shown"), ("x-secret", Secret("s3cret-header"))))


def _assert_redacted(raised: ProxyError) -> None:
    assert isinstance(raised, UpstreamError)
    shown = repr((raised, raised.message, raised.body, DIALECT.write_error(raised, "7"), raised.headers))
    assert KEY not in shown
    assert "s3cret-header" not in shown
    assert "Key *** (header ***) is over its limit" in raised.message


async def test_an_error_answer_tells_no_secret(tasks: Tasks) -> None:
    called = _quoting(tasks, _error(429, QUOTED))

    with pytest.raises(UpstreamError) as raised:
        await called.send()

    _assert_redacted(raised.value)


async def test_an_error_that_escapes_a_slash_of_a_secret_does_not_tell_it(tasks: Tasks) -> None:
    """In the body it is another text than in the message that is read from it."""
    body = rb'{"error":{"message":"bad key sk-canary or ab\/cd","type":"t"}}'
    called = Called(
        Played([body], status=429), tasks=tasks, token=Secret("sk-canary"), headers=(("x-key", Secret("ab/cd")),)
    )

    with pytest.raises(UpstreamError) as raised:
        await called.send()

    assert raised.value.message == "bad key *** or ***"
    assert rb"ab\/cd" not in (raised.value.body or b"")


async def test_an_error_in_an_answer_of_status_200_tells_no_secret(tasks: Tasks) -> None:
    called = _quoting(tasks, _error(200, QUOTED))
    call = called.exchange(chat())

    with pytest.raises(UpstreamError) as raised:
        await asyncio.wait_for(called.llm.send(call), SOON_S)

    _assert_redacted(raised.value)
    assert raised.value.status == 502
    assert call.attempts[0].error is raised.value
    assert [body.ends for body in called.transport.bodies] == [1]


@pytest.mark.parametrize("how", ["copied", "watched", "started", "read", "replaced"])
async def test_an_error_in_a_stream_tells_no_secret(tasks: Tasks, how: str) -> None:
    quoting = b"data: " + json.dumps(error(QUOTED)).encode() + b"\n\n"
    called = _quoting(tasks, Played([quoting], headers=EVENTS))
    call = called.exchange(chat(question(stream=True)))
    response = await asyncio.wait_for(called.llm.send(call), SOON_S)
    if how == "watched":
        response.watch(lambda channel: None)
    if how == "replaced":
        response.replace(lambda source: source)

    if how in ("started", "read"):
        with pytest.raises(UpstreamError) as raised:
            await asyncio.wait_for(response.started() if how == "started" else response.reply(), SOON_S)
        _assert_redacted(raised.value)
    else:
        assert call.client is not None
        flow = await deliver(response, call.client)
        assert isinstance(flow, Flow)
        body = b"".join([piece async for piece in flow.pieces()])
        flow.finish()
        assert flow.error is not None
        _assert_redacted(flow.error)
        assert KEY.encode() not in body
        assert b"s3cret-header" not in body


async def test_without_a_secret_nothing_is_cut_out(tasks: Tasks) -> None:
    called = Called(tasks=tasks, token=None)

    assert called.llm.redact(b"anything") == b"anything"


async def test_the_llm_shows_no_key(tasks: Tasks) -> None:
    called = Called(tasks=tasks)

    assert KEY not in repr(called.llm._config)
    assert KEY not in repr(called.llm)


# -- clocks ----------------------------------------------------------------------------------------------------------

CLOCKS = Timeouts(connect_s=1, first_byte_s=2, idle_s=3, total_s=60)


@pytest.mark.parametrize("deadline_in_s", [None, 10, -5])
@pytest.mark.parametrize("kind", ["chat", "opaque"])
async def test_the_transport_is_told_what_is_left_before_the_deadline(
    tasks: Tasks, deadline_in_s: float | None, kind: str
) -> None:
    called = Called(ANSWER, tasks=tasks, timeouts=CLOCKS)
    call = called.exchange(chat() if kind == "chat" else opaque())
    call.deadline_s = None if deadline_in_s is None else called.clock() + deadline_in_s

    await asyncio.wait_for(called.llm.send(call), SOON_S)

    assert called.transport.request.left_s == (inf if deadline_in_s is None else deadline_in_s)
    assert called.transport.timeouts == [CLOCKS]
    call.finish(End.ABANDONED)
