"""JSON text changed in one place, so that everything else keeps its bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from llmproxy_core.errors import BadRequest
from llmproxy_core.jsontext import with_changes

decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
encode = msgspec.json.Encoder().encode

# What stands before an element of an array, or after its last one.
_BETWEEN = re.compile(rb"[ \t\r\n]*[\[,][ \t\r\n]*")


_decode_text = msgspec.json.Decoder(str).decode


def json_text(text: bytes) -> str:
    """The string whose JSON text, without its quotes, is *text*; what is none is taken as it stands."""
    try:
        return _decode_text(b'"' + text + b'"')
    except (msgspec.MsgspecError, UnicodeDecodeError):  # half a surrogate pair, say
        return text.decode(errors="replace")


def join_object(members: Mapping[str, bytes]) -> bytes:
    """An object of *members*, each given as JSON text."""
    return b"{" + b",".join([encode(name) + b":" + text for name, text in members.items()]) + b"}"


def join_array(items: Iterable[bytes]) -> bytes:
    """An array of *items*, each given as JSON text."""
    return b"[" + b",".join(items) + b"]"


def with_members(text: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """
    The object *text* with members set, and those whose change is None removed; the rest is byte-equal.

    An object that names a member twice has no one place to change: it is written anew with the last of the two.
    """
    if text == b"{}":
        return join_object({name: value for name, value in changes.items() if value is not None})
    try:
        return with_changes(text, changes)
    except BadRequest:
        members = {**{name: bytes(raw) for name, raw in decode_object(text).items()}, **changes}
        return join_object({name: value for name, value in members.items() if value is not None})


def with_items(text: bytes, items: Sequence[bytes]) -> bytes:
    """
    The array *text* with *items* instead of its own.

    As many as before: what stands between them stays too. More or fewer: they are joined anew.
    """
    before = [bytes(item) for item in decode_array(text)]
    if len(before) != len(items):
        return join_array(items)
    pieces, position = [], 0
    for old, new in zip(before, items, strict=True):
        between = _BETWEEN.match(text, position)
        assert between is not None  # the decoder has found an element here
        pieces += [between[0], new]
        position = between.end() + len(old)
    return b"".join([*pieces, text[position:]])
