"""Mistral's own members, and requests of other protocols in its words."""

import json
from typing import Any

import attrs
import pytest
from llmproxy_mistral import MistralDialect
from llmproxy_mistral.paths import CHAT
from llmproxy_mistral.translated import short_id

from llmproxy_core.carried import Carried, seal
from llmproxy_core.chat import (
    AudioPart,
    ChatOrigin,
    ChatRequest,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    ReasoningConfig,
    ReasoningPart,
    RefusalPart,
    Source,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llmproxy_core.errors import Unsupported
from llmproxy_core.translation import Translation
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT as OPENAI_CHAT

MISTRAL = MistralDialect()
HI = Message("user", (TextPart("hi"),))


def read(**members: object) -> ChatRequest:
    return MISTRAL.read_chat(CHAT, json.dumps({"messages": [], **members}).encode())


def write(chat: ChatRequest, *, drops: bool = False) -> tuple[Any, dict[str, str]]:
    """What is sent for *chat*, read from OpenAI's protocol, and what the client is told of it."""
    translation = Translation(llm="l", drops=drops)
    foreign = attrs.evolve(chat, origin=ChatOrigin("openai.chat", {}, chat, b"{}"))
    return json.loads(MISTRAL.write_chat(CHAT, foreign, translation)), translation.changes


def said(*messages: Message, drops: bool = False) -> Any:
    return write(ChatRequest("mistral-large-latest", messages), drops=drops)[0]["messages"]


# -- its own members -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "field", "value"),
    [
        ({"random_seed": 7}, "seed", 7),
        ({"max_tokens": 7}, "max_output_tokens", 7),
        ({"top_k": 7}, "top_k", 7),
        ({"tool_choice": "any"}, "tool_choice", ToolChoice("required")),
        ({"prompt_mode": "reasoning"}, "reasoning", ReasoningConfig(adaptive=True)),
        ({"reasoning_effort": "high"}, "reasoning", ReasoningConfig("high")),
        ({"prompt_cache_key": "k"}, "cache_key", "k"),
        ({"stream": True}, "wants_usage", True),
        ({"safe_prompt": False}, "seed", None),
    ],
)
def test_a_member_is_understood(members: dict[str, Any], field: str, value: object) -> None:
    chat = read(**members)

    assert getattr(chat, field) == value
    assert chat.extra == {}


def test_members_that_nobody_else_knows_are_kept() -> None:
    members = {"safe_prompt": True, "guardrails": [1], "repetition_penalty": 1.0}

    chat = read(**members)

    assert chat.extra.keys() == members.keys()
    assert json.loads(MISTRAL.write_chat(CHAT, chat))["repetition_penalty"] == 1.0


@pytest.mark.parametrize(
    ("part", "node"),
    [
        ({"type": "image_url", "image_url": "https://a"}, ImagePart(Source(url="https://a"))),
        (
            {"type": "document_url", "document_url": "https://a", "document_name": "A"},
            DocumentPart(Source(url="https://a"), "A"),
        ),
        ({"type": "input_audio", "input_audio": "AAAA"}, AudioPart(Source(data="AAAA"))),
        (
            {"type": "input_audio", "input_audio": "SUQzBAAA"},
            AudioPart(Source(data="SUQzBAAA", media_type="audio/mp3")),
        ),
        (
            {"type": "input_audio", "input_audio": "//uQZAAA"},
            AudioPart(Source(data="//uQZAAA", media_type="audio/mp3")),
        ),
        (
            {"type": "input_audio", "input_audio": "UklGRiQA"},
            AudioPart(Source(data="UklGRiQA", media_type="audio/wav")),
        ),
        ({"type": "input_audio", "input_audio": "https://a"}, AudioPart(Source(url="https://a"))),
        ({"type": "file", "file_id": "f"}, DocumentPart(Source(file_id="f"))),
        (
            {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "signature": "s"},
            ReasoningPart("hm", signature="s", provider="mistral", member="thinking"),
        ),
        (
            {
                "type": "thinking",
                "thinking": [{"type": "text", "text": "hm"}],
                "signature": seal(Carried("anthropic", "s")),
            },
            ReasoningPart("hm", signature="s", provider="anthropic", member="thinking"),
        ),
    ],
    ids=[
        "image",
        "document",
        "sound",
        "MP3",
        "MP3 without tags",
        "WAV",
        "sound by URL",
        "file",
        "thinking",
        "carried thinking",
    ],
)
def test_a_part_is_understood_and_keeps_its_bytes(part: dict[str, Any], node: Part) -> None:
    chat = read(messages=[{"role": "assistant" if part["type"] == "thinking" else "user", "content": [part]}])

    assert chat.messages[0].content == (node,)
    assert json.loads(MISTRAL.write_chat(CHAT, attrs.evolve(chat, seed=5)))["messages"][0]["content"] == [part]


