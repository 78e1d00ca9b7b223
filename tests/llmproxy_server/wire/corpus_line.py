"""Request lines: methods, versions, separators, forms of the target."""

from __future__ import annotations

from tests.llmproxy_server.wire.rows import (
    CHAT,
    HOST,
    MARK,
    MAX_HEAD,
    TARGET,
    Row,
    asked,
    chat,
    get,
    read,
    refused,
    sized,
)

_NO_METHOD = (400, 405, 501)
_NO_VERSION = (400, 505)
_TOO_LONG = (400, 414, 431)


def line(text: bytes) -> bytes:
    """A request with this line, whatever it is."""
    return text + b"\r\n" + HOST + b"\r\n"


_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
_ODD_METHODS = {
    "of WebDAV": b"PROPFIND",
    "of UPnP": b"M-SEARCH",
    "lower-case": b"get",
    "mixed-case": b"Get",
    "unknown": b"BREW",
    "unknown, longer than any": b"GETS",
    "a digit": b"GET1",
    "underscore": b"GET_PARAMETER",
    "of another protocol, RTSP": b"DESCRIBE",
    "of another protocol, Icecast": b"SOURCE",
    "token that is no word": b"!#$%&'*+-.^_`|~",
    "not a token, colon": b"GE:T",
    "not a token, slash": b"GE/T",
    "not a token, quote": b'"GET"',
    "not a token, parentheses": b"(GET)",
    "control character": b"GE\x01T",
    "NUL": b"GE\x00T",
    "DEL": b"GET\x7f",
    "non-ASCII": b"G\xc3\x89T",
    "byte order mark": b"\xef\xbb\xbfGET",
    "long": b"G" * 300,
    "as long as a head": b"G" * MAX_HEAD,
}

_KNOWN_TO_BOTH = (b"PROPFIND", b"M-SEARCH", b"SOURCE")

_METHOD_ROWS = (
    *(read(f"method {name.decode()}", get(method=name), asked(method=name)) for name in _METHODS),
    *(
        refused(
            f"method: {name}",
            line(odd + b" " + TARGET + b" HTTP/1.1"),
            *_NO_METHOD,
            414,
            431,
            why="no API of a provider has it" if odd in _KNOWN_TO_BOTH else "",
        )
        for name, odd in _ODD_METHODS.items()
    ),
    refused("method TRACE", get(method=b"TRACE"), *_NO_METHOD),
    refused("method TRACE with Max-Forwards", get(b"Max-Forwards: 0", method=b"TRACE"), *_NO_METHOD),
    refused("method CONNECT to an authority", line(b"CONNECT localhost:80 HTTP/1.1") + MARK, *_NO_METHOD),
    refused("method CONNECT to an origin target", get(method=b"CONNECT"), *_NO_METHOD),
    refused("method CONNECT, data follows", line(b"CONNECT zq7mark.test:443 HTTP/1.1") + get(), *_NO_METHOD),
)

