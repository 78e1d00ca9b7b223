"""The head of a request to an upstream (RFC 9112)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import version

from llmproxy_core.llm import UpstreamRequest

LAST_CHUNK = b"0\r\n\r\n"
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # without a body, these do not say so
_DEFAULTS = (
    ("accept-encoding", "accept-encoding: identity\r\n"),
    ("user-agent", f"user-agent: llmproxy/{version('llmproxy')}\r\n"),
)


def request_head(request: UpstreamRequest, begin: str) -> bytes:
    """
    The request line and the fields; *begin* is what comes after the method, up to the first field but ours.

    ValueError where a field would end its line: whoever made it has not looked at what a client sent.
    """
    headers, fixed = request.headers, request.fixed
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
    text = f"{request.method}{begin}{fields}"
    lines = begin.count("\n") + len(headers)
    if text.count("\r") != lines or text.count("\n") != lines or "\0" in text:
        raise ValueError("a header field of a request to an upstream has a line break or a NUL")
    for name, default in _DEFAULTS:
        if name not in fixed.names and all(given.lower() != name for given, _ in headers):
            text += default
    return f"{text}{fixed.lines}{_framing(request.method, request.body)}\r\n".encode()


def _framing(method: str, body: bytes | AsyncIterator[bytes] | None) -> str:
    if body is None or isinstance(body, bytes):
        return f"content-length: {len(body or b'')}\r\n" if body or method not in _BODILESS else ""
    return "transfer-encoding: chunked\r\n"
