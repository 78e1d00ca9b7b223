"""Whole answers: written anew, and written again with the fewest changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from llmproxy_core.chat import (
    AudioPart,
    ChatOrigin,
    ChatReply,
    Choice,
    Citation,
    JSONText,
    OpaquePart,
    Part,
    TextPart,
)
from llmproxy_core.wire import (
    Changes,
    Wire,
    decode_array,
    decode_object,
    encode,
    join_array,
    join_object,
    with_items,
    with_members,
)
from llmproxy_gemini.apis import FORM
from llmproxy_gemini.call_ids import new_id
from llmproxy_gemini.citations import write_citations
from llmproxy_gemini.finish import write_finish
from llmproxy_gemini.logprobs import write_logprobs
from llmproxy_gemini.part_write import write_part
from llmproxy_gemini.respell import respelt
from llmproxy_gemini.usage import write_usage

_WIRE = Wire(FORM, own=True)
EMPTY_PART = b'{"text":""}'


def write_reply(reply: ChatReply) -> bytes:
    """*reply*: spliced into what it was read from, or anew."""
    origin = reply.origin
    if origin is not None and origin.api == FORM and isinstance(origin.value, ChatReply):
        return with_members(origin.text, _changes(reply, origin, origin.value))
    own = origin is None
    members = {"candidates": join_array([_write_choice(choice, own=own) for choice in reply.choices])}
    if reply.usage is not None:
        members["usageMetadata"] = write_usage(reply.usage)
    members |= head(reply.id or new_id(), reply.model, reply.created)
    return join_object({**members, **(reply.extra if own else {})})


def head(reply_id: str, model: str, created: int | None) -> dict[str, bytes]:
    """What every chunk of an answer repeats."""
    members = {"modelVersion": encode(model)}
    if created is not None and (time := _write_time(created)) is not None:
        members["createTime"] = encode(time)
    return members | {"responseId": encode(reply_id)}


def _write_time(seconds: int) -> str | None:
    """The time in UTC; None for one that no calendar has, as of servers that count milliseconds."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def _write_choice(choice: Choice, *, own: bool) -> bytes:
    """A new candidate; *own*: its unknown members are of this protocol."""
    parts = write_parts(_spoken(choice.content))
    members = {"content": content(parts)}
    if choice.finish is not None:
        members["finishReason"] = encode(write_finish(choice.finish))
        if choice.finish.detail is not None:
            members["finishMessage"] = encode(choice.finish.detail)
    members["index"] = encode(choice.index)
    if choice.logprobs is not None and (logprobs := write_logprobs(choice.logprobs)) is not None:
        members["logprobsResult"] = logprobs
    if citations := _citations(choice.content):
        members["groundingMetadata"] = write_citations(citations, choice.text)
    return join_object({**(choice.extra if own else {}), **members})


def _spoken(parts: Sequence[Part]) -> list[Part]:
    """*parts*; of speech, which is another provider's, what was said as a text, and the sound alone."""
    told: list[Part] = []
    for part in parts:
        if not isinstance(part, AudioPart):
            told.append(part)
            continue
        if part.transcript:
            told.append(TextPart(part.transcript))
        if part.source.data:
            told.append(AudioPart(part.source))
    return told


def content(parts: Sequence[bytes]) -> bytes:
    """A content of the model's; one that says nothing says so."""
    return join_object({"parts": join_array(parts or [EMPTY_PART]), "role": b'"model"'})


def write_parts(parts: Sequence[Part]) -> list[bytes]:
    """What of *parts* has a form here: steps of another provider's own tools are no part of the answer."""
    said = [part for part in parts if not isinstance(part, OpaquePart) or part.raw.api == FORM]
    written = [write_part(part, "content", _WIRE) for part in said if part != TextPart("")]
    return [text for text in written if text is not None]


def _citations(parts: Sequence[Part]) -> list[Citation]:
    """Their places count in the part; together the texts are one."""
    found: list[Citation] = []
    offset = 0
    for part in parts:
        if isinstance(part, TextPart):
            found += [citation.moved(offset, len(part.text)) for citation in part.citations]
            offset += len(part.text)
    return found


# -- writing again ---------------------------------------------------------------------------------------------


def _changes(reply: ChatReply, origin: ChatOrigin, before: ChatReply) -> Changes:
    """What differs from the reply as it was read."""
    changes: Changes = {}
    if reply.model != before.model:
        changes["modelVersion"] = encode(reply.model)
    if reply.id != before.id:
        changes["responseId"] = encode(reply.id)
    if reply.usage != before.usage:
        changes["usageMetadata"] = None if reply.usage is None else write_usage(reply.usage)
    if reply.choices != before.choices:
        choices = [_rewrite_choice(choice, before.choices) for choice in reply.choices]
        text = origin.members.get("candidates", b"[]")
        changes["candidates"] = join_array(choices) if text == b"null" else with_items(text, choices)
    return changes | _extra_changes(reply.extra, before.extra)


def _extra_changes(now: Mapping[str, JSONText], before: Mapping[str, JSONText]) -> Changes:
    changes: Changes = {name: None for name in before if name not in now}
    return changes | {name: text for name, text in now.items() if before.get(name) != text}


def _rewrite_choice(choice: Choice, before: Sequence[Choice]) -> bytes:
    """*choice* spliced into the one of its index."""
    was = next((each for each in before if each.index == choice.index and each.raw is not None), None)
    if was is None or was.raw is None:
        return _write_choice(choice, own=True)
    text = was.raw.text
    if choice == was:
        return text
    changes = _extra_changes(choice.extra, was.extra)
    members = decode_object(text)
    if choice.content != was.content:
        old = bytes(members["content"]) if "content" in members else b"{}"
        changes["content"] = _rewrite_content(old, choice.content, was.content)
    if choice.text != was.text:
        changes |= without_echo({name: bytes(raw) for name, raw in members.items()})
        changes |= {name: None for name in ("logprobsResult",) if name in members}
    if choice.finish != was.finish:
        changes["finishReason"] = None if choice.finish is None else encode(write_finish(choice.finish))
    return with_members(text, changes)


def without_echo(members: Mapping[str, bytes]) -> Changes:
    """The changes that leave out the passages which sources repeat of a candidate's text, when that was changed."""
    grounding = members.get("groundingMetadata", b"")
    if not grounding.startswith(b"{") or (supports := decode_object(grounding).get("groundingSupports")) is None:
        return {}
    quiet = [_quiet(bytes(support)) for support in decode_array(bytes(supports))]
    return {"groundingMetadata": with_members(grounding, {"groundingSupports": with_items(bytes(supports), quiet)})}


def _quiet(support: bytes) -> bytes:
    segment = decode_object(support).get("segment")
    if segment is None or "text" not in decode_object(segment):
        return support
    return with_members(support, {"segment": with_members(bytes(segment), {"text": b'""'})})


def _rewrite_content(text: bytes, parts: Sequence[Part], was: Sequence[Part]) -> bytes:
    old = decode_object(text).get("parts")
    if old is None or len(parts) != len(was):
        return with_members(text, {"parts": join_array(write_parts(parts) or [EMPTY_PART])})
    written = [respelt(new, before, "content", _WIRE) for new, before in zip(parts, was, strict=True)]
    return with_members(text, {"parts": with_items(bytes(old), [item or EMPTY_PART for item in written])})
