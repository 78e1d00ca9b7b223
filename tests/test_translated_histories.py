"""Requests that a provider would answer with a riddle: refused here, in words that name the place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from llmproxy_anthropic import AnthropicDialect
from llmproxy_gemini import GeminiDialect
from llmproxy_mistral import MistralDialect
from llmproxy_ollama.dialect import OllamaDialect

from llmproxy_core import BadRequest, Dialect, Operation, Translation, Unsupported
from llmproxy_core.chat import (
    BuiltinTool,
    ChatOrigin,
    ChatRequest,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    Raw,
    ResponseFormat,
    Role,
    Source,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    changed,
)
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.responses import ResponsesDialect

UPSTREAMS: Mapping[str, Dialect] = {
    "openai": OpenAIDialect(),
    "openai-responses": ResponsesDialect(),
    "anthropic": AnthropicDialect(),
    "gemini": GeminiDialect(),
    "mistral": MistralDialect(),
    "ollama": OllamaDialect(),
}
STRICT = [name for name in UPSTREAMS if name != "ollama"]  # which is content with any history
HI = Message("user", (TextPart("Hi"),))
ASKED = Message("assistant", (ToolCall("1", "f", "{}"),))
RESULT = Message("tool", (ToolResult("1", (TextPart("x"),)),))
IMAGE = ImagePart(Source(data="iVBORw0KGgo=", media_type="image/png"))
PDF = DocumentPart(Source(data="JVBERi0=", media_type="application/pdf"))
TOOLS = (Tool("f"), Tool("g"))


def written(name: str, *messages: Message, drops: bool = False, **fields: Any) -> Any:
    """What the provider of the dialect *name* is sent of a request of some other protocol."""
    dialect = UPSTREAMS[name]
    api = dialect.api_for(Operation.CHAT, stream=False)
    assert api is not None
    chat = ChatRequest("m", messages or (HI,), **{"tools": TOOLS, **fields})
    chat = changed(chat, origin=ChatOrigin("elsewhere", {}, chat))
    return json.loads(dialect.write_chat(api, chat, Translation(llm="main", drops=drops, max_output_tokens=9)))


# -- calls and results -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UPSTREAMS)
@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ((HI, RESULT, HI), "messages[1].content[0]"),
        ((HI, ASKED, RESULT, RESULT), "messages[3].content[0]"),
        ((HI, ASKED, Message("tool", (ToolResult("2", (TextPart("x"),), "f"),))), "messages[2].content[0]"),
        ((HI, Message("tool", (ToolResult("", (TextPart("x"),), "f"),))), "messages[1].content[0]"),
    ],
    ids=["no call", "answered before", "another id", "no call of its name"],
)
def test_a_result_without_a_call_is_named(name: str, messages: tuple[Message, ...], place: str, drops: bool) -> None:
    with pytest.raises(BadRequest) as refused:
        written(name, *messages, drops=drops)

    assert refused.value.param == place
    assert place in refused.value.message


@pytest.mark.parametrize("name", STRICT)
@pytest.mark.parametrize(
    "messages",
    [
        (HI, ASKED, HI),
        (HI, Message("assistant", (*ASKED.content, ToolCall("2", "g", "{}"))), RESULT, HI),
        (HI, Message("assistant", (*ASKED.content, ToolCall("2", "g", "{}"))), RESULT, ASKED, RESULT),
    ],
    ids=["none", "one of two", "one of two, and another call"],
)
def test_a_call_in_the_middle_without_a_result_is_named(name: str, messages: tuple[Message, ...]) -> None:
    with pytest.raises(BadRequest) as refused:
        written(name, *messages)

    assert (refused.value.param or "").startswith("messages[1].content[")


def test_a_result_may_come_later_where_the_protocol_allows_it() -> None:
    items = written("openai-responses", HI, ASKED, HI, RESULT)["input"]

    assert [item.get("type", "message") for item in items] == [
        "message",
        "function_call",
        "message",
        "function_call_output",
    ]


@pytest.mark.parametrize("name", UPSTREAMS)
def test_what_the_system_says_may_stand_between_a_call_and_its_result(name: str) -> None:
    written(name, HI, ASKED, Message("system", (TextPart("Hurry."),)), RESULT, HI)


@pytest.mark.parametrize("name", [it for it in UPSTREAMS if it != "anthropic"])
def test_a_call_at_the_end_may_wait(name: str) -> None:
    assert b'"f"' in json.dumps(written(name, HI, ASKED)).encode()


def test_a_result_has_the_name_of_its_own_call_though_ids_are_used_again() -> None:
    again = Message("assistant", (ToolCall("1", "g", "{}"),))
    history = (HI, ASKED, RESULT, again, RESULT)

    contents = written("gemini", *history)["contents"]
    parts = [part for content in contents for part in content["parts"]]
    assert [part["functionResponse"]["name"] for part in parts if "functionResponse" in part] == ["f", "g"]
    messages = written("mistral", *history)["messages"]
    assert [message["name"] for message in messages if message["role"] == "tool"] == ["f", "g"]
    messages = written("ollama", *history)["messages"]
    assert [message["tool_name"] for message in messages if message["role"] == "tool"] == ["f", "g"]


# -- which tool --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UPSTREAMS)
@pytest.mark.parametrize("tools", [TOOLS, ()], ids=["others", "none"])
@pytest.mark.parametrize("choice", [ToolChoice("named", ("h",)), ToolChoice("allowed", ("f", "h"))], ids=str)
@pytest.mark.parametrize("drops", [False, True])
def test_a_choice_of_a_tool_that_is_not_there_is_refused(
    name: str, tools: tuple[Tool, ...], choice: ToolChoice, drops: bool
) -> None:
    with pytest.raises(BadRequest) as refused:
        written(name, tools=tools, tool_choice=choice, drops=drops)

    assert refused.value.param == "tool_choice"
    assert ("'h'" if tools else "tool") in refused.value.message


def test_a_tool_that_its_provider_runs_may_be_chosen_by_the_name_the_client_gave_it() -> None:
    search = BuiltinTool("web_search_20250305", Raw("elsewhere", b'{"name":"search"}'))

    body = written("gemini", tools=(*TOOLS, search), tool_choice=ToolChoice("allowed", ("f", "search")), drops=True)

    assert {"googleSearch": {}} in body["tools"]


# -- what stands where -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UPSTREAMS)
@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize("part", [IMAGE, PDF], ids=["image", "document"])
def test_a_picture_in_a_system_prompt_is_refused_or_left_out(name: str, role: Role, part: Part) -> None:
    system = Message(role, (TextPart("Look."), part))
    with pytest.raises(Unsupported) as refused:
        written(name, system, HI)

    assert (refused.value.param or "").endswith("content[1]")
    body = json.dumps(written(name, system, HI, drops=True))
    assert "Look." in body
    assert "iVBOR" not in body
    assert "JVBER" not in body


@pytest.mark.parametrize(
    ("name", "part", "word"),
    [
        *[(name, IMAGE, "an image") for name in ("openai", "openai-responses", "mistral", "anthropic")],
        *[(name, PDF, "a document") for name in ("openai", "openai-responses", "mistral")],
    ],
)
def test_a_picture_in_a_turn_of_the_assistant_is_refused_or_left_out(name: str, part: Part, word: str) -> None:
    turn = Message("assistant", (TextPart("Here."), part))
    with pytest.raises(Unsupported, match=word) as refused:
        written(name, HI, turn, HI)

    assert refused.value.param == "messages[1].content[1]"
    body = json.dumps(written(name, HI, turn, HI, drops=True))
    assert "Here." in body
    assert "iVBOR" not in body
    assert "JVBER" not in body


@pytest.mark.parametrize("name", ["gemini", "ollama"])
def test_a_picture_in_a_turn_of_the_assistant_stays_where_models_make_such(name: str) -> None:
    body = written(name, HI, Message("assistant", (TextPart("Here."), IMAGE)), HI)

    assert "iVBOR" in json.dumps(body[{"gemini": "contents"}.get(name, "messages")][1])


def test_a_document_of_the_assistant_that_is_a_text_is_text() -> None:
    turn = Message("assistant", (DocumentPart(Source(text="Body.")),))

    assert written("openai", HI, turn, HI)["messages"][1] == {"role": "assistant", "content": "Body."}


@pytest.mark.parametrize("name", ["openai", "gemini", "mistral"])
def test_a_result_that_comes_late_goes_behind_its_call(name: str) -> None:
    body = json.dumps(written(name, HI, ASKED, HI, RESULT))

    assert body == json.dumps(written(name, HI, ASKED, RESULT, HI))


ECHOES: dict[str, dict[str, Any]] = {
    "parsed": {"role": "assistant", "content": "{}", "parsed": {"a": 1}},
    "parsed_arguments": {
        "role": "assistant",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}", "parsed_arguments": {"a": 1}}}
        ],
    },
    "reasoning_details": {"role": "assistant", "content": "x", "reasoning_details": [{"type": "odd", "n": 1}]},
    "thinking_blocks": {
        "role": "assistant",
        "content": "x",
        "thinking_blocks": [{"type": "thinking", "thinking": "y"}],
    },
}


@pytest.mark.parametrize("what", ECHOES)
@pytest.mark.parametrize("name", [name for name in UPSTREAMS if name != "openai"])
def test_what_clients_put_beside_an_answer_that_they_send_back_is_no_error(name: str, what: str) -> None:
    openai, dialect = UPSTREAMS["openai"], UPSTREAMS[name]
    asked, api = (it.api_for(Operation.CHAT, stream=False) for it in (openai, dialect))
    assert asked is not None
    assert api is not None
    hi = {"role": "user", "content": "Hi"}
    messages = [hi, ECHOES[what], {"role": "tool", "tool_call_id": "1", "content": "x"} if "parsed_" in what else hi]
    tools = [{"type": "function", "function": {"name": "f"}}]
    chat = openai.read_chat(asked, json.dumps({"model": "m", "messages": messages, "tools": tools}).encode())

    assert dialect.write_chat(api, chat, Translation(llm="it", max_output_tokens=100))


def test_a_result_with_an_id_answers_a_call_of_its_name_that_has_none() -> None:
    gemini, openai = UPSTREAMS["gemini"], UPSTREAMS["openai"]
    asked, api = (it.api_for(Operation.CHAT, stream=False) for it in (gemini, openai))
    assert asked is not None
    assert api is not None
    contents = [
        {"parts": [{"text": "Hi"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
        {"parts": [{"functionResponse": {"name": "f", "id": "x", "response": {"a": 1}}}]},
    ]

    body = json.loads(openai.write_chat(api, gemini.read_chat(asked, json.dumps({"contents": contents}).encode())))

    assert body["messages"][1]["tool_calls"][0]["id"] == body["messages"][2]["tool_call_id"]


# -- an answer that has begun ------------------------------------------------------------------------------------------


def begun_by_a_client_of_anthropic(name: str, *, drops: bool = False) -> Any:
    """What the provider of the dialect *name* is sent of a request that ends with the beginning of its answer."""
    anthropic, dialect = UPSTREAMS["anthropic"], UPSTREAMS[name]
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It is"}]
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": turns}).encode()
    chat = anthropic.read_chat(anthropic.apis[0], body)
    api = dialect.api_for(Operation.CHAT, stream=False)
    assert api is not None
    return json.loads(dialect.write_chat(api, chat, Translation(drops=drops)))


@pytest.mark.parametrize("name", [name for name in UPSTREAMS if name not in {"anthropic", "mistral"}])
def test_an_answer_that_has_begun_is_refused_where_none_goes_on_with_it(name: str) -> None:
    with pytest.raises(Unsupported) as refused:
        begun_by_a_client_of_anthropic(name)

    assert refused.value.param == "messages[1].prefix"


def test_an_answer_that_has_begun_goes_on_where_its_mark_is_known() -> None:
    messages = begun_by_a_client_of_anthropic("mistral")["messages"]

    assert messages[1] == {"role": "assistant", "content": "It is", "prefix": True}


def test_an_answer_that_has_begun_is_a_turn_where_that_may_be_left_out() -> None:
    assert begun_by_a_client_of_anthropic("openai", drops=True)["messages"][1]["content"] == "It is"


# -- what an answer is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UPSTREAMS)
def test_what_an_answer_is_reaches_every_provider(name: str) -> None:
    wanted = ResponseFormat("json_schema", "a", b'{"type":"object","properties":{}}', description="dates in ISO form")

    assert "dates in ISO form" in json.dumps(written(name, tools=(), response_format=wanted))
