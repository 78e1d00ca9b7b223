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

    __slots__ = ("_payload",)

    def __init__(self, payload: StreamReader) -> None:
        self._payload = payload

    @property
    def complete(self) -> bool:
        return self._payload.is_eof()

    def take(self) -> bytes:
        with _ours():
            return self._payload.read_nowait()

    async def read(self) -> bytes:
        if self.complete:
            return self.take()
        with _ours():
            return await self._payload.readany()

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
