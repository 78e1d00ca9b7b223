"""How the model chooses its words: what this protocol takes of it, by model and by version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxy_anthropic.claude import claude
from llmproxy_anthropic.thinking import thinks
from llmproxy_core.chat import ChatRequest, JSONText
from llmproxy_core.wire import INTEGER, NUMBER, Changes, Form, Group, Kind, Members, Values, Wire, encode

Before = Mapping[str, JSONText]

_HIGHEST_TEMPERATURE = 1
_LOWEST_TOP_P_WITH_THINKING = 0.95


def _sampled(field: str, kind: Kind[Any]) -> Group:
    """One of the three parameters; anew, it is what the model and the rest of the request allow."""

    def read(members: Members, _: Wire) -> Values:
        return {field: members.take(field, kind)}

    def write(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
        now = getattr(chat, field)
        if now is None or before:
            return {field: None if now is None else encode(now)}
        if not _is_taken(field, chat, wire):
            wire.convert(field, "dropped")
            return {}
        if field == "temperature" and now > _HIGHEST_TEMPERATURE:
            wire.convert(field, "clamped")
            now = _HIGHEST_TEMPERATURE
        return {field: encode(now)}

    return Group((field,), read, write, frozenset({field}), says_nothing=True)


def _is_taken(field: str, chat: ChatRequest, wire: Wire) -> bool:
    """
    1. The newest models take none.
    2. Where the model thinks, the temperature is 1, there is no `top_k`, and `top_p` leaves nearly all.
    3. `top_p` does not stand beside a temperature on newer models.
    """
    rules = claude(chat.model)
    if not rules.takes_sampling:
        return False
    if thinks(chat, wire):
        if field == "top_p":
            return chat.top_p is not None and chat.top_p >= _LOWEST_TOP_P_WITH_THINKING
        return field == "temperature" and chat.temperature == 1
    return field != "top_p" or chat.temperature is None or rules.takes_both_samplings


SAMPLING: Form = (_sampled("temperature", NUMBER), _sampled("top_p", NUMBER), _sampled("top_k", INTEGER))


_HARMLESS: dict[str, tuple[object, ...]] = {
    "audio": (None,),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, b"{}"),
    "logprobs": (None, False),
    "modalities": ((), ("text",)),
    "n": (None, 1),
    "presence_penalty": (None, 0),
    "seed": (None,),
    "top_logprobs": (None, 0),
    "verbosity": (None, "medium"),
}
"""Fields that have no form here, with the values that ask for nothing."""


def _refuse_unsayable(chat: ChatRequest, wire: Wire, _: Before) -> Changes:
    for field, harmless in _HARMLESS.items():
        if getattr(chat, field) not in harmless:
            wire.refuse(field, f"the field {field!r}")
    return {}


UNSAYABLE = Group(tuple(_HARMLESS), lambda members, wire: {}, _refuse_unsayable, frozenset(), says_nothing=True)
