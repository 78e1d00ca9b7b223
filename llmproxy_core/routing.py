"""From method and path to a route, an operation and the function that serves it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import unquote

import attrs

from llmproxy_core.config import RouteConfig
from llmproxy_core.dialect import Api, Dialect, Located, Operation
from llmproxy_core.errors import BadRequest, MethodNotAllowed, RouteNotFound
from llmproxy_core.headers import Headers
from llmproxy_core.jsontext import scan
from llmproxy_core.llm import LLMClient
from llmproxy_core.path import begins, check_encoded_slash, check_path
from llmproxy_core.processor import Handler

_REMEMBERED = 4096  # paths are the callers' choice, so the memory of them is bounded
_LONGEST_REMEMBERED = 256  # characters: in their length, too


@attrs.frozen(eq=False)
class Route:
    """A `[[route]]`, ready to serve: a composed chain for each of its operations."""

    config: RouteConfig
    llm: LLMClient
    dialects: Sequence[Dialect]
    """Those its clients may speak; the path tells which."""
    chains: Mapping[Operation, Handler]
    steps: Mapping[Operation, tuple[str, ...]]
    """The names of the processors in each chain, outermost first."""
    name: str = attrs.field(init=False)
    drops_unsupported: bool = attrs.field(init=False)

    @name.default
    def _made_name(self) -> str:
        return self.config.name

    @drops_unsupported.default
    def _made_drops_unsupported(self) -> bool:
        return self.config.on_unsupported == "drop"


@attrs.frozen(eq=False)
class Match:
    """What a method and path mean here. Remembered: nothing in it belongs to one request."""

    route: Route
    operation: Operation
    dialect: Dialect
    api: Api | None
    """None for an opaque call."""
    path_model: str | None
    relative_path: str
    """Of an opaque call: what goes behind the upstream's base URL."""
    others: Sequence[Match] = ()
    """All that the same path may mean to clients of other dialects, or in another form of this one; none: only this."""
    _telling: frozenset[str] = attrs.field(init=False, repr=False)
    """The members of bodies that only one of `others` has: most bodies have none of them."""

    @_telling.default
    def _made_telling(self) -> frozenset[str]:
        return frozenset().union(*(it.dialect.own_members for it in self.others))

    def as_asked(self, headers: Headers, query: str) -> Match:
        """The one of `others` that the client surely means; this match where nobody can tell."""
        for match in self.others:
            if match.api is not None and match.dialect.claims(match.api, headers, query):
                return match
        return self

    def as_said(self, body: bytes) -> Match:
        """The one of `others` that *body* is written in: it has a member that no other dialect has. Else this match."""
        try:
            names = scan(body, ahead=True).names
        except BadRequest:  # told where the body is read
            return self
        if self._telling.isdisjoint(names):
            return self
        return next(it for it in self.others if not it.dialect.own_members.isdisjoint(names))


