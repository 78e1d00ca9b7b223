"""
What nearly all events of a stream have in common: everything but the few letters that the model says in each.

To search every byte of a stream for the rare event that tells something is most of what watching it costs. What events
share was searched once, when it was taken from one of them; of the others only the rest is looked at.
"""

from __future__ import annotations

import re

from llmproxy_core.sse import CR, LF

MOST_MOULDS = 8
"""How many are tried for a stream; where they do not fit its events, each has something else that is new."""

_QUOTE, _BACKSLASH = b'"\\'
_TO_ITS_QUOTE = re.compile(rb'[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+').match


class Mould:
    """
    The bytes of an event before its text, *begin*, and behind it, *end*.

    They come from an event that tells nothing: one line of data, an object, and perhaps one with the event's name
    before it. Since *begin* ends with the quote that opens the text, and *end* goes on behind the one that closes it as
    a JSON value does, nor is there a member between them.
    """

    __slots__ = ("_around", "_begin", "_end", "_end_in_chunk", "passed_bytes")

    def __init__(self, begin: bytes, end: bytes) -> None:
        self._begin = begin
        self._end = end
        self._end_in_chunk = end + b"\r\n"
        self._around = len(begin) + len(end)
        self.passed_bytes = 0
        """Of the events that `passes` has taken."""

    @classmethod
    def of(cls, event: bytes, text: tuple[int, int]) -> Mould | None:
        """That of *event*, which tells nothing, and whose text, without its quotes, stands there; None: it has none."""
        start, stop = text
        begin, end = event[:start], event[stop:]
        data = event.find(b"\n") + 1 if event.startswith(b"event: ") else 0
        is_line = begin.startswith(b"data: {", data) and end.endswith(b"}\n\n") and event.count(b"\n", data) == 2
        if not is_line or CR in event or not begin.endswith(b'"') or not end.startswith((b'"}', b'",')):
            return None
        return cls(begin, end)

    def fits(self, block: bytes) -> bool:
        """Whether *block* surely is one event of this mould, and nothing else; if so, it is counted."""
        text = block.removeprefix(self._begin).removesuffix(self._end)
        if len(block) - len(text) != self._around or _may_end(text):  # or: one of the two is not there
            return False
        self.passed_bytes += len(block)
        return True

    def text(self, event: bytes) -> bytes:
        """What in *event*, which fits, is its own."""
        return event[len(self._begin) : len(event) - len(self._end)]

    def filled(self, texts: list[bytes]) -> bytes:
        """The events whose `text` was each of *texts*."""
        return b"".join([self._begin + text + self._end for text in texts])

    def passes(self, chunk: bytes, line: bytes) -> bool:
        """
        Whether *chunk*, which is to begin with *line* and end with a line end, surely has one event of this mould in
        it, and nothing else; if so, it is counted.
        """
        text = chunk.removeprefix(line).removeprefix(self._begin).removesuffix(self._end_in_chunk)
        size = self._around + len(text)
        if len(chunk) - len(line) - 2 != size:  # one of the three is not there
            return False
        if _QUOTE in text or LF in text or CR in text or (_BACKSLASH in text and text.endswith(b"\\")):
            return False  # as `_may_end` has it, written out, as each event of a stream comes this way
        self.passed_bytes += size
        return True

    def quiet(self, block: bytes) -> tuple[int, int]:
        """From where to where *block*, of whole events, is events of this mould, which tell nothing."""
        begin, end = self._begin, self._end
        first = 0 if block.startswith(begin) else block.find(begin)
        if first < 0 or CR in block or (first and not block.startswith(b"\n\n", first - 2)):
            return 0, 0
        last = first
        while block.startswith(begin, last):
            text = last + len(begin)
            quote = block.find(b'"', text)
            if not block.startswith(end, quote):  # one that is escaped?
                quote = _TO_ITS_QUOTE(block, text).end()  # type: ignore[union-attr] # it matches anything
                if not block.startswith(end, quote):
                    break
            elif block.find(b"\n", text, quote) >= 0:
                break
            last = quote + len(end)
        return first, last


def _may_end(text: bytes) -> bool:
    """Whether a quote closes *text* before its end, a line ends in it, or the quote behind it may be an escaped one."""
    return _QUOTE in text or LF in text or CR in text or (_BACKSLASH in text and text.endswith(b"\\"))


def middle_event(block: bytes) -> bytes:
    """An event of *block*, of whole events: that in the middle, where most are like the others."""
    start = block.rfind(b"\n\n", 0, len(block) // 2)
    start = 0 if start < 0 else start + 2
    return block[start : block.find(b"\n\n", start) + 2]
