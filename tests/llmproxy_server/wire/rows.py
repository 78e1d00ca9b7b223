"""What the hostile corpus is made of: raw requests, and what a strict server makes of each."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

MARK = b"zq7mark"
"""Stands in all that is to be refused: no answer may repeat it."""
HOST = b"Host: localhost\r\n"
TARGET = b"/v1/files/" + MARK
BODY = b'{"model":"' + MARK + b'","messages":[]}'
CHAT_LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
JSON = b"Content-Type: application/json\r\n"
CHAT = CHAT_LINE + HOST + JSON
CHUNKED = CHAT + b"Transfer-Encoding: chunked\r\n\r\n"
MAX_HEAD = 32 << 10  # [server] max_header_bytes as it stands
MAX_FIELDS = 100  # max_header_count
MAX_BODY = 32 << 20  # max_body_bytes


@attrs.frozen
class Meant:
    """A request as its sender means it. *headers*: each stands there once, with this value; None: it does not."""

    method: str
    target: str
    body: bytes = b""
    headers: Mapping[str, str | None] = attrs.field(factory=dict)


@attrs.frozen
class Row:
    """
    Raw bytes of one connection.

    *meant* are the requests that are read and passed on, in order; *refused* the statuses that the refusal after them
    may have, () when nothing is refused. *why* is said where both nginx and aiohttp take what we refuse.
    """

    name: str
    data: bytes = attrs.field(repr=False)
    meant: tuple[Meant, ...] = ()
    refused: tuple[int, ...] = ()
    why: str = ""
    closes: bool | None = False
    """The connection ends after the last answer, though nothing is refused; None: it may."""
    ends: bool = False
    """The client sends its FIN after these bytes, which end within a request."""


def asked(target: bytes = TARGET, method: bytes = b"GET", body: bytes = b"", **headers: str | None) -> Meant:
    """A Meant; in the names of *headers* `_` is `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Meant(method.decode(), target.decode(), body, named)


def chat(body: bytes = BODY, **headers: str | None) -> Meant:
    """A chat completion."""
    return asked(b"/v1/chat/completions", b"POST", body, **headers)


def get(*fields: bytes, target: bytes = TARGET, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """The head of a request to an opaque path; *fields* are lines without their end."""
    return (
        method + b" " + target + b" HTTP/" + version + b"\r\n" + HOST + b"".join(f + b"\r\n" for f in fields) + b"\r\n"
    )


def post(*fields: bytes, body: bytes = BODY) -> bytes:
    """A chat completion; *fields* are lines without their end, and frame the body."""
    return CHAT + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def sized(body: bytes = BODY, *fields: bytes) -> bytes:
    """A chat completion as all send it."""
    return post(b"Content-Length: %d" % len(body), *fields, body=body)


def chunk(data: bytes = BODY, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def refused(name: str, data: bytes, *statuses: int, why: str = "", after: tuple[Meant, ...] = ()) -> Row:
    """A row that is refused, with 400 where no status is named, *after* what is well-formed."""
    return Row(name, data, after, statuses or (400,), why)


def read(name: str, data: bytes, *meant: Meant, closes: bool | None = False) -> Row:
    """A row in which nothing is refused."""
    return Row(name, data, meant, closes=closes)


def unfinished(name: str, data: bytes) -> Row:
    """A row that ends within a request."""
    return Row(name, data, ends=True)
