"""The upstream of these tests: it reads strictly, answers everything with 200, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast

from tests.answers import completion
from tests.llmproxy_server.wire.strict import Malformed, Request, read

Reader = Callable[[bytes], tuple[Request, int] | None]
_COMPLETION = json.dumps(completion("Hello")).encode()


class Witness:
    """Listens on 127.0.0.1 while it is entered. What a request is, *reader* says; the strict one, when not given."""

    def __init__(self, reader: Reader = read) -> None:
        self.reader = reader
        self.requests: list[Request] = []
        self.faults: list[str] = []
        """What was malformed."""
        self.unfinished = 0
        """Connections that ended within a request."""
        self._connections: set[_Connection] = set()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def opened(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def closed(self, connection: _Connection) -> None:
        self._connections.discard(connection)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        await self._server.wait_closed()


class _Connection(asyncio.Protocol):
    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._witness.opened(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while self._buffer and (found := self._witness.reader(self._buffer)) is not None:
                request, size = found
                self._buffer = self._buffer[size:]
                self._witness.requests.append(request)
                self.transport.write(_answer(request))
        except Malformed as malformed:
            self._witness.faults.append(str(malformed))
            self._buffer = b""
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._witness.unfinished += bool(self._buffer)
        self._witness.closed(self)


def _answer(request: Request) -> bytes:
    body = _COMPLETION if request.target.startswith("/v1/chat/completions") else b"{}"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head if request.method == "HEAD" else head + body
