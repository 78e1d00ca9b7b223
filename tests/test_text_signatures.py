"""Gemini signs texts too: what it signed comes back to it through clients of all protocols that return thinking."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import pytest
from llmproxy_anthropic import AnthropicDialect
from llmproxy_gemini import GeminiDialect
from llmproxy_gemini.apis import GENERATE, STREAM
from llmproxy_mistral import MistralDialect

from llmproxy_core import Dialect, Operation, Translation
from llmproxy_core.carried import SEAL_MARK
from llmproxy_core.chat import ReasoningPart, TextPart
from llmproxy_openai import OpenAIDialect
from llmproxy_openai.responses import ResponsesDialect

JSON = dict[str, Any]
GEMINI = GeminiDialect()
SIGNATURE = "c2lnbmVkIHRleHQ="
THOUGHT: JSON = {"text": "Hm.", "thought": True}
SIGNED: JSON = {"text": "Hello there", "thoughtSignature": SIGNATURE}
CALL: JSON = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2lnbmVkIGNhbGw="}


@attrs.frozen
class Client:
    """Somebody who sends back what it got: *turn* makes the history of an answer, *streamed* the answer of a stream."""

    dialect: Dialect
    turn: Callable[[JSON], JSON]
    streamed: Callable[[Sequence[JSON]], JSON]

    def answered(self, *parts: JSON) -> JSON:
        """The whole answer, as it gets it."""
        reply = GEMINI.read_reply(GENERATE, _response(parts, finish="STOP"))
        api = self.dialect.api_for(Operation.CHAT, stream=False)
        assert api is not None
        answer: JSON = json.loads(self.dialect.write_reply(api, reply))
        return answer

    def heard(self, *parts: JSON) -> JSON:
        """The answer put together of a stream that has each of *parts* in a chunk of its own."""
        api = self.dialect.api_for(Operation.CHAT, stream=True)
        assert api is not None
        reader, writer = GEMINI.reader(STREAM), self.dialect.writer(api, usage=True)
        chunks = [_response([part]) for part in parts] + [_response([], finish="STOP")]
        frames = [frame for chunk in chunks for frame in reader.feed(b"data: " + chunk + b"\r\n\r\n")] + reader.end()
        told = b"".join([writer.write(frame.events, None) for frame in frames])
        lines = [line.removeprefix(b"data: ") for line in told.split(b"\n") if line.startswith(b"data: {")]
        return self.streamed([json.loads(line) for line in lines])

    def sent_back(self, answer: JSON) -> list[JSON]:
        """The parts that Gemini gets of a conversation that goes on after *answer*."""
        body = json.dumps({"model": "m", **self.turn(answer)}).encode()
        api = self.dialect.api_for(Operation.CHAT, stream=False)
        assert api is not None
        chat = self.dialect.read_chat(api, body)
        content = json.loads(GEMINI.write_chat(GENERATE, chat, Translation()))["contents"]
        parts: list[JSON] = next(each["parts"] for each in content if each["role"] == "model")
        for part in parts:
            part.get("functionCall", {}).pop("id", None)
        return parts


def _response(parts: Sequence[JSON], finish: str | None = None) -> bytes:
    candidate: JSON = {"content": {"role": "model", "parts": list(parts)}}
    if finish is not None:
        candidate["finishReason"] = finish
    return json.dumps({"candidates": [candidate], "modelVersion": "gemini-3", "responseId": "r"}).encode()


def _results(calls: Sequence[JSON], name: str, make: Callable[[str], JSON]) -> list[JSON]:
    return [make(call[name]) for call in calls]


# -- OpenAI and Mistral ----------------------------------------------------------------------------------------------


def _chat_turn(answer: JSON) -> JSON:
    message = answer["choices"][0]["message"]
    calls = message.get("tool_calls") or []
    results = _results(calls, "id", lambda known: {"role": "tool", "tool_call_id": known, "content": "x"})
    return {"messages": [{"role": "user", "content": "Hi"}, message, *results, {"role": "user", "content": "And?"}]}


def _chat_streamed(chunks: Sequence[JSON]) -> JSON:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    details = [detail for delta in deltas for detail in delta.get("reasoning_details", ())]
    assert [detail["index"] for detail in details] == list(range(len(details)))
    message: JSON = {"role": "assistant", "content": "", "reasoning_details": details}
    message["reasoning_content"] = "".join(delta.get("reasoning_content", "") for delta in deltas)
    message["tool_calls"] = [call for delta in deltas for call in delta.get("tool_calls", ()) if "id" in call]
    for call in message["tool_calls"]:
        call["function"]["arguments"] = "{}"
    contents = [delta["content"] for delta in deltas if delta.get("content")]
    if any(isinstance(content, list) for content in contents):
        message["content"] = _listed(contents)
    else:
        message["content"] = "".join(contents)
    return {"choices": [{"message": {name: it for name, it in message.items() if it}}]}


def _listed(contents: Sequence[str | list[JSON]]) -> list[JSON]:
    """Pieces of a content of Mistral's, texts in a row being one."""
    parts: list[JSON] = []
    for content in contents:
        if not isinstance(content, str):
            parts += content
        elif parts and parts[-1]["type"] == "text":
            parts[-1]["text"] += content
        else:
            parts.append({"type": "text", "text": content})
    return parts


