"""What the tests of the edge share: exact requests, answers taken apart, and small plugins."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs

from llmproxy_core.dialect import Operation
from llmproxy_core.endpoint import Endpoint
from llmproxy_core.exchange import Exchange
from llmproxy_core.hookspecs import ProcessorType, hookimpl
from llmproxy_core.processor import Handler, Processor
from llmproxy_core.response import Response
from llmproxy_core.services import Services
from tests.rawclient import Client, connected

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = {**HELLO, "stream": True}


def post(body: object = HELLO, path: str = "/v1/chat/completions", *headers: str, type: str | None = None) -> bytes:
    """A POST request; *body* is bytes or a value to be written as JSON, *headers* whole lines."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    content_type = "application/json" if type is None else type
    return (
        request("POST", path, f"Content-Type: {content_type}", f"Content-Length: {len(data)}", *headers) + data
        if content_type
        else request("POST", path, f"Content-Length: {len(data)}", *headers) + data
    )


def request(method: str, path: str, *headers: str, host: str | None = "localhost", version: str = "HTTP/1.1") -> bytes:
    """The head of a request."""
    lines = [f"{method} {path} {version}", *([] if host is None else [f"Host: {host}"]), *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@attrs.define
class Answer:
    """An answer as it came; *headers* with lower-case names, in order."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    complete: bool = True

    def __getitem__(self, name: str) -> str:
        """The one value of a header; KeyError when there is none, or more."""
        values = [value for each, value in self.headers if each == name]
        if len(values) != 1:
            raise KeyError(f"{name}: {values}")
        return values[0]

    def __contains__(self, name: object) -> bool:
        return any(each == name for each, _ in self.headers)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> Any:
        """The code of an error."""
        return self.json["error"]["code"]


class Deaf:
    """Watches a text, and makes nothing of it: the stream is decoded all the same, and pulled."""

    def __init__(self, channel: object) -> None: ...

    def feed(self, text: str) -> None: ...

    def end(self) -> None: ...


async def head(client: Client) -> Answer:
    """The head of the next answer."""
    raw = (await client.until(b"\r\n\r\n")).decode()
    status, *lines = raw.split("\r\n")[:-2]
    version, number, *_ = status.split(" ")
    assert version == "HTTP/1.1"
    pairs = [line.partition(": ") for line in lines]
    return Answer(int(number), [(name.lower(), value) for name, _, value in pairs])


async def answer(client: Client, *, method: str = "POST") -> Answer:
    """The next answer, whole; *complete* is False when the connection ended before it."""
    found = await head(client)
    if method == "HEAD" or found.status in (204, 304):
        return found
    if "content-length" in found:
        found.body = await client.exactly(int(found["content-length"]))
    elif "transfer-encoding" in found:
        found.body, found.complete = await chunks(client)
    else:
        found.body = await client.rest()
    return found


async def chunks(client: Client) -> tuple[bytes, bool]:
    """A chunked body, and whether its last chunk came."""
    body = b""
    while True:
        try:
            size = int((await client.until(b"\r\n")).strip(), 16)
            data = await client.exactly(size + 2)
        except asyncio.IncompleteReadError as error:
            return body + error.partial, False
        assert data.endswith(b"\r\n")
        if not size:
            return body, True
        body += data[:-2]


async def ask(client: Client, data: bytes, *, method: str = "POST") -> Answer:
    client.send(data)
    return await answer(client, method=method)


@asynccontextmanager
async def many(port: int, count: int, *, read_buffer_bytes: int | None = None) -> AsyncIterator[list[Client]]:
    """*count* clients of *port*."""
    async with AsyncExitStack() as leaving:
        yield [
            await leaving.enter_async_context(connected(port, read_buffer_bytes=read_buffer_bytes))
            for _ in range(count)
        ]


async def closed(client: Client) -> bytes:
    """What still comes until the connection ends, which it must with FIN."""
    return await client.rest()


Around = Callable[[Exchange, Handler], Awaitable[Response]]


def processed(mapping: dict[str, Any]) -> dict[str, Any]:
    """*mapping* with the processor of `Processing` in its first route."""
    first, *others = mapping["route"]
    return {
        **mapping,
        "processor": {"around": {"type": "test"}},
        "route": [{**first, "processors": ["around"]}, *others],
    }


@attrs.frozen(kw_only=True)
class NoConfig:
    """No keys."""


class Processing:
    """A plugin with one processor type, `test`, that is the given function."""

    def __init__(self, around: Around) -> None:
        self._around = around

    @hookimpl
    def llmproxy_processors(self) -> Iterable[ProcessorType[Any]]:
        def build(config: NoConfig, services: Services) -> Processor:
            return Function(self._around)

        return [ProcessorType(name="test", config=NoConfig, build=build, operations=frozenset(Operation))]


class Function:
    """The processor that *around* is."""

    def __init__(self, around: Around) -> None:
        self._around = around

    async def __call__(self, exchange: Exchange, call_next: Handler) -> Response:
        return await self._around(exchange, call_next)


class Serves:
    """A plugin with endpoints."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self._endpoints = endpoints

    @hookimpl
    def llmproxy_endpoints(self) -> Iterable[Endpoint]:
        return self._endpoints
