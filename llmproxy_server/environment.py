"""
The environment and the command line, laid over a configuration file before it is read.

Command line > environment (`.env` fills what is unset) > file > default. `HOST` is not read: shells set it to the name
of the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from dotenv.parser import Original, parse_stream

from llmproxy_core.config_path import Place, written
from llmproxy_core.config_problem import Problems, shown
from llmproxy_core.errors import Problem
from llmproxy_core.group_config import FallbackConfig
from llmproxy_core.llm_config import HttpLLMConfig, LLMConfig
from llmproxy_core.option import options
from llmproxy_core.plugins import Registry
from llmproxy_server.environment_proxy import proxy_variable
from llmproxy_server.variables import LLM_VARIABLES, SERVER_VARIABLES, TELEMETRY_VARIABLES, Variable, option_variables

COMMAND_LINE = "command line"
DOTENV = ".env"


@attrs.frozen
class Environment:
    """The *variables* that are set, and what is wrong with the file of those that are not."""

    variables: Mapping[str, str] = attrs.field(repr=False)
    problems: tuple[Problem, ...] = ()


def read_environment(environ: Mapping[str, str], directory: Path) -> Environment:
    """*environ*, and what `.env` in *directory* adds to it."""
    try:
        with (directory / DOTENV).open(encoding="utf-8") as file:
            found = list(parse_stream(file))
    except (FileNotFoundError, IsADirectoryError):
        return Environment(dict(environ))
    except UnicodeDecodeError:
        return Environment(dict(environ), (Problem(DOTENV, "cannot be read: it is not UTF-8"),))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return Environment(dict(environ), (Problem(DOTENV, f"cannot be read: {reason}"),))
    said = {each.key: each.value for each in found if each.key and each.value is not None}
    message = "is no variable; expected NAME=VALUE"  # not what it is: perhaps a key
    # The line is in the path: `line` is that of the configuration.
    wrong = (Problem(f"{DOTENV} line {_line(each.original)}", message) for each in found if each.error)
    return Environment(said | dict(environ), tuple(wrong))


def _line(statement: Original) -> int:
    """Where it stands: what is read as one begins with the empty lines before it."""
    said = statement.string
    return statement.line + said[: len(said) - len(said.lstrip())].count("\n")


# -- the overlay -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Overlaid:
    """
    A configuration with the environment and the command line laid over it.

    *origins* names where the keys (as paths: `server.port`) come from that do not come from the file. *table_keys* are
    those that the environment sets outside `[server]`, each with its value and the variable: `llm.*.timeouts.idle_s`
    for every LLM over HTTP, `processor.NAME.key` for one processor.
    """

    document: Mapping[str, object]
    origins: Mapping[str, str]
    problems: tuple[Problem, ...]
    table_keys: tuple[tuple[str, object, str], ...] = ()


def overlay(
    document: Mapping[str, object],
    registry: Registry,
    env: Mapping[str, str],
    command_line: Mapping[str, object],
) -> Overlaid:
    """
    *document* with what *env* and *command_line* say instead; the original is not changed.

    *command_line* maps dotted keys (`server.port`, `server.log.level`) to values; None is a flag not given.
    """
    origins: dict[str, str] = {}
    problems = Problems()
    result = dict(document)
    given = {key: value for key, value in command_line.items() if value is not None}
    for variable, value in _set(SERVER_VARIABLES, env, problems):
        _put_in(result, "server", variable.key, value)
        origins[f"server.{variable.key}"] = variable.name
        if variable.key == "debug" and value:
            _put_in(result, "server", "log.level", "debug")
            origins["server.log.level"] = variable.name
    for variable, value in _set(TELEMETRY_VARIABLES, env, problems):
        for key, each in value.items() if isinstance(value, Mapping) else [(variable.key, value)]:
            _put_in(result, "telemetry", key, each)
            origins[f"telemetry.{key}"] = variable.name
    for key, value in given.items():
        _put_in(result, "server", key.removeprefix("server."), value)
        origins[key] = COMMAND_LINE
    table_keys: list[tuple[str, object, str]] = []
    names = list(_of_kind(result, registry, HttpLLMConfig))
    grouped = list(_of_kind(result, registry, FallbackConfig))
    for variable, value in _set(LLM_VARIABLES, env, problems):
        for name in [*names, *grouped] if variable.key.startswith("retries.") else names:
            origins[written(("llm", name, *variable.key.split(".")))] = variable.name
            _put_llm(result, name, variable.key, value)
        if names:
            table_keys.append((f"llm.*.{variable.key}", value, variable.name))
    for name, variable_name in _proxied(result, names, env):
        origins[written(("llm", name, "proxy"))] = variable_name
        _put_llm(result, name, "proxy", {"env": variable_name})
        table_keys.append((f"llm.{name}.proxy", "***", variable_name))
    for table in list(_typed(result, registry)):
        for variable, value in _set(option_variables(table.config), env, problems):
            path = written(table.put(result, variable.key, value))
            origins[path] = variable.name
            table_keys.append((path, "***" if variable.is_secret else value, variable.name))
    return Overlaid(result, origins, tuple(problems.errors), tuple(table_keys))


def _set(
    variables: Iterable[Variable], env: Mapping[str, str], problems: Problems
) -> Iterator[tuple[Variable, object]]:
    """The variables that are set, with their values; an empty one is not."""
    for variable in variables:
        text = env.get(variable.name, "").strip()
        if not text:
            continue
        try:
            yield variable, variable.read(text)
        except ValueError as error:
            got = "" if variable.is_secret else f", got {shown(text)}"
            problems.add((variable.name,), f"{error}{got} in the environment")


def _put_in(document: dict[str, object], section: str, key: str, value: object) -> None:
    table = document.get(section, {})
    if isinstance(table, Mapping):  # what is no table is reported when it is read
        document[section] = _put(table, key.split("."), value)


def _put_llm(document: dict[str, object], name: str, key: str, value: object) -> None:
    llms = document["llm"]
    assert isinstance(llms, Mapping)
    document["llm"] = {**llms, name: _put(llms[name], key.split("."), value)}


def _put(table: Mapping[str, object], keys: list[str], value: object) -> dict[str, object]:
    first, *rest = keys
    if not rest:
        return {**table, first: value}
    inner = table.get(first, {})
    return {**table, first: _put(inner, rest, value) if isinstance(inner, Mapping) else inner}


def _of_kind(document: Mapping[str, object], registry: Registry, config: type[LLMConfig]) -> Iterator[str]:
    """The LLMs whose tables are of the class *config*."""
    llms = document.get("llm")
    for name, table in list(llms.items()) if isinstance(llms, Mapping) else []:
        if not isinstance(table, Mapping) or not isinstance(table.get("provider"), str):
            continue
        kind = registry.providers.get(table["provider"])
        if kind is not None and issubclass(kind.config, config):
            yield name


# -- proxies ---------------------------------------------------------------------------------------------------------


def _proxied(document: Mapping[str, object], names: Iterable[str], env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The LLMs that the environment has a proxy for, and the variable that says which."""
    llms = document["llm"] if names else {}
    assert isinstance(llms, Mapping)
    for name in names:
        table = llms[name]
        url = table.get("base_url")
        if not isinstance(url, str) or table.keys() & {"proxy", "unix_socket"} or table.get("transport") == "wire":
            continue
        if (variable := proxy_variable(url, env)) is not None:
            yield name, variable


