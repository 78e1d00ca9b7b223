"""The answer to one call as it goes to the client: head, framing, and how it ends."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from llmproxy_core.node import record
from llmproxy_core.relay import Whole
from llmproxy_server.door import Shared
from llmproxy_server.door_id import REQUEST_ID
from llmproxy_server.door_origin import CorsHeaders
from llmproxy_server.door_request import BodySource, Client, Incoming
from llmproxy_server.wire_head import CHUNK, CONTINUE, LAST_CHUNK, chunk

_1_1 = (1, 1)
_BODILESS = frozenset({204, 304})
Fields = list[tuple[str, str]]


@record(eq=False, repr=False)
class Answer:
    """
    Writes one answer: `send` for a whole one, or `begin`, `write` and `end` for one in pieces.

    *keep_alive* is for whoever holds the connection, once the answer is over. Whatever writes may raise ClientGone.
    """

    shared: Shared
    incoming: Incoming
    source: BodySource
    client: Client
    request_id: str
    """Which every answer of this call tells: one that can be told as it is (`RequestIds`)."""
    id_name: str | None = None
    """Of another field that tells it, in the client's dialect."""
    cors: CorsHeaders = ()
    status: int = 0
    head_sent: bool = False
    keep_alive: bool = False
    """Whether the connection can carry another request."""
    _frame: Callable[[bytes], bytes] | None = attrs.field(init=False, default=None)
    """What makes a piece ready to be sent; None for an answer without a body."""

    def proceed(self) -> None:
        """Tell a client that waits for it to send its body; an answer that was begun says it better."""
        if not self.head_sent:
            self.client.write(CONTINUE)

    def send(self, whole: Whole, more: Fields) -> None:
        """Send a complete answer; *more* are fields beside its own."""
        self.status = status = whole.status
        body = whole.body
        length = None if status in _BODILESS else len(body)
        if self.incoming.method == "HEAD" and not body:
            length = None  # an upstream's, which may have one for those who ask with GET
        head = self._head(whole.headers, whole.content_type if body else "", more, length)
        if length is None or self.incoming.method == "HEAD":
            body = b""
        self.client.write(head, body)

    def begin(self, status: int, headers: Fields, content_type: str, more: Fields, piece: bytes) -> None:
        """Send the head of an answer in pieces, with the first one (b"": it is still to come)."""
        self.status = status
        if self._has_body:
            if self.incoming.version < _1_1:
                self._frame, self.keep_alive = bytes, False  # the end of the body is that of the connection
            else:
                self._frame = chunk
        head = self._head(headers, content_type, more, None)
        if piece and self._frame is not None:
            self.client.write(head, self._frame(piece))
        else:
            self.client.write(head)

    def write(self, piece: bytes) -> None:
        frame = self._frame
        if not piece:  # an empty chunk would be the last one
            return
        if frame is chunk:  # nearly always; written out, as each event of a stream comes this way
            self.client.write(CHUNK % (len(piece), piece))
        elif frame is not None:
            self.client.write(frame(piece))

    @property
    def sends_chunks(self) -> Callable[[bytes], None] | None:
        """What a piece in its chunk may be sent with as it is; None where pieces are not sent in chunks."""
        return self.client.pass_on if self._frame is chunk else None

    def end(self, piece: bytes = b"") -> None:
        """The answer in pieces is complete, with *piece* as the last."""
        if self._frame is not chunk:
            self.write(piece)
        elif piece:
            self.client.write(chunk(piece), LAST_CHUNK)
        else:
            self.client.write(LAST_CHUNK)

    def break_off(self) -> None:
        """The answer in pieces is over but not complete: the connection ends where the last chunk would be."""
        self.keep_alive = False

    @property
    def _has_body(self) -> bool:
        return self.incoming.method != "HEAD" and self.status not in _BODILESS

    def _head(self, headers: Fields, content_type: str, more: Fields, length: int | None) -> bytes:
        shared = self.shared
        if not self.source.complete or shared.life.draining:
            self.keep_alive = False  # what is left of the body would be read as the next request
        self.head_sent = True
        but = REQUEST_ID
        if more or self.cors or self.id_name is not None:
            headers, but = self._all_fields(headers, more), ""
        connection: str | None = None  # kept, as HTTP/1.1 has it
        if not self.keep_alive:
            connection = "close"
        elif self.incoming.version < _1_1:
            connection = "keep-alive"
        return shared.heads.head(
            self.status,
            headers,
            content_type,
            now=shared.gateway.services.now(),
            length=length,
            chunked=self._frame is chunk,
            connection=connection,
            begin=f"{REQUEST_ID}: {self.request_id}\r\n",
            but=but,
        )

    def _all_fields(self, headers: Fields, more: Fields) -> Fields:
        fields = [] if self.id_name is None else [(self.id_name, self.request_id)]
        return [*fields, *self.cors, *[field for field in headers if field[0] != REQUEST_ID], *more]
