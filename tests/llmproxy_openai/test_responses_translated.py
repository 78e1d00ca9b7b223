"""Requests between OpenAI's two protocols, and of others in the words of the Responses API."""

import json
from typing import Any

import attrs
import pytest

from llmproxy_core.chat import (
    BuiltinTool,
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
    Source,
    TextPart,
    Tool,
    ToolCall,
    ToolResult,
)
from llmproxy_core.errors import BadRequest, Unsupported
from llmproxy_core.translation import Translation
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.paths import CHAT
from llmproxy_openai.responses import ResponsesDialect
from llmproxy_openai.responses.paths import CREATE, INPUT_TOKENS
from tests.recordings import Recording, recordings

RESPONSES, OPENAI = ResponsesDialect(), OpenAIDialect()
HI = Message("user", (TextPart("Hi"),))


def foreign(*messages: Message, model: str = "gpt-5.2", **fields: Any) -> ChatRequest:
    """A request as the reader of another protocol gives it."""
    chat = ChatRequest(model, messages or (HI,), **fields)
    return attrs.evolve(chat, origin=ChatOrigin("strange.talk", {}, chat))


def sent(chat: ChatRequest, *, drops: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
    """What goes to the upstream, and what the client is told of it."""
    told = Translation(llm="o", drops=drops)
    out: dict[str, Any] = json.loads(RESPONSES.write_chat(CREATE, chat, told))
    return out, told.changes


def refused(chat: ChatRequest) -> str | None:
    with pytest.raises(Unsupported) as raised:
        sent(chat)
    return raised.value.param


# -- as a whole --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recording", [each for each in recordings() if each.request_path.endswith("/chat/completions")], ids=str
)
def test_recorded_chats_can_be_said_as_responses(recording: Recording) -> None:
    chat = attrs.evolve(OPENAI.read_chat(CHAT, recording.request_body), model="gpt-5.2")
    out, _ = sent(chat, drops=True)
    assert "messages" not in out
    again = RESPONSES.read_chat(CREATE, json.dumps(out).encode())
    texts = [message.text for message in chat.messages if message.role in {"user", "system", "developer"}]
    said = [message.text for message in again.messages if message.role in {"user", "system", "developer"}]
    assert said[-len(texts) :] == texts or not texts
    names = {tool.name for tool in chat.tools if isinstance(tool, Tool)}
    assert {tool.name for tool in again.tools if isinstance(tool, Tool)} <= names


@pytest.mark.parametrize(
    "recording", [each for each in recordings() if each.request_path.endswith("/responses")], ids=str
)
def test_recorded_responses_can_be_said_as_chats(recording: Recording) -> None:
    chat = attrs.evolve(RESPONSES.read_chat(CREATE, recording.request_body), model="gpt-5.2")
    out = json.loads(OPENAI.write_chat(CHAT, chat, Translation(drops=True)))
    asked = [tool for tool in chat.tools if isinstance(tool, Tool)]
    assert [tool["function"]["name"] for tool in out.get("tools", ())] == [tool.name for tool in asked]
    calls = [call["id"] for message in out["messages"] for call in message.get("tool_calls", ())]
    results = [message["tool_call_id"] for message in out["messages"] if message["role"] == "tool"]
    assert set(results) <= set(calls)


# -- what codex asks ---------------------------------------------------------------------------------------------

CODEX = {
    "model": "gpt-5.2-codex",
    "instructions": "You are a coding agent.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Sandboxed."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix it."}]},
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Hm"}],
            "content": None,
            "encrypted_content": "gAAA",
        },
        {"type": "custom_tool_call", "status": "completed", "call_id": "call_1", "name": "apply_patch", "input": "***"},
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "Done"},
        {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "call_2"},
        {"type": "function_call_output", "call_id": "call_2", "output": "a.py"},
    ],
    "tools": [
        {
            "type": "function",
            "name": "shell",
            "description": "Run",
            "strict": False,
            "parameters": {"type": "object", "properties": {}},
        },
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Patch",
            "format": {"type": "grammar", "syntax": "lark", "definition": "x"},
        },
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0198",
    "text": {"verbosity": "medium"},
}


