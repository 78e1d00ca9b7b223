"""Whole answers: what they cost, what they say, and how they are written again."""

import json
from typing import Any

import attrs
import pytest

from llmproxy_core.carried import Carried, seal
from llmproxy_core.chat import (
    AudioPart,
    ChatOrigin,
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
    Source,
    TextPart,
    ToolCall,
)
from llmproxy_core.dialect import ReplyHead
from llmproxy_core.errors import UpstreamAuthError, UpstreamError, UpstreamGarbage
from llmproxy_core.usage import Usage
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT, COMPLETIONS, EMBEDDINGS, MODELS
from tests.recordings import Recording, openai_recordings

OPENAI = OpenAIDialect()
STOP = Finish(FinishReason.STOP, "stop")

PLAIN = [
    each
    for each in openai_recordings()
    if each.response_status == 200 and not each.stream and each.protocol in {"chat", "completions"}
]


def api_of(recording: Recording) -> Any:
    return CHAT if recording.protocol == "chat" else COMPLETIONS


def text_of(recording: Recording) -> str:
    return OPENAI.read_reply(api_of(recording), recording.response_body).text


def read(message: dict[str, Any], **choice: object) -> Choice:
    ended = {"index": 0, "finish_reason": "stop", "message": message, **choice}
    body = {"id": "1", "model": "m", "choices": [ended]}
    return OPENAI.read_reply(CHAT, json.dumps(body).encode()).choices[0]


# -- accounting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "head"),
    [
        pytest.param(
            {
                "model": "m",
                "choices": [{"finish_reason": "stop"}, {"finish_reason": None}, {"finish_reason": "length"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 2},
            },
            ReplyHead(Usage(1, 2), "m", ("stop", "length")),
            id="all there",
        ),
        pytest.param(
            {"choices": [], "x_groq": {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}},
            ReplyHead(Usage(1, 2)),
            id="Groq",
        ),
        pytest.param({}, ReplyHead(), id="nothing"),
        pytest.param(
            {"model": 5, "choices": {}, "usage": "many", "x_groq": 1, "error": None}, ReplyHead(), id="odd types"
        ),
        pytest.param(
            {"model": "m", "data": [], "usage": {"prompt_tokens": 4}}, ReplyHead(Usage(4), "m"), id="embeddings"
        ),
    ],
)
def test_the_facts_of_an_answer_are_found(body: dict[str, Any], head: ReplyHead) -> None:
    assert OPENAI.scan_reply(EMBEDDINGS, json.dumps(body).encode()) == head


@pytest.mark.parametrize("recording", PLAIN, ids=str)
def test_scanning_a_recorded_answer_finds_what_reading_it_does(recording: Recording) -> None:
    head = OPENAI.scan_reply(api_of(recording), recording.response_body)

    reply = OPENAI.read_reply(api_of(recording), recording.response_body)

    assert head.usage == reply.usage
    assert head.usage is not None
    assert head.model == reply.model
    assert head.finish == tuple(choice.finish.word for choice in reply.choices if choice.finish is not None)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'"x"', b"{", b'{"id":"\xff"}', b"{" * 100_000])
def test_an_answer_that_is_no_object_is_garbage(body: bytes) -> None:
    if body != b'{"id":"\xff"}':  # a scan looks at no text
        with pytest.raises(UpstreamGarbage):
            OPENAI.scan_reply(CHAT, body)
    with pytest.raises(UpstreamGarbage):
        OPENAI.read_reply(CHAT, body)


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        pytest.param({"error": {"message": "Bad", "code": 429}}, 429, "upstream_error", "Bad", id="OpenRouter"),
        pytest.param({"error": {"message": "Bad", "code": "x"}}, 502, "x", "Bad", id="a code"),
        pytest.param({"error": {"message": "Bad", "code": 200}}, 502, "upstream_error", "Bad", id="no error status"),
        pytest.param({"error": "Bad"}, 502, "upstream_error", "Bad", id="text"),
        pytest.param({"object": "error", "message": "Bad", "code": 400}, 400, "upstream_error", "Bad", id="vLLM"),
        pytest.param({"error": {"x": 1}}, 502, "upstream_error", "reported an error", id="an error without words"),
    ],
)
def test_an_error_in_an_answer_of_status_200_is_an_error(
    body: dict[str, Any], status: int, code: str, message: str
) -> None:
    for look in (OPENAI.scan_reply, OPENAI.read_reply):
        with pytest.raises(UpstreamError, match=message) as caught:
            look(CHAT, json.dumps(body).encode())

        assert (caught.value.status, caught.value.code, caught.value.upstream_status) == (status, code, 200)


