"""Host fields: one, well-formed, and a name of ours."""

from __future__ import annotations

from tests.llmproxy_server.wire.rows import HOST, MARK, Row, asked, get, read, refused, sized

_HOSTS = (400, 421)
_SYNTAX = "neither a name nor an address (RFC 3986 section 3.2.2): who reads it must guess"
_STRANGER = "not a name of ours: a page whose name was made to point here (DNS rebinding)"


def with_host(value: bytes) -> bytes:
    """A request with this Host line, whatever stands in it."""
    return get(b"X-Mark: " + MARK).replace(HOST, b"Host: " + value + b"\r\n")


_MALFORMED = {
    "empty": b"",
    "spaces alone": b"   ",
    "userinfo": b"a@localhost",
    "user and password": b"a:b@localhost",
    "a path": b"localhost/v1",
    "a backslash": b"localhost\\",
    "a query": b"localhost?x",
    "a fragment": b"localhost#x",
    "a scheme": b"http://localhost",
    "a space": b"local host",
    "a tab": b"local\thost",
    "two names": b"localhost, evil.example",
    "two names, one space": b"localhost evil.example",
    "a semicolon": b"localhost;x",
    "a comma at the end": b"localhost,",
    "a port without digits": b"localhost:",
    "a port of letters": b"localhost:http",
    "a port too large": b"localhost:65536",
    "a port of many digits": b"localhost:000080",
    "a negative port": b"localhost:-1",
    "a port with a plus": b"localhost:+80",
    "a spaced port": b"localhost: 80",
    "a space before the port": b"localhost :80",
    "two ports": b"localhost:80:80",
    "a port alone": b":80",
    "a bracket alone": b"[::1",
    "an address without brackets": b"::1",
    "brackets around a name": b"[localhost]",
    "words after brackets": b"[::1]x",
    "a zone": b"[fe80::1%25eth0]",
    "empty brackets": b"[]",
    "percent-encoded": b"local%68ost",
    "quoted": b'"localhost"',
    "angle brackets": b"<localhost>",
    "NUL": b"localhost\x00",
    "NUL and a stranger": b"localhost\x00.evil.example",
    "control character": b"local\x01host",
    "CR": b"localhost\revil.example",
    "UTF-8": "löcalhost".encode(),
    "a full-width stop": "localhost\uff0eevil.example".encode(),
    "300 characters": b"a" * 300,
}
_BYTES = ("NUL", "NUL and a stranger", "control character", "CR")  # which no field may have
_STRANGERS = {
    "another name": b"evil.example",
    "another name with our port": b"evil.example:3000",
    "ours as a subdomain": b"localhost.evil.example",
    "ours as an end": b"evil-localhost",
    "another address": b"10.0.0.1",
    "all addresses": b"0.0.0.0",
    "a number for an address": b"2130706433",
    "short for an address": b"127.1",
    "octal": b"0177.0.0.1",
    "hexadecimal": b"0x7f.0.0.1",
    "mapped": b"[::ffff:10.0.0.1]",
}
_OURS = {
    "a name": b"localhost",
    "in upper case": b"LOCALHOST",
    "with a dot": b"localhost.",
    "a subdomain": b"app.localhost",
    "an underscore": b"a_b.localhost",
    "a port": b"localhost:3000",
    "port 0": b"localhost:0",
    "the highest port": b"localhost:65535",
    "IPv4": b"127.0.0.1:80",
    "IPv6": b"[::1]",
    "IPv6 and a port": b"[::1]:3000",
}

ROWS: tuple[Row, ...] = (
    *(
        refused(f"host: {name}", with_host(value), 400, 421, why="" if name in _BYTES else _SYNTAX)
        for name, value in _MALFORMED.items()
    ),
    *(refused(f"host: {name}", with_host(value), 400, 421, why=_STRANGER) for name, value in _STRANGERS.items()),
    *(read(f"host: {name}", with_host(value), asked(host=value.decode())) for name, value in _OURS.items()),
    refused("host: none", get(b"X-Mark: " + MARK).replace(HOST, b"")),
    refused("host: none for a POST", sized().replace(HOST, b"")),
    read(
        "host: none in HTTP/1.0",
        get(version=b"1.0").replace(HOST, b""),
        asked(host=None),
        closes=True,
    ),
    refused("host: two", get(b"Host: evil.example", b"X-Mark: " + MARK)),
    refused("host: two, the other first", get(b"X-Mark: " + MARK).replace(HOST, b"Host: evil.example\r\n" + HOST)),
    refused("host: two that are equal", get(b"Host: localhost", b"X-Mark: " + MARK)),
    refused("host: two in two cases", get(b"HOST: localhost", b"X-Mark: " + MARK)),
    refused("host: two, far apart", get(*[b"X-%d: 1" % i for i in range(40)], b"host: localhost", b"X-Mark: " + MARK)),
    refused("host: two, one empty", get(b"Host:", b"X-Mark: " + MARK)),
    refused("host: two in HTTP/1.0", get(b"Host: localhost", b"X-Mark: " + MARK, version=b"1.0")),
    refused("host: with a space before the colon", get(b"X-Mark: " + MARK).replace(b"Host:", b"Host :")),
    refused("host: folded", get(b"X-Mark: " + MARK).replace(HOST, b"Host:\r\n localhost\r\n")),
    refused(
        "host: absolute target for another",
        get(target=b"http://evil.example/" + MARK),
        *_HOSTS,
        why="origin form alone",
    ),
    read(
        "host: no space after the colon",
        with_host(b"x").replace(b"Host: x", b"Host:localhost"),
        asked(host="localhost"),
    ),
    refused("host: a tab before it", with_host(b"\tlocalhost"), *_HOSTS),
    read("host: spaces around", with_host(b"   localhost  "), asked(host="localhost")),
    read("host: in lower case", with_host(b"x").replace(b"Host: x", b"host: localhost"), asked(host="localhost")),
    read("host: last", get(b"X-A: 1", b"Host: localhost").replace(HOST, b"", 1), asked(host="localhost")),
    read("host: another in X-Forwarded-Host", get(b"X-Forwarded-Host: evil.example"), asked(host="localhost")),
    refused("host: another in Forwarded, two in Host", get(b"Forwarded: host=x", b"Host: x", b"X-Mark: " + MARK)),
)
