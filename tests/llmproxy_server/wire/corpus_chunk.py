"""Chunked bodies: sizes, extensions, line ends, trailers, the last chunk."""

from __future__ import annotations

from tests.llmproxy_server.wire.rows import (
    BODY,
    CHUNKED,
    MARK,
    MAX_HEAD,
    Row,
    asked,
    chat,
    chunk,
    get,
    read,
    refused,
    sized,
    unfinished,
)

_N = b"%x" % len(BODY)
_LAST = b"0\r\n\r\n"
_TOO_LARGE = (400, 413, 431)


def of_size(size: bytes, body: bytes = BODY) -> bytes:
    """A body whose first chunk has this for its size."""
    return CHUNKED + size + b"\r\n" + body + b"\r\n" + _LAST


_SIZES = {
    "none": b"",
    "an extension alone": b";a=b",
    "not hexadecimal": b"zz",
    "negative": b"-" + _N,
    "a plus": b"+" + _N,
    "a prefix": b"0x" + _N,
    "a prefix in upper case": b"0X" + _N,
    "a suffix": _N + b"h",
    "a fraction": _N + b".0",
    "an underscore": b"1_b",
    "a space before": b" " + _N,
    "a tab before": b"\t" + _N,
    "a space inside": b"1 b",
    "a comma": _N + b",",
    "two of them": _N + b" " + _N,
    "quoted": b'"' + _N + b'"',
    "NUL after": _N + b"\x00",
    "vertical tab after": _N + b"\x0b",
    "CR after": _N + b"\r",
    "a letter after": _N + b"g",
    "non-ASCII digits": "\u0661\u0662".encode(),
    "full-width digits": "\uff11\uff12".encode(),
    "a line feed in it": b"1\nb",
    "too large by one": b"%x" % (len(BODY) + 1),
    "too small by one": b"%x" % (len(BODY) - 1),
    "over 31 bits": b"80000000" + _N,
    "over 63 bits": b"8000000000000000",
    "over 64 bits": b"10000000000000000",
    "that wraps to the right one": b"1" + _N.zfill(16),
    "of 64 bits": b"ffffffffffffffff",
    "of 63 bits": b"7fffffffffffffff",
    "of 40 digits": b"f" * 40,
    "of 5000 digits": b"f" * 5000,
    "of 5000 zeros": b"0" * 5000 + _N,
}
_SIZE_WHY = {"of 5000 zeros": "a size has 16 digits: more are nothing but a way to send for ever"}
_LINES = {
    "LF after the size": _N + b"\n" + BODY + b"\r\n" + _LAST,
    "LF after the data": _N + b"\r\n" + BODY + b"\n" + _LAST,
    "LF everywhere": _N + b"\n" + BODY + b"\n0\n\n",
    "LF after the last size": chunk() + b"0\n\r\n",
    "LF at the end": chunk() + b"0\r\n\n",
    "CR after the size": _N + b"\r" + BODY + b"\r\n" + _LAST,
    "CR after the data": _N + b"\r\n" + BODY + b"\r" + _LAST,
    "CR CR LF after the size": _N + b"\r\r\n" + BODY + b"\r\n" + _LAST,
    "CR CR LF after the data": _N + b"\r\n" + BODY + b"\r\r\n" + _LAST,
    "nothing after the data": _N + b"\r\n" + BODY + _LAST,
    "more than the size tells": _N + b"\r\n" + BODY + b"x\r\n" + _LAST,
    "two line ends after the data": chunk() + b"\r\n" + _LAST,
    "a space after the data": _N + b"\r\n" + BODY + b" \r\n" + _LAST,
    "LF before the size": b"\n" + chunk() + _LAST,
    "CRLF before the size": b"\r\n" + chunk() + _LAST,
    "LF CR after the size": _N + b"\n\r" + BODY + b"\r\n" + _LAST,
}
_EXTENSIONS = {
    "LF in it": b";a=b\nc",
    "LF at its end": b";a\n",
    "CR in it": b";a=b\rc",
    "NUL in it": b";a=\x00",
    "control character": b";a=\x01",
    "DEL": b";a=\x7f",
    "of 20 KB": b";" + b"a" * 20_000,
    "of 300 KB": b";" + b"a" * 300_000,
    "of 300 KB, quoted": b';a="' + b"a" * 300_000 + b'"',
    "300,000 of them": b";a" * 150_000,
    "a space and no semicolon": b" a",
    "a comma": b",a",
    "a quote that does not end": b';a="b',
    "a space before it": b" ;a",
}
_EXTENSION_WHY = dict.fromkeys(
    ("of 20 KB", "of 300 KB", "of 300 KB, quoted", "300,000 of them"), "extensions are bounded"
)

