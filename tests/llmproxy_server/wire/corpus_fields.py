"""Header fields: their syntax, their line ends, how many and how long they may be."""

from __future__ import annotations

from tests.llmproxy_server.wire.rows import (
    HOST,
    MARK,
    MAX_FIELDS,
    MAX_HEAD,
    TARGET,
    Meant,
    Row,
    asked,
    chat,
    get,
    read,
    refused,
    sized,
)

_TOO_LARGE = (400, 431)


def field(raw: bytes, *, end: bytes = b"\r\n") -> bytes:
    """A request with *raw* for a field line, between two good ones."""
    return get(b"X-Before: 1", b"@", b"X-Mark: " + MARK).replace(b"@\r\n", raw + end)


_NAMES = {
    "space before the colon": b"X-A : 1",
    "tab before the colon": b"X-A\t: 1",
    "space in the name": b"X A: 1",
    "space before the name, the first field": b" X-A: 1",
    "no colon": b"X-A",
    "no colon, a length": b"Content-Length 5",
    "nothing but a colon": b":",
    "no name": b": 1",
    "two colons for a name": b":: 1",
    "pseudo-header": b":path: /v1/models",
    "NUL": b"X\x00A: 1",
    "control character": b"X\x01A: 1",
    "CR": b"X\rA: 1",
    "DEL": b"X\x7fA: 1",
    "UTF-8": "Xé: 1".encode(),
    "no-break space": b"X\xa0A: 1",
    "parentheses": b"X(A): 1",
    "comma": b"X,A: 1",
    "slash": b"X/A: 1",
    "semicolon": b"X;A: 1",
    "equals sign": b"X=A: 1",
    "brackets": b"X[A]: 1",
    "braces": b"X{A}: 1",
    "at sign": b"X@A: 1",
    "quotes": b'"X-A": 1',
    "backslash": b"X\\A: 1",
    "question mark": b"X?A: 1",
    "angle brackets": b"<X>: 1",
    "a length with a control character": b"Content-Length\x0b: 5",
    "a coding with a NUL": b"Transfer-Encoding\x00: chunked",
    "a request line": b"GET / HTTP/1.1",
}

_VALUES = {
    "NUL": b"X-A: a\x00b",
    "NUL at first": b"X-A: \x00",
    "control character": b"X-A: a\x01b",
    "bell": b"X-A: a\x07b",
    "backspace": b"X-A: a\x08b",
    "vertical tab": b"X-A: a\x0bb",
    "vertical tab at the end": b"X-A: a\x0b",
    "form feed": b"X-A: a\x0cb",
    "escape": b"X-A: \x1b[31m",
    "unit separator": b"X-A: a\x1fb",
    "DEL": b"X-A: a\x7fb",
    "CR": b"X-A: a\rb",
    "CR and a field": b"X-A: a\rContent-Length: 5",
    "CR at the end": b"X-A: a\r",
    "two CRs at the end": b"X-A: a\r\r",
    "LF": b"X-A: a\nb",
    "LF and a field": b"X-A: a\nX-B: b",
    "LF and a length": b"X-A: a\nContent-Length: 5",
    "LF and a coding": b"X-A: a\nTransfer-Encoding: chunked",
    "folded with a space": b"X-A: a\r\n b",
    "folded with a tab": b"X-A: a\r\n\tb",
    "folded, LF": b"X-A: a\n b",
    "folded and empty": b"X-A: a\r\n ",
    "folded name": b"X-A\r\n : a",
    "folded length": b"Content-Length:\r\n 0",
    "folded coding": b"Transfer-Encoding:\r\n\tchunked",
}
_SYNTAX = (
    *(refused(f"name: {name}", field(raw)) for name, raw in _NAMES.items()),
    *(refused(f"value: {name}", field(raw)) for name, raw in _VALUES.items()),
    refused("lines: LF everywhere", get(b"X-Mark: " + MARK).replace(b"\r\n", b"\n")),
    refused("lines: LF after one field", field(b"X-A: a", end=b"\n")),
    refused("lines: CR after one field", field(b"X-A: a", end=b"\r")),
    refused("lines: LF CR", field(b"X-A: a", end=b"\n\r")),
    refused("lines: CR CR LF", field(b"X-A: a", end=b"\r\r\n")),
    refused("lines: the empty one is LF", get(b"X-Mark: " + MARK)[:-2] + b"\n"),
    refused("lines: the empty one is CR", get(b"X-Mark: " + MARK)[:-2] + b"\r" + get()),
    refused("lines: the last is LF, LF", get(b"X-Mark: " + MARK)[:-4] + b"\n\n"),
    refused("lines: the last is LF, CRLF", get(b"X-Mark: " + MARK)[:-4] + b"\n\r\n"),
    refused("lines: the last is CRLF, CR, CRLF", get(b"X-Mark: " + MARK)[:-2] + b"\r\r\n"),
    refused("lines: the empty one has a space", get(b"X-Mark: " + MARK)[:-2] + b" \r\n\r\n"),
    refused("lines: the empty one has a tab", get(b"X-Mark: " + MARK)[:-2] + b"\t\r\n\r\n"),
    refused("lines: the first is folded", get(b"X-Mark: " + MARK).replace(HOST, b" " + HOST)),
    refused("lines: the first is empty but for a space", get(b"X-Mark: " + MARK).replace(HOST, b" \r\n" + HOST)),
)

