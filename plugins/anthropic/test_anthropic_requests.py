"""Requests of other protocols, as Anthropic is sent them."""

import json
from typing import Any

import attrs
import pytest
from llmproxy_anthropic import AnthropicDialect
from llmproxy_anthropic.apis import COUNT_TOKENS, MESSAGES
from llmproxy_anthropic.claude import claude

from llmproxy_core import BadRequest, Carried, Translation, Unsupported, seal
from llmproxy_core.chat import (
    BuiltinTool,
    CacheMark,
    ChatOrigin,
    ChatRequest,
    DocumentPart,
    ImagePart,
    Message,
    OpaquePart,
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
)
from llmproxy_core.reply_events import events_of
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.responses.dialect import ResponsesDialect
from llmproxy_openai.responses.paths import CREATE

DIALECT = AnthropicDialect()
OLD, MIDDLE, NEW = "claude-3-5-sonnet-20241022", "claude-sonnet-4-5", "claude-opus-4-8"
SCHEMA = b'{"type":"object","properties":{"a":{"type":"integer","minimum":1}},"required":["a"]}'
WEATHER = Tool("weather", "How it is", b'{"type":"object","properties":{}}')


def text(role: Any, *texts: str) -> Message:
    return Message(role, tuple(TextPart(each) for each in texts))


def asked(*messages: Message, model: str = MIDDLE, **fields: Any) -> ChatRequest:
    return ChatRequest(model, messages or (text("user", "hello"),), **fields)


def told(**options: Any) -> Translation:
    return Translation(llm="claude", **options)


def written(chat: ChatRequest, translation: Translation | None = None) -> Any:
    return json.loads(DIALECT.write_chat(MESSAGES, chat, told() if translation is None else translation))


# -- turns ---------------------------------------------------------------------------------------------------


def test_results_of_all_calls_stand_first_in_one_turn() -> None:
    calls = tuple(ToolCall(f"c{n}", "weather", json.dumps({"n": n})) for n in range(3))
    results = [Message("tool", (ToolResult(f"c{n}", (TextPart(str(n)),)),)) for n in (2, 0, 1)]
    chat = asked(text("user", "q"), Message("assistant", calls), *results, text("user", "and?"), tools=(WEATHER,))

    last = written(chat)["messages"][2]

    assert [block["type"] for block in last["content"]] == ["tool_result"] * 3 + ["text"]
    assert [block["tool_use_id"] for block in last["content"][:3]] == ["c2", "c0", "c1"]


def test_no_text_is_empty() -> None:
    call = ToolCall("c", "weather", "")
    chat = asked(
        text("system", ""),
        text("user", "q", "", " "),
        Message("assistant", (TextPart(""), call)),
        Message("tool", (ToolResult("c", ()),)),
        tools=(WEATHER,),
    )

    body = written(chat)

    assert "system" not in body
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "q"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "weather", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c"}]},
    ]


def test_neighbours_of_one_role_are_one_turn_and_the_user_begins() -> None:
    chat = asked(text("assistant", "a"), text("user", "b"), text("user", "c"))
    translation = told()

    turns = written(chat, translation)["messages"]

    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert [block["text"] for block in turns[2]["content"]] == ["b", "c"]
    assert translation.changes["messages"] == "completed"


def test_what_the_system_says_is_one_prompt_in_order() -> None:
    chat = asked(text("system", "one"), text("user", "q"), text("developer", "two"), text("user", "r"))

    body = written(chat)

    assert [block["text"] for block in body["system"]] == ["one", "two"]
    assert [turn["role"] for turn in body["messages"]] == ["user"]


def test_where_only_the_system_speaks_it_is_the_user() -> None:
    body = written(asked(text("system", "be brief"), text("system", "say hello")))

    assert body["system"] == "be brief"
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "say hello"}]}]


def test_a_last_turn_of_the_assistant_does_not_end_in_white_space() -> None:
    body = written(asked(text("user", "q"), text("assistant", "The answer is \n")))

    assert body["messages"][1]["content"] == [{"type": "text", "text": "The answer is"}]


