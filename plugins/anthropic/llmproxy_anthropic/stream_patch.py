"""An event whose meaning a processor has changed: only its members are written, the rest keeps its bytes."""

from __future__ import annotations

import re

import msgspec

from llmproxy_anthropic.event import EventSource
from llmproxy_anthropic.finish import write_finish
from llmproxy_anthropic.usage import write_usage
from llmproxy_core import Frame
from llmproxy_core.chat import Finished, Start, ToolCallStart, UsageReported
from llmproxy_core.wire import Changes, decode_object, encode, encode_event, with_members

# A member whose value is a string. Quotes in strings are escaped, so a match is a member.
_TEXTS = {
    member: re.compile(rb'"%b"\s*+:\s*+("(?:[^"\\]++|\\.)*+")' % member.encode())
    for member in ("text", "thinking", "partial_json")
}


def framed(frame: Frame, source: EventSource, data: bytes) -> bytes:
    """The bytes of *frame* with *data* in the place of its own."""
    if data is source.data:
        return frame.raw
    if source.data in frame.raw:
        return frame.raw.replace(source.data, data, 1)
    return encode_event(data, source.kind)


def with_index(data: bytes, index: int) -> bytes:
    return with_members(data, {"index": encode(index)})


def with_text(source: EventSource, was: str, now: str) -> bytes:
    """The event's JSON saying *now* where it said *was*."""
    data, member = source.data, source.member
    found = [*_TEXTS[member].finditer(data)] if member in _TEXTS else []
    if len(found) == 1 and msgspec.json.decode(found[0][1]) == was:
        return data[: found[0].start(1)] + encode(now) + data[found[0].end(1) :]
    outer = "content_block" if source.kind == "content_block_start" else "delta"
    return _inside(data, outer, {member: encode(now)})


def with_call(data: bytes, call: ToolCallStart) -> bytes:
    return _inside(data, "content_block", {"id": encode(call.id), "name": encode(call.name)})


def with_start(data: bytes, was: Start, now: Start) -> bytes:
    changes: Changes = {}
    if now.id != was.id:
        changes["id"] = encode(now.id)
    if now.model != was.model:
        changes["model"] = encode(now.model)
    return _inside(data, "message", changes)


def with_citation(data: bytes, citation: bytes) -> bytes:
    return _inside(data, "delta", {"citation": citation})


def with_finish(data: bytes, finished: Finished, *, called: bool) -> bytes:
    return _inside(data, "delta", dict(write_finish(finished.finish, called=called)))


def with_usage(data: bytes, reported: UsageReported) -> bytes:
    usage = decode_object(data).get("usage")
    if usage is None:
        return with_members(data, {"usage": write_usage(reported.usage)})
    members = {name: bytes(text) for name, text in decode_object(write_usage(reported.usage)).items()}
    return with_members(data, {"usage": with_members(bytes(usage), dict(members))})


def _inside(data: bytes, member: str, changes: Changes) -> bytes:
    inner = bytes(decode_object(data)[member])
    return with_members(data, {member: with_members(inner, changes)})
