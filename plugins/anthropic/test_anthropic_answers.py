"""Whole answers, usage, errors, lists, and what tells this protocol's clients from others."""

import json
import re
from typing import Any

import attrs
import pytest
from llmproxy_anthropic import AnthropicConfig, AnthropicDialect, llmproxy_dialects, llmproxy_providers
from llmproxy_anthropic.apis import COUNT_TOKENS, MESSAGES, MODEL, MODELS

from llmproxy_core import (
    BadRequest,
    Carried,
    Headers,
    ModelInfo,
    Overloaded,
    PayloadTooLarge,
    ProxyError,
    RateLimited,
    RouteNotFound,
    Secret,
    UpstreamAuthError,
    UpstreamCut,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTimeout,
    Usage,
    UsageSource,
    unseal,
)
from llmproxy_core.chat import (
    ChatReply,
    Choice,
    Citation,
    Finish,
    FinishReason,
    OpaquePart,
    Part,
    Raw,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
)
from llmproxy_core.reply_events import events_of
from llmproxy_openai import OpenAIDialect
from tests.recordings import recording

DIALECT, OPENAI = AnthropicDialect(), OpenAIDialect()
STOP = Finish(FinishReason.STOP, "stop")


def answer(**members: Any) -> bytes:
    body = {
        "model": "claude-sonnet-4-5",
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "hi", "x_new": 1.0}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 2, "inference_geo": "eu"},
        "container": {"id": "c"},
    }
    return json.dumps(body | members).encode()


def written(*parts: Part, finish: Finish | None = STOP, **fields: Any) -> Any:
    reply = ChatReply("id-1", "gpt-5", (Choice(0, parts, finish),), **fields)
    return json.loads(DIALECT.write_reply(MESSAGES, reply))


# -- answers ---------------------------------------------------------------------------------------------------


def test_a_rewritten_text_changes_its_string_alone() -> None:
    reply = DIALECT.read_reply(MESSAGES, answer())
    (choice,) = reply.choices
    (part,) = choice.content
    assert isinstance(part, TextPart)
    changed = attrs.evolve(choice, content=(attrs.evolve(part, text="ho"),))

    body = DIALECT.write_reply(MESSAGES, attrs.evolve(reply, choices=(changed,), model="mine"))

    assert body == answer().replace(b'"hi"', b'"ho"').replace(b"claude-sonnet-4-5", b"mine")


def test_an_answer_of_another_protocol_is_a_whole_message() -> None:
    call = ToolCall("call_1", "weather", '{"a": 1}', signature="g")
    thought = ReasoningPart("hm", signature="s", provider="gemini")

    body = written(thought, TextPart("said"), call, usage=Usage(100, 7, cached_input_tokens=90, reasoning_tokens=3))

    blocks = body.pop("content")
    assert body == {
        "id": "id-1",
        "type": "message",
        "role": "assistant",
        "model": "gpt-5",
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 90,
            "output_tokens": 7,
            "output_tokens_details": {"thinking_tokens": 3},
        },
    }
    assert [block["type"] for block in blocks] == ["thinking", "text", "redacted_thinking", "tool_use"]
    assert unseal(blocks[0]["signature"]) == Carried("gemini", signature="s")
    assert unseal(blocks[2]["data"]) == Carried("gemini", signature="g", id="call_1", of_call=True)
    assert blocks[3] == {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"a": 1}}


def test_what_others_thought_comes_back_as_it_went() -> None:
    thoughts = (
        ReasoningPart("a", encrypted="e", id="rs", provider="openai-responses"),
        ReasoningPart("", encrypted="f", id="rt", provider="openai-responses"),
        ReasoningPart("b", provider=None),
    )
    call = ToolCall("c", "n", "{}", signature="g")
    history = [{"role": "assistant", "content": written(*thoughts, call)["content"]}]
    body = json.dumps({"model": "m", "max_tokens": 1, "messages": history}).encode()

    parts = DIALECT.read_chat(MESSAGES, body).messages[0].content

    assert parts == (*thoughts, call)