@pytest.mark.parametrize(
    "messages",
    [
        (text("user", "q"), Message("tool", (ToolResult("x", (TextPart("r"),)),))),
        (text("user", "q"), Message("assistant", (ToolCall("x", "weather", "{}"),))),
        (text("user", "q"), Message("assistant", (ToolCall("x", "weather", "{}"),)), text("user", "r")),
    ],
    ids=["a result without a call", "a call without a result", "a call that is passed over"],
)
def test_a_call_needs_its_result_and_a_result_its_call(messages: tuple[Message, ...]) -> None:
    with pytest.raises(BadRequest, match=r"messages\[1\]"):
        written(asked(*messages, tools=(WEATHER,)))


def test_ids_that_are_not_taken_are_others_for_call_and_result_alike() -> None:
    call, result = ToolCall("functions.weather:0", "weather", "{}"), ToolResult("functions.weather:0", ())
    chat = asked(text("user", "q"), Message("assistant", (call,)), Message("tool", (result,)), tools=(WEATHER,))

    turns = written(chat)["messages"]

    sent = turns[1]["content"][0]["id"]
    assert sent.startswith("toolu_")
    assert turns[2]["content"][0]["tool_use_id"] == sent


def test_ids_that_come_again_are_others_for_call_and_result_alike() -> None:
    """Some servers count the calls of each turn anew; Anthropic refuses an id that was there before."""
    loop = [
        turn
        for said in ("one", "two")
        for turn in (
            Message("assistant", (ToolCall("call_0", "weather", "{}"),)),
            Message("tool", (ToolResult("call_0", (TextPart(said),)),)),
        )
    ]

    turns = written(asked(text("user", "q"), *loop, tools=(WEATHER,)))["messages"]

    ids = [turn["content"][0]["id"] for turn in turns if turn["role"] == "assistant"]
    results = [turn["content"][0] for turn in turns[1:] if turn["role"] == "user"]
    assert ids[0] == "call_0" != ids[1]
    assert [(it["tool_use_id"], it["content"]) for it in results] == [(ids[0], "one"), (ids[1], "two")]


def test_calls_without_ids_are_answered_in_their_order() -> None:
    calls = (ToolCall("", "weather", '{"n":1}'), ToolCall("", "weather", '{"n":2}'))
    results = tuple(ToolResult("", (TextPart(word),), name="weather") for word in ("one", "two"))
    chat = asked(text("user", "q"), Message("assistant", calls), Message("tool", results), tools=(WEATHER,))

    turns = written(chat)["messages"]

    ids = [block["id"] for block in turns[1]["content"]]
    assert len(set(ids)) == 2
    assert [(it["tool_use_id"], it["content"]) for it in turns[2]["content"]] == [(ids[0], "one"), (ids[1], "two")]


def test_broken_arguments_are_put_into_an_object() -> None:
    call = ToolCall("c", "weather", '{"city": "Par')
    chat = asked(text("user", "q"), Message("assistant", (call,)), Message("tool", (ToolResult("c", ()),)))

    assert written(chat)["messages"][1]["content"][0]["input"] == {"arguments": '{"city": "Par'}


def test_calls_of_the_past_have_their_tools_defined() -> None:
    call = ToolCall("c", "weather", "{}")
    body = written(asked(text("user", "q"), Message("assistant", (call,)), Message("tool", (ToolResult("c", ()),))))

    assert [tool["name"] for tool in body["tools"]] == ["weather"]
    assert body["tool_choice"] == {"type": "none"}


def test_results_keep_their_images_and_whether_they_are_errors() -> None:
    image = ImagePart(Source(data="aGk=", media_type="image/png"))
    result = ToolResult("c", (TextPart("see"), image), is_error=True)
    call = ToolCall("c", "weather", "{}")
    chat = asked(text("user", "q"), Message("assistant", (call,)), Message("tool", (result,)), tools=(WEATHER,))

    block = written(chat)["messages"][2]["content"][0]

    assert block["is_error"] is True
    assert [part["type"] for part in block["content"]] == ["text", "image"]


