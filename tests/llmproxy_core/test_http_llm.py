"""An LLM over HTTP: what is sent, and what is never sent."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest

from llmproxy_core import (
    Api,
    BadRequest,
    End,
    Headers,
    Money,
    Operation,
    Reply,
    Request,
    RouteNotFound,
    Secret,
    Tasks,
    Unsupported,
    UpstreamCut,
)
from llmproxy_core.relay import Flow, deliver
from llmproxy_core.trace_context import TraceContext
from llmproxy_core.upstream_url import base_url
from llmproxy_openai import OpenAIDialect
from tests.answers import DONE
from tests.llmproxy_core.conversation import (
    APIS,
    COST,
    DIALECT,
    EMBEDDINGS,
    PRICE,
    SOON_S,
    USED,
    events,
    own_request,
    question,
    said,
    whole,
)
from tests.llmproxy_core.http_call import ANSWER, BASE, KEY, STREAM, Called, chat, models, opaque
from tests.llmproxy_core.path_model_dialect import PathModelDialect
from tests.llmproxy_core.transport_double import Played
from tests.recordings import without_usage_chunk

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
        ("limit=5&after=a%20b", "?limit=5&after=a%20b"),
        ("api-key=sk-theirs&limit=5&key=x&%6Bey=y&KEY", "?limit=5"),
        ("limit=", "?limit="),
        ("b&a=%2f+%26&a=2&a=1&c==", "?b&a=%2f+%26&a=2&a=1&c=="),
        ("&&other=1&", "?other=1"),
    ],
)
async def test_the_query_goes_on_as_it_stands_but_for_credentials(tasks: Tasks, query: str, sent: str) -> None:
    called = Called(ANSWER, tasks=tasks)

    await called.send(chat(query=query))

    assert called.transport.request.url == f"{BASE}/chat/completions{sent}"


async def test_what_the_configuration_sets_in_the_query_is_stronger_than_the_client(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks, query="api-version=2024-10-21")

    await called.send(chat(query="a=1&api-version=preview&api%2Dversion=x&b=2"))

    assert called.transport.request.url == f"{BASE}/chat/completions?a=1&b=2&api-version=2024-10-21"


async def test_the_query_of_another_protocol_stays_here(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks, dialect=PathModelDialect())

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

    assert "sk-theirs" not in repr(called.transport.headers)
    assert called.transport.header("authorization") == ([] if token is None else [f"Bearer {KEY}"])


async def test_request_headers_are_built_and_an_allow_list_passes(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks)

    await called.send(chat(headers=THEIRS))

    assert sorted(called.transport.headers) == [
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


class KeepingDialect(OpenAIDialect):
    """Leaves bodies that say so as they are, whatever is asked of it."""

    def prepare(
        self, api: Api, body: bytes, *, model: str | None = None, stream: bool | None = None, ask_usage: bool = False
    ) -> bytes:
        return (
            body if b"as it is" in body else super().prepare(api, body, model=model, stream=stream, ask_usage=ask_usage)
        )


@pytest.mark.parametrize(
    ("config", "stream", "member", "value"),
    [
        ({"model": "forced"}, False, "model", "forced"),
        ({"ask_usage": True}, True, "stream_options", {"include_usage": True}),
        ({"supports_streaming": False}, True, "stream", False),
    ],
)
async def test_what_is_to_be_changed_is_changed_in_each_request_though_one_needed_it_not(
    tasks: Tasks, config: dict[str, Any], stream: bool, member: str, value: object
) -> None:
    """How a request is sent is remembered for those like it, where nothing is to be changed in any of them."""
    answer = STREAM if stream and "supports_streaming" not in config else ANSWER
    called = Called(answer, answer, answer, tasks=tasks, dialect=KeepingDialect(), **config)

    for text in ("as it is", "hello", "hello again"):
        await called.send(chat(question(user=text, stream=stream)))

    assert called.sent[member] == value


async def test_a_model_that_is_not_served_is_not_found(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks, models=(("gpt-4o", None),))

    with pytest.raises(RouteNotFound) as refused:
        await called.send(chat(question(model="x" * 256)))

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
    called = Called(Played([b'{"choices":[{"text":"x"}]}']), tasks=tasks)

    await called.send(Request(operation=Operation.CHAT, dialect=DIALECT, api=api, body=b'{"model":"m","prompt":"x"}'))

    assert called.transport.request.url == f"{BASE}/completions"


async def test_an_operation_that_the_dialect_does_not_know_is_unsupported(tasks: Tasks) -> None:
    called = Called(tasks=tasks, dialect=PathModelDialect())

    with pytest.raises(Unsupported, match="'fake' does not offer embeddings"):
        await called.send(Request(operation=Operation.EMBEDDINGS, dialect=DIALECT, api=EMBEDDINGS, body=b"{}"))


# -- traces ----------------------------------------------------------------------------------------------------------

TRACED = Headers(
    [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "theirs=1"),
        ("baggage", "tenant=a"),
    ]
)


@pytest.mark.parametrize("kind", ["chat", "models", "opaque"])
@pytest.mark.parametrize("sampled", [True, False], ids=["recorded", "not recorded"])
async def test_where_calls_are_traced_the_upstream_is_told_our_own_span(
    tasks: Tasks, kind: str, *, sampled: bool
) -> None:
    requests = {"chat": chat(headers=TRACED), "models": models(), "opaque": opaque(headers=TRACED)}
    requests["models"].headers = TRACED
    called = Called(Played([whole("hi")]), tasks=tasks)
    exchange = called.exchange(requests[kind])
    exchange.trace = TraceContext(7, 8, sampled=sampled, parent_id=9, state="ours=2")

    await asyncio.wait_for(called.llm.send(exchange), SOON_S)

    [attempt] = exchange.attempts
    assert bool(attempt.span_id) is sampled
    assert called.transport.header("traceparent") == [exchange.trace.traceparent(attempt.span_id or 8)]
    assert called.transport.header("tracestate") == ["ours=2"]
    assert called.transport.header("baggage") == ["tenant=a"]


async def test_an_operators_own_traceparent_wins_over_ours(tasks: Tasks) -> None:
    constant = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    called = Called(ANSWER, tasks=tasks, headers=(("traceparent", constant),))
    exchange = called.exchange(chat(headers=TRACED))
    exchange.trace = TraceContext(7, 8, sampled=True)

    await asyncio.wait_for(called.llm.send(exchange), SOON_S)

    assert called.transport.header("traceparent") == [constant]


async def test_an_attempt_tells_when_it_began_was_sent_and_ended_and_what_it_gave(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks)
    exchange = called.exchange(chat())

    response = await asyncio.wait_for(called.llm.send(exchange), SOON_S)
    response.finish(End.COMPLETED)

    [attempt] = exchange.attempts
    assert attempt.request is exchange.request
    assert attempt.outcome is response.outcome
    assert attempt.outcome is not None
    assert attempt.ended_s == attempt.outcome.ended_s
    assert attempt.error is None


async def test_what_is_done_with_a_whole_answer_is_no_time_of_its_attempt(tasks: Tasks) -> None:
    called = Called(ANSWER, tasks=tasks)
    exchange = called.exchange(chat())

    response = await asyncio.wait_for(called.llm.send(exchange), SOON_S)
    called.clock.advance(7)  # a processor takes its time
    response.finish(End.COMPLETED)

    [attempt] = exchange.attempts
    assert attempt.outcome is not None
    assert (attempt.started_s, attempt.ended_s, attempt.outcome.ended_s) == (1000.0, 1000.0, 1007.0)


async def test_a_stream_ends_its_attempt_when_it_is_over(tasks: Tasks) -> None:
    called = Called(STREAM, tasks=tasks)
    exchange = called.exchange(chat())

    response = await asyncio.wait_for(called.llm.send(exchange), SOON_S)
    [attempt] = exchange.attempts
    assert attempt.ended_s is None
    called.clock.advance(7)
    response.finish(End.ABANDONED)

    assert attempt.ended_s == 1007.0


async def test_an_attempt_that_fails_tells_when_and_why(tasks: Tasks) -> None:
    called = Called(UpstreamCut("gone"), tasks=tasks)
    exchange = called.exchange(chat())

    with pytest.raises(UpstreamCut):
        await asyncio.wait_for(called.llm.send(exchange), SOON_S)

    [attempt] = exchange.attempts
    assert isinstance(attempt.error, UpstreamCut)
    assert attempt.ended_s is not None
    assert attempt.outcome is None
