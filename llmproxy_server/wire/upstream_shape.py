"""
The shape of a head: all of it but what some of its fields say, such as an id, the date and the length of the body.

The answers of an upstream have few of them, each many times. What is the same means the same, so of a head whose shape
is known only the values that vary are read, and by the same rules: whatever may break one is read in full.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from llmproxy_core.headers import Headers
from llmproxy_server.wire.upstream_head import LENGTH, MAY_BE_SECRET, NEW_EACH_TIME, Head, HeadReader

LONGEST = 4096
"""Bytes of a head of which the shape is learned. (Less than a line may have, so of those no limit need be asked.)"""
MOST = 8
"""Shapes of an upstream's heads; they are its choice, so the memory of them is bounded."""
OFTEN = 16
"""How many heads are alike before that is made use of: to make it ready costs what many heads cost."""
MISSES = 4096
LEARNED = 256
"""
Of so many heads that no shape reads, so many are learned from, the first ones. An upstream with more shapes than are
kept would have all its heads learned from in vain, at five times the cost of reading them.
"""
_FRAMING = (b"connection", b"transfer-encoding")
_VALUE = "([!-~][ -~]*+)(?<! )"  # with no blank to be left out
_LENGTH_VALUE = "([0-9]{1,18})"
_Key = tuple[bytes | None, ...]


class Shape:
    """
    Heads that are alike, and what they say.

    The value of a field varies from the second on that was not the same. It is not kept here then, and one that may be
    secret never is.
    """

    __slots__ = ("_alike", "_head", "_lines", "_match", "_names", "_said", "_values", "_varies")

    def __init__(self, lines: list[bytes], head: Head) -> None:
        """*head* is what *lines* say."""
        self._head = head[0], head[2], head[3]
        self._lines = lines
        names = [name for name, _ in head[1]]
        # Each once: no name has a blank.
        fields = [name if at == names.index(name) else f"{name} {at}" for at, name in enumerate(names)]
        self._names = names if head[1].has_repeated else None
        self._said = dict(zip(fields, [value for _, value in head[1]], strict=True))
        self._varies = [name in NEW_EACH_TIME or name == LENGTH or bool(MAY_BE_SECRET.search(name)) for name in names]
        self._values: tuple[str, ...] = ()
        """Fields that vary, in their order."""
        self._match: Callable[[str], re.Match[str] | None] | None = None
        self._alike = 0
        self._forget()

    @property
    def is_ready(self) -> bool:
        """Whether it reads heads."""
        return self._match is not None

    def learn(self, lines: list[bytes]) -> None:
        """A head that is alike has these *lines*, and was read in full."""
        self._alike += 1
        both = zip(lines[1:], self._lines[1:], self._varies, strict=True)
        varies = [varied or line != kept for line, kept, varied in both]
        if varies != self._varies:
            self._varies, self._alike, self._match = varies, 1, None
            self._forget()
        elif self._alike >= OFTEN and self._match is None:
            self._make_ready()

    def _forget(self) -> None:
        """Keep no value of a field that varies."""
        for at, (field, varies) in enumerate(zip(self._said, self._varies, strict=True), 1):
            if varies:
                begin = self._lines[at].find(b": ") + 2
                self._lines[at], self._said[field] = self._lines[at][:begin], ""

    def _make_ready(self) -> None:
        pattern = re.escape(self._lines[0].decode())
        for field, line, varies in zip(self._said, self._lines[1:], self._varies, strict=True):
            value = "" if not varies else _LENGTH_VALUE if field == LENGTH else _VALUE
            pattern += f"\r\n{re.escape(line.decode())}{value}"
        self._values = tuple(field for field, varies in zip(self._said, self._varies, strict=True) if varies)
        self._match = re.compile(pattern).fullmatch

    def read(self, text: str) -> Head | None:
        """What the head *text*, not too long, says; None where it is of another shape, or may be."""
        match = self._match
        if match is None or (found := match(text)) is None:
            return None
        said = self._said.copy()
        said.update(zip(self._values, found.groups(), strict=True))
        status, length, keeps = self._head
        if length >= 0:
            length = int(said[LENGTH])
        if self._names is None:
            return status, Headers.of(said), length, keeps
        return status, Headers(zip(self._names, said.values(), strict=True)), length, keeps


class Shapes:
    """Reads the heads of one upstream as `HeadReader` does."""

    __slots__ = ("_missed", "_reader", "_shapes")

    def __init__(self, reader: HeadReader) -> None:
        """*reader* reads what is of no shape that is known."""
        self._reader = reader
        self._shapes: dict[_Key, Shape] = {}
        self._missed = 0
        """Heads that no shape has read."""

    def read(self, data: bytes) -> Head | None:
        """See `HeadReader`."""
        if len(data) > LONGEST:
            return self._reader.read(data)
        text = data.decode("latin-1")  # which takes all; there is nothing but ASCII in a shape
        for shape in self._shapes.values():
            head = shape.read(text)
            if head is not None:
                return head
        head = self._reader.read(data)
        if self._missed % MISSES < LEARNED and head is not None and data.isascii():
            self._learn(data.split(b"\r\n"), head)
        self._missed += 1
        return head

    def _learn(self, lines: list[bytes], head: Head) -> None:
        begins = [_begin(line) for line in lines[1:]]
        if None in begins:
            return
        key = (lines[0], *begins)
        shape = self._shapes.get(key)
        if shape is not None:
            shape.learn(lines)
            return
        if len(self._shapes) >= MOST:
            unready = (kept for kept, shape in self._shapes.items() if not shape.is_ready)
            del self._shapes[next(unready, next(iter(self._shapes)))]
        self._shapes[key] = Shape(lines, head)


def _begin(line: bytes) -> bytes | None:
    """
    What is the same in each *line* that may stand in its place: all of one that tells of the framing, else the name.

    None for one that is not written as most are, with a blank.
    """
    name, _, rest = line.partition(b":")
    if not rest.startswith(b" "):
        return None
    return line if name.lower() in _FRAMING else name + b": "