class RouteIndex:
    """
    Finds the route of a path: the longest prefix on segment boundaries, raw and case-sensitive.

    The cost is that of the path's segments, whatever the number of routes.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_prefix = {route.config.path_prefix.rstrip("/"): route for route in routes}
        self._memory: dict[tuple[str, str], Match] = {}

    def match(self, method: str, path: str) -> Match:
        """
        What *method* on *path* (raw, without the query) means.

        BadRequest for an ambiguous path, RouteNotFound or MethodNotAllowed for one that nothing serves.
        """
        key = (method, path)
        if (known := self._memory.get(key)) is not None:
            return known
        check_path(path)
        try:
            route = self.route(path)
        except RouteNotFound:
            check_encoded_slash(path, allowed=False)  # no route means: none that allows it
            raise
        check_encoded_slash(path, allowed=route.config.encoded_slash)
        match = self._operation(route, method, path)
        if len(path) <= _LONGEST_REMEMBERED:
            if len(self._memory) >= _REMEMBERED:
                self._memory.clear()
            self._memory[key] = match
        return match

    def route(self, path: str) -> Route:
        """The route of *path*; RouteNotFound when there is none."""
        prefix = path.rstrip("/") if path != "/" else ""
        while True:
            if (route := self._by_prefix.get(prefix)) is not None:
                return route
            if not prefix:
                raise RouteNotFound("No route serves this path")
            prefix = prefix[: prefix.rindex("/")]

    def _operation(self, route: Route, method: str, path: str) -> Match:
        located = _located(route, path)
        served = [it for it in located if it[1].api.method == method and it[1].api.operation in route.chains]
        if served:
            return _shared(route, [it for it in served if it[1].start == served[0][1].start])
        if Operation.OPAQUE in route.chains and not any(_doubled(dialect, path) for dialect in route.dialects):
            _refuse_disguise(route, method, path)
            dialect = route.dialects[0]
            return Match(route, Operation.OPAQUE, dialect, None, None, _relative(route, dialect, path))
        methods = tuple(sorted({found.api.method for _, found in located if found.api.operation in route.chains}))
        if methods:
            raise MethodNotAllowed(f"This path takes {' or '.join(methods)}", allowed=methods)
        raise RouteNotFound(_advice(route, path, located))


_SPEAKS_FOR_ALL = "openai"
"""The dialect of model lists for clients that do not say what they speak."""


def _shared(route: Route, meanings: Sequence[tuple[Dialect, Located]]) -> Match:
    """The match for a path with several *meanings*: the first where the client does not tell."""
    if meanings[0][1].api.operation is Operation.MODELS:
        meanings = sorted(meanings, key=lambda it: it[0].name != _SPEAKS_FOR_ALL)
    found = [Match(route, it.api.operation, dialect, it.api, it.model, "") for dialect, it in meanings]
    return found[0] if len(found) == 1 else attrs.evolve(found[0], others=tuple(found))


def _located(route: Route, path: str) -> list[tuple[Dialect, Located]]:
    """
    The APIs that end *path*, the longest suffix first.

    Between the route's prefix and the API nothing may stand: `/v1/x/chat/completions` is nobody's.
    """
    prefix = len(route.config.path_prefix.rstrip("/"))
    found = [
        (dialect, located)
        for dialect in route.dialects
        for located in dialect.locate(path)
        if located.start <= prefix and not _doubled(dialect, path)
    ]
    return sorted(found, key=lambda entry: entry[1].start)


def _refuse_disguise(route: Route, method: str, path: str) -> None:
    """
    BadRequest for another spelling of an operation that *route* serves.

    Forwarded as opaque, the upstream might take it for the operation, past the processors that act on it.
    """
    plain = "".join(f"/{segment}" for segment in unquote(path).lower().split("/") if segment)
    for _, found in _located(route, plain):
        calls = found.api.operation is not Operation.MODELS and found.api.operation in route.chains
        if calls and found.api.method == method:
            raise BadRequest(f"Write this path as …{found.api.path}", code="ambiguous_path")


def _doubled(dialect: Dialect, path: str) -> str | None:
    return next((root for root in dialect.roots if f"{root}{root}/" in f"{path}/"), None)


def _advice(route: Route, path: str, located: Sequence[object]) -> str:
    for dialect in route.dialects:
        if (root := _doubled(dialect, path)) is not None:
            return f"The path has {root} twice: the base URL already ends in it, or must not"
    if located:
        return "This route does not serve that operation (operations)"
    known = sorted(
        {f"{api.method} …{api.path}" for d in route.dialects for api in d.apis if api.operation in route.chains}
    )
    return f"No operation lives at this path; this route serves {', '.join(known)}"


def _relative(route: Route, dialect: Dialect, path: str) -> str:
    """What follows `strip_prefix`, or the protocol's version segment, or the route's prefix."""
    prefix = len(route.config.path_prefix.rstrip("/"))
    strip = route.config.strip_prefix
    if strip is not None and begins(path, strip):
        return path[len(strip.rstrip("/")) :]
    for root in dialect.roots if strip is None else ():
        place = f"{path}/".find(f"{root}/")
        if 0 <= place <= prefix:  # behind that it is a name of the provider's
            return path[place + len(root) :]
    return path[prefix:]
