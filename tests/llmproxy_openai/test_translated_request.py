"""Requests of other protocols in OpenAI's words: what is converted, moved, left out, and who is told."""

import base64
import json
from typing import Any

import attrs
import pytest

from llmproxy_core.carried import Carried, seal
from llmproxy_core.chat import (
    AudioPart,
    BuiltinTool,
    ChatOrigin,
    ChatRequest,
    Citation,
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    Raw,
    ReasoningConfig,
    ReasoningPart,
    ResponseFormat,
    Source,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    VideoPart,
)
from llmproxy_core.errors import Unsupported
from llmproxy_core.translation import Translation
from llmproxy_core.wire import text_tool
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.model_family import family_of, fitting_effort
from llmproxy_openai.paths import CHAT

OPENAI = OpenAIDialect()
HI = Message("user", (TextPart("hi"),))
F = Tool("f", parameters=b"{}")


def write(chat: ChatRequest, *, drops: bool = False, form: str = "anthropic.messages") -> tuple[Any, dict[str, str]]:
    """What is sent for *chat*, read from *form*, and what the client is told of it."""
    translation = Translation(llm="l", drops=drops)
    foreign = attrs.evolve(chat, origin=ChatOrigin(form, {}, chat, b"{}"))
    return json.loads(OPENAI.write_chat(CHAT, foreign, translation)), translation.changes


def asked(*messages: Message, model: str = "gpt-4o", **fields: Any) -> ChatRequest:
    return ChatRequest(model, messages or (HI,), **fields)


# -- models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "member"),
    [
        ("o3-mini", "max_completion_tokens"),
        ("o1", "max_completion_tokens"),
        ("gpt-5", "max_completion_tokens"),
        ("openai/gpt-5.2-codex", "max_completion_tokens"),
        ("gpt-5-chat-latest", "max_completion_tokens"),
        ("gpt-4o", "max_tokens"),
        ("ft:gpt-4o-mini:org::id", "max_tokens"),
        ("openai/gpt-oss-120b", "max_tokens"),
        ("llama-3.3-70b", "max_tokens"),
        ("deepseek-chat", "max_tokens"),
        ("olmo-7b", "max_tokens"),
    ],
)
def test_the_bound_goes_by_the_name_that_the_model_knows(model: str, member: str) -> None:
    body, _ = write(asked(model=model, max_output_tokens=5))

    assert {name: body.get(name) for name in ("max_tokens", "max_completion_tokens") if name in body} == {member: 5}


def test_the_clients_own_name_for_the_bound_stays_in_its_own_protocol() -> None:
    chat = OPENAI.read_chat(CHAT, b'{"model":"o3","messages":[],"max_tokens":4}')

    assert json.loads(OPENAI.write_chat(CHAT, attrs.evolve(chat, max_output_tokens=5)))["max_tokens"] == 5


@pytest.mark.parametrize(
    ("model", "effort", "sent", "told"),
    [
        ("o3", "max", "high", "clamped"),
        ("o3", "none", "low", "clamped"),
        ("gpt-5", "none", "minimal", "clamped"),
        ("gpt-5", "high", "high", None),
        ("gpt-5.1", "xhigh", "high", "clamped"),
        ("gpt-5.2", "xhigh", "xhigh", None),
        ("gpt-5.5", "max", "max", None),
        ("gpt-4o", "high", None, "dropped"),
        ("gpt-4o", "none", None, None),
        ("qwen3-32b", "max", "high", "clamped"),
        ("qwen3-32b", "default", "default", None),
    ],
)
def test_an_effort_is_one_that_the_model_knows(model: str, effort: str, sent: str | None, told: str | None) -> None:
    body, changes = write(asked(model=model, reasoning=ReasoningConfig(effort)))

    assert (body.get("reasoning_effort"), changes.get("reasoning")) == (sent, told)


def test_a_budget_becomes_an_effort_and_the_client_is_told() -> None:
    body, changes = write(asked(model="gpt-5.1", reasoning=ReasoningConfig(budget_tokens=20_000)))

    assert body["reasoning_effort"] == "high"
    assert changes == {"reasoning": "converted"}


def test_reasoning_models_sample_in_their_own_way() -> None:
    body, changes = write(asked(model="gpt-5", temperature=0.2, top_p=1.0))

    assert {"temperature", "top_p"}.isdisjoint(body)
    assert changes == {"temperature": "dropped"}
    assert write(asked(temperature=0.2))[0]["temperature"] == 0.2