def test_a_refusal_and_a_citation_are_given_as_text_blocks() -> None:
    citation = Citation("url_citation", url="https://example.com", title="t", text="c")

    refused, cited = written(RefusalPart("no")), written(TextPart("yes", (citation,)))

    assert refused["content"] == [{"type": "text", "text": "no"}]
    assert refused["stop_reason"] == "refusal"
    assert cited["content"][0]["citations"][0]["url"] == "https://example.com"


def test_what_has_no_form_here_is_left_out_of_an_answer() -> None:
    body = written(OpaquePart("web_search_call", Raw("openai-responses", b"{}")), ReasoningPart(""), TextPart(""))

    assert body["content"] == []
    assert body["stop_reason"] == "end_turn"
    assert body["usage"]["input_tokens"] == 0


def test_ids_are_made_where_there_are_none() -> None:
    reply = ChatReply("", "gemini", (Choice(0, (ToolCall("", "a", "{}"), ToolCall("", "a", "{}")), STOP),))

    body = json.loads(DIALECT.write_reply(MESSAGES, reply))

    ids = [block["id"] for block in body["content"]]
    assert body["id"].startswith("msg_")
    assert len(set(ids)) == 2
    assert all(each.startswith("toolu_") for each in ids)


def test_two_answers_without_ids_have_calls_of_different_ids() -> None:
    reply = ChatReply("", "gemini", (Choice(0, (ToolCall("", "a", "{}"),), STOP),))

    plain = [DIALECT.write_reply(MESSAGES, reply) for _ in range(2)]
    streamed = [DIALECT.writer(MESSAGES, usage=True).write(events_of(reply), None) for _ in range(2)]

    assert len(set(re.findall(rb"toolu_\w+", b"".join(plain + streamed)))) == 4


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"content": 1}', b'{"content": [{"text": "a"}]}'])
def test_what_is_no_message_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamGarbage):
        DIALECT.read_reply(MESSAGES, body)


def test_an_error_in_an_answer_of_status_200_is_one() -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'

    for read in (DIALECT.scan_reply, DIALECT.read_reply):
        with pytest.raises(UpstreamError) as caught:
            read(MESSAGES, body)
        assert (caught.value.status, caught.value.retryable) == (529, True)


# -- usage -----------------------------------------------------------------------------------------------------


def usage(**counts: Any) -> Usage | None:
    return DIALECT.scan_reply(MESSAGES, answer(usage=counts)).usage


