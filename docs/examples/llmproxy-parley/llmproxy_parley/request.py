"""Requests: `{"model", "rules", "turns": [{"who", "says", "thoughts"}], "heat", "limit", "live"}`."""

from collections.abc import Mapping
from functools import partial

import attrs

from llmproxy_core import RequestHead, unsupported
from llmproxy_core.chat import ChatRequest, JSONText, Message, Part, ReasoningPart, RefusalPart, TextPart, remember
from llmproxy_core.wire import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    Changes,
    Form,
    Group,
    Members,
    Values,
    Wire,
    bad_request,
    decode,
    encode,
    join_array,
    join_object,
    scan,
    unsaid,
    value,
    with_items,
    with_members,
)
from llmproxy_parley.apis import NAME
from llmproxy_parley.thought import read_thought, write_thought

DEFAULT_LIMIT = 1_024
"""Parley wants a limit in each request."""

Before = Mapping[str, JSONText]
"""The members that a request was read from; empty for one that is written anew."""

# -- the conversation ----------------------------------------------------------------------------------------


def _read_turns(members: Members, wire: Wire) -> Values:
    rules = members.take("rules", STRING)
    turns = [_read_turn(text, f"turns[{index}]", wire) for index, text in enumerate(members.array("turns"))]
    return {"messages": (*([] if rules is None else [Message("system", (TextPart(rules),))]), *turns)}


def _read_turn(text: bytes, place: str, wire: Wire) -> Message:
    members = Members(text, place, wire.fail)
    who = members.need("who", STRING)
    if who not in {"human", "model"}:
        raise wire.fail(f"{place}.who", "'human' or 'model'")
    parts: list[Part] = [
        read_thought(each, f"{place}.thoughts[{index}]", wire) for index, each in enumerate(members.array("thoughts"))
    ]
    parts.append(TextPart(members.need("says", STRING)))
    message = Message("assistant" if who == "model" else "user", tuple(parts), extra=members.rest())
    return remember(message, wire.api, text)


def _write_turns(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    is_rule = [message.role in {"system", "developer"} for message in chat.messages]
    first = is_rule.index(False) if False in is_rule else len(is_rule)
    rules = [_text(message, f"messages[{index}]", wire) for index, message in enumerate(chat.messages[:first])]
    writing = [
        wire.attempt(partial(_write_turn, message, f"messages[{index}]", wire))
        for index, message in enumerate(chat.messages[first:], first)
    ]
    turns = [turn for turn in writing if turn is not None]  # None: refused, and such things are left out
    changes: Changes = {"turns": with_items(before["turns"], turns) if "turns" in before else join_array(turns)}
    text = encode("\n\n".join(rules)) if rules else None
    return changes if text == before.get("rules") else changes | {"rules": text}


def _write_turn(message: Message, place: str, wire: Wire) -> bytes:
    if (kept := wire.kept(message.raw)) is not None:
        return kept
    if message.role not in {"user", "assistant"}:
        raise unsupported(f"{place}.role", f"the role {message.role!r} between the turns")
    if message.prefix:
        raise unsupported(f"{place}.prefix", "a turn that is to be continued")
    members = {"who": encode("model" if message.role == "assistant" else "human")}
    thoughts = [part for part in message.content if isinstance(part, ReasoningPart)]
    ours = [write_thought(part, wire) for part in thoughts if wire.kept(part.raw) or part.provider in (None, NAME)]
    if ours:
        members["thoughts"] = join_array(ours)
    members["says"] = encode(_text(message, place, wire))
    return join_object(members | wire.unknown(message.extra, place))


def _text(message: Message, place: str, wire: Wire) -> str:
    texts: list[str] = []
    for index, part in enumerate(message.content):
        if isinstance(part, TextPart | RefusalPart):
            wire.unknown(part.extra, f"{place}.content[{index}]")  # refuses what only another protocol knows
            texts.append(part.text)
        elif not isinstance(part, ReasoningPart):
            wire.refuse(f"{place}.content[{index}]", f"a {type(part).__name__}")
    return "".join(texts)


# -- how it is answered --------------------------------------------------------------------------------------


def _read_live(members: Members, wire: Wire) -> Values:
    return {"stream": members.take("live", BOOLEAN) or False}


def _write_live(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    return {"live": b"true" if chat.stream else b"false" if "live" in before else None}


def _read_heat(members: Members, wire: Wire) -> Values:
    return {"temperature": members.take("heat", NUMBER)}


def _write_heat(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    heat = chat.temperature
    if heat is not None and heat > 1 and wire.translation is not None:
        wire.convert("temperature", "clamped")
        heat = 1.0
    return {"heat": None if heat is None else encode(heat)}


def _read_limit(members: Members, wire: Wire) -> Values:
    return {"max_output_tokens": members.take("limit", INTEGER)}


def _write_limit(chat: ChatRequest, wire: Wire, before: Before) -> Changes:
    limit = chat.max_output_tokens
    if limit is None and wire.translation is not None:
        wire.convert("max_output_tokens", "defaulted")
        limit = wire.translation.max_output_tokens or DEFAULT_LIMIT
    return {"limit": None if limit is None else encode(limit)}


FORM: Form = (
    value("model", STRING),
    Group(("messages",), _read_turns, _write_turns),
    Group(("stream",), _read_live, _write_live),
    Group(("temperature",), _read_heat, _write_heat),
    Group(("max_output_tokens",), _read_limit, _write_limit),
    unsaid("cache"),
)

# -- without reading all of it -------------------------------------------------------------------------------


def read_head(body: bytes) -> RequestHead:
    top = scan(body)
    model, live = top.text("model"), top.text("live")
    head = RequestHead(
        model=None if model is None else decode(STRING, model, "model", bad_request),
        stream=False if live is None else decode(BOOLEAN, live, "live", bad_request),
    )
    return attrs.evolve(head, wants_usage=head.stream)  # its streams always tell it


def prepare(body: bytes, model: str | None, stream: bool | None) -> bytes:
    head = read_head(body)
    changes: Changes = {}
    if model not in (None, head.model):
        changes["model"] = encode(model)
    if stream not in (None, head.stream):
        changes["live"] = encode(stream)
    return with_members(body, changes) if changes else body
