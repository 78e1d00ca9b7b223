"""An LLM over HTTP: what is sent, what is never sent, and how every answer is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from llmproxy_core import (
    BadRequest,
    End,
    Exchange,
    Headers,
    HttpLLM,
    HttpLLMConfig,
    Money,
    Operation,
    Price,
    ProxyError,
    Reply,
    Request,
    Response,
    RouteNotFound,
    Secret,
    Stream,
    Tasks,
    Timeouts,
    Unsupported,
    UpstreamAuthError,
    UpstreamConnectError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamRequest,
    UpstreamTimeout,
    Usage,
)
from llmproxy_core.dialect import Dialect
from llmproxy_core.http_llm import base_url, read_head, read_whole
from llmproxy_core.relay import Flow, deliver
from llmproxy_core.request import client_view
from llmproxy_core.testing import FakeClock
from llmproxy_openai import OpenAIDialect
from tests.answers import DONE, error
from tests.llmproxy_core.conversation import (
    APIS,
    CHAT,
    COST,
    DIALECT,
    EMBEDDINGS,
    ERROR_EVENT,
    PRICE,
    SOON_S,
    USED,
    events,
    own_request,
    question,
    said,
    whole,
)
from tests.llmproxy_core.path_model_dialect import PathModelDialect
from tests.llmproxy_core.transport_double import EVENTS, JSON, Played, ScriptedTransport, services
from tests.recordings import without_usage_chunk

KEY = "sk-canary-0123456789"
BASE = "https://api.example.com/v1"
ANSWER = Played([whole("hello")])
STREAM = Played(events("hello"), headers=EVENTS)


class Called:
    """An LLM, the transport behind it, and what it was asked with."""

    def __init__(
        self,
        *script: Played | ProxyError,
        tasks: Tasks,
        dialect: Dialect = DIALECT,
        clock: FakeClock | None = None,
        **config: Any,
    ) -> None:
        self.tasks = tasks
        self.clock = clock or FakeClock()
        self.transport = ScriptedTransport(script, tasks)
        table: dict[str, Any] = {"name": "fake", "provider": "openai", "base_url": BASE, "token": Secret(KEY), **config}
        self.llm = HttpLLM(HttpLLMConfig(**table), dialect, services(self.transport, tasks, clock=self.clock))

    def exchange(self, request: Request) -> Exchange:
        client = None if request.dialect is None else client_view(request)
        return Exchange(request, id="7", route="/v1", tasks=self.tasks, clock=self.clock, client=client)

    async def send(self, request: Request | None = None) -> Response:
        return await asyncio.wait_for(self.llm.send(self.exchange(request or chat())), SOON_S)

    @property
    def sent(self) -> dict[str, Any]:
        """The JSON of the last request."""
        body = self.transport.request.body
        assert isinstance(body, bytes)
        value: dict[str, Any] = json.loads(body)
        return value


def chat(body: bytes | None = None, *, headers: Headers | None = None, query: str = "") -> Request:
    return Request(
        operation=Operation.CHAT,
        dialect=DIALECT,
        api=CHAT,
        path="/v1/chat/completions",
        body=question() if body is None else body,
        headers=headers,
        query=query,
    )


def models(name: str | None = None) -> Request:
    api = APIS["openai.models" if name is None else "openai.model"]
    return Request(operation=Operation.MODELS, dialect=DIALECT, api=api, method="GET", path_model=name)


def opaque(
    *, path: str = "/files", method: str = "GET", query: str = "", headers: Headers | None = None, content: Any = None
) -> Request:
    return Request(
        operation=Operation.OPAQUE,
        dialect=DIALECT,
        method=method,
        relative_path=path,
        query=query,
        headers=headers,
        content=content,
    )


# -- where it is sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("https://api.example.com", "https://api.example.com/v1"),
        ("https://api.example.com/", "https://api.example.com/v1"),
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("https://x.example.com/openai/deployments/d", "https://x.example.com/openai/deployments/d"),
        ("https://x.example.com/v1beta/openai", "https://x.example.com/v1beta/openai"),
    ],
)
async def test_a_known_operation_goes_to_the_base_url_and_its_own_path(
    tasks: Tasks, configured: str, expected: str
) -> None:
    called = Called(ANSWER, tasks=tasks, base_url=configured)

    await called.send()

    assert base_url(configured, DIALECT) == expected
    assert (called.transport.request.method, called.transport.request.url) == ("POST", f"{expected}/chat/completions")


async def test_the_callers_path_is_not_the_upstreams(tasks: Tasks) -> None:
    called = Called(Played([b'{"data":[]}']), tasks=tasks)

    await called.send(
        Request(operation=Operation.EMBEDDINGS, dialect=DIALECT, api=EMBEDDINGS, path="/team/v1/embeddings", body=b"{}")
    )

    assert called.transport.request.url == f"{BASE}/embeddings"


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gpt-4o", "/models/gpt-4o"),
        ("org/name", "/models/org/name"),
        ("ft:gpt-4o:org::id", "/models/ft:gpt-4o:org::id"),
        ("a b?c#d", "/models/a%20b%3Fc%23d"),
        ("100%", "/models/100%25"),
        ("ä", "/models/%C3%A4"),
    ],
)
async def test_a_model_in_the_path_is_written_as_a_path(tasks: Tasks, model: str, path: str) -> None:
    called = Called(Played([b"{}"]), tasks=tasks)

    await called.send(models(model))

    assert called.transport.request.method == "GET"
    assert called.transport.request.url == BASE + path
    assert called.transport.request.body is None
    assert called.transport.header("content-type") == []


@pytest.mark.parametrize(
    "model", ["../files", "..", ".", "a/../../files", "a//b", "/x", "a/./b", "a\\..\\b", "a\x00b", "x/.."]
)
async def test_a_model_in_the_path_cannot_lead_elsewhere(tasks: Tasks, model: str) -> None:
    """Our key must not be spent on another path of the provider's: `%2F` in the caller's path is a slash here."""
    called = Called(Played([b"{}"]), tasks=tasks)

    with pytest.raises(BadRequest):
        await called.send(models(model))

    assert called.transport.requests == []


async def test_the_models_map_says_what_stands_in_the_path(tasks: Tasks) -> None:
    called = Called(Played([b"{}"]), tasks=tasks, models=(("alias", "org/real"),))

    await called.send(models("alias"))

    assert called.transport.request.url == f"{BASE}/models/org/real"


async def test_a_dialect_may_have_the_model_of_a_chat_in_its_path(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks, dialect=PathModelDialect())

    await called.send(own_request())

    assert called.transport.request.url == f"{BASE}/models/gpt-4o-mini:generate"


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("", ""),
        ("limit=5&after=a%20b", "?limit=5&after=a+b"),
        ("api-key=sk-theirs&limit=5&key=x", "?limit=5"),
        ("limit=", "?limit="),
        ("other=1", ""),
    ],
)
async def test_the_query_passes_by_the_allow_list(tasks: Tasks, query: str, sent: str) -> None:
    called = Called(ANSWER, tasks=tasks)

    await called.send(chat(query=query))

    assert called.transport.request.url == f"{BASE}/chat/completions{sent}"


async def test_a_query_without_end_is_refused(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks)

    with pytest.raises(BadRequest, match="query"):
        await called.send(chat(query="&".join(f"limit={number}" for number in range(200))))


async def test_a_dialect_without_queries_gets_none(tasks: Tasks) -> None:
    class NoQuery(OpenAIDialect):
        query = frozenset()

    called = Called(ANSWER, tasks=tasks, dialect=NoQuery())

    await called.send(chat(query="limit=5"))

    assert urlsplit(called.transport.request.url).query == ""


# -- with which headers ----------------------------------------------------------------------------------------------

CREDENTIALS = ["authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie", "proxy-authorization"]
THEIRS = Headers(
    [(name, "sk-theirs") for name in CREDENTIALS]
    + [
        ("host", "proxy.example.com"),
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", "7"),
        ("accept-encoding", "gzip, br"),
        ("connection", "keep-alive"),
        ("x-forwarded-for", "10.0.0.1"),
        ("user-agent", "curl"),
        ("openai-organization", "org-theirs"),
        ("openai-beta", "assistants=v2"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]
)


@pytest.mark.parametrize("token", [Secret(KEY), None], ids=["key", "no key"])
@pytest.mark.parametrize("kind", ["chat", "models", "opaque"])
async def test_the_callers_credentials_never_leave(tasks: Tasks, kind: str, token: Secret | None) -> None:
    requests = {"chat": chat(headers=THEIRS), "models": models(), "opaque": opaque(headers=THEIRS)}
    requests["models"].headers = THEIRS
    called = Called(Played([whole("hi")]), tasks=tasks, token=token)

    await called.send(requests[kind])

    assert "sk-theirs" not in repr(called.transport.request.headers)
    assert called.transport.header("authorization") == ([] if token is None else [f"Bearer {KEY}"])


async def test_request_headers_are_built_and_an_allow_list_passes(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks)

    await called.send(chat(headers=THEIRS))

    assert sorted(called.transport.request.headers) == [
        ("accept-encoding", "identity"),
        ("authorization", f"Bearer {KEY}"),
        ("content-type", "application/json"),
        ("openai-beta", "assistants=v2"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]


async def test_the_operators_headers_win_over_the_callers_and_the_protocols(tasks: Tasks) -> None:
    class Versioned(OpenAIDialect):
        def constant_headers(self) -> list[tuple[str, str]]:
            return [("x-version", "1"), ("x-other", "2")]

    called = Called(
        ANSWER,
        tasks=tasks,
        dialect=Versioned(),
        headers=(("openai-beta", "ours"), ("x-secret", Secret("s3cret")), ("x-version", "9")),
    )

    await called.send(chat(headers=THEIRS))

    assert called.transport.header("openai-beta") == ["ours"]
    assert called.transport.header("x-secret") == ["s3cret"]
    assert called.transport.header("x-version") == ["9"]
    assert called.transport.header("x-other") == ["2"]


async def test_the_operators_authorization_wins_over_the_key(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks, headers=(("authorization", Secret("Basic eA==")),))

    await called.send()

    assert called.transport.header("authorization") == ["Basic eA=="]


async def test_the_operators_headers_win_on_opaque_calls_too(tasks: Tasks) -> None:
    called = Called(Played([b"x"]), tasks=tasks, headers=(("accept", "text/plain"),))

    await called.send(opaque(headers=Headers([("accept", "audio/mpeg"), ("range", "bytes=0-1")])))

    assert called.transport.header("accept") == ["text/plain"]
    assert called.transport.header("range") == ["bytes=0-1"]


# -- with which body -------------------------------------------------------------------------------------------------


async def test_a_request_nobody_changed_goes_as_the_bytes_received(tasks: Tasks) -> None:
    body = b'{ "model": "gpt-4o-mini", "messages": [], "x_unknown": [1,  2] }'
    called = Called(ANSWER, tasks=tasks)

    await called.send(chat(body))

    assert called.transport.request.body == body


async def test_the_usage_of_a_stream_is_asked_for_where_the_client_did_not(tasks: Tasks) -> None:
    called = Called(STREAM, tasks=tasks)

    await called.send(chat(question(stream=True)))

    assert called.sent["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("body", "ask"),
    [(question(stream=True, usage=True), True), (question(), True), (question(stream=True), False)],
    ids=["asked already", "no stream", "switched off"],
)
async def test_the_usage_is_not_asked_for_otherwise(tasks: Tasks, body: bytes, ask: bool) -> None:
    called = Called(STREAM, tasks=tasks, ask_usage=ask)

    await called.send(chat(body))

    assert called.transport.request.body == body


async def test_usage_nobody_asked_for_is_learned_and_withheld(tasks: Tasks) -> None:
    called = Called(STREAM, tasks=tasks, prices=(("*", PRICE),))
    call = called.exchange(chat(question(stream=True)))

    response = await asyncio.wait_for(called.llm.send(call), SOON_S)
    assert call.client is not None
    flow = await deliver(response, call.client)
    assert isinstance(flow, Flow)
    body = b"".join([piece async for piece in flow.pieces()])
    flow.finish()

    assert body == without_usage_chunk(b"".join(events("hello")))
    assert call.outcome is not None
    assert (call.outcome.usage, call.outcome.cost) == (USED, Money(COST))


async def test_an_llm_that_cannot_stream_is_called_plain(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks, supports_streaming=False)
    call = called.exchange(chat(question(stream=True, usage=True)))

    response = await asyncio.wait_for(called.llm.send(call), SOON_S)

    assert called.sent["stream"] is False
    assert "stream_options" not in called.sent
    assert isinstance(response, Reply)
    assert call.client is not None
    delivery = await deliver(response, call.client)
    assert not isinstance(delivery, Flow)
    assert said(delivery.body) == "hello"
    assert delivery.body.endswith(DONE)


@pytest.mark.parametrize(
    ("config", "asked", "sent"),
    [
        ({}, "gpt-4o-mini", "gpt-4o-mini"),
        ({"model": "forced"}, "gpt-4o-mini", "forced"),
        ({"models": (("gpt-*", "real"),)}, "gpt-4o-mini", "real"),
        ({"models": (("gpt-4o-mini", None),)}, "gpt-4o-mini", "gpt-4o-mini"),
        ({"models": (("gpt-*", None),), "model": "forced"}, "gpt-4o-mini", "forced"),
    ],
)
async def test_the_model_sent_is_what_the_configuration_makes_of_the_model_asked(
    tasks: Tasks, config: dict[str, Any], asked: str, sent: str
) -> None:
    called = Called(ANSWER, tasks=tasks, **config)
    call = called.exchange(chat(question(model=asked)))

    await asyncio.wait_for(called.llm.send(call), SOON_S)

    assert called.sent["model"] == sent
    assert call.attempts[0].model == sent
    assert call.request.model == asked


async def test_a_model_that_is_not_served_is_not_found(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks, models=(("gpt-4o", None),))

    with pytest.raises(RouteNotFound) as refused:
        await called.send(chat(question(model="x" * 5000)))

    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert len(refused.value.message) < 300
    assert called.transport.requests == []


async def test_a_request_without_a_model_gets_the_configured_one(tasks: Tasks) -> None:
    called = Called(ANSWER, ANSWER, tasks=tasks, model="forced")

    await called.send(chat(b'{"messages":[]}'))

    assert called.sent == {"messages": [], "model": "forced"}


async def test_a_request_without_a_model_and_nothing_configured_is_the_providers_to_judge(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks)

    await called.send(chat(b'{"messages":[]}'))

    assert called.transport.request.body == b'{"messages":[]}'


async def test_a_request_of_our_own_is_sent_in_the_dialects_chat(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks)

    reply = await (await called.send(own_request("why?"))).reply()

    assert called.sent == {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "why?"}]}
    assert reply.text == "hello"


async def test_a_legacy_completion_stays_one(tasks: Tasks) -> None:
    api = APIS["openai.completions"]
    called = Called(Played([b'{"choices":[]}']), tasks=tasks)

    await called.send(Request(operation=Operation.CHAT, dialect=DIALECT, api=api, body=b'{"model":"m","prompt":"x"}'))

    assert called.transport.request.url == f"{BASE}/completions"


async def test_an_operation_that_the_dialect_does_not_know_is_unsupported(tasks: Tasks) -> None:
    called = Called(tasks=tasks, dialect=PathModelDialect())

    with pytest.raises(Unsupported, match="'fake' does not offer embeddings"):
        await called.send(Request(operation=Operation.EMBEDDINGS, dialect=DIALECT, api=EMBEDDINGS, body=b"{}"))


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
    called = Called(Played([b"x" * 60_000, b"x" * 60_000, asyncio.Event()], status=500), tasks=tasks)

    with pytest.raises(UpstreamError) as raised:
        await called.send()

    assert raised.value.status == 500
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

    assert await read_head(first, 4) == b"abcd"
    assert await read_whole(second, 6) == b"abcdef"
    assert not llm.transport.closed


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


@pytest.mark.parametrize(
    ("deadline_in_s", "total_s", "expected_s"),
    [(None, 60, 60), (10, 60, 10), (90, 60, 60), (10, None, 10), (10, 0, 10), (None, None, None), (-5, 60, 0.001)],
)
@pytest.mark.parametrize("kind", ["chat", "opaque"])
async def test_the_deadline_of_the_exchange_cuts_the_total_clock(
    tasks: Tasks, deadline_in_s: float | None, total_s: float | None, expected_s: float | None, kind: str
) -> None:
    clocks = Timeouts(connect_s=1, first_byte_s=2, idle_s=3, total_s=total_s)
    called = Called(ANSWER, tasks=tasks, timeouts=clocks)
    call = called.exchange(chat() if kind == "chat" else opaque())
    call.deadline_s = None if deadline_in_s is None else called.clock() + deadline_in_s

    await asyncio.wait_for(called.llm.send(call), SOON_S)

    sent = called.transport.timeouts[0]
    assert sent.total_s == expected_s
    assert (sent.connect_s, sent.first_byte_s, sent.idle_s) == (1, 2, 3)
    call.finish(End.ABANDONED)


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
    assert sorted(request.headers) == [
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


async def test_the_callers_choice_of_encodings_passes_for_opaque_calls(tasks: Tasks) -> None:
    called = Called(Played([b"\x1f\x8b"], headers=[*JSON, ("content-encoding", "gzip"), ("etag", '"1"')]), tasks=tasks)

    response = await called.send(opaque(headers=Headers([("accept-encoding", "gzip")])))

    assert called.transport.header("accept-encoding") == ["gzip"]
    assert ("content-encoding", "gzip") in response.headers
    assert ("etag", '"1"') in response.headers
    response.finish(End.ABANDONED)


@pytest.mark.parametrize("status", [204, 206, 301, 304, 400, 404, 429, 500])
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


async def test_an_exchange_that_is_over_opens_nothing(tasks: Tasks) -> None:
    """The client left while we waited for the head: the connection is given up."""
    called = Called(STREAM, tasks=tasks)
    call = called.exchange(chat(question(stream=True)))
    call.finish(End.ABANDONED)

    response = await asyncio.wait_for(called.llm.send(call), SOON_S)

    assert response.outcome is not None
    assert response.outcome.end is End.ABANDONED
    assert [body.ends for body in called.transport.bodies] == [1]