def test_codex_passes_as_it_is() -> None:
    text = json.dumps(CODEX).encode()
    assert RESPONSES.prepare(CREATE, text, ask_usage=True) == text
    assert RESPONSES.write_chat(CREATE, RESPONSES.read_chat(CREATE, text)) == text


def test_codex_is_understood_by_chat_completions() -> None:
    told = Translation(llm="o")
    out = json.loads(OPENAI.write_chat(CHAT, RESPONSES.read_chat(CREATE, json.dumps(CODEX).encode()), told))
    assert [message["role"] for message in out["messages"]] == [
        "system",
        "developer",
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
    ]
    assert out["messages"][3]["tool_calls"][0]["custom"] == {"name": "apply_patch", "input": "***"}
    assert [tool["type"] for tool in out["tools"]] == ["function", "custom"]
    assert out["reasoning_effort"] == "medium"
    assert not any("gAAA" in json.dumps(message) for message in out["messages"])


@pytest.mark.parametrize(
    "members",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"prompt": {"id": "p"}},
        {"max_tool_calls": 3},
        {"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ],
    ids=lambda members: next(iter(members)),
)
def test_what_only_the_responses_api_keeps_is_refused_elsewhere(members: dict[str, Any]) -> None:
    text = json.dumps({"model": "gpt-5.2", "input": "Hi", **members}).encode()
    told = Translation(llm="o", names=RESPONSES.field_names)
    with pytest.raises(Unsupported) as raised:
        OPENAI.write_chat(CHAT, RESPONSES.read_chat(CREATE, text), told)
    assert (raised.value.param or "").startswith(next(iter(members)))


def test_advice_vanishes_elsewhere_and_is_told() -> None:
    text = {"model": "gpt-5.2", "input": "Hi", "truncation": "auto", "include": ["file_search_call.results"]}
    told = Translation(llm="o")
    OPENAI.write_chat(CHAT, RESPONSES.read_chat(CREATE, json.dumps(text).encode()), told)
    assert told.changes == {"truncation": "dropped", "include": "dropped"}


# -- what goes to the responses api --------------------------------------------------------------------------------


def test_nothing_is_kept_by_openai_that_would_not_be_elsewhere() -> None:
    out, told = sent(foreign())
    assert out == {
        "model": "gpt-5.2",
        "input": [{"role": "user", "content": "Hi"}],
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    assert told == {}
    assert "include" not in sent(foreign(model="gpt-4o"))[0]
    assert sent(foreign(store=True))[0]["store"] is True


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop": ("x",)}, "stop"),
        ({"seed": 1}, "seed"),
        ({"n": 2}, "n"),
        ({"top_k": 3}, "top_k"),
        ({"logit_bias": b'{"1":1}'}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ],
)
def test_parameters_that_have_no_word_are_refused_or_dropped(fields: dict[str, Any], param: str) -> None:
    assert refused(foreign(**fields)) == param
    out, told = sent(foreign(**fields), drops=True)
    assert param not in out
    assert told == {param: "dropped"}


def test_parameters_that_say_what_is_so_anyway_are_left_out() -> None:
    out, told = sent(foreign(n=1, frequency_penalty=0.0, presence_penalty=0))
    assert set(out) == {"model", "input", "store", "include"}
    assert told == {}


def test_the_bound_is_never_below_what_openai_takes() -> None:
    out, told = sent(foreign(max_output_tokens=1))
    assert (out["max_output_tokens"], told) == (16, {"max_output_tokens": "clamped"})


def test_thinking_is_shown_when_it_is_wanted() -> None:
    shown = ReasoningConfig(budget_tokens=20_000, include=True)
    assert sent(foreign(reasoning=shown))[0]["reasoning"] == {"effort": "high", "summary": "auto"}
    assert sent(foreign(reasoning=ReasoningConfig("low")))[0]["reasoning"] == {"effort": "low"}


def test_thinking_of_openai_comes_back_whole_and_no_other() -> None:
    turn = Message(
        "assistant",
        (
            ReasoningPart("Hm", signature="S", provider="anthropic"),
            ReasoningPart("", redacted="R", provider="anthropic"),
            ReasoningPart("Well", summary=True, id="rs_1", encrypted="E", provider="openai-responses"),
            ToolCall("c", "f", "", signature="TS"),
        ),
    )
    out, _ = sent(foreign(HI, turn, Message("tool", (ToolResult("c", (TextPart("4"),)),))))
    assert out["input"][1:] == [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Well"}],
            "encrypted_content": "E",
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "4"},
    ]


