"""Requests of other protocols, as Gemini takes them; and its own, of which one thing was changed."""

import json
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from llmproxy_gemini import GeminiDialect
from llmproxy_gemini.apis import COUNT, EMBED, EMBED_BATCH, GENERATE
from llmproxy_gemini.seals import STAND_IN

from llmproxy_core import BadRequest, Carried, EmbeddingsRequest, Translation, Unsupported, seal
from llmproxy_core.chat import (
    BuiltinTool,
    ChatRequest,
    ImagePart,
    Message,
    Raw,
    ReasoningConfig,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from llmproxy_openai import OpenAIDialect

GEMINI, OPENAI = GeminiDialect(), OpenAIDialect()
CHAT = OPENAI.apis[0]
USER = {"role": "user", "content": "Hello"}
each = pytest.mark.parametrize


def chat_of(body: Mapping[str, Any], model: str = "gemini-2.5-flash") -> ChatRequest:
    """A request of OpenAI's, the model being the one that is sent."""
    asked = {"model": "gpt-4o", "messages": [USER], **body}
    return attrs.evolve(OPENAI.read_chat(CHAT, json.dumps(asked).encode()), model=model)


def written(
    body: Mapping[str, Any], model: str = "gemini-2.5-flash", *, told: Translation | None = None
) -> dict[str, Any]:
    """What *body*, a request of OpenAI's, becomes."""
    text = GEMINI.write_chat(GENERATE, chat_of(body, model), told or Translation(llm="gemini"))
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def own(body: Mapping[str, Any]) -> ChatRequest:
    return GEMINI.read_chat(GENERATE, json.dumps(body).encode())


def again(chat: ChatRequest) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(GEMINI.write_chat(GENERATE, chat))
    return decoded


def call(call_id: str, name: str, arguments: str = "{}", **more: object) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def turn(*calls: Mapping[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(call_id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


# -- messages ------------------------------------------------------------------------------------------------------


def test_system_prompts_come_first_wherever_they_stood() -> None:
    told = Translation()
    body = written(
        {"messages": [{"role": "system", "content": "A"}, USER, {"role": "developer", "content": "B"}, USER]}, told=told
    )

    assert body["systemInstruction"] == {"parts": [{"text": "A"}, {"text": "B"}]}
    assert [content["role"] for content in body["contents"]] == ["user", "user"]
    assert told.changes == {"messages[2]": "moved"}


def test_empty_texts_are_left_out() -> None:
    body = written({"messages": [{"role": "system", "content": ""}, USER, turn(call("c1", "now")), result("c1", "")]})

    assert "systemInstruction" not in body
    assert [list(part) for content in body["contents"] for part in content["parts"]] == [
        ["text"],
        ["functionCall"],
        ["functionResponse"],
    ]
    assert body["contents"][2]["parts"][0]["functionResponse"]["response"] == {"result": ""}


def test_results_of_one_turn_are_one_content_in_the_order_of_its_calls() -> None:
    body = written(
        {
            "messages": [
                USER,
                turn(call("c1", "first"), call("c2", "second")),
                result("c2", "two"),
                result("c1", '{"n": 1}'),
                {"role": "user", "content": "Go on"},
            ]
        }
    )

    _, model, answered, user = body["contents"]
    assert [part["functionCall"]["id"] for part in model["parts"]] == ["c1", "c2"]
    assert [part["functionResponse"] for part in answered["parts"]] == [
        {"name": "first", "response": {"n": 1}, "id": "c1"},
        {"name": "second", "response": {"result": "two"}, "id": "c2"},
    ]
    assert answered["role"] == user["role"] == "user"
    assert user["parts"] == [{"text": "Go on"}]


def test_calls_of_several_turns_in_a_row_are_one_turn() -> None:
    body = written(
        {"messages": [USER, turn(call("c1", "a")), turn(call("c2", "b")), result("c1", "1"), result("c2", "2")]}
    )

    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    assert [len(content["parts"]) for content in body["contents"]] == [1, 2, 2]


def test_a_result_whose_call_is_nowhere_is_the_callers_mistake() -> None:
    with pytest.raises(BadRequest, match=r"messages\[1\].content\[0\].*'lost'"):
        written({"messages": [USER, result("lost", "x")]})


@each(
    ("arguments", "args"),
    [("", {}), ("{}", {}), ('{"a": 1.0}', {"a": 1.0}), ('{"a": 1', {"input": '{"a": 1'}), ("[1]", {"input": "[1]"})],
)
def test_arguments_are_an_object_whatever_the_model_wrote(arguments: str, args: object) -> None:
    body = written({"messages": [USER, turn(call("c1", "f", arguments)), result("c1", "x")]})

    assert body["contents"][1]["parts"][0]["functionCall"]["args"] == args


def test_images_are_data_without_the_prefix_of_their_url() -> None:
    content = [
        {"type": "image_url", "image_url": {"url": "data:image/webp;base64,UklGRg=="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png?x=1", "detail": "high"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
    ]
    told = Translation()

    body = written({"messages": [{"role": "user", "content": content}]}, told=told)

    assert body["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/webp", "data": "UklGRg=="}},
        {"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/cat.png?x=1"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
    ]
    assert set(told.changes.values()) == {"dropped"}


@each(("model", "contents"), [("gemini-3-flash-preview", 3), ("gemini-2.5-flash", 4)])
def test_pictures_in_results_stand_where_the_model_takes_them(model: str, contents: int) -> None:
    source = attrs.evolve(chat_of({}).messages[0])
    image = ImagePart(_png())
    messages = (
        source,
        Message("assistant", (ToolCall("c1", "look", "{}"),)),
        Message("tool", (ToolResult("c1", (TextPart("seen"), image)),)),
    )
    chat = attrs.evolve(chat_of({}, model), messages=messages)

    body = json.loads(GEMINI.write_chat(GENERATE, chat, Translation()))

    assert len(body["contents"]) == contents
    part = {"inlineData": {"mimeType": "image/png", "data": "iVBORw=="}}
    if model.startswith("gemini-3"):
        assert body["contents"][2]["parts"][0]["functionResponse"]["parts"] == [part]
    else:
        assert body["contents"][3] == {"role": "user", "parts": [part]}


def _png() -> Any:
    part = own({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBORw=="}}]}]})
    image = part.messages[0].content[0]
    assert isinstance(image, ImagePart)
    return image.source


# -- tools ---------------------------------------------------------------------------------------------------------

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"n": {"$ref": "#/$defs/n"}, "kind": {"const": "x"}},
    "$defs": {"n": {"type": "integer", "exclusiveMinimum": 0}},
    "additionalProperties": False,
}


def test_schemas_go_where_all_of_json_schema_is_understood() -> None:
    body = written({"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]})

    assert body["tools"] == [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": SCHEMA}]}]


@each("parameters", [None, {"type": "object", "properties": {}}, {"type": "object", "additionalProperties": False}])
def test_a_tool_without_parameters_has_none(parameters: object) -> None:
    function = {"name": "now"} if parameters is None else {"name": "now", "parameters": parameters}

    body = written({"tools": [{"type": "function", "function": function}]})

    assert body["tools"] == [{"functionDeclarations": [{"name": "now"}]}]


TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]


@each(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOLS[0]]}},
            {"mode": "VALIDATED", "allowedFunctionNames": ["f"]},
        ),
    ],
)
def test_the_choice_among_tools(choice: object, config: object) -> None:
    body = written({"tools": TOOLS, "tool_choice": choice})

    assert body["toolConfig"] == {"functionCallingConfig": config}


def test_a_choice_without_tools_is_not_sent() -> None:
    assert "toolConfig" not in written({"tool_choice": "auto"})


@each(
    ("field", "value", "place"),
    [
        ("logit_bias", {"5": 1}, "logit_bias"),
        ("verbosity", "low", "verbosity"),
        ("stop", ["a", "b", "c", "d", "e", "f"], "stop"),
    ],
)
def test_what_has_no_place_is_refused_by_its_name_or_dropped(field: str, value: object, place: str) -> None:
    with pytest.raises(Unsupported) as refused:
        GEMINI.write_chat(GENERATE, chat_of({field: value}), Translation(llm="main"))
    assert refused.value.param == place
    assert "'main'" in refused.value.message

    told = Translation(drops=True)
    body = written({field: value}, told=told)
    assert told.changes == {place: "dropped"}
    assert f'"{field}"' not in json.dumps(body)


@each(
    "advice",
    [
        {"user": "u"},
        {"store": True},
        {"metadata": {"a": "b"}},
        {"service_tier": "flex"},
        {"prompt_cache_key": "k"},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
)
def test_advice_is_dropped_without_a_refusal(advice: Mapping[str, Any]) -> None:
    body = written(advice)

    assert body.keys() == {"contents"}


def test_parameters_go_into_the_generation_config() -> None:
    body = written(
        {
            "temperature": 1.7,
            "top_p": 0.5,
            "max_tokens": 77,
            "n": 2,
            "seed": 5_000_000_000,
            "stop": "END",
            "presence_penalty": 0.5,
            "frequency_penalty": -0.5,
            "logprobs": True,
            "top_logprobs": 3,
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}},
        }
    )

    assert body["generationConfig"] == {
        "temperature": 1.7,
        "topP": 0.5,
        "maxOutputTokens": 77,
        "candidateCount": 2,
        "seed": 5_000_000_000 & (2**31 - 1),
        "stopSequences": ["END"],
        "presencePenalty": 0.5,
        "frequencyPenalty": -0.5,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }


def test_a_tool_that_takes_a_text_takes_an_object_with_it_in_it() -> None:
    patch = {"id": "c1", "type": "custom", "custom": {"name": "apply_patch", "input": "*** Begin"}}
    body = written(
        {
            "messages": [USER, turn(patch), result("c1", "done")],
            "tools": [{"type": "custom", "custom": {"name": "apply_patch", "description": "D"}}],
            "tool_choice": {"type": "custom", "custom": {"name": "apply_patch"}},
        }
    )

    (tool,) = body["tools"][0]["functionDeclarations"]
    assert tool["parametersJsonSchema"]["required"] == ["text"]
    called = body["contents"][1]["parts"][0]["functionCall"]
    assert called["args"] == {"text": "*** Begin"}
    name = called["name"]
    assert body["contents"][2]["parts"][0]["functionResponse"]["name"] == name == tool["name"]
    assert body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == [name]
    content = {"parts": [{"functionCall": called}], "role": "model"}
    answer = {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": {}}
    reply = GEMINI.read_reply(GENERATE, json.dumps(answer).encode())
    (call,) = json.loads(OPENAI.write_reply(CHAT, reply))["choices"][0]["message"]["tool_calls"]
    assert call == patch


GRAMMAR = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: A"}}


@each(
    ("form", "changes"),
    [
        (GRAMMAR, {"tools[0]": "converted", "tools[0].format": "dropped"}),
        ({"type": "text"}, {"tools[0]": "converted"}),
    ],
)
def test_the_grammar_of_a_text_that_a_tool_takes_is_told_as_left_out(
    form: dict[str, Any], changes: dict[str, str]
) -> None:
    told = Translation(llm="gemini")

    written({"messages": [USER], "tools": [{"type": "custom", "custom": {"name": "f", "format": form}}]}, told=told)

    assert {place: word for place, word in told.changes.items() if place.startswith("tools")} == changes


# -- provider-run tools --------------------------------------------------------------------------------------------


def searching(told: Translation, **members: object) -> Any:
    """The tools of a request that lets OpenAI or Anthropic search the web."""
    text = json.dumps({"type": "web_search", **members}).encode()
    chat = attrs.evolve(chat_of({}), tools=(BuiltinTool("web_search", Raw("openai.responses", text)),))
    return json.loads(GEMINI.write_chat(GENERATE, chat, told))["tools"]


@each(
    ("members", "place"),
    [
        ({"blocked_domains": ["a.com"]}, "tools[0].blocked_domains"),
        ({"allowed_domains": ["a.com"]}, "tools[0].allowed_domains"),
        ({"filters": {"allowed_domains": ["a.com"]}}, "tools[0].filters.allowed_domains"),
        ({"max_uses": 3}, "tools[0].max_uses"),
        ({"user_location": {"type": "approximate", "city": "Paris"}}, "tools[0].user_location"),
    ],
)
def test_limits_of_a_search_that_google_does_not_take_are_refused_or_left_out(
    members: dict[str, Any], place: str
) -> None:
    with pytest.raises(Unsupported) as caught:
        searching(Translation(llm="gemini"), **members)
    told = Translation(llm="gemini", drops=True)

    assert searching(told, **members) == [{"googleSearch": {}}]

    assert caught.value.param == place
    assert told.changes == {"tools[0]": "converted", place: "dropped"}


def test_a_search_without_limits_is_googles_and_how_much_it_reads_is_advice() -> None:
    told = Translation(llm="gemini")

    tools = searching(
        told, search_context_size="low", user_location=None, allowed_domains=[], filters=None, max_uses=None
    )

    assert tools == [{"googleSearch": {}}]
    assert told.changes == {"tools[0]": "converted", "tools[0].search_context_size": "dropped"}


def test_a_search_that_is_no_json_inside_is_the_clients_mistake() -> None:
    text = b'{"type":"web_search","user_location":"\xff"}'
    chat = attrs.evolve(chat_of({}), tools=(BuiltinTool("web_search", Raw("openai.responses", text)),))

    with pytest.raises(BadRequest):
        GEMINI.write_chat(GENERATE, chat, Translation(llm="gemini"))


# -- thinking ------------------------------------------------------------------------------------------------------


@each(
    ("model", "effort", "config"),
    [
        ("gemini-3-flash-preview", "minimal", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-pro-preview", "minimal", {"thinkingLevel": "LOW"}),
        ("gemini-3.1-pro-preview", "xhigh", {"thinkingLevel": "HIGH"}),
        ("gemini-flash-latest", "medium", {"thinkingLevel": "MEDIUM"}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
        ("gemini-2.5-flash", "medium", {"thinkingBudget": 8192}),
        ("my-own-name", "high", {"thinkingLevel": "HIGH"}),
    ],
)
def test_the_model_tells_whether_levels_or_budgets_are_sent(model: str, effort: str, config: dict[str, Any]) -> None:
    body = written({"reasoning_effort": effort}, model)

    shown = {} if effort == "none" else {"includeThoughts": True}
    assert body["generationConfig"]["thinkingConfig"] == config | shown


@each(
    ("model", "reasoning", "config"),
    [
        ("gemini-3-pro-preview", ReasoningConfig(budget_tokens=5_000), {"thinkingLevel": "MEDIUM"}),
        ("gemini-2.5-flash-lite", ReasoningConfig(budget_tokens=10), {"thinkingBudget": 512}),
        ("gemini-2.5-pro", ReasoningConfig(budget_tokens=100_000), {"thinkingBudget": 32_768}),
        ("gemini-2.5-flash", ReasoningConfig(adaptive=True), {"thinkingBudget": -1}),
    ],
)
def test_budgets_of_others_are_kept_within_the_models_own(
    model: str, reasoning: ReasoningConfig, config: dict[str, Any]
) -> None:
    chat = attrs.evolve(chat_of({}, model), reasoning=reasoning)

    body = json.loads(GEMINI.write_chat(GENERATE, chat, Translation()))

    assert body["generationConfig"]["thinkingConfig"] == config | {"includeThoughts": True}


def test_a_model_that_does_not_think_is_not_asked_to() -> None:
    told = Translation()

    assert written({"reasoning_effort": "high"}, "gemini-2.0-flash", told=told).keys() == {"contents"}
    assert told.changes == {"reasoning": "dropped"}


@each(("model", "is_needed"), [("gemini-3-pro-preview", True), ("gemini-2.5-flash", False)])
def test_only_newer_models_need_a_stand_in_for_the_first_call_of_a_turn(model: str, is_needed: bool) -> None:
    body = written(
        {"messages": [USER, turn(call("c1", "a"), call("c2", "b")), result("c1", "1"), result("c2", "2")]}, model
    )

    signatures = [part.get("thoughtSignature") for part in body["contents"][1]["parts"]]
    assert signatures == ([STAND_IN, None] if is_needed else [None, None])


def test_the_signature_of_a_call_comes_back_through_another_protocol() -> None:
    signed = call("c1", "a", extra_content={"google": {"thought_signature": "c2ln"}})

    body = written({"messages": [USER, turn(signed), result("c1", "1")]}, "gemini-3-pro-preview")

    assert body["contents"][1]["parts"][0]["thoughtSignature"] == "c2ln"


def test_thinking_goes_to_its_own_provider_alone() -> None:
    thoughts = (
        ReasoningPart("ours", signature="c2ln", provider="gemini"),
        ReasoningPart("theirs", signature="sig", provider="anthropic"),
        ReasoningPart("nobody's"),
        TextPart("Hi"),
    )
    chat = attrs.evolve(chat_of({}), messages=(*chat_of({}).messages, Message("assistant", thoughts)))

    body = json.loads(GEMINI.write_chat(GENERATE, chat, Translation()))

    assert body["contents"][1]["parts"] == [
        {"text": "ours", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "Hi"},
    ]


def test_thinking_of_another_provider_comes_back_out_of_its_seal() -> None:
    sealed = seal(Carried("anthropic", signature="sig"))
    body = {"contents": [{"role": "model", "parts": [{"text": "Hm", "thought": True, "thoughtSignature": sealed}]}]}

    (part,) = own(body).messages[0].content

    assert part == ReasoningPart("Hm", signature="sig", provider="anthropic")


@each("is_split", [True, False])
def test_thinking_that_was_streamed_is_one_thought_again(is_split: bool) -> None:
    """However an SDK keeps the pieces of a stream: as parts of one content, or each as a content of its own."""
    sealed = seal(Carried("anthropic", signature="sig"))
    parts = [
        {"text": "Let me ", "thought": True},
        {"text": "see", "thought": True},
        {"text": "", "thought": True, "thoughtSignature": sealed},
        {"text": "Hi"},
    ]
    contents = (
        [{"role": "model", "parts": [part]} for part in parts] if is_split else [{"role": "model", "parts": parts}]
    )
    body = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}, *contents]}

    chat = own(body)

    said = [part for message in chat.messages[1:] for part in message.content]
    assert said == [ReasoningPart("Let me see", signature="sig", provider="anthropic"), TextPart("Hi")]
    assert again(chat) == body


def test_data_in_the_alphabet_of_urls_is_in_the_usual_one_to_others() -> None:
    chat = own({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "-_8"}}]}]})

    body = json.loads(OPENAI.write_chat(CHAT, chat, Translation()))

    assert body["messages"][0]["content"][0]["image_url"]["url"] == "data:image/png;base64,+/8="