# -- media -----------------------------------------------------------------------------------------------------


def test_images_go_as_urls_or_as_data_without_a_prefix() -> None:
    parts = (
        ImagePart(Source(url="https://example.com/a.png"), detail="high"),
        ImagePart(Source(data="/9j/4AAQ")),
        ImagePart(Source(data="iVBORw0", media_type="image/png"), cache=CacheMark("1h")),
    )
    translation = told()

    blocks = written(asked(Message("user", parts)), translation)["messages"][0]["content"]

    assert blocks[0]["source"] == {"type": "url", "url": "https://example.com/a.png"}
    assert blocks[1]["source"] == {"type": "base64", "media_type": "image/jpeg", "data": "/9j/4AAQ"}
    assert blocks[2]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert translation.changes["messages[0].content[0].detail"] == "dropped"


@pytest.mark.parametrize(
    "part",
    [
        ImagePart(Source(data="AAAA", media_type="image/tiff")),
        DocumentPart(Source(data="AAAA", media_type="application/msword")),
        OpaquePart("strange", Raw("other", b"{}")),
    ],
    ids=lambda part: type(part).__name__,
)
def test_what_is_not_taken_is_refused_or_left_out(part: Any) -> None:
    chat = attrs.evolve(asked(Message("user", (TextPart("q"), part))), origin=DIFFERENT)

    with pytest.raises(Unsupported) as caught:
        DIALECT.write_chat(MESSAGES, chat, told())
    assert caught.value.param == "messages[0].content[1]"

    dropping = told(drops=True)
    assert len(written(chat, dropping)["messages"][0]["content"]) == 1
    assert dropping.changes["messages[0].content[1]"] == "dropped"


def test_an_image_of_the_assistant_is_refused_or_left_out() -> None:
    image = ImagePart(Source(url="https://example.com/a.png"))
    turn = Message("assistant", (TextPart("drawn"), image))
    chat = attrs.evolve(asked(text("user", "q"), turn, text("user", "again")), origin=DIFFERENT)

    with pytest.raises(Unsupported) as caught:
        DIALECT.write_chat(MESSAGES, chat, told())
    assert caught.value.param == "messages[1].content[1]"

    dropping = told(drops=True)
    assert written(chat, dropping)["messages"][1]["content"] == [{"type": "text", "text": "drawn"}]
    assert dropping.changes["messages[1].content[1]"] == "dropped"


def test_documents_are_pdf_or_text() -> None:
    parts = (
        DocumentPart(Source(data="JVBERi0=", media_type="application/pdf"), title="a.pdf"),
        DocumentPart(Source(data="aGk=", media_type="text/plain")),
        DocumentPart(Source(url="https://example.com/a.pdf")),
    )

    blocks = written(asked(Message("user", parts)))["messages"][0]["content"]

    assert [block["source"]["type"] for block in blocks] == ["base64", "text", "url"]
    assert (blocks[0]["title"], blocks[1]["source"]["data"]) == ("a.pdf", "hi")


# -- parameters ------------------------------------------------------------------------------------------------


def test_a_bound_on_the_answer_is_sent_always() -> None:
    given, configured, known = told(), told(max_output_tokens=77), told()

    assert written(asked(max_output_tokens=5), given)["max_tokens"] == 5
    assert written(asked(), configured)["max_tokens"] == 77
    assert written(asked(model=OLD), known)["max_tokens"] == 8192
    assert "max_output_tokens" not in given.changes
    assert known.changes["max_output_tokens"] == "defaulted"


def test_a_temperature_above_one_is_clamped() -> None:
    translation = told()

    assert written(asked(temperature=1.7), translation)["temperature"] == 1
    assert translation.changes["temperature"] == "clamped"


def test_newer_models_get_no_sampling_at_all() -> None:
    translation = told()

    body = written(asked(model=NEW, temperature=0.2, top_p=0.9, top_k=5), translation)

    assert {"temperature", "top_p", "top_k"}.isdisjoint(body)
    assert [translation.changes[name] for name in ("temperature", "top_p", "top_k")] == ["dropped"] * 3


