"""Whole answers: read, written anew, and written again with the fewest changes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import attrs
import msgspec

from llmproxy_core.chat import (
    ChatOrigin,
    ChatReply,
    Choice,
    Finish,
    FinishReason,
    ImagePart,
    JSONText,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    remember,
)
from llmproxy_core.errors import UpstreamGarbage
from llmproxy_core.wire import text_signature, text_tool
from llmproxy_core.wire.form import Changes
from llmproxy_core.wire.made_id import made_id
from llmproxy_core.wire.members import INTEGER, NUMBER, STRING, Members, garbage
from llmproxy_core.wire.provider_error import reported_error
from llmproxy_core.wire.splice import decode_object, encode, join_array, join_object, with_items, with_members
from llmproxy_core.wire.wire import Wire, nested
from llmproxy_openai.answer import SAID_OTHERWISE, read_answer, write_answer
from llmproxy_openai.facts import decode_outline, error_in, usage_in
from llmproxy_openai.finish import WORDS, called, read_finish, write_finish
from llmproxy_openai.parts import write_part
from llmproxy_openai.reasoning_details import must_return
from llmproxy_openai.thinking import REASONING_MEMBERS, thinking_member
from llmproxy_openai.usage import write_usage


@attrs.frozen
class ReplyForm:
    """One wire form of an answer: *object* is its type, *is_legacy* that of `/completions`, with bare texts."""

    api: str
    object: str
    is_legacy: bool = False
    thinking: str = REASONING_MEMBERS[0]
    """The member for what other providers thought; `thinking`: a part of the content (Mistral)."""
    words: Mapping[FinishReason, str] = WORDS
    """Why an answer ended."""
    has_refusals: bool = True
    """Whether a refusal has a member; else it is text."""
    has_legacy_calls: bool = True
    """Whether its clients know `function_call`, which has no id; else it is a tool call as any other."""

    @property
    def dialect(self) -> str:
        """The dialect's name."""
        return self.api.partition(".")[0]


_SCALARS = {
    "id": "id",
    "created": "created",
    "model": "model",
    "service_tier": "service_tier",
    "fingerprint": "system_fingerprint",
}
"""Field of the reply: its member."""


# -- reading ---------------------------------------------------------------------------------------------------