@each("choice", ["auto", "required", {"type": "function", "function": {"name": "f"}}])
def test_that_calls_come_one_at_a_time_is_a_wish_that_cannot_be_told(choice: object) -> None:
    told = Translation()

    body = written({"tools": TOOLS[:1], "tool_choice": choice, "parallel_tool_calls": False}, told=told)

    assert told.changes == {"parallel_tool_calls": "dropped"}
    assert "parallel" not in json.dumps(body)


# -- its own requests ----------------------------------------------------------------------------------------------


@each(
    ("camel", "snake"),
    [
        (
            {
                "systemInstruction": {"parts": [{"text": "Be brief"}]},
                "contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}]}],
                "generationConfig": {"maxOutputTokens": 5, "topK": 3, "thinkingConfig": {"thinkingBudget": 7}},
                "tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]}],
                "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
            },
            {
                "system_instruction": {"parts": [{"text": "Be brief"}]},
                "contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": "AA=="}}]}],
                "generation_config": {"max_output_tokens": 5, "top_k": 3, "thinking_config": {"thinking_budget": 7}},
                "tools": [{"function_declarations": [{"name": "f", "parameters_json_schema": {"type": "object"}}]}],
                "tool_config": {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}},
            },
        )
    ],
)
def test_both_spellings_say_the_same_and_keep_their_own(camel: dict[str, Any], snake: dict[str, Any]) -> None:
    one, other = own(camel), own(snake)

    assert one == other
    assert one.extra == {}
    changed = again(attrs.evolve(other, max_output_tokens=9, tool_choice=None))
    config = changed["generation_config"]
    assert config == {"max_output_tokens": 9, "top_k": 3, "thinking_config": {"thinking_budget": 7}}
    assert "generationConfig" not in changed
    assert changed.get("tool_config") is None