# -- tables of types -------------------------------------------------------------------------------------------------


@attrs.frozen
class _Typed:
    """A table of a processor or a store, whose further keys *config* says."""

    section: str
    name: str
    config: type[Any]

    def put(self, document: dict[str, object], key: str, value: object) -> Place:
        """Put *value* into *document* where the table has *key*; gives the place."""
        tables = document[self.section]
        assert isinstance(tables, Mapping)
        table = tables[self.name]
        keys = self._written(table, key)
        document[self.section] = {**tables, self.name: _put(table, keys, value)}
        return self.section, self.name, *keys

    def _written(self, table: Mapping[str, object], key: str) -> list[str]:
        """Where *table* has *key*: a processor's may stand in additional_config, or as config_value."""
        if self.section != "processor" or key in table:
            return [key]
        additional = table.get("additional_config")
        if isinstance(additional, Mapping) and key in additional:
            return ["additional_config", key]
        short = next((field.name for field, declared in options(self.config) if declared.fills_config_value), None)
        return ["config_value"] if short == key and "config_value" in table else [key]


def _typed(document: Mapping[str, object], registry: Registry) -> Iterator[_Typed]:
    """The tables of processors and stores whose type is registered."""
    sections: dict[str, Mapping[str, Any]] = {"processor": registry.processors, "store": registry.stores}
    for section, kinds in sections.items():
        tables = document.get(section)
        for name, table in tables.items() if isinstance(tables, Mapping) else ():
            type_name = table.get("type") if isinstance(table, Mapping) else None
            if isinstance(type_name, str) and type_name in kinds:
                yield _Typed(section, name, kinds[type_name].config)
