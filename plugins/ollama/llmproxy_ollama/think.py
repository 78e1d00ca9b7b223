"""`think`: true, false, or how much as a word."""

from collections.abc import Mapping

from llmproxy_core.chat import ChatRequest, JSONText, ReasoningConfig
from llmproxy_core.wire import STRING, Changes, Group, Members, Values, Wire, decode, encode

_AS_THE_MODEL_LIKES = -1
_NEAR = {"minimal": "low", "xhigh": "max"}


def _read(members: Members, wire: Wire) -> Values:
    match members.raw("think"):
        case None:
            return {}
        case b"true":
            return {"reasoning": ReasoningConfig(budget_tokens=_AS_THE_MODEL_LIKES, include=True)}
        case b"false":
            return {"reasoning": ReasoningConfig("none")}
        case text:
            word = decode(STRING, text, "think", lambda place, _: wire.fail(place, "true, false or a word"))
            return {"reasoning": ReasoningConfig(word, include=True)}


def _write(chat: ChatRequest, wire: Wire, before: Mapping[str, JSONText]) -> Changes:
    wanted = chat.reasoning
    if wanted is None:
        return {"think": None}
    if wanted.effort is not None:
        return {"think": _effort(wanted.effort, wire)}
    if wanted.budget_tokens is None:
        return {"think": b"true" if wanted.adaptive else None}
    if wanted.budget_tokens > 0:
        wire.convert("reasoning", "converted")
    return {"think": b"true" if wanted.budget_tokens else b"false"}


def _effort(word: str, wire: Wire) -> bytes:
    if word == "none":
        return b"false"
    if word in _NEAR and wire.translation is not None:
        wire.convert("reasoning", "converted")
        word = _NEAR[word]
    return encode(word)


THINK = Group(("reasoning",), _read, _write, frozenset({"think"}), says_nothing=True)
