"""
What the keys alone cannot show: names that stand for nothing, cycles, prefixes that cover each other, exposure, and
what the types themselves find doubtful.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from llmproxy_core.config_draft import Draft
from llmproxy_core.config_path import Place, read_place
from llmproxy_core.config_problem import Problems, nearest, safe
from llmproxy_core.config_routes import check_routes
from llmproxy_core.config_tables import ServerConfig
from llmproxy_core.errors import Problem, bug_words, raise_unless_bug
from llmproxy_core.group_config import ByModelConfig, FallbackConfig, GroupConfig
from llmproxy_core.hookspecs import ProcessorType, ProviderType, StoreType
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.plugins import Registry


def check(draft: Draft, registry: Registry, problems: Problems) -> None:
    """Report everything in *draft* that is wrong, or doubtful, between its tables."""
    _check_names(draft, problems)
    _check_groups(draft, problems)
    check_routes(draft, registry, problems)
    _check_use(draft, problems)
    _check_workers(draft, problems)
    if draft.server is not None:
        _check_server(draft.server, draft, problems)
    if not problems.errors:  # types are asked about tables that are right, and only then are warnings told
        _ask_types(draft, registry, problems)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach *host*."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


# -- names -----------------------------------------------------------------------------------------------------------


def _check_names(draft: Draft, problems: Problems) -> None:
    sections: dict[str, Mapping[str, object]] = {
        "llm": draft.llms,
        "store": draft.stores,
        "processor": draft.processors,
    }
    for it in draft.references:
        found = sections[it.section].get(it.name)
        if it.name not in sections[it.section]:
            advice = nearest(it.name, sections[it.section])
            problems.add(it.place, f"no [{it.section}.{safe(it.name)}]; {advice}")
        elif isinstance(found, LLMConfig) and not found.enabled:
            problems.add(it.place, f"[llm.{safe(it.name)}] is switched off (enabled = false)")
    for owner, members in draft.members.items():
        for place, name in members:
            if name not in draft.llms:
                known = [other for other in draft.llms if other != owner]
                problems.add(place, f"no [llm.{safe(name)}]; {nearest(name, known)}")


# -- groups ----------------------------------------------------------------------------------------------------------


def _check_groups(draft: Draft, problems: Problems) -> None:
    for name, llm in draft.llms.items():
        if isinstance(llm, GroupConfig):
            _check_group(name, llm, draft, problems)
    graph = {name: [it for _, it in members] for name, members in draft.members.items()}
    for it in draft.references:  # the other LLMs that a group names
        if it.section == "llm" and it.place[0] == "llm":
            graph.setdefault(str(it.place[1]), []).append(it.name)
    for cycle in _cycles(graph):
        problems.add(("llm", cycle[0], "members"), "a group contains itself: " + " -> ".join(map(safe, cycle)))


def _check_group(name: str, llm: GroupConfig, draft: Draft, problems: Problems) -> None:
    if isinstance(llm, ByModelConfig | FallbackConfig):
        for key in ("breaker", "max_in_flight"):
            if getattr(llm, key):
                problems.add(("llm", name, key), "a group has none of its own; it belongs into its members' tables")
    place: Place = ("llm", name, "members")
    if draft.is_unread(("llm", name), "members"):
        return
    if len(set(llm.members)) < len(llm.members):
        problems.add(place, "expected each member once")
    if not llm.members:
        problems.add(place, "expected at least one member")
    members = [draft.llms.get(member) for member in llm.members]
    if members and all(it is not None and not it.enabled for it in members):
        problems.add(place, "every member is switched off (enabled = false)")


def _cycles(graph: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """One cycle for each set of groups that contain each other, as a walk that ends where it began."""
    done = set[str]()
    for start in graph:
        path: list[str] = []
        walk: list[Iterator[str]] = [iter([start])]
        while walk:  # a stack of our own: a long chain of groups must not end in a RecursionError
            name = next(walk[-1], None)
            if name is None:
                walk.pop()
                if path:
                    done.add(path.pop())
            elif name in path:
                yield [*path[path.index(name) :], name]
            elif name not in done:
                path.append(name)
                walk.append(iter(graph.get(name, ())))


# -- use -------------------------------------------------------------------------------------------------------------


def _check_use(draft: Draft, problems: Problems) -> None:
    used: set[tuple[str, str]] = {(it.section, it.name) for it in draft.references}
    used.update(("llm", name) for members in draft.members.values() for _, name in members)
    for key, (place, message) in draft.lost.items():
        if key in used:
            problems.add(place, message)
        else:
            problems.warn(place, f"{message}; nothing names this table, so it is left out")
    for name, llm in draft.llms.items():
        if ("llm", name) not in used and llm is not None and llm.enabled:
            problems.warn(("llm", name), "no route, group or processor uses this LLM")
    for name, processor in draft.processors.items():
        if ("processor", name) not in used and processor is not None:
            problems.warn(("processor", name), "no route uses this processor")
    for name, store in draft.stores.items():
        if ("store", name) not in used and store is not None and store is not draft.implicit_store:
            problems.warn(("store", name), "no processor uses this store")


# -- workers ---------------------------------------------------------------------------------------------------------


def _check_workers(draft: Draft, problems: Problems) -> None:
    """What must be one for all workers cannot be kept in a store that each has its own of."""
    if draft.server is None or draft.server.workers == 1:
        return
    for it in draft.references:
        if it.section != "store" or it.place[0] != "processor":
            continue
        processor, store = draft.processors.get(str(it.place[1])), draft.stores.get(it.name)
        if processor is None or store is None or store.type.shared or not processor.type.needs_shared_store:
            continue
        problems.add(
            it.place,
            f'each of the {draft.server.workers} workers would have a "{safe(it.name)}" of its own, so that '
            f"{processor.type.name} would allow that many times as much; use a store of a type that processes share, "
            "or workers = 1",
        )


# -- what types find doubtful ----------------------------------------------------------------------------------------


def _ask_types(draft: Draft, registry: Registry, problems: Problems) -> None:
    tables: list[tuple[Place, str, ProcessorType[Any] | ProviderType[Any] | StoreType[Any], object]] = [
        *(
            (("llm", name), "provider", registry.providers[it.provider], it)
            for name, it in draft.llms.items()
            if it is not None and it.enabled
        ),
        *((("processor", name), "processor", it.type, it.config) for name, it in draft.processors.items() if it),
        *(
            (("store", name), "store", it.type, it.config)
            for name, it in draft.stores.items()
            if it is not None and it is not draft.implicit_store
        ),
    ]
    for place, section, kind, config in tables:
        try:
            found = [(_below(place, it), " ".join(it.message.split())) for it in kind.warnings(config)]
        except BaseException as bug:  # noqa: BLE001 - it is a plugin's code that runs here; what it asks is no condition
            raise_unless_bug(bug)
            origin = registry.origins.get((section, kind.name)) or "its plugin"
            found = [(place, f"{origin} could not look for what is doubtful ({safe(bug_words(bug))})")]
        for where, message in found:
            problems.warn(where, message)


def _below(place: Place, found: object) -> Place:
    if not isinstance(found, Problem):
        raise TypeError(f"expected a Problem, got {type(found).__name__}")
    return (*place, *read_place(found.path))


# -- server ----------------------------------------------------------------------------------------------------------


def _check_server(server: ServerConfig, draft: Draft, problems: Problems) -> None:
    place: Place = ("server",)
    if not draft.is_unread(place, "tls_certificate", "tls_key"):
        _check_tls(server, problems)
    if not server.allow_anonymous and not draft.is_unread(place, "allow_anonymous"):
        _check_exposure(server, problems)
    if _is_same_address(server):
        problems.add(("server", "own_endpoints"), "this is the address that host and port say; expected one of its own")
    if server.max_buffered_bytes < server.max_body_bytes:
        problems.warn(
            ("server", "max_buffered_bytes"), "it is less than max_body_bytes, so a body between the two never gets in"
        )
    if "*" in server.cors_allowed_origins:
        problems.warn(
            ("server", "cors_allowed_origins"),
            '"*" lets every web page that you open call the proxy; list the origins you mean',
        )


def _check_tls(server: ServerConfig, problems: Problems) -> None:
    if server.tls_certificate is not None and server.tls_key is None:
        problems.add(("server", "tls_certificate"), "tls_key is missing: a certificate needs its private key")
    if server.tls_key is not None and server.tls_certificate is None:
        problems.add(("server", "tls_key"), "tls_certificate is missing: a private key needs its certificate")


def _check_exposure(server: ServerConfig, problems: Problems) -> None:
    if not is_loopback(server.host):
        problems.add(
            ("server", "host"),
            f'"{safe(server.host)}" can be reached from other machines, and whoever reaches it would spend your keys; '
            "set allow_anonymous = true in [server] if that is meant, or bind 127.0.0.1",
        )
    if isinstance(server.own_endpoints, str) and not is_loopback(server.own_endpoints.rpartition(":")[0]):
        problems.add(
            ("server", "own_endpoints"),
            f'"{safe(server.own_endpoints)}" can be reached from other machines, and nobody is asked who he is; '
            "set allow_anonymous = true in [server] if that is meant, or choose 127.0.0.1",
        )


def _is_same_address(server: ServerConfig) -> bool:
    if not isinstance(server.own_endpoints, str):
        return False
    host, _, port = server.own_endpoints.rpartition(":")
    return host.strip("[]") == server.host.strip("[]") and int(port) == server.port != 0
