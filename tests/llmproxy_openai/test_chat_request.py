"""What a chat request means, and how a meaning is said in OpenAI's words."""

import json
from typing import Any

import attrs
import pytest

from llmproxy_core.chat import (
    AudioPart,
    BuiltinTool,
    CacheMark,
    ChatOrigin,
    ChatRequest,
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    Raw,
    ReasoningConfig,
    ReasoningPart,
    RefusalPart,
    ResponseFormat,
    Source,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    VideoPart,
)
from llmproxy_core.dialect import Api, RequestHead
from llmproxy_core.errors import BadRequest, Unsupported
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT, COMPLETIONS

OPENAI = OpenAIDialect()


def read(**members: object) -> ChatRequest:
    return OPENAI.read_chat(CHAT, json.dumps({"messages": [], **members}).encode())


def read_message(**members: object) -> Message:
    return read(messages=[members]).messages[0]


# -- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "field", "value"),
    [
        ({"model": "m"}, "model", "m"),
        ({"stream": True}, "stream", True),
        ({"max_tokens": 5}, "max_output_tokens", 5),
        ({"max_completion_tokens": 5}, "max_output_tokens", 5),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_output_tokens", 5),
        ({"temperature": 0.5}, "temperature", 0.5),
        ({"stop": "a"}, "stop", ("a",)),
        ({"stop": ["a", "b"]}, "stop", ("a", "b")),
        ({"stop": None}, "stop", ()),
        ({"n": 2}, "n", 2),
        ({"logit_bias": {"1": -5}}, "logit_bias", b'{"1": -5}'),
        ({"reasoning_effort": "high"}, "reasoning", ReasoningConfig("high")),
        ({"response_format": {"type": "text"}}, "response_format", ResponseFormat("text")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": True}}},
            "response_format",
            ResponseFormat("json_schema", "a", b"{}", True),
        ),
        ({"tool_choice": "required"}, "tool_choice", ToolChoice("required")),
        ({"tool_choice": "any"}, "tool_choice", ToolChoice("required")),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", ToolChoice("named", ("f",))),
        ({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice", ToolChoice("named", ("f",))),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
                }
            },
            "tool_choice",
            ToolChoice("allowed", ("f",)),
        ),
        ({"function_call": {"name": "f"}}, "tool_choice", ToolChoice("named", ("f",))),
        ({"function_call": "none"}, "tool_choice", ToolChoice("none")),
        ({"safety_identifier": "s"}, "user", "s"),
        ({"prompt_cache_key": "k"}, "cache_key", "k"),
        ({"modalities": ["text", "audio"]}, "modalities", ("text", "audio")),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}]},
            "tools",
            (Tool("f", parameters=b"{}", strict=True),),
        ),
        ({"tools": [{"function": {"name": "f"}}]}, "tools", (Tool("f"),)),
        (
            {"tools": [{"type": "custom", "custom": {"name": "f", "description": "d"}}]},
            "tools",
            (Tool("f", "d", kind="custom"),),
        ),
        (
            {"tools": [{"type": "web_search"}]},
            "tools",
            (BuiltinTool("web_search", Raw("openai.chat", b'{"type": "web_search"}')),),
        ),
        ({"functions": [{"name": "f"}]}, "tools", (Tool("f", kind="legacy"),)),
    ],
    ids=str,
)
def test_a_member_is_understood(members: dict[str, Any], field: str, value: object) -> None:
    chat = read(**members)

    assert getattr(chat, field) == value
    assert not (chat.extra.keys() - {"max_tokens"})


@pytest.mark.parametrize(
    ("members", "unknown"),
    [
        pytest.param({"reasoning": {"effort": "low"}}, "reasoning", id="OpenRouter"),
        pytest.param({"top_k": 5}, "top_k", id="top_k"),
        pytest.param({"tool_choice": {"type": "web_search"}}, "tool_choice", id="a choice of some server"),
        pytest.param({"tool_choice": "validated"}, "tool_choice", id="a mode of some server"),
        pytest.param({"response_format": {"type": "grammar"}}, "response_format", id="a format of some server"),
    ],
)
def test_what_is_not_understood_is_kept_as_it_is(members: dict[str, Any], unknown: str) -> None:
    assert read(**members).extra == {unknown: json.dumps(members[unknown]).encode()}


