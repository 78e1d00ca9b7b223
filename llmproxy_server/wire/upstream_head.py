"""The head of an upstream's answer (RFC 9112 sections 4 to 6), read strictly: what is no head is never guessed at."""

from __future__ import annotations

import re

from llmproxy_core.headers import Headers

MAX_LINE_BYTES = 32_768
"""Of the status line, and of each field."""
MAX_HEAD_BYTES = 131_072
MAX_FIELDS = 128
END = b"\r\n\r\n"

_TEXT = r"[\t\x20-\x7e\x80-\xff]*"
_STATUS_LINE = re.compile(rf"HTTP/1\.([01]) ([0-9]{{3}})(?: {_TEXT})?\r\n")
# Anchored at the begin of a line, so that nothing is skipped: as many matches as lines means that each line is one.
_FIELD = re.compile(rf"^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*({_TEXT})\r\n", re.MULTILINE)
_LENGTH = re.compile(r"[0-9]{1,18}")
_BEGIN = b"HTTP/1."

Pairs = list[tuple[str, str]]
_CODING, _LENGTH_FIELD, _CONNECTION = "transfer-encoding", "content-length", "connection"


class Head:
    """Status, fields with lower-case names, and what they say of the body: in chunks, or its length, or neither."""

    __slots__ = ("chunked", "headers", "keeps", "length", "odd_coding", "status")

    def __init__(self, status: int, headers: Headers, *, keeps: bool) -> None:
        self.status = status
        self.headers = headers
        self.chunked = False
        self.length: int | None = None
        self.keeps = keeps
        """Whether the connection can carry another answer, if this one says where it ends."""
        self.odd_coding = False
        """Whether the body is in a transfer coding of which we did not say that we read it."""


def read_head(data: bytes) -> Head | None:
    """*data* is a head up to its last empty line, that not included. None where it breaks a rule or a limit."""
    text = data.decode("latin-1")
    line = _STATUS_LINE.match(text)
    if line is None:
        return None
    minor, status = line.groups()
    pairs: Pairs = _FIELD.findall(text, line.end())
    count = len(pairs)
    if text.count("\n") != count + 1 or count > MAX_FIELDS:
        return None
    if len(text) > MAX_LINE_BYTES and max(map(len, text.split("\n"))) > MAX_LINE_BYTES:
        return None
    pairs = [(name.lower(), value.rstrip(" \t")) for name, value in pairs]
    if not text.isascii():
        pairs = [(name, value if value.isascii() else _decoded(value)) for name, value in pairs]
    headers = Headers(pairs)
    head = Head(int(status), headers, keeps=minor == "1")
    if _CONNECTION in headers:
        _read_connection(head)
    if _LENGTH_FIELD in headers:
        return head if _read_length(head) else None
    if _CODING in headers:
        return head if _read_coding(head, http_1_0=minor == "0") else None
    return head


def _decoded(value: str) -> str:
    """*value*, bytes as Latin-1, as the UTF-8 that it may be."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _read_connection(head: Head) -> None:
    """RFC 9112 section 9.3."""
    words = {word.strip(" \t") for word in ",".join(head.headers.get_all(_CONNECTION)).lower().split(",")}
    head.keeps = "close" not in words and (head.keeps or "keep-alive" in words)


def _read_length(head: Head) -> bool:
    """Whether it makes sense: one length, said once, and nothing of a coding beside it (RFC 9112 section 6.3)."""
    lengths = head.headers.get_all(_LENGTH_FIELD)
    if len(lengths) > 1 or _CODING in head.headers or not _LENGTH.fullmatch(lengths[0]):
        return False
    head.length = int(lengths[0])
    return True


def _read_coding(head: Head, *, http_1_0: bool) -> bool:
    """Whether it makes sense: HTTP/1.0 has none (RFC 9112 section 6.1)."""
    head.chunked = True
    codings = head.headers.get_all(_CODING)
    head.odd_coding = len(codings) > 1 or codings[0].lower() != "chunked"
    return not http_1_0


def may_be_head(data: bytes | bytearray) -> bool:
    """Whether *data*, which has no end of a head yet, can become one: what is none may never come to an end."""
    if not data.startswith(_BEGIN):
        return _BEGIN.startswith(data)
    line_end = data.find(b"\n")
    if line_end < 0:
        return len(data) <= MAX_LINE_BYTES
    if line_end > MAX_LINE_BYTES or _STATUS_LINE.fullmatch(data[: line_end + 1].decode("latin-1")) is None:
        return False
    return len(data) <= MAX_HEAD_BYTES and len(data) - data.rfind(b"\n") <= MAX_LINE_BYTES