def test_a_result_may_go_by_its_name_alone() -> None:
    chat = read(messages=[{"role": "tool", "name": "f", "content": "x"}])

    assert chat.messages[0].content == (ToolResult("", (TextPart("x"),), "f"),)


def test_its_streams_tell_their_usage_unasked() -> None:
    body = b'{"model":"m","messages":[],"stream":true}'

    assert MISTRAL.read_head(CHAT, body).wants_usage
    assert MISTRAL.prepare(CHAT, body, ask_usage=True) is body
    assert MISTRAL.prepare(CHAT, body, model="n", stream=False) == b'{"model":"n","messages":[],"stream":false}'


# -- other protocols' requests -------------------------------------------------------------------------------------


def test_a_request_of_openais_is_said_in_mistrals_words() -> None:
    body = {
        "model": "mistral-large-latest",
        "messages": [{"role": "developer", "content": "x"}, {"role": "user", "name": "ann", "content": "hi"}],
        "max_completion_tokens": 5,
        "seed": 7,
        "stop": ["a", "b", "c", "d", "e"],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "required",
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "u",
        "store": False,
        "metadata": {"a": "b"},
    }
    chat = OpenAIDialect().read_chat(OPENAI_CHAT, json.dumps(body).encode())
    translation = Translation()

    assert json.loads(MISTRAL.write_chat(CHAT, chat, translation)) == {
        "model": "mistral-large-latest",
        "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "random_seed": 7,
        "stop": ["a", "b", "c", "d", "e"],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "tool_choice": "any",
        "stream": True,
        "metadata": {"a": "b"},
    }
    assert translation.changes == {"user": "dropped"}


@pytest.mark.parametrize(
    ("fields", "sent", "told"),
    [
        ({"temperature": 1.7}, {"temperature": 1.5}, {"temperature": "clamped"}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 1}, {"top_p": "clamped"}),
        ({"temperature": 0}, {"temperature": 0}, {}),
        ({"reasoning": ReasoningConfig("max")}, {"reasoning_effort": "max"}, {}),
        (
            {"reasoning": ReasoningConfig(budget_tokens=0)},
            {"reasoning_effort": "none"},
            {"reasoning": "converted"},
        ),
        ({"reasoning": ReasoningConfig(adaptive=True)}, {}, {"reasoning": "dropped"}),
        ({"service_tier": "flex", "store": True}, {}, {"service_tier": "dropped", "store": "dropped"}),
    ],
    ids=str,
)
def test_a_parameter_fits_mistrals_bounds(fields: dict[str, Any], sent: dict[str, Any], told: dict[str, str]) -> None:
    body, changes = write(ChatRequest("m", (HI,), **fields))

    assert {name: value for name, value in body.items() if name not in {"model", "messages"}} == sent
    assert changes == told


def test_magistral_thinks_without_being_told() -> None:
    body, changes = write(ChatRequest("magistral-medium-latest", (HI,), reasoning=ReasoningConfig("high")))

    assert "reasoning_effort" not in body
    assert changes == {"reasoning": "dropped"}


@pytest.mark.parametrize("fields", [{"logit_bias": b'{"1":1}'}, {"verbosity": "low"}], ids=str)
def test_what_mistral_has_no_words_for_is_refused_or_dropped(fields: dict[str, Any]) -> None:
    chat = ChatRequest("m", (HI,), **fields)
    (name,) = fields

    with pytest.raises(Unsupported) as caught:
        write(chat)

    assert caught.value.param == name
    assert write(chat, drops=True)[1] == {name: "dropped"}


# -- tools ---------------------------------------------------------------------------------------------------------