def test_unknown_members_survive_a_change_of_their_neighbours() -> None:
    body = {
        "contents": [{"role": "user", "parts": [{"text": "Hi", "x": 1}], "y": 2}],
        "generationConfig": {"speechConfig": {"a": 1}, "temperature": 1, "thinkingConfig": {"z": 3}},
        "toolConfig": {"retrievalConfig": {"languageCode": "de"}},
        "safetySettings": [{"category": "C", "threshold": "T"}],
        "cachedContent": "cachedContents/1",
    }
    chat = own(body)

    changed = again(attrs.evolve(chat, temperature=0.5))

    body["generationConfig"]["temperature"] = 0.5  # type: ignore[index]
    assert changed == body
    assert set(chat.extra) == {
        "safetySettings",
        "cachedContent",
        "generationConfig.speechConfig",
        "generationConfig.thinkingConfig.z",
        "toolConfig.retrievalConfig",
    }


def test_an_unknown_member_of_a_nested_object_can_be_taken_out_and_put_in() -> None:
    chat = own({"contents": [], "generationConfig": {"speechConfig": {}, "topK": 1}})
    extra = {"generationConfig.mediaResolution": b'"LOW"', "labels": b"{}"}

    assert again(attrs.evolve(chat, extra=extra)) == {
        "contents": [],
        "generationConfig": {"topK": 1, "mediaResolution": "LOW"},
        "labels": {},
    }


