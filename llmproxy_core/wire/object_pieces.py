"""A JSON object that comes as pieces of text, such as the arguments of a call."""

from __future__ import annotations

import re

import msgspec

from llmproxy_core.wire.splice import decode_object

INSIDE_STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""The inside of a string, as far as it is there; but for a backslash that waits for what it escapes."""


class ObjectPieces:
    """
    The pieces, and whether they are a whole object by now.

    Each piece is looked at once, when that is asked for, and the whole decoded once, when its braces are closed:
    arguments of ten thousand pieces between which something else is said cost no more than others.
    """

    __slots__ = ("_depth", "_in_string", "_is_over", "_is_whole", "_looked_at", "_pieces", "_rest")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._looked_at = 0  # so many pieces
        self._rest = ""  # of the last of these: a backslash in a string
        self._in_string = False
        self._depth = 0
        self._is_whole = False
        self._is_over = False
        """Whatever comes, it is an object no more."""

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def is_whole(self) -> bool:
        """Whether the text is one JSON object, checked to its end."""
        if self._looked_at < len(self._pieces) and not self._is_over:
            new = "".join(self._pieces[self._looked_at :])
            self._looked_at = len(self._pieces)
            self._look(new)
        return self._is_whole

    def _look(self, new: str) -> None:
        if not self._depth and not new.strip(" \t\r\n"):
            return  # before the object, or behind it
        if self._is_whole or (not self._depth and not new.lstrip(" \t\r\n").startswith("{")):
            self._is_whole, self._is_over = False, True
            return
        self._nest(self._rest + new)
        if self._depth <= 0:
            self._is_whole = _is_object(self.text)
            self._is_over = not self._is_whole

    def _nest(self, text: str) -> None:
        """Count the braces of *text* that stand in no string."""
        place = 0
        self._rest = ""
        while place < len(text):
            if self._in_string:
                found = INSIDE_STRING.match(text, place)
                assert found is not None  # it matches nothing, too
                place = found.end()
                if text[place : place + 1] != '"':
                    self._rest = text[place:]
                    return
                self._in_string = False
                place += 1
                continue
            quote = text.find('"', place)
            end = len(text) if quote < 0 else quote
            self._depth += text.count("{", place, end) - text.count("}", place, end)
            self._in_string = quote >= 0
            place = end + 1


def _is_object(text: str) -> bool:
    try:
        decode_object(text.encode())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return True
