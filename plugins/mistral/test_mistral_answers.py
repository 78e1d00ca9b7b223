"""Answers, errors and lists of other protocols, as Mistral's clients get them."""

import json
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from llmproxy_mistral import MistralDialect
from llmproxy_mistral.paths import CHAT, EMBEDDINGS, MODEL, MODELS

from llmproxy_core.carried import Carried, seal
from llmproxy_core.chat import (
    ChatEvent,
    ChatOrigin,
    ChatReply,
    Choice,
    End,
    Finish,
    Finished,
    FinishReason,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RefusalPart,
    Start,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.dialect import Api
from llmproxy_core.embeddings import EmbeddingsReply, EmbeddingsRequest
from llmproxy_core.errors import BadRequest, ProxyError, UpstreamCut, UpstreamError
from llmproxy_core.headers import Headers
from llmproxy_core.model_list import ModelInfo
from llmproxy_core.reply_events import Assembler, events_of
from llmproxy_core.secret import Secret
from llmproxy_core.testing.grammar import check_stream
from llmproxy_core.usage import Usage
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT as OPENAI_CHAT
from tests.recordings import Recording, recordings

MISTRAL = MistralDialect()
START = Start("1", "m", 7)
STOP = Finished(0, Finish(FinishReason.STOP, "end_turn"))
CALLED = Finished(0, Finish(FinishReason.TOOL_CALLS, "tool_use"))
USED = UsageReported(Usage(5, 7, 2))


def streamed(*events: ChatEvent) -> bytes:
    writer = MISTRAL.writer(CHAT, usage=False)
    return b"".join(writer.write([event], None) for event in events)


def chunks(stream: bytes) -> list[Any]:
    return [json.loads(block[6:]) for block in stream.split(b"\n\n") if block and block != b"data: [DONE]"]


def read(stream: bytes) -> ChatReply:
    reader, assembler = MISTRAL.reader(CHAT), Assembler()
    for frame in [*reader.feed(stream), *reader.end()]:
        assembler.feed(frame.events)
    return assembler.reply()


# -- streams -------------------------------------------------------------------------------------------------------


def test_calls_come_whole_with_the_end_and_the_usage() -> None:
    stream = streamed(
        START,
        TextDelta(0, "a"),
        ToolCallStart(0, 0, "call_1", "f"),
        ToolCallStart(0, 1, "call_2", "g"),
        ToolCallDelta(0, 0, '{"a":'),
        ToolCallDelta(0, 0, "1}"),
        CALLED,
        USED,
        End(),
    )

    *_, last = chunks(stream)
    assert last["choices"] == [
        {
            "index": 0,
            "delta": {
                "content": "",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a":1}'},
                        "index": 0,
                    },
                    {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}, "index": 1},
                ],
            },
            "finish_reason": "tool_calls",
        }
    ]
    assert (last["usage"]["prompt_tokens"], last["usage"]["total_tokens"]) == (5, 12)
    assert check_stream("mistral", stream) == []
    assert all("finish_reason" in choice for chunk in chunks(stream) for choice in chunk["choices"])


def test_all_thinking_goes_out_and_what_must_come_back_is_its_signature() -> None:
    stream = streamed(
        START,
        ReasoningDelta(0, "a", provider="anthropic"),
        ReasoningDelta(0, "b", provider="anthropic"),
        ReasoningDelta(0, "", signature="s", provider="anthropic"),
        ReasoningDelta(0, "", redacted="r", provider="anthropic"),
        TextDelta(0, "x"),
        STOP,
        USED,
        End(),
    )

    parts = [
        part
        for chunk in chunks(stream)
        if isinstance(content := chunk["choices"][0]["delta"].get("content"), list)
        for part in content
    ]

    assert check_stream("mistral", stream) == []
    assert [part["thinking"] for part in parts[:2]] == [[{"type": "text", "text": text}] for text in "ab"]
    assert [part["signature"] for part in parts[2:]] == [
        seal(Carried("anthropic", "s")),
        seal(Carried("anthropic", redacted="r")),
    ]
    back = json.dumps({"messages": [{"role": "assistant", "content": parts}]}).encode()  # as clients keep it
    thought = [part for part in MISTRAL.read_chat(CHAT, back).messages[0].content if isinstance(part, ReasoningPart)]
    assert [(part.text, part.signature, part.redacted, part.provider) for part in thought] == [
        ("ab", "s", None, "anthropic"),
        ("", None, "r", "anthropic"),
    ]


@pytest.mark.parametrize(
    "events",
    [
        (TextDelta(0, "a"), STOP, End()),
        (START, End()),
        (START, USED, TextDelta(0, "a"), STOP, End()),
        (START, RefusalDelta(0, "no"), STOP, USED, End()),
        (START, TextDelta(0, "a"), TextDelta(1, "b"), STOP, Finished(1, STOP.finish), USED, End()),
        (START, ToolCallStart(0, 0, "", "f"), STOP, USED, End()),
        (START, Finished(0, Finish(FinishReason.CONTENT_FILTER)), USED, End()),
    ],
    ids=["no start", "nothing", "early usage", "refusal", "two choices", "no arguments", "filtered"],
)
def test_whatever_order_a_reader_gives_the_stream_keeps_to_the_grammar(events: Sequence[ChatEvent]) -> None:
    assert [mistake for mistake in check_stream("mistral", streamed(*events)) if "model" not in mistake] == []


