"""The head of a request to an upstream: where it goes, and its bytes (RFC 9112)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib.metadata import version

import aiohttp
from yarl import URL

from llmproxy_core.errors import UpstreamConnectError
from llmproxy_core.llm import UpstreamRequest

LAST_CHUNK = b"0\r\n\r\n"
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # without a body, these do not say so
_DEFAULTS = (
    ("\naccept-encoding:", "accept-encoding: identity\r\n"),
    ("\nuser-agent:", f"user-agent: llmproxy/{version('llmproxy')}\r\n"),
)
_REMEMBERED = 512  # some paths are the callers' choice, so the memory of them is bounded
_LONGEST_REMEMBERED = 512  # characters


class Target:
    """Where calls to one URL go."""

    __slots__ = ("begin", "host", "request")

    def __init__(self, url: URL, host: str, loop: asyncio.AbstractEventLoop) -> None:
        self.host = host
        """Name and port, as the Host field and our errors have it."""
        self.begin = f" {url.raw_path_qs} HTTP/1.1\r\nhost: {host}\r\n"
        """What all heads begin with, after the method."""
        self.request = aiohttp.ClientRequest("GET", url.origin(), loop=loop)
        """What aiohttp's connector takes for an address."""


class Targets:
    """Reads URLs. Remembers what it has read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._known: dict[str, Target] = {}

    def of(self, url: str) -> Target:
        """The target of *url* as it is written, no part of it quoted again; UpstreamConnectError for what is none."""
        target = self._known.get(url)
        if target is None:
            target = self._read(url)
            if len(url) <= _LONGEST_REMEMBERED:  # an opaque call's is as long as its caller likes
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[url] = target
        return target

    def _read(self, written: str) -> Target:
        if not (written.isascii() and written.isprintable()) or " " in written:
            raise UpstreamConnectError("The URL of the upstream has characters that cannot be sent")
        try:
            url = URL(written, encoded=True)
            host = url.host_port_subcomponent
        except ValueError:
            url, host = URL(), None
        if not host or url.scheme not in ("http", "https"):
            raise UpstreamConnectError("The URL of the upstream is not one that can be called")
        return Target(url, host, self._loop)


def request_head(request: UpstreamRequest, target: Target) -> bytes:
    """
    The request line and the fields.

    ValueError where a field would end its line: whoever made it has not looked at what a client sent.
    """
    fields = [f"{name}: {value}\r\n" for name, value in request.headers]
    text = f"{request.method}{target.begin}{''.join(fields)}"
    lines, given = 2 + len(fields), text.lower()
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