@pytest.mark.parametrize(("model", "both"), [(OLD, True), (MIDDLE, False)])
def test_top_p_beside_a_temperature_is_for_older_models(model: str, both: bool) -> None:
    assert ("top_p" in written(asked(model=model, temperature=0.5, top_p=0.9))) is both
    assert "top_p" in written(asked(model=model, top_p=0.9))


def test_values_that_ask_for_nothing_are_no_reason_to_refuse() -> None:
    fields: dict[str, Any] = {
        "n": 1,
        "logprobs": False,
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "modalities": ("text",),
    }

    assert written(asked(**fields))["model"] == MIDDLE


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 2), ("logprobs", True), ("frequency_penalty", 0.5), ("seed", 7), ("logit_bias", b'{"1":2}')],
)
def test_what_has_no_form_here_is_refused_with_its_name(field: str, value: Any) -> None:
    with pytest.raises(Unsupported) as caught:
        written(asked(**{field: value}))
    assert caught.value.param == field
    assert "'claude'" in caught.value.message

    dropping = told(drops=True)
    assert field not in written(asked(**{field: value}), dropping)
    assert dropping.changes[field] == "dropped"


def test_advice_is_left_out_and_told() -> None:
    translation = told()

    body = written(asked(store=True, cache_key="k", service_tier="flex", user="u", stop=("END",)), translation)

    assert body["metadata"] == {"user_id": "u"}
    assert body["stop_sequences"] == ["END"]
    assert {"store", "cache_key", "service_tier"}.isdisjoint(body)
    assert [translation.changes[name] for name in ("store", "cache_key", "service_tier")] == ["dropped"] * 3


# -- tools -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice("auto"), {"type": "auto"}),
        (ToolChoice("none"), {"type": "none"}),
        (ToolChoice("required"), {"type": "any"}),
        (ToolChoice("named", ("weather",)), {"type": "tool", "name": "weather"}),
    ],
)
def test_which_tool_must_be_used(choice: ToolChoice, expected: Any) -> None:
    assert written(asked(tools=(WEATHER,), tool_choice=choice))["tool_choice"] == expected


def test_calls_one_at_a_time() -> None:
    body = written(asked(tools=(WEATHER,), parallel_tool_calls=False))

    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "tool_choice" not in written(asked(parallel_tool_calls=False))


def test_of_a_subset_only_its_tools_are_offered() -> None:
    tools, translation = (WEATHER, Tool("news"), Tool("time")), told()

    body = written(asked(tools=tools, tool_choice=ToolChoice("named", ("news", "time"))), translation)

    assert translation.changes["tools"] == "narrowed"
    assert [tool["name"] for tool in body["tools"]] == ["news", "time"]
    assert body["tool_choice"] == {"type": "any"}
    assert body["tools"][0]["input_schema"] == {"type": "object", "properties": {}}


def test_a_strict_tool_has_the_schema_that_strict_ones_take() -> None:
    tool = Tool("pick", parameters=SCHEMA, strict=True)

    new, old = written(asked(tools=(tool,))), written(asked(tools=(tool,), model=OLD))

    assert new["tools"][0]["strict"] is True
    assert new["tools"][0]["input_schema"]["additionalProperties"] is False
    assert "minimum" not in new["tools"][0]["input_schema"]["properties"]["a"]
    assert old["tools"][0] == {"name": "pick", "input_schema": json.loads(SCHEMA)}


def test_a_provider_s_own_tool_is_refused_but_for_the_search_of_the_web() -> None:
    search = BuiltinTool("web_search", Raw("openai-responses", b'{"type":"web_search"}'))
    code = BuiltinTool("code_interpreter", Raw("openai-responses", b'{"type":"code_interpreter"}'))

    assert written(asked(tools=(search,)))["tools"] == [{"type": "web_search_20250305", "name": "web_search"}]
    with pytest.raises(Unsupported, match="code_interpreter"):
        written(asked(tools=(code,)))