def test_null_is_absent() -> None:
    assert read(top_k=None, tools=None, stop=None, user=None, unknown=None).extra == {}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        pytest.param("hi", (TextPart("hi"),), id="string"),
        pytest.param("", (), id="empty string"),
        pytest.param([], (), id="empty list"),
        pytest.param([{"type": "text", "text": "hi"}], (TextPart("hi"),), id="text"),
        pytest.param(
            [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            (TextPart("hi", cache=CacheMark("1h")),),
            id="cache mark",
        ),
        pytest.param(
            [{"type": "image_url", "image_url": {"url": "https://a/b", "detail": "low"}}],
            (ImagePart(Source(url="https://a/b"), "low"),),
            id="image by URL",
        ),
        pytest.param(
            [{"type": "image_url", "image_url": "https://a/b"}],
            (ImagePart(Source(url="https://a/b")),),
            id="image as Mistral takes it",
        ),
        pytest.param(
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
            (ImagePart(Source(data="AAAA", media_type="image/png")),),
            id="image data",
        ),
        pytest.param(
            [{"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}}],
            (AudioPart(Source(data="AA", media_type="audio/mp3")),),
            id="audio",
        ),
        pytest.param(
            [{"type": "file", "file": {"file_id": "f"}}], (DocumentPart(Source(file_id="f")),), id="file by id"
        ),
        pytest.param(
            [{"type": "file", "file": {"filename": "a", "file_data": "data:application/pdf;base64,AA"}}],
            (DocumentPart(Source(data="AA", media_type="application/pdf"), "a"),),
            id="file data",
        ),
        pytest.param(
            [{"type": "file", "file": {"file_data": "AA"}}], (DocumentPart(Source(data="AA")),), id="bare file data"
        ),
        pytest.param(
            [{"type": "video_url", "video_url": {"url": "https://a/b"}}],
            (VideoPart(Source(url="https://a/b")),),
            id="video",
        ),
        pytest.param(
            [{"type": "thing"}], (OpaquePart("thing", Raw("openai.chat", b'{"type": "thing"}')),), id="unknown"
        ),
    ],
)
def test_content_is_understood(content: object, parts: tuple[Part, ...]) -> None:
    assert read_message(role="user", content=content).content == parts


@pytest.mark.parametrize(
    ("members", "message"),
    [
        pytest.param(
            {"role": "developer", "content": "x", "name": "n"},
            Message("developer", (TextPart("x"),), "n"),
            id="developer",
        ),
        pytest.param(
            {"role": "assistant", "content": None, "refusal": "no"},
            Message("assistant", (RefusalPart("no"),)),
            id="refusal",
        ),
        pytest.param(
            {"role": "assistant", "content": "x", "prefix": True},
            Message("assistant", (TextPart("x"),), prefix=True),
            id="prefix",
        ),
        pytest.param(
            {"role": "assistant", "reasoning": "hm", "reasoning_content": "hm", "content": "x"},
            Message("assistant", (ReasoningPart("hm", provider="openai", member="reasoning_content"), TextPart("x"))),
            id="thinking said twice",
        ),
        pytest.param(
            {"role": "assistant", "audio": {"id": "a"}},
            Message("assistant", (AudioPart(Source(file_id="a"), "a"),)),
            id="an earlier spoken answer",
        ),
        pytest.param(
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "2", "type": "custom", "custom": {"name": "g", "input": "x"}},
                    {"id": "3", "function": {"name": "h", "arguments": {"a": 1}}},
                    {"function": {"name": "i"}, "extra_content": {"google": {"thought_signature": "s"}}},
                ],
            },
            Message(
                "assistant",
                (
                    ToolCall("1", "f", "{}"),
                    ToolCall("2", "g", "x", "custom"),
                    ToolCall("3", "h", '{"a": 1}'),
                    ToolCall("", "i", "", signature="s"),
                ),
            ),
            id="calls",
        ),
        pytest.param(
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            Message("assistant", (ToolCall("", "f", "{}", "legacy"),)),
            id="legacy call",
        ),
        pytest.param(
            {"role": "tool", "tool_call_id": "1", "content": "x"},
            Message("tool", (ToolResult("1", (TextPart("x"),)),)),
            id="result",
        ),
        pytest.param(
            {"role": "function", "name": "f", "content": "x"},
            Message("tool", (ToolResult("", (TextPart("x"),), "f"),)),
            id="legacy result",
        ),
    ],
)
def test_a_message_is_understood(members: dict[str, Any], message: Message) -> None:
    assert read_message(**members) == message


