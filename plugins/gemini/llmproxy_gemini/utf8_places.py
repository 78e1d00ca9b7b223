"""Places in a text, which Google counts in bytes of UTF-8 and others in characters."""

from __future__ import annotations

from bisect import bisect_right

_BLOCK = 256
"""Characters that are looked at to find a place."""


class Utf8Places:
    """
    A text that may come in pieces, and where its characters stand among its bytes.

    A place is found in a block of the text, not from its beginning: each of ten thousand citations is.
    """

    __slots__ = ("_blocks", "_bytes", "_characters")

    def __init__(self) -> None:
        self._blocks: list[str] = []
        # Where each block begins, and the next one would.
        self._bytes = [0]
        self._characters = [0]

    def add(self, text: str) -> None:
        """*text* comes next."""
        for start in range(0, len(text), _BLOCK):
            block = text[start : start + _BLOCK]
            self._blocks.append(block)
            self._bytes.append(self._bytes[-1] + len(_spelt(block)))
            self._characters.append(self._characters[-1] + len(block))

    @property
    def size(self) -> int:
        """Bytes of the text."""
        return self._bytes[-1]

    def characters(self, offset: int) -> int:
        """The characters in the first *offset* bytes, one that is cut by it not counted."""
        block = bisect_right(self._bytes, offset) - 1
        if block == len(self._blocks):
            return self._characters[-1]
        inside = _spelt(self._blocks[block])[: offset - self._bytes[block]]
        return self._characters[block] + len(inside.decode(errors="ignore"))

    def bytes(self, offset: int) -> int:
        """The bytes of the first *offset* characters; of all where there are fewer. Below 0 it counts from the end."""
        offset = max(0, self._characters[-1] + offset) if offset < 0 else offset
        block = bisect_right(self._characters, offset) - 1
        if block == len(self._blocks):
            return self._bytes[-1]
        return self._bytes[block] + len(_spelt(self._blocks[block][: offset - self._characters[block]]))


def _spelt(text: str) -> bytes:
    return text.encode(errors="replace")
