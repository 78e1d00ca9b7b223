"""The body of a request over aiohttp's server."""

from __future__ import annotations

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

    async def read(self) -> bytes:
        payload = self._payload
        try:
            return payload.read_nowait() if payload.is_eof() else await payload.readany()
        except (RequestPayloadError, HttpProcessingError) as error:
            raise BadRequest("The body is malformed", code="malformed_body") from error
        except (ConnectionError, PayloadAccessError, RuntimeError) as error:
            raise ClientGone from error  # RuntimeError: aiohttp's word when it was lost before this read

    def fail(self, error: Exception) -> None:
        if not self._payload.is_eof():
            self._payload.set_exception(error)