# -- Responses ---------------------------------------------------------------------------------------------------------


def _items_turn(answer: JSON) -> JSON:
    items = answer["output"]
    calls = [item for item in items if item["type"] == "function_call"]
    results = _results(
        calls, "call_id", lambda known: {"type": "function_call_output", "call_id": known, "output": "x"}
    )
    return {"input": [{"role": "user", "content": "Hi"}, *items, *results, {"role": "user", "content": "And?"}]}


# -- Anthropic ---------------------------------------------------------------------------------------------------------


def _blocks_turn(answer: JSON) -> JSON:
    calls = [block for block in answer["content"] if block["type"] == "tool_use"]
    results = _results(calls, "id", lambda known: {"type": "tool_result", "tool_use_id": known, "content": "x"})
    asked = {"role": "user", "content": [*results, {"type": "text", "text": "And?"}]}
    said = {"role": "assistant", "content": answer["content"]}
    return {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}, said, asked]}


def _blocks_streamed(events: Sequence[JSON]) -> JSON:
    blocks: list[JSON] = []
    for event in events:
        match event:
            case {"type": "content_block_start", "content_block": block}:
                blocks.append(block)
            case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}:
                blocks[-1]["text"] += text
            case {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": text}}:
                blocks[-1]["thinking"] += text
            case {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": signature}}:
                blocks[-1]["signature"] = signature
            case _:
                pass
    return {"content": blocks}


CLIENTS: Mapping[str, Client] = {
    "openai": Client(OpenAIDialect(), _chat_turn, _chat_streamed),
    "openai-responses": Client(ResponsesDialect(), _items_turn, lambda events: events[-1]["response"]),
    "anthropic": Client(AnthropicDialect(), _blocks_turn, _blocks_streamed),
    "mistral": Client(MistralDialect(), _chat_turn, _chat_streamed),
}
each = pytest.mark.parametrize("name", CLIENTS)


def _texts(parts: Sequence[JSON]) -> list[JSON]:
    return [part for part in parts if "text" in part and not part.get("thought")]


@each
@pytest.mark.parametrize("parts", [[THOUGHT, SIGNED], [THOUGHT, SIGNED, CALL]], ids=["text", "text and call"])
def test_the_signature_of_a_text_comes_back_with_it(name: str, parts: list[JSON]) -> None:
    client = CLIENTS[name]

    back = client.sent_back(client.answered(*parts))

    assert _texts(back) == [SIGNED]
    assert [part["functionCall"]["name"] for part in back if "functionCall" in part] == ["f"] * (CALL in parts)


@each
def test_a_streamed_text_that_is_signed_after_it_comes_back_whole(name: str) -> None:
    client = CLIENTS[name]
    pieces = [{"text": "Hello "}, {"text": "there"}, {"text": "", "thoughtSignature": SIGNATURE}]

    back = client.sent_back(client.heard(THOUGHT, *pieces, CALL))

    assert _texts(back) == [SIGNED]


@pytest.mark.parametrize("name", [it for it in CLIENTS if it != "anthropic"])
def test_so_does_one_that_ends_its_stream(name: str) -> None:
    client = CLIENTS[name]

    back = client.sent_back(client.heard(THOUGHT, {"text": "Hello "}, {"text": "there", "thoughtSignature": SIGNATURE}))

    assert _texts(back) == [SIGNED]


def test_anthropics_clients_find_the_text_in_the_last_block() -> None:
    client = CLIENTS["anthropic"]
    end = {"text": "", "thoughtSignature": SIGNATURE}

    assert [block["type"] for block in client.answered(SIGNED)["content"]] == ["redacted_thinking", "text"]
    assert [block["type"] for block in client.heard({"text": "Hello"}, end)["content"]] == ["text"]


def test_a_content_of_mistrals_that_is_a_text_stays_one() -> None:
    client = CLIENTS["mistral"]

    assert client.answered(SIGNED)["choices"][0]["message"]["content"] == "Hello there"
    assert client.heard(SIGNED)["choices"][0]["message"]["content"] == "Hello there"


@each
def test_nobody_but_gemini_is_given_it(name: str) -> None:
    client = CLIENTS[name]
    api = client.dialect.api_for(Operation.CHAT, stream=False)
    assert api is not None
    body = json.dumps({"model": "m", **client.turn(client.answered(THOUGHT, SIGNED))}).encode()
    chat = client.dialect.read_chat(api, body)
    said = [part for message in chat.messages for part in message.content]
    foreign = [part for part in said if isinstance(part, ReasoningPart) and part.signature == SIGNATURE]

    assert [part.provider for part in foreign] == ["gemini"]
    assert all(part.signature is None for part in said if isinstance(part, TextPart))
    for other in CLIENTS.values():
        if other is not client:
            sent = other.dialect.api_for(Operation.CHAT, stream=False)
            assert sent is not None
            written = other.dialect.write_chat(sent, chat, Translation(max_output_tokens=9))
            assert SIGNATURE.encode() not in written
            assert SEAL_MARK not in written
