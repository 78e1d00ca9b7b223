"""What waits for a collector: how much of it, for how long, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from llmproxy_core.chat import ChatRequest, Message, TextPart
from llmproxy_core.config import TelemetryConfig
from llmproxy_core.dialect import Operation
from llmproxy_core.exchange import Exchange
from llmproxy_core.headers import Headers
from llmproxy_core.outcome import End, KeptBody, Outcome
from llmproxy_core.processor import Handler
from llmproxy_core.request import Request
from llmproxy_core.response import Response
from llmproxy_core.subscription import Keep
from llmproxy_core.tasks import Tasks
from llmproxy_openai import OpenAIDialect
from llmproxy_server.door_request import Incoming
from llmproxy_server.record import Ended
from llmproxy_server.telemetry import export as exports
from llmproxy_server.telemetry.export import Batching, Drops, Export
from llmproxy_server.telemetry.held import call_bytes
from tests.llmproxy_server.edging import Processing, processed
from tests.llmproxy_server.telemetry.test_traces import HELLO, post, traced
from tests.otlp_receiver import Collector, collector
from tests.proxy import Proxy
from tests.upstream import Upstream, completion, reply

pytestmark = pytest.mark.timeout(90)
BILL = Outcome(End.COMPLETED)
LONG = {"OTEL_BSP_SCHEDULE_DELAY": "60000"}


class Call:
    """What is recorded of a call."""

    request_id = "1"
    incoming = Incoming("POST", "/v1", "/v1", "", (1, 1), Headers(), "127.0.0.1", secure=False)
    method = "POST"
    path = "/v1"
    address = "127.0.0.1"
    began_s = 0.0
    status = 200


def asked(body: bytes) -> Request:
    dialect = OpenAIDialect()
    [api] = [it for it in dialect.apis if it.name == "openai.chat"]
    return Request(operation=Operation.CHAT, dialect=dialect, api=api, body=body)


def unwritable() -> Request:
    """What a processor may leave behind: half a character."""
    chat = ChatRequest(model="gpt-4o-mini", messages=(Message("user", (TextPart("\ud800"),)),))
    return asked(b'{"model":"m","messages":[]}').with_chat(chat)


def ended(request: Request, answer: KeptBody | None = None) -> Ended:
    exchange = Exchange(request, id="1", route="/v1", tasks=Tasks(), clock=lambda: 0.0)
    return Ended(Call(), exchange, BILL, 200, None if answer is None else Keep(1 << 20, body=answer))


class Makes:
    """So many spans of each call, each holding *size* characters."""

    def __init__(self, count: int, size: int = 0) -> None:
        self._count = count
        self._text = "x" * size

    def of(self, ended: Ended, bill: Outcome, behind_ns: int) -> Iterator[bytes]:
        for number in range(1, self._count + 1):
            span = Span(name="it", trace_id=bytes(15) + b"\1", span_id=number.to_bytes(8, "big"))
            span.attributes.add(key="text").value.string_value = self._text
            yield ScopeSpans(spans=[span]).SerializeToString()


@asynccontextmanager
async def exporting(receiver: Collector, drops: Drops, environ: dict[str, str]) -> AsyncIterator[Export]:
    export = Export(TelemetryConfig(traces=True, endpoint=receiver.endpoint), drops, "1", environ)
    export.start()
    assert await asyncio.to_thread(export.ready.wait, 30)
    try:
        yield export
    finally:
        receiver.stalled.set()
        await asyncio.to_thread(export.close, 30)


# -- bytes -----------------------------------------------------------------------------------------------------------


def test_a_call_holds_its_answer_and_each_request_that_was_made_of_it() -> None:
    request, rewritten = asked(b"x" * 100_000), asked(b"y" * 200_000)
    plain = call_bytes(ended(asked(b"")))
    over = ended(request, KeptBody("openai.chat", False, b"z" * 400_000))
    for each in (rewritten, rewritten, request):
        over.exchange.request = each
        over.exchange.attempts.append(over.exchange.attempt("llm", "m"))

    assert call_bytes(over) - plain == 700_000


def test_a_request_of_a_processors_own_counts_by_its_text() -> None:
    over = ended(asked(b""))
    plain = call_bytes(over)
    own = Request.of_chat(ChatRequest(model="m", messages=(Message("user", (TextPart("x" * 1000),)),)))
    with_child = over.exchange.child(own)
    with_child.attempts.append(with_child.attempt("llm", "m"))

    assert call_bytes(over) - plain == 1000


async def test_calls_and_spans_hold_no_more_than_the_bound_and_give_all_of_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exports, "MOST_HELD_BYTES", 100_000)
    drops = Drops()
    answer = KeptBody("openai.chat", False, b"z" * 50_000)
    async with collector() as receiver, exporting(receiver, drops, {"OTEL_BSP_SCHEDULE_DELAY": "50"}) as export:
        receiver.stalled.clear()
        for _ in range(4):
            export.add(Makes(1, 50_000), ended(asked(b"{}"), answer), BILL)
        assert export._held_bytes <= 100_000
        assert drops.count
        receiver.stalled.set()
        async with asyncio.timeout(30):
            while export._held_bytes:  # noqa: ASYNC110 - threads give it back
                await asyncio.sleep(0.01)
        assert not export._over
        assert not export._spans


async def test_spans_that_wait_are_bounded_by_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "MOST_HELD_BYTES", 130_000)
    async with collector() as receiver, exporting(receiver, Drops(), LONG) as export:
        for _ in range(10):
            export.add(Makes(1, 50_000), ended(asked(b"{}")), BILL)
        async with asyncio.timeout(30):
            while export._over or len(export._spans) < 2:  # noqa: ASYNC110 - a thread makes them
                await asyncio.sleep(0.01)
        assert len(export._spans) == 2


async def test_a_collector_that_hangs_does_not_keep_answers_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with (
        collector() as receiver,
        Upstream(reply(completion("y" * 400_000))) as upstream,
        Proxy(traced(upstream, receiver, capture_content=True)) as proxy,
    ):
        receiver.stalled.clear()
        for _ in range(20):
            assert (await post(proxy)).status == 200
        [export] = [it.export for it in proxy.server.generations if it.export is not None]
        async with asyncio.timeout(30):
            while export._over:  # noqa: ASYNC110 - a thread takes them
                await asyncio.sleep(0.01)
        assert export._held_bytes < 20 * 100_000
        receiver.stalled.set()


async def test_a_request_that_cannot_be_written_is_recorded_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def around(exchange: Exchange, call_next: Handler) -> Response:
        exchange.request = unwritable()
        return await call_next(exchange)

    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with (
        collector() as receiver,
        Upstream(reply(completion("Hi"))) as upstream,
        Proxy(processed(traced(upstream, receiver)), plugins=[Processing(around)]) as proxy,
    ):
        assert (await post(proxy, HELLO)).status == 500
        [server] = await receiver.received(1)

    assert server.failed


def test_the_size_of_what_cannot_be_written_is_known() -> None:
    assert call_bytes(ended(unwritable())) == call_bytes(ended(asked(b"")))


# -- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Batching(2048, 512, 5.0)),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100", "OTEL_BSP_SCHEDULE_DELAY": "250"}, Batching(100, 100, 0.25)),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, Batching(2048, 10, 5.0)),
    ],
)
def test_the_standard_variables_bound_the_batches(environ: dict[str, str], expected: Batching) -> None:
    assert Batching.read(environ) == expected


async def test_full_batches_are_sent_one_after_the_other_without_waiting() -> None:
    drops = Drops()
    environ = {**LONG, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2", "OTEL_BSP_MAX_QUEUE_SIZE": "2048"}
    async with collector() as receiver, exporting(receiver, drops, environ) as export:
        for _ in range(120):
            export.add(Makes(2), ended(asked(b"{}")), BILL)
        await receiver.received(240)

    assert drops.count == 0
    assert len(receiver.spans) == 240


async def test_calls_that_make_a_batch_are_not_left_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "MAKE_S", 60.0)
    environ = {**LONG, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
    async with collector() as receiver, exporting(receiver, Drops(), environ) as export:
        for _ in range(8):
            export.add(Makes(2), ended(asked(b"{}")), BILL)
        await receiver.received(8)


def test_the_thread_is_not_woken_for_each_call() -> None:
    export = Export(TelemetryConfig(traces=True), Drops(), "1", {})
    woken = []
    for _ in range(300):
        export.add(Makes(1), ended(asked(b"{}")), BILL)
        woken.append(export._calls_due.is_set())
        export._calls_due.clear()

    assert sum(woken) == 1


def test_many_bytes_wake_the_thread() -> None:
    export = Export(TelemetryConfig(traces=True), Drops(), "1", {})
    export.add(Makes(1), ended(asked(b"x" * (5 << 20))), BILL)

    assert export._calls_due.is_set()


async def test_spans_on_top_of_the_queue_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    drops = Drops()
    environ = {**LONG, "OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
    async with collector() as receiver:
        receiver.stalled.clear()
        async with exporting(receiver, drops, environ) as export:
            export.add(Makes(20), ended(asked(b"{}")), BILL)
            async with asyncio.timeout(30):
                while drops.count < 12:  # noqa: ASYNC110 - a thread counts; 4 may be on their way
                    await asyncio.sleep(0.01)
        assert len(receiver.spans) + drops.count == 20

    told = [it.getMessage() for it in caplog.records if "dropped" in it.getMessage()]
    assert told == ["spans are dropped"], "a line a minute"


async def test_what_a_collector_refuses_at_the_end_is_all_counted() -> None:
    drops = Drops()
    environ = {**LONG, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
    async with collector() as receiver:
        receiver.status = 400
        async with exporting(receiver, drops, environ) as export:
            export.add(Makes(3), ended(asked(b"{}")), BILL)
            for _ in range(4):
                export.add(Makes(4), ended(asked(b"{}")), BILL)

    assert drops.count == 19
    assert export._held_bytes == 0
