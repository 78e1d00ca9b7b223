"""Requests of the Responses API: what they mean, and that what nobody touched keeps its bytes."""

import json
from typing import Any

import attrs
import pytest

from llmproxy_core.carried import SEAL_MARK, Carried, seal
from llmproxy_core.chat import (
    BuiltinTool,
    ChatRequest,
    Message,
    OpaquePart,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llmproxy_core.dialect import Operation
from llmproxy_core.errors import BadRequest
from llmproxy_openai.responses import ResponsesDialect
from llmproxy_openai.responses.paths import CREATE, INPUT_TOKENS
from tests.recordings import Recording, recordings

DIALECT = ResponsesDialect()
REQUESTS = [each for each in recordings() if each.request_path.endswith("/responses")]


def body(**members: object) -> bytes:
    return json.dumps({"model": "gpt-5", **members}).encode()


def written(chat: ChatRequest) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(DIALECT.write_chat(CREATE, chat))
    return out


# -- bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", REQUESTS, ids=str)
def test_an_untouched_request_keeps_its_bytes(recording: Recording) -> None:
    chat = DIALECT.read_chat(CREATE, recording.request_body)
    assert DIALECT.write_chat(CREATE, chat) == recording.request_body


@pytest.mark.parametrize("recording", REQUESTS, ids=str)
def test_a_changed_message_leaves_all_other_bytes(recording: Recording) -> None:
    chat = DIALECT.read_chat(CREATE, recording.request_body)
    for index, message in enumerate(chat.messages):
        for place, part in enumerate(message.content):
            if not isinstance(part, TextPart):
                continue
            edited = attrs.evolve(part, text=part.text + "§")
            content = (*message.content[:place], edited, *message.content[place + 1 :])
            messages = (*chat.messages[:index], attrs.evolve(message, content=content), *chat.messages[index + 1 :])
            out = DIALECT.write_chat(CREATE, attrs.evolve(chat, messages=messages))
            assert out.replace("§".encode(), b"") == recording.request_body


def test_the_members_of_a_changed_item_that_mean_nothing_here_stay() -> None:
    item = {"id": "msg_1", "role": "assistant", "status": "completed", "phase": "commentary", "type": "message"}
    said = {"type": "output_text", "text": "Well.", "annotations": [], "logprobs": [], "mood": "good"}
    chat = DIALECT.read_chat(CREATE, body(input=[{"role": "user", "content": "So?"}, {**item, "content": [said]}]))
    (part,) = chat.messages[1].content
    assert isinstance(part, TextPart)
    turn = attrs.evolve(chat.messages[1], content=(attrs.evolve(part, text="Fine."),))
    out = written(attrs.evolve(chat, messages=(chat.messages[0], turn)))
    assert out["input"][1] == {**item, "content": [{**said, "text": "Fine."}]}


# -- conversations ---------------------------------------------------------------------------------------------


def test_the_items_of_one_turn_are_one_message_and_results_pair_by_call_id() -> None:
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm"}],
            "encrypted_content": "E",
        },
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look."}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "f",
            "arguments": "{}",
            "status": "completed",
        },
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "g", "input": "ls"},
        {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "4"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "5"}]},
    ]
    chat = DIALECT.read_chat(CREATE, body(input=items))
    assert chat.messages == (
        Message("user", (TextPart("Weather?"),)),
        Message(
            "assistant",
            (
                ReasoningPart("Hm", summary=True, id="rs_1", encrypted="E", provider="openai-responses"),
                TextPart("I look."),
                ToolCall("call_1", "f", "{}", item_id="fc_1"),
                ToolCall("call_2", "g", "ls", "custom", item_id="ctc_1"),
            ),
            id="msg_1",
        ),
        Message("tool", (ToolResult("call_1", (TextPart("4"),)),)),
        Message("tool", (ToolResult("call_2", (TextPart("5"),)),)),
    )
    anew = written(attrs.evolve(chat, origin=None, messages=tuple(attrs.evolve(each) for each in chat.messages)))
    assert [item.get("type", "message") for item in anew["input"]] == [item.get("type", "message") for item in items]
    assert DIALECT.read_chat(CREATE, json.dumps(anew).encode()).messages == chat.messages


def test_items_that_only_openai_knows_stay_with_their_turn() -> None:
    items = [{"type": "web_search_call", "id": "ws_1", "status": "completed"}, {"type": "item_reference", "id": "x"}]
    chat = DIALECT.read_chat(CREATE, body(input=items))
    (turn,) = chat.messages
    assert [part.kind for part in turn.content if isinstance(part, OpaquePart)] == ["web_search_call", "item_reference"]
    assert written(attrs.evolve(chat, messages=(Message("user", (TextPart("a"),)), turn)))["input"][1:] == items


