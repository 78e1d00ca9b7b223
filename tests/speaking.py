"""Clients of every protocol: the requests they make, and what they read of the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import attrs

from llmproxy_core.chat import (
    ChatReply,
    ChatRequest,
    Message,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
)
from llmproxy_core.dialect import Api, Dialect, Operation
from llmproxy_core.plugins import Registry
from llmproxy_core.reply_events import Assembler

PROVIDERS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "openai": ("openai", {}),
    "openai-responses": ("openai", {"type": "responses"}),
    "anthropic": ("anthropic", {}),
    "gemini": ("gemini", {}),
    "mistral": ("mistral", {}),
}
"""The provider that speaks each dialect, and the keys that choose it."""


@cache
def dialects() -> Mapping[str, Dialect]:
    """The dialects that come with llmproxy."""
    registry = Registry.load()
    assert not registry.broken, registry.broken
    return {name: registry.dialects[name] for name in PROVIDERS}


@attrs.frozen
class Speaker:
    """A client of one protocol; *array*: of Gemini's streams without `alt=sse`."""

    name: str
    array: bool = False

    def __str__(self) -> str:
        return f"{self.name}-array" if self.array else self.name

    @property
    def dialect(self) -> Dialect:
        return dialects()[self.name]

    def api(self, *, stream: bool) -> Api:
        found = self.dialect.api_for(Operation.CHAT, stream=stream)
        if self.array and stream:
            found = next(api for api in self.dialect.apis if api.stream_type == "application/json" and api.streams)
        assert found is not None
        return found

    def path(self, *, stream: bool, model: str) -> str:
        """Behind the route's prefix, with the query."""
        api = self.api(stream=stream)
        query = f"?{api.query}" if api.query else ""
        return self.dialect.roots[0] + api.path.replace("{model}", model) + query

    def headers(self) -> list[tuple[str, str]]:
        """What this protocol's SDKs send to say which it is."""
        own = {
            "anthropic": [("anthropic-version", "2023-06-01"), ("x-api-key", "client-key")],
            "gemini": [("x-goog-api-key", "client-key")],
            "mistral": [("user-agent", "mistral-client-python/2.0"), ("authorization", "Bearer client-key")],
        }
        return own.get(self.name, [("user-agent", "OpenAI/Python 2.0"), ("authorization", "Bearer client-key")])

    def body(self, *, stream: bool, model: str, **fields: Any) -> bytes:
        """A question in this protocol; *fields* are more of the ChatRequest."""
        messages = fields.pop("messages", (Message("user", (TextPart("hi"),)),))
        fields = {"max_output_tokens": 200} | fields
        chat = ChatRequest(model, messages, stream=stream, wants_usage=stream, **fields)
        return self.dialect.write_chat(self.api(stream=stream), chat)

    def read(self, body: bytes, *, stream: bool) -> ChatReply:
        """What the answer means to it."""
        api = self.api(stream=stream)
        if not stream:
            return self.dialect.read_reply(api, body)
        reader = self.dialect.reader(api)
        assembler = Assembler()
        for frame in [*reader.feed(body), *reader.end()]:
            assembler.feed(frame.events)
        return assembler.reply()


SPEAKERS = (*map(Speaker, PROVIDERS), Speaker("gemini", array=True))


def said(reply: ChatReply) -> str:
    """All that the first choice says to a person, refusals too."""
    return (
        "".join(part.text for part in reply.choices[0].content if isinstance(part, TextPart | RefusalPart))
        if reply.choices
        else ""
    )


def thought(reply: ChatReply) -> str:
    """All visible thinking of the first choice."""
    return (
        "".join(part.text for part in reply.choices[0].content if isinstance(part, ReasoningPart))
        if reply.choices
        else ""
    )


def called(reply: ChatReply) -> list[tuple[str, Any]]:
    """The tool calls of the first choice, arguments decoded."""
    calls = [part for part in reply.choices[0].content if isinstance(part, ToolCall)] if reply.choices else []
    return [
        (call.name, json.loads(call.arguments or "{}") if call.kind != "custom" else call.arguments) for call in calls
    ]


def used(reply: ChatReply) -> tuple[int, int] | None:
    """Input and output tokens."""
    return None if reply.usage is None else (reply.usage.input_tokens, reply.usage.output_tokens)


def llm_at(dialect: str, base_url: str, **keys: object) -> dict[str, object]:
    """The `[llm.NAME]` table of an LLM that speaks *dialect* at *base_url* (scheme, host and port)."""
    provider, own = PROVIDERS[dialect]
    return {"provider": provider, "base_url": base_url, "token_env": "KEY", **own, **keys}
