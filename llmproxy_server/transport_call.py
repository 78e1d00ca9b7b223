"""One call over a connection of aiohttp's: its request, the head of the answer, then its body, clocks and end."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from math import inf

import aiohttp
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import StreamReader

from llmproxy_core.body import Pumped
from llmproxy_core.errors import ProxyError, forget_tracebacks, raise_unless_bug
from llmproxy_core.headers import Headers
from llmproxy_core.llm import Timeouts
from llmproxy_core.tasks import Tasks
from llmproxy_server import transport_errors, transport_words
from llmproxy_server.transport_clock import UnderWay
from llmproxy_server.transport_request import LAST_CHUNK
from llmproxy_server.wire_head import chunk

READ_BUFFER_BYTES = 65_536
"""The kernel is not read on while more than twice this waits for the reader."""
MAX_HEADER_BYTES = 32_768
"""Of the status line, and of each header field, of an answer."""
DRAIN_S = 1.0
"""How long the rest of a complete answer is waited for, so that its connection can be kept."""
_BODILESS = frozenset({204, 304})
_SMALL = 1 << 16  # bytes that are worth a copy to save a system call


class UpstreamCall(Pumped):
    """
    `send`, then `head`, then it is the answer's body; every failure is an UpstreamError.

    What came before a failure is given before that is raised. The connection goes back to the pool when the end has
    come, read or not; it is closed by a failure that is read, by a clock, by `close`, and `DRAIN_S` after `release`.
    While it is held the call is *under_way*.
    """

    __slots__ = (
        "_by_deadline",
        "_connection",
        "_content",
        "_due",
        "_first_due",
        "_failure",
        "_grace",
        "_held",
        "_host",
        "_loop",
        "_lost",
        "_protocol",
        "_taken",
        "_timeouts",
        "_total_due",
        "_under_way",
        "_until_close",
        "_upload",
    )

    def __init__(
        self,
        connection: aiohttp.connector.Connection,
        host: str,
        timeouts: Timeouts,
        began: float,
        under_way: UnderWay[UpstreamCall],
        *,
        left_s: float,
        tasks: Tasks,
    ) -> None:
        """*left_s*: as of the request; *began* is the loop's time at which the call began."""
        super().__init__(tasks)
        protocol = connection.protocol
        assert protocol is not None
        self._connection = connection
        self._protocol = protocol
        self._content: StreamReader | None = None  # until the head has come
        self._host = host
        self._timeouts = timeouts
        self._taken = 0  # bytes
        self._failure: BaseException | None = None
        self._upload: asyncio.Task[None] | None = None
        self._until_close = False
        self._loop = under_way.loop
        self._by_deadline = left_s < (timeouts.total_s or inf)
        self._total_due = began + min(left_s, timeouts.total_s or inf)
        self._first_due = inf  # when the body's first byte must be here
        self._due = inf  # when the wait that goes on must end
        self._grace: asyncio.TimerHandle | None = None
        self._lost: asyncio.Future[None] | None = None
        self._held = True
        self._under_way = under_way
        under_way.add(self)
        under_way.look_by(self._total_due)

    # -- the request ---------------------------------------------------------------------------------------------

    def send(self, method: str, head: bytes, body: bytes | AsyncIterator[bytes] | None) -> None:
        """Write the request; what cannot be written at once follows in a task, while the answer may come already."""
        protocol = self._protocol
        protocol.set_response_params(
            skip_payload=method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        # Nothing was asked yet: this is an answer to nobody's request, and aiohttp would take it for ours.
        if len(protocol):
            raise transport_words.spoke_first(self._host)
        if body is None or isinstance(body, bytes):
            self._write(head, body or b"")
            if not protocol.writing_paused:
                self._sent()
                return
        else:
            self._write(head)
        self._upload = self._tasks.start(self._send_rest(body), name="upload")

    def _write(self, head: bytes, body: bytes = b"") -> None:
        transport = self._protocol.transport
        if transport is None:
            return  # lost: whoever waits for the answer is told
        if len(body) <= _SMALL:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)

    async def _send_rest(self, body: bytes | AsyncIterator[bytes] | None) -> None:
        """Wait until the upstream has taken all of the body; of one in pieces, send them as they come."""
        try:
            if body is not None and not isinstance(body, bytes):
                async for piece in body:
                    if piece:  # an empty chunk would be the last one
                        self._write(chunk(piece))
                        await self._protocol._drain_helper()
                self._write(LAST_CHUNK)
            await self._protocol._drain_helper()
        except aiohttp.ClientConnectionResetError:
            return  # lost
        except BaseException as error:  # noqa: BLE001 - the caller's iterator may raise what it likes, and it passes on
            raise_unless_bug(error)
            self._upload = None
            self.fail(error.with_traceback(None))  # which holds this frame, and that us
        else:
            self._sent()

    def _sent(self) -> None:
        first_byte_s = self._timeouts.first_byte_s
        if self._content is None and first_byte_s:
            self._wait_until(self._loop.time() + first_byte_s)

    # -- the answer ----------------------------------------------------------------------------------------------

    async def head(self) -> tuple[int, Headers]:
        """The status and the header fields of the answer."""
        try:
            message, content = await self._protocol.read()
            while 100 <= message.code < 200 and message.code != 101:  # interim ones say nothing that we ask for
                if _declares_body(message):  # what follows may be that, or an answer
                    raise HttpProcessingError(code=502, message="an interim answer with a body")
                message, content = await self._protocol.read()
        except transport_errors.FAILURES as error:
            failure = self._failed(error)
        else:
            if self._failure is None:
                self._due = inf
                return message.code, self._begin(message, content)
            failure = self._failure  # it came in one turn of the loop with the head
        raise _copied(failure) from None

    def _begin(self, message: RawResponseMessage, content: StreamReader) -> Headers:
        fields = message.headers.items()
        headers = Headers([(name.lower(), value if value.isascii() else _text(value)) for name, value in fields])
        if message.code != 101 and not 200 <= message.code <= 599:
            raise transport_words.odd_status(self._host)
        codings = headers.get_all("transfer-encoding")
        # We ask for no other protocol, and for no coding.
        if message.code == 101 or (codings and {coding.lower() for coding in codings} != {"chunked"}):
            raise transport_words.odd_coding(self._host)
        self._content = content
        if message.code in _BODILESS and _declares_body(message):
            self._protocol.force_close()  # one that is sent all the same would be read as another answer
        if not content.is_eof():
            self._until_close = not codings and "content-length" not in headers
            if self._timeouts.first_byte_s:
                self._first_due = self._loop.time() + self._timeouts.first_byte_s
            self._lost = self._protocol.closed
            if self._lost is not None:
                self._lost.add_done_callback(self._connection_lost)
        content.on_eof(self._ended)  # at once, if the end has come with the head
        return headers

    async def read(self) -> bytes:
        """What has come, at least a byte; b"" at the end."""
        if self._closed:
            return b""
        content = self._content
        assert content is not None
        data, failure = b"", None
        if content.total_bytes > self._taken:
            # Not `read_nowait`, which withholds what came before a failure: the last tokens would be lost.
            data = content._read_nowait(-1)
        elif not content.is_eof():
            self._expect_more(content)
            try:
                data = await content.readany()
            except transport_errors.FAILURES as error:
                failure = self._failed(error)
            finally:
                self._due = inf
        if failure is not None:
            raise _copied(failure) from None
        if not data:
            self._check_end()
        self._taken += len(data)
        return data

    def _expect_more(self, content: StreamReader) -> None:
        """Raise if nothing more can come; else a wait begins."""
        if not self._protocol.connected:
            self._connection_lost()
        if (failed := content.exception()) is not None:
            raise _copied(self._failed(failed)) from None
        idle_s = self._timeouts.idle_s
        if not self._taken:
            self._wait_until(self._first_due)
        elif idle_s:
            self._wait_until(self._loop.time() + idle_s)

    def _check_end(self) -> None:
        """Raise if the end is none: aiohttp takes a reset for the end of a body that is delimited by the close."""
        if self._until_close and isinstance(self._protocol.exception(), aiohttp.ClientOSError):
            raise transport_words.cut(self._host)

    # -- time ----------------------------------------------------------------------------------------------------

    def _wait_until(self, due: float) -> None:
        """A wait begins; whoever ends it sets `_due` to inf."""
        self._due = due
        self._under_way.look_by(due)

    def check(self, now: float) -> float:
        """End the call if it, or the wait that goes on, takes too long; say when to look again."""
        if self._total_due <= now:
            self.fail(transport_words.total_timeout(self._host, self._timeouts, by_deadline=self._by_deadline))
        elif self._due <= now:
            self._due = inf
            if not self._has_news():  # it may have come in this very turn of the loop
                late = transport_words.idle_timeout if self._taken else transport_words.first_byte_timeout
                self.fail(late(self._host, self._timeouts))
        return min(self._due, self._total_due) if self._held else inf

    def _has_news(self) -> bool:
        return len(self._protocol) > 0 if self._content is None else self._content.total_bytes > self._taken

    # -- failure -------------------------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> BaseException:
        """Our word for *error*; the connection is closed."""
        if self._failure is None:
            self._failure = transport_errors.upstream_error(error, self._host)
        self._abort()
        forget_tracebacks(error)  # aiohttp keeps it, and the frames that it passed hold us
        return self._failure

    def fail(self, error: BaseException) -> None:
        """Have the reader raise *error* after what has come, unless something failed before; close the connection."""
        source = self._protocol if self._content is None else self._content
        if self._held and source.exception() is None:
            self._failure = error
            source.set_exception(aiohttp.ClientPayloadError())  # wakes the reader
            self._abort()

    def cut(self) -> None:
        """Have the reader, if there is one, find the answer cut."""
        self.fail(transport_words.cut(self._host))

    def _connection_lost(self, lost: asyncio.Future[None] | None = None) -> None:
        """Tell the reader what aiohttp does not: after a framing error it closes the connection, and says nothing."""
        if lost is not None:
            _seen(lost)
        if self._content is not None and not self._content.is_eof():
            self.fail(transport_words.broken_framing(self._host))

    # -- the connection ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection now, unless the end has come."""
        self._end()
        self._abort()

    def release(self) -> None:
        """Keep the connection if the end comes soon; what comes until then is bounded by the read buffer."""
        if self._end() and self._held:
            self._grace = self._loop.call_later(DRAIN_S, self._abort)

    def _ended(self) -> None:
        """The end of the answer has come: the connection is free, if the request is out too."""
        if self._upload is not None and not self._upload.done():
            self._abort()
        elif self._held:
            self._let_go()
            self._connection.release()

    def _abort(self) -> None:
        if not self._held:
            return
        self._let_go()
        if self._upload is not None:
            self._upload.cancel()
        if self._protocol.transport is not None:
            # A close would wait until the upstream has taken what is still to be written, if ever.
            self._protocol.transport.abort()
        self._connection.close()
        if self._content is not None and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientConnectionError())  # wakes a reader

    def _let_go(self) -> None:
        self._held = False
        self._under_way.discard(self)
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if self._lost is not None and not self._lost.done():
            self._lost.remove_done_callback(self._connection_lost)
            # The connection lives on. Somebody must look at how it will end, once, or asyncio reports it as ignored.
            self._lost.remove_done_callback(_seen)
            self._lost.add_done_callback(_seen)


def _copied(failure: BaseException) -> BaseException:
    """What is raised of a failure that the call keeps: with a traceback that one would hold the frames that hold us."""
    return copy.copy(failure) if isinstance(failure, ProxyError) else failure


def _declares_body(message: RawResponseMessage) -> bool:
    return "transfer-encoding" in message.headers or message.headers.get("content-length", "0") != "0"


def _seen(lost: asyncio.Future[None]) -> None:
    lost.exception()


def _text(value: str) -> str:
    """*value* as text that can be encoded: aiohttp has surrogates for bytes that are no UTF-8; they are Latin-1."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value
