"""The bytes of an answer's head and of its chunks (RFC 9112)."""

from __future__ import annotations

import http
import re
from collections.abc import Iterable
from email.utils import formatdate

LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in http.HTTPStatus}
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-zA-Z]+", re.ASCII)
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]+")
_OURS = frozenset(  # the framing and the connection are ours to tell, once
    {
        "connection",
        "content-length",
        "content-type",
        "date",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_REMEMBERED = 512  # some names are the upstreams' choice, so the memory of them is bounded


class HeadWriter:
    """Writes heads. Remembers the names it has seen, and the date for as long as that is true."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._second = -1
        self._date = ""

    def head(
        self,
        status: int,
        headers: Iterable[tuple[str, str]],
        content_type: str,
        *,
        now: float,
        length: int | None = None,
        chunked: bool = False,
        connection: str | None = None,
    ) -> bytes:
        """
        The status line and the fields; *now* is seconds since the epoch.

        Without *length* and not *chunked* the body, if any, lasts until the connection is closed. Control characters
        in values, and fields whose name is none or that tell of the connection, are left out: what an upstream or a
        plugin gave cannot end a line or change the framing.
        """
        parts = [_STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"]
        names = self._names
        for name, value in headers:
            prefix = names.get(name)
            if prefix is None:
                prefix = self._learn(name)
            if prefix:
                value = value if type(value) is str else str(value)  # a processor's number: the answer must not break
                parts.append(f"{prefix}{value if value.isprintable() else _CONTROLS.sub('', value)}\r\n")
        if content_type:
            parts.append(f"content-type: {content_type if content_type.isprintable() else 'application/json'}\r\n")
        if chunked:
            parts.append("transfer-encoding: chunked\r\n")
        elif length is not None:
            parts.append(f"content-length: {length}\r\n")
        if connection is not None:
            parts.append(f"connection: {connection}\r\n")
        second = int(now)
        parts.append(self._date if second == self._second else self._dated(second))
        return "".join(parts).encode("utf-8", "replace")

    def _learn(self, name: str) -> str:
        """What a line with that name begins with; "" for one that is none of ours to send."""
        if len(self._names) >= _REMEMBERED:
            self._names.clear()
        lower = name.lower()
        prefix = self._names[name] = f"{lower}: " if _TOKEN.fullmatch(name) and lower not in _OURS else ""
        return prefix

    def _dated(self, second: int) -> str:
        self._second = second
        self._date = f"date: {formatdate(second, usegmt=True)}\r\n\r\n"
        return self._date


def chunk(data: bytes) -> bytes:
    """*data*, not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)
