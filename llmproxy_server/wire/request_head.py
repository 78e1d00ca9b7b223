"""
The head of a request, read strictly (RFC 9112 sections 2 to 5).

A head is taken only where every reader would read it in the same way; whatever is doubtful is refused, and nothing of
it is repeated. Fields are remembered by their whole line: those of one client are the same in each of its calls, and a
line that was looked at once need not be again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmproxy_core.errors import BadRequest, RequestRejected
from llmproxy_core.headers import Headers
from llmproxy_server.door_request import CHUNKED, Incoming

_1_0, _1_1 = (1, 0), (1, 1)
# Not CONNECT, which is for tunnels, nor TRACE, whose answer would show the request with the key that we add.
_METHODS = "GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS"
_LINE = re.compile(rf"({_METHODS}) ([!-~]+) HTTP/1\.([01])")
_ANY_LINE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [!-~]+( HTTP/[0-9]\.[0-9])?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NO_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_NO_HEAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_ONCE = frozenset({"host", "content-length", "transfer-encoding", "expect"})
_SPACE = " \t"
LONGEST_LENGTH = 18
"""Digits of a Content-Length."""

_REMEMBERED = 1024
"""Lines; what is in them is the clients' choice, so the memory of them is bounded."""
_LONGEST_REMEMBERED = 160
NEW_EACH_TIME = frozenset(
    {
        "b3",
        "baggage",
        "date",
        "idempotency-key",
        "request-id",
        "sentry-trace",
        "traceparent",
        "tracestate",
        "x-amzn-trace-id",
        "x-b3-parentspanid",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-client-request-id",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-datadog-parent-id",
        "x-datadog-trace-id",
        "x-request-id",
    }
)
"""What clients, and what traces them, say anew in each call."""
_SECRET = frozenset(
    {"authorization", "proxy-authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key", "x-auth-token"}
)
_NOT_REMEMBERED = NEW_EACH_TIME | _SECRET
_MAY_BE_SECRET = re.compile("auth|cookie|cred|key|pass|secret|session|sig|token")
"""In the names of fields that gateways and companies have of their own."""
_USUAL = {spelled: name for name in _NOT_REMEMBERED for spelled in (name, name.title())}


class _Fields(dict[str, tuple[str, str]]):
    """What lines of a head stand for: name, in lower case, and value. Only what is not remembered is read in Python."""

    def __missing__(self, line: str) -> tuple[str, str]:
        name, colon, value = line.partition(":")
        lower = _USUAL.get(name) if colon else None
        if lower is None:
            if not colon or not _NAME.fullmatch(name):
                raise malformed()
            lower = name.lower()
        if "\t" in value and lower in _ONCE:  # some readers take it for a part of the value
            raise malformed()
        value = value.strip(_SPACE)
        if not (value.isascii() and value.isprintable()) and _NO_VALUE.search(value):
            raise malformed()
        field = (lower, value)
        if lower in _NOT_REMEMBERED or len(line) > _LONGEST_REMEMBERED:
            return field
        if not _MAY_BE_SECRET.search(lower):
            if len(self) >= _REMEMBERED:
                self.clear()
            self[line] = field
        return field


_Begin = tuple[str, str, str, str, tuple[int, int]]
"""Method, target, path, query, version."""


class HeadReader:
    """Reads heads. Each is one block of bytes: from the request line to the empty line, that one left out."""

    def __init__(self, max_fields: int) -> None:
        self._max_fields = max_fields
        self._known = _Fields()
        self._known_begins: dict[str, _Begin] = {}

    @property
    def remembered(self) -> int:
        """Lines."""
        return len(self._known)

    def read(self, head: bytes, *, peer: str = "", secure: bool = False) -> Incoming:
        """RequestRejected for what is no head, or one that two readers could read in two ways."""
        lines = head.decode("latin-1").split("\r\n")
        line = lines.pop(0)
        method, target, path, query, version = self._known_begins.get(line) or self._read_begin(line)
        if len(lines) > self._max_fields:
            raise too_much_head()
        headers = Headers(map(self._known.__getitem__, lines))
        if headers.has_repeated and any(len(headers.get_all(name)) > 1 for name in _ONCE):
            raise BadRequest("Host, Content-Length, Transfer-Encoding and Expect can be sent once each")
        first = headers.first
        length = _length(first, version)
        keep_alive = _keeps(headers, version) if "connection" in first else version is _1_1
        return Incoming(method, target, path, query, version, headers, peer, secure, length, keep_alive)

    def _read_begin(self, line: str) -> _Begin:
        """What the first line says. One with a query is not remembered: some clients have their key in it."""
        said = _LINE.fullmatch(line)
        if said is None:
            raise _no_request(line)
        method, target, minor = said.groups()
        path, mark, query = target.partition("?")
        begin = (method, target, path, query, _1_1 if minor == "1" else _1_0)
        if not mark and len(line) <= _LONGEST_REMEMBERED:
            if len(self._known_begins) >= _REMEMBERED:
                self._known_begins.clear()
            self._known_begins[line] = begin
        return begin


def check_begun(part: bytes, seen: int) -> None:
    """
    RequestRejected when *part*, the beginning of a head, can be none, however it goes on.

    The first *seen* bytes of it were looked at before. Who speaks something else learns it at once, and not when the
    time for a head is over.
    """
    end = part.find(b"\r\n")
    if end >= max(seen - 1, 0):  # first, as in a head that came whole: the verdict is the same however it is cut
        line = part[:end].decode("latin-1")
        if _LINE.fullmatch(line) is None:
            raise _no_request(line)
    if _NO_HEAD.search(part, max(seen - 1, 0)):
        raise malformed()


def _length(first: Mapping[str, str], version: tuple[int, int]) -> int:
    coding, length = first.get("transfer-encoding"), first.get("content-length")
    if coding is not None:
        if version == (1, 0) or coding.lower() != "chunked":
            raise BadRequest("Transfer-Encoding can be chunked, in HTTP/1.1, and nothing else")
        if length is not None:
            raise BadRequest("Transfer-Encoding and Content-Length contradict each other")
        return CHUNKED
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()) or len(length) > LONGEST_LENGTH:
        raise BadRequest("The Content-Length is malformed")
    return int(length)


def _keeps(headers: Headers, version: tuple[int, int]) -> bool:
    """Whether the client, which says something of the connection, wants it kept (RFC 9112 section 9.3)."""
    options = {option.strip(_SPACE).lower() for value in headers.get_all("connection") for option in value.split(",")}
    return "close" not in options and (version == (1, 1) or "keep-alive" in options)


def _no_request(line: str) -> RequestRejected:
    """The error of a request line that is none of ours."""
    said = _ANY_LINE.fullmatch(line)
    if said is None:
        return malformed()
    if (said[1] or "")[:-1] != " HTTP/1." or said[1][-1] not in "01":
        return RequestRejected("This server speaks HTTP/1.1", status=505, code="http_version_not_supported")
    return RequestRejected("This method is not served", status=501, code="method_not_implemented")


def malformed() -> BadRequest:
    return BadRequest("This is not well-formed HTTP/1.1")


def too_much_head() -> RequestRejected:
    return RequestRejected(
        "The head of the request is too long (max_header_bytes, max_header_count)", status=431, code="header_too_large"
    )