def search_of_openai(**members: Any) -> BuiltinTool:
    """As the reader of Responses gives it."""
    said = {"type": "web_search", "search_context_size": "low", **members}
    body = {"model": MIDDLE, "input": "q", "tools": [said]}
    (tool,) = ResponsesDialect().read_chat(CREATE, json.dumps(body).encode()).tools
    assert isinstance(tool, BuiltinTool)
    return tool


def test_a_search_of_the_web_keeps_where_it_may_look_and_for_whom() -> None:
    translation = told()
    search = search_of_openai(
        filters={"allowed_domains": ["example.com"], "blocked_domains": None},
        user_location={"type": "approximate", "country": "FR", "city": None},
        external_web_access=True,
    )

    (tool,) = written(asked(tools=(search,)), translation)["tools"]

    assert tool == {
        "type": "web_search_20250305",
        "name": "web_search",
        "allowed_domains": ["example.com"],
        "user_location": {"type": "approximate", "country": "FR"},
    }
    assert "tools[0].search_context_size" in translation.changes


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"filters": {"blocked_domains": ["example.com"]}}, "filters.blocked_domains"),
        ({"external_web_access": False}, "external_web_access"),
        ({"max_uses": 1}, "max_uses"),
    ],
)
def test_another_limit_of_a_search_is_refused_or_left_out(limits: dict[str, Any], name: str) -> None:
    chat = asked(tools=(search_of_openai(**limits),))

    with pytest.raises(Unsupported) as caught:
        written(chat)
    assert caught.value.param == f"tools[0].{name}"

    dropping = told(drops=True)
    assert written(chat, dropping)["tools"] == [{"type": "web_search_20250305", "name": "web_search"}]
    assert dropping.changes[f"tools[0].{name}"] == "dropped"


def test_a_tool_that_takes_a_text_comes_back_as_one() -> None:
    tool = Tool("patch", "Edits files", kind="custom")
    body = written(asked(tools=(tool,), tool_choice=ToolChoice("named", ("patch",))))
    name = body["tools"][0]["name"]
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MIDDLE,
        "content": [{"type": "tool_use", "id": "t", "name": name, "input": {"text": "*** Begin"}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }

    call = DIALECT.read_reply(MESSAGES, json.dumps(answer).encode()).choices[0].content[0]

    assert body["tool_choice"] == {"type": "tool", "name": name}
    assert call == ToolCall("t", "patch", "*** Begin", "custom")


# -- thinking --------------------------------------------------------------------------------------------------


def thinking(model: str, reasoning: ReasoningConfig, **fields: Any) -> tuple[Any, Any, dict[str, str]]:
    translation = told()
    body = written(asked(model=model, reasoning=reasoning, **fields), translation)
    return body.get("thinking"), body.get("output_config"), translation.changes


def test_models_that_count_get_a_budget_below_their_bound() -> None:
    assert thinking(MIDDLE, ReasoningConfig("low"))[0] == {"type": "enabled", "budget_tokens": 2048}
    assert thinking(MIDDLE, ReasoningConfig(budget_tokens=500))[0] == {"type": "enabled", "budget_tokens": 1024}
    found, _, changes = thinking(MIDDLE, ReasoningConfig("high"), max_output_tokens=4000)
    assert (found, changes["reasoning"]) == ({"type": "enabled", "budget_tokens": 3000}, "clamped")
    found, _, changes = thinking(MIDDLE, ReasoningConfig("high"), max_output_tokens=1000)
    assert (found, changes["reasoning"]) == (None, "dropped")


def test_models_that_adapt_get_an_effort_they_know() -> None:
    assert thinking(NEW, ReasoningConfig("xhigh"))[:2] == ({"type": "adaptive"}, {"effort": "xhigh"})
    found, config, changes = thinking("claude-opus-4-6", ReasoningConfig("xhigh"))
    assert (found, config, changes["reasoning"]) == ({"type": "adaptive"}, {"effort": "high"}, "clamped")
    assert thinking(NEW, ReasoningConfig(budget_tokens=5000))[:2] == ({"type": "adaptive"}, {"effort": "medium"})
    assert thinking(NEW, ReasoningConfig(include=True))[0] == {"type": "adaptive", "display": "summarized"}


def test_thinking_can_be_switched_off() -> None:
    assert thinking(NEW, ReasoningConfig("none"))[0] == {"type": "disabled"}
    assert thinking(OLD, ReasoningConfig("none"))[0] is None


def test_a_model_that_always_thinks_is_asked_to_think_little() -> None:
    found, config, changes = thinking("claude-mythos-5", ReasoningConfig("none"))

    assert (found, config, changes["reasoning"]) == (None, {"effort": "low"}, "clamped")


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("claude-3-5-sonnet-20241022", (3, 5)),
        ("claude-3-opus-20240229", (3, 0)),
        ("claude-sonnet-4-20250514", (4, 0)),
        ("claude-haiku-4-5-20251001", (4, 5)),
        ("anthropic/claude-opus-4.6", (4, 6)),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", (4, 5)),
        ("claude-fable-5-2", (5, 2)),
        ("claude-2.1", (2, 1)),
        ("claude-opus-latest", (99, 0)),
        ("gpt-4o", None),
        (None, None),
    ],
)
def test_the_version_of_a_model_is_in_its_name(name: str | None, version: tuple[int, int] | None) -> None:
    assert claude(name).version == version


