"""The fakes refuse what the real providers refuse: one row for each rule that a translation could break."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.providers.anthropic import Anthropic
from tests.providers.anthropic_request import SIGNATURE
from tests.providers.gemini import Gemini
from tests.providers.mistral import Mistral
from tests.providers.openai import OpenAI
from tests.providers.openai_responses import OpenAIResponses
from tests.providers.scenario import CALLS, RESULTS, THOUGHT, TOOLS
from tests.providers.server import CALLERS_KEY, FakeProvider, Plain, Received, Stream

JSON = dict[str, Any]
Change = Callable[[JSON], object]


def _chat_tools() -> list[JSON]:
    return [{"type": "function", "function": {"name": name, "parameters": schema}} for name, _, schema in TOOLS]


def _chat(model: str, ids: tuple[str, str]) -> JSON:
    """A conversation that has come to the results of both calls."""
    calls = [
        {"id": each, "type": "function", "function": {"name": call.name, "arguments": call.text}}
        for each, call in zip(ids, CALLS, strict=True)
    ]
    results = [
        {"role": "tool", "tool_call_id": each, "content": RESULTS[call.name]}
        for each, call in zip(ids, CALLS, strict=True)
    ]
    asked = {"role": "user", "content": "Hello [tools]"}
    turns = [asked, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    return {"model": model, "messages": turns, "tools": _chat_tools()}


OPENAI = ("/v1/chat/completions", _chat("gpt-4.1", ("call_1", "call_2")))
MISTRAL = ("/v1/chat/completions", _chat("mistral-large-latest", ("callCall1", "callCall2")))
RESPONSES = (
    "/v1/responses",
    {
        "model": "gpt-4.1",
        "input": [
            {"role": "user", "content": "Hello [tools]"},
            *[
                {"type": "function_call", "call_id": f"call_{call.name[4:]}", "name": call.name, "arguments": call.text}
                for call in CALLS
            ],
            *[
                {"type": "function_call_output", "call_id": f"call_{call.name[4:]}", "output": RESULTS[call.name]}
                for call in CALLS
            ],
        ],
        "tools": [
            {"type": "function", "name": name, "parameters": schema, "strict": True} for name, _, schema in TOOLS
        ],
    },
)
ANTHROPIC = (
    "/v1/messages",
    {
        "model": "claude-sonnet-4-6",
        "max_tokens": 4096,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [
            {"role": "user", "content": "Hello [thinking_tools]"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE},
                    *[
                        {"type": "tool_use", "id": call.name, "name": call.name, "input": dict(call.arguments)}
                        for call in CALLS
                    ],
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": call.name, "content": RESULTS[call.name]} for call in CALLS
                ],
            },
        ],
        "tools": [{"name": name, "input_schema": schema} for name, _, schema in TOOLS],
    },
)
GEMINI = (
    "/v1beta/models/gemini-2.5-flash:generateContent",
    {
        "contents": [
            {"role": "user", "parts": [{"text": "Hello [tools]"}]},
            {
                "role": "model",
                "parts": [{"functionCall": {"name": call.name, "args": dict(call.arguments)}} for call in CALLS],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": call.name, "response": {"result": RESULTS[call.name]}}}
                    for call in CALLS
                ],
            },
        ],
        "tools": [
            {"functionDeclarations": [{"name": name, "parametersJsonSchema": schema} for name, _, schema in TOOLS]}
        ],
        "generationConfig": {"temperature": 1},
    },
)
GOOD: dict[type[FakeProvider], tuple[str, JSON]] = {
    OpenAI: OPENAI,
    OpenAIResponses: RESPONSES,
    Anthropic: ANTHROPIC,
    Gemini: GEMINI,
    Mistral: MISTRAL,
}


def _ask(fake: FakeProvider, path: str, body: JSON, **headers: str) -> Plain | Stream:
    keys = {"authorization": f"Bearer {fake.key}"}
    if isinstance(fake, Gemini):
        keys = {"x-goog-api-key": fake.key}
    if isinstance(fake, Anthropic):
        keys = {"x-api-key": fake.key, "anthropic-version": "2023-06-01"}
    return fake.answer(Received("POST", path, {}, {**keys, **headers}, json.dumps(body).encode()))


@pytest.mark.parametrize("kind", GOOD)
def test_a_fake_answers_what_is_right(kind: type[FakeProvider]) -> None:
    fake = kind()

    answer = _ask(fake, *GOOD[kind])

    assert isinstance(answer, Plain)
    assert answer.status == 200, fake.refusals
    assert "10:30" in json.dumps(answer.body)


def _set(path: str, value: object) -> Change:
    """Put *value* where *path* leads: names and indexes with dots between."""

    def change(body: JSON) -> None:
        *ways, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
        at: Any = body
        for way in ways:
            at = at[way]
        at[last] = value

    return change


def _remove(path: str) -> Change:
    def change(body: JSON) -> None:
        *ways, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
        at: Any = body
        for way in ways:
            at = at[way]
        del at[last]

    return change


def _reasoning(encrypted: str) -> JSON:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": encrypted}


def _text(text: str) -> JSON:
    return {"type": "text", "text": text}


def _both() -> JSON:
    return {"thinkingBudget": 100, "thinkingLevel": "LOW"}


def _declared() -> JSON:
    return {"name": "get_weather", "parameters": {"type": "object", "additionalProperties": False}}


def _rename(body: JSON, to: str) -> None:
    body["messages"][1]["tool_calls"][0]["id"] = to
    body["messages"][2]["tool_call_id"] = to


WRONG: list[tuple[type[FakeProvider], str, Change]] = [
    (OpenAI, "an unknown field", _set("top_k", 3)),
    (OpenAI, "options of a stream without one", _set("stream_options", {"include_usage": True})),
    (OpenAI, "a result without its call", _set("messages.2.tool_call_id", "call_9")),
    (OpenAI, "a call without its result", _remove("messages.2")),
    (OpenAI, "arguments that are an object", _set("messages.1.tool_calls.0.function.arguments", {})),
    (OpenAI, "a foreign id of a call", _set("messages.1.tool_calls.0.id", "toolu_1")),
    (OpenAI, "an empty message", _set("messages.0.content", "")),
    (OpenAI, "a member of another protocol in a message", _set("messages.1.reasoning_content", "x")),
    (OpenAI, "max_tokens to a model that thinks", lambda body: body.update(model="o4-mini", max_tokens=5)),
    (OpenAI, "a choice without tools", lambda body: (body.pop("tools"), body.update(tool_choice="auto"))),
    (OpenAIResponses, "an unknown field", _set("messages", [])),
    (OpenAIResponses, "a cap below the least", _set("max_output_tokens", 5)),
    (OpenAIResponses, "an output without its call", _set("input.3.call_id", "call_9")),
    (OpenAIResponses, "a call without output", _remove("input.3")),
    (OpenAIResponses, "reasoning of another provider", lambda body: body["input"].insert(1, _reasoning("x"))),
    (OpenAIResponses, "the parts of chat completions", _set("input.0.content", [{"type": "text", "text": "[tools]"}])),
    (OpenAIResponses, "an open schema in strict mode", _set("tools.0.parameters", {"type": "object"})),
    (Anthropic, "no max_tokens", _remove("max_tokens")),
    (Anthropic, "an unknown field", _set("frequency_penalty", 0)),
    (Anthropic, "a temperature above the highest", _set("temperature", 1.5)),
    (Anthropic, "a temperature beside thinking", _set("temperature", 0.5)),
    (Anthropic, "a budget above max_tokens", _set("thinking.budget_tokens", 5000)),
    (Anthropic, "a forced tool beside thinking", _set("tool_choice", {"type": "any"})),
    (Anthropic, "calls without the thought before them", _remove("messages.1.content.0")),
    (Anthropic, "the signature of another provider", _set("messages.1.content.0.signature", "x")),
    (Anthropic, "a call without its result", _remove("messages.2.content.0")),
    (Anthropic, "an assistant first", _remove("messages.0")),
    (Anthropic, "no tools but calls", _remove("tools")),
    (Anthropic, "text before results", lambda body: body["messages"][2]["content"].insert(0, _text("and"))),
    (Anthropic, "an empty text", lambda body: body["messages"][2]["content"].append(_text(" "))),
    (Anthropic, "a system message in the list", _set("messages.0.role", "system")),
    (Gemini, "an unknown field", _set("model_name", "x")),
    (Gemini, "an unknown setting", _set("generationConfig.logitBias", {})),
    (Gemini, "both ways to say how long to think", _set("generationConfig.thinkingConfig", _both())),
    (Gemini, "JSON Schema where OpenAPI is meant", _set("tools.0.functionDeclarations.0", _declared())),
    (Gemini, "fewer responses than calls", _remove("contents.2.parts.1")),
    (Gemini, "a response to another function", _set("contents.2.parts.0.functionResponse.name", "x")),
    (Gemini, "a response that is no object", _set("contents.2.parts.0.functionResponse.response", "12 °C")),
    (Gemini, "a signature of another provider", _set("contents.1.parts.0.thoughtSignature", "eA==")),
    (Gemini, "empty parts", _set("contents.0.parts", [])),
    (Mistral, "an unknown field", _set("max_completion_tokens", 5)),
    (Mistral, "a temperature above the highest", _set("temperature", 1.8)),
    (Mistral, "options of a stream", lambda body: body.update(stream=True, stream_options={"include_usage": True})),
    (Mistral, "an id of another form", lambda body: _rename(body, "call_1")),
    (Mistral, "an assistant last", lambda body: body["messages"].append({"role": "assistant", "content": "Well"})),
]


@pytest.mark.parametrize(("kind", "what", "change"), WRONG, ids=[f"{kind.name}: {what}" for kind, what, _ in WRONG])
def test_a_fake_refuses_what_is_wrong(kind: type[FakeProvider], what: str, change: Change) -> None:
    fake = kind()
    path, body = copy.deepcopy(GOOD[kind])
    change(body)

    answer = _ask(fake, path, body)

    assert isinstance(answer, Plain)
    assert answer.status in (400, 422)
    assert [refusal.kind for refusal in fake.refusals] == ["invalid"]


def test_gemini_3_wants_its_signature_back_with_the_first_call() -> None:
    fake = Gemini()
    path, body = GOOD[Gemini]

    answer = _ask(fake, path.replace("gemini-2.5-flash", "gemini-3-pro-preview"), body)

    assert isinstance(answer, Plain)
    assert answer.status == 400
    assert "thought_signature" in fake.refusals[0].message


@pytest.mark.parametrize("kind", GOOD)
def test_no_fake_takes_the_key_of_the_caller(kind: type[FakeProvider]) -> None:
    fake = kind()
    path, body = GOOD[kind]

    answer = _ask(fake, path, body, **{"x-other": CALLERS_KEY})

    assert isinstance(answer, Plain)
    assert answer.status in (400, 422)


def test_sampling_is_refused_by_the_newest_version_of_anthropics_api() -> None:
    fake = Anthropic()
    path, body = copy.deepcopy(GOOD[Anthropic])
    body["temperature"] = 1

    answers = [_ask(fake, path, body, **{"anthropic-version": each}) for each in ("2023-06-01", "2026-10-21")]

    assert [answer.status for answer in answers if isinstance(answer, Plain)] == [200, 400]
