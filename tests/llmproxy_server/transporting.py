"""A transport of its own for a test, and calls through it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

import pytest

from llmproxy_core.body import Body, Passing
from llmproxy_core.errors import ProxyError
from llmproxy_core.llm import Timeouts, UpstreamRequest
from llmproxy_core.services import Pool
from llmproxy_core.tasks import Tasks
from llmproxy_server.transport import AiohttpTransport
from llmproxy_server.wire.upstream import WireTransport

WAIT_S = 5
OFF = Timeouts(connect_s=None, first_byte_s=0, idle_s=None, total_s=0)
KINDS: dict[str, type[WireTransport] | type[AiohttpTransport]] = {"wire": WireTransport, "aiohttp": AiohttpTransport}
Either = WireTransport | AiohttpTransport
_kind: ContextVar[type[Either]] = ContextVar("kind")


@pytest.fixture(params=KINDS)
def over(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which transport the test is about: it runs with each. The name, for the few places where they differ."""
    with through(KINDS[request.param]):
        yield request.param


@contextmanager
def through(kind: type[Either]) -> Iterator[None]:
    """Meanwhile, `transporting` gives a transport of that *kind*."""
    token = _kind.set(kind)
    try:
        yield
    finally:
        _kind.reset(token)


@asynccontextmanager
async def transporting(pool: Pool | None = None, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Either]:
    """A transport, closed at the end; a test that leaves one of its connections in use has failed."""
    tasks = Tasks()
    transport = _kind.get()(pool or Pool(), tasks, tls=tls)
    try:
        yield transport
        await until(lambda: transport.connections_in_use == 0)
    finally:
        await transport.aclose()
        await tasks.drain(WAIT_S)


async def until(holds: Callable[[], bool]) -> None:
    """Turn the loop until *holds*."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - nothing tells when a pool's count changes
            await asyncio.sleep(0)


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(WAIT_S):
        await event.wait()


def post(url: str, body: bytes | AsyncIterator[bytes] | None = b"{}", *headers: tuple[str, str]) -> UpstreamRequest:
    return UpstreamRequest("POST", url, list(headers), body)


def get(url: str) -> UpstreamRequest:
    return UpstreamRequest("GET", url, [])


async def call(transport: Either, request: UpstreamRequest, timeouts: Timeouts = OFF) -> Body:
    """The body of the answer."""
    async with asyncio.timeout(WAIT_S):
        return (await transport.open(request, timeouts)).body


async def read(body: Body) -> bytes:
    async with asyncio.timeout(WAIT_S):
        return await body.read()


async def rest(body: Body) -> bytes:
    """All that is still to come."""
    data = b""
    while piece := await read(body):
        data += piece
    return data


class Collected:
    """A sink that keeps what it is given; with *pausing* it pauses that body whenever it was fed."""

    def __init__(self, pausing: Body | None = None) -> None:
        self.pausing = pausing
        self.data = b""
        self.fed = asyncio.Event()
        self.ended = asyncio.Event()
        self.ends: list[ProxyError | None] = []

    def feed(self, data: bytes) -> Passing | None:
        assert data
        assert not self.ends
        self.data += data
        self.fed.set()
        if self.pausing is not None:
            self.pausing.pause()
        return None

    def end(self, error: ProxyError | None) -> None:
        self.ends.append(error)
        self.ended.set()
