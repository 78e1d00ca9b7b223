"""`generationConfig`: how the answer is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import asdict

from llmproxy_core.chat import ChatRequest, JSONText
from llmproxy_core.wire import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRINGS,
    Changes,
    Group,
    Kind,
    Members,
    Values,
    Wire,
    decode_object,
    encode,
    join_object,
    usual,
    with_members,
)
from llmproxy_gemini.answer_format import read_format, write_format
from llmproxy_gemini.spelling import Spelled, snake, spelled
from llmproxy_gemini.thinking import read_thinking, write_thinking

CONFIG = "generationConfig"
_THINKING = "thinkingConfig"
_MOST_STOPS = 5
_NOT_SAID = (None, ())
_LARGEST_SEED = 2**31 - 1

SCALARS: Mapping[str, tuple[str, Kind[Any]]] = {
    "temperature": ("temperature", NUMBER),
    "top_p": ("topP", NUMBER),
    "top_k": ("topK", NUMBER),
    "max_output_tokens": ("maxOutputTokens", INTEGER),
    "n": ("candidateCount", INTEGER),
    "seed": ("seed", INTEGER),
    "presence_penalty": ("presencePenalty", NUMBER),
    "frequency_penalty": ("frequencyPenalty", NUMBER),
    "logprobs": ("responseLogprobs", BOOLEAN),
    "top_logprobs": ("logprobs", INTEGER),
}
"""Field of the request: the member that says it."""


def _values_of(config: msgspec.Struct) -> Values:
    values: Values = asdict(config)
    if (top_k := values["top_k"]) is not None:
        values["top_k"] = int(top_k)
    values["stop"] = tuple(values["stop"] or ())
    return values


_plain_config = usual(
    msgspec.defstruct(
        "_PlainConfig",
        [*((field, kind.type | None, None) for field, (_, kind) in SCALARS.items()), ("stop", list[str] | None, None)],
        rename={**{field: name for field, (name, _) in SCALARS.items()}, "stop": "stopSequences"},
        forbid_unknown_fields=True,
        gc=False,
    )
)
"""What says no more than how to choose words, in Google's own spelling."""


def _read(members: Members, wire: Wire) -> Values:
    text = members.raw(CONFIG) or members.raw(snake(CONFIG))
    if text is None:
        return {}
    if (plain := _plain_config(text)) is not None:
        return _values_of(plain)
    config = Spelled(text, CONFIG, wire.fail)
    values: Values = {field: config.take(name, kind) for field, (name, kind) in SCALARS.items()}
    if (top_k := values["top_k"]) is not None:
        values["top_k"] = int(top_k)
    stop, modalities = config.take("stopSequences", STRINGS), config.take("responseModalities", STRINGS)
    values["stop"] = tuple(stop or ())
    values["modalities"] = tuple(word.lower() for word in modalities or ())
    values["response_format"] = read_format(config)
    if (thinking := config.object(_THINKING)) is not None:
        values["reasoning"] = read_thinking(thinking)
        for name, value in thinking.rest(f"{CONFIG}.{_THINKING}.").items():
            members.leave(name, value)
    for name, value in config.rest(f"{CONFIG}.").items():
        members.leave(name, value)
    return values


def _write(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    if not before:
        return {CONFIG: _anew(chat, wire)}
    name = spelled(CONFIG, before)
    text = before.get(name, b"{}")
    text = b"{}" if text == b"null" else text
    origin = chat.origin.value if chat.origin is not None else None
    was = origin if isinstance(origin, ChatRequest) else None
    changes: Changes = {}
    for field, write in _WRITERS.items():
        if was is None or getattr(chat, field) != getattr(was, field):
            changes |= write(chat, wire)
    if was is None or chat.reasoning != was.reasoning:
        changes |= _thinking(chat, wire, decode_object(text))
    present = decode_object(text)
    written = with_members(text, {spelled(member, present): value for member, value in changes.items()})
    return {name: None if written == b"{}" and name not in before else written}


def _anew(chat: ChatRequest, wire: Wire) -> JSONText | None:
    """The member of a request that was not read from this protocol; None when nothing is said."""
    changes: Changes = {}
    for field, write in _WRITERS.items():
        if getattr(chat, field) not in _NOT_SAID:
            changes |= write(chat, wire)
    if chat.reasoning is not None:
        changes |= _thinking(chat, wire, {})
    members = {name: text for name, text in changes.items() if text is not None}
    return join_object(members) if members else None


def _thinking(chat: ChatRequest, wire: Wire, present: Mapping[str, Any]) -> Changes:
    name = spelled(_THINKING, present)
    text = bytes(present[name]) if name in present else b"{}"
    if chat.reasoning is None:
        return {name: None}
    inner = decode_object(text)
    changes = write_thinking(chat.reasoning, chat.model, wire)
    written = with_members(text, {spelled(member, inner): value for member, value in changes.items()})
    return {name: None if written == b"{}" else written}


def _scalar(field: str, member: str) -> Callable[[ChatRequest, Wire], Changes]:
    def write(chat: ChatRequest, wire: Wire) -> Changes:
        now = getattr(chat, field)
        return {member: None if now is None else encode(now)}

    return write


def _seed(chat: ChatRequest, wire: Wire) -> Changes:
    """Seeds are of 32 bits here."""
    seed = chat.seed
    if seed is not None and abs(seed) > _LARGEST_SEED:
        wire.convert("seed", "clamped")
        seed &= _LARGEST_SEED
    return {"seed": None if seed is None else encode(seed)}


def _stop(chat: ChatRequest, wire: Wire) -> Changes:
    stop = chat.stop
    if len(stop) > _MOST_STOPS:
        wire.refuse("stop", f"more than {_MOST_STOPS} stop sequences")
        stop = stop[:_MOST_STOPS]
    return {"stopSequences": encode(list(stop)) if stop else None}


def _modalities(chat: ChatRequest, wire: Wire) -> Changes:
    words = [word.upper() for word in chat.modalities]
    if not words or (words == ["TEXT"] and not wire.own):  # the default
        return {"responseModalities": None}
    return {"responseModalities": encode(words)}


def _format(chat: ChatRequest, wire: Wire) -> Changes:
    if chat.response_format is not None and chat.response_format.strict and not wire.own:
        wire.convert("response_format.strict", "dropped")  # the answer keeps to the schema, as far as it is known
    return write_format(chat.response_format, wire)


_WRITERS: Mapping[str, Callable[[ChatRequest, Wire], Changes]] = {
    **{field: _scalar(field, member) for field, (member, _) in SCALARS.items()},
    "seed": _seed,
    "stop": _stop,
    "modalities": _modalities,
    "response_format": _format,
}

GENERATION = Group(
    (*SCALARS, "stop", "modalities", "response_format", "reasoning"),
    _read,
    _write,
    frozenset({CONFIG, snake(CONFIG)}),
    says_nothing=True,
)
