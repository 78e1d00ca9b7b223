"""Where a request comes from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from llmproxy_core.headers import Headers
from llmproxy_server.door_request import Incoming

_FORWARDING = frozenset(  # and x-forwarded-*; those of content networks and tunnels, whose last hop is on this machine
    {
        "cdn-loop",
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "client-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "forwarded",
        "true-client-ip",
        "via",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-original-forwarded-for",
        "x-original-host",
        "x-real-ip",
    }
)
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Callers:
    """Tells the address of who called, through the reverse proxies that are trusted to say it."""

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted = [ipaddress.ip_network(network) for network in trusted_proxies]
        self.trusts = bool(self._trusted)
        """Whether there is a proxy that is trusted at all; without one the peer has called."""

    def address(self, incoming: Incoming) -> str:
        """
        The peer of the connection; behind a trusted proxy, the rightmost entry of X-Forwarded-For that is not one.

        An entry that is no address ends the search: whoever wrote it could have written all before it.
        """
        if not self._trusted or not self._is_trusted(incoming.peer):
            return incoming.peer
        last = incoming.peer
        entries = ",".join(incoming.headers.get_all("x-forwarded-for")).split(",")
        for entry in reversed(entries):
            address = _address(entry.strip())
            if address is None:
                break
            last = str(address)
            if not self._is_trusted(last):
                break
        return last

    def _is_trusted(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._trusted)


def is_local(incoming: Incoming) -> bool:
    """Whether somebody on this machine asks, and not for somebody else: no field of a forwarding proxy is there."""
    address = _address(incoming.peer)
    return address is not None and address.is_loopback and not _is_forwarded(incoming.headers)


def _is_forwarded(headers: Headers) -> bool:
    return any(name in _FORWARDING or name.startswith("x-forwarded-") for name, _ in headers)


def _address(text: str) -> _Address | None:
    """The address that *text* is, without a port and a zone; IPv4 that is written as IPv6 is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
