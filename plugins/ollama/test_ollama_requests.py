"""Requests: what members mean, what becomes of what other protocols say, and what of Ollama's others are not told."""

import json
from typing import Any

import attrs
import pytest
from llmproxy_ollama.apis import CHAT, EMBED, TAGS
from llmproxy_ollama.dialect import OllamaDialect

from llmproxy_core import BadRequest, EmbeddingsRequest, Translation, Unsupported
from llmproxy_core.chat import (
    ChatOrigin,
    ChatRequest,
    ImagePart,
    Message,
    Part,
    ReasoningConfig,
    ReasoningPart,
    ResponseFormat,
    Source,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    changed,
)

OLLAMA = OllamaDialect()
WEATHER, TIME = Tool("weather"), Tool("time")
HELLO = Message("user", (TextPart("Hello"),))


def read(**members: object) -> ChatRequest:
    body = {"model": "qwen3", "messages": [{"role": "user", "content": "Hello"}], **members}
    return OLLAMA.read_chat(CHAT, json.dumps(body).encode())


def written(chat: ChatRequest, translation: Translation | None = None) -> Any:
    return json.loads(OLLAMA.write_chat(CHAT, chat, translation))


@pytest.mark.parametrize(
    ("think", "meaning"),
    [
        (True, ReasoningConfig(budget_tokens=-1, include=True)),
        (False, ReasoningConfig("none")),
        ("high", ReasoningConfig("high", include=True)),
        (None, None),
    ],
)
def test_how_much_to_think_is_understood_and_said_again(think: object, meaning: ReasoningConfig | None) -> None:
    chat = read(think=think)

    assert chat.reasoning == meaning
    assert written(ChatRequest("qwen3", (HELLO,), reasoning=chat.reasoning)).get("think") == think


@pytest.mark.parametrize(
    ("asked", "think", "told"),
    [
        (ReasoningConfig("minimal"), "low", "reasoning=converted"),
        (ReasoningConfig("xhigh"), "max", "reasoning=converted"),
        (ReasoningConfig(budget_tokens=2_048), True, "reasoning=converted"),
        (ReasoningConfig(budget_tokens=0), False, ""),
        (ReasoningConfig(adaptive=True), True, ""),
        (ReasoningConfig(summary="auto"), None, ""),
    ],
)
def test_other_measures_of_thinking_become_near_ones(asked: ReasoningConfig, think: object, told: str) -> None:
    translation = Translation()

    body = written(ChatRequest("qwen3", (HELLO,), reasoning=asked), translation)

    assert (body.get("think"), translation.summary()) == (think, told)


@pytest.mark.parametrize(
    ("form", "meaning"),
    [
        ("json", ResponseFormat("json_object")),
        ("", None),
        ({"type": "object"}, ResponseFormat("json_schema", schema=b'{"type": "object"}')),
    ],
)
def test_formats_are_understood(form: object, meaning: ResponseFormat | None) -> None:
    assert read(format=form).response_format == meaning


@pytest.mark.parametrize(
    ("members", "place"),
    [
        ({"format": "xml"}, "format"),
        ({"think": 3}, "think"),
        ({"options": {"top_k": "many"}}, "options.top_k"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]}, None),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_what_is_no_request_is_refused_by_its_place(members: dict[str, object], place: str | None) -> None:
    with pytest.raises(BadRequest) as refused:
        read(**members)

    assert refused.value.param == (place or "messages[0].tool_calls[0].function.arguments")


def test_options_are_changed_in_their_place() -> None:
    body = b'{"model":"m", "options" : {"num_ctx":  4096, "temperature": 0.50, "stop": "END"}, "messages":[]}'
    chat = OLLAMA.read_chat(CHAT, body)

    out = OLLAMA.write_chat(CHAT, attrs.evolve(chat, temperature=0.25, max_output_tokens=9))

    assert out == body.replace(b"0.50", b"0.25").replace(b'"END"', b'"END","num_predict":9')


def test_no_bound_on_the_output_is_none() -> None:
    assert read(options={"num_predict": -1}).max_output_tokens is None


def test_what_only_machines_need_is_not_told_to_others() -> None:
    chat = read(keep_alive="5m", options={"num_ctx": 8192, "num_gpu": 1, "mirostat": 1})

    assert list(chat.extra) == ["options.mirostat"]


@pytest.mark.parametrize(
    ("choice", "tools", "told"),
    [
        (ToolChoice("auto"), ["weather", "time"], ""),
        (ToolChoice("none"), [], "tools=omitted"),
        (ToolChoice("allowed", ("time",)), ["time"], "tools=narrowed"),
        (ToolChoice("required"), ["weather", "time"], "tool_choice=dropped"),
        (ToolChoice("named", ("time",)), ["weather", "time"], "tool_choice=dropped"),
    ],
)
def test_a_choice_of_tools_is_said_as_far_as_it_can_be(choice: ToolChoice, tools: list[str], told: str) -> None:
    chat = ChatRequest("qwen3", (HELLO,), tools=(WEATHER, TIME), tool_choice=choice)
    translation = Translation(drops=True)

    body = written(chat, translation)

    assert [tool["function"]["name"] for tool in body.get("tools", [])] == tools
    assert translation.summary() == told
    if "dropped" in told:
        with pytest.raises(Unsupported, match="tool_choice"):
            written(chat, Translation())


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ('{"city":\n "Köln"}', {"city": "Köln"}),
        ("", {}),
        ("rain", {"arguments": "rain"}),
        ("[1]", {"arguments": "[1]"}),
    ],
)
def test_arguments_become_an_object(arguments: str, sent: object) -> None:
    call = ToolCall("call_1", "weather", arguments)
    body = written(ChatRequest("qwen3", (HELLO, Message("assistant", (call,)))), Translation())

    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == sent


