"""`debug` tells the steps of each call, `trace` the bodies too."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

from llmproxy_core import Exchange, Handler, Response
from llmproxy_core.config import LogConfig, ServerConfig, structure
from llmproxy_core.errors import GuardrailBlocked, ProxyError
from llmproxy_core.gateway import Gateway, build
from llmproxy_core.headers import Headers
from llmproxy_core.outcome import End, KeptBody, Outcome
from llmproxy_core.plugins import Registry
from llmproxy_core.relay import deliver
from llmproxy_core.request import Request
from llmproxy_core.response import Reply
from llmproxy_core.services import Pool, Services
from llmproxy_core.subscription import Keep
from llmproxy_core.tasks import Tasks
from llmproxy_server.log_line import TRACE, Entry, JsonLines
from llmproxy_server.log_redact import Redaction
from llmproxy_server.log_steps import LOGGER, Steps, observed, steps_of
from llmproxy_server.record import Ended
from llmproxy_server.transport import AiohttpTransport
from tests.llmproxy_server.edging import HELLO, Around, Processing, ask, post, processed, request
from tests.llmproxy_server.transporting import until
from tests.proxy import SECRET, STANDARD_PLUGINS, Proxy, openai_at
from tests.rawclient import connected
from tests.upstream import Stall, Upstream, completion, error, reply

WAIT_S = 20


class Told(logging.Handler):
    """Keeps what is logged as JSON lines, and as values."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self._form = JsonLines(Redaction(), max_content_bytes=2000)

    def emit(self, record: logging.LogRecord) -> None:
        held = vars(record)
        content = held.get("content")
        made = Entry(record.created, record.name, record.levelno, record.getMessage(), held["fields"], content=content)
        self.raw.append(self._form.line(made))
        self.lines.append(json.loads(self.raw[-1]))

    def said(self) -> list[str]:
        return [line["message"] for line in self.lines]

    def of(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"] == message]


@pytest.fixture
def told() -> Iterator[Told]:
    logger, handler = logging.getLogger(LOGGER), Told()
    logger.addHandler(handler)
    logger.setLevel(TRACE)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@asynccontextmanager
async def gateway(url: str, steps: Steps, around: Around | None = None, **llm: Any) -> AsyncIterator[Gateway]:
    """A gateway whose steps are told; *around* is its one processor."""
    mapping = openai_at(url, token_env="KEY", **llm)
    plugins: list[Any] = [*STANDARD_PLUGINS]
    if around is not None:
        mapping, plugins = processed(mapping), [*plugins, Processing(around)]
    registry = Registry.of(*plugins)
    config, _ = structure(mapping, registry, {"KEY": SECRET})
    tasks = Tasks()
    transports: list[AiohttpTransport] = []

    def transport(pool: Pool) -> AiohttpTransport:
        transports.append(AiohttpTransport(pool, tasks))
        return transports[-1]

    made = build(
        config,
        registry,
        lambda find: Services(
            llm=find,
            transport=steps.transports(transport),
            tasks=tasks,
            dialects=registry.dialects,
            around=steps.around,
        ),
    )
    try:
        yield made
    finally:
        await made.aclose()
        for each in transports:
            await each.aclose()
        await tasks.drain(WAIT_S)


def begin(made: Gateway, steps: Steps, body: object = HELLO, *, query: str = "") -> Exchange:
    path = "/v1/chat/completions"
    match = made.match("POST", path)
    headers = Headers([("authorization", "Bearer header-text"), ("x-api-key", "header-text-2")])
    asked = Request(
        operation=match.operation,
        dialect=match.dialect,
        api=match.api,
        path=path,
        query=query,
        headers=headers,
        body=json.dumps(body).encode(),
    )
    exchange = made.begin(match, asked, request_id="the-call")
    steps.begin(exchange)
    return exchange


async def call(made: Gateway, steps: Steps, body: object = HELLO, *, query: str = "") -> Exchange:
    exchange = begin(made, steps, body, query=query)
    try:
        async with asyncio.timeout(WAIT_S):
            response = await made.handle(exchange)
            assert exchange.client is not None
            await deliver(response, exchange.client)
    except ProxyError as failed:
        exchange.finish(End.of(failed), failed)
    else:
        exchange.finish(End.COMPLETED)
    return exchange


def test_who_does_not_ask_for_steps_gets_none() -> None:
    for level in ("info", "warn", "error"):
        assert steps_of(ServerConfig(log=LogConfig(level=level))) is None
    assert steps_of(ServerConfig(log=LogConfig(level="debug"))) is not None
    assert steps_of(ServerConfig(debug=True)) is not None


async def test_the_steps_of_a_call_come_in_their_order(told: Told) -> None:
    async def passes(exchange: Exchange, call_next: Handler) -> Response:
        return await call_next(exchange)

    steps = Steps(bodies=False)
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        gateway(upstream.base_url, steps, passes) as made,
    ):
        await call(made, steps, query="key=query-text")

    assert told.said() == [
        "route matched",
        "processor entered",
        "attempt begun",
        "attempt has headers",
        "processor left",
        "attempt ended",
    ]
    assert {line["request_id"] for line in told.lines} == {"the-call"}
    assert {line["level"] for line in told.lines} == {"debug"}
    route, entered, begun, headers, left, ended = told.lines
    assert (route["route"], route["operation"]) == ("/v1", "chat")
    assert entered["processor"] == left["processor"] == "around"
    assert left["did"] == "passed on"
    assert left["ms"] >= headers["ms"] >= 0
    assert (begun["method"], begun["upstream"]) == ("POST", f"{upstream.base_url}/chat/completions")
    assert headers["status"] == 200
    assert (ended["llm"], ended["status"], ended["input_tokens"], ended["output_tokens"]) == ("openai", 200, 9, 3)
    for secret in ("header-text", "query-text", SECRET, "Hello"):
        assert secret not in "".join(told.raw)


