"""Content-Length and Transfer-Encoding: one of them, once, and plainly."""

from __future__ import annotations

from tests.llmproxy_server.wire.rows import (
    BODY,
    MAX_BODY,
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

_N = b"%d" % len(BODY)
_LAST = b"0\r\n\r\n"
_CODING = (400, 501)
_NEXT = (400, 405, 501, 505)  # for what is left of a body, as the next request
_POST = get(method=b"POST")[:-2]


def length(value: bytes, body: bytes = BODY) -> bytes:
    return post(b"Content-Length: " + value, body=body)


def coding(*values: bytes, body: bytes = chunk() + _LAST) -> bytes:
    """A chat completion with these Transfer-Encoding lines."""
    return post(*[b"Transfer-Encoding:" + value for value in values], body=body)


_LENGTHS = {
    "a list of equals": _N + b", " + _N,
    "a list without a space": _N + b"," + _N,
    "a list of different ones": _N + b", 5",
    "a comma": _N + b",",
    "a plus": b"+" + _N,
    "negative": b"-" + _N,
    "negative zero": b"-0",
    "hexadecimal": b"0x" + (b"%x" % len(BODY)),
    "octal": b"0o33",
    "a fraction": _N + b".0",
    "an exponent": b"3e1",
    "an underscore": b"3_1",
    "letters": b"abc",
    "digits and letters": _N + b"abc",
    "digits, a space, digits": b"3 1",
    "digits and a semicolon": _N + b";x",
    "quoted": b'"' + _N + b'"',
    "empty": b"",
    "a space alone": b" ",
    "NUL": _N + b"\x00",
    "vertical tab": b"\x0b" + _N,
    "form feed": _N + b"\x0c",
    "non-ASCII digits": "\u0663\u0661".encode(),
    "superscript digits": b"\xb3\xb9",
}
_HUGE = {
    "over the bound": b"%d" % (MAX_BODY + 1),
    "of a terabyte": b"1099511627776",
    "over 31 bits": b"2147483648",
    "over 32 bits": b"4294967297",
    "over 63 bits": b"9223372036854775808",
    "over 64 bits": b"18446744073709551616",
    "that wraps to the right one": b"%d" % (2**64 + len(BODY)),
    "of 40 digits": b"9" * 40,
    "of 5000 digits": b"9" * 5000,
    "of 30 zeros": b"0" * 30 + _N,
}

_LENGTH_ROWS = (
    *(refused(f"length: {name}", length(value)) for name, value in _LENGTHS.items()),
    *(
        refused(
            f"length: {name}",
            length(value),
            400,
            413,
            431,
            why="no length has so many digits" if name == "of 30 zeros" else "",
        )
        for name, value in _HUGE.items()
    ),
    refused("length: two, different", post(b"Content-Length: " + _N, b"Content-Length: 5")),
    refused("length: two, different, the other first", post(b"Content-Length: 5", b"Content-Length: " + _N)),
    refused("length: two, equal", post(b"Content-Length: " + _N, b"Content-Length: " + _N)),
    refused("length: two, in two cases", post(b"Content-Length: " + _N, b"content-length: 0")),
    refused("length: two, one zero", post(b"Content-Length: 0", b"Content-Length: " + _N)),
    refused("length: two, one empty", post(b"Content-Length: " + _N, b"Content-Length:")),
    refused("length: space before the colon", post(b"Content-Length : " + _N)),
    refused("length: none, a body follows", _POST + b"\r\n" + BODY, *_NEXT, after=(asked(method=b"POST"),)),
    refused(
        "length: shorter than the body",
        _POST + b"Content-Length: %d\r\n\r\n" % (len(BODY) - 1) + BODY,
        *_NEXT,
        after=(asked(method=b"POST", body=BODY[:-1]),),
    ),
    read("length: a zero before it", length(b"0" + _N), chat()),
    read("length: of 18 digits", length(_N.zfill(18)), chat()),
    read("length: spaces around", length(b"   " + _N + b"  "), chat()),
    # Tabs may stand there (RFC 9110 section 5.6.3), but not all readers take them off.
    refused("length: a tab before it", length(b"\t" + _N)),
    refused("length: a tab after it", length(_N + b"\t")),
    read("length: no space", length(b"").replace(b"Length: ", b"Length:" + _N), chat()),
    read("length: zero for GET", get(b"Content-Length: 0"), asked()),
    read("length: zero for HEAD", get(b"Content-Length: 0", method=b"HEAD"), asked(method=b"HEAD")),
    read("length: zeros for GET", get(b"Content-Length: 000"), asked()),
    read("length: of a GET", get(b"Content-Length: 5") + b"12345", asked(body=b"12345")),
    read("length: of HEAD", get(b"Content-Length: 5", method=b"HEAD") + b"12345", asked(method=b"HEAD", body=b"12345")),
    read(
        "length: of OPTIONS",
        get(b"Content-Length: 5", method=b"OPTIONS") + b"12345",
        asked(method=b"OPTIONS", body=b"12345"),
    ),
    read("length: a request for a body", get(b"Content-Length: %d" % len(get())) + get(), asked(body=get())),
    unfinished("length: longer than the body", length(b"%d" % (len(BODY) + 1))),
    unfinished("length: and no body at all", post(b"Content-Length: 5", body=b"")),
)

_CODINGS = {
    "gzip": (b" gzip",),
    "gzip, chunked": (b" gzip, chunked",),
    "chunked, gzip": (b" chunked, gzip",),
    "chunked, chunked": (b" chunked, chunked",),
    "chunked, identity": (b" chunked, identity",),
    "identity": (b" identity",),
    "identity, chunked": (b" identity, chunked",),
    "deflate": (b" deflate",),
    "compress": (b" compress",),
    "trailers": (b" trailers",),
    "xchunked": (b" xchunked",),
    "chunkedx": (b" chunkedx",),
    "chunk": (b" chunk",),
    "chunked;": (b" chunked;",),
    "chunked; a parameter": (b" chunked;q=1",),
    "quoted": (b' "chunked"',),
    "quoted with ticks": (b" 'chunked'",),
    "a comma after": (b" chunked,",),
    "a comma before": (b" ,chunked",),
    "commas": (b" ,,chunked,,",),
    "spaced": (b" chun ked",),
    "vertical tab before": (b" \x0bchunked",),
    "vertical tab after": (b" chunked\x0b",),
    "form feed before": (b" \x0cchunked",),
    "NUL before": (b" \x00chunked",),
    "NUL after": (b" chunked\x00",),
    "control character": (b" chun\x01ked",),
    "CR before": (b" \rchunked",),
    "LF before": (b" \nchunked",),
    "no-break space": (b" \xa0chunked",),
    "non-ASCII": ("\u00a0сhunked".encode(),),
    "empty": (b"",),
    "a comma": (b" ,",),
    "two fields, chunked twice": (b" chunked", b" chunked"),
    "two fields, identity first": (b" identity", b" chunked"),
    "two fields, identity last": (b" chunked", b" identity"),
    "two fields, one empty": (b" chunked", b""),
    "two fields, gzip first": (b" gzip", b" chunked"),
    "two fields, nonsense last": (b" chunked", b" x"),
}
_BOTH = {
    "length and chunked": (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "chunked and length": (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "chunked and the right length": (b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(chunk() + _LAST)),
    "length zero and chunked": (b"Content-Length: 0", b"Transfer-Encoding: chunked"),
    "length and identity": (b"Content-Length: " + _N, b"Transfer-Encoding: identity"),
    "length and nonsense": (b"Content-Length: " + _N, b"Transfer-Encoding: x"),
    "length and an empty coding": (b"Content-Length: " + _N, b"Transfer-Encoding:"),
    "length, chunked, length": (b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "chunked with a space before the colon, and length": (b"Transfer-Encoding : chunked", b"Content-Length: 5"),
    "chunked with a NUL in the name, and length": (b"Transfer-Encoding\x00: chunked", b"Content-Length: 5"),
    "folded chunked and length": (b"Transfer-Encoding:\r\n chunked", b"Content-Length: 5"),
    "chunked after LF and length": (b"X-A: 1\nTransfer-Encoding: chunked", b"Content-Length: 5"),
}

_CODING_ROWS = (
    *(refused(f"coding: {name}", coding(*values), *_CODING) for name, values in _CODINGS.items()),
    *(refused(f"both: {name}", post(*lines, body=chunk() + _LAST), *_CODING) for name, lines in _BOTH.items()),
    *(
        refused(f"both, its body as a length has it: {name}", post(*lines), *_CODING)
        for name, lines in _BOTH.items()
        if "identity" in name or "nonsense" in name or "empty" in name
    ),
    refused("coding: chunked in HTTP/1.0", coding(b" chunked").replace(b"1.1", b"1.0", 1), *_CODING),
    refused(
        "coding: chunked in HTTP/1.0, kept",
        coding(b" chunked").replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n", 1),
        *_CODING,
    ),
    refused("coding: identity in HTTP/1.0", coding(b" identity").replace(b"1.1", b"1.0", 1), *_CODING),
    refused(
        "coding: chunked in HTTP/1.0, and length",
        post(b"Transfer-Encoding: chunked", b"Content-Length: 5").replace(b"1.1", b"1.0", 1),
        *_CODING,
    ),
    read("coding: chunked", coding(b" chunked"), chat()),
    read("coding: in upper case", coding(b" CHUNKED"), chat()),
    read("coding: in mixed case", coding(b" Chunked"), chat()),
    read("coding: no space", coding(b"chunked"), chat()),
    refused("coding: a tab before it", coding(b"\tchunked"), *_CODING),
    refused("coding: a tab after it", coding(b" chunked\t"), *_CODING),
    read("coding: spaces around", coding(b"    chunked   "), chat()),
    read(
        "coding: its name in upper case",
        coding(b" chunked").replace(b"Transfer-Encoding", b"TRANSFER-ENCODING"),
        chat(),
    ),
    read("coding: of a GET", get(b"Transfer-Encoding: chunked") + chunk(b"12345") + _LAST, asked(body=b"12345")),
    read("coding: TE is no coding", sized(BODY, b"TE: chunked"), chat()),
    read("coding: TE of trailers", sized(BODY, b"TE: trailers", b"Connection: TE"), chat()),
)

ROWS: tuple[Row, ...] = (*_LENGTH_ROWS, *_CODING_ROWS)