def test_families_are_told_by_the_last_part_of_a_name() -> None:
    assert family_of(None) == family_of("mistral-large")
    assert family_of("models/gemini-2.5-flash").is_google
    assert fitting_effort("minimal", ()) == "minimal"


# -- parameters ----------------------------------------------------------------------------------------------------


def test_more_stop_sequences_than_openai_takes_are_our_own_error() -> None:
    chat = asked(stop=("a", "b", "c", "d", "e"))

    with pytest.raises(Unsupported) as caught:
        write(chat)
    body, changes = write(chat, drops=True)

    assert (caught.value.status, caught.value.param) == (400, "stop")
    assert (body["stop"], changes) == (["a", "b", "c", "d"], {"stop": "dropped"})


def test_a_model_without_stop_sequences_is_not_sent_any() -> None:
    with pytest.raises(Unsupported, match="stop"):
        write(asked(model="o3", stop=("a",)))


@pytest.mark.parametrize("field", [{"top_k": 4}, {"extra": {"safe_prompt": b"true"}}], ids=str)
def test_what_changes_the_answer_is_refused_or_dropped_by_name(field: dict[str, Any]) -> None:
    chat = asked(**field)

    with pytest.raises(Unsupported) as caught:
        write(chat)
    body, changes = write(chat, drops=True)

    name = "top_k" if "top_k" in field else "safe_prompt"
    assert caught.value.param == name
    assert changes == {name: "dropped"}
    assert name not in body


@pytest.mark.parametrize(
    ("model", "fields", "sent", "told"),
    [
        ("gpt-4o", {"store": True, "metadata": b'{"a":"b"}'}, {"store": True, "metadata": {"a": "b"}}, {}),
        ("gpt-4o", {"store": False, "metadata": b'{"a":"b"}'}, {}, {"metadata": "dropped"}),
        ("llama", {"store": True, "cache_key": "k"}, {}, {"store": "dropped", "cache_key": "dropped"}),
        ("gpt-4o", {"cache_key": "k"}, {"prompt_cache_key": "k"}, {}),
        ("gpt-4o", {"service_tier": "standard_only"}, {"service_tier": "default"}, {}),
        ("gpt-4o", {"service_tier": "odd"}, {}, {"service_tier": "dropped"}),
        ("llama", {"service_tier": "flex"}, {}, {"service_tier": "dropped"}),
        ("llama", {"user": "u"}, {"user": "u"}, {}),
    ],
)
def test_advice_goes_where_it_is_known_and_never_stops_a_request(
    model: str, fields: dict[str, Any], sent: dict[str, Any], told: dict[str, str]
) -> None:
    body, changes = write(asked(model=model, **fields))

    assert {name: value for name, value in body.items() if name not in {"model", "messages"}} == sent
    assert changes == told


def test_json_is_asked_for_in_words_too_since_openai_demands_them() -> None:
    wanted = ResponseFormat("json_object")

    body, changes = write(asked(response_format=wanted))
    silent, _ = write(asked(Message("user", (TextPart("as JSON"),)), response_format=wanted))

    assert "JSON" in body["messages"][0]["content"]
    assert changes == {"response_format": "prompted"}
    assert len(silent["messages"]) == 1


def test_the_name_of_a_schema_has_only_signs_that_are_allowed() -> None:
    body, _ = write(asked(response_format=ResponseFormat("json_schema", "my schema!", b"{}")))

    assert body["response_format"]["json_schema"]["name"] == "my_schema_"


@pytest.mark.parametrize(("kinds", "sent"), [(("text",), None), (("text", "audio"), ["text", "audio"])])
def test_modalities_that_both_have_are_said(kinds: tuple[str, ...], sent: object) -> None:
    assert write(asked(modalities=kinds))[0].get("modalities") == sent


def test_an_image_is_not_promised() -> None:
    with pytest.raises(Unsupported, match="modalities"):
        write(asked(modalities=("text", "image")))


# -- tools ---------------------------------------------------------------------------------------------------------


def test_a_choice_of_several_tools_narrows_what_is_offered_where_it_cannot_be_said() -> None:
    chat = asked(tools=(F, Tool("g"), Tool("h")), tool_choice=ToolChoice("named", ("f", "g")), model="llama")

    body, changes = write(chat)
    openais, _ = write(attrs.evolve(chat, model="gpt-4o"))

    assert [tool["function"]["name"] for tool in body["tools"]] == ["f", "g"]
    assert (body["tool_choice"], changes) == ("required", {"tools": "narrowed"})
    assert openais["tool_choice"]["type"] == "allowed_tools"
    assert len(openais["tools"]) == 3