_CHUNK_ROWS = (
    *(
        refused(f"chunk: size, {name}", of_size(size), *_TOO_LARGE, why=_SIZE_WHY.get(name, ""))
        for name, size in _SIZES.items()
    ),
    *(refused(f"chunk: {name}", CHUNKED + raw) for name, raw in _LINES.items()),
    *(
        refused(
            f"chunk: extension, {name}",
            CHUNKED + chunk(BODY, odd) + _LAST,
            *_TOO_LARGE,
            why=_EXTENSION_WHY.get(name, ""),
        )
        for name, odd in _EXTENSIONS.items()
    ),
    refused(
        "chunk: extensions, 300 KB over many chunks",
        CHUNKED + b"".join(chunk(BODY[i : i + 1], b";" + MARK + b"a" * 10_000) for i in range(len(BODY))) + _LAST,
        *_TOO_LARGE,
        why="extensions are bounded over the whole body too",
    ),
    refused(
        "chunk: extension of the last, 300 KB",
        CHUNKED + chunk() + b"0;" + b"a" * 300_000 + b"\r\n\r\n",
        *_TOO_LARGE,
        why="extensions are bounded",
    ),
    refused("chunk: extension that never ends", CHUNKED + chunk() + b"1;" + b"a" * 400_000, *_TOO_LARGE),
    refused("chunk: size that never ends", CHUNKED + chunk() + b"0" * 400_000, *_TOO_LARGE),
    refused("chunk: no chunk, but a request", CHUNKED + get()),
    refused("chunk: the body as it is", CHUNKED + BODY + b"\r\n" + _LAST),
)

_TRAILERS = {
    "no colon": b"X-T",
    "no name": b": 1",
    "space before the colon": b"X-T : 1",
    "space in the name": b"X T: 1",
    "folded": b"X-T: 1\r\n 2",
    "folded, the first": b" X-T: 1",
    "NUL": b"X-T: a\x00b",
    "CR": b"X-T: a\rb",
    "LF": b"X-T: a\nX-U: b",
    "control character": b"X-T: a\x01b",
    "DEL": b"X-T: a\x7f",
    "name with a control character": b"X\x01T: 1",
    "name that is no token": b"X(T): 1",
    "a request line": b"GET / HTTP/1.1",
    "a length": b"Content-Length: 5",
    "a coding": b"Transfer-Encoding: chunked",
}
_FORBIDDEN = {
    "host": b"Host: evil.example",
    "authorization": b"Authorization: Bearer x",
    "content type": b"Content-Type: text/html",
    "connection": b"Connection: close",
    "expect": b"Expect: 200-maybe",
    "trailer": b"Trailer: X-T",
}


def trailers(*fields: bytes) -> bytes:
    return CHUNKED + chunk() + b"0\r\n" + b"".join(each + b"\r\n" for each in fields) + b"\r\n"


