"""The line that each exchange leaves."""

import gc
import io
import json
import logging
import types
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from llmproxy_core import Exchange, Handler, Response
from llmproxy_core.attempt import Attempt
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import RouteNotFound
from llmproxy_core.headers import Headers
from llmproxy_core.outcome import End, Outcome
from llmproxy_core.request import Request
from llmproxy_core.tasks import Tasks
from llmproxy_core.trace_context import TraceContext
from llmproxy_server.access_line import access_line, more_of
from llmproxy_server.access_log import LOGGER, AccessLog
from llmproxy_server.door_request import Incoming
from llmproxy_server.logs import BatchHandler
from llmproxy_server.record import Ended
from tests.llmproxy_server.edging import HELLO, STREAM, Processing, ask, head, post, processed, request
from tests.llmproxy_server.logging_to import HOSTILE
from tests.llmproxy_server.transporting import until
from tests.proxy import SECRET, Proxy, openai_at, with_server
from tests.rawclient import connected
from tests.upstream import Chunk, Cut, Head, Stall, Upstream, chat_chunk, completion, error, reply, sse

ONE = sse(chat_chunk("one"), done=False)
PATH = "/v1/chat/completions"


class Lines(logging.Handler):
    """Keeps the fields of what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[dict[str, Any]] = []
        self.content: list[Any] = []
        self.levels: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.levels.append(record.levelname)
        self.fields.append(record.__dict__["fields"])
        self.content.append(record.__dict__["content"])


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger, handler = logging.getLogger(LOGGER), Lines()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


async def test_a_line_tells_what_was_asked_and_how_it_ended(lines: Lines) -> None:
    script = reply(completion("Hello"), headers={"x-request-id": "req_1"})
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post(HELLO, "/v1/chat/completions", "X-Request-Id: mine"))

    (line,) = lines.fields
    (attempt,) = line["attempts"]
    duration, first_byte, overhead = line.pop("duration_ms"), line.pop("first_byte_ms"), line.pop("overhead_ms")
    took = attempt.pop("ms")
    assert all(isinstance(each, float) for each in (duration, first_byte, overhead, took))
    assert duration >= first_byte >= 0
    assert duration >= overhead + took - 0.11, "rounded to a tenth; what is before the whole request is nobody's"
    assert overhead > 0
    assert line == {
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "request_id": "mine",
        "client": "127.0.0.1",
        "route": "/v1",
        "operation": "chat",
        "model": "gpt-4o-mini",
        "end": "completed",
        "input_tokens": 9,
        "output_tokens": 3,
        "usage_source": "reported",
        "attempts": [{"llm": "openai", "status": 200, "error": None}],
        "upstream_request_id": "req_1",
    }


async def test_processors_have_fields_of_their_own_and_cannot_take_ours(lines: Lines) -> None:
    async def says(call: Exchange, call_next: Handler) -> Response:
        call.log_fields |= {"cache": "hit", "status": 1, "client": "x", "message": "forged", "level": "debug"}
        call.log_fields |= {"query": "forged", "answer": "forged", "content_dropped": "forged"}  # of `log_content`
        return await call_next(call)

    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(says)]) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post(HELLO))

    (line,) = lines.fields
    assert line["cache"] == "hit"
    assert (line["status"], line["client"]) == (200, "127.0.0.1")
    assert not {"message", "level", "query", "answer", "content_dropped"} & line.keys()


async def test_the_attempts_of_children_and_of_what_was_detached_are_told(lines: Lines) -> None:
    async def helped(call: Exchange, call_next: Handler) -> Response:
        async with call.child(call.request) as child:
            await (await call_next(child)).reply()
        async with call.detach(call.request) as shared:
            await (await call_next(shared)).reply()
        return await call_next(call)

    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(helped)]) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post(HELLO))

    (line,) = lines.fields
    assert [(it["llm"], it["status"]) for it in line["attempts"]] == [("openai", 200)] * 2
    assert [(it["llm"], it["status"]) for it in line["child_attempts"]] == [("openai", 200)]
    assert (line["input_tokens"], line["output_tokens"]) == (3 * 9, 3 * 3)


@attrs.frozen
class Asked:
    """What the log wants to know of a call."""

    request_id: str = "r"
    method: str = "GET"
    path: str = "/nowhere"
    address: str = "127.0.0.1"
    began_s: float = 0.0
    status: int = 404
    incoming: Any = None


@pytest.mark.parametrize("listened_to", [True, False])
def test_a_line_goes_straight_to_the_batch_of_the_process_unless_somebody_else_listens(listened_to: bool) -> None:
    out, logger, other = io.StringIO(), logging.getLogger(LOGGER), Lines()
    batch = BatchHandler(out)
    logger.setLevel(logging.INFO)
    if listened_to:
        logger.addHandler(other)
    try:
        AccessLog(lambda: 1.5, batch).refused(Asked(), RouteNotFound("nothing"))
    finally:
        logger.removeHandler(other)
        logger.setLevel(logging.NOTSET)
    batch.close()

    assert len(other.fields) == listened_to
    assert ('"status":404,"duration_ms":1500.0' in out.getvalue()) is not listened_to


async def test_the_query_the_headers_and_the_body_stay_out(lines: Lines) -> None:
    async with (
        Upstream(reply(completion("answer-text"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        body = {**HELLO, "messages": [{"role": "user", "content": "question-text"}]}
        await ask(client, post(body, "/v1/chat/completions?key=query-text", "Authorization: Bearer header-text"))

    assert len(lines.fields) == 1
    assert not any(f"{kind}-text" in str(lines.fields) for kind in ("answer", "question", "query", "header"))


async def test_a_failure_has_its_own_status_also_behind_a_200(lines: Lines) -> None:
    async with Upstream() as upstream, Proxy(openai_at(upstream.base_url)) as proxy, connected(proxy.port) as client:
        upstream.then(reply(error("broken"), 500), [Head(), Chunk(ONE), Cut()])
        await ask(client, post())
        await ask(client, post(STREAM))

    assert [(line["status"], line["end"]) for line in lines.fields] == [(500, "failed"), (502, "failed")]
    first, second = lines.fields
    assert (second["error"], second["error_type"]) == ("upstream_cut", "UpstreamCut")
    assert [(it["status"], it["error"]) for it in first["attempts"]] == [(500, first["error"])]
    assert [(it["status"], it["error"]) for it in second["attempts"]] == [(200, "upstream_cut")]


async def test_a_failure_is_an_error_of_the_log_and_a_refusal_is_none(lines: Lines) -> None:
    """Who logs errors only hears of what broke, at once, and not of what callers do wrong."""
    async with (
        Upstream() as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as first,
        connected(proxy.port) as client,
    ):
        well = reply(completion("Hi"))
        upstream.then(reply(error("broken"), 500), [Head(), Chunk(ONE), Cut()], well, well)
        await ask(first, post())
        await ask(first, post(STREAM))
        await ask(client, post())
        await ask(client, post(b"{"))
        logging.getLogger(LOGGER).setLevel(logging.ERROR)
        await ask(client, post())

    assert [line["end"] for line in lines.fields] == ["failed", "failed", "completed", "refused"]
    assert lines.levels == ["ERROR", "ERROR", "INFO", "INFO"]


async def test_a_client_that_left_is_a_499(lines: Lines) -> None:
    async with Upstream([Head(), Chunk(ONE), Stall()]) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        async with connected(proxy.port) as client:
            client.send(post(STREAM))
            await head(client)
        async with connected(proxy.port) as client:
            await proxy.outcome()
            client.send(post()[:-1])
            await until(lambda: proxy.server.admission.buffered_bytes > 0)
        await until(lambda: len(lines.fields) == 2)

    assert [(line["status"], line["end"]) for line in lines.fields] == [(499, "abandoned")] * 2
    assert ["route" in line for line in lines.fields] == [True, False]


async def test_what_is_refused_before_it_is_an_exchange_has_a_line_too(lines: Lines) -> None:
    async with Proxy(openai_at("http://127.0.0.1:9/v1")) as proxy, connected(proxy.port) as client:
        await ask(client, request("GET", "/nowhere"))
        await ask(client, post(b"{"))
        await ask(client, request("GET", "/livez"))  # but not this: monitors ask all the time

    assert [(line["path"], line["status"], line["error"]) for line in lines.fields] == [
        ("/nowhere", 404, "route_not_found"),
        ("/v1/chat/completions", 400, "invalid_json"),
    ]


@pytest.mark.parametrize(
    ("forwarded", "client_address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7, 127.0.0.2", "203.0.113.7"),
        ("203.0.113.7, nonsense", "127.0.0.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("203.0.113.7:8080", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", "127.0.0.1"),
    ],
)
async def test_behind_a_trusted_proxy_the_caller_is_who_it_says(
    lines: Lines, forwarded: str, client_address: str
) -> None:
    mapping = with_server(openai_at("http://127.0.0.1:9/v1"), trusted_proxies=["127.0.0.0/8"])
    async with Proxy(mapping) as proxy, connected(proxy.port) as client:
        await ask(client, request("GET", "/nowhere", f"X-Forwarded-For: {forwarded}"))

    assert lines.fields[0]["client"] == client_address


async def test_nobody_else_can_say_who_called(lines: Lines) -> None:
    async with Proxy(openai_at("http://127.0.0.1:9/v1")) as proxy, connected(proxy.port) as client:
        await ask(client, request("GET", "/nowhere", "X-Forwarded-For: 203.0.113.7"))

    assert lines.fields[0]["client"] == "127.0.0.1"


# -- errors --------------------------------------------------------------------------------------------------------


async def test_an_error_is_told_with_its_kind_its_cause_and_what_the_provider_said(lines: Lines) -> None:
    async def breaks(call: Exchange, call_next: Handler) -> Response:
        raise ZeroDivisionError("only in the log of errors")

    async with Upstream() as upstream:
        async with Proxy(openai_at(upstream.base_url)) as proxy, connected(proxy.port) as client:
            upstream.then(reply(error("over capacity", code="busy"), 503))
            await ask(client, post())
        async with (
            Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(breaks)]) as proxy,
            connected(proxy.port) as client,
        ):
            await ask(client, post())
        async with Proxy(openai_at("http://127.0.0.1:9/v1")) as proxy, connected(proxy.port) as client:
            await ask(client, post())
            await ask(client, request("GET", "/nowhere"))

    told = [{name: it for name, it in line.items() if "error" in name or "upstream_s" in name} for line in lines.fields]
    assert told[0] == {
        "error": "busy",
        "error_type": "UpstreamError",
        "error_message": "over capacity",
        "upstream_status": 503,
    }
    assert told[1] == {
        "error": "processor_failed",
        "error_type": "ProcessorFailed",
        "error_message": "The processor 'around' failed",
        "error_cause": "ZeroDivisionError",
    }
    assert (told[2]["error"], told[2]["error_type"]) == ("upstream_connect", "UpstreamConnectError")
    assert told[3]["error_type"] == "RouteNotFound"


async def test_an_error_that_quotes_our_key_is_told_without_it(lines: Lines) -> None:
    script = reply(error(f"{SECRET} is over its limit"), 429)
    async with (
        Upstream(script) as upstream,
        Proxy(openai_at(upstream.base_url, token_env="KEY")) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post(HELLO, "/v1/chat/completions", f"Authorization: Bearer {SECRET}"))

    assert "***" in lines.fields[0]["error_message"]
    assert SECRET not in str(lines.fields)


# -- traces --------------------------------------------------------------------------------------------------------

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (f"00-{TRACE_ID}-00f067aa0ba902b7-01", TRACE_ID),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
        ("nonsense", None),
    ],
)
async def test_the_trace_of_the_caller_is_told(lines: Lines, traceparent: str, trace_id: str | None) -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post(HELLO, "/v1/chat/completions", f"traceparent: {traceparent}"))

    assert lines.fields[0].get("trace_id") == trace_id


async def test_of_two_traces_of_the_caller_none_is_told(lines: Lines) -> None:
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(openai_at(upstream.base_url)) as proxy,
        connected(proxy.port) as client,
    ):
        parent = f"traceparent: 00-{TRACE_ID}-00f067aa0ba902b7-01"
        await ask(client, post(HELLO, "/v1/chat/completions", parent, parent))

    assert "trace_id" not in lines.fields[0]


async def test_our_own_trace_goes_before_the_callers(lines: Lines) -> None:
    async def traced(call: Exchange, call_next: Handler) -> Response:
        call.trace = TraceContext(0xABC, 0xDEF, sampled=False)
        return await call_next(call)

    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        Proxy(processed(openai_at(upstream.base_url)), plugins=[Processing(traced)]) as proxy,
        connected(proxy.port) as client,
    ):
        await ask(client, post(HELLO, "/v1/chat/completions", f"traceparent: 00-{TRACE_ID}-00f067aa0ba902b7-01"))

    assert lines.fields[0]["trace_id"] == f"{0xABC:032x}"


# -- what is taken when an exchange ends ---------------------------------------------------------------------------


def over(*, began_s: float, attempts: list[tuple[float, float | None]]) -> tuple[Ended, Exchange]:
    """An exchange that ended, with *attempts* from one time to another."""
    incoming = Incoming("POST", PATH, PATH, "", (1, 1), Headers(), "127.0.0.1", secure=False)
    asked = Request(operation=Operation.CHAT, body=b"x" * 1000)
    exchange = Exchange(asked, id="r", route="/v1", tasks=Tasks(), clock=lambda: began_s)
    for started_s, ended_s in attempts:
        exchange.attempts.append(Attempt("up", "m", started_s, 200, ended_s=ended_s, request=asked))
    call = Asked(began_s=began_s, incoming=incoming)
    return Ended(call, exchange, Outcome(End.COMPLETED), 200, None), exchange


@pytest.mark.parametrize(
    ("attempts", "overhead_ms"),
    [
        ([], 10_000),
        ([(11.0, 12.0)], 9_000),
        ([(11.0, 13.0), (12.0, 14.0)], 7_000),
        ([(11.0, 19.0), (12.0, 13.0)], 2_000),
        ([(11.0, None)], 1_000),
        ([(9.0, 30.0)], 0),
        ([(12.0, 13.0), (11.0, 12.0)], 8_000),
    ],
    ids=["none", "one", "overlapping", "nested", "not over", "longer than the call", "in any order"],
)
def test_our_overhead_is_the_time_in_which_no_upstream_worked(
    attempts: list[tuple[float, float | None]], overhead_ms: float
) -> None:
    ended, _ = over(began_s=10.0, attempts=attempts)

    assert access_line(ended, 20.0).overhead_ms == overhead_ms


def test_what_is_written_is_what_was_so_when_the_exchange_ended() -> None:
    ended, exchange = over(began_s=10.0, attempts=[(11.0, 12.0)])
    exchange.log_fields["cache"] = "miss"
    line, more = access_line(ended, 20.0), more_of(ended)

    exchange.log_fields["cache"] = "changed"
    exchange.log_fields["later"] = 1
    exchange.attempts[0].status = 500
    exchange.attempts.append(exchange.attempts[0])

    assert more == {"cache": "miss"}
    assert line.attempts is not None
    assert [it.status for it in line.attempts] == [200]


def test_a_line_that_waits_does_not_keep_the_bodies_of_its_call_in_memory() -> None:
    ended, exchange = over(began_s=10.0, attempts=[(11.0, 12.0)])
    exchange.attempts[0].error = RouteNotFound("nothing")
    outcome = attrs.evolve(ended.outcome, error=RouteNotFound("nothing"))
    line = access_line(Ended(ended.call, exchange, outcome, 404, None), 20.0)

    seen = set[int]()
    left: list[object] = [line]
    while left:
        found = left.pop()
        if id(found) not in seen and not isinstance(found, type | types.ModuleType | types.FunctionType):
            seen.add(id(found))
            left += gc.get_referents(found)
            assert not isinstance(found, Exchange | Request | Attempt | BaseException), found


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_values_everywhere_are_one_line_of_json(text: str) -> None:
    ended, exchange = over(began_s=10.0, attempts=[(11.0, 12.0)])
    exchange.log_fields |= {"cache": text, "list": [text, [text]], text: text}
    exchange.attempts[0].upstream_id = exchange.attempts[0].model = text
    exchange.attempts[0].error = RouteNotFound(text, code=text)
    exchange.route = text
    outcome = Outcome(End.FAILED, RouteNotFound(text, code=text), model=text, ended_s=20.0)
    call = Asked(request_id=text, address=text, began_s=10.0, incoming=ended.call.incoming)
    out = io.StringIO()
    batch = BatchHandler(out)
    _log = logging.getLogger(LOGGER)
    _log.setLevel(logging.INFO)
    try:
        AccessLog(lambda: 20.0, batch).ended(Ended(call, exchange, outcome, 404, None))
    finally:
        _log.setLevel(logging.NOTSET)
    batch.close()

    (line,) = out.getvalue().splitlines()
    said = json.loads(line)
    assert len(line.encode()) < 4096
    assert (said["status"], said["method"], said["duration_ms"]) == (404, "POST", 10_000.0)
    assert line.isprintable()