@pytest.mark.parametrize(
    "tool",
    [
        BuiltinTool("web_search_20250305", Raw("anthropic.messages", b"{}")),
        Tool("a.b:c"),
        Tool("x" * 65),
        Tool("f", extra={"odd": b"1"}),
    ],
    ids=["provider-run", "signs", "length", "unknown member"],
)
def test_a_tool_that_cannot_be_offered_is_refused_or_left_out(tool: Tool | BuiltinTool) -> None:
    chat = asked(tools=(tool,), tool_choice=ToolChoice("auto"), parallel_tool_calls=False)

    with pytest.raises(Unsupported) as caught:
        write(chat)
    body, changes = write(chat, drops=True)

    assert caught.value.param is not None
    assert caught.value.param.startswith("tools[0]")
    assert list(changes.values()) == ["dropped"]
    if not getattr(tool, "extra", None):  # neither is allowed without tools
        assert {"tools", "tool_choice", "parallel_tool_calls"}.isdisjoint(body)


def test_custom_tools_are_openais_own_and_take_an_object_elsewhere() -> None:
    custom = Tool("f", "about", kind="custom", format=b'{"type":"grammar","syntax":"lark","definition":"x"}')
    chat = asked(tools=(custom,), tool_choice=ToolChoice("named", ("f",)))

    own, told = write(chat)
    body, changes = write(attrs.evolve(chat, model="llama"))

    assert (own["tools"][0]["type"], told) == ("custom", {})
    function = {"name": "llmproxy_text_f", "description": "about", "parameters": json.loads(text_tool.SCHEMA)}
    assert body["tools"] == [{"type": "function", "function": function}]
    # The one that is named is the only one that is offered.
    assert body["tool_choice"] == {"type": "function", "function": {"name": "llmproxy_text_f"}}
    assert changes == {"tools[0]": "converted", "tools[0].format": "dropped"}


def test_a_call_of_a_custom_tool_in_the_past_is_one_of_the_tool_that_stands_for_it() -> None:
    call, result = ToolCall("call_1", "f", "free", "custom"), ToolResult("call_1", (TextPart("ok"),))

    messages, _ = conversation(Message("assistant", (call,)), Message("tool", (result,)), model="llama")

    function = {"name": "llmproxy_text_f", "arguments": '{"text":"free"}'}
    assert messages[0]["tool_calls"] == [{"id": "call_1", "type": "function", "function": function}]


# -- messages ------------------------------------------------------------------------------------------------------


def conversation(*messages: Message, drops: bool = False, model: str = "gpt-4o") -> tuple[Any, dict[str, str]]:
    body, changes = write(asked(*messages, model=model), drops=drops)
    return body["messages"], changes


@pytest.mark.parametrize(("model", "role"), [("gpt-4o", "developer"), ("llama", "system")])
def test_a_developer_is_the_system_where_the_role_is_not_known(model: str, role: str) -> None:
    messages, _ = conversation(HI, Message("developer", (TextPart("x"),)), model=model)

    assert [message["role"] for message in messages] == ["user", role]  # it keeps its place


def test_each_result_is_a_message_and_media_of_results_follow_all_of_them() -> None:
    image = ImagePart(Source(data="AA", media_type="image/png"))
    pdf = DocumentPart(Source(data="AA", media_type="application/pdf"), "a.pdf")
    messages, changes = conversation(
        Message("assistant", (ToolCall("1", "f", ""), ToolCall("2", "g", "{}"), ToolCall("3", "g", "{}"))),
        Message(
            "tool",
            (
                ToolResult("1", (TextPart("a"), TextPart("b"), image), "f"),
                ToolResult("2", (pdf,), is_error=True),
            ),
        ),
        Message("tool", (ToolResult("3", (), is_error=True),)),
        HI,
    )

    assert messages == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                {"id": "3", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "a\nb"},
        {"role": "tool", "tool_call_id": "2", "content": "See the message that follows."},
        {"role": "tool", "tool_call_id": "3", "content": "Error"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What the tool call 1 gave:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                {"type": "text", "text": "What the tool call 2 gave:"},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
            ],
        },
        {"role": "user", "content": "hi"},
    ]
    assert changes == {
        "messages[1].content[0].content[2]": "moved",
        "messages[1].content[1].content[0]": "moved",
    }