def test_a_model_that_cannot_think_is_not_asked_to() -> None:
    with pytest.raises(Unsupported, match="thinking"):
        thinking(OLD, ReasoningConfig("high"))


def test_a_tool_that_must_be_called_goes_before_thinking_in_a_budget() -> None:
    forced = {"tools": (WEATHER,), "tool_choice": ToolChoice("required")}

    assert thinking(MIDDLE, ReasoningConfig("low"), **forced)[0] is None
    assert thinking(NEW, ReasoningConfig("low"), **forced)[0] == {"type": "adaptive"}


def test_with_thinking_the_temperature_is_one() -> None:
    body = written(asked(reasoning=ReasoningConfig("low"), temperature=0.3, top_k=4))

    assert {"temperature", "top_k"}.isdisjoint(body)


def test_a_tool_loop_that_began_without_our_thinking_goes_on_without() -> None:
    call, result = ToolCall("c", "weather", "{}"), Message("tool", (ToolResult("c", ()),))
    ours = ReasoningPart("hm", signature="s", provider="anthropic")
    for first, thinks in ((ours, True), (ReasoningPart("hm", signature="s", provider="gemini"), False)):
        messages = (text("user", "q"), Message("assistant", (first, call)), result)

        body = written(asked(*messages, reasoning=ReasoningConfig("low"), tools=(WEATHER,)))

        assert ("thinking" in body) is thinks


def test_a_turn_that_the_client_began_goes_on_without_a_budget_for_thinking() -> None:
    for last, thinks in ((text("assistant", "It is"), False), (text("user", "go on"), True)):
        translation = told()
        chat = asked(text("user", "q"), last, text("system", "s"), reasoning=ReasoningConfig("low"), temperature=0.3)

        body = written(chat, translation)

        assert ("thinking" in body) is thinks
        assert (translation.changes.get("reasoning") == "dropped") is not thinks
        assert ("temperature" in body) is not thinks


def test_only_our_own_signatures_are_sent() -> None:
    parts = (
        ReasoningPart("one", signature="s1", provider="anthropic"),
        ReasoningPart("", redacted="r", provider="anthropic"),
        ReasoningPart("two", signature="s2", provider="gemini"),
        ReasoningPart("three"),
        TextPart("said"),
    )

    blocks = written(asked(text("user", "q"), Message("assistant", parts)))["messages"][1]["content"]

    assert blocks == [
        {"type": "thinking", "thinking": "one", "signature": "s1"},
        {"type": "redacted_thinking", "data": "r"},
        {"type": "text", "text": "said"},
    ]


