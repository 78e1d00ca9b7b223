"""Where upstream calls go: their URLs, taken apart."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from llmproxy_core.errors import UpstreamConnectError
from llmproxy_server.wire.upstream_pool import Connections, Origin

REMEMBERED = 512  # some paths are the callers' choice, so the memory of them is bounded
_LONGEST_REMEMBERED = 512  # characters
_PORTS = {"http": 80, "https": 443}
_NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@]+)(?::[0-9]*)?")


class Target:
    """Where calls to one URL go."""

    __slots__ = ("begin", "host", "origin")

    def __init__(self, path: str, host: str, origin: Origin) -> None:
        self.host = host
        """Name and port, as the Host field and our errors have it."""
        self.begin = f" {path} HTTP/1.1\r\nhost: {host}\r\n"
        """What all heads begin with, after the method."""
        self.origin = origin


class Targets:
    """Reads URLs. Remembers what it has read."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._known: dict[str, Target] = {}
        self.known = self._known.get
        """The target of a URL that was read before, if it is remembered: without a frame of Python's."""

    def __len__(self) -> int:
        return len(self._known)

    def of(self, url: str) -> Target:
        """The target of *url* as it is written, no part of it quoted again; UpstreamConnectError for what is none."""
        target = self.known(url)
        if target is None:
            target = self._read(url)
            if len(url) <= _LONGEST_REMEMBERED:  # an opaque call's is as long as its caller likes
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[url] = target
        return target

    def _read(self, written: str) -> Target:
        if not (written.isascii() and written.isprintable()) or " " in written:
            raise UpstreamConnectError("The URL of the upstream has characters that cannot be sent")
        try:
            url = urlsplit(written, allow_fragments=True)
            name, port = (url.hostname or "").rstrip("."), url.port
        except ValueError:
            name, port, url = "", None, urlsplit("")
        default = _PORTS.get(url.scheme)
        if not name or default is None or not _NETLOC.fullmatch(url.netloc):
            raise UpstreamConnectError("The URL of the upstream is not one that can be called")
        shown = f"[{name}]" if ":" in name else name
        if port is not None and port != default:
            shown = f"{shown}:{port}"
        path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        origin = self._connections.origin(name, default if port is None else port, tls=url.scheme == "https")
        return Target(path, shown, origin)
