"""Answers of other protocols, whole and streamed, as clients of OpenAI's protocol get them."""

import json
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from llmproxy_core.carried import Carried, seal
from llmproxy_core.chat import (
    ChatEvent,
    ChatOrigin,
    ChatReply,
    Choice,
    Citation,
    CitationAdded,
    End,
    Finish,
    Finished,
    FinishReason,
    ImagePart,
    Part,
    ReasoningDelta,
    ReasoningPart,
    Source,
    Start,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    UsageReported,
)
from llmproxy_core.errors import UpstreamError
from llmproxy_core.reply_events import events_of
from llmproxy_core.testing.grammar import check_stream
from llmproxy_core.usage import Usage
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT

OPENAI = OpenAIDialect()
START = Start("msg_1", "claude", 7)
STOP = Finish(FinishReason.STOP, "end_turn")
CALLED = Finish(FinishReason.TOOL_CALLS, "tool_use")


def message_of(*parts: Part, finish: Finish | None = STOP) -> Any:
    """The first choice that a client gets for an answer of *parts*."""
    reply = ChatReply("msg_1", "claude", (Choice(0, parts, finish),))
    return whole(reply)["choices"][0]


def whole(reply: ChatReply) -> Any:
    return json.loads(OPENAI.write_reply(CHAT, attrs.evolve(reply, origin=ChatOrigin("anthropic.messages", {}, reply))))


def streamed(*events: ChatEvent, usage: bool = False) -> bytes:
    writer = OPENAI.writer(CHAT, usage=usage)
    return b"".join(writer.write([event], None) for event in events)


def added_up(stream: bytes) -> dict[str, Any]:
    """The message that the chunks make up, put together as OpenAI's SDK does: lists by their `index`."""
    message: dict[str, Any] = {}
    for block in stream.split(b"\n\n"):
        if block and block != b"data: [DONE]":
            for choice in json.loads(block[6:])["choices"]:
                _add(message, choice["delta"])
    return message


