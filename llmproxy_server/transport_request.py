"""The head of a request to an upstream (RFC 9112)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import version

from llmproxy_core.llm import UpstreamRequest

LAST_CHUNK = b"0\r\n\r\n"
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # without a body, these do not say so
_DEFAULTS = (
    ("\naccept-encoding:", "accept-encoding: identity\r\n"),
    ("\nuser-agent:", f"user-agent: llmproxy/{version('llmproxy')}\r\n"),
)


def request_head(request: UpstreamRequest, begin: str) -> bytes:
    """
    The request line and the fields; *begin* is what comes after the method, up to the first field but ours.

    ValueError where a field would end its line: whoever made it has not looked at what a client sent.
    """
    fields = [f"{name}: {value}\r\n" for name, value in request.headers]
    text = f"{request.method}{begin}{''.join(fields)}"
    lines, given = begin.count("\n") + len(fields), text.lower()
    for name, default in _DEFAULTS:
        if name not in given:
            text += default
            lines += 1
    if framing := _framing(request.method, request.body):
        text += framing
        lines += 1
    if text.count("\r") != lines or text.count("\n") != lines or "\0" in text:
        raise ValueError("a header field of a request to an upstream has a line break or a NUL")
    return f"{text}\r\n".encode()


def _framing(method: str, body: bytes | AsyncIterator[bytes] | None) -> str:
    if body is None or isinstance(body, bytes):
        return f"content-length: {len(body or b'')}\r\n" if body or method not in _BODILESS else ""
    return "transfer-encoding: chunked\r\n"
