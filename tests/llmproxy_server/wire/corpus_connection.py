"""What is about the connection: Expect, Upgrade, Connection, HTTP/1.0, pipelines, and clients that leave in between."""

from __future__ import annotations

from tests.llmproxy_server.wire.rows import (
    BODY,
    CHUNKED,
    HOST,
    MARK,
    MAX_BODY,
    MAX_HEAD,
    TARGET,
    Row,
    asked,
    chat,
    chunk,
    get,
    post,
    read,
    refused,
    sized,
    unfinished,
)

_LAST = b"0\r\n\r\n"
_N = b"%d" % len(BODY)
_ANY = (400, 405, 501, 505)
_EXPECT = "an expectation that is not met is refused (RFC 9110 section 10.1.1)"

_EXPECTATIONS = {
    "another": b"200-ok",
    "a number": b"100",
    "longer": b"100-continues",
    "with a parameter": b"100-continue;a=b",
    "two": b"100-continue, 100-continue",
    "two, one unknown": b"100-continue, x",
    "empty": b"",
    "quoted": b'"100-continue"',
}

_EXPECT_ROWS = (
    *(
        refused(f"expect: {name}", sized(BODY, b"Expect: " + value), 400, 417, why=_EXPECT)
        for name, value in _EXPECTATIONS.items()
    ),
    refused(
        "expect: two fields, one unknown", sized(BODY, b"Expect: 100-continue", b"Expect: x"), 400, 417, why=_EXPECT
    ),
    read("expect: to continue", sized(BODY, b"Expect: 100-continue"), chat()),
    read("expect: to continue, in another case", sized(BODY, b"expect: 100-Continue"), chat()),
    read(
        "expect: to continue, in chunks",
        post(b"Expect: 100-continue", b"Transfer-Encoding: chunked", body=chunk() + _LAST),
        chat(),
    ),
    read("expect: to continue, without a body", get(b"Expect: 100-continue"), asked()),
    read(
        "expect: to continue, in HTTP/1.0",
        sized(BODY, b"Expect: 100-continue").replace(b"1.1", b"1.0", 1),
        chat(),
        closes=True,
    ),
    refused(
        "expect: to continue, with a body too large",
        post(b"Expect: 100-continue", b"Content-Length: %d" % (MAX_BODY + 1), body=b"X-Mark: " + MARK),
        413,
    ),
    refused(
        "expect: to continue, with two lengths",
        post(b"Expect: 100-continue", b"Content-Length: 1", b"Content-Length: 2"),
    ),
    read("expect: to continue, then a request", sized(BODY, b"Expect: 100-continue") + get(), chat(), asked()),
)

_WEBSOCKET = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
_H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")

_UPGRADE_ROWS = (
    read("upgrade: ignored, websocket", get(*_WEBSOCKET), asked()),
    read("upgrade: ignored, websocket, then a request", get(*_WEBSOCKET) + sized(), asked(), chat()),
    read("upgrade: ignored, h2c", get(*_H2C), asked()),
    read("upgrade: ignored, h2c with a body", sized(BODY, *_H2C), chat()),
    read("upgrade: ignored, h2c with a body, then a request", sized(BODY, *_H2C) + get(), chat(), asked()),
    read("upgrade: ignored, h2c in chunks", post(*_H2C, b"Transfer-Encoding: chunked", body=chunk() + _LAST), chat()),
    read("upgrade: ignored, without Connection", get(b"Upgrade: websocket"), asked()),
    read("upgrade: ignored, Connection alone", get(b"Connection: upgrade"), asked()),
    read("upgrade: ignored, to HTTP/2", get(b"Connection: Upgrade", b"Upgrade: HTTP/2.0"), asked()),
    read(
        "upgrade: ignored, to TLS",
        get(b"Connection: Upgrade", b"Upgrade: TLS/1.2", method=b"OPTIONS"),
        asked(method=b"OPTIONS"),
    ),
    read("upgrade: ignored, to all", get(b"Connection: Upgrade", b"Upgrade: a, b/1, c"), asked()),
    read(
        "upgrade: ignored, and the connection closed",
        get(b"Connection: Upgrade, close", b"Upgrade: websocket"),
        asked(),
        closes=True,
    ),
    read("upgrade: ignored, in HTTP/1.0", get(*_WEBSOCKET, version=b"1.0"), asked(), closes=True),
    refused(
        "upgrade: h2c, then a preface", get(*_H2C) + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + MARK, *_ANY, after=(asked(),)
    ),
    refused(
        "upgrade: websocket, then frames",
        get(*_WEBSOCKET) + b"\x81\x87\x00\x00\x00\x00" + MARK + b"\r\n\r\n",
        *_ANY,
        after=(asked(),),
    ),
)

