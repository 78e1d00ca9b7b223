"""Every setting of the server and of telemetry, and what the environment sets in other tables, with its origin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs

from llmproxy_core.config import Config
from llmproxy_core.llm_config import HEADERS, without_values
from llmproxy_core.option import options

DEFAULT = "default"


@attrs.frozen
class Setting:
    """*name* is dotted (`server.log.level`); *origin* a variable, a file, "command line" or "default"."""

    name: str
    value: object
    origin: str


@attrs.frozen
class Settings:
    """
    All settings of the server and of telemetry, in the order of the reference.

    *tables* are the keys of other tables that the environment sets: `llm.*.timeouts.idle_s` for every LLM over HTTP,
    `processor.NAME.key` for one processor.
    """

    all: tuple[Setting, ...]
    tables: tuple[Setting, ...] = ()

    def __getitem__(self, name: str) -> Setting:
        """The setting *name*, that of a server also without the leading `server.`; KeyError when there is none."""
        full = name if name.startswith(("server.", "telemetry.")) else f"server.{name}"
        for setting in self.all:
            if setting.name == full:
                return setting
        raise KeyError(name)

    def __iter__(self) -> Iterator[Setting]:
        return iter(self.all)


def settings(
    config: Config,
    document: Mapping[str, object],
    origins: Mapping[str, str],
    file: str,
    table_keys: Iterable[tuple[str, object, str]] = (),
) -> Settings:
    """
    The settings of *config*'s server and telemetry.

    *document* is the file's content, *origins* and *table_keys* what the overlay says of other keys, *file* the
    file's name.
    """
    return Settings(
        (
            *_settings(config.server, document.get("server"), "server", origins, file),
            *_settings(config.telemetry, document.get("telemetry"), "telemetry", origins, file),
        ),
        tuple(Setting(name, value, origin) for name, value, origin in table_keys),
    )


def _settings(config: object, table: object, prefix: str, origins: Mapping[str, str], file: str) -> Iterator[Setting]:
    for field, _ in options(type(config)):
        name = f"{prefix}.{field.name}"
        value = getattr(config, field.name)
        written = isinstance(table, Mapping) and field.name in table
        if attrs.has(type(value)):
            inner = table[field.name] if isinstance(table, Mapping) and written else None
            yield from _settings(value, inner, name, origins, file)
        else:
            value = without_values(value) if field.name == HEADERS else value
            yield Setting(name, value, origins.get(name, file if written else DEFAULT))
