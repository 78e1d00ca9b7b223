"""Where upstream calls go: their URLs, taken apart."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from llmproxy_server import transport_targets
from llmproxy_server.wire.upstream_pool import Connections, Origin

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


class Targets(transport_targets.Targets[Target]):
    """Those of the wire."""

    def __init__(self, connections: Connections) -> None:
        super().__init__()
        self._connections = connections

    def _read(self, written: str) -> Target | None:
        try:
            url = urlsplit(written, allow_fragments=True)
            name, port = (url.hostname or "").rstrip("."), url.port
        except ValueError:
            return None
        default = _PORTS.get(url.scheme)
        if not name or default is None or not _NETLOC.fullmatch(url.netloc):
            return None
        shown = f"[{name}]" if ":" in name else name
        if port is not None and port != default:
            shown = f"{shown}:{port}"
        path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        origin = self._connections.origin(name, default if port is None else port, tls=url.scheme == "https")
        return Target(path, shown, origin)