_OPTIONS = {
    "host": b"Host",
    "content-length": b"Content-Length",
    "transfer-encoding": b"Transfer-Encoding",
    "content-type": b"Content-Type",
    "authorization": b"Authorization",
    "cookie": b"Cookie",
    "many": b"Host, Content-Length, Content-Type, X-Request-Id, keep-alive",
    "nonsense": b"\x80, ;=,, (",
    "empty": b"",
    "commas": b",,,",
    "keep-alive": b"Keep-Alive",
}

_CONNECTION_ROWS = (
    *(
        read(
            f"connection: {name}",
            sized(BODY, b"Connection: " + value),
            chat(host="localhost", content_type="application/json"),
        )
        for name, value in _OPTIONS.items()
    ),
    read("connection: close", get(b"Connection: close"), asked(), closes=True),
    read("connection: close, in upper case", get(b"Connection: CLOSE"), asked(), closes=True),
    read("connection: close, in a list", get(b"Connection: x, close"), asked(), closes=True),
    read("connection: close, in a second field", get(b"Connection: x", b"Connection: close"), asked(), closes=True),
    read("connection: close and keep-alive", get(b"Connection: close, keep-alive"), asked(), closes=True),
    read(
        "connection: keep-alive and close", get(b"Connection: keep-alive", b"Connection: close"), asked(), closes=True
    ),
    read("connection: closer is not close", get(b"Connection: closer"), asked()),
    read("connection: close after a body", sized(BODY, b"Connection: close"), chat(), closes=True),
    read(
        "connection: close, then a request that nobody reads", get(b"Connection: close") + sized(), asked(), closes=True
    ),
    read(
        "connection: close, then nonsense that nobody reads",
        get(b"Connection: close") + MARK + b"\r\n\r\n",
        asked(),
        closes=True,
    ),
    read("connection: Proxy-Connection is nothing", get(b"Proxy-Connection: close"), asked(), closes=None),
    read("connection: Keep-Alive is nothing", get(b"Keep-Alive: timeout=0, max=0"), asked()),
)


def _old(*fields: bytes) -> bytes:
    return sized(BODY, *fields).replace(b"1.1", b"1.0", 1)


_OLD_ROWS = (
    read("1.0: closes", get(version=b"1.0"), asked(), closes=True),
    read("1.0: keep-alive", _old(b"Connection: keep-alive"), chat()),
    read("1.0: keep-alive, in upper case", _old(b"Connection: Keep-Alive"), chat()),
    # Where its length is not known, the end of the answer is that of the connection.
    read("1.0: keep-alive, opaque", get(b"Connection: keep-alive", version=b"1.0"), asked(), closes=None),
    read(
        "1.0: keep-alive, a body, then a request",
        _old(b"Connection: keep-alive") + get(),
        chat(),
        asked(),
    ),
    read("1.0: keep-alive and close", get(b"Connection: keep-alive, close", version=b"1.0"), asked(), closes=True),
    read("1.0: then a request that nobody reads", get(version=b"1.0") + sized(), asked(), closes=True),
    read("1.0: HEAD", get(version=b"1.0", method=b"HEAD"), asked(method=b"HEAD"), closes=True),
    refused("1.0: with LF", get(b"X-Mark: " + MARK, version=b"1.0").replace(b"\r\n", b"\n")),
)

_SMUGGLED = get(b"X-Mark: " + MARK, target=b"/v1/files/smuggled")
_BAD = {
    "no request": MARK + b"\r\n\r\n",
    "two hosts": get(b"Host: x", b"X-Mark: " + MARK),
    "two lengths": post(b"Content-Length: " + _N, b"Content-Length: 0"),
    "a length and chunks": post(b"X-Mark: " + MARK, b"Content-Length: 5", b"Transfer-Encoding: chunked", body=_LAST),
    "chunks that break": CHUNKED + MARK + b"\r\n",
    "an ambiguous path": get(target=b"/v1/../" + MARK),
    "a method unknown": get(method=b"BREW"),
    "a version unknown": get(version=b"2.0"),
    "a stranger's host": get(b"X-Mark: " + MARK).replace(HOST, b"Host: evil.example\r\n"),
    "a fold": get(b"X-A: 1\r\n " + MARK),
    "a coding unknown": post(b"Transfer-Encoding: x"),
    "a body too large": post(b"Content-Length: %d" % (MAX_BODY + 1)),
    "a head too large": get(b"X-A: " + MARK * MAX_HEAD),
    "an expectation unknown": sized(BODY, b"Expect: x"),
    "an absolute target": get(target=b"http://localhost" + TARGET),
}
_OURS = (
    "an ambiguous path",
    "a stranger's host",
    "an expectation unknown",
    "an absolute target",
)  # refused by us alone
_STATUSES = (400, 405, 413, 417, 421, 431, 501, 505)
_AFTER = "nothing is read after a refusal: where one message was doubtful, so is where the next begins"

