"""What a tool answered: `response` of a `functionResponse`, which is always an object."""

from __future__ import annotations

import msgspec

from llmproxy_core.chat import TextPart
from llmproxy_core.wire import Wire, decode_object, encode, join_object

_TEXTS = ("result", "output")


def read_response(text: bytes, place: str, wire: Wire) -> tuple[tuple[TextPart, ...], bool]:
    """
    The text of a tool's answer, and whether it is an error.

    An object of one text under the names that Google gives these is that text; any other is its own JSON.
    """
    try:
        members = {name: bytes(raw) for name, raw in decode_object(text).items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise wire.fail(place, "an object") from error
    if len(members) != 1:
        return (TextPart(text.decode()),), False
    name, value = next(iter(members.items()))
    is_error = name == "error"
    if name not in _TEXTS and not is_error:
        return (TextPart(text.decode()),), False
    said = msgspec.json.decode(value, type=str) if value.startswith(b'"') else value.decode()
    return ((TextPart(said),) if said else ()), is_error


def write_response(text: str, *, is_error: bool) -> bytes:
    """The object for a tool's answer: the object that *text* is, else one that holds it."""
    if is_error:
        return join_object({"error": encode(text)})
    return text.encode() if is_object(text) else join_object({"result": encode(text)})


def is_object(text: str) -> bool:
    """Whether *text* is one JSON object, checked to its end."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        decode_object(text.encode())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return True


def write_arguments(text: str) -> bytes:
    """The arguments of a call as an object: what is none is held in one, for the model to see what it wrote."""
    if not text.strip():
        return b"{}"
    if is_object(text):
        return text.encode()
    return join_object({"input": encode(text)})