def _add(to: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        was = to.get(name)
        if was is None or name in {"index", "type"}:
            to[name] = value
        elif isinstance(value, str):
            to[name] = was + value
        elif isinstance(value, dict):
            _add(was, value)
        elif name == "annotations":
            was += value
        else:
            for entry in value:
                if entry["index"] < len(was):
                    _add(was[entry["index"]], entry)
                else:
                    was.append(entry)


PARTS: Sequence[Part] = (
    ReasoningPart("hm ", signature="s", provider="anthropic"),
    ReasoningPart("", redacted="r", provider="anthropic"),
    ReasoningPart("so", True, "rs_1", encrypted="e", provider="openai-responses"),
    TextPart("x", (Citation("web", "https://a", "A"),)),
    ToolCall("1", "f", '{"a":1}', signature="google's"),
    TextPart("yz", (Citation("web", "https://b", "B", start=1, end=2),)),
    ToolCall("2", "g", ""),
)


def test_all_that_an_answer_says_reaches_the_client() -> None:
    choice = message_of(*PARTS, finish=STOP)
    said = choice["message"]

    assert choice["finish_reason"] == "tool_calls"  # with calls, whatever its provider names it
    assert (said["content"], said["reasoning_content"]) == ("xyz", "hm so")
    assert [detail["type"] for detail in said["reasoning_details"]] == [
        "reasoning.text",
        "reasoning.encrypted",
        "reasoning.summary",
    ]
    assert said["reasoning_details"][0]["signature"] == seal(Carried("anthropic", "s"))
    assert [each["url_citation"] for each in said["annotations"]] == [
        {"url": "https://a", "title": "A", "start_index": 0, "end_index": 1},
        {"url": "https://b", "title": "B", "start_index": 2, "end_index": 3},
    ]
    assert said["tool_calls"] == [
        {
            "id": "1",
            "type": "function",
            "function": {"name": "f", "arguments": '{"a":1}'},
            "extra_content": {"google": {"thought_signature": "google's"}},
        },
        {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_a_stream_adds_up_to_the_whole_answer() -> None:
    reply = ChatReply("msg_1", "claude", (Choice(0, tuple(PARTS), CALLED),), Usage(5, 7))
    expected = whole(reply)["choices"][0]["message"]

    stream = streamed(*events_of(reply), usage=True)
    message = added_up(stream)

    for call in message["tool_calls"]:
        del call["index"]
    assert check_stream("openai", stream, usage=True) == []
    assert {name: value for name, value in expected.items() if value is not None} == message


@pytest.mark.parametrize("kind", ["whole", "streamed"])
def test_a_client_gives_thinking_back_as_its_provider_gave_it(kind: str) -> None:
    reply = ChatReply("msg_1", "claude", (Choice(0, tuple(PARTS), CALLED),))
    if kind == "whole":
        message = whole(reply)["choices"][0]["message"]
    else:
        message = added_up(streamed(*events_of(reply)))

    back = OPENAI.read_chat(CHAT, json.dumps({"messages": [message]}).encode()).messages[0].content

    thought = [attrs.evolve(part, member=None) for part in back if isinstance(part, ReasoningPart)]
    assert thought == list(PARTS[:3])
    assert [part.signature for part in back if isinstance(part, ToolCall)] == ["google's", None]


def test_pieces_of_one_block_of_thinking_are_carried_as_one() -> None:
    stream = streamed(
        START,
        ReasoningDelta(0, "a", provider="anthropic"),
        ReasoningDelta(0, "b", provider="anthropic"),
        ReasoningDelta(0, "", signature="s", provider="anthropic"),
        ReasoningDelta(0, "c", provider="anthropic"),
        ReasoningDelta(0, "", signature="t", provider="anthropic"),
        Finished(0, STOP),
        End(),
    )

    details = added_up(stream)["reasoning_details"]

    assert [(each["text"], each["signature"]) for each in details] == [
        ("ab", seal(Carried("anthropic", "s"))),
        ("c", seal(Carried("anthropic", "t"))),
    ]
    assert check_stream("openai", stream) == []


def test_of_unsigned_thinking_the_name_of_its_provider_is_carried_and_its_text_not_twice() -> None:
    thought = ReasoningPart("a thought", provider="mistral")
    message = message_of(thought, TextPart("x"))["message"]

    back = OPENAI.read_chat(CHAT, json.dumps({"messages": [message]}).encode()).messages[0].content

    assert back == (attrs.evolve(thought, member="reasoning_content"), TextPart("x"))
    assert json.dumps(message).count("a thought") == 1


def test_unsigned_thinking_between_signed_has_what_the_others_leave_of_the_text() -> None:
    parts = [
        ReasoningPart("a", signature="s", provider="anthropic"),
        ReasoningPart("b", provider="mistral"),
        ReasoningPart("c", signature="t", provider="anthropic"),
    ]
    message = message_of(*parts, TextPart("x"))["message"]

    back = OPENAI.read_chat(CHAT, json.dumps({"messages": [message]}).encode()).messages[0].content

    assert [attrs.evolve(part, member=None) for part in back if isinstance(part, ReasoningPart)] == parts


def test_thinking_of_this_protocols_own_provider_is_not_marked() -> None:
    message = message_of(ReasoningPart("a", provider="openai"), TextPart("x"))["message"]

    assert "reasoning_details" not in message


# -- what clients need in any case ---------------------------------------------------------------------------------


def test_an_answer_without_words_has_a_content_all_the_same() -> None:
    choice = message_of(finish=Finish(FinishReason.LENGTH, "MAX_TOKENS"))

    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")


def test_an_answer_without_a_choice_was_blocked() -> None:
    out = whole(ChatReply("", "gemini", ()))

    assert [choice["finish_reason"] for choice in out["choices"]] == ["content_filter"]
    assert out["id"].startswith("chatcmpl-")


def test_what_went_wrong_is_no_normal_end() -> None:
    finish = Finish(FinishReason.ERROR, "MALFORMED_FUNCTION_CALL")

    assert message_of(TextPart("x"), finish=finish)["finish_reason"] == "content_filter"


def test_an_image_goes_where_clients_of_openrouter_look_for_it() -> None:
    message = message_of(TextPart("x"), ImagePart(Source(data="AA", media_type="image/png")))["message"]

    assert message["content"] == "x"
    assert message["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]


def test_the_service_tier_is_in_openais_words() -> None:
    assert whole(ChatReply("1", "m", (), service_tier="standard"))["service_tier"] == "default"


@pytest.mark.parametrize(
    "events",
    [
        (TextDelta(0, "a"), Finished(0, STOP), End()),
        (START, TextDelta(0, "a"), End()),
        (START, End()),
        (START, UsageReported(Usage(1, 2)), TextDelta(0, "a"), Finished(0, STOP), Finished(0, STOP), End()),
        (START, ToolCallStart(0, 0, "", "f"), Finished(0, CALLED), End()),
        (
            START,
            ToolCallStart(0, 0, "a", "f"),
            ToolCallStart(0, 1, "b", "g"),
            ToolCallDelta(0, 1, "{}"),
            ToolCallDelta(0, 0, '{"x"'),
            ToolCallDelta(0, 0, ":1}"),
            Finished(0, STOP),
            End(),
        ),
        (START, CitationAdded(0, Citation("web", "https://a")), Finished(0, STOP), End()),
    ],
    ids=["no start", "no end of the choice", "nothing", "two ends", "no arguments", "interleaved", "a citation alone"],
)
def test_whatever_order_a_reader_gives_the_stream_keeps_to_the_grammar(events: Sequence[ChatEvent]) -> None:
    stream = streamed(*events)

    assert [mistake for mistake in check_stream("openai", stream) if "model" not in mistake] == []


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "shown", "kind", "code"),
    [
        (529, "Overloaded", 503, "server_error", "server_is_overloaded"),
        (429, "Slow down", 429, "rate_limit_error", "rate_limit_exceeded"),
        (404, "model: claude-9", 404, "invalid_request_error", "model_not_found"),
        (400, "prompt is too long: 210000 tokens > 200000", 400, "invalid_request_error", "context_length_exceeded"),
        (400, "messages: bad", 400, "invalid_request_error", "upstream_error"),
        (500, "Internal", 500, "server_error", "upstream_error"),
    ],
)
def test_an_error_of_another_protocol_has_openais_words(
    status: int, message: str, shown: int, kind: str, code: str
) -> None:
    error = UpstreamError(message, status=status, error_type="theirs", dialect="anthropic", body=b'{"type":"error"}')

    told = json.loads(OPENAI.write_error(error, "r"))["error"]

    assert OPENAI.error_status(error) == shown
    assert (told["message"], told["type"], told["code"]) == (message, kind, code)
