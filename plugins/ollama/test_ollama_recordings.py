"""What other providers were recorded to be asked and to answer, asked of Ollama and answered to its clients."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from llmproxy_ollama.apis import CHAT
from llmproxy_ollama.dialect import OllamaDialect

from llmproxy_core import Translation
from llmproxy_core.chat import ChatReply, ReasoningPart, RefusalPart, TextPart, ToolCall
from tests.recordings import CHATS, Recording, recordings
from tests.speaking import Speaker

OLLAMA = OllamaDialect()
CASES = [it for it in recordings(status=200, fails=False) if it.protocol in CHATS]


def speaker(case: Recording) -> Speaker:
    return Speaker(case.dialect, array=case.grammar == "gemini-array")


def check(told: Mapping[str, Any], reply: ChatReply, text: str, calls: list[Any]) -> None:
    content = reply.choices[0].content if reply.choices else ()
    assert text == "".join(part.text for part in content if isinstance(part, TextPart | RefusalPart))
    assert [call["function"]["name"] for call in calls] == [it.name for it in content if isinstance(it, ToolCall)]
    assert all(isinstance(call["function"]["arguments"], dict) for call in calls)
    assert told["done"] is True
    if reply.usage is not None:
        assert (told["prompt_eval_count"], told["eval_count"]) == (reply.usage.input_tokens, reply.usage.output_tokens)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_recorded_answer_is_told_whole(case: Recording) -> None:
    reply = speaker(case).read(case.response_body, stream=case.grammar is not None)

    told = json.loads(OLLAMA.write_reply(CHAT, reply))

    check(told, reply, told["message"]["content"], told["message"].get("tool_calls", []))
    thought = (
        "".join(it.text for it in reply.choices[0].content if isinstance(it, ReasoningPart)) if reply.choices else ""
    )
    assert told["message"].get("thinking", "") == thought


@pytest.mark.parametrize("case", [it for it in CASES if it.grammar is not None], ids=str)
def test_a_recorded_stream_is_told_line_by_line(case: Recording) -> None:
    source = speaker(case)
    reader, writer = source.dialect.reader(source.api(stream=True)), OLLAMA.writer(CHAT, usage=True)
    frames = [*reader.feed(case.response_body), *reader.end()]

    stream = b"".join(writer.write(frame.events, None) for frame in frames)

    told = [json.loads(line) for line in stream.splitlines()]
    text = "".join(line["message"]["content"] for line in told)
    calls = [call for line in told for call in line["message"].get("tool_calls", [])]
    check(told[-1], source.read(case.response_body, stream=True), text, calls)
    assert [line["done"] for line in told[:-1]] == [False] * (len(told) - 1)


@pytest.mark.parametrize("case", [it for it in CASES if it.request_body], ids=str)
def test_a_recorded_request_is_asked_of_ollama(case: Recording) -> None:
    source = speaker(case)
    chat = source.dialect.read_chat(source.api(stream=case.grammar is not None), case.request_body)

    body = json.loads(OLLAMA.write_chat(CHAT, chat, Translation(drops=True)))

    asked = OLLAMA.read_chat(CHAT, json.dumps(body).encode())
    assert "".join(message.text for message in asked.messages) == "".join(message.text for message in chat.messages)
    assert {message["role"] for message in body["messages"]} <= {"system", "user", "assistant", "tool"}