@pytest.mark.parametrize(
    ("members", "param"),
    [
        pytest.param({"messages": None}, "messages", id="no messages"),
        pytest.param({"messages": {}}, "messages", id="messages of another type"),
        pytest.param({"messages": ["x"]}, "messages[0]", id="a message of another type"),
        pytest.param({"messages": [{}]}, "messages[0].role", id="no role"),
        pytest.param({"messages": [{"role": "king"}]}, "messages[0].role", id="unknown role"),
        pytest.param({"messages": [{"role": "tool"}]}, "messages[0].tool_call_id", id="result of nothing"),
        pytest.param({"messages": [{"role": "user", "content": 1}]}, "messages[0].content", id="content"),
        pytest.param({"messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]", id="part"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", id="text"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].image_url",
            id="image",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
            "messages[0].content[0].file.file_id",
            id="file",
        ),
        pytest.param(
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
            id="call",
        ),
        pytest.param({"temperature": "hot"}, "temperature", id="temperature"),
        pytest.param({"temperature": True}, "temperature", id="temperature as a boolean"),
        pytest.param({"max_tokens": 1.5}, "max_tokens", id="max_tokens"),
        pytest.param({"stop": [1]}, "stop", id="stop"),
        pytest.param({"tools": [{"function": {}}]}, "tools[0].function.name", id="tool"),
        pytest.param({"tool_choice": 1}, "tool_choice", id="tool_choice"),
        pytest.param({"response_format": "json"}, "response_format", id="response_format"),
    ],
)
def test_a_mistake_is_named(members: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**members)

    assert caught.value.param == param
    assert param in caught.value.message


# -- writing what was read elsewhere -------------------------------------------------------------------------------


def from_elsewhere(chat: ChatRequest) -> ChatRequest:
    """*chat* as if the dialect of another protocol had read it."""
    return attrs.evolve(chat, origin=ChatOrigin("other.chat", {}, chat, b"{}"))


def written(*messages: Message, model: str = "m", **fields: Any) -> Any:
    return json.loads(OPENAI.write_chat(CHAT, from_elsewhere(ChatRequest(model, messages, **fields))))


def test_a_conversation_of_another_protocol_is_said_in_openais_words() -> None:
    body = written(
        Message("system", (TextPart("a", cache=CacheMark()), TextPart("b"))),
        Message("user", (TextPart("look"), ImagePart(Source(data="AA", media_type="image/jpeg")))),
        Message(
            "assistant",
            (
                ReasoningPart("secret", signature="s", provider="anthropic"),
                TextPart("I "),
                TextPart("see"),
                ToolCall("1", "f", "{}"),
                ToolCall("2", "g", "{}"),
            ),
        ),
        Message("tool", (ToolResult("1", (TextPart("x"),), "f", is_error=True), ToolResult("2", (), "g"))),
        Message("assistant", (ToolCall("3", "f", ""),)),
        max_output_tokens=5,
        stop=("a",),
        tools=(Tool("f", "d", b'{"type":"object"}'),),
        tool_choice=ToolChoice("named", ("f",)),
        reasoning=ReasoningConfig(budget_tokens=4096),
        stream=True,
        wants_usage=True,
        user="u",
    )

    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AA"}},
                ],
            },
            {
                "role": "assistant",
                "content": "I see",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "x"},
            {"role": "tool", "tool_call_id": "2", "content": ""},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "3", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "stop": ["a"],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "reasoning_effort": "medium",
        "user": "u",
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice("auto"), "auto"),
        (ToolChoice("required"), "required"),
        (ToolChoice("named", ("g",)), {"type": "custom", "custom": {"name": "g"}}),
        (
            ToolChoice("named", ("f", "g")),
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [
                        {"type": "function", "function": {"name": "f"}},
                        {"type": "custom", "custom": {"name": "g"}},
                    ],
                },
            },
        ),
        (
            ToolChoice("allowed", ("f",)),
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        ),
    ],
    ids=str,
)
def test_a_choice_of_tools_is_said(choice: ToolChoice, expected: object) -> None:
    body = written(model="gpt-5", tools=(Tool("f"), Tool("g", kind="custom")), tool_choice=choice)

    assert body["tool_choice"] == expected


@pytest.mark.parametrize(
    ("reasoning", "effort"),
    [
        (ReasoningConfig("xhigh"), "high"),
        (ReasoningConfig(budget_tokens=0), "none"),
        (ReasoningConfig(budget_tokens=1024), "low"),
        (ReasoningConfig(budget_tokens=32_000), "high"),
        (ReasoningConfig(budget_tokens=-1), None),
        (ReasoningConfig(adaptive=True), None),
    ],
    ids=str,
)
def test_a_budget_of_thinking_is_said_as_an_effort(reasoning: ReasoningConfig, effort: str | None) -> None:
    assert written(reasoning=reasoning).get("reasoning_effort") == effort