def test_calls_without_ids_are_paired_by_name_and_order() -> None:
    def part(name: str, key: str) -> dict[str, Any]:
        return {"functionCall": {"name": name, "args": {"k": key}}}

    def answer(name: str, value: str) -> dict[str, Any]:
        return {"functionResponse": {"name": name, "response": {"result": value}}}

    chat = own(
        {
            "contents": [
                {"role": "user", "parts": [{"text": "Go"}]},
                {"role": "model", "parts": [part("f", "1"), part("g", "2"), part("f", "3")]},
                {"role": "user", "parts": [answer("f", "one"), answer("f", "three"), answer("g", "two")]},
            ]
        }
    )

    calls = {it.id: it for message in chat.messages for it in message.content if isinstance(it, ToolCall)}
    results = [it for message in chat.messages for it in message.content if isinstance(it, ToolResult)]
    assert len(calls) == 3
    pairs = {json.loads(calls[it.call_id].arguments)["k"]: it.content[0] for it in results}
    assert pairs == {"1": TextPart("one"), "2": TextPart("two"), "3": TextPart("three")}
    assert chat.messages[2].role == "tool"
    changed = again(attrs.evolve(chat, messages=(*chat.messages[:1], *map(attrs.evolve, chat.messages[1:]))))
    assert "call_gg" not in json.dumps(changed)