def test_an_error_about_our_key_in_an_answer_of_status_200_tells_nothing_of_it() -> None:
    with pytest.raises(UpstreamAuthError) as caught:
        OPENAI.scan_reply(CHAT, b'{"error":{"message":"bad key sk-123","code":401}}')

    assert "sk-123" not in caught.value.message
    assert caught.value.status == 502


@pytest.mark.parametrize("error", [None, False, "", {}], ids=repr)
def test_an_error_member_that_says_nothing_is_none(error: object) -> None:
    assert OPENAI.scan_reply(CHAT, json.dumps({"choices": [], "error": error}).encode()) == ReplyHead()


def test_a_model_list_is_scanned_too() -> None:
    assert OPENAI.scan_reply(MODELS, b'{"object":"list","data":[]}') == ReplyHead()


# -- meaning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": "x"}, (TextPart("x"),)),
        ({"content": None}, ()),
        ({"content": ""}, ()),
        ({"content": None, "refusal": "no"}, (RefusalPart("no"),)),
        (
            {"content": "x", "reasoning_content": "hm"},
            (ReasoningPart("hm", provider="openai", member="reasoning_content"), TextPart("x")),
        ),
        ({"content": "x", "reasoning": "hm"}, (ReasoningPart("hm", member="reasoning"), TextPart("x"))),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]},
                    {"type": "text", "text": "x"},
                ]
            },
            (ReasoningPart("hm", provider="openai", member="thinking"), TextPart("x")),
        ),
        (
            {
                "content": "x",
                "annotations": [
                    {
                        "type": "url_citation",
                        "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1},
                    }
                ],
            },
            (TextPart("x", (Citation("url_citation", "u", "t", start=0, end=1),)),),
        ),
        (
            {"content": None, "audio": {"id": "a", "data": "AA", "transcript": "hi", "expires_at": 5}},
            (AudioPart(Source(data="AA"), "a", "hi", extra={"expires_at": b"5"}),),
        ),
        ({"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}]}, (ToolCall("1", "f", "{"),)),
        ({"function_call": {"name": "f", "arguments": ""}}, (ToolCall("", "f", "", "legacy"),)),
    ],
    ids=str,
)
def test_a_message_is_understood(message: dict[str, Any], content: tuple[Part, ...]) -> None:
    assert read({"role": "assistant", **message}).content == content


@pytest.mark.parametrize(
    ("word", "message", "reason"),
    [
        ("stop", {}, FinishReason.STOP),
        ("eos", {}, FinishReason.STOP),
        ("made_up", {}, FinishReason.STOP),
        ("length", {}, FinishReason.LENGTH),
        ("model_length", {}, FinishReason.LENGTH),
        ("tool_calls", {}, FinishReason.TOOL_CALLS),
        ("function_call", {}, FinishReason.TOOL_CALLS),
        ("content_filter", {}, FinishReason.CONTENT_FILTER),
        ("error", {}, FinishReason.ERROR),
        # OpenAI says so when the function was forced, and Gemini always.
        ("stop", {"tool_calls": [{"id": "1", "function": {"name": "f"}}]}, FinishReason.TOOL_CALLS),
    ],
)
def test_why_it_ended_is_understood(word: str, message: dict[str, Any], reason: FinishReason) -> None:
    assert read(message, finish_reason=word).finish == Finish(reason, word)


def test_a_call_of_a_tool_that_stands_for_one_that_takes_a_text_is_that_ones() -> None:
    function = {"name": "llmproxy_text_f", "arguments": '{"text": "free"}'}
    call = {"id": "a", "type": "function", "function": function}

    assert read({"content": None, "tool_calls": [call]}).content == (ToolCall("a", "f", "free", "custom"),)


def test_choices_keep_their_indexes() -> None:
    body = b'{"choices":[{"index":1,"message":{"content":"b"}},{"index":0,"message":{"content":"a"}},{"message":{}}]}'

    reply = OPENAI.read_reply(CHAT, body)

    assert [(choice.index, choice.text) for choice in reply.choices] == [(1, "b"), (0, "a"), (2, "")]
    assert reply.choices[0].finish is None


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"choices":{}}',
        b'{"choices":[{}]}',
        b'{"choices":[{"message":{"content":5}}]}',
        b'{"choices":[],"id":5}',
    ],
)
def test_what_is_no_answer_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamGarbage):
        OPENAI.read_reply(CHAT, body)