def test_a_schema_is_said_in_full() -> None:
    wanted = ResponseFormat("json_schema", "n", b"{}", strict=True, description="d")

    body = written(response_format=wanted)

    assert body["response_format"]["json_schema"] == {"name": "n", "description": "d", "schema": {}, "strict": True}
    assert written(response_format=ResponseFormat("json_object"))["response_format"] == {"type": "json_object"}


def test_media_is_said_as_data() -> None:
    body = written(
        Message(
            "user",
            (
                DocumentPart(Source(data="AA"), "a.pdf"),
                AudioPart(Source(data="AA", media_type="audio/mpeg")),
            ),
        )
    )

    assert body["messages"][0]["content"] == [
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}},
    ]


def test_a_strict_function_and_a_built_in_tool_are_said() -> None:
    chat = read(tools=[{"type": "web_search"}, {"type": "function", "function": {"name": "f"}}])
    tools = (chat.tools[0], Tool("f", strict=True))

    body = json.loads(
        OPENAI.write_chat(CHAT, attrs.evolve(chat, tools=tools, tool_choice=ToolChoice("named", ("web_search",))))
    )

    assert body["tools"] == [{"type": "web_search"}, {"type": "function", "function": {"name": "f", "strict": True}}]
    assert body["tool_choice"] == {"type": "web_search"}


def test_a_schema_without_a_name_gets_one_since_openai_requires_it() -> None:
    body = written(response_format=ResponseFormat("json_schema", schema=b'{"type":"object"}'))

    assert body["response_format"]["json_schema"] == {"name": "answer", "schema": {"type": "object"}}


OTHER = Raw("other.chat", b'{"type":"x"}')


@pytest.mark.parametrize(
    ("chat", "param"),
    [
        pytest.param(ChatRequest("m", (), top_k=4), "top_k", id="top_k"),
        pytest.param(ChatRequest("m", (), extra={"safe_prompt": b"true"}), "safe_prompt", id="unknown member"),
        pytest.param(ChatRequest("m", (), tools=(BuiltinTool("x", OTHER),)), "tools[0]", id="built-in tool"),
        pytest.param(
            ChatRequest("m", (Message("user", (DocumentPart(Source(url="https://a/b")),)),)),
            "messages[0].content[0]",
            id="document by URL",
        ),
        pytest.param(
            ChatRequest("m", (Message("user", (TextPart("a"), VideoPart(Source(url="https://a/b")))),)),
            "messages[0].content[1]",
            id="video",
        ),
        pytest.param(
            ChatRequest("m", (Message("user", (ImagePart(Source(file_id="f")),)),)),
            "messages[0].content[0]",
            id="image by file id",
        ),
        pytest.param(
            ChatRequest("m", (Message("assistant", (OpaquePart("x", OTHER),)),)),
            "messages[0].content[0]",
            id="another protocol's part",
        ),
        pytest.param(
            ChatRequest("m", (Message("assistant", (TextPart("a"),), prefix=True),)), "messages[0].prefix", id="prefix"
        ),
        pytest.param(
            ChatRequest(
                "m",
                (
                    Message("assistant", (ToolCall("1", "f", ""),)),
                    Message("tool", (ToolResult("1", (VideoPart(Source(url="https://a")),)),)),
                ),
            ),
            "messages[1].content[0].content[0]",
            id="video in a result",
        ),
        pytest.param(
            ChatRequest("m", (Message("user", (DocumentPart(Source(file_id="f")),)),)),
            "messages[0].content[0]",
            id="another provider's file",
        ),
        pytest.param(
            ChatRequest("m", (Message("user", (AudioPart(Source(url="https://a/b")),)),)),
            "messages[0].content[0]",
            id="audio by URL",
        ),
        pytest.param(
            ChatRequest("m", (Message("user", (ToolCall("1", "f", ""),)),)), "messages[0].content[0]", id="user's call"
        ),
        pytest.param(ChatRequest("m", (Message("tool", (TextPart("a"),)),)), "messages[0].content[0]", id="no result"),
        pytest.param(
            ChatRequest("m", (Message("user", (TextPart("a", extra={"x": b"1"}),)),)),
            "messages[0].content[0].x",
            id="unknown member of a part",
        ),
    ],
)
def test_what_openai_has_no_words_for_is_refused_by_name(chat: ChatRequest, param: str) -> None:
    with pytest.raises(Unsupported) as caught:
        OPENAI.write_chat(CHAT, from_elsewhere(chat))

    assert caught.value.param == param
    assert caught.value.status == 400