def test_instructions_are_the_first_system_message() -> None:
    chat = DIALECT.read_chat(CREATE, body(instructions="Be kind.", input="Hi"))
    assert chat.messages == (Message("system", (TextPart("Be kind."),)), Message("user", (TextPart("Hi"),)))
    louder = attrs.evolve(chat.messages[0], content=(TextPart("Be KIND."),))
    assert written(attrs.evolve(chat, messages=(louder, chat.messages[1]))) == {
        "model": "gpt-5",
        "instructions": "Be KIND.",
        "input": "Hi",
    }
    before = Message("system", (TextPart("Be short."),))
    assert written(attrs.evolve(chat, messages=(before, *chat.messages)))["instructions"] == "Be short.\n\nBe kind."
    assert "instructions" not in written(attrs.evolve(chat, messages=chat.messages[1:]))


def test_a_text_as_input_stays_one_while_it_can() -> None:
    chat = DIALECT.read_chat(CREATE, body(input="Hi"))
    assert written(attrs.evolve(chat, messages=(Message("user", (TextPart("Ho"),)),)))["input"] == "Ho"
    more = (*chat.messages, Message("user", (TextPart("again"),)))
    assert written(attrs.evolve(chat, messages=more))["input"] == [
        {"role": "user", "content": "Hi"},
        {"role": "user", "content": "again"},
    ]


# -- what is carried ---------------------------------------------------------------------------------------------


def sealed_item(carried: Carried, text: str = "") -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"type": "reasoning", "id": "rs_9", "summary": summary, "encrypted_content": seal(carried)}


def test_thinking_of_another_provider_is_known_again() -> None:
    items = [
        sealed_item(Carried("anthropic", signature="SIG"), "Hm"),
        sealed_item(Carried("gemini", signature="TS", of_call=True)),
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ]
    (turn,) = DIALECT.read_chat(CREATE, body(input=items)).messages
    assert turn.content == (
        ReasoningPart("Hm", signature="SIG", provider="anthropic"),
        ToolCall("c", "f", "{}", signature="TS"),
    )


@pytest.mark.parametrize(
    ("between", "call_id", "signature"),
    [
        ([], "c", "TS"),
        ([], "d", None),
        ([{"type": "message", "role": "assistant", "content": "a"}], "c", None),
    ],
)
def test_a_signature_is_that_of_the_call_right_after_it_alone(
    between: list[Any], call_id: str, signature: str | None
) -> None:
    carried = sealed_item(Carried("gemini", signature="TS", id="c", of_call=True))
    call = {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}
    (turn,) = DIALECT.read_chat(CREATE, body(input=[carried, *between, call])).messages
    assert turn.content[-1] == ToolCall(call_id, "f", "{}", signature=signature)


def test_thinking_of_another_provider_never_reaches_openai() -> None:
    own = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    asked = {"role": "user", "content": f"{SEAL_MARK.decode()} is a word"}
    text = body(input=[sealed_item(Carried("anthropic", signature="SIG"), "Hm"), own, asked])
    chat = DIALECT.read_chat(CREATE, text)
    assert json.loads(DIALECT.prepare(CREATE, text))["input"] == [own, asked]
    assert written(chat)["input"] == [own, asked]
    clean = body(input=[own, asked])
    assert DIALECT.prepare(CREATE, clean) == clean


# -- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "meaning"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "name": "f"}, ToolChoice("named", ("f",))),
        ({"type": "custom", "name": "g"}, ToolChoice("named", ("g",))),
        ({"type": "web_search"}, ToolChoice("named", ("web_search",))),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            ToolChoice("allowed", ("f",)),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}],
            },
            ToolChoice("named", ("f", "g")),
        ),
    ],
)
def test_tool_choices_mean_the_same_both_ways(choice: object, meaning: ToolChoice) -> None:
    tools = [
        {"type": "function", "name": "f", "parameters": None, "strict": False},
        {"type": "custom", "name": "g"},
        {"type": "web_search"},
    ]
    chat = DIALECT.read_chat(CREATE, body(input="x", tools=tools, tool_choice=choice))
    assert chat.tool_choice == meaning
    assert written(attrs.evolve(chat, origin=None))["tool_choice"] == choice


def test_a_choice_that_only_openai_knows_stays_as_it_is() -> None:
    choice = {"type": "mcp", "server_label": "deepwiki", "name": "ask"}
    chat = DIALECT.read_chat(CREATE, body(input="x", tool_choice=choice))
    assert chat.tool_choice is None
    assert json.loads(chat.extra["tool_choice"]) == choice


STRICT = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("members", "strict"),
    [
        ({"parameters": STRICT}, True),
        ({"parameters": STRICT, "strict": None}, True),
        ({"parameters": STRICT, "strict": False}, False),
        ({"parameters": STRICT | {"required": []}}, False),
        ({"parameters": {"type": "object", "properties": {}}}, False),
        ({"parameters": STRICT | {"properties": {"a": {"type": "object", "properties": {"b": {}}}}}}, False),
        ({}, False),
    ],
)
def test_a_function_is_strict_where_it_can_be_unless_it_says_otherwise(members: dict[str, Any], strict: bool) -> None:
    chat = DIALECT.read_chat(CREATE, body(input="x", tools=[{"type": "function", "name": "f", **members}]))
    (tool,) = chat.tools
    assert isinstance(tool, Tool)
    assert tool.strict is strict


