"""Whom a request is meant for: the Host field, the one guard of a loopback proxy against DNS rebinding."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from llmproxy_core.errors import BadRequest, Misdirected
from llmproxy_core.headers import Headers

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)
_REMEMBERED = 256  # the names are the callers' choice, so the memory of them is bounded


class HostPolicy:
    """Which names a request may call us by."""

    def __init__(self, *, loopback: bool, allowed: Iterable[str]) -> None:
        """
        *loopback*: we listen on a loopback address, so that only loopback names and *allowed* ones are meant for us.

        Elsewhere every well-formed name is: which names lead to us is then the business of DNS and proxies.
        """
        self._loopback = loopback
        self._allowed = frozenset(_plain(name) for name in allowed)
        self._known: dict[str, bool] = {}

    def check(self, headers: Headers, version: tuple[int, int]) -> None:
        """BadRequest for a Host that is missing or malformed, Misdirected for somebody else's."""
        host = headers.get("host")
        if host is None:
            if version >= (1, 1):
                raise BadRequest("A request has exactly one Host header", code="invalid_host")
            return
        known = self._known.get(host)
        if not (self.is_ours(host) if known is None else known) and self._loopback:
            raise Misdirected("The Host header names another server (allowed_hosts lists the names that this one has)")

    def is_ours(self, host: str) -> bool:
        """Whether *host* (with or without a port) is a loopback name or an allowed one. BadRequest when malformed."""
        known = self._known.get(host)
        if known is None:
            known = self._judge(host)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[host] = known
        return known

    def _judge(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None or len(host) > 261 or int(match[2] or 0) > 65535:
            raise BadRequest("The Host header is malformed", code="invalid_host")
        name = _plain(match[1])
        if name in self._allowed or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def _plain(name: str) -> str:
    return name.lower().removesuffix(".").removeprefix("[").removesuffix("]")
