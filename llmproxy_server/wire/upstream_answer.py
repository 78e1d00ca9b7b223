"""
The answer to one request, read from bytes that come in any pieces (RFC 9112); no socket is known here.

    stage        waits for                    bytes                         the upstream's end (FIN)
    HEAD         the end of a head            a head: interim ones are      BROKEN: cut
                                              skipped, else the body's stage
    CHUNKED      the last chunk, trailers     taken out of their chunks     BROKEN: cut
    SIZED        the last of so many          counted                       BROKEN: cut
    UNTIL_CLOSE  the end of the connection    all of them                   COMPLETE
    COMPLETE     nothing                      not kept: `spoiled`           nothing
    BROKEN       nothing                      dropped                       nothing

What breaks a rule leads from anywhere to BROKEN, with the error. What came before is in `parts` still.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial

from httptools import HttpParserError, HttpResponseParser

from llmproxy_core.headers import Headers
from llmproxy_server import transport_words
from llmproxy_server.wire.upstream_head import (
    END,
    IN_CHUNKS,
    MAX_HEAD_BYTES,
    NO_LENGTH,
    ODD_CODING,
    Head,
    HeadReader,
    may_be_head,
)
from llmproxy_server.wire.upstream_shape import Shapes

_LAST_CHUNK = b"0\r\n\r\n"
_LAST_BYTES = len(_LAST_CHUNK)
_CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
"""
What the parser is told before the first chunk. The head itself is read by us, and more strictly.