def test_results_and_what_the_user_says_to_them_are_turns_of_their_own_and_one_content_again() -> None:
    parts = [
        {"text": "Here:"},
        {"functionResponse": {"name": "f", "response": {"a": 1}, "id": "1"}},
        {"text": "Go on"},
    ]
    body = {"contents": [{"role": "user", "parts": parts}]}
    chat = own(body)

    assert [message.role for message in chat.messages] == ["tool", "user"]
    assert again(chat) == body
    tool, user = chat.messages
    changed = again(attrs.evolve(chat, messages=(tool, attrs.evolve(user, content=(TextPart("New"), user.content[1])))))
    assert changed["contents"] == [{"role": "user", "parts": [parts[1], {"text": "New"}, parts[2]]}]


def test_a_changed_message_leaves_all_others_as_they_were() -> None:
    first, second = b'{"parts":[{"text":"a"}] , "role":"user"}', b'{"role":"model","parts":[ {"text":"b","q":1.0} ]}'
    text = b'{"contents": [ ' + first + b" ,\n " + second + b"]}"
    chat = GEMINI.read_chat(GENERATE, text)
    last = chat.messages[1]
    said = last.content[0]
    assert isinstance(said, TextPart)

    changed = attrs.evolve(
        chat, messages=(chat.messages[0], attrs.evolve(last, content=(attrs.evolve(said, text="c"),)))
    )

    assert GEMINI.write_chat(GENERATE, changed) == text.replace(b'"b"', b'"c"')