_PIPELINES = (
    read("pipeline: two", get() + get(), asked(), asked()),
    read("pipeline: two with bodies", sized() + sized(), chat(), chat()),
    read("pipeline: chunks, then a length", CHUNKED + chunk() + _LAST + sized(), chat(), chat()),
    read(
        "pipeline: five of all kinds",
        get() + sized() + get(method=b"HEAD") + CHUNKED + chunk() + _LAST + get(),
        asked(),
        chat(),
        asked(method=b"HEAD"),
        chat(),
        asked(),
    ),
    read("pipeline: ten", get() * 10, *[asked()] * 10),
    read("pipeline: HEAD, then GET", get(method=b"HEAD") + get(), asked(method=b"HEAD"), asked()),
    read(
        "pipeline: a request within a body",
        sized(b'{"model":"m","messages":[],"x":"' + b"GET /v1/files/smuggled HTTP/1.1" + b'"}') + get(),
        chat(b'{"model":"m","messages":[],"x":"GET /v1/files/smuggled HTTP/1.1"}'),
        asked(),
    ),
    read(
        "pipeline: a smuggled one in the body of a GET",
        get(b"Content-Length: %d" % len(_SMUGGLED)) + _SMUGGLED + get(),
        asked(body=_SMUGGLED),
        asked(),
    ),
    read(
        "pipeline: a smuggled one in a chunk",
        get(b"Transfer-Encoding: chunked") + chunk(_SMUGGLED) + _LAST + get(),
        asked(body=_SMUGGLED),
        asked(),
    ),
    *(
        refused(
            f"pipeline: good, then {name}",
            get() + bad,
            *_STATUSES,
            after=(asked(),),
            why=_AFTER if name in _OURS else "",
        )
        for name, bad in _BAD.items()
    ),
    *(
        refused(f"pipeline: {name}, then good", bad + _SMUGGLED, *_STATUSES, why=_AFTER if name in _OURS else "")
        for name, bad in _BAD.items()
    ),
    refused(
        "pipeline: CL.TE",
        post(b"Content-Length: %d" % (len(_SMUGGLED) + 5), b"Transfer-Encoding: chunked", body=_LAST + _SMUGGLED),
        400,
        501,
    ),
    refused(
        "pipeline: TE.CL",
        post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=chunk(_SMUGGLED) + _LAST + MARK),
        400,
        501,
    ),
    refused(
        "pipeline: TE.TE",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", body=_LAST + _SMUGGLED + MARK),
        400,
        501,
    ),
    refused(
        "pipeline: CL.0",
        get(b"Content-Length: 0", method=b"POST") + MARK + _SMUGGLED,
        *_ANY,
        after=(asked(method=b"POST"),),
    ),
    refused(
        "pipeline: a chunk's extension hides one",
        CHUNKED + b"1b;\n" + b"x" * 27 + b"\r\n0\r\n\r\n" + _SMUGGLED,
        400,
        413,
        431,
    ),
    refused(
        "pipeline: a longer body than told",
        get(b"Content-Length: 3") + b"123" + MARK + b"\r\n\r\n",
        *_ANY,
        after=(asked(body=b"123"),),
    ),
)

_LEAVES = (
    unfinished("leaves: at once", b""),
    unfinished("leaves: in the method", b"GE"),
    unfinished("leaves: in the line", b"GET " + TARGET),
    unfinished("leaves: after the line", b"GET " + TARGET + b" HTTP/1.1\r\n"),
    unfinished("leaves: in a field", get()[:-6]),
    unfinished("leaves: before the empty line", get()[:-2]),
    unfinished("leaves: in the empty line", get()[:-1]),
    unfinished("leaves: in a body", sized()[:-3]),
    unfinished("leaves: waiting to continue", post(b"Expect: 100-continue", b"Content-Length: " + _N, body=b"")),
    unfinished("leaves: after an empty line", b"\r\n"),
)

ROWS: tuple[Row, ...] = (*_EXPECT_ROWS, *_UPGRADE_ROWS, *_CONNECTION_ROWS, *_OLD_ROWS, *_PIPELINES, *_LEAVES)
