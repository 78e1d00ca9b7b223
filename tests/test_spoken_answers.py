"""What a model of OpenAI's says aloud reaches clients of all protocols: the sound where it has a place, or as text."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from llmproxy_anthropic import AnthropicDialect
from llmproxy_gemini import GeminiDialect
from llmproxy_ollama.dialect import OllamaDialect

from llmproxy_core import Dialect, Operation
from llmproxy_core.chat import ChatReply
from llmproxy_core.reply_events import events_of
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.responses import ResponsesDialect

OPENAI = OpenAIDialect()
AUDIO = {"id": "audio_1", "data": "AAAA", "expires_at": 1733470721, "transcript": "hello there"}
ANSWER = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1733467121,
    "model": "gpt-4o-audio-preview",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": None, "audio": AUDIO}, "finish_reason": "stop"}
    ],
}


def spoken(**changes: Any) -> ChatReply:
    answer: dict[str, Any] = json.loads(json.dumps(ANSWER))
    answer["choices"][0]["message"]["audio"] |= changes
    return attrs.evolve(OPENAI.read_reply(OPENAI.apis[0], json.dumps(answer).encode()), origin=None)


def told(client: Dialect, reply: ChatReply, *, stream: bool) -> bytes:
    api = client.api_for(Operation.CHAT, stream=stream)
    assert api is not None
    return client.writer(api, usage=True).write(events_of(reply), None) if stream else client.write_reply(api, reply)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    "client",
    [AnthropicDialect(), GeminiDialect(), OllamaDialect(), ResponsesDialect()],
    ids=lambda client: client.name,
)
def test_what_was_said_reaches_every_client(client: Dialect, stream: bool) -> None:
    body = told(client, spoken(), stream=stream)

    assert b"hello there" in body
    assert b"expires_at" not in body


@pytest.mark.parametrize(
    ("audio", "parts"),
    [
        ({}, [{"text": "hello there"}, {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}]),
        ({"data": None}, [{"text": "hello there"}]),
        ({"transcript": ""}, [{"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}]),
    ],
    ids=["both", "no sound", "no transcript"],
)
def test_clients_of_gemini_get_the_sound_too(audio: dict[str, Any], parts: list[Any]) -> None:
    body = json.loads(told(GeminiDialect(), spoken(**audio), stream=False))

    assert body["candidates"][0]["content"]["parts"] == parts


def test_clients_of_gemini_get_the_sound_in_a_stream_too() -> None:
    assert b'"inlineData":{"mimeType":"audio/L16","data":"AAAA"}' in told(GeminiDialect(), spoken(), stream=True)