It is to close, so that the parser takes what follows the end for an error.
"""
_MAX_IDLE_BYTES = 16_384
"""Of what is no body between two pieces of it: extensions, trailers."""
_FRAME_BYTES = 32  # what the frame of a chunk may need: no extension is meant to be paid from it
_MOST_INTERIM = 32  # heads with a status of 1xx
_BODILESS = frozenset({204, 304})


class Stage(Enum):
    """What is read next."""

    HEAD = "head"
    CHUNKED = "chunked"
    SIZED = "sized"
    UNTIL_CLOSE = "until close"
    COMPLETE = "complete"
    BROKEN = "broken"


# Looked up as globals: an attribute of the class is five times as dear, and these are asked for with each read.
HEAD, CHUNKED, SIZED = Stage.HEAD, Stage.CHUNKED, Stage.SIZED
UNTIL_CLOSE, COMPLETE, BROKEN = Stage.UNTIL_CLOSE, Stage.COMPLETE, Stage.BROKEN


def _lines(most: int) -> tuple[bytes | None, ...]:
    """By its length with its frame: what a chunk begins with, as nearly all write it; None: there is none so long."""
    lines: list[bytes | None] = [None] * most
    for size in range(1, most):
        line = b"%x\r\n" % size
        if (length := len(line) + size + 2) < most:
            lines[length] = line
    return tuple(lines)


MOST_AT_A_GLANCE = 2048
"""Bytes of a read, from which on the parser looks at it, whatever it is."""
CHUNK_LINES = _lines(MOST_AT_A_GLANCE)


class Chunks:
    """
    A body in chunks.

    A read that is one chunk, *between* others, needs no parser (`one_chunk`): so comes each event of most streams. All
    else it reads, and is made when there is something. What it calls are functions of C, so no frame of Python's is
    entered for a chunk.
    """

    __slots__ = ("_open", "_parts", "between", "idle_bytes", "last", "parser", "unfinished")

    def __init__(self, parts: list[bytes]) -> None:
        self.unfinished = [None]
        self.between = True
        """Whether all that came is whole chunks."""
        self.idle_bytes = 0
        """How many have come since the last that were body."""
        self.last = b""
        """What came last, of what the parser has read: at least as much as a last chunk has, if there was so much."""
        self.parser: HttpResponseParser | None = None
        self._parts = parts
        self._open: list[None] = []  # the chunk that has begun

    def feed(self, data: bytes) -> None:
        """Have the parser read *data*. HttpParserError for what are no chunks, or is behind the last."""
        if (parser := self.parser) is None:
            self.parser = parser = HttpResponseParser(self)  # which keeps the functions, not us
            parser.feed_data(_CHUNKS)
        if self.between:
            self.between, self.last, self.idle_bytes = False, b"", 0
        parser.feed_data(data)
        # In the line that comes next, with a size, there is a line end at its own end only, and that opens the chunk.
        self.between = not self._open and data.endswith(b"\r\n")

    @property
    def on_body(self) -> Callable[[bytes], None]:
        return self._parts.append

    @property
    def on_chunk_header(self) -> Callable[[], None]:
        return partial(self._open.append, None)

    @property
    def on_chunk_complete(self) -> Callable[[], None]:
        return self._open.clear

    @property
    def on_message_complete(self) -> Callable[[], None]:
        return self.unfinished.clear


def one_chunk(data: bytes) -> bytes:
    """What is in the chunk that *data* is, from its first byte to its last; b"" where it may be anything else."""
    size = len(data)
    line = CHUNK_LINES[size] if size < MOST_AT_A_GLANCE else None
    if line is not None:
        piece = data.removeprefix(line).removesuffix(b"\r\n")
        if len(piece) == size - len(line) - 2:
            return piece
    return b""


class Answer:
    """
    `take` all that comes, `take_end` when no more will; look at `stage` after each.

    What only some stages have is set where they begin: one is made per call, and most are COMPLETE with their head.
    """

    __slots__ = (
        "_begun", "_chunks", "_heads", "_host", "_interim", "_keeps", "_left", "_method", "failure", "headers",
        "parts", "spoiled", "stage", "status",
    )  # fmt: skip

    stage: Stage
    parts: list[bytes]
    """What of the body has come, in order; to be taken out by whoever reads it."""
    failure: BaseException | None
    """Once BROKEN. Never raised itself: its traceback would hold us in a cycle."""
    status: int
    headers: Headers | None
    spoiled: bool
    """Whether more came than the answer: the connection can carry no other."""
    _heads: HeadReader | Shapes
    _begun: bytearray | None  # the head, where it comes in pieces
    _interim: int
    _keeps: bool  # from the head on
    _left: int  # bytes of a SIZED body
    _chunks: Chunks | None  # of a CHUNKED one, while it is that

    def expect(self, heads: HeadReader | Shapes, host: str, method: str) -> None:
        """
        What comes from now on is the answer; no `__init__`, which is dear for an object that is made per call.

        *host* is named in errors; an answer to the *method* HEAD has no body, whatever it says.
        """
        self._heads, self._host, self._method = heads, host, method
        self.stage = HEAD
        self.parts = []
        self.headers = self.failure = self._begun = self._chunks = None
        self.status = self._interim = 0
        self.spoiled = False

    @property
    def can_follow(self) -> bool:
        """Whether another answer can come over the same connection."""
        return self.stage is COMPLETE and self._keeps and not self.spoiled

    def take(self, data: bytes) -> None:
        """*data* has come."""
        stage = self.stage
        if stage is CHUNKED:
            self._take_chunks(data)
        elif stage is HEAD:
            self._take_head(data)
        elif stage is SIZED:
            self._take_sized(data)
        elif stage is UNTIL_CLOSE:
            self.parts.append(data)
        else:
            self.spoiled = True

    def take_end(self) -> None:
        """The upstream says that it sends nothing more."""
        if self.stage is UNTIL_CLOSE:
            self.stage = COMPLETE
        else:
            self.break_off(transport_words.cut(self._host))

    def break_off(self, failure: BaseException) -> None:
        """No more is read; the first failure stays."""
        if self.stage is not COMPLETE and self.stage is not BROKEN:
            self.stage, self.failure = BROKEN, failure
            self._chunks = None

    # -- the head ------------------------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> None:
        if self._begun is None:
            end = data.find(END)
        else:
            searched = max(len(self._begun) - 3, 0)
            self._begun += data
            end = self._begun.find(END, searched)
            if end >= 0:
                data, self._begun = bytes(self._begun), None
        if end < 0:
            self._gather(data)
            return
        head = self._heads.read(data[:end]) if end <= MAX_HEAD_BYTES else None
        if head is None:
            self.break_off(transport_words.not_http(self._host))
            return
        status, headers, length, keeps = head
        begin = end + 4  # of what follows the head
        came = len(data) - begin
        if length == came and status == 200 and came and self._method != "HEAD":  # most answers that are no streams
            self.status = 200
            self.headers = headers
            self._keeps = keeps
            self.stage = COMPLETE
            self.parts.append(data[begin:])
        elif length == ODD_CODING or not 200 <= status <= 599:
            self._take_odd(head, data[begin:])
        else:
            self.status, self.headers, self._keeps = status, headers, keeps
            self._begin_body(length)
            if came:
                self.take(data[begin:])

    def _take_odd(self, head: Head, rest: bytes) -> None:
        """An interim answer, or one that is none."""
        status, _, length, _ = head
        if 100 <= status < 200 and status != 101:  # interim ones say nothing that we ask for
            if length and length != NO_LENGTH:  # of a body that there cannot be: what follows may be that, or an answer
                self.break_off(transport_words.not_http(self._host))
                return
            self._skip_interim(rest)
        elif length == ODD_CODING or status == 101:  # we ask for no other protocol, and for no coding
            self.break_off(transport_words.odd_coding(self._host))
        else:
            self.break_off(transport_words.odd_status(self._host))

    def _skip_interim(self, rest: bytes) -> None:
        self._interim += 1
        if self._interim > _MOST_INTERIM:
            self.break_off(transport_words.not_http(self._host))
        elif rest:
            self._take_head(rest)

    def _gather(self, data: bytes) -> None:
        if self._begun is None:
            self._begun = bytearray(data)
        if not may_be_head(self._begun):
            self.break_off(transport_words.not_http(self._host))

    def _begin_body(self, length: int) -> None:
        """The head is here: what follows it is the body, or nothing."""
        if not length or self._method == "HEAD":
            self.stage = COMPLETE
        elif self.status in _BODILESS:
            self.stage = COMPLETE
            self._keeps = self._keeps and length == NO_LENGTH  # a body that is sent all the same is nobody's answer
        elif length == IN_CHUNKS:
            self.stage = CHUNKED
            self._chunks = Chunks(self.parts)
        elif length == NO_LENGTH:
            self.stage, self._keeps = UNTIL_CLOSE, False
        else:
            self.stage, self._left = SIZED, length

    # -- the body ------------------------------------------------------------------------------------------------

    def _take_sized(self, data: bytes) -> None:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            self.parts.append(data)
            return
        if left:
            self.spoiled = True
            data = data[:left]
        self.parts.append(data)
        self.stage = COMPLETE

    def _take_chunks(self, data: bytes) -> None:
        parts, chunks = self.parts, self._chunks
        assert chunks is not None
        if chunks.between and self._take_plain(data):
            return
        before = len(parts)
        try:
            chunks.feed(data)
        except HttpParserError:
            if chunks.unfinished:
                self.break_off(transport_words.broken_framing(self._host))
                return
            self.spoiled = True  # the end was there, and then something else
        if not chunks.unfinished:
            self._end_chunks(data, chunks.last)
            return
        size, came = len(data), len(parts) - before
        if came and _LAST_BYTES <= size <= _MAX_IDLE_BYTES:  # most reads
            chunks.last = data
            chunks.idle_bytes = 0
            return
        chunks.last = (chunks.last + data)[-_LAST_BYTES:]
        if came:
            chunks.idle_bytes = 0
            idle = size - sum(map(len, parts[before:])) - _FRAME_BYTES * came
        else:
            idle = chunks.idle_bytes = chunks.idle_bytes + size
        if idle > _MAX_IDLE_BYTES:
            self.break_off(transport_words.broken_framing(self._host))

    def _take_plain(self, data: bytes) -> bool:
        """Whether *data*, between chunks, was one, the last one, or both; if so, it is taken."""
        if piece := one_chunk(data):
            self.parts.append(piece)
            return True
        if not data.endswith(_LAST_CHUNK):
            return False
        if rest := data[:-_LAST_BYTES]:
            piece = one_chunk(rest)
            if not piece:
                return False
            self.parts.append(piece)
        self.stage, self._chunks = COMPLETE, None
        return True

    def _end_chunks(self, data: bytes, last: bytes) -> None:
        self.stage, self._chunks = COMPLETE, None
        if len(data) < _LAST_BYTES:
            data = last[-_LAST_BYTES:] + data
        # The parser passes over line ends behind the last one. (Behind trailers we do not look: it is not kept.)
        self.spoiled = self.spoiled or not data.endswith(_LAST_CHUNK)
