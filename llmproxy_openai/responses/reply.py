"""Whole answers: read, and written again with the fewest changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import msgspec

from llmproxy_core.chat import ChatOrigin, ChatReply, Choice, JSONText, ToolCall, remember
from llmproxy_core.dialect import ReplyHead
from llmproxy_core.errors import UpstreamError, UpstreamGarbage
from llmproxy_core.usage import Usage
from llmproxy_core.wire import (
    NUMBER,
    STRING,
    Changes,
    Envelope,
    Members,
    Wire,
    decode_array,
    decode_object,
    encode,
    garbage,
    join_array,
    join_object,
    read_body,
    reported_error,
    with_items,
    with_members,
)
from llmproxy_openai.responses.answer import AnswerReader, rewrite_items
from llmproxy_openai.responses.finish import finish_word, is_cut, read_finish, write_finish
from llmproxy_openai.responses.paths import CREATE, DIALECT
from llmproxy_openai.responses.render import rendered_items, rendered_reply
from llmproxy_openai.responses.repeated import SILENCE
from llmproxy_openai.responses.usage import read_usage, write_usage

_NULLS = (b"", b"null")
_SCALARS = {"id": "id", "created": "created_at", "model": "model", "service_tier": "service_tier"}
"""Field of the reply: its member."""


class _Details(msgspec.Struct):
    reason: str | None = None


class Outline(msgspec.Struct):
    """The facts of a response object."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    service_tier: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    incomplete_details: _Details | None = None
    output: msgspec.Raw = msgspec.Raw()

    @property
    def reason(self) -> str | None:
        return None if self.incomplete_details is None else self.incomplete_details.reason


_decode = msgspec.json.Decoder(Outline).decode


def decode_outline(body: bytes) -> Outline:
    """The facts of *body*, which is no error. UpstreamGarbage when it is no response, UpstreamError for an error."""
    try:
        outline = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamGarbage("The provider's answer is not a JSON object") from error
    if outline.status == "failed" or bytes(outline.error) not in _NULLS:
        raise failed(body)
    return outline


def failed(body: bytes, *, keep: bytes | None = None) -> UpstreamError:
    """The error in *body*, an answer that is none; *keep* is what a client of this protocol may see of it."""
    envelope = read_body(body) or Envelope("The provider reported an error without saying which.")
    error = reported_error(DIALECT, envelope, body)
    if error.body is not None:
        error.body = keep
    return error


def scan_reply(body: bytes) -> ReplyHead:
    """See `Dialect.scan_reply`."""
    outline = decode_outline(body)
    word = finish_word(outline.status, outline.reason)
    usage = read_usage(bytes(outline.usage), outline.service_tier)
    return ReplyHead(usage, outline.model, () if word is None else (word,), outline.id)


def read_spent(response: bytes) -> Usage | None:
    """What *response*, however it ended, says that it used; None when it does not say."""
    try:
        outline = _decode(response)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return read_usage(bytes(outline.usage), outline.service_tier)


# -- reading ---------------------------------------------------------------------------------------------------


def read_reply(body: bytes) -> ChatReply:
    """The meaning of *body*. UpstreamGarbage when it is no response, UpstreamError when it is an error."""
    outline = decode_outline(body)
    members = Members(body, "", garbage)
    if members.peek("output") is None:
        raise garbage("output", "a list")
    output = members.peek("output") or b"[]"
    reader = AnswerReader(Wire(CREATE.form, own=True, fail=garbage))
    for index, text in enumerate(members.array("output")):
        reader.add(text, f"output[{index}]")
    called = any(isinstance(part, ToolCall) for part in reader.parts)
    choice = Choice(0, tuple(reader.parts), read_finish(outline.status, outline.reason, called=called), _logprobs(body))
    for name in ("object", "status", "usage", "error", "incomplete_details"):
        members.raw(name)
    created = members.take("created_at", NUMBER)
    reply = ChatReply(
        id=members.take("id", STRING) or "",
        model=members.take("model", STRING) or "",
        choices=(remember(choice, CREATE.form, output),),
        usage=read_usage(bytes(outline.usage), outline.service_tier),
        created=None if created is None else int(created),
        service_tier=members.take("service_tier", STRING),
        extra=members.rest(),
    )
    raws = {name: bytes(raw) for name, raw in decode_object(body).items()}
    return attrs.evolve(reply, origin=ChatOrigin(CREATE.form, raws, reply, body))


