"""Where a request to an upstream goes, as aiohttp wants to know it."""

from __future__ import annotations

import asyncio

from yarl import URL

from llmproxy_server import transport_targets
from llmproxy_server.transport_way import Way


class Target:
    """Where calls to one URL go."""

    __slots__ = ("begin", "host", "request")

    def __init__(self, url: URL, host: str, way: Way, loop: asyncio.AbstractEventLoop) -> None:
        self.host = host
        """Name and port, as the Host field and our errors have it."""
        self.begin = way.begin(url, host)
        """What all heads begin with, after the method."""
        self.request = way.address(url, loop)
        """What aiohttp's connector takes for an address."""


class Targets(transport_targets.Targets[Target]):
    """Those of aiohttp's transport."""

    def __init__(self, way: Way, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._way = way
        self._loop = loop

    def _read(self, written: str) -> Target | None:
        try:
            url = URL(written, encoded=True)
            host = url.host_port_subcomponent
        except ValueError:
            return None
        if not host or url.scheme not in ("http", "https"):
            return None
        return Target(url, host, self._way, self._loop)