@pytest.mark.parametrize("recording", [it for it in recordings(protocol="chat") if it.response_status == 200], ids=str)
def test_every_recorded_answer_of_openais_protocol_reaches_clients_of_mistral(recording: Recording) -> None:
    openai = OpenAIDialect()
    if recording.is_event_stream:
        reader = openai.reader(OPENAI_CHAT)
        events = [event for frame in reader.feed(recording.response_body) for event in frame.events]
        if any(type(event).__name__ == "Failed" for event in events):
            return
        assembler = Assembler()
        assembler.feed(events)
        reply = assembler.reply()
    else:
        reply = openai.read_reply(OPENAI_CHAT, recording.response_body)
        events = events_of(reply)

    stream = streamed(*events)
    whole = MISTRAL.read_reply(CHAT, MISTRAL.write_reply(CHAT, reply))

    assert check_stream("mistral", stream, strict=False) == []
    assert [choice.text for choice in whole.choices] == [choice.text for choice in read(stream).choices]
    for mine, theirs in zip(whole.choices, reply.choices, strict=True):
        refusals = "".join(part.text for part in theirs.content if isinstance(part, RefusalPart))
        assert mine.text == theirs.text + refusals
        assert _calls(mine) == _calls(theirs)
        assert _thoughts(mine) == _thoughts(theirs)
    assert whole.usage == reply.usage
    assert read(stream).usage == (reply.usage or attrs.evolve(Usage(), service_tier=reply.service_tier))


def _calls(choice: Choice) -> list[tuple[str, object]]:
    return [(part.name, part.arguments or "{}") for part in choice.content if isinstance(part, ToolCall)]


def _thoughts(choice: Choice) -> str:
    return "".join(part.text for part in choice.content if isinstance(part, ReasoningPart))


# -- whole answers -------------------------------------------------------------------------------------------------


def test_an_answer_has_its_thinking_in_the_content_and_its_refusal_as_text() -> None:
    content = (ReasoningPart("hm", signature="s", provider="anthropic"), RefusalPart("no"))
    reply = ChatReply("msg_1", "m", (Choice(0, content, Finish(FinishReason.REFUSAL, "refusal")),), Usage(1, 2))
    foreign = attrs.evolve(reply, origin=ChatOrigin("anthropic.messages", {}, reply))

    (choice,) = json.loads(MISTRAL.write_reply(CHAT, foreign))["choices"]

    assert choice["finish_reason"] == "error"
    assert choice["message"] == {
        "role": "assistant",
        "content": [
            {
                "type": "thinking",
                "thinking": [{"type": "text", "text": "hm"}],
                "signature": seal(Carried("anthropic", "s")),
            },
            {"type": "text", "text": "no"},
        ],
    }


@pytest.mark.parametrize("signed", [{"signature": "s"}, {}])
def test_mistrals_thinking_reaches_clients_of_openai_and_comes_back(signed: dict[str, str]) -> None:
    body = {
        "id": "1",
        "model": "magistral",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], **signed},
                        {"type": "text", "text": "x"},
                    ],
                },
                "finish_reason": "stop",
            }
        ],
    }
    reply = MISTRAL.read_reply(CHAT, json.dumps(body).encode())

    message = json.loads(OpenAIDialect().write_reply(OPENAI_CHAT, reply))["choices"][0]["message"]
    asked = {"model": "magistral", "messages": [message, {"role": "user", "content": "and?"}]}
    chat = OpenAIDialect().read_chat(OPENAI_CHAT, json.dumps(asked).encode())
    back = json.loads(MISTRAL.write_chat(CHAT, chat))["messages"][0]

    assert (message["content"], message["reasoning_content"]) == ("x", "hm")
    assert back["content"] == body["choices"][0]["message"]["content"]  # type: ignore[index]


