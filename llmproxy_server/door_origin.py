"""
Which web pages may call: the Origin field, and the CORS headers that tell a browser so (the Fetch standard, section
"CORS protocol").

A browser sends Origin with every request that a page of another origin makes, so refusing by it before anything is
done stops pages, which the absence of CORS headers alone does not: the call would have been made and paid.
Credentials mode is never allowed: keys travel in headers that a page sets itself, no cookie means anything here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmproxy_core.errors import Forbidden
from llmproxy_server.door_host import HostPolicy
from llmproxy_server.door_request import Incoming

CorsHeaders = tuple[tuple[str, str], ...]
MAX_AGE_S = 600
_TOKENS = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*", re.ASCII)
_VARY = ("vary", "origin")
_EXPOSED = ("access-control-expose-headers", "*")


class OriginPolicy:
    """The origins of `cors_allowed_origins`; "*" stands for all but `null`."""

    def __init__(self, allowed: Iterable[str], hosts: HostPolicy) -> None:
        self._allowed = frozenset(allowed)
        self._any = "*" in self._allowed
        self._hosts = hosts
        # Caches must know that the answer depends on who asks, also when nobody did.
        self.unasked: CorsHeaders = () if self._any or not self._allowed else (_VARY,)

    def check(self, incoming: Incoming) -> CorsHeaders:
        """The headers that let the page at the request's Origin read the answer; Forbidden when it may not call."""
        origins = incoming.headers.get_all("origin")
        if not origins:
            return self.unasked
        origin = origins[0]
        if len(origins) > 1 or origin == "null":
            raise _refused()
        if self._any:
            return (("access-control-allow-origin", "*"), _EXPOSED)
        if origin in self._allowed:
            return (("access-control-allow-origin", origin), _EXPOSED, _VARY)
        raise _refused()

    def is_own_page(self, incoming: Incoming) -> bool:
        """
        Whether the request comes from a page that we served ourselves.

        Only a Host that is surely ours counts: a page that had its own name point here would be of the same origin.
        """
        origins, host = incoming.headers.get_all("origin"), incoming.headers.get("host", "")
        scheme = "https" if incoming.secure else "http"
        return origins == [f"{scheme}://{host}"] and self._hosts.is_ours(host)


def is_preflight(incoming: Incoming) -> bool:
    """Whether a browser asks if it may ask."""
    headers = incoming.headers
    return incoming.method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight_headers(incoming: Incoming) -> CorsHeaders:
    """What a page may send: what it asks for, as long as that is well-formed."""
    method = incoming.headers.get("access-control-request-method", "")
    names = ", ".join(incoming.headers.get_all("access-control-request-headers"))
    headers = [("access-control-max-age", str(MAX_AGE_S))]
    if _TOKENS.fullmatch(method) and "," not in method:
        headers.append(("access-control-allow-methods", method))
    if len(names) <= 4096 and _TOKENS.fullmatch(names):
        headers.append(("access-control-allow-headers", names))
    return tuple(headers)


def _refused() -> Forbidden:
    return Forbidden("Pages of this origin may not call this proxy (cors_allowed_origins)", code="origin_not_allowed")
