"""The environment variables that stand for keys, and how their text is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from llmproxy_core.option import options, variable_type

LEVELS = ("trace", "debug", "info", "warn", "error")
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|h|m|s))+", re.ASCII)
_DURATION_PART = re.compile(r"([\d.]+)(ms|h|m|s)", re.ASCII)
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


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


def read_text(text: str) -> str:
    return text  # checked with the rest of its table


def read_integer(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        raise ValueError("expected an integer")
    return int(text)


def read_number(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", text, re.ASCII):
        raise ValueError("expected a number")
    return float(text)


@attrs.frozen
class Variable:
    """An environment variable that stands for a key: of `[server]`, of every LLM over HTTP, or of a type's tables."""

    name: str
    key: str
    read: Callable[[str], object]
    doc: str
    is_secret: bool = False
    """A value is never shown."""


SERVER_VARIABLES = (
    # PORT before PROXY_API_PORT, LOG_LEVEL after PROXY_API_DEBUG: the later one wins.
    Variable("PROXY_API_HOST", "host", read_text, "The address to bind."),
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


def option_variables(config: type[Any]) -> Iterator[Variable]:
    """The variables that win over keys of the tables that the configuration class *config* stands for."""
    for field, declared in options(config):
        if declared.env is not None:
            yield Variable(declared.env, field.name, _reader(field), declared.doc, is_secret=declared.secret)


def _reader(field: attrs.Attribute[Any]) -> Callable[[str], object]:
    kind = variable_type(field)
    if kind is float and field.name.endswith("_s"):
        return read_seconds
    readers: dict[Any, Callable[[str], object]] = {bool: read_switch, int: read_integer, float: read_number}
    return readers.get(kind, read_text)