def test_a_change_that_cannot_be_said_is_refused_even_in_a_request_of_our_own() -> None:
    with pytest.raises(Unsupported, match="top_k"):
        OPENAI.write_chat(CHAT, attrs.evolve(read(), top_k=4))


@pytest.mark.parametrize("api", [CHAT, COMPLETIONS], ids=["chat", "completions"])
def test_advice_that_openai_does_without_is_dropped(api: Api) -> None:
    chat = ChatRequest("m", (Message("user", (TextPart("hi"),), id="msg_1"),), cache=CacheMark("5m"))

    written = json.loads(OPENAI.write_chat(api, from_elsewhere(chat)))

    assert written.keys() == {"model", "prompt" if api == COMPLETIONS else "messages"}


def test_of_two_choices_the_modern_one_counts_and_the_other_does_not_come_back() -> None:
    chat = read(functions=[{"name": "f"}], tool_choice="auto", function_call="none")

    assert chat.tool_choice == ToolChoice("auto")
    assert json.loads(OPENAI.write_chat(CHAT, attrs.evolve(chat, origin=None)))["function_call"] == "auto"
    assert json.loads(OPENAI.write_chat(CHAT, chat))["function_call"] == "none"  # untouched, so as it came


def test_legacy_functions_are_chosen_in_the_legacy_way() -> None:
    chat = read(functions=[{"name": "f"}], function_call="auto")

    named = json.loads(OPENAI.write_chat(CHAT, attrs.evolve(chat, tool_choice=ToolChoice("named", ("f",)))))

    assert named["function_call"] == {"name": "f"}
    with pytest.raises(Unsupported, match="tool_choice"):
        OPENAI.write_chat(CHAT, attrs.evolve(chat, tool_choice=ToolChoice("required")))


# -- legacy completions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["hi", ["hi"]], ids=str)
def test_a_prompt_is_a_users_turn(prompt: object) -> None:
    body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 5, "logprobs": 2, "echo": True}).encode()

    chat = OPENAI.read_chat(COMPLETIONS, body)

    assert chat.messages == (Message("user", (TextPart("hi"),)),)
    assert (chat.max_output_tokens, chat.logprobs, chat.top_logprobs) == (5, True, 2)
    assert chat.extra == {"echo": b"true"}


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], [[1], [2]], []], ids=str)
def test_prompts_that_are_no_conversation_are_refused_when_meaning_is_asked_for(prompt: object) -> None:
    body = json.dumps({"prompt": prompt}).encode()

    with pytest.raises(Unsupported) as caught:
        OPENAI.read_chat(COMPLETIONS, body)

    assert caught.value.param == "prompt"
    assert OPENAI.read_head(COMPLETIONS, body) == RequestHead()  # passing it on needs no meaning


def test_a_prompt_of_another_type_is_a_mistake() -> None:
    for body in (b"{}", b'{"prompt": null}'):
        with pytest.raises(BadRequest):
            OPENAI.read_chat(COMPLETIONS, body)


def test_only_a_users_text_can_be_a_prompt() -> None:
    question = Message("user", (TextPart("hi"),))
    chat = ChatRequest("m", (question,), logprobs=True, top_logprobs=2)

    assert json.loads(OPENAI.write_chat(COMPLETIONS, chat)) == {"model": "m", "prompt": "hi", "logprobs": 2}
    with pytest.raises(Unsupported, match="messages"):
        OPENAI.write_chat(COMPLETIONS, attrs.evolve(chat, messages=(Message("system", (TextPart("x"),)), question)))
    with pytest.raises(Unsupported, match="tools"):
        OPENAI.write_chat(COMPLETIONS, attrs.evolve(chat, tools=(Tool("f"),)))


def test_the_grammar_of_a_custom_tool_survives_in_both_of_openais_protocols() -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /.+/"}}
    tool = {"type": "custom", "custom": {"name": "patch", "description": "d", "format": grammar}}
    chat = OPENAI.read_chat(CHAT, json.dumps({"model": "gpt-5", "messages": [], "tools": [tool]}).encode())
    (read_tool,) = chat.tools

    assert isinstance(read_tool, Tool)
    assert json.loads(read_tool.format or b"") == {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
    again = json.loads(OPENAI.write_chat(CHAT, attrs.evolve(chat, origin=None, tools=(attrs.evolve(read_tool),))))
    assert again["tools"] == [tool]