async def _answers(exchange: Exchange, call_next: Handler) -> Response:
    assert exchange.client is not None
    return Reply(exchange, b"{}", dialect=exchange.client.dialect, api=exchange.client.api)


async def _refuses(exchange: Exchange, call_next: Handler) -> Response:
    raise GuardrailBlocked("no")


async def _refuses_the_answer(exchange: Exchange, call_next: Handler) -> Response:
    await call_next(exchange)
    raise GuardrailBlocked("no")


async def _changes(exchange: Exchange, call_next: Handler) -> Response:
    exchange.request = exchange.request.with_model("other")
    return await call_next(exchange)


async def _fails(exchange: Exchange, call_next: Handler) -> Response:
    raise ZeroDivisionError


async def _asks_for_itself(exchange: Exchange, call_next: Handler) -> Response:
    async with exchange.child(exchange.request) as child:
        await (await call_next(child)).reply()
    return await _answers(exchange, call_next)


@pytest.mark.parametrize(
    ("around", "did"),
    [
        (_answers, "answered"),
        (_refuses, "refused (guardrail_blocked)"),
        (_refuses_the_answer, "passed on, refused (guardrail_blocked)"),
        (_changes, "changed the request"),
        (_fails, "failed (processor_failed)"),
        (_asks_for_itself, "answered"),
    ],
    ids=["answers", "refuses", "refuses the answer", "changes", "fails", "asks for itself"],
)
async def test_what_a_processor_did_is_told(around: Around, did: str, told: Told) -> None:
    steps = Steps(bodies=False)
    async with (
        Upstream(reply(completion("Hello"))) as upstream,
        gateway(upstream.base_url, steps, around) as made,
    ):
        await call(made, steps)

    assert [line["did"] for line in told.of("processor left")] == [did]


async def test_each_processor_is_told_what_it_did_itself(told: Told) -> None:
    """Those inside it may do otherwise; and the innermost is known to pass on also where no attempt is made."""
    seen: list[Exchange] = []

    async def llm(exchange: Exchange) -> Response:
        seen.append(exchange)
        return await _answers(exchange, llm)

    chain = observed("", llm)
    for name, around in (("inner", _changes), ("outer", _passes)):
        chain = observed(name, _step(around, chain))
    steps = Steps(bodies=False)
    async with gateway("http://127.0.0.1:9/v1", steps) as made:
        await chain(begin(made, steps))

    assert [(line["processor"], line["did"]) for line in told.of("processor left")] == [
        ("inner", "changed the request"),
        ("outer", "passed on"),
    ]
    assert len(seen) == 1


async def _passes(exchange: Exchange, call_next: Handler) -> Response:
    return await call_next(exchange)


def _step(around: Around, inner: Handler) -> Handler:
    async def run(exchange: Exchange) -> Response:
        return await around(exchange, inner)

    return run