_VERSIONS = {
    "0.9 in so many words": b"HTTP/0.9",
    "1.2": b"HTTP/1.2",
    "1.9": b"HTTP/1.9",
    "1.10": b"HTTP/1.10",
    "1.01": b"HTTP/1.01",
    "01.1": b"HTTP/01.1",
    "1.": b"HTTP/1.",
    "1": b"HTTP/1",
    "1,1": b"HTTP/1,1",
    "1.1x": b"HTTP/1.1x",
    "1.1 twice": b"HTTP/1.1 HTTP/1.1",
    "2.0": b"HTTP/2.0",
    "2": b"HTTP/2",
    "3.0": b"HTTP/3.0",
    "lower-case": b"http/1.1",
    "mixed case": b"Http/1.1",
    "no name": b"/1.1",
    "of another protocol": b"HTTPS/1.1",
    "of RTSP": b"RTSP/1.0",
    "of ICE": b"ICE/1.0",
    "negative": b"HTTP/-1.1",
    "with a plus": b"HTTP/1.+1",
    "huge": b"HTTP/1." + b"1" * 200,
    "hexadecimal": b"HTTP/0x1.1",
    "non-ASCII digit": b"HTTP/\xc2\xb9.1",
    "spaced": b"HTTP/ 1.1",
    "spaced dot": b"HTTP/1 .1",
}
_VERSION_ROWS = (
    *(
        refused(f"version: {name}", line(b"GET " + TARGET + b" " + odd), *_NO_VERSION)
        for name, odd in _VERSIONS.items()
    ),
    refused("HTTP/0.9", b"GET " + TARGET + b"\r\n", *_NO_VERSION),
    refused("HTTP/0.9 with fields", line(b"GET " + TARGET), *_NO_VERSION, why="a version is missing, not old"),
    refused("HTTP/0.9, LF", b"GET " + TARGET + b"\n", *_NO_VERSION),
    refused("HTTP/0.9 with a space at its end", line(b"GET " + TARGET + b" "), *_NO_VERSION),
    refused("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + MARK, *_NO_VERSION),
    refused("HTTP/2 preface in lower-case", b"pri * http/2.0\r\n\r\nsm\r\n\r\n" + MARK, *_NO_VERSION),
    refused("HTTP/2 frames without preface", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + MARK + b"\r\n\r\n"),
    refused("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + MARK * 8 + b"\r\n\r\n"),
    refused("SOCKS5 greeting", b"\x05\x01\x00" + MARK + b"\r\n\r\n"),
    refused("PROXY protocol before the request", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + get(), *_NO_METHOD),
    refused("PROXY protocol 2", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + b"\x01" * 12 + get()),
    refused("SMTP", b"EHLO " + MARK + b"\r\n\r\n", *_NO_VERSION, *_NO_METHOD),
    refused("a response", b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n" + MARK, *_NO_METHOD),
)

_SEPARATORS = {
    "two spaces after the method": b"GET  " + TARGET + b" HTTP/1.1",
    "two spaces before the version": b"GET " + TARGET + b"  HTTP/1.1",
    "space before the method": b" GET " + TARGET + b" HTTP/1.1",
    "space at the end": b"GET " + TARGET + b" HTTP/1.1 ",
    "tab at the end": b"GET " + TARGET + b" HTTP/1.1\t",
    "tab after the method": b"GET\t" + TARGET + b" HTTP/1.1",
    "tab before the version": b"GET " + TARGET + b"\tHTTP/1.1",
    "tabs everywhere": b"GET\t" + TARGET + b"\tHTTP/1.1",
    "tab before the method": b"\tGET " + TARGET + b" HTTP/1.1",
    "vertical tab": b"GET\x0b" + TARGET + b" HTTP/1.1",
    "form feed": b"GET " + TARGET + b"\x0cHTTP/1.1",
    "no-break space": b"GET\xa0" + TARGET + b" HTTP/1.1",
    "CR in the line": b"GET " + TARGET + b"\rHTTP/1.1",
    "CR before the line's end": b"GET " + TARGET + b" HTTP/1.1\r",
    "NUL at the end": b"GET " + TARGET + b" HTTP/1.1\x00",
    "nothing but spaces": b"   " + MARK,
    "a method alone": b"GET",
    "no method": b" " + TARGET + b" HTTP/1.1",
    "no target": b"GET HTTP/1.1",
    "no target, two spaces": b"GET  HTTP/1.1",
    "a word more": b"GET " + TARGET + b" x HTTP/1.1",
    "a word after": b"GET " + TARGET + b" HTTP/1.1 x",
}
_SEPARATOR_WHY = dict.fromkeys(
    ("two spaces after the method", "two spaces before the version"),
    "RFC 9112 section 3: a lenient reader may split elsewhere, so one space it is",
)

_SEPARATOR_ROWS = (
    *(
        refused(
            f"line: {name}",
            line(odd) if MARK in odd else odd + b"\r\nX-Mark: " + MARK + b"\r\n" + HOST + b"\r\n",
            *_NO_VERSION,
            *_NO_METHOD,
            why=_SEPARATOR_WHY.get(name, ""),
        )
        for name, odd in _SEPARATORS.items()
    ),
    refused("line: ended by LF", get().replace(b"\r\n", b"\n", 1)),
    refused("line: ended by CR", get().replace(b"\r\n", b"\r", 1)),
    refused("line: ended by LF CR", get().replace(b"\r\n", b"\n\r", 1)),
    refused("line: ended by CR CR LF", get().replace(b"\r\n", b"\r\r\n", 1)),
    refused("line: then a folded one", get().replace(b"\r\n", b"\r\n ", 1)),
    refused("line: then a tab", get().replace(b"\r\n", b"\r\n\t", 1)),
)

_BEFORE = (
    read("before: an empty line", b"\r\n" + get(), asked()),
    read("before: an empty line between requests", sized() + b"\r\n" + get(), chat(), asked()),
    refused(
        "before: two empty lines", b"\r\n\r\n" + get(), why="one is a client's slip, known from old ones; two are none"
    ),
    refused("before: LF", b"\n" + get(), why="LF alone ends no line, an empty one neither"),
    refused("before: CR", b"\r" + get(), why="CR alone ends no line"),
    refused("before: CR CR LF", b"\r\r\n" + get(), why="CR alone ends no line"),
    refused(
        "before: more empty lines than a head has room for",
        b"\r\n" * MAX_HEAD + get(),
        *_TOO_LONG,
        why="they count as its head does",
    ),
    refused("before: spaces and an empty line", b"  \r\n" + get()),
    refused("before: NUL", b"\x00" + get()),
    refused("before: a chunk's end", b"0\r\n\r\n" + get()),
    refused("before: a field", b"X-A: " + MARK + b"\r\n" + get(), *_NO_METHOD),
)

_FORMS = {
    "absolute, http": b"http://localhost/v1/files/" + MARK,
    "absolute, https": b"https://localhost/v1/files/" + MARK,
    "absolute, upper-case": b"HTTP://LOCALHOST/v1/files/" + MARK,
    "absolute, other host": b"http://evil.example/v1/files/" + MARK,
    "absolute, userinfo": b"http://localhost@evil.example/v1/files/" + MARK,
    "absolute, password": b"http://a:b@localhost/v1/files/" + MARK,
    "absolute, no path": b"http://localhost?" + MARK,
    "absolute, no authority": b"http:///v1/files/" + MARK,
    "absolute, one slash": b"http:/v1/files/" + MARK,
    "absolute, other scheme": b"file:///v1/files/" + MARK,
    "absolute, odd port": b"http://localhost:99999/v1/files/" + MARK,
    "absolute, backslashes": b"http:\\\\localhost\\v1\\files\\" + MARK,
    "authority": b"localhost:80",
    "authority, name alone": MARK,
    "asterisk": b"*",
    "asterisk and path": b"*/v1/files/" + MARK,
    "no slash at first": b"v1/files/" + MARK,
    "query alone": b"?" + MARK,
    "fragment alone": b"#" + MARK,
    "two slashes and a host": b"//localhost/v1/files/" + MARK,
    "backslash at first": b"\\v1\\files\\" + MARK,
    "dot at first": b"./v1/files/" + MARK,
    "encoded slash at first": b"%2Fv1/files/" + MARK,
}
_NO_URL = ("backslashes", "no authority", "one slash", "other scheme", "odd port")  # for aiohttp either
_FORM_WHY = {
    name: "not addressed as a proxy: origin form alone, so that no authority can contradict Host"
    for name in _FORMS
    if name.startswith("absolute") and name.partition(", ")[2] not in _NO_URL
}
_FORM_WHY["two slashes and a host"] = "a path that begins with // is an authority to a URL parser"

_FORM_ROWS = (
    *(
        refused(
            f"form: {name}",
            line(b"GET " + form + b" HTTP/1.1") if MARK in form else get(b"X-Mark: " + MARK, target=form),
            why=_FORM_WHY.get(name, ""),
        )
        for name, form in _FORMS.items()
    ),
    refused(
        "form: absolute, POST", sized().replace(b" /v1", b" http://localhost/v1", 1), why=_FORM_WHY["absolute, http"]
    ),
    refused(
        "form: absolute, HTTP/1.0 without Host",
        b"GET http://localhost/v1/files/" + MARK + b" HTTP/1.0\r\n\r\n",
        why=_FORM_WHY["absolute, http"],
    ),
    refused("form: OPTIONS *", get(b"X-Mark: " + MARK, target=b"*", method=b"OPTIONS"), 400, 404, 501),
    refused("form: POST *", CHAT.replace(b"/v1/chat/completions", b"*") + b"Content-Length: 0\r\n\r\n" + MARK),
)

_LONG = (
    read("long: a target of 16 KB", get(target=TARGET + b"a" * 16_384), asked(TARGET + b"a" * 16_384)),
    read("long: a query of 16 KB", get(target=TARGET + b"?" + b"a" * 16_384), asked(TARGET + b"?" + b"a" * 16_384)),
    refused("long: a target as long as a head", get(target=TARGET + b"a" * MAX_HEAD), *_TOO_LONG),
    refused("long: a query as long as a head", get(target=TARGET + b"?" + b"a" * MAX_HEAD), *_TOO_LONG),
    refused("long: a target of 1 MB", get(target=TARGET + b"a" * (1 << 20)), *_TOO_LONG),
    refused("long: a line without an end", b"GET " + TARGET + b"a" * (2 * MAX_HEAD), *_TOO_LONG),
    refused("long: a version without an end", b"GET " + TARGET + b" HTTP/1." + b"1" * (2 * MAX_HEAD), *_TOO_LONG, 505),
    refused("long: no space at all", MARK * MAX_HEAD, *_TOO_LONG, *_NO_METHOD),
)

_OTHERS = (
    read("a body that GET brings", get(b"Content-Length: 7") + MARK, asked(body=MARK)),
    read(
        "a body that DELETE brings",
        get(b"Content-Length: 7", method=b"DELETE") + MARK,
        asked(method=b"DELETE", body=MARK),
    ),
    read("chat as all send it", sized(), chat(content_type="application/json")),
    read("chat in HTTP/1.0", sized().replace(b"1.1", b"1.0", 1), chat(), closes=True),
    read("names in upper case", sized().replace(b"Content-", b"CONTENT-").replace(b"Host", b"HOST"), chat()),
)

ROWS: tuple[Row, ...] = (
    *_METHOD_ROWS,
    *_VERSION_ROWS,
    *_SEPARATOR_ROWS,
    *_BEFORE,
    *_FORM_ROWS,
    *_LONG,
    *_OTHERS,
)
