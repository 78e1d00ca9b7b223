"""
What nearly all events of a stream have in common: everything but the few letters that the model says in each.

To search every byte of a stream for the rare event that tells something is most of what watching it costs. What events
share was searched once, when it was taken from one of them; of the others only the rest is looked at.
"""

from __future__ import annotations

import re

TEXT = re.compile(
    rb'"(content|reasoning_content|reasoning|refusal|text|transcript|name|arguments)"\s*:\s*'
    rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
).finditer
"""What a model says, in the members that all wire forms say it in."""


class Mould:
    """
    The bytes of an event before its text, *begin*, and behind it, *end*.

    They come from one line of data, an object, that tells nothing. Since *begin* ends with the quote that opens the
    text, and *end* goes on after the one that closes it as a JSON value does, no member name reaches from one of them
    into the text: one that stands in an event of this mould has both its quotes in the rest.
    """

    __slots__ = ("_begin", "_end", "_seam")

    def __init__(self, begin: bytes, end: bytes) -> None:
        self._begin = begin
        self._end = end
        self._seam = end + begin
        """What stands between two texts. So long that it is found without a look at most of its bytes."""

    @classmethod
    def of(cls, event: bytes) -> Mould | None:
        """That of *event*, which tells nothing; None when it has no text."""
        text = next(TEXT(event), None)
        if text is None:
            return None
        begin, end = event[: text.start(2)], event[text.end(2) :]
        is_line = begin.startswith(b"data: {") and end.endswith(b"}\n\n") and event.count(b"\n") == 2
        if not is_line or b"\r" in event or not end.startswith((b'"}', b'",')):
            return None
        return cls(begin, end)

    def quiet(self, block: bytes) -> tuple[int, int]:
        """From where to where *block* is events of this mould that tell nothing; the same twice: nowhere."""
        first, last = block.find(self._begin), block.rfind(self._end)
        start = first + len(self._begin)
        if first < 0 or last < start or (first and not block.startswith(b"\n\n", first - 2)):
            return 0, 0
        rest = block[start:last].replace(self._seam, b" ")
        if b"\n" in rest or b"\r" in rest:  # an event of another mould in between
            return 0, 0
        if b'"' in rest and b'"' in rest.replace(b'\\"', b""):  # a text has no other quotes
            return 0, 0
        return first, last + len(self._end)


def middle_event(block: bytes) -> bytes:
    """An event of *block*, of whole events: that in the middle, where most are like the others."""
    start = block.rfind(b"\n\n", 0, len(block) // 2)
    start = 0 if start < 0 else start + 2
    return block[start : block.find(b"\n\n", start) + 2]
