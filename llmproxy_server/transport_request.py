"""The head of a request to an upstream (RFC 9112)."""

from __future__ import annotations

import re

from llmproxy_core.llm import FixedHeaders, UpstreamRequest
from llmproxy_server.installed import VERSION

LAST_CHUNK = b"0\r\n\r\n"
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # without a body, these do not say so
_METHODS = _BODILESS | {"POST", "PUT", "PATCH", "DELETE"}
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DEFAULTS = {
    "accept-encoding": "accept-encoding: identity\r\n",
    "user-agent": f"user-agent: llmproxy/{VERSION}\r\n",
}


def request_head(request: UpstreamRequest, begin: str) -> bytes:
    """
    The request line and the fields; *begin* is what comes after the method, up to the first field but ours.

    ValueError where a field would end its line: whoever made it has not looked at what a client sent.
    """
    body, last = request.body, request.fixed.begun
    if request.headers or last is None or last[1] != begin or last[0] != request.method:
        begun = _begun(request, begin)
    else:  # as the one before: most calls of an LLM go to one URL, and pass on no field of their client's
        begun = last[2]
    if body and isinstance(body, bytes):
        return f"{begun}{request.span}content-length: {len(body)}\r\n\r\n".encode()
    if body is not None and not isinstance(body, bytes):
        length = "transfer-encoding: chunked\r\n\r\n"
    else:
        length = "\r\n" if request.method in _BODILESS else "content-length: 0\r\n\r\n"
    return f"{begun}{request.span}{length}".encode()


def _begun(request: UpstreamRequest, begin: str) -> str:
    """All of a head but what says how long the body is."""
    method, fixed = request.method, request.fixed
    rest = fixed.sent or _sent(fixed)
    fields, lines = "", 0
    for name, value in request.headers:
        fields += f"{name}: {value}\r\n"
        lines += 1
        if name in _DEFAULTS or not name.islower():
            rest = _given(request)
    if fields.count("\r") != lines or fields.count("\n") != lines or "\0" in fields:
        raise ValueError("a header field of a request to an upstream has a line break or a NUL")
    if method not in _METHODS and not _TOKEN.fullmatch(method):
        raise ValueError("the method of a request to an upstream is none")
    begun = f"{method}{begin}{fields}{rest}"
    if not lines:
        fixed.begun = method, begin, begun
    return begun


def _sent(fixed: FixedHeaders) -> str:
    """What follows the fields of a call that has none of the defaults itself."""
    fixed.sent = "".join(line for name, line in _DEFAULTS.items() if name not in fixed.names) + fixed.lines
    return fixed.sent


def _given(request: UpstreamRequest) -> str:
    """The same for one that may have some."""
    given = request.fixed.names.union([name.lower() for name, _ in request.headers])
    return "".join(line for name, line in _DEFAULTS.items() if name not in given) + request.fixed.lines
