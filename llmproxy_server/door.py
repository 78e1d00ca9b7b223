"""
The door: what all calls that come in at one address share, and what every head must pass.

Nothing here knows which HTTP server reads the bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import attrs

from llmproxy_core.config import ServerConfig
from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.endpoint import Endpoint, EndpointReply, EndpointRequest
from llmproxy_core.errors import (
    BadRequest,
    ConfigError,
    Forbidden,
    MethodNotAllowed,
    Problem,
    RequestRejected,
    RouteNotFound,
)
from llmproxy_core.exchange import Exchange
from llmproxy_core.gateway import Gateway
from llmproxy_core.plugins import Registry
from llmproxy_core.routing import Match
from llmproxy_server.admission import Admission
from llmproxy_server.door_caller import Callers, is_local
from llmproxy_server.door_host import HostPolicy
from llmproxy_server.door_id import RequestIds
from llmproxy_server.door_origin import CorsHeaders, OriginPolicy
from llmproxy_server.door_request import Incoming
from llmproxy_server.life import Life
from llmproxy_server.record import Recorder
from llmproxy_server.wire_head import HeadWriter

Observer = Callable[[Exchange], None]
"""Told of each exchange of a client when it begins."""

Endpoints = Mapping[str, Mapping[str, Endpoint]]
"""By path, as the endpoints have it, then by method."""


_REMEMBERED = 1024  # heads: most of what is looked at in them is the callers' choice
_LONGEST = 256  # characters of a path
_SELDOM = frozenset({"origin", "expect", "content-encoding"})
_LookedAt = tuple[str, str, tuple[int, int], str | None, str | None]


class FanOut(Protocol):
    """Asks an endpoint in every worker."""

    async def everywhere(self, endpoint: Endpoint, request: EndpointRequest) -> EndpointReply:
        """All workers' answers, merged by the endpoint."""
        ...


class Use:
    """How many calls go on with what they began with."""

    __slots__ = ("_none", "count")

    def __init__(self) -> None:
        self.count = 0
        self._none: asyncio.Event | None = None  # made by who waits: calls come and go far more often

    def enter(self) -> None:
        self.count += 1

    def leave(self) -> None:
        self.count -= 1
        if self._none is not None and not self.count:
            self._none.set()

    async def over(self) -> None:
        """Wait until there is none."""
        none = self._none = self._none or asyncio.Event()
        while self.count:
            none.clear()
            await none.wait()


@attrs.define(eq=False)
class Shared:
    """
    What the calls of all doors share, as one configuration has it.

    A reload makes another one: a call keeps the one that it began with until it is over.
    """

    gateway: Gateway
    admission: Admission
    life: Life
    recorder: Recorder
    dialect: Dialect
    """For errors before it is known which one the client speaks."""
    observers: tuple[Observer, ...] = ()
    fan_out: FanOut | None = None
    """Asks all workers, where there are several."""
    use: Use = attrs.field(factory=Use)
    ids: RequestIds = attrs.field(factory=RequestIds)
    heads: HeadWriter = attrs.field(factory=HeadWriter)
    config: ServerConfig = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.config = self.gateway.config.server


