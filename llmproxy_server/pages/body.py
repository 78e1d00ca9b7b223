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


class _ours:  # noqa: N801 - it reads as a function
    """Our words for what aiohttp raises."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RequestPayloadError | HttpProcessingError):
            raise BadRequest("The body is malformed", code="malformed_body") from error
        if isinstance(error, ConnectionError | PayloadAccessError | RuntimeError):
            raise ClientGone from error  # RuntimeError: aiohttp's word when it was lost before this read
