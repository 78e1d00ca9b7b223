"""Whole answers: what they say, and their accounting facts."""

from __future__ import annotations

import attrs
import msgspec

from llmproxy_anthropic.apis import MESSAGES, NAME
from llmproxy_anthropic.block_read import read_blocks
from llmproxy_anthropic.error_words import status_of
from llmproxy_anthropic.finish import read_finish
from llmproxy_anthropic.usage import neutral_tier, read_usage
from llmproxy_core import ReplyHead, UpstreamError, UpstreamGarbage
from llmproxy_core.chat import ChatOrigin, ChatReply, Choice, ToolCall
from llmproxy_core.wire import (
    STRING,
    Envelope,
    Members,
    Wire,
    decode_object,
    garbage,
    read_body,
    reported_error,
)


class Outline(msgspec.Struct):
    """The top level of an answer, and of the message in a stream's first event."""

    id: msgspec.Raw = msgspec.Raw()
    type: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    stop_reason: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


decode_outline = msgspec.json.Decoder(Outline).decode
_NO_ERROR = frozenset({b"", b"null"})


def scan_reply(body: bytes) -> ReplyHead:
    """See `Dialect.scan_reply`. Facts of a wrong type are left out: the answer itself may be fine."""
    outline = _outline(body)
    word = text_in(outline.stop_reason)
    return ReplyHead(
        read_usage(bytes(outline.usage)), text_in(outline.model), () if word is None else (word,), text_in(outline.id)
    )


def _outline(body: bytes) -> Outline:
    """UpstreamError when *body* is an error."""
    try:
        outline = decode_outline(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamGarbage("The provider's answer is not a JSON object") from error
    if bytes(outline.error) not in _NO_ERROR or bytes(outline.type) == b'"error"':
        raise error_in(body)
    return outline


def error_in(body: bytes) -> UpstreamError:
    """The error that *body* is, though the status was 200, or that an event of a stream tells."""
    envelope = read_body(body) or Envelope("The provider reported an error without saying which.")
    status = envelope.status or status_of(envelope.kind)
    return reported_error(NAME, attrs.evolve(envelope, status=status), body)


def text_in(raw: msgspec.Raw) -> str | None:
    """The text in *raw*; None when it is something else, or cannot be read."""
    text = bytes(raw)
    try:
        return msgspec.json.decode(text, type=str) if text.startswith(b'"') else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def read_reply(body: bytes) -> ChatReply:
    """The meaning of *body*. UpstreamGarbage when it is no message, UpstreamError when it is an error."""
    outline = _outline(body)
    raws = decode_object(body)
    members = Members(body, "", garbage)
    content = members.raw("content")
    if content is None:
        raise garbage("content", "a list of blocks")
    wire = Wire(MESSAGES.form, own=True, fail=garbage)
    parts = read_blocks(content, "content", wire)
    for name in ("type", "role", "usage"):
        members.raw(name)
    word, sequence = members.take("stop_reason", STRING), members.take("stop_sequence", STRING)
    details = members.raw("stop_details") or b""
    called = any(isinstance(part, ToolCall) for part in parts)
    usage = read_usage(bytes(outline.usage))
    reply = ChatReply(
        id=members.take("id", STRING) or "",
        model=members.take("model", STRING) or "",
        choices=(Choice(0, parts, None if word is None else read_finish(word, sequence, details, called=called)),),
        usage=usage,
        service_tier=neutral_tier(usage),
        extra=members.rest(),
    )
    origin = ChatOrigin(MESSAGES.form, {name: bytes(raw) for name, raw in raws.items()}, reply, body)
    return attrs.evolve(reply, origin=origin)
