"""
A body in chunks, read strictly (RFC 9112 section 7.1).

    SIZE     size [;extensions] CRLF    0: TRAILER, else DATA
    DATA     that many bytes            AFTER
    AFTER    CRLF                       SIZE
    TRAILER  field CRLF                 TRAILER
             CRLF                       END

Chunks that came whole are taken in one step each, since a body may have nothing but short ones; the states are for what
is cut in two, and for what is malformed.
"""

from __future__ import annotations

import re
from enum import Enum

from llmproxy_core.errors import BadRequest

_TEXT = rb"[\t\x20\x21\x23-\x7e\x80-\xff]*"
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;" + _TEXT + rb"(?:" + _QUOTED + _TEXT + rb")*)?")
_HEAD = re.compile(_SIZE.pattern + rb"\r\n")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t\x20-\x7e\x80-\xff]*")
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_LONGEST_SIZE = 256
"""Bytes of a line with a size: extensions mean nothing to us, so there is no need for long ones."""
_MOST_CHUNK_BYTES = 1 << 32
MOST_A_TURN = 512
"""
Chunks that are read at a time, where they came whole.

One read from a socket can hold 40,000 of them, some 15 ms of work, and a thousand connections can have one each: the
others' turn comes after so many. To refuse short chunks would be no help, since small requests cost as much for each
byte; Go takes them too (`net/http/internal`, chunkedReader).
"""
_MOST_TRAILER_BYTES = 8192
_MOST_TRAILERS = 16


class _State(Enum):
    SIZE = "size"
    DATA = "data"
    AFTER = "after"
    TRAILER = "trailer"
    END = "end"


class ChunkReader:
    """
    Takes a body apart, however its bytes are split.

    Extensions and trailers are read, and dropped: nothing that we do depends on them, and what is dropped cannot mean
    one thing to us and another one to somebody else.
    """

    __slots__ = ("_left", "_line", "_state", "_trailer_bytes", "_trailers")

    def __init__(self) -> None:
        self._state = _State.SIZE
        self._left = 0  # bytes of the chunk that are still to come
        self._line = b""  # the beginning of a line, its end being still to come
        self._trailer_bytes = 0
        self._trailers = 0

    @property
    def ended(self) -> bool:
        return self._state is _State.END

    def feed(self, data: bytes, parts: list[bytes]) -> int:
        """
        Add to *parts* what *data* has of the body; say up to where it was read: to its length, or where the body ended.

        Where it has more than MOST_A_TURN chunks, to the end of some: the rest is to be fed next. BadRequest for a
        malformed one.
        """
        at, size = 0, len(data)
        while at < size and self._state is not _State.END:
            if self._state is _State.SIZE and not self._line:
                known = len(parts)
                at = _take_whole(data, at, parts)
                if at == size or len(parts) == known + MOST_A_TURN:
                    break
            if self._state is _State.DATA:
                piece = data[at : at + self._left]
                parts.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _State.AFTER
            else:
                at = self._read_line(data, at)
        return at

    def _read_line(self, data: bytes, at: int) -> int:
        """Read on to the end of a line; where what follows begins."""
        end = data.find(b"\n", at)
        self._line += data[at:] if end < 0 else data[at : end + 1]
        if len(self._line) > (_MOST_TRAILER_BYTES if self._state is _State.TRAILER else _LONGEST_SIZE):
            raise malformed_body()
        if end < 0:
            return len(data)
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n"):
            raise malformed_body()
        self._take(line[:-2])
        return end + 1

    def _take(self, line: bytes) -> None:
        if self._state is _State.SIZE:
            self._left = _size(line)
            self._state = _State.DATA if self._left else _State.TRAILER
        elif self._state is _State.AFTER:
            if line:
                raise malformed_body()
            self._state = _State.SIZE
        elif not line:
            self._state = _State.END
        else:
            self._trailers += 1
            self._trailer_bytes += len(line)
            field = _FIELD.fullmatch(line)
            if field is None or field[1].lower() in _FRAMING:
                raise malformed_body()
            if self._trailer_bytes > _MOST_TRAILER_BYTES or self._trailers > _MOST_TRAILERS:
                raise malformed_body()


def _take_whole(data: bytes, at: int, parts: list[bytes]) -> int:
    """Add to *parts* the chunks that *data* holds whole from *at* on, up to MOST_A_TURN; where the rest begins."""
    for _ in range(MOST_A_TURN):
        head = _HEAD.match(data, at, at + _LONGEST_SIZE)
        if head is None:
            break
        begin = head.end()
        end = begin + int(head[1], 16)
        if end == begin or data[end : end + 2] != b"\r\n":
            break
        parts.append(data[begin:end])
        at = end + 2
    return at


def _size(line: bytes) -> int:
    said = _SIZE.fullmatch(line)
    size = -1 if said is None else int(said[1], 16)
    if not 0 <= size <= _MOST_CHUNK_BYTES:
        raise malformed_body()
    return size


def malformed_body() -> BadRequest:
    return BadRequest("The body is malformed", code="malformed_body")
