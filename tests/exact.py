"""An HTTP client that sees exact bytes: what came, how it was framed, and whether it came to its proper end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

import attrs

WAIT_S = 20


@attrs.frozen
class Seen:
    """An answer as it stood on the wire. *whole*: its framing was complete, so a client takes it for complete."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    whole: bool

    def header(self, name: str) -> str | None:
        return next((value for field, value in self.headers if field == name), None)


async def post(url: str, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> Seen:
    """POST *body* as JSON on a connection of its own, and read until the server ends it."""
    return await ask("POST", url, body, [("content-type", "application/json"), *headers])


async def ask(method: str, url: str, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()) -> Seen:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"host: {parts.netloc}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body or method in ("POST", "PUT"):
        lines.append(f"content-length: {len(body)}")
    data = await asyncio.wait_for(_exchange(parts.port or 80, "\r\n".join(lines).encode() + b"\r\n\r\n" + body), WAIT_S)
    return parse(data, head_only=method == "HEAD")


async def _exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def parse(data: bytes, *, head_only: bool = False) -> Seen:
    """All bytes of one connection that carried one answer."""
    head, _, rest = data.partition(b"\r\n\r\n")
    status_line, *fields = head.decode("latin-1").split("\r\n")
    headers = tuple(
        (name.strip().lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)
    )
    values = dict(headers)
    if head_only:
        body, whole = b"", not rest
    elif "chunked" in values.get("transfer-encoding", ""):
        body, whole = _dechunked(rest)
    else:
        length = int(values.get("content-length", len(rest)))
        body, whole = rest, len(rest) == length
    return Seen(int(status_line.split()[1]), headers, body, whole)


def _dechunked(rest: bytes) -> tuple[bytes, bool]:
    body = b""
    while rest:
        size_line, _, rest = rest.partition(b"\r\n")
        size = int(size_line, 16)
        if size == 0:
            return body, rest == b"\r\n"
        body += rest[:size]
        rest = rest[size + 2 :]
    return body, False