_PASSED: dict[str, tuple[bytes, dict[str, str | None]]] = {
    "a name with an underscore": (b"X_A: 1", {"x_a": "1"}),
    "a name of all a token may have": (b"!#$%&'*+-.^_`|~09azAZ: 1", {"!#$%&'*+-.^_`|~09azaz": "1"}),
    "a name of one letter": (b"X: 1", {"x": "1"}),
    "a name in many cases": (b"x-AbC: 1", {"x-abc": "1"}),
    "a digit for a name": (b"1: 1", {"1": "1"}),
    "no value": (b"X-A:", {"x-a": ""}),
    "spaces for a value": (b"X-A:   ", {"x-a": ""}),
    "no space": (b"X-A:1", {"x-a": "1"}),
    "many spaces around": (b"X-A:    1    ", {"x-a": "1"}),
    "tabs around": (b"X-A:\t1\t", {"x-a": "1"}),
    "a tab inside": (b"X-A: 1\t2", {"x-a": "1\t2"}),
    "spaces inside": (b"X-A: 1   2", {"x-a": "1   2"}),
    "colons": (b"X-A: a:b::c", {"x-a": "a:b::c"}),
    "a value of Latin-1": (b"X-A: \xe9", {"x-a": "\xe9"}),
    "a value of UTF-8": ("X-A: é".encode(), {"x-a": "\xc3\xa9"}),
    "a value of all that is visible": (b"X-A: " + bytes(range(0x21, 0x7F)), {"x-a": bytes(range(0x21, 0x7F)).decode()}),
    "a line end that is encoded": (b"X-A: %0d%0aX-B: 1", {"x-a": "%0d%0aX-B: 1", "x-b": None}),
    "a comma list": (b"X-A: ,, a,,b ,", {"x-a": ",, a,,b ,"}),
    "a value of 16 KB": (b"X-A: " + b"a" * 16_384, {"x-a": "a" * 16_384}),
    "a name of 1 KB": (b"X" * 1024 + b": 1", {"x" * 1024: "1"}),
    "a cookie": (b"Cookie: a=b; c=d", {"cookie": "a=b; c=d"}),
    "a length's name in another": (b"X-Content-Length: 5", {"content-length": None}),
    "a length's name with an underscore": (b"Content_Length: 5", {"content-length": None, "content_length": "5"}),
    "a coding's name with an underscore": (b"Transfer_Encoding: chunked", {"transfer-encoding": None}),
    "a host's name with an underscore": (b"_Host: evil.example", {"host": "localhost"}),
}

_FULL = [b"X-%d: 1" % number for number in range(MAX_FIELDS - 2)]  # and Host, and one more
_SIZES = (
    read("fields: as many as allowed", get(*_FULL, b"X-A: 1"), asked(x_a="1")),
    refused("fields: one more than allowed", get(*_FULL, b"X-A: 1", b"X-Mark: " + MARK), *_TOO_LARGE),
    refused("fields: 200 of one name", get(*[b"X-A: 1"] * 200, b"X-Mark: " + MARK), *_TOO_LARGE),
    refused("fields: 5000", get(*[b"a:"] * 5000, b"X-Mark: " + MARK), *_TOO_LARGE),
    refused("fields: a name longer than a head", field(b"X" * MAX_HEAD + b": 1"), *_TOO_LARGE),
    refused("fields: a value longer than a head", field(b"X-A: " + b"a" * MAX_HEAD), *_TOO_LARGE),
    refused("fields: a value of 1 MB", field(b"X-A: " + b"a" * (1 << 20)), *_TOO_LARGE),
    refused("fields: a value of spaces", field(b"X-A: " + b" " * MAX_HEAD + b"a"), *_TOO_LARGE),
    refused(
        "fields: together longer than a head",
        get(*[b"X-A: " + b"a" * 900] * 50, b"X-Mark: " + MARK),
        *_TOO_LARGE,
        why="the bound is of the whole head, not of its lines",
    ),
    refused("fields: a head that never ends", get(b"X-Mark: " + MARK)[:-2] + b"X-A: 1\r\n" * 9000, *_TOO_LARGE),
    refused("fields: a name that never ends", get(b"X-Mark: " + MARK)[:-2] + b"X" * (2 * MAX_HEAD), *_TOO_LARGE),
    refused(
        "fields: a value that never ends", get(b"X-Mark: " + MARK)[:-2] + b"X: " + b"x" * (2 * MAX_HEAD), *_TOO_LARGE
    ),
    refused(
        "fields: too long in the second request",
        sized() + field(b"X-A: " + b"a" * MAX_HEAD),
        *_TOO_LARGE,
        after=(chat(),),
    ),
)

ROWS: tuple[Row, ...] = (
    *_SYNTAX,
    *(
        read(
            f"field: {name}",
            get(b"X-Before: 1", raw, b"X-After: 2"),
            Meant("GET", TARGET.decode(), headers={"x-before": "1", "x-after": "2", **meant}),
        )
        for name, (raw, meant) in _PASSED.items()
    ),
    *_SIZES,
)