def test_tools_keep_what_they_are() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
    tools = [{"type": "custom", "name": "patch", "format": grammar}, {"type": "mcp", "server_label": "x"}]
    chat = DIALECT.read_chat(CREATE, body(input="x", tools=tools))
    custom, builtin = chat.tools
    assert isinstance(custom, Tool)
    assert (custom.kind, json.loads(custom.format or b"null")) == ("custom", grammar)
    assert isinstance(builtin, BuiltinTool)
    assert builtin.kind == "mcp"
    again = written(attrs.evolve(chat, tools=(attrs.evolve(custom, name="other"), builtin)))
    assert again["tools"] == [{"type": "custom", "name": "other", "format": grammar}, tools[1]]


def test_what_says_what_is_so_anyway_is_no_field() -> None:
    silent = {"background": False, "truncation": "disabled", "previous_response_id": None, "stream_options": {}}
    assert DIALECT.read_chat(CREATE, body(input="x", **silent)).extra == {}
    assert set(DIALECT.read_chat(CREATE, body(input="x", background=True, conversation="c")).extra) == {
        "background",
        "conversation",
    }


def test_probabilities_are_asked_for_by_include() -> None:
    text = body(input="x", include=["message.output_text.logprobs", "reasoning.encrypted_content"], top_logprobs=3)
    chat = DIALECT.read_chat(CREATE, text)
    assert (chat.logprobs, chat.top_logprobs, chat.extra) == (True, 3, {})
    assert written(attrs.evolve(chat, logprobs=None))["include"] == ["reasoning.encrypted_content"]
    assert written(attrs.evolve(chat, origin=None))["include"] == ["message.output_text.logprobs"]


def test_text_and_reasoning_keep_members_that_nobody_knows() -> None:
    text = body(input="x", text={"verbosity": "low", "mood": 1}, reasoning={"effort": "low", "context": "all_turns"})
    chat = DIALECT.read_chat(CREATE, text)
    assert chat.reasoning is not None
    changed = attrs.evolve(chat, verbosity="high", reasoning=attrs.evolve(chat.reasoning, effort="high"))
    out = written(changed)
    assert out["text"] == {"verbosity": "high", "mood": 1}
    assert out["reasoning"] == {"effort": "high", "context": "all_turns"}


@pytest.mark.parametrize(
    ("members", "place"),
    [
        ({"input": 1}, "input"),
        ({"input": [{"role": "alien", "content": ""}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": "x", "tools": [{"name": "f"}]}, "tools[0].type"),
        ({"input": "x", "temperature": "hot"}, "temperature"),
    ],
)
def test_a_mistake_is_named_with_its_place(members: dict[str, Any], place: str) -> None:
    with pytest.raises(BadRequest) as raised:
        DIALECT.read_chat(CREATE, body(**members))
    assert raised.value.param == place


# -- heads and counts --------------------------------------------------------------------------------------------


def test_the_head_tells_the_model_and_that_streams_tell_usage() -> None:
    head = DIALECT.read_head(CREATE, body(input="x", stream=True))
    assert (head.model, head.stream, head.wants_usage) == ("gpt-5", True, True)
    assert not DIALECT.read_head(INPUT_TOKENS, body(input="x", stream=True)).stream


def test_prepare_changes_the_fewest_bytes() -> None:
    text = b'{ "model" : "a" , "input":"x", "stream":true, "stream_options":{"include_obfuscation":false} }'
    assert DIALECT.prepare(CREATE, text) == text
    assert DIALECT.prepare(CREATE, text, model="b", ask_usage=True) == text.replace(b'"a"', b'"b"')
    plain = json.loads(DIALECT.prepare(CREATE, text, stream=False))
    assert plain == {"model": "a", "input": "x", "stream": False}


def test_a_count_asks_with_what_is_counted_alone() -> None:
    asked = DIALECT.read_chat(INPUT_TOKENS, body(input="Hi", instructions="x", tools=[{"type": "custom", "name": "f"}]))
    assert [message.role for message in asked.messages] == ["system", "user"]
    chat = attrs.evolve(asked, origin=None, temperature=1.0, max_output_tokens=5, stop=("x",), user="u", stream=True)
    assert set(json.loads(DIALECT.write_chat(INPUT_TOKENS, chat))) == {"model", "instructions", "input", "tools"}
    assert DIALECT.read_count(INPUT_TOKENS, DIALECT.write_count(INPUT_TOKENS, 11)) == 11
    assert json.loads(DIALECT.write_count(INPUT_TOKENS, 11)) == {"object": "response.input_tokens", "input_tokens": 11}


def test_it_offers_vectors_and_lists_as_openais_other_protocol_does() -> None:
    assert {api.operation for api in DIALECT.apis} == set(Operation) - {Operation.OPAQUE}
    (found,) = DIALECT.locate("/v1/responses/input_tokens")
    assert found.api is INPUT_TOKENS
    assert not DIALECT.locate("/v1/responses/resp_1")