def read_reply(dialect: str, form: ReplyForm, body: bytes) -> ChatReply:
    """The meaning of *body*. UpstreamGarbage when it is no answer of *form*, UpstreamError when it is an error."""
    try:
        outline = decode_outline(body)
        raws = decode_object(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamGarbage("The provider's answer is not a JSON object") from error
    if (envelope := error_in(outline, body)) is not None:
        raise reported_error(dialect, envelope, body)
    members = Members(body, "", garbage)
    if members.peek("choices") is None:
        raise garbage("choices", "a list")
    choices = [_read_choice(text, position, form) for position, text in enumerate(members.array("choices"))]
    if not any(choice.content or choice.finish for choice in choices):
        raise garbage("choices", "a list with an answer")
    created = members.take("created", NUMBER)
    members.raw("object"), members.raw("usage")
    reply = ChatReply(
        id=members.take("id", STRING) or "",
        model=members.take("model", STRING) or "",
        choices=tuple(choices),
        usage=usage_in(outline),
        created=None if created is None else int(created),
        service_tier=members.take("service_tier", STRING),
        fingerprint=members.take("system_fingerprint", STRING),
        extra=members.rest(),
    )
    origin = ChatOrigin(form.api, {name: bytes(raw) for name, raw in raws.items()}, reply, body)
    return attrs.evolve(reply, origin=origin)


def _read_choice(text: bytes, position: int, form: ReplyForm) -> Choice:
    """One choice; the unknown members of its message are kept as `message.NAME`."""
    wire = Wire(form.api, own=True, fail=garbage)
    members = Members(text, f"choices[{position}]", garbage)
    index = members.take("index", INTEGER)
    unknown: dict[str, JSONText] = {}
    content: tuple[Part, ...]
    if form.is_legacy:
        said = members.take("text", STRING)
        content = (TextPart(said),) if said else ()
    else:
        message = members.need_object("message")
        message.raw("role")
        content = tuple(map(_as_the_client_knows, read_answer(message, wire)))
        unknown = message.rest("message.")
    word = members.take("finish_reason", STRING)
    has_calls = any(isinstance(part, ToolCall) for part in content)
    choice = Choice(
        position if index is None else index,
        content,
        None if word is None else read_finish(word, called=has_calls),
        members.raw("logprobs"),
        extra=members.rest() | unknown,
    )
    return remember(choice, form.api, text)


def _as_the_client_knows(part: Part) -> Part:
    """*part*, or what the call of a tool is that stands for one that takes a text."""
    if not isinstance(part, ToolCall) or part.kind != "function":
        return part
    name = text_tool.clients_name(part.name)
    if name is None:
        return part
    return attrs.evolve(part, name=name, kind="custom", arguments=text_tool.read_text(part.arguments))


# -- writing ---------------------------------------------------------------------------------------------------


def write_reply(form: ReplyForm, reply: ChatReply) -> bytes:
    """*reply* in *form*: spliced into what it was read from, or anew."""
    origin = reply.origin
    if origin is not None and origin.api == form.api and isinstance(origin.value, ChatReply):
        return with_members(origin.text, _changes(form, reply, origin, origin.value))
    return _write_anew(form, reply)


_NOTHING = Choice(0, (), Finish(FinishReason.CONTENT_FILTER))
"""An answer of no choice at all: the prompt was blocked. Clients look at the first choice."""

_TIERS = {"standard": "default"}


def tier_of(word: str | None) -> str | None:
    """The service tier in OpenAI's words, of which none means what Anthropic and Google call standard."""
    return None if word is None else _TIERS.get(word.lower(), word)


def _write_anew(form: ReplyForm, reply: ChatReply) -> bytes:
    created = int(time.time()) if reply.created is None else reply.created  # a client's type wants a number
    members = {
        "id": encode(reply.id or made_id(time.time_ns(), prefix="chatcmpl-")),
        "object": encode(form.object),
        "created": encode(created),
        "model": encode(reply.model),
        "choices": join_array(
            _write_choice(choice, form, own=reply.origin is None) for choice in reply.choices or (_NOTHING,)
        ),
    }
    if reply.usage is not None:
        members["usage"] = write_usage(reply.usage)
    if (tier := tier_of(reply.service_tier)) is not None:
        members["service_tier"] = encode(tier)
    if reply.fingerprint is not None:
        members["system_fingerprint"] = encode(reply.fingerprint)
    if reply.origin is None:  # what another protocol knows is nothing to this one's clients
        members.update(reply.extra)
    return join_object(members)


def _write_choice(choice: Choice, form: ReplyForm, *, own: bool) -> bytes:
    """A new choice; *own*: its unknown members are of this form."""
    extra = choice.extra if own else {}
    parts = choice.content if own else _signed_apart([_bare(part) for part in choice.content], form)
    said = _write_said(parts, form) | nested(extra, "message")
    members = {"index": encode(choice.index)}
    if form.is_legacy:
        members |= said
    else:
        if said["content"] == b"null" and said.keys().isdisjoint(SAID_OTHERWISE):
            said["content"] = b'""'
        refusal = {"refusal": b"null"} if form.has_refusals else {}
        members["message"] = join_object({"role": b'"assistant"'} | refusal | said)
    members["logprobs"] = choice.logprobs or b"null"
    members["finish_reason"] = _write_finish(choice, form)
    return join_object(members | Wire(form.api, own=True).unknown(extra, "", "message"))


def _write_finish(choice: Choice, form: ReplyForm) -> bytes:
    if choice.finish is None:
        return b"null"
    kinds = {
        part.kind if form.has_legacy_calls else "function" for part in choice.content if isinstance(part, ToolCall)
    }
    finish = called(choice.finish) if kinds else choice.finish
    return encode(write_finish(finish, form.words, legacy="legacy" in kinds))


def _write_said(parts: Sequence[Part], form: ReplyForm) -> dict[str, bytes]:
    """What *parts* say: members of the message, or of the legacy choice."""
    if form.is_legacy:
        texts = [part.text for part in parts if isinstance(part, TextPart | RefusalPart)]
        return {"text": encode("".join(texts))}
    wire = Wire(form.api, own=True)
    images = [part for part in parts if isinstance(part, ImagePart) and wire.kept(part.raw) is None]
    said = [_native(part, form) for part in parts if part not in images and _is_sayable(part, form)]
    members = write_answer(said, "message", wire)
    if images:  # OpenRouter's member for them
        members["images"] = join_array(write_part(image, "message.images", wire) for image in images)
    return members


def _is_sayable(part: Part, form: ReplyForm) -> bool:
    """Steps of another provider's own tools are no part of the answer; unread thinking is not either."""
    match part:
        case ReasoningPart():
            return bool(part.text) or part.member is not None or must_return(part, form.dialect)
        case OpaquePart():
            return part.raw.api == form.api
        case _:
            return True


def _signed_apart(parts: Sequence[Part], form: ReplyForm) -> Sequence[Part]:
    """*parts*, the signatures of texts as thinking; a content that would be a string does not become a list for it."""
    if form.thinking == "thinking" and not any(isinstance(part, ReasoningPart) for part in parts):
        return parts
    return text_signature.apart(parts)


def _bare(part: Part) -> Part:
    """*part* without what only another protocol knows of it."""
    return part if isinstance(part, OpaquePart) or not part.extra else attrs.evolve(part, extra={})


def _native(part: Part, form: ReplyForm) -> Part:
    """*part* of an answer as clients of this protocol know it."""
    match part:
        case ReasoningPart():
            member = thinking_member(part.member, part.provider, form.dialect, form.thinking)
            return part if member == part.member else attrs.evolve(part, member=member)
        case RefusalPart() if not form.has_refusals:
            return TextPart(part.text)
        case ToolCall(kind="legacy") if not form.has_legacy_calls:
            return attrs.evolve(part, kind="function", id=made_id(part.name, part.arguments))
        case ToolCall(kind="function", arguments=""):
            return attrs.evolve(part, arguments="{}")
        case _:
            return part


# -- writing again ---------------------------------------------------------------------------------------------


def _changes(form: ReplyForm, reply: ChatReply, origin: ChatOrigin, before: ChatReply) -> Changes:
    """What differs from the reply as it was read."""
    changes: Changes = {}
    for field, member in _SCALARS.items():
        now = getattr(reply, field)
        if now != getattr(before, field):
            changes[member] = None if now is None else encode(now)
    if reply.usage != before.usage:
        changes["usage"] = None if reply.usage is None else write_usage(reply.usage)
    if reply.choices != before.choices:
        choices = [_rewrite_choice(choice, before.choices, form) for choice in reply.choices]
        changes["choices"] = with_items(origin.members["choices"], choices)
    return changes | _extra_changes(reply.extra, before.extra)


def _extra_changes(now: Mapping[str, JSONText], before: Mapping[str, JSONText]) -> Changes:
    changes: Changes = {name: None for name in before if name not in now}
    return changes | {name: text for name, text in now.items() if before.get(name) != text}


def _rewrite_choice(choice: Choice, before: Sequence[Choice], form: ReplyForm) -> bytes:
    """*choice* spliced into the one of its index."""
    was = next((each for each in before if each.index == choice.index and each.raw is not None), None)
    if was is None or was.raw is None:
        return _write_choice(choice, form, own=True)
    text = was.raw.text
    if choice == was:
        return text
    unknown = _extra_changes(choice.extra, was.extra)
    said = _said_changes(choice, was, form)
    changes = {name: value for name, value in unknown.items() if not name.startswith("message.")}
    if form.is_legacy:
        changes |= said
    else:
        said |= nested(unknown, "message")
        changes["message"] = with_members(bytes(decode_object(text)["message"]), said)
    if choice.logprobs != was.logprobs:
        changes["logprobs"] = choice.logprobs or b"null"
    elif choice.logprobs is not None and choice.text != was.text:
        changes["logprobs"] = b"null"  # they spell the text that was changed
    if choice.finish != was.finish:
        changes["finish_reason"] = _write_finish(choice, form)
    return with_members(text, changes)


def _said_changes(choice: Choice, was: Choice, form: ReplyForm) -> Changes:
    """The members of the message that differ; what else repeats a thinking that was changed goes too."""
    now, before = _write_said(choice.content, form), _write_said(was.content, form)
    changes: Changes = {name: now.get(name) for name in before | now if now.get(name) != before.get(name)}
    if not changes.keys().isdisjoint(REASONING_MEMBERS):
        changes |= {name: None for name in (*REASONING_MEMBERS, "reasoning_details") if name not in now}
    return changes