async def test_an_attempt_that_fails_says_why(told: Told) -> None:
    steps = Steps(bodies=False)
    async with gateway("http://127.0.0.1:9/v1", steps) as made:
        await call(made, steps)
    async with Upstream(reply(error("broken"), 500)) as upstream, gateway(upstream.base_url, steps) as made:
        await call(made, steps)

    (failed,) = told.of("attempt failed")
    assert failed["error"] == "upstream_connect"
    assert [line["status"] for line in told.of("attempt has headers")] == [500]
    assert [(line["status"], "error" in line) for line in told.of("attempt ended")] == [(None, True), (500, True)]


async def _handled(made: Gateway, exchange: Exchange) -> None:
    await made.handle(exchange)


async def test_a_call_that_is_given_up_is_told_as_cancelled(told: Told) -> None:
    steps = Steps(bodies=False)
    async with Upstream([Stall()]) as upstream, gateway(upstream.base_url, steps, _passes) as made:
        exchange = begin(made, steps)
        async with asyncio.timeout(WAIT_S):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(_handled(made, exchange))
                await until(lambda: bool(upstream.requests))
                task.cancel()
        exchange.finish(End.ABANDONED)

    assert [line["error"] for line in told.of("attempt failed")] == ["cancelled"]
    assert [line["did"] for line in told.of("processor left")] == ["passed on, cancelled"]


async def test_bodies_are_told_at_trace_as_they_stand(told: Told) -> None:
    steps = Steps(bodies=True)
    async with (
        Upstream(reply(completion("the-answer"))) as upstream,
        gateway(upstream.base_url, steps, models={"m": "sent-model"}) as made,
    ):
        exchange = await call(made, steps, query="key=query-text")
        keep = Keep(100)
        keep.body = KeptBody("openai.chat", False, b'{"the":"answer"}')
        steps.ended(Ended(_Asked(), exchange, Outcome(End.COMPLETED), 200, keep))  # type: ignore[arg-type]

    asked, sent, answered = told.of("route matched")[0], told.of("attempt begun")[0], told.of("answer")[0]
    assert [line["level"] for line in (asked, sent, answered)] == ["trace"] * 3
    assert json.loads(asked["body"]) == HELLO
    assert json.loads(sent["body"]) == {**HELLO, "model": "sent-model"}
    assert answered["body"] == '{"the":"answer"}'
    for secret in ("header-text", "query-text", SECRET):
        assert secret not in "".join(told.raw)


async def test_the_bodies_of_errors_are_told_at_trace_too(told: Told) -> None:
    """What the upstream said, also where no client may see it, and what the client is told instead."""
    async with Upstream(reply({"error": {"message": "no such key"}}, status=401)) as upstream:
        mapping = openai_at(upstream.base_url, server={"log": {"level": "trace"}})
        async with Proxy(mapping) as proxy, connected(proxy.port) as client:
            sent = await ask(client, post())

    (theirs,), (ours,) = told.of("attempt answered with an error"), told.of("answer")
    assert json.loads(theirs["body"]) == {"error": {"message": "no such key"}}
    assert theirs["status"] == 401
    assert ours["body"].encode() == sent.body
    assert (theirs["level"], ours["level"], ours["status"]) == ("trace", "trace", sent.status)
    assert theirs["request_id"] == ours["request_id"]


async def test_the_error_of_an_opaque_call_is_told_and_passed_on_whole(told: Told) -> None:
    async with Upstream(reply({"error": "x" * 1000}, status=404)) as upstream:
        mapping = openai_at(upstream.base_url, route={"operations": ["opaque"]}, server={"log": {"level": "trace"}})
        async with Proxy(mapping) as proxy, connected(proxy.port) as client:
            sent = await ask(client, request("GET", "/v1/files/none"))

    assert json.loads(sent.body) == {"error": "x" * 1000}


@attrs.frozen
class _Asked:
    request_id: str = "the-call"


async def test_where_an_upstream_is_has_no_credential_in_it(told: Told) -> None:
    from llmproxy_core.llm import Timeouts, UpstreamRequest, UpstreamResponse

    class Nowhere:
        async def open(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
            raise GuardrailBlocked("not opened")

        async def aclose(self) -> None:
            """Nothing."""

    transport = Steps(bodies=True).transports(lambda pool: Nowhere())(Pool())
    url = "https://user:password@host:8443/v1/models/x?key=query-text#part"
    with pytest.raises(GuardrailBlocked):
        await transport.open(UpstreamRequest("GET", url, [("authorization", "Bearer header-text")]), Timeouts())
    await transport.aclose()

    assert {line["upstream"] for line in told.lines} == {"https://host:8443/v1/models/x"}
    for secret in ("password", "query-text", "header-text"):
        assert secret not in "".join(told.raw)