def test_results_of_tools_may_hold_images() -> None:
    image = ImagePart(Source(data="AAAA", media_type="image/png"))
    result = ToolResult("c", (TextPart("see"), image), is_error=True)
    out, _ = sent(foreign(HI, Message("assistant", (ToolCall("c", "f", "{}"),)), Message("tool", (result,))))
    assert out["input"][-1]["output"] == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
    ]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            DocumentPart(Source(url="https://x/y.pdf"), "y"),
            {"type": "input_file", "file_url": "https://x/y.pdf", "filename": "y"},
        ),
        (DocumentPart(Source(text="abc")), {"type": "input_text", "text": "abc"}),
        (
            DocumentPart(Source(data="AAAA", media_type="application/pdf")),
            {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "document.pdf"},
        ),
    ],
)
def test_documents_go_in_the_form_there_is(part: Part, said: dict[str, Any]) -> None:
    out, _ = sent(foreign(Message("user", (TextPart("Read"), part))))
    assert out["input"][0]["content"][1] == said


def test_files_of_another_provider_are_refused() -> None:
    assert refused(foreign(Message("user", (DocumentPart(Source(file_id="f")),)))) == "messages[0].content[0]"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (Message("user", (TextPart("a"),), "bob"), "messages[0].name"),
        (Message("assistant", (TextPart("a"),), prefix=True), "messages[0].prefix"),
        (Message("assistant", (OpaquePart("server_tool_use", Raw("strange.talk", b"{}")),)), "messages[0].content[0]"),
    ],
)
def test_turns_that_have_no_form_are_refused_with_their_place(message: Message, param: str) -> None:
    assert refused(foreign(message)) == param
    assert param in sent(foreign(message), drops=True)[1]


def test_legacy_calls_get_ids_that_pair() -> None:
    calls = [Message("assistant", (ToolCall("", "f", "{}", "legacy"),)), Message("tool", (ToolResult("", (), "f"),))]
    out, _ = sent(foreign(HI, *calls, *calls))
    ids = [item["call_id"] for item in out["input"][1:]]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert all("name" not in item for item in out["input"] if item.get("type") == "function_call_output")


def test_a_web_search_of_another_provider_is_openais_own() -> None:
    asked = {"type": "web_search_20250305", "name": "web_search", "allowed_domains": ["a.org"], "max_uses": 3}
    search = BuiltinTool("web_search_20250305", Raw("strange.talk", json.dumps(asked).encode()))
    assert refused(foreign(tools=(search,))) == "tools[0].max_uses"
    out, told = sent(foreign(tools=(search,)), drops=True)
    assert out["tools"] == [{"type": "web_search", "filters": {"allowed_domains": ["a.org"]}}]
    assert told == {"tools[0].max_uses": "dropped", "tools[0]": "converted"}
    other = BuiltinTool("code_execution", Raw("strange.talk", b"{}"))
    assert refused(foreign(tools=(other,))) == "tools[0]"


@pytest.mark.parametrize(
    ("kind", "asked", "said", "told"),
    [
        (
            "web_search_preview",
            {"filters": {"allowed_domains": ["a.org"], "x": 1}, "search_context_size": "low", "user_location": None},
            {"filters": {"allowed_domains": ["a.org"]}, "search_context_size": "low"},
            {"tools[0].filters.x": "dropped"},
        ),
        (
            "web_search_20250305",
            {"user_location": {"type": "approximate", "city": "Bonn"}, "blocked_domains": ["b.org"]},
            {"user_location": {"type": "approximate", "city": "Bonn"}},
            {"tools[0].blocked_domains": "dropped"},
        ),
        ("googleSearch", {"googleSearch": {}}, {}, {}),
        ("googleSearch", {"googleSearch": {"x": 1}}, {}, {"tools[0].googleSearch.x": "dropped"}),
    ],
)
def test_the_limits_of_a_web_search_are_kept_or_told(
    kind: str, asked: dict[str, Any], said: dict[str, Any], told: dict[str, str]
) -> None:
    search = BuiltinTool(kind, Raw("strange.talk", json.dumps(asked).encode()))
    out, changes = sent(foreign(tools=(search,)), drops=True)
    assert out["tools"] == [{"type": "web_search"} | said]
    assert changes == told | {"tools[0]": "converted"}


