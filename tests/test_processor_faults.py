"""What a client, and the log, are told of a processor that fails: end to end, over real sockets."""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmproxy_core import (
    BadRequest,
    End,
    Exchange,
    GuardrailBlocked,
    Handler,
    ProxyError,
    RateLimited,
    Response,
)
from tests.exact import Seen, post
from tests.llmproxy_server import edging
from tests.llmproxy_server.edging import Processing, processed
from tests.proxy import Proxy, openai_at
from tests.rawclient import connected
from tests.upstream import (
    Chunk,
    Head,
    Step,
    Upstream,
    Wait,
    chat_chunk,
    completion,
    reply,
    sse,
    stream,
    usage_chunk,
)
from tests.upstream import (
    End as Over,
)

SECRET_WORD = "sk-of-the-plugin"
BUG = RuntimeError(SECRET_WORD)
NAME = "'around'"

Act = Callable[[Exchange, Handler], Awaitable[Response]]


class Bad:
    """A watcher or filter with a bug, on the last of what it is shown."""

    def feed(self, text: str) -> Any:
        if "world" in text:
            raise BUG
        return text

    def end(self) -> None: ...

    def flush(self) -> str:
        return ""


class Blocking:
    def feed(self, text: str) -> None:
        raise GuardrailBlocked("not for you")

    def end(self) -> None: ...


async def before(call: Exchange, call_next: Handler) -> Response:
    call.request = call.request.with_model("another")
    raise BUG


async def after(call: Exchange, call_next: Handler) -> Response:
    response = await call_next(call)
    response.watch(lambda channel: Blocking())
    raise BUG


async def consumed(call: Exchange, call_next: Handler) -> Response:
    await (await call_next(call)).reply()
    raise BUG


async def too_slow(call: Exchange, call_next: Handler) -> Response:
    await call_next(call)
    await asyncio.Event().wait()
    raise AssertionError


async def exiting(call: Exchange, call_next: Handler) -> Response:
    raise SystemExit(3)


class Panic(BaseException):
    """As a library in Rust raises it: no Exception."""


async def panicking(call: Exchange, call_next: Handler) -> Response:
    raise Panic


async def wrongly_labelled(call: Exchange, call_next: Handler) -> Response:
    call.response_headers.extend([("x-one",), "x-two: 2", (b"x-three", "3"), ("x-left", "4")])  # type: ignore[list-item]
    return await call_next(call)


async def counting(call: Exchange, call_next: Handler) -> Response:
    call.response_headers.append(("x-left", 3))  # type: ignore[arg-type]  # as an author forgets it
    return await call_next(call)


async def watching(call: Exchange, call_next: Handler) -> Response:
    response = await call_next(call)
    response.watch(lambda channel: Bad())
    return response


async def filtering(call: Exchange, call_next: Handler) -> Response:
    response = await call_next(call)
    response.rewrite(lambda channel: Bad())
    return response


async def refusing(call: Exchange, call_next: Handler) -> Response:
    raise GuardrailBlocked("not for you")


def _question(*, wants_stream: bool) -> bytes:
    question = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "stream": wants_stream}
    return json.dumps(question).encode()


async def _asked(act: Act, *, wants_stream: bool, **keys: object) -> tuple[Seen, Proxy, Upstream]:
    """The answer to one call through a processor that does *act* and has *keys* in its table."""
    answer = (
        stream(chat_chunk("hello "), chat_chunk("world"), chat_chunk(None, finish="stop"), usage_chunk())
        if wants_stream
        else reply(completion("hello world"))
    )
    async with Upstream(answer) as upstream:
        mapping = processed(openai_at(upstream.base_url))
        mapping["processor"]["around"] |= keys
        async with Proxy(mapping, plugins=[Processing(act)]) as proxy:
            seen = await post(f"{proxy.base_url}/chat/completions", _question(wants_stream=wants_stream))
            await proxy.outcome()
    return seen, proxy, upstream


def _causes(caplog: pytest.LogCaptureFixture) -> list[BaseException | None]:
    return [record.exc_info[1] for record in caplog.records if record.exc_info]


WAYS = pytest.mark.parametrize("wants_stream", [False, True], ids=["plain", "stream"])
STATED = pytest.mark.parametrize(
    ("act", "keys", "code"),
    [
        (before, {}, "processor_failed"),
        (after, {}, "processor_failed"),
        (consumed, {}, "processor_failed"),
        (too_slow, {"timeout_s": 0.1}, "processor_timeout"),
        (before, {"timeout_s": 5.0}, "processor_failed"),
        (exiting, {}, "processor_failed"),
        (exiting, {"timeout_s": 5.0}, "processor_failed"),
        (panicking, {}, "processor_failed"),
        (panicking, {"timeout_s": 5.0}, "processor_failed"),
    ],
    ids=["before", "after", "consumed", "too slow", "in time", "exits", "exits in time", "panics", "panics in time"],
)


@WAYS
async def test_a_header_that_is_no_text_does_not_break_the_answer(wants_stream: bool) -> None:
    seen, _, _ = await _asked(counting, wants_stream=wants_stream)

    assert (seen.status, seen.whole, seen.header("x-left")) == (200, True, "3")