_TRAILER_ROWS = (
    *(refused(f"trailer: {name}", trailers(raw), *_TOO_LARGE) for name, raw in _TRAILERS.items()),
    # What may not stand in a trailer is left out with all the others, none of which is merged into the header.
    *(
        read(f"trailer: left out, {name}", trailers(raw), chat(authorization=None, content_type="application/json"))
        for name, raw in _FORBIDDEN.items()
        if name != "content type"
    ),
    read(
        "trailer: left out, content type", trailers(_FORBIDDEN["content type"]), chat(content_type="application/json")
    ),
    read("trailer: left out, one", trailers(b"X-T: 1"), chat(x_t=None)),
    read(
        "trailer: left out, announced",
        (trailers(b"X-T: 1")).replace(b"Transfer", b"Trailer: X-T\r\nTransfer", 1),
        chat(x_t=None),
    ),
    read("trailer: left out, two", trailers(b"X-T: 1", b"X-U: 2"), chat(x_t=None, x_u=None)),
    refused("trailer: longer than a head", trailers(b"X-T: " + b"a" * MAX_HEAD), *_TOO_LARGE),
    refused(
        "trailer: together longer than a head",
        trailers(*[b"X-T: " + b"a" * 900] * 50),
        *_TOO_LARGE,
        why="trailers are bounded as the head is",
    ),
    refused(
        "trailer: more than fields are allowed",
        trailers(*[b"X-T: 1"] * 200),
        *_TOO_LARGE,
    ),
    refused("trailer: never ends", trailers(*[b"X-T: 1"] * 9000)[:-2], *_TOO_LARGE),
    refused("trailer: ended by LF", trailers(b"X-T: 1")[:-4] + b"\n\r\n"),
    refused("trailer: the empty line is LF", trailers(b"X-T: 1")[:-2] + b"\n"),
)

_PASSED = {
    "one": chunk() + _LAST,
    "one of a byte each": b"".join(chunk(BODY[i : i + 1]) for i in range(len(BODY))) + _LAST,
    "two": chunk(BODY[:9]) + chunk(BODY[9:]) + _LAST,
    "size in upper case": _N.upper() + b"\r\n" + BODY + b"\r\n" + _LAST,
    "size with a zero before": b"0" + _N + b"\r\n" + BODY + b"\r\n" + _LAST,
    "size of 16 digits": _N.zfill(16) + b"\r\n" + BODY + b"\r\n" + _LAST,
    "zeros for the last": chunk() + b"000\r\n\r\n",
    "an extension": chunk(BODY, b";a=b") + _LAST,
    "an extension without value": chunk(BODY, b";a") + _LAST,
    "an extension, quoted": chunk(BODY, b';a="b c"') + _LAST,
    "an extension, quoted, with what would end one": chunk(BODY, b';a="b;c\\"d"') + _LAST,
    "extensions": chunk(BODY, b";a=b;c=d") + _LAST,
    "an extension of the last": chunk() + b"0;a=b\r\n\r\n",
    "an extension of 100 bytes": chunk(BODY, b";" + b"a" * 100) + _LAST,
}

_ENDS = {
    "no last chunk": chunk(),
    "the last without its end": chunk() + b"0\r\n",
    "the last without its line": chunk() + b"0",
    "in the size": chunk() + b"1",
    "in the data": _N + b"\r\n" + BODY[:5],
    "before the data's end": _N + b"\r\n" + BODY,
    "in a trailer": chunk() + b"0\r\nX-T: 1",
    "after a trailer": chunk() + b"0\r\nX-T: 1\r\n",
    "in an extension": chunk() + b"1;a=",
    "nothing": b"",
}

ROWS: tuple[Row, ...] = (
    *_CHUNK_ROWS,
    *_TRAILER_ROWS,
    *(read(f"chunks: {name}", CHUNKED + raw, chat()) for name, raw in _PASSED.items()),
    *(unfinished(f"chunks end: {name}", CHUNKED + raw) for name, raw in _ENDS.items()),
    read("chunks: none", get(b"Transfer-Encoding: chunked") + _LAST, asked()),
    read("chunks: then a request", CHUNKED + chunk() + _LAST + sized(), chat(), chat()),
    refused(
        "chunks: then another last chunk", CHUNKED + chunk() + _LAST + _LAST + MARK, 400, 405, 501, 505, after=(chat(),)
    ),
)