def test_what_numbers_mistrals_calls_is_nothing_to_clients_of_openai() -> None:
    call = {"id": "aaaaaaaaa", "function": {"name": "f", "arguments": "{}"}, "index": 0}
    choice = {"index": 0, "message": {"role": "assistant", "content": "", "tool_calls": [call]}}
    body = {"id": "1", "model": "m", "choices": [choice | {"finish_reason": "tool_calls"}]}
    reply = MISTRAL.read_reply(CHAT, json.dumps(body).encode())

    message = json.loads(OpenAIDialect().write_reply(OPENAI_CHAT, reply))["choices"][0]["message"]

    function = {"name": "f", "arguments": "{}"}
    assert message["tool_calls"] == [{"id": "aaaaaaaaa", "type": "function", "function": function}]


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (422, {"detail": [{"loc": ["body", "temperature"], "msg": "Too hot"}]}, "body.temperature: Too hot"),
        (400, {"object": "error", "message": "Bad", "type": "invalid_model", "code": "1500"}, "Bad"),
        (404, {"detail": "Not found"}, "Not found"),
        (500, {"message": "Oops"}, "Oops"),
    ],
)
def test_errors_of_every_form_are_understood_and_kept(status: int, body: object, message: str) -> None:
    text = json.dumps(body).encode()

    error = MISTRAL.read_error(status, Headers([("retry-after", "7")]), text)

    assert (error.message, error.status, error.retry_after_s) == (message, status, 7)
    assert MISTRAL.write_error(error, "r") == text


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>"])
def test_an_error_that_is_no_json_becomes_one(body: bytes) -> None:
    error = MISTRAL.read_error(502, Headers([("content-type", "text/html")]), body)

    assert json.loads(MISTRAL.write_error(error, "r"))["message"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            UpstreamError("Slow", status=429, dialect="anthropic", body=b"{}"),
            {"object": "error", "message": "Slow", "type": "rate_limited", "param": None, "code": "1300"},
        ),
        (
            BadRequest("Bad", param="top_p"),
            {
                "object": "error",
                "message": "Bad",
                "type": "invalid_request_error",
                "param": "top_p",
                "code": "bad_request",
            },
        ),
        (
            UpstreamError("Bad", status=422, param="n", dialect="openai"),
            {"detail": [{"type": "value_error", "loc": ["body", "n"], "msg": "Bad", "input": None}]},
        ),
    ],
)
def test_an_error_of_others_is_told_in_mistrals_words(error: ProxyError, told: dict[str, Any]) -> None:
    assert json.loads(MISTRAL.write_error(error, "")) == told


def test_a_stream_that_fails_ends_with_the_error_and_looks_complete_to_nobody() -> None:
    stream = streamed(START, TextDelta(0, "a")) + MISTRAL.error_event(UpstreamCut("Cut"), "r", CHAT)

    assert check_stream("mistral", stream, failed=True) == []
    assert b"[DONE]" not in stream


# -- lists and embeddings ------------------------------------------------------------------------------------------


def test_a_list_has_what_clients_require_of_a_model() -> None:
    models = [ModelInfo("a", "A", 5, "me", 1000), ModelInfo("b")]

    out = MISTRAL.write_models(MODELS, models)
    (first, second) = json.loads(out)["data"]

    assert (first["id"], first["max_context_length"], second["type"]) == ("a", 1000, "base")
    assert first["capabilities"]["completion_chat"]
    assert MISTRAL.read_models(MODELS, out)[0] == models[0]
    assert json.loads(MISTRAL.write_models(MODEL, models[1:]))["id"] == "b"
    assert MISTRAL.read_models(MODEL, MISTRAL.write_models(MODEL, models[1:]))[0].id == "b"


def test_embeddings_have_mistrals_names() -> None:
    body = b'{"model":"m","input":["a"],"output_dimension":5,"output_dtype":"int8","encoding_format":"float"}'
    asked = MISTRAL.read_embeddings(EMBEDDINGS, body)

    assert asked == EmbeddingsRequest("m", ("a",), 5, dtype="int8")
    assert json.loads(MISTRAL.write_embeddings(EMBEDDINGS, asked)) == {
        "model": "m",
        "input": ["a"],
        "output_dtype": "int8",
        "output_dimension": 5,
    }
    out = json.loads(MISTRAL.write_embeddings_reply(EMBEDDINGS, EmbeddingsReply("m", ((0.5,),), Usage(3)), asked))
    assert out["id"]
    assert out["data"][0]["embedding"] == [0.5]


# -- calls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "claimed"),
    [
        ("mistral-client-python/3.7.0", True),
        ("ai/6.0 ai-sdk/mistral/3.0.0 runtime/node.js/22", True),
        ("speakeasy-sdk/typescript 1.0 2.0 1.0 @mistralai/mistralai", True),
        ("OpenAI/Python 2.54.0", False),
        ("curl/8", False),
    ],
)
@pytest.mark.parametrize("api", [CHAT, MODELS], ids=str)
def test_mistrals_clients_are_told_by_their_agent(agent: str, claimed: bool, api: Api) -> None:
    assert MISTRAL.claims(api, Headers([("user-agent", agent)]), "") is claimed
    assert OpenAIDialect().claims(OPENAI_CHAT, Headers([("user-agent", agent)]), "") is agent.startswith("OpenAI")


@pytest.mark.parametrize(
    ("header", "crosses"),
    [
        ("x-ratelimit-remaining-tokens-minute", True),
        ("ratelimitbysize-remaining", True),
        ("retry-after", True),
        ("set-cookie", False),
        ("mistral-correlation-id", False),
    ],
)
def test_limits_cross_to_the_client(header: str, crosses: bool) -> None:
    assert MISTRAL.crosses(header) is crosses


def test_the_key_is_a_bearer_token() -> None:
    assert MISTRAL.auth_headers(Secret("k")) == [("authorization", "Bearer k")]
