"""
The environment and the command line, laid over a configuration file before it is read.

Command line > environment (`.env` fills what is unset) > file > default. `HOST` is not read: shells set it to the name
of the machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
from dotenv import dotenv_values

from llmproxy_core.config_path import written
from llmproxy_core.config_problem import Problems, shown
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.llm_config import HttpLLMConfig
from llmproxy_core.plugins import Registry

LEVELS = ("trace", "debug", "info", "warn", "error")
COMMAND_LINE = "command line"
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|h|m|s))+", re.ASCII)
_DURATION_PART = re.compile(r"([\d.]+)(ms|h|m|s)", re.ASCII)
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def read_environment(environ: Mapping[str, str], directory: Path) -> dict[str, str]:
    """*environ*, and what `.env` in *directory* adds to it. ConfigError when that file cannot be read."""
    path = directory / ".env"
    if not path.is_file():
        return dict(environ)
    try:
        added = dotenv_values(path, interpolate=False, encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(".env", "cannot be read: it is not UTF-8")]) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise ConfigError([Problem(".env", f"cannot be read: {reason}")]) from error
    return {name: value for name, value in added.items() if value is not None} | dict(environ)


# -- values of variables ---------------------------------------------------------------------------------------------


def read_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or int(text) > 65535:
        raise ValueError("expected a TCP port from 0 to 65535")
    return int(text)


def read_count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise ValueError("expected a count, 0 or more")
    return int(text)


def read_seconds(text: str) -> float:
    """Seconds, as a plain number or as Go writes durations: "90s", "1m30s", "500ms"."""
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise ValueError('expected seconds, or a duration such as "90s" or "1m30s"')
    total = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))
    if total > 1_000_000_000:
        raise ValueError("expected a shorter duration")
    return total


def read_idle_seconds(text: str) -> float:
    if not (found := read_seconds(text)):
        raise ValueError("expected a duration above 0")
    return found


def read_switch(text: str) -> bool:
    lower = text.lower()
    if lower not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ValueError("expected true or false")
    return lower in ("1", "true", "yes", "on")


def read_level(text: str) -> str:
    if text.lower() not in LEVELS:
        raise ValueError("expected one of " + ", ".join(LEVELS))
    return text.lower()


def read_host(text: str) -> str:
    return text  # checked with the rest of [server]


@attrs.frozen
class Variable:
    """An environment variable that stands for a key: of `[server]`, or of every LLM over HTTP."""

    name: str
    key: str
    read: Callable[[str], object]
    doc: str


SERVER_VARIABLES = (
    # PORT before PROXY_API_PORT, LOG_LEVEL after PROXY_API_DEBUG: the later one wins.
    Variable("PROXY_API_HOST", "host", read_host, "The address to bind."),
    Variable("PORT", "port", read_port, "The TCP port, as hosting platforms set it."),
    Variable("PROXY_API_PORT", "port", read_port, "The TCP port; wins over PORT."),
    Variable("PROXY_API_DEBUG", "debug", read_switch, "true: log at level debug, where LOG_LEVEL is not set."),
    Variable("LOG_LEVEL", "log.level", read_level, "trace, debug, info, warn or error."),
)
LLM_VARIABLES = (
    Variable("HTTP_TIMEOUT", "timeouts.first_byte_s", read_seconds, "Longest wait for the first byte of an answer."),
    Variable("MAX_IDLE_CONNS", "pool.max_connections", read_count, "Connections to all hosts together; 0: no bound."),
    Variable(
        "MAX_IDLE_CONNS_PER_HOST", "pool.max_connections_per_host", read_count, "Connections to one host; 0: no bound."
    ),
    Variable("IDLE_CONN_TIMEOUT", "pool.idle_s", read_idle_seconds, "How long an unused connection is kept."),
)


# -- the overlay -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Overlaid:
    """
    A configuration with the environment and the command line laid over it.

    *origins* names where the keys (as paths: `server.port`) come from that do not come from the file. *llm_keys* are
    those that the environment sets for every LLM over HTTP: the key, its value, the variable.
    """

    document: Mapping[str, object]
    origins: Mapping[str, str]
    problems: tuple[Problem, ...]
    llm_keys: tuple[tuple[str, object, str], ...] = ()


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
        _put_server(result, variable.key, value)
        origins[f"server.{variable.key}"] = variable.name
        if variable.key == "debug" and value:
            _put_server(result, "log.level", "debug")
            origins["server.log.level"] = variable.name
    for key, value in given.items():
        _put_server(result, key.removeprefix("server."), value)
        origins[key] = COMMAND_LINE
    llm_keys: list[tuple[str, object, str]] = []
    names = list(_over_http(result, registry))
    for variable, value in _set(LLM_VARIABLES, env, problems):
        for name in names:
            origins[written(("llm", name, *variable.key.split(".")))] = variable.name
            _put_llm(result, name, variable.key, value)
        if names:
            llm_keys.append((variable.key, value, variable.name))
    return Overlaid(result, origins, tuple(problems.errors), tuple(llm_keys))


def _set(
    variables: tuple[Variable, ...], env: Mapping[str, str], problems: Problems
) -> Iterator[tuple[Variable, object]]:
    """The variables that are set, with their values; an empty one is not."""
    for variable in variables:
        text = env.get(variable.name, "").strip()
        if not text:
            continue
        try:
            yield variable, variable.read(text)
        except ValueError as error:
            problems.add((variable.name,), f"{error}, got {shown(text)} in the environment")


def _put_server(document: dict[str, object], key: str, value: object) -> None:
    server = document.get("server", {})
    if isinstance(server, Mapping):  # what is no table is reported when it is read
        document["server"] = _put(server, key.split("."), value)


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


def _over_http(document: Mapping[str, object], registry: Registry) -> Iterator[str]:
    """The LLMs that are reached over HTTP."""
    llms = document.get("llm")
    for name, table in list(llms.items()) if isinstance(llms, Mapping) else []:
        if not isinstance(table, Mapping) or not isinstance(table.get("provider"), str):
            continue
        kind = registry.providers.get(table["provider"])
        if kind is not None and issubclass(kind.config, HttpLLMConfig):
            yield name
