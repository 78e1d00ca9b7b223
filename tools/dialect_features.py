"""What conversations are made of, one feature at a time, as the table of dialects tries them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from llmproxy_core.chat import (
    AudioPart,
    CacheMark,
    ChatReply,
    ChatRequest,
    Choice,
    Citation,
    DocumentPart,
    Finish,
    FinishReason,
    ImagePart,
    Message,
    Part,
    ReasoningConfig,
    ReasoningPart,
    RefusalPart,
    ResponseFormat,
    Source,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    VideoPart,
)
from llmproxy_core.usage import Usage

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'
WEATHER = Tool("weather", "The weather in a city", SCHEMA)
ASKED = Message("user", (TextPart("What is the weather?"),))


@attrs.frozen
class Feature:
    """
    Something that a request or a reply can say.

    *said* holds it and as little else as can be; *look* takes it out again, so that two of them can be compared.
    """

    label: str
    said: Any
    look: Callable[[Any], object]


def _json(text: bytes | None) -> object:
    return None if text is None else msgspec.json.decode(text)


# -- requests ----------------------------------------------------------------------------------------------------------


def _field(name: str) -> Callable[[ChatRequest], object]:
    return lambda chat: getattr(chat, name)


def _ask(**fields: Any) -> ChatRequest:
    return ChatRequest("m", fields.pop("messages", (ASKED,)), **fields)


def _parts(chat: ChatRequest) -> list[Part]:
    return [part for message in chat.messages for part in message.content]


def _texts(*roles: str) -> Callable[[ChatRequest], object]:
    return lambda chat: [message.text for message in chat.messages if message.role in roles]


def _sources(kind: type[Any], name: str) -> Callable[[ChatRequest], object]:
    """Where the media of *kind* come from: the member *name* of their sources."""
    return lambda chat: [getattr(part.source, name) for part in _all_parts(chat) if isinstance(part, kind)]


def _all_parts(chat: ChatRequest) -> list[Part]:
    found: list[Part] = []
    for part in _parts(chat):
        found += part.content if isinstance(part, ToolResult) else [part]
    return found


def _calls(chat: ChatRequest) -> object:
    """Calls, and for each result the call that it belongs to: ids may be others."""
    calls = [part for part in _parts(chat) if isinstance(part, ToolCall)]
    order = {call.id: place for place, call in enumerate(calls)}
    results = [
        (order.get(part.call_id), "".join(it.text for it in part.content if isinstance(it, TextPart)))
        for part in _parts(chat)
        if isinstance(part, ToolResult)
    ]
    return [(call.name, _json(call.arguments.encode())) for call in calls], results


def _tools(chat: ChatRequest) -> object:
    return [(it.name, it.description, _json(it.parameters)) for it in chat.tools if isinstance(it, Tool)]


def _format(chat: ChatRequest) -> object:
    wanted = chat.response_format
    return None if wanted is None else (wanted.kind, _json(wanted.schema))


def _signatures(chat: ChatRequest) -> object:
    return [(part.text, part.signature) for part in _parts(chat) if isinstance(part, ReasoningPart)]


CALLED = (
    ASKED,
    Message(
        "assistant",
        (
            ToolCall("call_1", "weather", '{"city":"Rome"}'),
            ToolCall("call_2", "weather", '{"city":"Oslo"}'),
        ),
    ),
    Message("tool", (ToolResult("call_1", (TextPart("sunny"),), "weather"),)),
    Message("tool", (ToolResult("call_2", (TextPart("snow"),), "weather"),)),
)


def _with(part: Part) -> tuple[Message, ...]:
    return (Message("user", (TextPart("Look."), part)),)


def _result(*content: Part, is_error: bool = False) -> tuple[Message, ...]:
    call = Message("assistant", (ToolCall("call_1", "weather", '{"city":"Rome"}'),))
    return (ASKED, call, Message("tool", (ToolResult("call_1", content, "weather", is_error),)))


REQUESTS: Sequence[Feature] = (
    Feature(
        "system prompt",
        _ask(messages=(Message("system", (TextPart("Be brief."),)), ASKED)),
        lambda chat: [message.text for message in chat.messages if message.role in ("system", "developer")],
    ),
    Feature(
        "system prompt in the middle",
        _ask(
            messages=(
                ASKED,
                Message("assistant", (TextPart("Sunny."),)),
                Message("system", (TextPart("Now in French."),)),
                ASKED,
            )
        ),
        lambda chat: [message.text for message in chat.messages if "French" in message.text],
    ),
    Feature(
        "several turns",
        _ask(messages=(ASKED, Message("assistant", (TextPart("Sunny."),)), ASKED)),
        _texts("user", "assistant"),
    ),
    Feature(
        "image by URL",
        _ask(messages=_with(ImagePart(Source(url="https://example.com/a.png", media_type="image/png")))),
        _sources(ImagePart, "url"),
    ),
    Feature(
        "image as data",
        _ask(messages=_with(ImagePart(Source(data=PIXEL, media_type="image/png")))),
        _sources(ImagePart, "data"),
    ),
    Feature(
        "document (PDF) as data",
        _ask(messages=_with(DocumentPart(Source(data="JVBERi0=", media_type="application/pdf"), "a.pdf"))),
        _sources(DocumentPart, "data"),
    ),
    Feature(
        "document by URL",
        _ask(
            messages=_with(DocumentPart(Source(url="https://example.com/a.pdf", media_type="application/pdf"), "a.pdf"))
        ),
        _sources(DocumentPart, "url"),
    ),
    Feature(
        "audio",
        _ask(messages=_with(AudioPart(Source(data="UklGRg==", media_type="audio/wav")))),
        _sources(AudioPart, "data"),
    ),
    Feature(
        "video",
        _ask(messages=_with(VideoPart(Source(url="https://example.com/a.mp4", media_type="video/mp4")))),
        _sources(VideoPart, "url"),
    ),
    Feature("tools", _ask(tools=(WEATHER,)), _tools),
    Feature(
        "tool choice: must call", _ask(tools=(WEATHER,), tool_choice=ToolChoice("required")), _field("tool_choice")
    ),
    Feature("tool choice: none", _ask(tools=(WEATHER,), tool_choice=ToolChoice("none")), _field("tool_choice")),
    Feature(
        "tool choice: one tool",
        _ask(tools=(WEATHER,), tool_choice=ToolChoice("named", ("weather",))),
        _field("tool_choice"),
    ),
    Feature(
        "one tool call at a time", _ask(tools=(WEATHER,), parallel_tool_calls=False), _field("parallel_tool_calls")
    ),
    Feature("parallel calls and their results", _ask(messages=CALLED, tools=(WEATHER,)), _calls),
    Feature(
        "image in a tool's result",
        _ask(
            messages=_result(TextPart("a map"), ImagePart(Source(data=PIXEL, media_type="image/png"))), tools=(WEATHER,)
        ),
        _sources(ImagePart, "data"),
    ),
    Feature(
        "a tool's result that is an error",
        _ask(messages=_result(TextPart("no such city"), is_error=True), tools=(WEATHER,)),
        lambda chat: [part.is_error for part in _parts(chat) if isinstance(part, ToolResult)],
    ),
    Feature("JSON output", _ask(response_format=ResponseFormat("json_object")), _format),
    Feature(
        "JSON Schema output", _ask(response_format=ResponseFormat("json_schema", "place", SCHEMA, strict=True)), _format
    ),
    Feature("bound on the output", _ask(max_output_tokens=100), _field("max_output_tokens")),
    Feature("temperature 0.5", _ask(temperature=0.5), _field("temperature")),
    Feature("temperature 1.8", _ask(temperature=1.8), _field("temperature")),
    Feature("top_p", _ask(top_p=0.5), _field("top_p")),
    Feature("top_k", _ask(top_k=5), _field("top_k")),
    Feature(
        "penalties",
        _ask(frequency_penalty=0.5, presence_penalty=0.5),
        lambda chat: (chat.frequency_penalty, chat.presence_penalty),
    ),
    Feature("seed", _ask(seed=7), _field("seed")),
    Feature("stop sequences", _ask(stop=("END",)), _field("stop")),
    Feature("several choices", _ask(n=2), _field("n")),
    Feature("log probabilities", _ask(logprobs=True, top_logprobs=2), lambda chat: (chat.logprobs, chat.top_logprobs)),
    Feature("logit bias", _ask(logit_bias=b'{"50256":-100}'), _field("logit_bias")),
    Feature("thinking: effort", _ask(reasoning=ReasoningConfig("low")), lambda chat: chat.reasoning is not None),
    Feature(
        "thinking: budget",
        _ask(reasoning=ReasoningConfig(budget_tokens=2048), max_output_tokens=8000),
        lambda chat: chat.reasoning is not None,
    ),
    Feature("end user", _ask(user="u-1"), _field("user")),
    Feature("metadata", _ask(metadata=b'{"team":"a"}'), lambda chat: _json(chat.metadata)),
    Feature("service tier", _ask(service_tier="auto"), _field("service_tier")),
    Feature(
        "prompt cache marks",
        _ask(messages=(Message("user", (TextPart("Long.", cache=CacheMark()), TextPart("Short."))),)),
        lambda chat: [part.cache for part in _parts(chat) if isinstance(part, TextPart)],
    ),
    Feature("prompt cache key", _ask(cache_key="k"), _field("cache_key")),
    Feature("verbosity", _ask(verbosity="low"), _field("verbosity")),
)

# -- replies -----------------------------------------------------------------------------------------------------------


def _say(
    *content: Part, reason: FinishReason = FinishReason.STOP, usage: Usage | None = None, **choice: Any
) -> ChatReply:
    usage = usage or Usage(20, 10)
    return ChatReply("r-1", "m", (Choice(0, content, Finish(reason), **choice),), usage, 1_700_000_000)


def _said(reply: ChatReply) -> list[Part]:
    return [part for choice in reply.choices for part in choice.content]


def _reasons(reply: ChatReply) -> object:
    return [choice.finish and choice.finish.reason for choice in reply.choices]


def _of_kind(kind: type[Any], look: Callable[[Any], object]) -> Callable[[ChatReply], object]:
    return lambda reply: [look(part) for part in _said(reply) if isinstance(part, kind)]


def _used(reply: ChatReply) -> object:
    usage = reply.usage
    return usage and (usage.input_tokens, usage.output_tokens)


ANSWERS: Sequence[Feature] = (
    Feature("text", _say(TextPart("Sunny.")), lambda reply: reply.text),
    Feature(
        "parallel tool calls",
        _say(
            ToolCall("call_1", "weather", '{"city":"Rome"}'),
            ToolCall("call_2", "weather", '{"city":"Oslo"}'),
            reason=FinishReason.TOOL_CALLS,
        ),
        lambda reply: (_of_kind(ToolCall, lambda it: (it.name, _json(it.arguments.encode())))(reply), _reasons(reply)),
    ),
    Feature(
        "thinking",
        _say(ReasoningPart("Hmm."), TextPart("Sunny.")),
        lambda reply: (_of_kind(ReasoningPart, lambda it: it.text)(reply), reply.text),
    ),
    Feature("finish: length", _say(TextPart("Sun"), reason=FinishReason.LENGTH), _reasons),
    Feature("finish: filtered", _say(TextPart("Sun"), reason=FinishReason.CONTENT_FILTER), _reasons),
    Feature(
        "refusal",
        _say(RefusalPart("I cannot."), reason=FinishReason.REFUSAL),
        lambda reply: [it.text for it in _said(reply) if isinstance(it, RefusalPart)],
    ),
    Feature(
        "citations",
        _say(TextPart("Sunny.", (Citation("url_citation", "https://example.com/", "Weather", start=0, end=6),))),
        _of_kind(TextPart, lambda it: [cited.url for cited in it.citations]),
    ),
    Feature(
        "log probabilities",
        _say(TextPart("a"), logprobs=b'{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[]}]}'),
        lambda reply: [choice.logprobs is not None for choice in reply.choices],
    ),
    Feature(
        "several choices",
        attrs.evolve(
            _say(TextPart("a")),
            choices=(
                Choice(0, (TextPart("a"),), Finish(FinishReason.STOP)),
                Choice(1, (TextPart("b"),), Finish(FinishReason.STOP)),
            ),
        ),
        lambda reply: [choice.text for choice in reply.choices],
    ),
    Feature("usage", _say(TextPart("a"), usage=Usage(20, 10)), _used),
    Feature(
        "usage: cached input",
        _say(TextPart("a"), usage=Usage(20, 10, cached_input_tokens=8)),
        lambda reply: (_used(reply), reply.usage and reply.usage.cached_input_tokens),
    ),
    Feature(
        "usage: written to the cache",
        _say(TextPart("a"), usage=Usage(20, 10, cache_write_tokens=8)),
        lambda reply: (_used(reply), reply.usage and reply.usage.cache_write_tokens),
    ),
    Feature(
        "usage: thinking",
        _say(TextPart("a"), usage=Usage(20, 10, reasoning_tokens=6)),
        lambda reply: (_used(reply), reply.usage and reply.usage.reasoning_tokens),
    ),
)

MODELS: Mapping[str, str] = {
    "openai": "gpt-4o",
    "openai-responses": "gpt-4o",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "mistral": "mistral-large-latest",
    "ollama": "qwen3",
}
"""A model of each dialect's provider, for rules that depend on it; any other name where none is known."""