# -- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", PLAIN, ids=str)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_recorded_answer_is_written_as_it_was_read(recording: Recording, indent: int | None) -> None:
    body = json.dumps(json.loads(recording.response_body), indent=indent).encode()

    assert OPENAI.write_reply(api_of(recording), OPENAI.read_reply(api_of(recording), body)) == body


@pytest.mark.parametrize("recording", PLAIN, ids=str)
def test_a_recorded_answer_written_anew_means_the_same(recording: Recording) -> None:
    reply = OPENAI.read_reply(api_of(recording), recording.response_body)

    again = OPENAI.read_reply(
        api_of(recording), OPENAI.write_reply(api_of(recording), attrs.evolve(reply, origin=None))
    )

    def without_words(reply: ChatReply) -> ChatReply:  # "eos" is written as "stop"
        return attrs.evolve(
            reply,
            choices=tuple(
                attrs.evolve(choice, finish=choice.finish and Finish(choice.finish.reason)) for choice in reply.choices
            ),
        )

    assert without_words(again) == without_words(reply)
    assert again.extra == reply.extra


@pytest.mark.parametrize("recording", [each for each in PLAIN if text_of(each)], ids=str)
def test_a_changed_text_changes_nothing_else(recording: Recording) -> None:
    """The bytes of the old text become those of the new one; but for log probabilities, which spell the old."""
    body = recording.response_body
    reply = OPENAI.read_reply(api_of(recording), body)
    texts = [part.text for part in reply.choices[0].content if isinstance(part, TextPart)]
    first = reply.choices[0]
    content = tuple(TextPart("NEW", part.citations) if isinstance(part, TextPart) else part for part in first.content)

    out = OPENAI.write_reply(
        api_of(recording), attrs.evolve(reply, choices=(attrs.evolve(first, content=content), *reply.choices[1:]))
    )

    assert out == body.replace(json.dumps(texts[0], ensure_ascii=False).encode(), b'"NEW"', 1)


def test_logprobs_that_spell_a_changed_text_go_with_it() -> None:
    body = b'{"choices":[{"message":{"content":"secret"},"logprobs":{"content":[{"token":"secret"}]}}]}'
    reply = OPENAI.read_reply(CHAT, body)
    changed = attrs.evolve(reply.choices[0], content=(TextPart("***"),))

    out = OPENAI.write_reply(CHAT, attrs.evolve(reply, choices=(changed,)))

    assert b"secret" not in out
    assert json.loads(out)["choices"][0]["logprobs"] is None


def test_a_changed_thinking_is_changed_wherever_it_is_repeated() -> None:
    body = (
        b'{"choices":[{"message":{"content":"x","reasoning":"secret","reasoning_content":"secret",'
        b'"reasoning_details":[{"text":"secret"}], "kept": 1.0}}]}'
    )
    reply = OPENAI.read_reply(CHAT, body)
    changed = attrs.evolve(
        reply.choices[0], content=(ReasoningPart("***", member="reasoning_content"), reply.choices[0].content[1])
    )

    out = OPENAI.write_reply(CHAT, attrs.evolve(reply, choices=(changed,)))

    assert json.loads(out)["choices"][0]["message"] == {"content": "x", "reasoning_content": "***", "kept": 1.0}
    assert b'"kept": 1.0' in out


