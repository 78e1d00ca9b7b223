"""Routes: the form of their prefixes, what they serve, and what of each other and of our own endpoints they cover."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llmproxy_core.config_draft import Draft, broken_plugins
from llmproxy_core.config_path import Place
from llmproxy_core.config_problem import Problems, nearest, safe
from llmproxy_core.config_tables import ProcessorConfig, RouteConfig
from llmproxy_core.dialect import Dialect, Operation
from llmproxy_core.path import begins
from llmproxy_core.plugins import Registry

OWN_ENDPOINTS = ("/health", "/livez", "/readyz", "/providers", "/metrics", "/api")
"""Paths that the server itself answers, besides the endpoints of plugins; `/api` stands for all below it."""


def served_operations(route: RouteConfig, dialects: Mapping[str, Dialect]) -> frozenset[Operation]:
    """
    The operations of *route*: those it lists, else all that its dialect knows, but never `opaque` unasked.

    A route that names no dialect may meet any of *dialects*; the path tells which.
    """
    if route.operations is not None:
        return frozenset(route.operations)
    return _known(_dialects(route, dialects)) - {Operation.OPAQUE}


def uncovered_operations(processor: ProcessorConfig, served: frozenset[Operation]) -> frozenset[Operation]:
    """The operations of *served* that call a model and would pass *processor* by, though it may not be skipped."""
    if processor.type.skippable or processor.uncovered == "allow":
        return frozenset()
    return served - processor.type.operations - {Operation.MODELS}


def check_routes(draft: Draft, registry: Registry, problems: Problems) -> None:
    routes = list(_readable(draft.routes))
    for place, route in routes:
        if not route.allow_streaming and not route.allow_non_streaming:
            problems.add(
                (*place, "allow_streaming"), "nothing is left: allow_streaming and allow_non_streaming are false"
            )
        is_known = not draft.is_unread(place, "path_prefix")
        if is_known and route.strip_prefix is not None and not _nested(route.strip_prefix, route.path_prefix):
            problems.add(
                (*place, "strip_prefix"), f'"{safe(route.strip_prefix)}" and path_prefix do not begin with each other'
            )
        if route.dialect is not None and route.dialect not in registry.dialects:
            advice = nearest(route.dialect, registry.dialects, "registered")
            problems.add((*place, "dialect"), f'no dialect "{safe(route.dialect)}"; {advice}{broken_plugins(registry)}')
            continue
        if route.on_unsupported == "drop" and len(registry.dialects) < 2:
            problems.warn((*place, "on_unsupported"), "has no effect: clients and LLMs all speak one protocol here")
        _check_operations(place, route, registry.dialects, problems)
        _check_repeats(place, route, problems)
        if not draft.is_unread(place, "operations", "dialect"):
            _check_coverage(place, route, draft, registry.dialects, problems)
    _check_duplicates(routes, problems)
    _check_shadows(routes, registry.dialects, problems)
    if draft.server is not None and draft.server.own_endpoints is True:
        _check_own_endpoints(routes, registry, problems)


def _readable(routes: Sequence[RouteConfig | None]) -> Iterator[tuple[Place, RouteConfig]]:
    return ((("route", index), route) for index, route in enumerate(routes) if route is not None)


def _dialects(route: RouteConfig, dialects: Mapping[str, Dialect]) -> list[Dialect]:
    return list(dialects.values()) if route.dialect is None else [dialects[route.dialect]]


def _known(dialects: list[Dialect]) -> frozenset[Operation]:
    return frozenset(api.operation for dialect in dialects for api in dialect.apis)


def _check_operations(place: Place, route: RouteConfig, dialects: Mapping[str, Dialect], problems: Problems) -> None:
    known = _known(_dialects(route, dialects)) | {Operation.OPAQUE}
    whose = "no dialect" if route.dialect is None else f"the dialect {route.dialect} not"
    for index, operation in enumerate(route.operations or ()):
        if operation not in known:
            message = f"{whose} knows {operation.value}; {nearest(operation.value, known, 'known')}"
            problems.add((*place, "operations", index), message)
    if route.operations is not None and not route.operations:
        problems.add((*place, "operations"), "expected at least one operation; leave the key out for all")


def _check_repeats(place: Place, route: RouteConfig, problems: Problems) -> None:
    """Warn of a processor that is listed again: it may be meant, and rarely is."""
    for index, name in enumerate(route.processors):
        if name in route.processors[:index]:
            problems.warn((*place, "processors", index), f'"{safe(name)}" is listed twice: it acts twice on each call')


def _check_coverage(
    place: Place, route: RouteConfig, draft: Draft, dialects: Mapping[str, Dialect], problems: Problems
) -> None:
    served = served_operations(route, dialects)
    for index, name in enumerate(route.processors):
        processor = draft.processors.get(name)
        past = uncovered_operations(processor, served) if processor is not None else ()
        if draft.is_unread(("processor", name), "uncovered"):
            continue
        if processor is not None and past:
            problems.add(
                (*place, "processors", index),
                f'"{safe(name)}" ({processor.type.name}) does not act on {", ".join(sorted(past))}, which this route '
                f"serves, and may not be skipped: name the route's operations without it, or set "
                f'uncovered = "allow" in [processor.{safe(name)}]',
            )


# -- prefixes --------------------------------------------------------------------------------------------------------


def _nested(one: str, other: str) -> bool:
    return begins(one, other) or begins(other, one)


def _check_duplicates(routes: Sequence[tuple[Place, RouteConfig]], problems: Problems) -> None:
    """Warn of a route that no request can reach, since one before it has its very prefix."""
    first: dict[str, int] = {}
    for place, route in routes:
        index = place[1]
        assert isinstance(index, int)
        if route.path_prefix in first:
            before = first[route.path_prefix] + 1
            problems.warn(
                (*place, "path_prefix"),
                f'"{safe(route.path_prefix)}" gets nothing: route[{before}] has this prefix too, and comes first',
            )
        first.setdefault(route.path_prefix, index)


def _check_shadows(
    routes: Sequence[tuple[Place, RouteConfig]], dialects: Mapping[str, Dialect], problems: Problems
) -> None:
    """Warn of a route that no request can reach, since longer prefixes take every path it could serve."""
    for place, route in routes:
        longer = [it.path_prefix for _, it in routes if len(it.path_prefix) > len(route.path_prefix)]
        below = [prefix for prefix in longer if begins(prefix, route.path_prefix)]
        if not below or Operation.OPAQUE in (route.operations or ()) or route.dialect not in {None, *dialects}:
            continue
        paths = list(_paths(route, dialects))
        if paths and all(any(begins(path, prefix) for prefix in below) for path in paths):
            names = ", ".join(f'"{safe(prefix)}"' for prefix in below)
            problems.warn(
                (*place, "path_prefix"), f'"{safe(route.path_prefix)}" gets nothing: {names} take all it serves'
            )


def _paths(route: RouteConfig, dialects: Mapping[str, Dialect]) -> Iterator[str]:
    """The paths that clients would use, each API's with its version segment and without."""
    served = served_operations(route, dialects)
    prefix = route.path_prefix.rstrip("/")
    for dialect in _dialects(route, dialects):
        for api in dialect.apis:
            if api.operation not in served:
                continue
            for suffix in (api.path, *(root + api.path for root in dialect.roots)):
                begun = [
                    size for size in range(1, len(suffix)) if prefix.endswith(suffix[:size]) and suffix[size] == "/"
                ]
                yield prefix + suffix[max(begun, default=0) :]


def _check_own_endpoints(routes: Sequence[tuple[Place, RouteConfig]], registry: Registry, problems: Problems) -> None:
    own = dict.fromkeys((*OWN_ENDPOINTS, *(endpoint.path for endpoint in registry.endpoints.values())))
    for place, route in routes:
        below = route.path_prefix == "/api" or route.path_prefix.startswith("/api/")
        covered = [path for path in own if begins(path, route.path_prefix)] or (["/api"] if below else [])
        if covered:
            names = ", ".join("/api/…" if path == "/api" else path for path in covered)
            problems.warn(
                (*place, "path_prefix"),
                f'"{safe(route.path_prefix)}" covers the proxy\'s own {names}, which win over the route '
                "(own_endpoints in [server] can move them)",
            )