class Door:
    """One listener's rules: whom it takes for itself, which pages may call, and what it serves."""

    def __init__(self, shared: Shared, endpoints: Endpoints, *, loopback: bool, routes: bool = True) -> None:
        """*loopback*: it listens on a loopback address; *routes*: it serves them, not only *endpoints*."""
        server = shared.config
        self.shared = shared
        self._endpoints = endpoints
        self._open = frozenset(path[:-1] for path in endpoints if path.endswith("/*"))
        self._routes = routes
        self._usual: dict[_LookedAt | None, Match] = {}
        self._hosts = HostPolicy(loopback=loopback, allowed=server.allowed_hosts)
        self._origins = OriginPolicy(server.cors_allowed_origins, self._hosts)
        self.callers = Callers(server.trusted_proxies)
        self.unasked = self._origins.unasked
        """The CORS headers of answers to those that are no page."""

    def usual(self, incoming: Incoming) -> Match | None:
        """What *incoming* asks of the routes, if a head like it was in order before: it need not be checked again."""
        found = self._usual.get(_looked_at(incoming))
        return found.as_asked(incoming.headers, incoming.query) if found is not None and found.others else found

    def note_usual(self, incoming: Incoming, match: Match) -> None:
        """*incoming* is in order, and asks for *match*."""
        key = _looked_at(incoming)
        if key is None or match.api is None or match.api.method != incoming.method or len(incoming.path) > _LONGEST:
            return
        meaning = self.shared.gateway.match(incoming.method, incoming.path)
        if all(it.api is not None and it.api.has_body for it in (meaning, *meaning.others)):
            if len(self._usual) >= _REMEMBERED:
                self._usual.clear()
            self._usual[key] = meaning

    def check(self, incoming: Incoming) -> None:
        """Refuse a well-formed head that is not plainly meant for us."""
        target = incoming.target
        if target[0] != "/" or "#" in target:  # it is of printable ASCII letters: who read it saw to that
            raise BadRequest("The request target must be a path of URL characters", code="ambiguous_path")
        headers = incoming.headers
        self._hosts.check(headers, incoming.version)
        if "expect" in headers and headers.get("expect", "").lower() != "100-continue":
            raise RequestRejected("The Expect header asks for what is not offered", status=417, code="expectation")

    def cors(self, incoming: Incoming) -> CorsHeaders:
        """The CORS headers of the answer; Forbidden for a page that may not call what it calls."""
        if "origin" not in incoming.headers:
            return self._origins.unasked
        own = self._at(incoming.path)
        if own is None:
            return self._origins.check(incoming)
        if self._origins.is_own_page(incoming):
            return self._origins.unasked
        if any(endpoint.local_only for endpoint in own.values()):
            raise Forbidden("Only pages of this proxy's own may call this", code="origin_not_allowed")
        return self._origins.check(incoming)

    def is_own(self, path: str) -> bool:
        """Whether an endpoint of our own is at *path*."""
        return self._at(path) is not None

    def endpoint(self, incoming: Incoming) -> Endpoint:
        """The endpoint of our own that is asked for, where the path is ours."""
        own = self._at(incoming.path)
        assert own is not None
        endpoint = _taking(own, incoming.method)
        if endpoint is None:
            raise MethodNotAllowed(f"This path takes {' or '.join(own)}", allowed=_with_head(own))
        if endpoint.local_only and not (is_local(incoming) and self._hosts.is_ours(incoming.headers.get("host", ""))):
            raise Forbidden("This endpoint answers only a caller on the proxy's own machine", code="local_only")
        return endpoint

    def own(self, method: str, path: str) -> Endpoint:
        """The endpoint of our own with that method and path; RouteNotFound when there is none."""
        endpoint = _taking(self._at(path) or {}, method)
        if endpoint is None:
            raise RouteNotFound("No endpoint of the proxy's own is there")
        return endpoint

    def _at(self, path: str) -> Mapping[str, Endpoint] | None:
        """The endpoints at *path*, by method: those that have it exactly, else those that have it but for its end."""
        own = self._endpoints.get(path)
        if own is None and self._open:
            before = path[: path.rfind("/") + 1]
            if before in self._open and before != path:
                return self._endpoints[f"{before}*"]
        return own

    def match(self, incoming: Incoming) -> Match:
        """What is asked of the routes. HEAD is GET without the body; an opaque one is passed on as it is."""
        if not self._routes:
            raise RouteNotFound("Only the proxy's own endpoints are served here")
        match = self.shared.gateway.match
        if incoming.method != "HEAD":
            found = match(incoming.method, incoming.path)
        else:
            found = match("GET", incoming.path)
            found = found if found.operation is not Operation.OPAQUE else match("HEAD", incoming.path)
        return found.as_asked(incoming.headers, incoming.query) if found.others else found

    def spoken(self, incoming: Incoming) -> Dialect:
        """What a client speaks whose request did not come far: the dialect that surely claims it, or the usual one."""
        for dialect in self.shared.gateway.registry.dialects.values():
            if dialect.apis and dialect.claims(dialect.apis[0], incoming.headers, incoming.query):
                return dialect
        return self.shared.dialect


def _looked_at(incoming: Incoming) -> _LookedAt | None:
    """All of a head that `check`, `cors`, `match` and `check_body` look at; None for one that has more of it."""
    headers = incoming.headers
    first = headers.first
    if headers.has_repeated or not _SELDOM.isdisjoint(first) or "#" in incoming.target:
        return None
    host, content_type = first.get("host"), first.get("content-type")
    if host is None or content_type is None or len(host) + len(content_type) > _LONGEST:
        return None
    return incoming.method, incoming.path, incoming.version, host, content_type


def _taking(own: Mapping[str, Endpoint], method: str) -> Endpoint | None:
    """Which of the endpoints of a path answers *method*: one for GET answers HEAD too."""
    return own.get(method) or (own.get("GET") if method == "HEAD" else None)


def _with_head(methods: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))


def by_path(endpoints: Iterable[Endpoint]) -> Endpoints:
    """*endpoints* to be looked up. ConfigError when two are for the same method and path: a plugin's is one of ours."""
    found: dict[str, dict[str, Endpoint]] = {}
    problems = []
    for endpoint in endpoints:
        if found.setdefault(endpoint.path, {}).setdefault(endpoint.method, endpoint) is not endpoint:
            message = f"a plugin registers the endpoint {endpoint.method} {endpoint.path}, which is the proxy's own"
            problems.append(Problem("plugins", message))
    if problems:
        raise ConfigError(problems)
    return found


def default_dialect(registry: Registry) -> Dialect:
    """The dialect of answers to requests that say nothing about theirs."""
    if not registry.dialects:
        raise ConfigError([Problem("plugins", "no dialect is installed, so nothing can be answered")])
    return registry.dialects.get("openai") or next(iter(registry.dialects.values()))
