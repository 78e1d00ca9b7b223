"""What is different between two configurations, and what a reload from one to the other would lose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import attrs
import msgspec

from llmproxy_core.config import Config, ProcessorConfig, StoreConfig, TelemetryConfig
from llmproxy_core.fingerprint import fingerprint
from llmproxy_core.llm_config import HEADERS, HttpLLMConfig, without_values
from llmproxy_core.option import options
from llmproxy_core.secret import Secret
from llmproxy_server.generation import KeptSetting, kept_settings
from llmproxy_server.sharing import stores_of

Section = Literal["route", "llm", "processor", "store", "server", "telemetry"]
Kind = Literal["added", "removed", "changed"]
HIDDEN = "***"
_SECTIONS: tuple[Section, ...] = ("route", "llm", "processor", "store", "server", "telemetry")


@attrs.frozen
class Change:
    """
    A table that is different. *keys* are those of a changed one: each with its old and its new value as TOML has it.

    A value is None where the key is not there; secrets show as stars.
    """

    section: Section
    name: str
    """Of the table; "" where there is only one."""
    kind: Kind
    keys: Mapping[str, tuple[str | None, str | None]] = attrs.field(factory=dict)

    @property
    def table(self) -> str:
        """
        >>> Change("llm", "local", "added").table, Change("route", "/v1", "removed").table
        ('llm.local', 'route /v1')
        """
        if self.section == "route":
            return f"route {self.name}"
        return f"{self.section}.{self.name}" if self.name else self.section

    def __str__(self) -> str:
        if self.kind != "changed":
            return f"{self.table} {self.kind}"
        return f"{self.table} changed ({', '.join(self.keys)})"


@attrs.frozen
class Difference:
    """*drops* says, a sentence each, what a reload would lose; *restart* are the settings that it would not change."""

    changes: tuple[Change, ...]
    drops: tuple[str, ...]
    restart: tuple[KeptSetting, ...]

    @property
    def is_nothing(self) -> bool:
        return not self.changes

    @property
    def taking_effect(self) -> tuple[Change, ...]:
        """The changes without what needs a restart."""
        late = {it.name.removeprefix("server.") for it in self.restart}
        found = []
        for change in self.changes:
            if change.section == "server":
                change = attrs.evolve(change, keys={key: it for key, it in change.keys.items() if key not in late})
            if change.keys or change.kind != "changed":
                found.append(change)
        return tuple(found)


def difference(old: Config, new: Config) -> Difference:
    """What a reload of *new* would change where *old* is served."""
    changes = [it for section in _SECTIONS for it in _changes(section, _tables(section, old), _tables(section, new))]
    return Difference(tuple(changes), tuple(_drops(old, new)), kept_settings(old.server, new.server)[1])


# -- tables ----------------------------------------------------------------------------------------------------------


def _tables(section: Section, config: Config) -> Mapping[str, object]:
    tables: dict[Section, Mapping[str, object]] = {
        "route": {route.name: route for route in config.routes},
        "llm": config.llms,
        "processor": config.processors,
        "store": config.stores,
        "server": {"": config.server},
        "telemetry": {"": config.telemetry},
    }
    return tables[section]


def _changes(section: Section, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Change]:
    for name, table in old.items():
        if name not in new:
            yield Change(section, name, "removed")
        elif table != new[name] and (keys := _keys(table, new[name])):
            yield Change(section, name, "changed", keys)
    for name in new:
        if name not in old:
            yield Change(section, name, "added")


def _keys(old: object, new: object) -> Mapping[str, tuple[str | None, str | None]]:
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return {
        key: (written(before.get(key)), written(after.get(key)))
        for key in [*before, *(key for key in after if key not in before)]
        if before.get(key) != after.get(key)
    }


def _leaves(table: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The keys of *table*, dotted, with their values."""
    if isinstance(table, ProcessorConfig | StoreConfig):
        yield "type", table.type.name
        yield from _leaves(table.config)
        others = {it.name for it in attrs.fields(type(table))} - {"name", "type", "config"}
        yield from ((name, getattr(table, name)) for name in sorted(others))
        return
    secret = {field.name for field, declared in options(type(table)) if declared.secret}
    for field in attrs.fields(type(table)):
        value = getattr(table, field.name)
        name = f"{prefix}{field.name}"
        if field.name in secret and value is not None:
            yield name, value if isinstance(value, Secret) else Secret(str(value) or HIDDEN)
        elif field.name == HEADERS and isinstance(table, HttpLLMConfig | TelemetryConfig):
            yield name, without_values(value)
        elif attrs.has(type(value)) and not isinstance(value, Secret):
            yield from _leaves(value, f"{name}.")
        elif not (field.name == "name" and not prefix):
            yield name, value


def written(value: object) -> str | None:
    """*value* as TOML has it, as far as it can say it; secrets are stars. None for None."""
    if value is None:
        return None
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def _plain(value: Any) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


# -- what is lost ----------------------------------------------------------------------------------------------------


def _drops(old: Config, new: Config) -> Iterator[str]:
    for name, store in old.stores.items():
        users = [it for it in old.processors.values() if name in stores_of(it)]
        if not store.type.shared and new.stores.get(name) != store and users:
            yield f"the content of store.{name}, which is in memory alone: {', '.join(map(_kept_by, users))}"
    for name, processor in old.processors.items():
        after = new.processors.get(name)
        left = [it for it in stores_of(processor) if after is None or it not in stores_of(after)]
        left = [it for it in left if old.stores[it].type.shared or new.stores.get(it) == old.stores[it]]
        if left:
            yield f"{_kept_by(processor)}: it stays in {', '.join(f'store.{it}' for it in left)}, and is not asked for"
    yield from _unreachable(old, new)
    yield from _connections(old, new)


def _kept_by(processor: ProcessorConfig) -> str:
    if processor.type.needs_shared_store:
        return f"what processor.{processor.name} counted (its limits begin anew)"
    return f"what processor.{processor.name} kept"


def _unreachable(old: Config, new: Config) -> Iterator[str]:
    """Answers are kept for a route as it is configured: for another one they would be wrong."""
    routes = {route.name: route for route in new.routes}
    for route in old.routes:
        after = routes.get(route.name)
        keeping = [
            f"processor.{name}"
            for name in route.processors
            if stores_of(old.processors[name]) and not old.processors[name].type.needs_shared_store
        ]
        if keeping and after is not None and fingerprint(route, old) != fingerprint(after, new):
            yield f"the answers of route {route.name} that {', '.join(keeping)} kept: it may answer otherwise now"


def _connections(old: Config, new: Config) -> Iterator[str]:
    needed = {llm.pool for llm in new.llms.values() if isinstance(llm, HttpLLMConfig) and llm.enabled}
    idle = [
        f"llm.{name}"
        for name, llm in old.llms.items()
        if isinstance(llm, HttpLLMConfig) and llm.enabled and llm.pool not in needed
    ]
    if idle:
        yield f"the idle connections of {', '.join(idle)}"