def test_ids_of_calls_are_nine_signs_alike_for_call_and_result_and_the_results_have_names() -> None:
    messages = said(
        HI,
        Message("assistant", (ToolCall("call_1", "f", ""), ToolCall("aB3dE6gH9", "g", "{}"))),
        Message("tool", (ToolResult("aB3dE6gH9", (TextPart("y"),)),)),
        Message("tool", (ToolResult("call_1", (TextPart("x"),)),)),
    )

    ids = [call["id"] for call in messages[1]["tool_calls"]]
    assert ids == [short_id("call_1"), "aB3dE6gH9"]
    assert len(ids[0]) == 9
    assert ids[0].isalnum()
    assert [(it["tool_call_id"], it["name"]) for it in messages[2:]] == [("aB3dE6gH9", "g"), (ids[0], "f")]


def test_the_number_of_a_call_that_clients_send_back_is_left_out_unsaid() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "index": 0}
    turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call_1", "content": "r"}]
    asked = json.dumps({"model": "mistral-large-latest", "messages": turns}).encode()
    translation = Translation(llm="l")

    body = MISTRAL.write_chat(CHAT, OpenAIDialect().read_chat(OPENAI_CHAT, asked), translation)

    sent = json.loads(body)["messages"][0]["tool_calls"][0]
    assert sent.keys() == {"id", "type", "function"}
    assert not translation.changes


def test_a_tool_that_takes_a_text_takes_an_object_and_its_result_has_that_tools_name() -> None:
    call, result = ToolCall("call_1", "f", "free", "custom"), ToolResult("call_1", (TextPart("ok"),))
    chat = ChatRequest(
        "mistral-large-latest",
        (HI, Message("assistant", (call,)), Message("tool", (result,))),
        tools=(Tool("f", kind="custom"),),
    )

    body, told = write(chat)

    assert [tool["function"]["name"] for tool in body["tools"]] == ["llmproxy_text_f"]
    assert body["messages"][1]["tool_calls"][0]["function"] == {
        "name": "llmproxy_text_f",
        "arguments": '{"text":"free"}',
    }
    assert body["messages"][2]["name"] == "llmproxy_text_f"
    assert told == {"tools[0]": "converted"}


def test_functions_in_openais_legacy_form_are_tools_whose_results_refer_to_their_calls() -> None:
    def turns(name: str, text: str) -> list[dict[str, Any]]:
        call = {"role": "assistant", "content": None, "function_call": {"name": name, "arguments": "{}"}}
        return [call, {"role": "function", "name": name, "content": text}]

    asked = {
        "model": "mistral-large-latest",
        "messages": [{"role": "user", "content": "hi"}, *turns("f", "1"), *turns("g", "2"), *turns("f", "3")],
        "functions": [{"name": "f", "parameters": {"type": "object"}}, {"name": "g"}],
        "function_call": {"name": "f"},
    }
    chat = OpenAIDialect().read_chat(OPENAI_CHAT, json.dumps(asked).encode())

    body = json.loads(MISTRAL.write_chat(CHAT, chat, Translation(llm="l")))

    assert not {"functions", "function_call"} & body.keys()
    assert [(tool["type"], tool["function"]["name"]) for tool in body["tools"]] == [
        ("function", "f"),
        ("function", "g"),
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    calls = [call for message in body["messages"] for call in message.get("tool_calls") or ()]
    results = [message for message in body["messages"] if message["role"] == "tool"]
    assert [call["function"]["name"] for call in calls] == ["f", "g", "f"]
    assert [(it["tool_call_id"], it["name"], it["content"]) for it in results] == [
        (call["id"], call["function"]["name"], str(number)) for number, call in enumerate(calls, 1)
    ]
    assert len({call["id"] for call in calls}) == 3
    assert all(len(call["id"]) == 9 for call in calls)
    assert all("function_call" not in message for message in body["messages"])


def test_short_ids_do_not_meet() -> None:
    ids = {short_id(f"call_{number}") for number in range(20_000)}

    assert len(ids) == 20_000
    assert {len(each) for each in ids} == {9}


def test_only_named_tools_are_offered_where_several_may_be_chosen() -> None:
    tools = (Tool("f"), Tool("g"), Tool("h"))

    body, changes = write(ChatRequest("m", (HI,), tools=tools, tool_choice=ToolChoice("allowed", ("f", "g"))))

    assert [tool["function"]["name"] for tool in body["tools"]] == ["f", "g"]
    assert (body["tool_choice"], changes) == ("auto", {"tools": "narrowed"})


# -- who speaks when -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("system user assistant user", "system user assistant user"),
        ("user developer user", "user system user"),
        ("user assistant system user", "system user assistant user"),
        ("system user assistant tool system", "system system user assistant tool"),
        ("user assistant tool user", "user assistant tool assistant user"),
        ("user assistant", "user assistant+"),
        ("user system", "system user"),
        ("user assistant user developer system", "system system user assistant user"),
        ("user system assistant user system", "system user system assistant user"),
        ("system", "user"),
        ("system developer", "system user"),
    ],
)
def test_roles_follow_each_other_as_mistral_allows(roles: str, expected: str) -> None:
    def turn(role: Any, following: str) -> Message:
        if role == "tool":
            return Message("tool", (ToolResult("1", (TextPart("x"),), "f"),))
        return Message(role, (TextPart("a"), ToolCall("1", "f", "{}")) if following == "tool" else (TextPart("a"),))

    spoken = roles.split()
    messages = said(*map(turn, spoken, [*spoken[1:], ""]))

    assert " ".join(it["role"] + "+" * bool(it.get("prefix")) for it in messages) == expected