def test_ids_that_were_made_are_not_sent_to_where_they_were_not() -> None:
    call = {"function": {"name": "weather", "arguments": {}}}
    result = {"role": "tool", "content": "Rain", "tool_name": "weather"}
    chat = read(messages=[{"role": "assistant", "content": "", "tool_calls": [call]}, result])
    [told] = chat.messages[1].content
    assert isinstance(told, ToolResult)
    edited = attrs.evolve(chat.messages[1], content=(attrs.evolve(told, content=(TextPart("Sun"),)),))

    body = written(attrs.evolve(chat, messages=(chat.messages[0], edited)))

    assert told.call_id
    assert body["messages"][1] == result | {"content": "Sun"}


@pytest.mark.parametrize(
    ("parts", "message", "told"),
    [
        (
            (ImagePart(Source(data="iVBORw0KGgo=")), TextPart("What?")),
            {"role": "user", "content": "What?", "images": ["iVBORw0KGgo="]},
            "messages[0]=reordered",
        ),
        (
            (TextPart("What?"), ImagePart(Source(url="https://example.com/a.png"))),
            {"role": "user", "content": "What?"},
            "messages[0].content[1]=dropped",
        ),
        (
            (ReasoningPart("Hm", signature="c2ln", provider="anthropic"), TextPart("So.")),
            {"role": "user", "content": "So."},
            "",
        ),
    ],
)
def test_parts_find_their_places(parts: tuple[Part, ...], message: object, told: str) -> None:
    translation = Translation(drops=True)

    body = written(ChatRequest("qwen3", (Message("user", parts),)), translation)

    assert (body["messages"], translation.summary()) == ([message], told)


@pytest.mark.parametrize(
    ("changes", "place"),
    [({"n": 2}, "n"), ({"modalities": ("text", "audio")}, "modalities")],
)
def test_what_cannot_be_said_is_refused(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(Unsupported) as refused:
        written(ChatRequest("qwen3", (HELLO,), **changes), Translation())

    assert refused.value.param == place


def test_that_calls_come_one_at_a_time_is_a_wish_that_cannot_be_told() -> None:
    translation = Translation()

    body = written(ChatRequest("qwen3", (HELLO,), parallel_tool_calls=False, tools=(WEATHER,)), translation)

    assert translation.changes == {"parallel_tool_calls": "dropped"}
    assert "parallel_tool_calls" not in body


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (None, {"tools[0]": "converted"}),
        (b'{"type":"text"}', {"tools[0]": "converted"}),
        (b'{"type":"grammar","syntax":"lark"}', {"tools[0]": "converted", "tools[0].format": "dropped"}),
    ],
)
def test_a_tool_that_takes_a_text_is_one_with_one_member(form: bytes | None, told: dict[str, str]) -> None:
    patch = Tool("patch", "Patches.", kind="custom", format=form)
    history = (
        HELLO,
        Message("assistant", (ToolCall("c1", "patch", "*** Begin", "custom"),)),
        Message("tool", (ToolResult("c1", (TextPart("Done."),)),)),
    )
    translation = Translation()

    chat = ChatRequest("qwen3", history, tools=(patch,))

    body = written(changed(chat, origin=ChatOrigin("openai.chat", {}, chat)), translation)

    function = body["tools"][0]["function"]
    assert (function["name"], function["description"]) == ("llmproxy_text_patch", "Patches.")
    assert list(function["parameters"]["properties"]) == ["text"]
    called = {"name": "llmproxy_text_patch", "arguments": {"text": "*** Begin"}}
    assert body["messages"][1]["tool_calls"] == [{"id": "c1", "function": called}]
    assert body["messages"][2]["tool_name"] == "llmproxy_text_patch"
    assert translation.changes == told


def test_what_asks_for_nothing_special_is_taken() -> None:
    chat = ChatRequest("qwen3", (HELLO,), n=1, modalities=("text",), parallel_tool_calls=True, tools=(WEATHER,))
    translation = Translation()

    written(chat, translation)

    assert translation.summary() == ""


def test_places_are_told_in_the_words_of_clients() -> None:
    assert {OLLAMA.field_names[name] for name in ("max_output_tokens", "reasoning", "response_format")} == {
        "options.num_predict",
        "think",
        "format",
    }


def test_texts_to_embed_stand_alone_or_in_a_list() -> None:
    one = OLLAMA.read_embeddings(EMBED, b'{"model":"nomic","input":"a","keep_alive":0,"options":{"num_ctx":1}}')
    two = OLLAMA.read_embeddings(EMBED, b'{"model":"nomic","input":["a","b"],"dimensions":3,"strange":1}')

    assert one == EmbeddingsRequest("nomic", ("a",))
    assert two == EmbeddingsRequest("nomic", ("a", "b"), 3, extra=("strange",))


def test_embeddings_never_stream() -> None:
    body = b'{"model":"nomic","input":"a"}'

    assert not OLLAMA.read_head(EMBED, body).stream
    assert OLLAMA.prepare(EMBED, body, model="other", stream=False) == body.replace(b"nomic", b"other")


def test_models_have_their_time() -> None:
    time = b'"modified_at":"2025-10-03T23:34:03.409490317-07:00"'
    body = b'{"models":[{"name":"a:latest","model":"a:latest",%b},{"name":"b"}]}' % time

    models = OLLAMA.read_models(TAGS, body)

    assert [(model.id, model.created) for model in models] == [("a:latest", 1_759_559_643), ("b", None)]