@each(
    ("body", "place"),
    [
        ({}, "contents"),
        ({"contents": {}}, "contents"),
        ({"contents": [{"role": "system", "parts": []}]}, r"contents\[0\].role"),
        ({"contents": [{"parts": [{"text": 5}]}]}, r"contents\[0\].parts\[0\].text"),
        ({"contents": [], "generationConfig": {"topK": "x"}}, "generationConfig.topK"),
        ({"contents": [], "toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}}, "toolConfig"),
        ({"contents": [], "tools": [{"functionDeclarations": [{}]}]}, r"tools\[0\].functionDeclarations\[0\].name"),
    ],
)
def test_mistakes_are_told_with_their_place(body: dict[str, Any], place: str) -> None:
    with pytest.raises(BadRequest, match=place):
        own(body)


def test_schemas_in_capitals_are_json_schema_to_others() -> None:
    schema = {
        "type": "OBJECT",
        "properties": {"n": {"type": "INTEGER", "nullable": True}, "l": {"type": "ARRAY", "items": {"type": "STRING"}}},
        "propertyOrdering": ["n", "l"],
        "minProperties": "1",
    }
    chat = own(
        {
            "contents": [{"parts": [{"text": "Hi"}]}],
            "tools": [{"functionDeclarations": [{"name": "f", "parameters": schema}]}],
            "generationConfig": {"responseMimeType": "application/json", "responseSchema": schema},
        }
    )

    body = json.loads(OPENAI.write_chat(CHAT, chat, Translation()))

    expected = {
        "type": "object",
        "properties": {"n": {"type": ["integer", "null"]}, "l": {"type": "array", "items": {"type": "string"}}},
        "minProperties": 1,
    }
    assert body["tools"][0]["function"]["parameters"] == expected
    assert body["response_format"]["json_schema"]["schema"] == expected


def test_properties_stand_in_the_order_that_is_asked_for() -> None:
    """The model thinks first only where that member comes first."""
    inner = {"type": "OBJECT", "properties": {"b": {}, "a": {}}, "property_ordering": ["a", "none", 1]}
    ordering = ["reasoning", "answer"]
    schema = {"type": "OBJECT", "properties": {"answer": {}, "more": inner, "reasoning": {}}}
    config = {"responseMimeType": "application/json", "responseSchema": schema | {"propertyOrdering": ordering}}
    chat = own({"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": config})

    body = json.loads(OPENAI.write_chat(CHAT, chat, Translation()))

    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    assert list(properties) == ["reasoning", "answer", "more"]
    assert list(properties["more"]["properties"]) == ["a", "b"]


# -- counts and embeddings -----------------------------------------------------------------------------------------


def test_a_count_of_a_whole_request_is_read_and_written_in_place() -> None:
    text = b'{"generateContentRequest": {"model": "models/a", "contents": [{"parts":[{"text":"Hi"}]}], "q": 1}, "w": 2}'

    chat = GEMINI.read_chat(COUNT, text)

    assert (chat.model, chat.messages[0].text) == ("a", "Hi")
    assert GEMINI.write_chat(COUNT, chat) == text
    changed = GEMINI.write_chat(COUNT, attrs.evolve(chat, messages=()))
    assert json.loads(changed) == {"generateContentRequest": {"model": "models/a", "contents": [], "q": 1}, "w": 2}
    assert GEMINI.prepare(COUNT, text, model="b") == text.replace(b"models/a", b"models/b")


def test_a_count_of_another_protocol_holds_the_whole_request() -> None:
    body = json.loads(GEMINI.write_chat(COUNT, chat_of({"tools": TOOLS}), Translation()))

    inner = body.pop("generateContentRequest")
    assert body == {}
    assert inner["model"] == "models/gemini-2.5-flash"
    assert len(inner["tools"][0]["functionDeclarations"]) == 2


def test_embeddings_of_others_are_a_batch() -> None:
    asked = EmbeddingsRequest("gemini-embedding-001", ("a", "b"), dimensions=3, user="u")
    told = Translation()

    body = json.loads(GEMINI.write_embeddings(EMBED_BATCH, asked, told))

    request = {"model": "models/gemini-embedding-001", "outputDimensionality": 3}
    assert body == {"requests": [request | {"content": {"parts": [{"text": text}]}} for text in "ab"]}
    assert told.changes == {"user": "dropped"}
    with pytest.raises(Unsupported):
        GEMINI.write_embeddings(EMBED_BATCH, EmbeddingsRequest("m", ((1, 2),)))


def test_the_model_of_embeddings_is_changed_in_every_request() -> None:
    text = b'{"requests": [{"model":"models/a","content":{}}, {"content":{},"model":"models/a"}]}'

    assert GEMINI.prepare(EMBED_BATCH, text, model="b") == text.replace(b"models/a", b"models/b")
    assert GEMINI.prepare(EMBED, b'{"content":{}}', model="b") == b'{"content":{}}'


def test_parameters_of_a_call_whose_tokens_are_counted_are_those_of_the_call() -> None:
    call = {"model": "models/gemini-2.5-flash", "contents": [], "generationConfig": {"temperature": 0.5}}

    found = GEMINI.read_parameters(COUNT, json.dumps({"generateContentRequest": call}).encode())

    assert (found.model, found.temperature) == ("gemini-2.5-flash", 0.5)
