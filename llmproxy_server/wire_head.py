"""The bytes of an answer's head and of its chunks (RFC 9112)."""

from __future__ import annotations

import http
import logging
import re
from collections.abc import Collection
from email.utils import formatdate

from llmproxy_core.errors import raise_unless_bug

_log = logging.getLogger("llmproxy")
LAST_CHUNK = b"0\r\n\r\n"
CHUNK = b"%x\r\n%b\r\n"
"""What is made a chunk of by `CHUNK % (len(data), data)`; *data* is not empty, as that would be the last one."""
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
_JSON = "application/json"
_JSON_LINE = f"content-type: {_JSON}\r\n"
_NOT_SENT = "\0"
"""Not printable: where it is in a line, the lines are looked at one by one."""
_REMEMBERED = 512  # some names are the upstreams' choice, so the memory of them is bounded


class HeadWriter:
    """Writes heads. Remembers the names it has seen, and the date for as long as that is true."""

    def __init__(self) -> None:
        self._names = _Names()
        self._second = -1
        self._date = ""

    def head(
        self,
        status: int,
        headers: Collection[tuple[str, object]],
        content_type: str,
        *,
        now: float,
        length: int | None = None,
        chunked: bool = False,
        connection: str | None = None,
        begin: str = "",
        but: str = "",
    ) -> bytes:
        """
        The status line and the fields; *now* is seconds since the epoch, *begin* lines as they are, before all others.

        Of *headers*, those of the name *but* are left out; a processor's value may be a number.

        Without *length* and not *chunked* the body, if any, lasts until the connection is closed. Control characters
        in values, and fields whose name is none or that tell of the connection, are left out: what an upstream or a
        plugin gave cannot end a line or change the framing. So is what is no pair, which the log tells.
        """
        names, fields, kind, framing = self._names, "", "", ""
        if headers:
            try:
                lines = [f"{names[name]}{value}" for name, value in headers]
                text = "".join(lines)  # looked at once: nearly all may be sent as they are
            except BaseException as bug:  # noqa: BLE001 - a processor's list may have anything in it; what, is found below
                raise_unless_bug(bug)
                lines, text = [], _NOT_SENT
            if text.isprintable() and not (but and but in text):
                fields = "\r\n".join(lines) + "\r\n"
            else:
                fields = self._checked(headers, but)
        if content_type == _JSON:
            kind = _JSON_LINE  # to look at each letter costs more than all else here
        elif content_type:
            kind = f"content-type: {content_type if content_type.isprintable() else _JSON}\r\n"
        if chunked:
            framing = "transfer-encoding: chunked\r\n"
        elif length is not None:
            framing = f"content-length: {length}\r\n"
        if connection is not None:
            framing += f"connection: {connection}\r\n"
        second = int(now)
        date = self._date if second == self._second else self._dated(second)
        line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
        return f"{line}{begin}{fields}{kind}{framing}{date}".encode("utf-8", "replace")

    def _checked(self, headers: Collection[tuple[str, object]], but: str) -> str:
        """The lines of *headers*, each looked at."""
        fields = ""
        for field in headers:
            try:
                name, value = field
                prefix, text = self._names[name], _CONTROLS.sub("", str(value))
            except BaseException as bug:  # noqa: BLE001 - as above: an answer is worth more than a field of it
                raise_unless_bug(bug)
                _log.exception("a field of an answer is no name and value, and is left out (exchange.response_headers)")
                continue
            if prefix != _NOT_SENT and name != but:
                fields += f"{prefix}{text}\r\n"
        return fields

    def _dated(self, second: int) -> str:
        self._second = second
        self._date = f"date: {formatdate(second, usegmt=True)}\r\n\r\n"
        return self._date


class _Names(dict[str, str]):
    """What the line of a field begins with; `_NOT_SENT` for one that is none of ours to send."""

    def __missing__(self, name: str) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        lower = name.lower()
        prefix = self[name] = f"{lower}: " if _TOKEN.fullmatch(name) and lower not in _OURS else _NOT_SENT
        return prefix


def chunk(data: bytes) -> bytes:
    """*data*, not empty, as one chunk."""
    return CHUNK % (len(data), data)
