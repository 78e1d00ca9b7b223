"""`llmproxy explain`: what would happen to a request, and why. Nothing is sent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from llmproxy_core.dialect import Operation
from llmproxy_core.endpoint import Endpoint
from llmproxy_core.errors import ProxyError
from llmproxy_core.gateway import Gateway
from llmproxy_core.path import begins
from llmproxy_core.routing import Match, Route
from llmproxy_server.cli_destination import Asked, Destination, destination
from llmproxy_server.cli_exit import problems_of
from llmproxy_server.cli_llm import answer_forms
from llmproxy_server.cli_load import LookTransport, load_configuration, load_registry, look_at, named
from llmproxy_server.cli_terminal import columns, say, strong
from llmproxy_server.door import Endpoints, by_path
from llmproxy_server.health import Health
from llmproxy_server.life import Life

Row = tuple[str, str]


def explain(method: str, target: str, model: str | None, config: str | None) -> bool:
    """Print what becomes of *method* on *target*, a path with or without a query; True when something serves it."""
    registry = load_registry()
    loaded = load_configuration(config, registry)
    path, _, query = target.partition("?")
    asked = Asked(method=method.upper(), path=path, query=query, model=model)

    async def look(gateway: Gateway, transport: LookTransport) -> bool:
        return await _explain(gateway, transport, asked)

    with problems_of(named(config)):
        return look_at(loaded, registry, look)


async def _explain(gateway: Gateway, transport: LookTransport, asked: Asked) -> bool:
    say(strong(f"{asked.method} {asked.path}"))
    if asked.path in (own := own_endpoints(gateway)):
        return _explain_own(own[asked.path], asked.method)
    covering = list(_chosen(_covering(gateway, asked.path)))
    try:
        match = _matched(gateway, asked)
    except ProxyError as error:
        _print([*covering, ("refused", _words(error))])
        return False
    try:
        found = await destination(gateway, transport, match, asked)
    except ProxyError as error:
        _print([*covering, *_match_rows(match, asked.path), ("refused", _words(error))])
        return False
    _print([*covering, *_match_rows(match, asked.path), *_processor_rows(match, gateway), *_destination_rows(found)])
    return found.error is None


def _matched(gateway: Gateway, asked: Asked) -> Match:
    """As the door has it: a HEAD is a GET whose body is not sent, but an opaque one is passed on as it is."""
    if asked.method != "HEAD":
        return gateway.match(asked.method, asked.path)
    found = gateway.match("GET", asked.path)
    return found if found.operation is not Operation.OPAQUE else gateway.match("HEAD", asked.path)


def _print(rows: list[Row]) -> None:
    for line in columns(rows):
        say(line)


def _words(error: ProxyError) -> str:
    return f"{error.status} {error.code}: {error.message}"


# -- the proxy's own endpoints ---------------------------------------------------------------------------------------


def own_endpoints(gateway: Gateway) -> Endpoints:
    """Those that the proxy answers where its routes are; none when `own_endpoints` moves them or switches them off."""
    if gateway.config.server.own_endpoints is not True:
        return {}
    health = Health(gateway.config, Life(), version="", clock=time.monotonic, in_flight=lambda: 0)
    return by_path([*health.endpoints(), *gateway.registry.endpoints.values()])


def _explain_own(own: Mapping[str, Endpoint], method: str) -> bool:
    endpoint = own.get("GET" if method == "HEAD" and "HEAD" not in own else method)
    if endpoint is None:
        _print([("refused", f"405 method_not_allowed: This path takes {' or '.join(own)}")])
        return False
    who = "; only a caller on this machine is answered" if endpoint.local_only else ""
    _print([("endpoint", f"the proxy's own, which wins over every route{who}")])
    return True


# -- the route -------------------------------------------------------------------------------------------------------


def _covering(gateway: Gateway, path: str) -> list[Route]:
    """The routes whose prefix covers *path*, the longest prefix first."""
    covering = [route for route in gateway.routes if begins(path, route.config.path_prefix)]
    return sorted(covering, key=lambda route: -len(route.config.path_prefix))


def _chosen(covering: list[Route]) -> Iterator[Row]:
    if not covering:
        yield "route", "none: no route's path_prefix covers this path"
        return
    first, *others = covering
    shorter = f"; shorter ones: {', '.join(route.name for route in others)}" if others else ""
    yield "route", f"{first.name}, the longest path_prefix that covers the path{shorter}"


def _match_rows(match: Match, path: str) -> Iterator[Row]:
    yield "operation", f"{match.operation.value}, {_reason(match, path)}"
    yield "dialect", match.dialect.name
    if match.operation is Operation.CHAT:
        yield "answers", answer_forms(match.route.config)


def _reason(match: Match, path: str) -> str:
    if match.api is None:
        return "since the route lists it, and no other operation it serves lives at this method and path"
    start = next(it.start for it in match.dialect.locate(path) if it.api is match.api)
    return f"since the path ends in {path[start:]} ({match.api.name})"


# -- processors ------------------------------------------------------------------------------------------------------


def _processor_rows(match: Match, gateway: Gateway) -> Iterator[Row]:
    """Those that the call goes through in order, then those that it passes by."""
    steps = match.route.steps[match.operation]
    processors = gateway.config.processors
    if not steps:
        yield "processors", "none"
    for number, name in enumerate(steps, start=1):
        yield "processors" if number == 1 else "", f"{number}. {name} ({processors[name].type.name})"
    past = [name for name in match.route.config.processors if name not in steps]
    for number, name in enumerate(past):
        kind = processors[name].type
        acts_on = ", ".join(sorted(kind.operations)) or "nothing"
        words = f"{name} ({kind.name}): it acts on {acts_on}, not on {match.operation.value}"
        yield "passed by" if number == 0 else "", words


# -- the LLM ---------------------------------------------------------------------------------------------------------


def _destination_rows(found: Destination) -> Iterator[Row]:
    if found.hops:
        yield "LLM", " -> ".join(f"{name} ({provider})" for name, provider in found.hops)
    if found.sent is not None:
        yield "model", found.sent if found.sent == found.asked else f"{found.asked or '(none)'} -> {found.sent}"
    elif found.asked is not None:
        yield "model", found.asked
    if found.upstream is not None:
        yield "upstream", found.upstream
    if found.error is not None:
        yield "refused", _words(found.error)
