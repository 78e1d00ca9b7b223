"""One JSON array as it arrives, cut into its elements; bytes may be split anywhere."""

from __future__ import annotations

import re

import attrs

from llmproxy_core import UpstreamGarbage

MAX_ELEMENT_BYTES = 64 << 20

_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRUCTURE = re.compile(rb'["{}\[\]]')
_IN_STRING = re.compile(rb'["\\]')


@attrs.frozen
class Element:
    """
    An element, *before* it being what stands between it and the one before.

    Of the end of the array *data* is empty. Joining all `before + data` gives the array back.
    """

    before: bytes
    data: bytes


class ArraySplitter:
    """
    Cuts an array of objects. Time is linear in its length.

    UpstreamGarbage for what is no array of objects, and for an element that is longer than *max_bytes*.
    """

    __slots__ = ("_depth", "_held", "_in_string", "_max", "_scanned", "_start", "is_closed", "is_open")

    def __init__(self, max_bytes: int = MAX_ELEMENT_BYTES) -> None:
        self._max = max_bytes
        self._held = bytearray()
        self._scanned = 0  # where in the held bytes the search goes on
        self._start = -1  # where the element begins in them; -1: between elements
        self._depth = 0
        self._in_string = False
        self.is_open = False
        self.is_closed = False

    def feed(self, data: bytes) -> list[Element]:
        """The elements that *data* completes."""
        self._held += data
        elements: list[Element] = []
        while (element := self._next()) is not None:
            elements.append(element)
        if len(self._held) > self._max:
            raise UpstreamGarbage("An element of the provider's stream is too long")
        return elements

    def _next(self) -> Element | None:
        if self._start < 0 and not self._find_start():
            return None
        if self.is_closed:
            return self._cut(len(self._held)) if self._held else None
        end = self._find_end()
        return None if end < 0 else self._cut(end)

    def _cut(self, end: int) -> Element:
        held = bytes(self._held[:end])
        start = max(self._start, 0) if not self.is_closed else end
        del self._held[:end]
        self._scanned, self._start = 0, -1
        return Element(held[:start], held[start:])

    def _find_start(self) -> bool:
        """Whether the next element has begun, or the array has ended."""
        while True:
            space = _SPACE.match(self._held, self._scanned)
            assert space is not None  # it matches nothing, too
            place = space.end()
            if place == len(self._held):
                self._scanned = place
                return self.is_closed and place > 0
            sign = self._held[place : place + 1]
            if self.is_closed or not self._is_expected(sign):
                raise UpstreamGarbage("The provider's stream is no array of objects")
            self._scanned = place + 1
            if sign == b"[":
                self.is_open = True
            elif sign == b"]":
                self.is_closed = True
            elif sign == b"{":
                self._start, self._depth = place, 1
                return True

    def _is_expected(self, sign: bytes | bytearray) -> bool:
        return sign in (b",", b"{", b"]") if self.is_open else sign == b"["

    def _find_end(self) -> int:
        """Where the element ends in what is held, or -1; remembers how far it looked."""
        held, place = self._held, self._scanned
        while True:
            if self._in_string:
                found = _IN_STRING.search(held, place)
                if found is None:
                    self._scanned = len(held)
                    return -1
                if found[0] == b"\\":
                    if found.end() == len(held):  # what it escapes is still to come
                        self._scanned = found.start()
                        return -1
                    place = found.end() + 1
                    continue
                self._in_string = False
                place = found.end()
                continue
            found = _STRUCTURE.search(held, place)
            if found is None:
                self._scanned = len(held)
                return -1
            place = found.end()
            sign = found[0]
            if sign == b'"':
                self._in_string = True
            elif sign in (b"{", b"["):
                self._depth += 1
            else:
                self._depth -= 1
                if not self._depth:
                    return place
