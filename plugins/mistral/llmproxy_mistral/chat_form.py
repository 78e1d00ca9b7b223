"""The form of `POST /chat/completions` as Mistral has it."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy_core.chat import ChatRequest, JSONText, Message, ReasoningConfig, ReasoningPart, changed
from llmproxy_core.wire import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    STRING_OR_STRINGS,
    Changes,
    Form,
    Group,
    Members,
    Values,
    Wire,
    encode,
    json,
    strings,
    unsaid,
    value,
)
from llmproxy_openai import MESSAGES, MODEL, RESPONSE_FORMAT, TOOLS

Before = Mapping[str, JSONText]


# -- messages ----------------------------------------------------------------------------------------------------------


def _write_messages(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    """Thinking is a part of the content, wherever it came from."""
    if any(ReasoningPart in map(type, message.content) for message in chat.messages):
        chat = changed(chat, messages=tuple(map(_thoughtful, chat.messages)))
    return MESSAGES.write(chat, wire, before)


def _thoughtful(message: Message) -> Message:
    if not any(isinstance(part, ReasoningPart) and part.member != "thinking" for part in message.content):
        return message
    parts = tuple(
        changed(part, member="thinking") if isinstance(part, ReasoningPart) else part for part in message.content
    )
    return changed(message, content=parts)


# -- stream ------------------------------------------------------------------------------------------------------------


def _read_stream(members: Members, _: Wire) -> Values:
    """Every stream tells its usage."""
    stream = members.take("stream", BOOLEAN) or False
    return {"stream": stream, "wants_usage": stream}


def _write_stream(chat: ChatRequest, _: Wire, before: Before) -> Changes:
    """`stream_options` is an unknown field here, and unknown fields are errors."""
    return {"stream": b"true" if chat.stream else (b"false" if "stream" in before else None)}


# -- tools -------------------------------------------------------------------------------------------------------------

_TOOLS, _CHOICE, _PARALLEL = TOOLS


def _write_choice(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    changes = _CHOICE.write(chat, wire, before)
    return {name: b'"any"' if text == b'"required"' else text for name, text in changes.items()}


# -- thinking ----------------------------------------------------------------------------------------------------------


def _read_reasoning(members: Members, _: Wire) -> Values:
    effort, mode = members.take("reasoning_effort", STRING), members.take("prompt_mode", STRING)
    if effort is None and mode is None:
        return {}
    return {"reasoning": ReasoningConfig(effort, adaptive=mode == "reasoning")}


def _write_reasoning(chat: ChatRequest, _: Wire, before: Before) -> Changes:
    wanted = chat.reasoning
    effort = None if wanted is None or wanted.effort is None else encode(wanted.effort)
    is_prompted = wanted is not None and wanted.adaptive and (effort is None or "prompt_mode" in before)
    return {"reasoning_effort": effort, "prompt_mode": b'"reasoning"' if is_prompted else None}


# -- safety ------------------------------------------------------------------------------------------------------------


def _read_safety(members: Members, _: Wire) -> Values:
    """Not to want Mistral's safety prompt is what all others do; to want it is a member they do not know."""
    if members.peek("safe_prompt") == b"false":
        members.take("safe_prompt", BOOLEAN)
    return {}


CHAT_FORM: Form = (
    MODEL,
    Group(MESSAGES.fields, MESSAGES.read, _write_messages),
    Group(("stream", "wants_usage"), _read_stream, _write_stream, frozenset({"stream"})),
    value("max_output_tokens", INTEGER, "max_tokens"),
    value("temperature", NUMBER),
    value("top_p", NUMBER),
    value("top_k", INTEGER),
    value("frequency_penalty", NUMBER),
    value("presence_penalty", NUMBER),
    value("seed", INTEGER, "random_seed"),
    strings("stop", STRING_OR_STRINGS),
    value("n", INTEGER),
    value("logprobs", BOOLEAN),
    value("top_logprobs", INTEGER),
    _TOOLS,
    Group(_CHOICE.fields, _CHOICE.read, _write_choice, _CHOICE.names, says_nothing=True),
    _PARALLEL,
    RESPONSE_FORMAT,
    Group(
        ("reasoning",),
        _read_reasoning,
        _write_reasoning,
        frozenset({"reasoning_effort", "prompt_mode"}),
        says_nothing=True,
    ),
    Group((), _read_safety, lambda chat, wire, before: {}, frozenset({"safe_prompt"}), says_nothing=True),
    json("prediction"),
    json("metadata"),
    value("service_tier", STRING),
    value("cache_key", STRING, "prompt_cache_key"),
    unsaid("cache"),
)