# -- the form of the answer --------------------------------------------------------------------------------------


def test_a_schema_is_asked_for_where_the_model_takes_one() -> None:
    translation = told()

    body = written(asked(response_format=ResponseFormat("json_schema", "a", SCHEMA)), translation)

    form = body["output_config"]["format"]
    assert form["type"] == "json_schema"
    assert form["schema"]["additionalProperties"] is False
    assert "minimum: 1" in form["schema"]["properties"]["a"]["description"]
    assert translation.changes["response_format"] == "cleaned"


def test_elsewhere_a_tool_is_the_answer_and_comes_back_as_text() -> None:
    body = written(asked(model=OLD, response_format=ResponseFormat("json_schema", "a", SCHEMA)))
    name = body["tools"][0]["name"]
    block = {"type": "tool_use", "id": "t", "name": name, "input": {"a": 1}}
    answer: dict[str, Any] = {"id": "m", "type": "message", "role": "assistant", "model": OLD, "content": [block]}
    answer |= {"stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 1}}

    reply = DIALECT.read_reply(MESSAGES, json.dumps(answer).encode())

    assert body["tool_choice"] == {"type": "tool", "name": name, "disable_parallel_tool_use": True}
    assert json.loads(reply.text) == {"a": 1}
    assert reply.choices[0].finish is not None
    assert reply.choices[0].finish.reason == "stop"


def test_other_tools_may_be_called_before_the_answer() -> None:
    wanted = ResponseFormat("json_schema", "a", SCHEMA)

    body = written(asked(model=OLD, response_format=wanted, tools=(WEATHER,)))

    assert len(body["tools"]) == 2
    assert body["tool_choice"]["type"] == "any"


@pytest.mark.parametrize(
    ("choice", "word"),
    [
        (ToolChoice("named", ("weather",)), "converted"),
        (ToolChoice("required"), "converted"),
        (ToolChoice("auto"), None),
        (ToolChoice("none"), None),
    ],
)
def test_that_a_tool_must_be_called_before_the_answer_cannot_be_said(choice: ToolChoice, word: str | None) -> None:
    translation, wanted = told(), ResponseFormat("json_schema", "a", SCHEMA)

    written(asked(model=OLD, response_format=wanted, tools=(WEATHER,), tool_choice=choice), translation)

    assert translation.changes.get("tool_choice") == word


def test_any_json_at_all_is_asked_for_in_words() -> None:
    translation = told()

    chat = asked(text("system", "s"), text("user", "q"), response_format=ResponseFormat("json_object"))
    body = written(chat, translation)

    assert "JSON" in body["system"][1]["text"]
    assert translation.changes["response_format"] == "prompted"


# -- counting --------------------------------------------------------------------------------------------------


def test_a_request_to_count_has_nothing_that_is_not_counted() -> None:
    chat = asked(text("system", "s"), text("user", "q"), temperature=0.5, max_output_tokens=3, stop=("x",), stream=True)

    body = json.loads(DIALECT.write_chat(COUNT_TOKENS, chat, told()))

    assert set(body) == {"model", "system", "messages"}


# -- clients of ours, with other providers behind them -----------------------------------------------------------


def read(**members: Any) -> ChatRequest:
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "q"}], **members}
    return DIALECT.read_chat(MESSAGES, json.dumps(body).encode())


def test_the_seals_of_others_are_opened() -> None:
    call_signature = seal(Carried("gemini", signature="g", of_call=True))
    blocks = [
        {
            "type": "thinking",
            "thinking": "hm",
            "signature": seal(Carried("openai-responses", encrypted="e", id="rs_1")),
        },
        {"type": "redacted_thinking", "data": call_signature},
        {"type": "tool_use", "id": "t", "name": "weather", "input": {}},
    ]

    parts = read(messages=[{"role": "assistant", "content": blocks}]).messages[0].content

    assert parts == (
        ReasoningPart("hm", id="rs_1", encrypted="e", provider="openai-responses"),
        ToolCall("t", "weather", "{}", signature="g"),
    )


