"""
Tools that take a text, for protocols whose tools take an object: the object has that text in it.

Their names tell what they are when the model calls them: a dialect remembers nothing of the request when it reads the
answer.
"""

from __future__ import annotations

import re

import msgspec

from llmproxy_core.wire.splice import encode, join_object

_PREFIX = "llmproxy_text_"
SCHEMA = b'{"type":"object","properties":{"text":{"type":"string"}},"required":["text"],"additionalProperties":false}'
"""What such a tool takes."""

_decode = msgspec.json.Decoder(dict[str, str]).decode
_decode_text = msgspec.json.Decoder(str).decode
_BEGIN = re.compile(r'\s*\{\s*"text"\s*:\s*"')
_SO_FAR = re.compile(r'\s*(?:\{\s*(?:"(?:t(?:e(?:x(?:t(?:"\s*(?::\s*)?)?)?)?)?)?)?)?')
"""What may still become `_BEGIN`."""
_END = re.compile(r'(?<!\\)(?:\\\\)*(")')
_UNFINISHED = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z")
"""An escape, or the first half of a pair of them, whose rest is still to come."""


def sent_name(name: str) -> str:
    """What the tool that the client calls *name* is called here."""
    return _PREFIX + name


def clients_name(name: str) -> str | None:
    """The client's name of a tool that takes a text; None: it is an ordinary one."""
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else None


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
        if _SO_FAR.fullmatch(text) is not None:
            self._held = text
            return ""
        self._state, self._held = "raw", ""
        return text

    def _inside(self, text: str) -> str:
        end = _quote(text)
        if end is not None:
            self._state, self._held, text = "after", "", text[:end]
        else:
            cut = _UNFINISHED.search(text)
            at = len(text) if cut is None or not _is_escape(text, cut.start()) else cut.start()
            text, self._held = text[:at], text[at:]
        return _unescaped(text)


def _quote(text: str) -> int | None:
    """Where the string ends whose inside *text* begins with; None: not in it."""
    at = 0
    while (found := text.find('"', at)) >= 0:
        if not _is_escaped(text, found):
            return found
        at = found + 1
    return None


def _is_escaped(text: str, at: int) -> bool:
    """Whether an odd number of backslashes stand before *at*."""
    before = at
    while before > 0 and text[before - 1] == "\\":
        before -= 1
    return (at - before) % 2 == 1


def _is_escape(text: str, at: int) -> bool:
    """Whether the backslash at *at* begins an escape, and is not the end of one."""
    return not _is_escaped(text, at)


def _unescaped(text: str) -> str:
    try:
        return _decode_text(f'"{text}"')
    except (msgspec.MsgspecError, UnicodeError):
        return text
