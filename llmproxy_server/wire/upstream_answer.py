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

from enum import Enum

from httptools import HttpParserError, HttpResponseParser

from llmproxy_core.headers import Headers
from llmproxy_server import transport_words
from llmproxy_server.wire.upstream_head import END, MAX_HEAD_BYTES, Head, may_be_head, read_head

_LAST_CHUNK = b"0\r\n\r\n"
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


class _Chunks:
    """What the parser calls; both are functions of C, so no frame of Python's is entered for a chunk."""

    __slots__ = ("on_body", "on_message_complete")

    def __init__(self, parts: list[bytes], unfinished: list[None]) -> None:
        self.on_body = parts.append
        self.on_message_complete = unfinished.clear


class Answer:
    """`take` all that comes, `take_end` when no more will; look at `stage` after each."""

    __slots__ = (
        "_gathered",
        "_host",
        "_idle_bytes",
        "_interim",
        "_keeps",
        "_last",
        "_left",
        "_of_head",
        "_parser",
        "_unfinished",
        "failure",
        "headers",
        "parts",
        "spoiled",
        "stage",
        "status",
    )

    def __init__(self, host: str, *, of_head: bool = False) -> None:
        """*host* is named in errors; *of_head*: it answers a HEAD, so it has no body whatever it says."""
        self.stage = HEAD
        self.parts: list[bytes] = []
        """What of the body has come, in order; to be taken out by whoever reads it."""
        self.failure: Exception | None = None
        """Once BROKEN. Never raised itself: its traceback would hold us in a cycle."""
        self.status = 0
        self.headers: Headers | None = None
        self.spoiled = False
        """Whether more came than the answer: the connection can carry no other."""
        self._host = host
        self._of_head = of_head
        self._gathered: bytearray | None = None
        self._interim = 0
        self._keeps = False
        self._left = 0
        self._parser: HttpResponseParser | None = None
        self._unfinished: list[None] = []
        self._idle_bytes = 0
        self._last = b""

    @property
    def can_follow(self) -> bool:
        """Whether another answer can come over the same connection."""
        return self._keeps and self.stage is COMPLETE and not self.spoiled

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

    def break_off(self, failure: Exception) -> None:
        """No more is read; the first failure stays."""
        if self.stage is not COMPLETE and self.stage is not BROKEN:
            self.stage, self.failure = BROKEN, failure
            self._parser = None

    # -- the head ------------------------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> None:
        gathered = self._gathered
        if gathered is not None:
            searched = max(len(gathered) - 3, 0)
            gathered += data
            end = gathered.find(END, searched)
        else:
            end = data.find(END)
        if end < 0:
            self._gather(data)
            return
        if gathered is not None:
            data, self._gathered = bytes(gathered), None
        head = read_head(data[: end + 2]) if end <= MAX_HEAD_BYTES else None
        if head is None:
            self.break_off(transport_words.not_http(self._host))
            return
        rest = data[end + 4 :]
        if 100 <= head.status < 200 and head.status != 101:  # interim ones say nothing that we ask for
            self._skip_interim(rest)
            return
        self._begin(head)
        if rest and self.stage is not BROKEN:
            self.take(rest)

    def _skip_interim(self, rest: bytes) -> None:
        self._interim += 1
        if self._interim > _MOST_INTERIM:
            self.break_off(transport_words.not_http(self._host))
        elif rest:
            self._take_head(rest)

    def _gather(self, data: bytes) -> None:
        if self._gathered is None:
            self._gathered = bytearray(data)
        if not may_be_head(self._gathered):
            self.break_off(transport_words.not_http(self._host))

    def _begin(self, head: Head) -> None:
        """The head is here: what follows it is the body, or nothing."""
        status = head.status
        if head.odd_coding or status == 101:  # we ask for no other protocol, and for no coding
            self.break_off(transport_words.odd_coding(self._host))
            return
        if not 200 <= status <= 599:
            self.break_off(transport_words.odd_status(self._host))
            return
        self.status = status
        self.headers = head.headers
        self._keeps = head.keeps
        if self._of_head or status in _BODILESS or head.length == 0:
            self.stage = COMPLETE
        elif head.chunked:
            self.stage = CHUNKED
            self._unfinished = [None]
            self._parser = HttpResponseParser(_Chunks(self.parts, self._unfinished))
            self._parser.feed_data(_CHUNKS)
        elif head.length is not None:
            self.stage, self._left = SIZED, head.length
        else:
            self.stage, self._keeps = UNTIL_CLOSE, False

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
        parts, parser = self.parts, self._parser
        assert parser is not None
        before = len(parts)
        try:
            parser.feed_data(data)
        except HttpParserError:
            if self._unfinished:
                self.break_off(transport_words.broken_framing(self._host))
                return
            self.spoiled = True  # the end was there, and then something else
        if not self._unfinished:
            self._end_chunks(data)
            return
        self._last = data if len(data) >= len(_LAST_CHUNK) else (self._last + data)[-len(_LAST_CHUNK) :]
        came = len(parts) - before
        if not came:
            self._idle_bytes += len(data)
            idle = self._idle_bytes
        else:
            self._idle_bytes = idle = 0
            if len(data) > _MAX_IDLE_BYTES:
                idle = len(data) - sum(map(len, parts[before:])) - _FRAME_BYTES * came
        if idle > _MAX_IDLE_BYTES:
            self.break_off(transport_words.broken_framing(self._host))

    def _end_chunks(self, data: bytes) -> None:
        self.stage, self._parser = COMPLETE, None
        if len(data) < len(_LAST_CHUNK):
            data = self._last[-len(_LAST_CHUNK) :] + data
        # The parser passes over line ends behind the last one. (Behind trailers we do not look: it is not kept.)
        self.spoiled = self.spoiled or not data.endswith(_LAST_CHUNK)
        self._last = b""