class _Spelled(msgspec.Struct):
    logprobs: list[msgspec.Raw] | None = None


class _Spelling(msgspec.Struct):
    type: str = ""
    content: list[_Spelled] | str | None = None


class _Spellings(msgspec.Struct):
    output: list[_Spelling] = []


_decode_spellings = msgspec.json.Decoder(_Spellings).decode


def _logprobs(body: bytes) -> JSONText | None:
    """The probabilities of all texts, in the form of chat completions."""
    if b'"logprobs"' not in body:
        return None
    try:
        items = _decode_spellings(body).output
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    texts = [part for item in items if isinstance(item.content, list) for part in item.content]
    entries = [bytes(entry) for part in texts for entry in part.logprobs or ()]
    return join_object({"content": join_array(entries), "refusal": b"null"}) if entries else None


# -- writing ---------------------------------------------------------------------------------------------------


def write_reply(reply: ChatReply, asked: Mapping[str, bytes] = SILENCE) -> bytes:
    """*reply* as a response: spliced into what it was read from, or anew, repeating what was *asked* (`repeated`)."""
    origin = reply.origin
    if origin is not None and origin.api == CREATE.form and isinstance(origin.value, ChatReply):
        return with_members(origin.text, _changes(reply, origin, origin.value))
    return rendered_reply(reply, asked)


def _changes(reply: ChatReply, origin: ChatOrigin, before: ChatReply) -> Changes:
    """What differs from the reply as it was read."""
    changes: Changes = {}
    for field, member in _SCALARS.items():
        now = getattr(reply, field)
        if now != getattr(before, field):
            changes[member] = None if now is None else encode(now)
    if reply.usage != before.usage:
        changes["usage"] = b"null" if reply.usage is None else write_usage(reply.usage)
    choice, was = (each.choices[0] if each.choices else None for each in (reply, before))
    if choice is not None and was is not None and choice != was:
        changes |= _choice_changes(choice, was, origin.members["output"])
    changes |= {name: None for name in before.extra if name not in reply.extra}
    return changes | {name: text for name, text in reply.extra.items() if before.extra.get(name) != text}


def _choice_changes(choice: Choice, was: Choice, output: JSONText) -> Changes:
    changes: Changes = {}
    if choice.content != was.content:
        changes["output"] = _output(choice, was, output)
    if choice.finish != was.finish:
        status, reason = write_finish(choice.finish)
        changes["status"] = encode(status)
        changes["incomplete_details"] = b"null" if reason is None else join_object({"reason": encode(reason)})
        if status == "incomplete" and was.finish is not None and not is_cut(was.finish):
            changes["output"] = _cut(changes.get("output") or output)
    return changes


def _cut(output: JSONText) -> bytes:
    """The items *output*, of which the last is incomplete where it has a status."""
    items = [bytes(item) for item in decode_array(output)]
    if items and "status" in decode_object(items[-1]):
        items[-1] = with_members(items[-1], {"status": b'"incomplete"'})
    return with_items(output, items)


def _output(choice: Choice, was: Choice, output: JSONText) -> bytes:
    texts: Sequence[bytes] = [bytes(text) for text in decode_array(output)]
    wire = Wire(CREATE.form, own=True)
    items = rewrite_items(texts, was.content, choice.content, "output", wire)
    return join_array(rendered_items(choice)) if items is None else with_items(output, items)
