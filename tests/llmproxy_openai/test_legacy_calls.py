"""Clients that offer `functions`, the form before `tools`, get `function_call` back, whoever answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import llmproxy_anthropic
import llmproxy_gemini
import llmproxy_mistral
import pytest

from llmproxy_core.chat import ChatEvent, Finish, Finished, FinishReason, TextDelta, ToolCallDelta, ToolCallStart
from llmproxy_core.testing.grammar import check_stream
from tests.answering import Answering
from tests.exact import post
from tests.proxy import Proxy
from tests.speaking import Speaker, llm_at
from tests.upstream import Upstream

PLUGINS = (llmproxy_anthropic, llmproxy_gemini, llmproxy_mistral)
OTHERS = ["openai-responses", "anthropic", "gemini", "mistral"]
MODES = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
DONE = Finished(0, Finish(FinishReason.TOOL_CALLS))
CALL: list[ChatEvent] = [ToolCallStart(0, 0, "a12345678", "f"), ToolCallDelta(0, 0, '{"a":'), ToolCallDelta(0, 0, "1}")]
OFFERED = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
ASKED: dict[str, Any] = {
    "model": "m",
    "max_tokens": 99,
    "messages": [{"role": "user", "content": "hi"}],
    "functions": [OFFERED],
}


async def answered(llm: str, said: Sequence[ChatEvent], *, stream: bool, **asked: Any) -> tuple[dict[str, Any], str]:
    """The first choice's message, and why it ended."""
    async with Upstream(Answering(Speaker(llm), stream, said).complete()) as upstream:
        route = {"path_prefix": "/", "target_llm": "main"}
        mapping = {"llm": {"main": llm_at(llm, upstream.url)}, "route": [route]}
        async with Proxy(mapping, plugins=PLUGINS) as proxy:
            body = json.dumps(ASKED | {"stream": stream} | asked).encode()
            seen = await post(proxy.url + "/v1/chat/completions", body, [("user-agent", "OpenAI/Python 2.0")])
    assert seen.status == 200, seen.body
    return _streamed(seen.body) if stream else _whole(seen.body)


def _whole(body: bytes) -> tuple[dict[str, Any], str]:
    choice = json.loads(body)["choices"][0]
    return choice["message"], choice["finish_reason"]


def _streamed(body: bytes) -> tuple[dict[str, Any], str]:
    """The message as the official SDKs put it together: names and arguments are added up."""
    assert not check_stream("openai", body)
    chunks = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    message: dict[str, Any] = {}
    ends = []
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        ends.append(choice["finish_reason"])
        delta = choice["delta"]
        for name, piece in delta.pop("function_call", {}).items():
            call = message.setdefault("function_call", {"name": "", "arguments": ""})
            call[name] += piece
        message["content"] = (message.get("content") or "") + (delta.pop("content", None) or "")
        message |= delta
    assert ends[:-1] == [None] * (len(ends) - 1)
    return message, ends[-1]


@MODES
@pytest.mark.parametrize("llm", OTHERS)
async def test_a_call_comes_in_the_form_that_was_offered(llm: str, stream: bool) -> None:
    message, end = await answered(llm, [*CALL, DONE], stream=stream)
    assert json.loads(message["function_call"]["arguments"]) == {"a": 1}
    assert message["function_call"].keys() == {"name", "arguments"}
    assert (message["function_call"]["name"], end) == ("f", "function_call")
    assert "tool_calls" not in message


@MODES
@pytest.mark.parametrize("llm", OTHERS)
async def test_of_several_calls_a_message_has_the_first(llm: str, stream: bool) -> None:
    second: list[ChatEvent] = [ToolCallStart(0, 1, "b12345678", "g"), ToolCallDelta(0, 1, '{"b":2}')]
    message, end = await answered(llm, [TextDelta(0, "let me see"), *CALL, *second, DONE], stream=stream)
    assert (message["function_call"]["name"], end) == ("f", "function_call")
    assert json.loads(message["function_call"]["arguments"]) == {"a": 1}
    assert message["content"] == "let me see"


@MODES
@pytest.mark.parametrize("llm", ["openai-responses", "mistral"])
async def test_a_call_without_arguments_has_an_object_of_them(llm: str, stream: bool) -> None:
    message, _ = await answered(llm, [ToolCallStart(0, 0, "a12345678", "f"), DONE], stream=stream)
    assert message["function_call"] == {"name": "f", "arguments": "{}"}


@MODES
@pytest.mark.parametrize("llm", OTHERS)
async def test_an_answer_without_a_call_is_as_any_other(llm: str, stream: bool) -> None:
    message, end = await answered(llm, [TextDelta(0, "no need"), Finished(0, Finish(FinishReason.STOP))], stream=stream)
    assert (message["content"], end) == ("no need", "stop")


@MODES
async def test_who_offers_tools_gets_tool_calls(stream: bool) -> None:
    tools = [{"type": "function", "function": OFFERED}]
    said: list[ChatEvent] = [*CALL, DONE]
    message, end = await answered("anthropic", said, stream=stream, functions=None, tools=tools)
    assert ("tool_calls" in message, "function_call" in message, end) == (True, False, "tool_calls")


@MODES
@pytest.mark.parametrize("llm", OTHERS)
async def test_the_conversation_goes_on_with_what_was_given(llm: str, stream: bool) -> None:
    call, _ = await answered(llm, [*CALL, DONE], stream=False)
    result = {"role": "function", "name": "f", "content": "42"}
    messages = [*ASKED["messages"], {**call, "role": "assistant"}, result]
    said: list[ChatEvent] = [TextDelta(0, "it is 42"), Finished(0, Finish(FinishReason.STOP))]
    message, end = await answered(llm, said, stream=stream, messages=messages)
    assert (message["content"], end) == ("it is 42", "stop")