def test_input_is_the_sum_of_what_was_read_written_and_neither() -> None:
    found = usage(
        input_tokens=10,
        cache_read_input_tokens=9000,
        cache_creation_input_tokens=50,
        cache_creation={"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
        output_tokens=5,
        output_tokens_details={"thinking_tokens": 2},
        service_tier="priority",
    )

    assert found == Usage(9060, 5, 9000, 50, 2, service_tier="priority", cache_write_1h_tokens=30)
    told = json.loads(OPENAI.write_reply(OPENAI.apis[0], ChatReply("i", "m", (), found)))["usage"]
    assert (told["prompt_tokens"], told["prompt_tokens_details"]["cached_tokens"]) == (9060, 9000)
    assert told["total_tokens"] == 9065


def test_where_only_the_split_is_told_its_sum_was_written() -> None:
    found = usage(input_tokens=1, output_tokens=1, cache_creation={"ephemeral_5m_input_tokens": 7})

    assert found is not None
    assert (found.input_tokens, found.cache_write_tokens) == (8, 7)


def test_what_is_billed_beside_the_whole_is_in_it() -> None:
    compaction = {"type": "compaction", "input_tokens": 900, "cache_read_input_tokens": 100, "output_tokens": 35}
    turn = {"type": "message", "input_tokens": 20, "output_tokens": 5}
    whole = {"input_tokens": 20, "output_tokens": 5, "service_tier": "standard"}

    assert usage(**whole, iterations=[turn]) == Usage(20, 5, service_tier="standard")
    assert usage(**whole, iterations=[compaction, turn]) == Usage(1020, 40, 100, service_tier="standard")
    assert usage(**whole, iterations=[{"type": "compaction"}, "x", None]) == Usage(20, 5, service_tier="standard")
    assert usage(**whole, iterations={"type": "compaction"}) == Usage(20, 5, service_tier="standard")


def test_tokens_of_an_adviser_are_an_estimate_since_it_is_another_model() -> None:
    advice = {"type": "advisor_message", "model": "other", "input_tokens": 70, "output_tokens": 7}

    assert usage(input_tokens=20, output_tokens=5, iterations=[advice]) == Usage(90, 12, source=UsageSource.ESTIMATED)


def test_counts_that_cannot_be_are_an_estimate() -> None:
    found = usage(input_tokens=-4, output_tokens=3)

    assert found is not None
    assert (found.output_tokens, found.source) == (3, UsageSource.ESTIMATED)
    assert usage(input_tokens=None) is None


# -- errors ----------------------------------------------------------------------------------------------------


def error(name: str) -> UpstreamError:
    case = recording(name)
    return DIALECT.read_error(case.response_status, Headers(case.response_headers), case.response_body)


def test_the_provider_s_own_error_is_given_to_its_own_clients() -> None:
    found = error("messages-json-made-error429-rate-limit")

    assert DIALECT.write_error(found, "req") == recording("messages-json-made-error429-rate-limit").response_body
    assert (found.status, found.retryable, found.retry_after_s) == (429, True, 12)
    assert ("anthropic-ratelimit-requests-remaining", "0") in found.headers


def test_to_other_clients_it_is_told_in_their_words() -> None:
    found = error("messages-json-made-error529-overloaded")

    assert OPENAI.error_status(found) == 503
    assert json.loads(OPENAI.write_error(found, ""))["error"]["message"] == "Overloaded"


def test_an_error_about_our_key_tells_nothing_of_it() -> None:
    found = error("messages-json-error401-chat-error-handling-with-anthropic-claude-haiku-4-5-raises-appro-0")

    assert isinstance(found, UpstreamAuthError)
    assert b"x-api-key" not in DIALECT.write_error(found, "")
    assert DIALECT.error_status(found) == 502


@pytest.mark.parametrize(
    ("problem", "status", "kind"),
    [
        (BadRequest("b", param="messages"), 400, "invalid_request_error"),
        (RouteNotFound("n"), 404, "not_found_error"),
        (PayloadTooLarge("p"), 413, "request_too_large"),
        (RateLimited("r"), 429, "rate_limit_error"),
        (Overloaded("o"), 529, "overloaded_error"),
        (UpstreamTimeout("t"), 504, "timeout_error"),
        (UpstreamCut("c"), 502, "api_error"),
        (
            UpstreamError("u", status=503, error_type="server_error", dialect="openai", body=b"{}"),
            529,
            "overloaded_error",
        ),
        (UpstreamError("u", status=404, error_type="invalid_request_error", dialect="openai"), 404, "not_found_error"),
        (
            UpstreamError("u", status=413, error_type="invalid_request_error", dialect="openai"),
            413,
            "request_too_large",
        ),
        (UpstreamError("u", status=400, error_type="billing_error", dialect="anthropic"), 400, "billing_error"),
        (UpstreamError("u", status=422, error_type="strange"), 422, "invalid_request_error"),
    ],
)
def test_errors_have_this_protocol_s_words(problem: ProxyError, status: int, kind: str) -> None:
    body = json.loads(DIALECT.write_error(problem, "req-1"))

    assert DIALECT.error_status(problem) == status
    assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", kind, "req-1")
    assert body["error"]["message"] == problem.message
    assert body["error"]["details"]["error_code"] == problem.code


def test_the_last_event_of_a_stream_that_failed() -> None:
    event = DIALECT.error_event(UpstreamCut("It was cut"), "req-1", MESSAGES)

    assert event.startswith(b"event: error\ndata: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 3


@pytest.mark.parametrize(
    "body", [b"", b"<html>502</html>", b'"text"', b'[{"error":{"message":"m"}}]', b'{"error":"m"}']
)
def test_whatever_the_envelope_there_is_a_message(body: bytes) -> None:
    found = DIALECT.read_error(500, Headers([("content-type", "text/html")]), body)

    assert found.message
    assert json.loads(DIALECT.write_error(found, ""))["error"]["message"] == found.message


# -- counts and lists ------------------------------------------------------------------------------------------


def test_counts_are_read_and_written() -> None:
    assert DIALECT.read_count(COUNT_TOKENS, b'{"input_tokens": 641}') == 641
    assert DIALECT.write_count(COUNT_TOKENS, 5) == b'{"input_tokens":5}'
    with pytest.raises(UpstreamGarbage):
        DIALECT.read_count(COUNT_TOKENS, b"{}")


def test_models_are_listed_as_the_sdk_reads_them() -> None:
    models = [ModelInfo("a", "A", 1_700_000_000, input_limit=9, output_limit=3), ModelInfo("b")]

    body = json.loads(DIALECT.write_models(MODELS, models))

    assert body["data"][0] == {
        "type": "model",
        "id": "a",
        "display_name": "A",
        "created_at": "2023-11-14T22:13:20Z",
        "max_input_tokens": 9,
        "max_tokens": 3,
    }
    assert (body["has_more"], body["first_id"], body["last_id"]) == (False, "a", "b")
    assert json.loads(DIALECT.write_models(MODEL, models[:1]))["id"] == "a"
    assert json.loads(DIALECT.write_models(MODELS, []))["data"] == []
    assert DIALECT.read_models(MODELS, DIALECT.write_models(MODELS, models))[0] == attrs.evolve(
        models[0], owner="anthropic"
    )


# -- where, and who --------------------------------------------------------------------------------------------


def test_its_paths_are_found_and_those_of_others_are_not() -> None:
    found = {path: [it.api.name for it in DIALECT.locate(path)] for path in PATHS}

    assert found == PATHS


PATHS = {
    "/v1/messages": ["anthropic.messages"],
    "/team/v1/messages": ["anthropic.messages"],
    "/v1/messages/count_tokens": ["anthropic.count_tokens"],
    "/v1/models": ["anthropic.models"],
    "/v1/models/claude-opus-4-8": ["anthropic.model"],
    "/v1/threads/t_1/messages": [],
    "/v1/chat/completions": [],
}


def test_its_clients_are_known_by_the_version_they_send() -> None:
    assert DIALECT.claims(MODELS, Headers([("anthropic-version", "2026-10-21")]), "")
    assert not DIALECT.claims(MODELS, Headers([("user-agent", "OpenAI/Python")]), "")


def test_a_call_carries_our_key_and_a_version_that_takes_a_temperature() -> None:
    assert DIALECT.auth_headers(Secret("k")) == [("x-api-key", "k")]
    assert DIALECT.default_headers() == [("anthropic-version", "2023-06-01")]
    assert {"anthropic-version", "anthropic-beta"} <= DIALECT.request_headers
    assert DIALECT.crosses("anthropic-ratelimit-unified-status")
    assert DIALECT.crosses("retry-after")
    assert not DIALECT.crosses("set-cookie")


def test_a_head_is_strict() -> None:
    head = DIALECT.read_head(MESSAGES, b'{"model":"m","stream":true,"messages":[]}')

    assert (head.model, head.stream, head.wants_usage) == ("m", True, True)
    for body in (b'{"model":1}', b'{"stream":"yes"}', b"[]", b'{"model":"a","model":"b"}'):
        with pytest.raises(BadRequest):
            DIALECT.read_head(MESSAGES, body)


def test_the_plugin_offers_the_dialect_and_a_provider() -> None:
    (dialect,), (provider,) = [*llmproxy_dialects()], [*llmproxy_providers()]

    assert (dialect.name, provider.name, provider.types) == ("anthropic", "anthropic", {"messages": "anthropic"})
    assert provider.config is AnthropicConfig
    assert attrs.fields(AnthropicConfig).base_url.default == "https://api.anthropic.com"
    assert not dialect.versioned_base
