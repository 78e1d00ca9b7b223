"""
The head of an upstream's answer (RFC 9112 sections 4 to 6), read strictly: what is no head is never guessed at.

Fields are remembered by their whole line: most of one upstream's are the same in each of its answers, and a line that
was looked at once need not be again.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from llmproxy_core.headers import Headers

MAX_LINE_BYTES = 32_768
"""Of the status line, and of each field."""
MAX_HEAD_BYTES = 131_072
MAX_FIELDS = 128
END = b"\r\n\r\n"
REMEMBERED = 512
"""Lines; what is in them is the upstreams' choice, so the memory of them is bounded."""
_LONGEST_REMEMBERED = 160

IN_CHUNKS, NO_LENGTH, ODD_CODING = -1, -2, -3
"""Instead of a length of a body; the last: in a transfer coding of which we did not say that we read it."""

Field = tuple[str, str]
Head = tuple[int, Headers, int, bool]
"""
Status, fields with lower-case names, length of the body, and whether the connection can carry another answer.

(That is, if this one ends before the connection does.)
"""

_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: %b)?" % _TEXT)
_FIELD = re.compile(rb"([!#$%%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(%b)" % _TEXT)
_USUAL = {f"HTTP/1.1 {status.value} {status.phrase}".encode(): (status.value, True) for status in HTTPStatus}
_BEGIN = b"HTTP/1."
_LENGTH_VALUE = re.compile(r"[0-9]{1,18}", re.ASCII)
LENGTH = "content-length"
_ONCE = (LENGTH, "transfer-encoding")
NEW_EACH_TIME = frozenset(
    {
        "x-request-id",
        "request-id",
        "cf-ray",
        "openai-processing-ms",
        "x-envoy-upstream-service-time",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-requests",
        "x-ratelimit-reset-tokens",
    }
)
_SPELLED = {spelled.encode(): name for name in NEW_EACH_TIME for spelled in (name, name.title(), name.upper())}
MAY_BE_SECRET = re.compile("auth|cookie|cred|key|pass|secret|session|sig|token")


class _Fields(dict[bytes, Field]):
    """What lines of heads say."""

    def __missing__(self, line: bytes) -> Field:
        """ValueError where it is no field."""
        begin, _, rest = line.partition(b": ")
        known = _SPELLED.get(begin)
        if known is not None and len(line) < MAX_LINE_BYTES and rest.isascii():
            text = rest.decode()
            if text.isprintable():  # in ASCII: it has nothing that a field may not have, and of white space but blanks
                return (known, text.strip(" "))
        said = _FIELD.fullmatch(line)
        if said is None or len(line) >= MAX_LINE_BYTES:
            raise ValueError
        name, value = said.groups()
        value = value.rstrip(b" \t")
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        if name in _SPELLED:  # with no blank before its value, or more in that than printable ASCII
            return (_SPELLED[name], text)
        lower = name.lower().decode()
        if lower == LENGTH and not _LENGTH_VALUE.fullmatch(text):
            raise ValueError
        field = (lower, text)
        if len(line) <= _LONGEST_REMEMBERED and not MAY_BE_SECRET.search(lower):
            if len(self) >= REMEMBERED:
                self.clear()
            self[line] = field
        return field


class HeadReader:
    """Reads heads. Each is one block of bytes: from the status line to the empty line, that one left out."""

    __slots__ = ("_field", "_fields")

    def __init__(self) -> None:
        self._fields = _Fields()
        self._field = self._fields.__getitem__  # a function of C, which enters a frame for unknown lines alone

    def read(self, data: bytes) -> Head | None:
        """None where it breaks a rule or a limit."""
        lines = data.split(b"\r\n")
        line = lines.pop(0)
        begin = _USUAL.get(line) or _read_begin(line)
        if begin is None or len(lines) > MAX_FIELDS:
            return None
        try:
            headers = Headers(map(self._field, lines))
        except ValueError:
            return None
        status, is_1_1 = begin
        first = headers.first
        length = first.get(LENGTH)
        keeps = is_1_1 and first.get("connection", "keep-alive") == "keep-alive"  # which says nothing new there
        if length is None or headers.has_repeated or "transfer-encoding" in first or not keeps:
            return _odd_head(status, headers, is_1_1=is_1_1)
        return status, headers, int(length), True


def _read_begin(line: bytes) -> tuple[int, bool] | None:
    """The status, and whether it is of HTTP/1.1."""
    said = _STATUS_LINE.fullmatch(line)
    if said is None or len(line) >= MAX_LINE_BYTES:
        return None
    minor, status = said.groups()
    return int(status), minor == b"1"


def _odd_head(status: int, headers: Headers, *, is_1_1: bool) -> Head | None:
    """
    Of an answer that says more of its body or its connection than a length, or less.

    It makes no sense with two lengths, or a length and a coding (RFC 9112 section 6.3), or a coding in HTTP/1.0, which
    has none (section 6.1).
    """
    lengths, codings = map(headers.get_all, _ONCE)
    if len(lengths) > 1 or (codings and (lengths or not is_1_1)):
        return None
    keeps = is_1_1 if "connection" not in headers else _keeps(headers, is_1_1=is_1_1)
    if lengths:
        return status, headers, int(lengths[0]), keeps
    if not codings:
        return status, headers, NO_LENGTH, keeps
    is_known = len(codings) == 1 and codings[0].lower() == "chunked"
    return status, headers, IN_CHUNKS if is_known else ODD_CODING, keeps


def _keeps(headers: Headers, *, is_1_1: bool) -> bool:
    """Of an answer that says something of its connection (RFC 9112 section 9.3)."""
    words = {word.strip(" \t") for word in ",".join(headers.get_all("connection")).lower().split(",")}
    return "close" not in words and (is_1_1 or "keep-alive" in words)


def may_be_head(data: bytes | bytearray) -> bool:
    """Whether *data*, which has no end of a head yet, can become one: what is none may never come to an end."""
    if not data.startswith(_BEGIN):
        return _BEGIN.startswith(data)
    line_end = data.find(b"\n")
    if line_end < 0:
        return len(data) <= MAX_LINE_BYTES
    line = data[:line_end]
    if line_end > MAX_LINE_BYTES or not line.endswith(b"\r") or _STATUS_LINE.fullmatch(line[:-1]) is None:
        return False
    return len(data) <= MAX_HEAD_BYTES and len(data) - data.rfind(b"\n") <= MAX_LINE_BYTES
