"""Paths and queries: they are never normalised, and what could mean two places is refused."""

from __future__ import annotations

from tests.llmproxy_server.wire.rows import MARK, TARGET, Row, asked, get, read, refused

_TWO_PLACES = "paths are not normalised, and one that another reader would normalise is refused"

_AMBIGUOUS = {
    "two slashes": b"/v1//files/" + MARK,
    "two slashes at first": b"//v1/files/" + MARK,
    "two slashes at the end": TARGET + b"//",
    "a dot segment": b"/v1/./files/" + MARK,
    "two dots": b"/v1/x/../files/" + MARK,
    "two dots to the root": b"/v1/../../" + MARK,
    "two dots at the end": TARGET + b"/..",
    "a dot at the end": TARGET + b"/.",
    "two dots at first": b"/../v1/files/" + MARK,
    "%2e": b"/v1/%2e/files/" + MARK,
    "%2e%2e": b"/v1/x/%2e%2e/files/" + MARK,
    "%2E%2e": b"/v1/x/%2E%2e/files/" + MARK,
    ".%2e": b"/v1/x/.%2e/files/" + MARK,
    "%2e in a word": b"/v1/files/%2ezq7mark",
    "%2f": b"/v1/files%2f" + MARK,
    "%2F": b"/v1%2Ffiles/" + MARK,
    "..%2f": b"/v1/files/..%2f" + MARK,
    "%2e%2e%2f": b"/v1/files/%2e%2e%2f" + MARK,
    "%5c": b"/v1/files/%5c" + MARK,
    "%5C": b"/v1/files%5C" + MARK,
    "..%5c": b"/v1/files/..%5c" + MARK,
    "%00": b"/v1/files/%00" + MARK,
    "%00 at the end": TARGET + b"%00",
    "backslash": b"/v1\\files/" + MARK,
    "backslash and dots": b"/v1/files/..\\" + MARK,
    "semicolon": b"/v1/files;x/" + MARK,
    "semicolon and dots": b"/v1/x/..;/files/" + MARK,
    "semicolon at the end": TARGET + b";jsessionid=1",
    "a percent sign alone": b"/v1/files/%" + MARK,
    "a percent sign at the end": TARGET + b"%",
    "a percent sign and one digit": TARGET + b"%2",
    "a percent sign and no hex": b"/v1/files/%zz" + MARK,
    "a percent sign and u": b"/v1/files/%u002f" + MARK,
    "a fragment": TARGET + b"#x",
    "a fragment with dots": TARGET + b"#/../x",
}
_BYTES = {
    "NUL": b"\x00",
    "control character": b"\x01",
    "escape": b"\x1b[31m",
    "DEL": b"\x7f",
    "tab": b"\t",
    "CR": b"\r",
    "LF": b"\n",
    "vertical tab": b"\x0b",
    "space": b" ",
    "UTF-8": "é".encode(),
    "bytes that are no UTF-8": b"\xff\xfe",
    "overlong slash": b"\xc0\xaf",
    "overlong dots": b"\xc0\xae\xc0\xae",
    "full-width slash": "\uff0f".encode(),
    "no-break space": b"\xa0",
    "next line": b"\x85",
}

_PASSED = {
    "plain": TARGET,
    "a slash at the end": TARGET + b"/",
    "upper case": b"/v1/FILES/" + MARK,
    "dots in a word": b"/v1/files/a.b..c...d",
    "three dots": b"/v1/files/...",
    "all that a segment may have": b"/v1/files/-._~!$&'()*+,=:@",
    "an encoded letter": b"/v1/files/%61",
    "an encoded space": b"/v1/files/a%20b",
    "encoded UTF-8": b"/v1/files/%C3%A9",
    "an encoded percent sign": b"/v1/files/%25",
    "twice encoded": b"/v1/files/%252e%252e%252f",
    "an encoded question mark": b"/v1/files/%3Fx",
    "an encoded line end": b"/v1/files/%0d%0aX-A:%201",
    "an empty query": TARGET + b"?",
    "a query": TARGET + b"?a=b&c=d&a=%2F",
    "a path in the query": TARGET + b"?a=/../..//x;y",
    "a URL in the query": TARGET + b"?a=http://x/y?z",
    "two question marks": TARGET + b"??a?",
    "encoded NUL in the query": TARGET + b"?a=%00",
}

_ENCODED_SLASH = (
    read("path: %2F where the route allows it", get(target=b"/v1/slash/a%2Fb"), asked(b"/v1/slash/a%2Fb")),
    refused("path: %2F where the route allows it, not last", get(target=b"/v1/slash/a%2Fb/" + MARK), why=_TWO_PLACES),
    refused("path: ..%2F where the route allows it", get(target=b"/v1/slash/%2e%2e%2F" + MARK), why=_TWO_PLACES),
    refused("path: %5C where %2F is allowed", get(target=b"/v1/slash/a%5C" + MARK), why=_TWO_PLACES),
)


ROWS: tuple[Row, ...] = (
    *(refused(f"path: {name}", get(target=path), why=_TWO_PLACES) for name, path in _AMBIGUOUS.items()),
    *(
        refused(
            f"path: a byte, {name}",
            get(target=b"/v1/files/" + MARK + odd + b"x"),
            400,
            505,
        )
        for name, odd in _BYTES.items()
    ),
    *(
        refused(f"query: a byte, {name}", get(target=TARGET + b"?a=" + odd + b"x"), 400, 505)
        for name, odd in _BYTES.items()
    ),
    refused("query: a fragment", get(target=TARGET + b"?a#b"), why="a fragment is never sent (RFC 9112 section 3.2)"),
    *(read(f"path: {name}", get(target=path), asked(path)) for name, path in _PASSED.items()),
    *_ENCODED_SLASH,
)