@WAYS
async def test_a_header_that_is_no_name_and_value_is_left_out_and_told(
    wants_stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    seen, _, _ = await _asked(wrongly_labelled, wants_stream=wants_stream)

    assert (seen.status, seen.whole, seen.header("x-left")) == (200, True, "4")
    assert [name for name in ("x-one", "x-two", "x-three") if seen.header(name) is not None] == []
    assert sum("exchange.response_headers" in message for message in caplog.messages) == 3


ENDINGS = pytest.mark.parametrize("ending", [SystemExit(3), Panic()], ids=["exit", "panic"])


@WAYS
@ENDINGS
async def test_whatever_the_value_of_a_header_raises_costs_that_header_alone(
    ending: BaseException, wants_stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise ending

    async def labelling(call: Exchange, call_next: Handler) -> Response:
        call.response_headers.extend([("x-bad", Unspeakable()), ("x-left", "4")])  # type: ignore[list-item]
        return await call_next(call)

    seen, _, _ = await _asked(labelling, wants_stream=wants_stream)

    assert (seen.status, seen.whole, seen.header("x-bad"), seen.header("x-left")) == (200, True, None, "4")
    assert ending in _causes(caplog)


UNTELLABLE = pytest.mark.parametrize(
    "error",
    [
        lambda: BadRequest(ValueError("no text")),  # type: ignore[arg-type]
        lambda: BadRequest("half a character: \ud800"),
        lambda: RateLimited("later", retry_after_s=math.nan),
        lambda: RateLimited("later", retry_after_s=math.inf),
        lambda: GuardrailBlocked("no", status="400"),  # type: ignore[arg-type]
    ],
    ids=["no text", "half a character", "nan", "inf", "a status that is a text"],
)


@WAYS
@UNTELLABLE
async def test_an_error_that_cannot_be_told_is_a_bug_that_is(
    error: Callable[[], ProxyError], wants_stream: bool
) -> None:
    async def refusing(call: Exchange, call_next: Handler) -> Response:
        raise error()

    seen, _, _ = await _asked(refusing, wants_stream=wants_stream)

    assert seen.whole
    assert seen.status == 500
    assert json.loads(seen.body)["error"]["message"].startswith("Internal error")


@UNTELLABLE
async def test_in_the_middle_of_a_stream_too(error: Callable[[], ProxyError]) -> None:
    async def refusing(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)

        class Refusing:
            def feed(self, text: str) -> None:
                if "world" in text:
                    raise error()

            def end(self) -> None: ...

        response.watch(lambda channel: Refusing())
        return response

    seen, _, _ = await _asked(refusing, wants_stream=True)

    assert b'"error"' in seen.body


@pytest.mark.parametrize("guarded", [{}, {"timeout_s": 5.0}], ids=["plain", "guarded"])
async def test_who_answers_with_a_stream_that_is_over_has_failed(guarded: dict[str, Any]) -> None:
    async def asks_in_a_childs_name(call: Exchange, call_next: Handler) -> Response:
        async with call.child(call.request) as child:
            return await call_next(child)

    seen, _, _ = await _asked(asks_in_a_childs_name, wants_stream=True, **guarded)
    plain, _, _ = await _asked(asks_in_a_childs_name, wants_stream=False, **guarded)

    assert (seen.status, json.loads(seen.body)["error"]["code"]) == (500, "processor_failed")
    assert plain.status == 200


@WAYS
async def test_no_llm_is_asked_in_the_name_of_an_exchange_that_is_over(wants_stream: bool) -> None:
    asked: list[BaseException | None] = []
    over = asyncio.Event()

    async def asking_later(call: Exchange, call_next: Handler) -> Response:
        async def later(outcome: object) -> None:
            async with call.child(call.request) as child:
                try:
                    await call_next(child)
                except ProxyError as error:
                    asked.append(error.__cause__)
            over.set()

        call.on_finish(later)
        return await call_next(call)

    _, _, upstream = await _asked(asking_later, wants_stream=wants_stream)
    await asyncio.wait_for(over.wait(), 5)

    (refused,) = asked
    assert isinstance(refused, RuntimeError)
    assert "is over" in str(refused)
    assert len(upstream.requests) == 1


@WAYS
@ENDINGS
async def test_whatever_a_callback_raises_ends_nothing_but_itself(
    ending: BaseException, wants_stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(outcome: object) -> None:
        raise ending

    async def fail_later(outcome: object) -> None:
        raise ending

    async def calling_back(call: Exchange, call_next: Handler) -> Response:
        call.on_finish(fail)
        call.on_finish(fail_later)
        call.on_billed(fail)
        response = await call_next(call)
        response.on_finish(fail)
        return response

    seen, proxy, _ = await _asked(calling_back, wants_stream=wants_stream)

    assert (seen.status, seen.whole, proxy.outcomes[0].end) == (200, True, End.COMPLETED)
    assert len(_causes(caplog)) == 4


@WAYS
@ENDINGS
@pytest.mark.parametrize("way", ["watch", "rewrite", "replace"])
async def test_whatever_a_maker_raises_fails_its_call_alone(
    way: str, ending: BaseException, wants_stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def make(channel: object) -> Any:
        raise ending

    async def making(call: Exchange, call_next: Handler) -> Response:
        response = await call_next(call)
        getattr(response, way)(make)
        return response

    seen, proxy, _ = await _asked(making, wants_stream=wants_stream)

    assert seen.status == 500 or not seen.whole
    assert proxy.outcomes[0].end is End.FAILED
    assert ending in _causes(caplog)


@WAYS
@STATED
async def test_a_processor_that_fails_is_named_in_the_clients_dialect(
    act: Act, keys: dict[str, object], code: str, wants_stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    seen, proxy, _ = await _asked(act, wants_stream=wants_stream, **keys)

    assert (seen.status, seen.header("content-type")) == (500, "application/json")
    assert seen.whole
    error = json.loads(seen.body)["error"]
    assert error["code"] == code
    assert NAME in error["message"]
    assert proxy.outcomes[0].end is End.FAILED
    _nothing_inside_is_told(seen.body)
    (cause,) = _causes(caplog)
    assert cause is BUG or isinstance(cause, TimeoutError | SystemExit | Panic)


@WAYS
@STATED
async def test_one_that_may_fail_is_passed_over(
    act: Act, keys: dict[str, object], code: str, wants_stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    seen, proxy, upstream = await _asked(act, wants_stream=wants_stream, on_error="pass", **keys)

    assert seen.status == 200
    assert seen.whole
    assert _said(seen) == "hello world"
    assert proxy.outcomes[0].end is End.COMPLETED
    assert [json.loads(it.body)["model"] for it in upstream.requests] == ["gpt-4o-mini"]
    assert len(_causes(caplog)) == 1
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


@WAYS
@pytest.mark.parametrize("on_error", ["fail", "pass"])
async def test_a_refusal_is_one_either_way(on_error: str, wants_stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    seen, _, upstream = await _asked(refusing, wants_stream=wants_stream, on_error=on_error)

    assert seen.status == GuardrailBlocked.status
    assert json.loads(seen.body)["error"]["message"] == "not for you"
    assert upstream.requests == []
    assert _causes(caplog) == []


@pytest.mark.parametrize("act", [watching, filtering])
async def test_of_a_plain_answer_a_bug_in_what_it_asked_for_is_a_status(
    act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    seen, _, _ = await _asked(act, wants_stream=False)

    assert seen.status == 500
    assert NAME in json.loads(seen.body)["error"]["message"]
    assert _causes(caplog) == [BUG]
    _nothing_inside_is_told(seen.body)


@pytest.mark.parametrize("act", [watching, filtering])
async def test_in_the_middle_of_a_stream_it_is_an_error_event_and_no_proper_end(
    act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    got_it = asyncio.Event()
    script: list[Step] = [
        Head(),
        Chunk(sse(chat_chunk("hello "), done=False)),
        Wait(got_it),
        Chunk(sse(chat_chunk("world"), chat_chunk(None, finish="stop"))),
        Over(),
    ]
    async with (
        Upstream(script) as upstream,
        Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(act)]) as proxy,
        connected(proxy.port) as client,
    ):
        client.send(edging.post(_question(wants_stream=True)))
        head = await client.until(b"hello ")
        got_it.set()
        rest = await client.rest()
        outcome = await proxy.outcome()

    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"world" not in rest
    assert b"[DONE]" not in rest
    assert not rest.endswith(b"0\r\n\r\n")  # the last chunk of HTTP
    error = json.loads(rest[rest.index(b'{"error"') :].partition(b"\n\n")[0])["error"]
    assert error["code"] == "processor_failed"
    assert NAME in error["message"]
    assert _causes(caplog) == [BUG]
    assert outcome.end is End.FAILED
    _nothing_inside_is_told(rest)


@WAYS
async def test_a_watcher_of_one_that_may_fail_is_left_out(wants_stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    seen, _, _ = await _asked(watching, wants_stream=wants_stream, on_error="pass")

    assert (seen.status, seen.whole, _said(seen)) == (200, True, "hello world")
    assert _causes(caplog) == [BUG]


@WAYS
async def test_a_filter_of_one_that_may_fail_is_not(wants_stream: bool) -> None:
    """What it was to take away must not reach the client."""
    seen, proxy, _ = await _asked(filtering, wants_stream=wants_stream, on_error="pass")

    assert "world" not in _said(seen)
    assert b"processor_failed" in seen.body
    assert proxy.outcomes[0].end is End.FAILED


def _said(seen: Seen) -> str:
    if not seen.body.startswith(b"data: "):
        return str(json.loads(seen.body).get("choices", [{"message": {"content": ""}}])[0]["message"]["content"])
    events = [event.removeprefix(b"data: ") for event in seen.body.split(b"\n\n") if event and b"[DONE]" not in event]
    chunks = [json.loads(event) for event in events]
    return "".join(choice["delta"].get("content") or "" for it in chunks for choice in it.get("choices", []))


def _nothing_inside_is_told(body: bytes) -> None:
    for word in (SECRET_WORD, "Traceback", "RuntimeError", ".py"):
        assert word.encode() not in body
