"""The line that each exchange leaves."""

import io
import logging
from collections.abc import Iterator

import attrs
import pytest

from llmproxy_core import Exchange, Handler, Response
from llmproxy_core.errors import RouteNotFound
from llmproxy_server.access_log import LOGGER, AccessLog
from llmproxy_server.log_line import JsonLines
from llmproxy_server.logs import BatchHandler
from tests.llmproxy_server.edging import HELLO, STREAM, Processing, ask, head, post, processed, request
from tests.llmproxy_server.transporting import until
from tests.proxy import Proxy, openai_at, with_server
from tests.rawclient import connected
from tests.upstream import Chunk, Cut, Head, Stall, Upstream, chat_chunk, completion, error, reply, sse

ONE = sse(chat_chunk("one"), done=False)


class Lines(logging.Handler):
    """Keeps the fields of what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.fields.append(record.__dict__["fields"])


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
    duration, first_byte = line.pop("duration_ms"), line.pop("first_byte_ms")
    assert isinstance(duration, float)
    assert isinstance(first_byte, float)
    assert duration >= first_byte >= 0
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
        "attempts": [["openai", 200, None]],
        "upstream_request_id": "req_1",
    }


async def test_processors_have_fields_of_their_own_and_cannot_take_ours(lines: Lines) -> None:
    async def says(call: Exchange, call_next: Handler) -> Response:
        call.log_fields |= {"cache": "hit", "status": 1, "client": "x", "message": "forged", "level": "debug"}
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
    assert "message" not in line
    assert "level" not in line


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
    assert line["attempts"] == [["openai", 200, None]] * 2
    assert line["child_attempts"] == [["openai", 200, None]]
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


@pytest.mark.parametrize("listened_to", [True, False])
def test_a_line_goes_straight_to_the_batch_of_the_process_unless_somebody_else_listens(listened_to: bool) -> None:
    out, logger, other = io.StringIO(), logging.getLogger(LOGGER), Lines()
    batch = BatchHandler(out)
    batch.setFormatter(JsonLines([]))
    logger.setLevel(logging.INFO)
    if listened_to:
        logger.addHandler(other)
    try:
        AccessLog(lambda: 1.5, batch).refused(Asked(), RouteNotFound("nothing"))
    finally:
        logger.removeHandler(other)
        logger.setLevel(logging.NOTSET)

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
    assert lines.fields[1]["error"] == "upstream_cut"
    assert lines.fields[0]["attempts"] == [["openai", 500, lines.fields[0]["error"]]]


async def test_a_client_that_left_is_a_499(lines: Lines) -> None:
    async with Upstream([Head(), Chunk(ONE), Stall()]) as upstream, Proxy(openai_at(upstream.base_url)) as proxy:
        async with connected(proxy.port) as client:
            client.send(post(STREAM))
            await head(client)
        async with connected(proxy.port) as client:
            await proxy.outcome()
            client.send(post()[:-1])
            await until(lambda: proxy.server.admission.in_flight == 1)
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
