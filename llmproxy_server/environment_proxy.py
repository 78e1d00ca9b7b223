"""The proxy that the environment names for a URL, by the rules that curl and Go have."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def proxy_variable(url: str, env: Mapping[str, str]) -> str | None:
    """
    The name of the variable that holds the proxy for *url*; None where it is called directly.

    `https_proxy` or `http_proxy`, in small letters or else in capitals; never for this machine itself, nor for hosts
    in `no_proxy`.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None  # which is reported where the URL is read
    names = (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper())
    name = next((name for name in names if env.get(name, "").strip()), None)
    if not port or name is None or _is_this_machine(host):
        return None
    excepted = env.get("no_proxy") or env.get("NO_PROXY") or ""
    return None if any(_matches(host, port, each.strip().lower()) for each in excepted.split(",")) else name


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback)


def _matches(host: str, port: int, pattern: str) -> bool:
    """Whether *pattern*, an entry of `no_proxy`, is about *host*: `*`, a name, a domain, an address or a network."""
    name, _, number = pattern.rpartition(":")
    if name and number.isdecimal() and (":" not in name or name.startswith("[")):
        if int(number) != port:
            return False
        pattern = name
    pattern = pattern.strip("[]")
    if pattern in ("", "*"):
        return bool(pattern)
    address = _address(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return False
    domain = pattern.removeprefix("*").removeprefix(".").rstrip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