@pytest.mark.parametrize(("asked", "sent"), [("auto", "auto"), ("standard_only", "default")])
@pytest.mark.parametrize("dialect", [OpenAIDialect(), ResponsesDialect()])
def test_a_tier_is_asked_for_in_openais_word_and_comes_back(dialect: Any, asked: str, sent: str) -> None:
    chat = attrs.evolve(read(service_tier=asked), model="gpt-5")
    body = dialect.write_chat(dialect.apis[0], chat, Translation(llm="o"))
    assert json.loads(body)["service_tier"] == sent

    back = attrs.evolve(dialect.read_chat(dialect.apis[0], body), model="claude-sonnet-4-5")
    again = DIALECT.write_chat(MESSAGES, back, Translation(llm="c", drops=True))
    assert json.loads(again)["service_tier"] == asked


@pytest.mark.parametrize(
    ("told", "openais"), [("standard", "default"), ("priority", "priority"), ("batch", "batch"), (None, "default")]
)
def test_the_tier_that_answered_crosses_both_ways(told: str | None, openais: str) -> None:
    usage = {"input_tokens": 1, "output_tokens": 1, "service_tier": told}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "usage": usage}
    body = json.dumps(message | {"stop_reason": "end_turn", "stop_sequence": None}).encode()
    ours, others = DIALECT, ResponsesDialect()
    whole = ours.read_reply(MESSAGES, body)
    foreign = attrs.evolve(whole, origin=None)

    there = others.write_reply(others.apis[0], foreign)
    streamed = b"".join(others.writer(others.apis[0], usage=True).write(events_of(foreign), None).splitlines(True)[-2:])
    assert json.loads(there)["service_tier"] == openais
    assert json.loads(streamed.partition(b"data: ")[2])["response"]["service_tier"] == openais

    back = attrs.evolve(others.read_reply(others.apis[0], there), origin=None)
    assert json.loads(ours.write_reply(MESSAGES, back))["usage"].get("service_tier") == (told or "standard")


def test_thinking_is_read_in_all_its_forms() -> None:
    def reasoning(thinking: Any, **config: Any) -> ReasoningConfig | None:
        return read(thinking=thinking, **({"output_config": config} if config else {})).reasoning

    assert reasoning({"type": "enabled", "budget_tokens": 2000}) == ReasoningConfig(budget_tokens=2000, include=True)
    assert reasoning({"type": "adaptive"}) == ReasoningConfig(adaptive=True)
    assert reasoning({"type": "adaptive", "display": "omitted"}, effort="max") == ReasoningConfig("max", include=False)
    assert reasoning({"type": "disabled"}, effort="high") == ReasoningConfig("none")
    assert reasoning({"type": "between_tools"}) == ReasoningConfig(between_tools=True)


@pytest.mark.parametrize(
    ("blocks", "begun"),
    [
        ("The answer is", True),
        ([{"type": "text", "text": "The answer is"}], True),
        ([{"type": "text", "text": "x"}, {"type": "tool_use", "id": "t", "name": "weather", "input": {}}], False),
        ([{"type": "redacted_thinking", "data": "x"}], False),
        ("", False),
    ],
    ids=["string", "block", "with a call", "only thinking", "empty"],
)
def test_a_text_of_the_assistant_at_the_end_is_to_be_continued(blocks: Any, begun: bool) -> None:
    turns = [{"role": role, "content": blocks if role == "assistant" else "q"} for role in ("assistant", "user")]
    *_, before, _, last = read(messages=[*turns, turns[0]]).messages

    assert (before.prefix, last.prefix) == (False, begun)


def test_a_wrong_type_is_named_with_its_place() -> None:
    for members, place in (
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"tools": [{"description": "x"}]}, "tools[0].name"),
        ({"messages": None}, "messages"),
    ):
        with pytest.raises(BadRequest) as caught:
            read(**members)
        assert caught.value.param == place


DIFFERENT = ChatOrigin("another", {}, asked())
