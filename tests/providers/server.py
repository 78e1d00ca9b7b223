"""What all fake providers share: a real HTTP server on 127.0.0.1 that checks keys, streams and breaks off."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import ClassVar, Literal, Self
from urllib.parse import unquote

import attrs
from aiohttp import web

from tests.providers.refusal import JSON, Refusal, decoded, encoded
from tests.providers.scenario import RETRY_AFTER_S, Turn, pieces

CALLERS_KEY = "the-callers-own-key"
"""What clients send to the proxy; no provider may ever see it."""


@attrs.frozen
class Plain:
    """One whole answer."""

    body: object
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()


@attrs.frozen
class Stream:
    """An answer in pieces, each written by itself."""

    chunks: Sequence[bytes]
    is_cut: bool = False  # the connection ends without the end of the HTTP message
    content_type: str = "text/event-stream; charset=utf-8"


Answer = Plain | Stream
Act = Callable[["Received"], Answer]


@attrs.frozen
class Received:
    """A request that came."""

    method: str
    path: str  # decoded, without the query
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> JSON:
        """The body; Refusal when it is not a JSON object."""
        return decoded(self.body)


class FakeProvider(ABC):
    """
    A provider that is served while it is entered: its own protocol, strictly, on 127.0.0.1 and a free port.

    What came is kept in `requests`; why it refused what came, in `refusals`.
    """

    name: ClassVar[str]
    root: ClassVar[str] = ""  # what a client's base_url has behind the port
    says_retry_after: ClassVar[bool] = True  # in a header

    def __init__(self) -> None:
        self.key = f"sk-upstream-{self.name}-0123456789"
        self.requests: list[Received] = []
        self.refusals: list[Refusal] = []
        self.url = ""

    @property
    def base_url(self) -> str:
        """What an official client of this provider takes as its base URL."""
        return self.url + self.root

    @abstractmethod
    def find(self, received: Received) -> Act | None:
        """What serves the method and path of *received*; None when there is no such endpoint."""

    @abstractmethod
    def check_caller(self, received: Received) -> None:
        """Refusal unless the key and the headers of the protocol are there."""

    @abstractmethod
    def error(self, refusal: Refusal) -> Plain:
        """*refusal* in the provider's own envelope, with its status."""

    def answer(self, received: Received) -> Answer:
        """What the provider answers."""
        self.requests.append(received)
        try:
            self._check_secrets(received)
            self.check_caller(received)
            act = self.find(received)
            if act is None:
                raise Refusal("model", f"no such endpoint: {received.method} {received.path}")
            return act(received)
        except Refusal as refusal:
            self.refusals.append(refusal)
            plain = self.error(refusal)
            if refusal.kind == "rate_limit" and self.says_retry_after:
                plain = attrs.evolve(plain, headers=[*plain.headers, ("retry-after", str(RETRY_AFTER_S))])
            return plain

    def _check_secrets(self, received: Received) -> None:
        for name, value in [*received.headers.items(), *received.query.items()]:
            if CALLERS_KEY in value:
                raise Refusal("invalid", f"the caller's own key came in {name}")
        if any(self.key in value for value in received.query.values()):
            raise Refusal("invalid", "the key came in the URL")

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        received = Received(
            request.method,
            unquote(request.path),
            dict(request.query),
            {name.lower(): value for name, value in request.headers.items()},
            await request.read(),
        )
        match self.answer(received):
            case Plain(body, status, headers):
                return web.Response(body=encoded(body), status=status, headers=headers, content_type="application/json")
            case Stream() as stream:
                return await self._send(request, stream)

    async def _send(self, request: web.Request, stream: Stream) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": stream.content_type})
        await response.prepare(request)
        for chunk in stream.chunks:
            await response.write(chunk)
            await asyncio.sleep(0)  # so that it leaves by itself
        if stream.is_cut and request.transport is not None:
            request.transport.close()  # what was written still leaves
        else:
            await response.write_eof()
        return response

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()


def broken_off(begin: Iterable[bytes], text: Sequence[bytes], failure: bytes, how: Literal["error", "cut"]) -> Stream:
    """The stream that fails after half of its *text*: with the event *failure*, or with nothing."""
    half = [*begin, *text[: len(text) // 2]]
    return Stream(half, is_cut=True) if how == "cut" else Stream([*half, failure])


def event(value: object, name: str | None = None, end: str = "\n") -> bytes:
    """*value* as an event of a stream; *end* ends each line."""
    head = f"event: {name}{end}" if name else ""
    return head.encode() + b"data: " + encoded(value) + (end * 2).encode()


def argument_pieces(turn: Turn) -> list[Sequence[str]]:
    """The arguments of each call as they are streamed."""
    return [pieces(call.text, 11) for call in turn.calls]
