"""
Tools that take a text, for protocols whose tools take an object: the object has that text in it.

Their names tell what they are when the model calls them: a dialect remembers nothing of the request when it reads the
answer.
"""

from __future__ import annotations

import re

import msgspec

from llmproxy_core.wire.object_pieces import INSIDE_STRING
from llmproxy_core.wire.splice import encode, join_object

_PREFIX = "llmproxy_text_"
SCHEMA = b'{"type":"object","properties":{"text":{"type":"string"}},"required":["text"],"additionalProperties":false}'
"""What such a tool takes."""

_decode = msgspec.json.Decoder(dict[str, str]).decode


class _Form(msgspec.Struct, forbid_unknown_fields=True):
    type: str = ""


_decode_form = msgspec.json.Decoder(_Form).decode
_decode_text = msgspec.json.Decoder(str).decode
_BEGIN = re.compile(r'\s*\{\s*"text"\s*:\s*"')
_SO_FAR = re.compile(r'\s*(?:\{\s*(?:"(?:t(?:e(?:x(?:t(?:"\s*(?::\s*)?)?)?)?)?)?)?)?')
"""What may still become `_BEGIN`."""
_LONGEST_BEGINNING = 4 << 10
"""Characters that may be white space, and what may become `_BEGIN`: each piece is looked at with all before it."""
_LONGEST_ESCAPE = 12
"""Characters of one that is written as a pair of surrogates."""


def sent_name(name: str) -> str:
    """What the tool that the client calls *name* is called here."""
    return _PREFIX + name


def clients_name(name: str) -> str | None:
    """The client's name of a tool that takes a text; None: it is an ordinary one."""
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else None


def is_free(form: bytes | None) -> bool:
    """Whether a tool whose `Tool.format` is *form* takes any text: only then is nothing lost without it."""
    if form is None:
        return True
    try:
        return _decode_form(form).type == "text"
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False


def write_text(text: str) -> bytes:
    """The arguments that hold *text*."""
    return join_object({"text": encode(text)})


def read_text(arguments: str) -> str:
    """The text that such a tool is called with; arguments of another form as they are."""
    try:
        return _decode(arguments)["text"]
    except (msgspec.MsgspecError, UnicodeError, KeyError):
        return arguments


class TextPieces:
    """The text in arguments that come in pieces; arguments of another form as they are."""

    __slots__ = ("_held", "_is_raw", "_state")

    def __init__(self) -> None:
        self._held = ""
        self._state = "before"

    def feed(self, piece: str) -> str:
        """What of the text *piece* completes."""
        match self._state:
            case "before":
                return self._begin(self._held + piece)
            case "inside":
                return self._inside(self._held + piece)
            case "raw":
                return piece
            case _:
                return ""

    def _begin(self, text: str) -> str:
        found = _BEGIN.match(text)
        if found is not None:
            self._state = "inside"
            return self._inside(text[found.end() :])
        if len(text) <= _LONGEST_BEGINNING and _SO_FAR.fullmatch(text) is not None:
            self._held = text
            return ""
        self._state, self._held = "raw", ""
        return text

    def _inside(self, text: str) -> str:
        end = _quote(text)
        if end is not None:
            self._state, self._held = "after", ""
            return _unescaped(text[:end], 0)[0]
        said, self._held = _unescaped(text, _LONGEST_ESCAPE)
        return said


def _quote(text: str) -> int | None:
    """Where the string ends whose inside *text* begins with; None: not in it."""
    found = INSIDE_STRING.match(text)
    assert found is not None  # it matches nothing, too
    at = found.end()
    return at if text[at : at + 1] == '"' else None


def _unescaped(text: str, most: int) -> tuple[str, str]:
    """What the inside of a string says, but for an escape at its end, of *most* characters, that is not whole."""
    for at in range(len(text), max(len(text) - most, 0) - 1, -1):
        try:
            return _decode_text(f'"{text[:at]}"'), text[at:]
        except (msgspec.MsgspecError, UnicodeError):
            continue
    return text, ""  # not JSON, so it is not known what it means