def test_results_in_a_users_turn_come_before_what_it_says() -> None:
    messages, _ = conversation(
        Message("assistant", (ToolCall("1", "f", "{}"),)),
        Message("user", (TextPart("and?"), ToolResult("1", (TextPart("x"),)))),
    )

    assert [message["role"] for message in messages] == ["assistant", "tool", "user"]


def test_long_ids_are_shortened_alike_for_a_call_and_its_result() -> None:
    long = "fc_" + "x" * 60
    messages, _ = conversation(
        Message("assistant", (ToolCall(long, "f", "{}"),)), Message("tool", (ToolResult(long, (TextPart("x"),)),))
    )

    call_id = messages[0]["tool_calls"][0]["id"]
    assert len(call_id) <= 40
    assert messages[1]["tool_call_id"] == call_id


@pytest.mark.parametrize(
    ("part", "said", "told"),
    [
        (DocumentPart(Source(text="body"), "A"), {"type": "text", "text": "A\n\nbody"}, "flattened"),
        (
            DocumentPart(Source(data=base64.b64encode(b"body").decode(), media_type="text/plain")),
            {"type": "text", "text": "body"},
            "flattened",
        ),
        (
            DocumentPart(Source(data="AA", media_type="application/pdf")),
            {
                "type": "file",
                "file": {"file_data": "data:application/pdf;base64,AA", "filename": "document.pdf"},
            },
            None,
        ),
        (
            AudioPart(Source(data="AA", media_type="audio/mpeg")),
            {"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}},
            None,
        ),
        (
            ImagePart(Source(url="https://a/b"), "original"),
            {"type": "image_url", "image_url": {"url": "https://a/b"}},
            None,
        ),
    ],
    ids=["a text", "a text as data", "a PDF", "sound", "an image"],
)
def test_media_is_said_as_far_as_it_can_be(part: Part, said: object, told: str | None) -> None:
    messages, changes = conversation(Message("user", (part, TextPart("x"))))

    assert messages[0]["content"][0] == said
    assert list(changes.values()) == ([] if told is None else [told])


@pytest.mark.parametrize(
    "part",
    [
        VideoPart(Source(url="https://a")),
        DocumentPart(Source(url="https://a/b.pdf")),
        DocumentPart(Source(file_id="file_1")),
        DocumentPart(Source(text="x"), context="about"),
        DocumentPart(Source(text="x"), citations=True),
        ImagePart(Source(file_id="file_1")),
        AudioPart(Source(data="AA", media_type="audio/flac")),
        AudioPart(Source(url="https://a")),
        OpaquePart("search_result", Raw("anthropic.messages", b"{}")),
        TextPart("x", extra={"odd": b"1"}),
    ],
    ids=str,
)
def test_a_part_that_cannot_be_said_is_refused_or_left_out_alone(part: Part) -> None:
    message = Message("user", (TextPart("a"), part))

    with pytest.raises(Unsupported) as caught:
        conversation(message)
    messages, changes = conversation(message, drops=True)

    assert caught.value.param is not None
    assert caught.value.param.startswith("messages[0].content[1]")
    assert "'l'" in Translation(llm="l").told(caught.value).message
    assert "dropped" in changes.values()
    assert "a" in json.dumps(messages)


def test_openais_own_file_ids_cross_between_its_two_protocols() -> None:
    message = Message("user", (DocumentPart(Source(file_id="file-1")), TextPart("x")))

    body, _ = write(asked(message), form="openai-responses.response")

    assert body["messages"][0]["content"][0] == {"type": "file", "file": {"file_id": "file-1"}}


def test_advice_of_other_protocols_inside_of_messages_vanishes() -> None:
    _, changes = conversation(Message("user", (TextPart("a", extra={"cache_control": b"{}"}),)))

    assert changes == {"messages[0].content[0].cache_control": "dropped"}


def test_thinking_of_others_is_left_out_and_this_protocols_own_goes_back() -> None:
    messages, changes = conversation(
        Message(
            "assistant",
            (
                ReasoningPart("theirs", signature="s", provider="anthropic"),
                ReasoningPart("ours ", provider="openai"),
                ReasoningPart("too", provider="openai"),
                TextPart("x", (Citation("web", "https://a"),)),
                ToolCall("1", "f", "{}", signature="google's"),
            ),
        ),
        Message("assistant", (ReasoningPart("theirs", signature="s", provider="anthropic"),)),
        Message("tool", (ToolResult("1", (TextPart("y"),)),)),
        HI,
    )

    assert messages[0] == {
        "role": "assistant",
        "content": "x",
        "reasoning_content": "ours too",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    assert [message["role"] for message in messages] == ["assistant", "tool", "user"]
    assert changes == {}


def test_a_signed_call_goes_back_to_googles_own_surface() -> None:
    call = Message("assistant", (ToolCall("1", "f", "{}", signature="s"),))

    messages, _ = conversation(call, model="gemini-3-pro")

    assert messages[0]["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "s"}}


def test_a_prefix_is_refused_or_the_turn_is_complete() -> None:
    message = Message("assistant", (TextPart("a"),), prefix=True)

    with pytest.raises(Unsupported, match=r"messages\[0\].prefix"):
        conversation(message)
    messages, _ = conversation(message, drops=True)

    assert messages == [{"role": "assistant", "content": "a"}]


# -- what clients carry --------------------------------------------------------------------------------------------


def test_thinking_that_a_client_carried_is_its_providers_again() -> None:
    parts = (
        ReasoningPart("a", signature="s", provider="anthropic", member="reasoning_content"),
        ReasoningPart("", redacted="r", provider="anthropic", member="reasoning_content"),
        ReasoningPart("b", True, "rs_1", encrypted="e", provider="openai-responses", member="reasoning_content"),
    )
    details = [
        {"type": "reasoning.text", "text": "a", "signature": seal(Carried("anthropic", "s")), "index": 0},
        {"type": "reasoning.encrypted", "data": seal(Carried("anthropic", redacted="r")), "index": 1},
        {
            "type": "reasoning.summary",
            "summary": "b",
            "data": seal(Carried("openai-responses", encrypted="e", id="rs_1")),
            "index": 2,
        },
    ]
    message = {"role": "assistant", "content": "x", "reasoning_content": "ab", "reasoning_details": details}
    body = json.dumps({"messages": [message]}).encode()

    chat = OPENAI.read_chat(CHAT, body)

    assert chat.messages == (Message("assistant", (*parts, TextPart("x"))),)
    assert OPENAI.write_chat(CHAT, chat) == body


@pytest.mark.parametrize(
    "details", [[{"type": "reasoning.text", "text": "a", "signature": "s"}], [], {}, [5], "x"], ids=str
)
def test_details_of_a_server_are_its_own_affair(details: object) -> None:
    message = {"role": "assistant", "content": "x", "reasoning": "a", "reasoning_details": details}

    chat = OPENAI.read_chat(CHAT, json.dumps({"messages": [message]}).encode())

    assert chat.messages[0].content == (ReasoningPart("a", member="reasoning"), TextPart("x"))
    assert chat.messages[0].extra.keys() == {"reasoning_details"}


# -- editing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "edited"),
    [
        (
            '{ "content": "a", "odd": 1.0, "tool_calls": [ ], "role": "assistant"}',
            '{ "content": "b", "odd": 1.0, "tool_calls": [ ], "role": "assistant"}',
        ),
        (
            '{"role":"assistant","content":[ {"type":"text" ,"text":"a","x":1} ]}',
            '{"role":"assistant","content":[ {"type":"text" ,"text":"b","x":1} ]}',
        ),
        (
            '{"x":1,"role":"tool", "tool_call_id":"1","content": "a"}',
            '{"x":1,"role":"tool", "tool_call_id":"1","content": "b"}',
        ),
    ],
    ids=["an answer", "an answer in parts", "a result"],
)
def test_a_processor_that_edits_a_text_leaves_the_rest_of_its_message(message: str, edited: str) -> None:
    chat = OPENAI.read_chat(CHAT, b'{"messages":[' + message.encode() + b"]}")
    first = chat.messages[0]

    def change(part: Part) -> Part:
        if isinstance(part, ToolResult):
            return attrs.evolve(part, content=(TextPart("b"),))
        return attrs.evolve(part, text="b") if isinstance(part, TextPart) else part

    changed = attrs.evolve(first, content=tuple(map(change, first.content)))

    out = OPENAI.write_chat(CHAT, attrs.evolve(chat, messages=(changed,)))

    assert out == b'{"messages":[' + edited.encode() + b"]}"
