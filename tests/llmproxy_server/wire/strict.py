"""
A strict reader of HTTP/1.1 requests (RFC 9112): what else read, or wrote, a request is judged by it.

Whole bytes in, one request out, by regular expressions alone: it shares no code and no idea with what it judges.
"""

from __future__ import annotations

import re

import attrs

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/1\.([01])")
_FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*((?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*")
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|" + _QUOTED + rb"))?)*")
_END = b"\r\n"


class Malformed(Exception):
    """RFC 9112 forbids it, or two readers could read it in two ways."""


@attrs.frozen
class Request:
    """A request as it was read; *headers* with lower-case names. *trailers* are no headers."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()

    def all(self, name: str) -> list[str]:
        """Every value of the header *name* (lower-case)."""
        return [value for each, value in self.headers if each == name]


def read(data: bytes) -> tuple[Request, int] | None:
    """The request at the beginning of *data* and how many bytes it is; None when it is not whole yet. Malformed."""
    start = 2 if data.startswith(_END) else 0  # RFC 9112 section 2.2: an empty line before a request is ignored
    end = data.find(b"\r\n\r\n", start)
    if end < 0:
        return None
    first, *rest = data[start:end].split(_END)
    if (line := _LINE.fullmatch(first)) is None:
        raise Malformed(f"request line {first[:80]!r}")
    headers = tuple(_field(each) for each in rest)
    request = Request(line[1].decode(), line[2].decode(), f"1.{line[3].decode()}", headers)
    hosts = request.all("host")
    if len(hosts) > 1 or (not hosts and request.version == "1.1"):
        raise Malformed(f"{len(hosts)} Host fields")
    return _with_body(request, data, end + 4)


def read_all(data: bytes) -> tuple[list[Request], Malformed | None]:
    """The requests in *data* up to what is malformed, or not whole (then None)."""
    found = []
    try:
        while data and (one := read(data)) is not None:
            found.append(one[0])
            data = data[one[1] :]
    except Malformed as malformed:
        return found, malformed
    return found, None


def _with_body(request: Request, data: bytes, start: int) -> tuple[Request, int] | None:
    lengths, codings = request.all("content-length"), request.all("transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Malformed(f"Content-Length {lengths}, Transfer-Encoding {codings}")
    if codings:
        if codings[0].lower() != "chunked" or request.version == "1.0":
            raise Malformed(f"Transfer-Encoding {codings[0]!r} in HTTP/{request.version}")
        return _chunks(request, data, start)
    if not lengths:
        return request, start
    if not re.fullmatch(r"[0-9]{1,19}", lengths[0]):
        raise Malformed(f"Content-Length {lengths[0]!r}")
    end = start + int(lengths[0])
    if len(data) < end:
        return None
    return attrs.evolve(request, body=data[start:end]), end


def _chunks(request: Request, data: bytes, place: int) -> tuple[Request, int] | None:
    pieces = []
    while True:
        end = data.find(_END, place)
        if end < 0:
            return None
        if (size := _SIZE.fullmatch(data[place:end])) is None:
            raise Malformed(f"chunk size {data[place:end][:40]!r}")
        count, place = int(size[1], 16), end + 2
        if not count:
            break
        if len(data) < place + count + 2:
            return None
        if data[place + count : place + count + 2] != _END:
            raise Malformed("no line end after a chunk")
        pieces.append(data[place : place + count])
        place += count + 2
    trailers = []
    while not data.startswith(_END, place):
        end = data.find(_END, place)
        if end < 0:
            return None
        trailers.append(_field(data[place:end]))
        place = end + 2
    return attrs.evolve(request, body=b"".join(pieces), trailers=tuple(trailers)), place + 2


def _field(line: bytes) -> tuple[str, str]:
    if (found := _FIELD.fullmatch(line)) is None:
        raise Malformed(f"field {line[:80]!r}")
    return found[1].decode().lower(), found[2].decode("latin-1")
