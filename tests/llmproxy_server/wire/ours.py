"""Our edge with a witness behind it, and what a client on a raw socket sees of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import attrs

from llmproxy_core.headers import Headers
from tests.llmproxy_server.wire.strict import Request
from tests.llmproxy_server.wire.witness import Witness
from tests.proxy import Proxy, openai_at
from tests.rawclient import Client, connected

PROBE = b"GET /v1/files/the-probe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""Sent behind all that is tried, in the same write: it is answered only when what stood before was read to its end."""
OPERATIONS = ["chat", "models", "opaque"]


@attrs.frozen
class Answer:
    """One answer as it stood on the wire; *headers* with lower-case names."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for each, value in self.headers if each == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@attrs.frozen
class Told:
    """What became of the bytes of one connection."""

    raw: bytes = attrs.field(repr=False)
    answers: tuple[Answer, ...]
    requests: tuple[Request, ...]
    """Those that reached the witness, the probe left out."""
    seen: tuple[Headers, ...]
    """The header of each, as the gateway had it."""
    probed: bool
    """The probe was answered."""
    faults: tuple[str, ...]
    """What reached the witness and was malformed."""
    unfinished: int
    """How many requests reached it only in part."""


class Edge:
    """A real proxy before a witness, while it is entered. One trial after the other: what is seen is that trial's."""

    def __init__(self, **server: object) -> None:
        self.witness = Witness()
        self._server = {"header_timeout_s": 2, "body_timeout_s": 2, "idle_timeout_s": 2, **server}
        self._leaving = AsyncExitStack()

    async def tell(self, pieces: Iterable[bytes], *, probe: bool = True, heads: Iterable[str] | None = ()) -> Told:
        """
        Send *pieces*, each in a write and a read of its own, and read until the server closes.

        *heads* are the methods of the requests, in order: HEAD has no body in its answer. None: nobody knows them.
        """
        witness, proxy = self.witness, self.proxy
        requests, faults, exchanges = len(witness.requests), len(witness.faults), len(proxy.exchanges)
        unfinished = witness.unfinished
        async with connected(proxy.port) as client:
            await _send(client, pieces)
            if probe:
                client.send(PROBE)
            else:
                client.writer.write_eof()
            raw = await client.rest()
        reached = witness.requests[requests:]
        probed = probe and bool(reached) and reached[-1].target.endswith("/the-probe")
        count = len(reached) - probed
        return Told(
            raw,
            tuple(answers(raw, heads)),
            tuple(reached[:count]),
            tuple(exchange.request.headers for exchange in proxy.exchanges[exchanges:][:count]),
            probed,
            tuple(witness.faults[faults:]),
            witness.unfinished - unfinished,
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as entering:
            await entering.enter_async_context(self.witness)
            self.proxy = await entering.enter_async_context(Proxy(_config(self.witness.base_url, self._server)))
            self._leaving = entering.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leaving.aclose()


def _config(base_url: str, server: Mapping[str, object]) -> dict[str, Any]:
    """All that is under /v1 is passed on, also what no dialect knows; under /v1/slash a segment may hold a slash."""
    mapping = openai_at(base_url, route={"operations": OPERATIONS}, server=server)
    slash = {"path_prefix": "/v1/slash", "target_llm": "openai", "operations": OPERATIONS, "encoded_slash": True}
    return {**mapping, "route": [*mapping["route"], slash]}


async def _send(client: Client, pieces: Iterable[bytes]) -> None:
    for number, piece in enumerate(pieces):
        if number:
            # The server shares our event loop: it is told of a piece in the turn after the next, and reads it alone.
            for _ in range(2):
                await asyncio.sleep(0)
        client.send(piece)


def answers(raw: bytes, methods: Iterable[str] | None = ()) -> list[Answer]:
    """
    The final answers in *raw*, all of one connection. ValueError when they are not framed as they say.

    *methods* of the requests, in order; None: an answer without the body that it tells of is taken for one to HEAD.
    """
    found: list[Answer] = []
    asked = iter(methods or ())
    method = next(asked, "")
    while raw:
        head, end, raw = raw.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        version, number, *_ = line.split(" ")
        if not end or version != "HTTP/1.1":
            raise ValueError(f"no head of an answer: {head[:200]!r}")
        status = int(number)
        headers = tuple((name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in lines))
        if status < 200:
            continue
        body = b""
        bodiless = method == "HEAD" or (methods is None and (not raw or raw.startswith(b"HTTP/1.1 ")))
        if not bodiless and status not in (204, 304):
            body, raw = _body(dict(headers), raw)
        found.append(Answer(status, headers, body))
        method = next(asked, "")
    return found


def _body(headers: Mapping[str, str], raw: bytes) -> tuple[bytes, bytes]:
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            line, _, raw = raw.partition(b"\r\n")
            size = int(line, 16)
            body, end, raw = body + raw[:size], raw[size : size + 2], raw[size + 2 :]
            if end != b"\r\n":
                raise ValueError("a chunk without its end")
            if not size:
                return body, raw
    if "content-length" not in headers:
        return raw, b""
    length = int(headers["content-length"])
    if len(raw) < length:
        raise ValueError(f"{len(raw)} of {length} bytes of an answer")
    return raw[:length], raw[length:]
