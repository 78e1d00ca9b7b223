"""Where a request to an upstream goes, as aiohttp wants to know it."""

from __future__ import annotations

import asyncio

from yarl import URL

from llmproxy_core.errors import UpstreamConnectError
from llmproxy_server.transport_way import Way

REMEMBERED = 512  # some paths are the callers' choice, so the memory of them is bounded
_LONGEST_REMEMBERED = 512  # characters


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


class Targets:
    """Reads URLs. Remembers what it has read."""

    def __init__(self, way: Way, loop: asyncio.AbstractEventLoop) -> None:
        self._way = way
        self._loop = loop
        self._known: dict[str, Target] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, url: str) -> Target:
        """The target of *url* as it is written, no part of it quoted again; UpstreamConnectError for what is none."""
        target = self._known.get(url)
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
            url = URL(written, encoded=True)
            host = url.host_port_subcomponent
        except ValueError:
            url, host = URL(), None
        if not host or url.scheme not in ("http", "https"):
            raise UpstreamConnectError("The URL of the upstream is not one that can be called")
        return Target(url, host, self._way, self._loop)