@pytest.mark.parametrize(
    ("roles", "told"), [("user system", "reordered"), ("system system", "converted"), ("system user", None)]
)
def test_a_system_message_that_moves_or_becomes_the_users_is_told(roles: str, told: str | None) -> None:
    messages = tuple(Message(role, (TextPart(f"{n}"),)) for n, role in enumerate(roles.split()))  # type: ignore[arg-type]

    body, changes = write(ChatRequest("mistral-large-latest", messages))

    assert changes.get("messages") == told
    assert sorted(message["content"] for message in body["messages"]) == ["0", "1"]


def test_an_image_of_a_result_is_shown_by_the_user_after_the_assistant_spoke() -> None:
    image = ImagePart(Source(url="https://a"))

    messages = said(
        HI,
        Message("assistant", (ToolCall("1", "f", "{}"),)),
        Message("tool", (ToolResult("1", (image,)),)),
    )

    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert messages[-1]["content"][1] == {"type": "image_url", "image_url": {"url": "https://a"}}


# -- parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (
            DocumentPart(Source(url="https://a"), "A"),
            {"type": "document_url", "document_url": "https://a", "document_name": "A"},
        ),
        (
            DocumentPart(Source(data="AA", media_type="application/pdf")),
            {"type": "document_url", "document_url": "data:application/pdf;base64,AA"},
        ),
        (DocumentPart(Source(text="x")), {"type": "text", "text": "x"}),
        (AudioPart(Source(data="AA", media_type="audio/mp3")), {"type": "input_audio", "input_audio": "AA"}),
    ],
    ids=["document by URL", "document", "text", "sound"],
)
def test_media_is_said_in_mistrals_words(part: Part, text: object) -> None:
    assert said(Message("user", (part, TextPart("x"))))[0]["content"][0] == text


@pytest.mark.parametrize(
    "part", [DocumentPart(Source(file_id="f")), AudioPart(Source(file_id="f"), "f"), ImagePart(Source(file_id="f"))]
)
def test_files_of_other_providers_are_refused(part: Part) -> None:
    message = Message("user", (TextPart("x"), part))

    with pytest.raises(Unsupported, match=r"messages\[0\].content\[1\]"):
        said(message)
    assert said(message, drops=True) == [{"role": "user", "content": [{"type": "text", "text": "x"}]}] or said(
        message, drops=True
    ) == [{"role": "user", "content": "x"}]


def test_own_thinking_goes_back_as_it_came_and_that_of_others_does_not() -> None:
    messages = said(
        HI,
        Message(
            "assistant",
            (
                ReasoningPart("theirs", signature="s", provider="anthropic"),
                ReasoningPart("ours", signature="m", provider="mistral"),
                RefusalPart("no"),
            ),
        ),
        Message("assistant", (ReasoningPart("theirs", provider="openai"),)),
        HI,
    )

    assert messages[1]["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "ours"}], "signature": "m"},
        {"type": "text", "text": "no"},
    ]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]


def test_of_a_message_that_is_edited_the_rest_keeps_its_bytes() -> None:
    body = b'{"messages":[{"role":"assistant","prefix":false, "content":"a","tool_calls":[ ]}]}'
    chat = MISTRAL.read_chat(CHAT, body)
    edited = attrs.evolve(chat.messages[0], content=(TextPart("b"),))

    assert MISTRAL.write_chat(CHAT, attrs.evolve(chat, messages=(edited,))) == body.replace(b'"a"', b'"b"')
