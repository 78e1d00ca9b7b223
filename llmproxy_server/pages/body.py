"""The body of a request over aiohttp's server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import StreamReader
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import PayloadAccessError, RequestPayloadError

from llmproxy_core.errors import BadRequest
from llmproxy_server.door_request import ClientGone


class AiohttpBody:
    """A BodySource."""

    __slots__ = ("_parts", "_payload")

    def __init__(self, payload: StreamReader) -> None:
        self._payload = payload
        self._parts: list[bytes] = []  # told of, and not taken yet

    @property
    def complete(self) -> bool:
        return self._payload.is_eof()

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        with _ours():
            parts.append(self._payload.read_nowait())
        return b"".join(parts)

    async def more(self) -> int:
        with _ours():
            piece = self._payload.read_nowait() if self.complete else await self._payload.readany()
        self._parts.append(piece)
        return len(piece)

    def fail(self, error: Exception) -> None:
        if not self._payload.is_eof():
            self._payload.set_exception(error)


@contextmanager
def _ours() -> Iterator[None]:
    """Our words for what aiohttp raises."""
    try:
        yield
    except (RequestPayloadError, HttpProcessingError) as error:
        raise BadRequest("The body is malformed", code="malformed_body") from error
    except (ConnectionError, PayloadAccessError, RuntimeError) as error:
        raise ClientGone from error  # RuntimeError: aiohttp's word when it was lost before this read
