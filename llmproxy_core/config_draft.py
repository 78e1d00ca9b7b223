"""A configuration as far as it could be read: the tables that are right, and the names of all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import attrs

from llmproxy_core.config_names import Reference, names, references
from llmproxy_core.config_path import Place
from llmproxy_core.config_problem import Problems, nearest, safe, shown
from llmproxy_core.config_read import TableReader
from llmproxy_core.config_tables import (
    ProcessorConfig,
    ProcessorTable,
    RouteConfig,
    ServerConfig,
    StoreConfig,
    StoreTable,
    TelemetryConfig,
)
from llmproxy_core.config_types import environment_secret, not_set
from llmproxy_core.hookspecs import ProcessorType, ProviderType
from llmproxy_core.llm_config import HttpLLMConfig, Key, LLMConfig
from llmproxy_core.option import options
from llmproxy_core.plugins import Registry
from llmproxy_core.secret import Secret

T = TypeVar("T")

SECTIONS = ("server", "telemetry", "llm", "processor", "store", "route")
_TYPES = {"llm": "provider", "processor": "processor type", "store": "store type"}
"""What the tables of a section are built by, in words."""
IMPLICIT_STORE = "memory"
"""The store that is there without a table, and its type."""
_MORE_THAN_A_KEY = re.compile(r"[\"']|bearer\s", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)


@attrs.define
class Draft:
    """
    What `check` works on, so that a mistake in a table does not hide those between tables.

    Of a table with mistakes, which were reported, there is what could be read; None when that is nothing. The keys
    that could not are in *unread*. *members* are the members of groups, each with its place, *references* all other
    names of tables. *lost* has the tables whose type nobody registers, while there are plugins that could not be used:
    the place of the type, and what is to be said. *implicit_store* is among the *stores*, and has no table.
    """

    server: ServerConfig | None = None
    telemetry: TelemetryConfig | None = None
    llms: dict[str, LLMConfig | None] = attrs.field(factory=dict)
    processors: dict[str, ProcessorConfig | None] = attrs.field(factory=dict)
    stores: dict[str, StoreConfig | None] = attrs.field(factory=dict)
    routes: list[RouteConfig | None] = attrs.field(factory=list)
    implicit_store: StoreConfig | None = None
    members: dict[str, list[tuple[Place, str]]] = attrs.field(factory=dict)
    references: list[Reference] = attrs.field(factory=list)
    lost: dict[tuple[str, str], tuple[Place, str]] = attrs.field(factory=dict)
    unread: dict[Place, frozenset[str]] = attrs.field(factory=dict)

    def is_unread(self, place: Place, *keys: str) -> bool:
        """Whether one of *keys* of the table at *place* could not be read."""
        return not self.unread.get(place, frozenset()).isdisjoint(keys)


def broken_plugins(registry: Registry) -> str:
    """What a message about something that nobody registers ends in: who might have."""
    broken = "; ".join(str(it) for it in registry.broken)
    return f"; plugins that could not be used: {broken}" if broken else ""


class DraftReader:
    """Reads the sections; what is wrong goes to *problems*."""

    def __init__(self, registry: Registry, env: Mapping[str, str], problems: Problems) -> None:
        self._registry = registry
        self._env = env
        self._problems = problems
        self._tables = TableReader(problems, env)
        self._draft = Draft()

    def read(self, document: object) -> Draft:
        if not isinstance(document, Mapping):
            self._problems.add(("document",), f"expected a table, got {shown(document)}")
            return self._draft
        for key in document:
            if key not in SECTIONS:
                known = [f"[[{it}]]" if it == "route" else f"[{it}]" for it in SECTIONS]
                self._problems.add((str(key),), f"unknown table; {_nearest_section(str(key), known)}")
        self._draft.server = self._read_server(document.get("server", {}))
        self._draft.telemetry = self._read(TelemetryConfig, document.get("telemetry", {}), ("telemetry",))
        for name, table in self._named(document, "llm"):
            self._draft.llms[name] = self._read_llm(name, table)
        for name, table in self._named(document, "processor"):
            self._draft.processors[name] = self._read_processor(name, table)
        for name, table in self._named(document, "store"):
            self._draft.stores[name] = self._read_store(name, table)
        self._add_implicit_store()
        self._read_routes(document.get("route"))
        return self._draft

    def _named(self, document: Mapping[str, object], section: str) -> Iterator[tuple[str, Mapping[str, object]]]:
        """The tables of *section* by name; a name that cannot be used is reported, its table is read all the same."""
        tables = document.get(section, {})
        if not isinstance(tables, Mapping):
            self._problems.add((section,), f"expected tables [{section}.NAME], got {shown(tables)}")
            return
        for name, table in tables.items():
            if not _NAME.fullmatch(name):
                self._problems.add((section, name), "expected a name of up to 64 letters, digits, _ - and .")
            if isinstance(table, Mapping):
                yield name, table
            else:
                self._problems.add((section, name), f"expected a table [{section}.NAME], got {shown(table)}")

    def _read_server(self, table: object) -> ServerConfig | None:
        server = self._read(ServerConfig, table, ("server",))
        log = table.get("log", {}) if isinstance(table, Mapping) else {}
        if server is not None and server.debug and "level" not in log:
            server = attrs.evolve(server, log=attrs.evolve(server.log, level="debug"))
        return server

    def _read(
        self,
        config: type[T],
        table: object,
        place: Place,
        stand_ins: Mapping[str, object] | None = None,
        *,
        needs_secrets: bool = True,
    ) -> T | None:
        """The *config* in *table*; of one with mistakes, which are reported, what is right in it."""
        value = self._tables.read(config, table, place, needs_secrets=needs_secrets)
        if value is not None:
            return value
        rest = self._tables.rest(config, table, stand_ins or {})
        self._draft.unread[place] = rest.keys
        return rest.value

    # -- LLMs --------------------------------------------------------------------------------------------------------

    def _read_llm(self, name: str, table: Mapping[str, object]) -> LLMConfig | None:
        place: Place = ("llm", name)
        self._draft.members[name] = _array_names(table.get("members"), (*place, "members"))
        kind = self._type(table, place, "provider", self._registry.providers)
        enabled = table.get("enabled") is not False
        if kind is None:
            self._read_usual(table, place, needs_secrets=enabled)
            return None
        self._draft.references.extend(references(kind.config, table, place))
        config: Any = self._read(
            kind.config, table, place, {"base_url": "http://stand-in", "members": []}, needs_secrets=enabled
        )
        if config is None:
            return None
        config = attrs.evolve(config, name=name)
        return self._completed(config, kind, place) if isinstance(config, HttpLLMConfig) else config

    def _read_usual(self, table: Mapping[str, object], place: Place, *, needs_secrets: bool) -> None:
        """What is wrong with the keys that nearly every provider has, in a table whose provider nobody knows."""
        usual = {field.name for field, _ in options(HttpLLMConfig)}
        known = {key: value for key, value in table.items() if key in usual}
        config = self._read(
            HttpLLMConfig,
            {"base_url": "http://stand-in", **known, "provider": ""},
            place,
            {"base_url": "http://stand-in"},
            needs_secrets=needs_secrets,
        )
        if config is not None and config.token_env is not None and needs_secrets:
            self._keys(config.token_env, place)

    def _keys(self, written: str | tuple[str, ...], place: Place) -> tuple[Key, ...]:
        """What the variables hold; those that hold nothing that can be sent are left out, with a problem."""
        names = (written,) if isinstance(written, str) else written
        found = [(name, self._check_token(name, place)) for name in names]
        return tuple(Key(name, token) for name, token in found if token is not None)

    def _check_token(self, variable: str, place: Place) -> Secret | None:
        """The key that *variable* holds; None, with a problem, when it holds none that can be sent."""
        token = environment_secret(self._env, variable)
        if token is None:
            self._problems.add((*place, "token_env"), not_set(variable))
        elif not (token.reveal().isascii() and token.reveal().isprintable()):
            message = f"environment variable {variable} holds characters that no header can carry"
            self._problems.add((*place, "token_env"), message)
        elif _MORE_THAN_A_KEY.match(token.reveal()):
            message = f"environment variable {variable} holds more than the key: leave quotes and 'Bearer' out"
            self._problems.add((*place, "token_env"), message)
        return token

    def _completed(self, config: HttpLLMConfig, kind: ProviderType[Any], place: Place) -> HttpLLMConfig:
        """*config* with its type and its key."""
        chosen = config.type or kind.default_type
        unread = self._draft.is_unread
        if config.type is not None and config.type not in kind.types:
            advice = nearest(config.type, kind.types, f"types of provider {kind.name}")
            self._problems.add((*place, "type"), f'no type "{safe(config.type)}"; {advice}')
        elif chosen is None and kind.types and not unread(place, "type"):
            self._problems.add((*place, "type"), f"missing; expected one of {', '.join(sorted(kind.types))}")
        elif chosen is not None and kind.types[chosen] not in self._registry.dialects:
            advice = nearest(kind.types[chosen], self._registry.dialects, "registered")
            self._problems.add(
                (*place, "type"),
                f'nobody registers the dialect "{kind.types[chosen]}"; {advice}{broken_plugins(self._registry)}',
            )
        config = attrs.evolve(config, type=chosen)
        self._check_way(config, place)
        if config.token_env is None or not config.enabled or unread(place, "enabled"):
            return config
        keys = self._keys(config.token_env, place)
        return attrs.evolve(config, token=keys[0].token if keys else None, keys=keys if len(keys) > 1 else ())

    def _check_way(self, config: HttpLLMConfig, place: Place) -> None:
        """Whether the ways to reach it go together."""
        ways = [name for name in ("proxy", "unix_socket") if getattr(config.connections, name) is not None]
        if len(ways) > 1:
            self._problems.add((*place, "unix_socket"), "no proxy leads to a Unix socket; give one of them")
        if ways and config.transport == "wire":
            self._problems.add((*place, "transport"), f'"wire" has no {ways[0]}; expected "aiohttp", or no such key')
        if config.unix_socket is not None and not config.base_url.lower().startswith("http:"):
            self._problems.add((*place, "base_url"), "expected http: there is no TLS on a Unix socket")

    # -- processors --------------------------------------------------------------------------------------------------

    def _read_processor(self, name: str, table: Mapping[str, object]) -> ProcessorConfig | None:
        place: Place = ("processor", name)
        own_keys = [field.name for field, _ in options(ProcessorTable)]
        kind = self._type(table, place, "type", self._registry.processors)
        common = self._read(ProcessorTable, {key: table[key] for key in own_keys if key in table} | {"type": ""}, place)
        if kind is None:
            return None
        merged: dict[str, object] = {key: value for key, value in table.items() if key not in own_keys}
        moved: dict[str, Place] = {}
        self._merge_additional(table.get("additional_config"), merged, moved, place)
        self._fill_config_value(table, kind, merged, moved, place)
        config: object = self._tables.read(kind.config, merged, place, moved=moved)
        self._draft.references.extend(references(kind.config, merged, place, moved))
        if common is None:
            return None
        # With a configuration that is wrong, and was reported, it is never built; what it covers is known all the same.
        return ProcessorConfig(
            name=name,
            type=kind,
            config=config,
            uncovered=common.uncovered,
            timeout_s=common.timeout_s,
            on_error=common.on_error,
        )

    def _merge_additional(
        self, additional: object, merged: dict[str, object], moved: dict[str, Place], place: Place
    ) -> None:
        if not isinstance(additional, Mapping):
            return  # absent, or reported
        for key, value in additional.items():
            where = (*place, "additional_config", key)
            if key in merged:
                self._problems.add(where, "given twice: here, and in the table itself")
            else:
                merged[key] = value
                moved[key] = where

    def _fill_config_value(
        self,
        table: Mapping[str, object],
        kind: ProcessorType[Any],
        merged: dict[str, object],
        moved: dict[str, Place],
        place: Place,
    ) -> None:
        if "config_value" not in table:
            return
        where = (*place, "config_value")
        key = next((field.name for field, declared in options(kind.config) if declared.fills_config_value), None)
        if key is None:
            self._problems.add(where, f"type {kind.name} has no key that config_value stands for; write the key itself")
        elif key in merged:
            self._problems.add(where, f"given twice: config_value stands for {key}, which is given too")
        else:
            merged[key] = table["config_value"]
            moved[key] = where

    # -- stores ------------------------------------------------------------------------------------------------------

    def _read_store(self, name: str, table: Mapping[str, object]) -> StoreConfig | None:
        place: Place = ("store", name)
        kind = self._type(table, place, "type", self._registry.stores)
        if kind is None:
            return None
        every = {field.name for field, _ in options(StoreTable)}
        own = {key: value for key, value in table.items() if key not in every}
        config: object = self._tables.read(kind.config, own, place)
        self._draft.references.extend(references(kind.config, own, place))
        return StoreConfig(name=name, type=kind, config=config)

    def _add_implicit_store(self) -> None:
        """The store that is there without a table, unless its type cannot do without a key."""
        kind = self._registry.stores.get(IMPLICIT_STORE)
        if kind is None or IMPLICIT_STORE in self._draft.stores:
            return
        config: object = self._tables.rest(kind.config, {}, {}).value
        if config is not None:
            store = StoreConfig(name=IMPLICIT_STORE, type=kind, config=config)
            self._draft.implicit_store = self._draft.stores[IMPLICIT_STORE] = store

    # -- routes ------------------------------------------------------------------------------------------------------

    def _read_routes(self, routes: object) -> None:
        if routes is None:
            self._problems.add(("route",), "no [[route]]: nothing would be served")
            return
        if not isinstance(routes, list | tuple) or not all(isinstance(it, Mapping) for it in routes):
            self._problems.add(("route",), f"expected tables [[route]], with two brackets, got {shown(routes)}")
            return
        if not routes:
            self._problems.add(("route",), "no [[route]]: nothing would be served")
        for index, table in enumerate(routes):
            place: Place = ("route", index)
            self._draft.routes.append(self._read(RouteConfig, table, place, {"path_prefix": "/", "target_llm": ""}))
            self._draft.references.extend(references(RouteConfig, table, place))

    def _type(self, table: Mapping[str, object], place: Place, key: str, known: Mapping[str, Any]) -> Any:
        """What is registered under the table's *key*; None when nothing is."""
        value = table.get(key)
        if isinstance(value, str) and value in known:
            return known[value]
        section, name = str(place[0]), str(place[1])
        where, noun = (*place, key), _TYPES[section]
        advice = nearest(value if isinstance(value, str) else "", known, "registered")
        if value is None:
            self._problems.add(where, f"missing; expected the name of a {noun} ({advice})")
        elif not isinstance(value, str):
            self._problems.add(where, f"expected the name of a {noun}, got {shown(value)}; {advice}")
        elif self._registry.broken:  # whether it is needed, all tables together tell
            message = f"no {noun} {shown(value)}; {advice}{broken_plugins(self._registry)}"
            self._draft.lost[section, name] = where, message
        else:
            self._problems.add(where, f"no {noun} {shown(value)}; {advice}")
        return None


def _nearest_section(key: str, known: list[str]) -> str:
    close = nearest(key, SECTIONS, "").partition(" (")[0]
    listed = ", ".join(known)
    return f"{close} (known: {listed})" if close.startswith("did you mean") else f"known: {listed}"


def _array_names(value: object, place: Place) -> list[tuple[Place, str]]:
    """The names in an array, each with its place; what is no string is reported where the table is read."""
    return list(names(value, place)) if isinstance(value, list | tuple) else []
