"""Where upstream calls go: URLs, read once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from llmproxy_core.errors import UpstreamConnectError

REMEMBERED = 512  # some paths are the callers' choice, so the memory of them is bounded
_LONGEST_REMEMBERED = 512  # characters
T = TypeVar("T")


class Targets(ABC, Generic[T]):
    """Reads URLs into what a transport wants to know of them. Remembers what it has read."""

    def __init__(self) -> None:
        self._known: dict[str, T] = {}
        self.known = self._known.get
        """The target of a URL that was read before, if it is remembered: without a frame of Python's."""

    def __len__(self) -> int:
        return len(self._known)

    def of(self, url: str) -> T:
        """The target of *url* as it is written, no part of it quoted again; UpstreamConnectError for what is none."""
        target = self.known(url)
        if target is not None:
            return target
        if not (url.isascii() and url.isprintable()) or " " in url:
            raise UpstreamConnectError("The URL of the upstream has characters that cannot be sent")
        if (target := self._read(url)) is None:
            raise UpstreamConnectError("The URL of the upstream is not one that can be called")
        if len(url) <= _LONGEST_REMEMBERED:  # an opaque call's is as long as its caller likes
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[url] = target
        return target

    @abstractmethod
    def _read(self, written: str) -> T | None:
        """The target of a URL; None for what is none."""