@pytest.mark.parametrize(
    ("kind", "text", "place"),
    [
        ("web_search", b"[]", "tools[0]"),
        ("web_search", b'{"filters":7}', "tools[0].filters"),
        ("web_search", b'{"allowed_domains":"a.org"}', "tools[0].allowed_domains"),
        ("web_search", b'{"user_location":"Bonn"}', "tools[0].user_location"),
        ("google_search", b'{"google_search":"x"}', "tools[0].google_search"),
    ],
)
def test_a_web_search_of_a_wrong_type_is_named(kind: str, text: bytes, place: str) -> None:
    with pytest.raises(BadRequest) as raised:
        sent(foreign(tools=(BuiltinTool(kind, Raw("strange.talk", text)),)))
    assert raised.value.param == place


@pytest.mark.parametrize(("model", "word"), [("gpt-5.2", "converted"), ("gpt-4o", "dropped"), ("llama-4", "dropped")])
@pytest.mark.parametrize(
    "asked", [ReasoningConfig(adaptive=True), ReasoningConfig(budget_tokens=-1), ReasoningConfig(between_tools=True)]
)
def test_as_much_thinking_as_the_model_likes_is_told(asked: ReasoningConfig, model: str, word: str) -> None:
    out, told = sent(foreign(model=model, reasoning=asked))
    assert "reasoning" not in out
    assert told == {"reasoning": word}
    in_chat = Translation(llm="o")
    OPENAI.write_chat(CHAT, foreign(model=model, reasoning=asked), in_chat)
    assert in_chat.changes == told


def test_how_thinking_is_shown_asks_for_none() -> None:
    assert sent(foreign(model="gpt-4o", reasoning=ReasoningConfig(include=False)))[1] == {}


def test_results_of_parallel_calls_keep_their_order_their_images_and_that_they_failed() -> None:
    picture = ImagePart(Source(data="aGk=", media_type="image/png"))
    out, told = sent(
        foreign(
            HI,
            Message("assistant", (ToolCall("t1", "f", "{}"), ToolCall("t2", "g", "{}"), ToolCall("t3", "g", "{}"))),
            Message("tool", (ToolResult("t2", (TextPart("boom"),), is_error=True),)),
            Message("tool", (ToolResult("t1", (TextPart("see"), picture)), ToolResult("t3", (), is_error=True))),
        )
    )
    said = [(item["call_id"], item["output"]) for item in out["input"] if item.get("type") == "function_call_output"]
    image = {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto"}
    assert said == [("t2", "boom"), ("t1", [{"type": "input_text", "text": "see"}, image]), ("t3", "Error")]
    assert told == {}


def test_a_function_that_is_not_said_to_be_strict_is_not() -> None:
    out, _ = sent(foreign(tools=(Tool("f", parameters=b'{"type":"object"}'), Tool("g", strict=True))))
    assert out["tools"] == [
        {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False},
        {"type": "function", "name": "g", "parameters": None, "strict": True},
    ]


def test_a_count_of_another_protocols_request_has_nothing_but_what_is_counted() -> None:
    told = Translation(llm="o")
    chat = foreign(stop=("x",), max_output_tokens=1024, temperature=0.5, user="u")
    out = json.loads(RESPONSES.write_chat(INPUT_TOKENS, chat, told))
    assert out == {"model": "gpt-5.2", "input": [{"role": "user", "content": "Hi"}]}


def test_a_name_that_is_empty_is_left_out_without_the_conversation() -> None:
    chat = foreign(Message("user", (TextPart("Hi"),), ""), HI)
    translation = Translation(drops=True)

    body = json.loads(RESPONSES.write_chat(CREATE, chat, translation))

    assert body["input"] == [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}]
    assert translation.changes == {"messages[0].name": "dropped"}