def test_other_changes_are_spliced_too() -> None:
    body = (
        b'{ "id":"1","model":"m","x": 1.0 ,"choices":[{"index":0,"y": 2.0,"message":{"content":"a","z":3.0},'
        b'"finish_reason":"stop"}, {"index":1,"message":{"content":"b"}}],"usage":{"prompt_tokens":1}}'
    )
    reply = OPENAI.read_reply(CHAT, body)
    first = attrs.evolve(
        reply.choices[0],
        content=(ToolCall("c", "f", "{}"),),
        finish=Finish(FinishReason.TOOL_CALLS),
        extra={"message.z": b"4.0"},
    )

    out = OPENAI.write_reply(
        CHAT,
        attrs.evolve(reply, model="n", choices=(first, reply.choices[1]), usage=None, created=5, extra={"w": b"5.0"}),
    )

    assert json.loads(out) == {
        "id": "1",
        "model": "n",
        "choices": [
            {
                "index": 0,
                "message": {
                    "content": None,
                    "z": 4.0,
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                "finish_reason": "tool_calls",
            },
            {"index": 1, "message": {"content": "b"}},
        ],
        "created": 5,
        "w": 5.0,
    }
    assert b'{"index":1,"message":{"content":"b"}}' in out


def test_an_answer_of_our_own_is_complete() -> None:
    reply = ChatReply(
        "demo-1", "demo", (Choice(0, (TextPart("hi"),), STOP),), Usage(3, 2, reasoning_tokens=1), created=7
    )

    assert json.loads(OPENAI.write_reply(CHAT, reply)) == {
        "id": "demo-1",
        "object": "chat.completion",
        "created": 7,
        "model": "demo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "refusal": None, "content": "hi"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }
    assert json.loads(OPENAI.write_reply(COMPLETIONS, reply))["choices"] == [
        {"index": 0, "text": "hi", "logprobs": None, "finish_reason": "stop"}
    ]


def test_a_spoken_answer_is_written() -> None:
    spoken = AudioPart(Source(data="AA"), "a", "hi", extra={"expires_at": b"5"})
    cited = TextPart("", (Citation("url_citation", "u", "t", start=0, end=1),))

    out = json.loads(OPENAI.write_reply(CHAT, ChatReply("1", "m", (Choice(0, (cited, spoken), STOP),))))

    message = out["choices"][0]["message"]
    assert message["audio"] == {"id": "a", "data": "AA", "transcript": "hi", "expires_at": 5}
    assert read(message).content == (cited, spoken)


def test_a_choice_that_was_not_there_is_added() -> None:
    body = b'{"choices":[{"index":0,"message":{"content":"a"},"logprobs":null}]}'
    reply = OPENAI.read_reply(CHAT, body)
    first = attrs.evolve(reply.choices[0], logprobs=b"[1]")

    out = OPENAI.write_reply(CHAT, attrs.evolve(reply, choices=(first, Choice(1, (TextPart("b"),), STOP))))

    assert json.loads(out)["choices"] == [
        {"index": 0, "message": {"content": "a"}, "logprobs": [1]},
        {
            "index": 1,
            "message": {"role": "assistant", "refusal": None, "content": "b"},
            "logprobs": None,
            "finish_reason": "stop",
        },
    ]


def test_an_answer_of_another_protocol_loses_only_what_is_that_protocols_own() -> None:
    content: tuple[Part, ...] = (
        ReasoningPart("hm", signature="s", provider="anthropic"),
        ReasoningPart("", redacted="r", provider="anthropic"),
        OpaquePart("server_tool_use", Raw("other", b"{}")),
        TextPart("a", (Citation("web", "https://a", text="cited"),)),
        RefusalPart("no"),
        TextPart("b"),
    )
    reply = ChatReply("1", "m", (Choice(0, content, Finish(FinishReason.REFUSAL), extra={"x": b"1"}),))
    reply = attrs.evolve(reply, origin=ChatOrigin("other", {}, reply), extra={"y": b"1"})

    out = json.loads(OPENAI.write_reply(CHAT, reply))

    assert out["created"] > 1_600_000_000  # it came without: clients want a number
    assert out["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "ab",
                "reasoning_content": "hm",
                "reasoning_details": [
                    {
                        "type": "reasoning.text",
                        "text": "hm",
                        "signature": seal(Carried("anthropic", signature="s")),
                        "format": "anthropic",
                        "index": 0,
                    },
                    {
                        "type": "reasoning.encrypted",
                        "data": seal(Carried("anthropic", redacted="r")),
                        "format": "anthropic",
                        "index": 1,
                    },
                ],
                "refusal": "no",
                "annotations": [
                    {
                        "type": "url_citation",
                        "url_citation": {"url": "https://a", "title": "cited", "start_index": 0, "end_index": 1},
                    }
                ],
            },
            "logprobs": None,
            "finish_reason": "content_filter",
        }
    ]
    assert "y" not in out


def test_a_legacy_call_ends_in_the_legacy_word() -> None:
    choice = Choice(0, (ToolCall("", "f", "{}", "legacy"),), Finish(FinishReason.TOOL_CALLS))

    out = json.loads(OPENAI.write_reply(CHAT, ChatReply("1", "m", (choice,))))

    assert out["choices"][0]["finish_reason"] == "function_call"
    assert out["choices"][0]["message"]["function_call"] == {"name": "f", "arguments": "{}"}
