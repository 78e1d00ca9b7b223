"""Answers: `{"id", "model", "thoughts", "says", "ended", "tokens": {"in", "out"}}`."""

import attrs

from llmproxy_core import ReplyHead, Usage
from llmproxy_core.chat import (
    ChatOrigin,
    ChatReply,
    Choice,
    Finish,
    FinishReason,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
)
from llmproxy_core.wire import (
    STRING,
    Counts,
    Members,
    Wire,
    decode_object,
    encode,
    garbage,
    join_array,
    join_object,
    made_id,
    read_body,
    reported_error,
    with_members,
)
from llmproxy_parley.apis import NAME, TALK
from llmproxy_parley.thought import read_thought, write_thought

_WIRE = Wire(TALK.form, own=True, fail=garbage)
_REASONS = {"done": FinishReason.STOP, "limit": FinishReason.LENGTH, "silenced": FinishReason.CONTENT_FILTER}
_WORDS = {reason: word for word, reason in _REASONS.items()} | {FinishReason.REFUSAL: "silenced"}


def read_reply(body: bytes) -> ChatReply:
    members = _answer(body)
    parts: list[Part] = [
        read_thought(text, f"thoughts[{index}]", _WIRE) for index, text in enumerate(members.array("thoughts"))
    ]
    said = members.need("says", STRING)
    content = (*parts, TextPart(said)) if said else tuple(parts)
    reply = ChatReply(
        id=members.take("id", STRING) or "",
        model=members.take("model", STRING) or "",
        choices=(Choice(0, content, read_finish(members.take("ended", STRING))),),
        usage=read_usage(members.object("tokens")),
        extra=members.rest(),
    )
    origin = ChatOrigin(TALK.form, {name: bytes(raw) for name, raw in decode_object(body).items()}, reply, body)
    return attrs.evolve(reply, origin=origin)


def _answer(body: bytes) -> Members:
    """The members of an answer. Some servers answer an error with status 200: that is an error too."""
    members = Members(body, "", garbage)
    if members.peek("error") is not None and (envelope := read_body(body)) is not None:
        raise reported_error(NAME, envelope, body)
    return members


def scan_reply(body: bytes) -> ReplyHead:
    members = _answer(body)
    word = members.take("ended", STRING)
    return ReplyHead(
        usage=read_usage(members.object("tokens")),
        model=members.take("model", STRING),
        finish=() if word is None else (word,),
        id=members.take("id", STRING),
    )


def write_reply(reply: ChatReply) -> bytes:
    """Spliced into what it was read from, so that unknown members stay; else anew."""
    now, origin = _members(reply), reply.origin
    if origin is None or origin.api != TALK.form or not isinstance(origin.value, ChatReply):
        return join_object(now)
    before = _members(origin.value)
    changed = {name: now.get(name) for name in before | now if now.get(name) != before.get(name)}
    return with_members(origin.text, changed)


def _members(reply: ChatReply) -> dict[str, bytes]:
    choice = reply.choices[0] if reply.choices else Choice(0, (), None)  # Parley has one: the first
    members = {"id": encode(reply.id or made_id(reply.model, reply.text, prefix="talk_"))}
    members["model"] = encode(reply.model)
    thoughts = [write_thought(part, _WIRE) for part in choice.content if isinstance(part, ReasoningPart)]
    if thoughts:
        members["thoughts"] = join_array(thoughts)
    members["says"] = encode("".join(part.text for part in choice.content if isinstance(part, TextPart | RefusalPart)))
    members["ended"] = write_finish(choice.finish)
    if reply.usage is not None:
        members["tokens"] = write_usage(reply.usage)
    return members


# -- pieces that streams have too ----------------------------------------------------------------------------


def read_finish(word: str | None) -> Finish | None:
    return None if word is None else Finish(_REASONS.get(word, FinishReason.STOP), word)


def write_finish(finish: Finish | None) -> bytes:
    if finish is not None and finish.word in _REASONS:
        return encode(finish.word)
    return encode("done" if finish is None else _WORDS.get(finish.reason, "done"))


def read_usage(tokens: Members | None) -> Usage | None:
    if tokens is None:
        return None
    counts = Counts()  # a provider may count anything: what cannot be true was not told
    members = {name: tokens.raw(name) for name in ("in", "out")}
    told = {name: int(text) if text and text.isdigit() else text for name, text in members.items()}
    halves = counts.halves(counts.read(told, "in"), counts.read(told, "out"), None)
    return None if halves is None else Usage(*halves, source=counts.source)


def write_usage(usage: Usage) -> bytes:
    return join_object({"in": encode(usage.input_tokens), "out": encode(usage.output_tokens)})
