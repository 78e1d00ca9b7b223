"""
From the mapping that a TOML file holds to a checked, frozen `Config`; every problem is found at once.

Paths in problems are TOML's: `llm.local.base_url`; elements of arrays, the `[[route]]` tables too, count from 1:
`route[1].processors[2]` is the second processor of the first route.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from llmproxy_core.config_check import check, is_loopback
from llmproxy_core.config_draft import DraftReader
from llmproxy_core.config_problem import Problems
from llmproxy_core.config_routes import served_operations, uncovered_operations
from llmproxy_core.config_tables import (
    Config,
    LogConfig,
    ProcessorConfig,
    RouteConfig,
    ServerConfig,
    StoreConfig,
    TelemetryConfig,
)
from llmproxy_core.errors import ConfigError, Problem
from llmproxy_core.frozenmap import FrozenMap
from llmproxy_core.group_config import GroupConfig, Rank
from llmproxy_core.llm_config import LLMConfig
from llmproxy_core.plugins import Registry

__all__ = [
    "Config",
    "LogConfig",
    "ProcessorConfig",
    "RouteConfig",
    "ServerConfig",
    "StoreConfig",
    "TelemetryConfig",
    "is_loopback",
    "served_operations",
    "structure",
    "uncovered_operations",
]


def structure(
    mapping: Mapping[str, object], registry: Registry, env: Mapping[str, str]
) -> tuple[Config, tuple[Problem, ...]]:
    """
    The configuration that *mapping* describes, and warnings.

    *env* is where keys named by `token_env` and `{ env = "NAME" }` are taken from. Pure: no file, no network.
    ConfigError with all problems, never another exception, whatever *mapping* holds.
    """
    problems = Problems()
    draft = DraftReader(registry, env, problems).read(mapping)
    check(draft, registry, problems)
    if problems.errors or draft.server is None or draft.telemetry is None:
        raise ConfigError(problems.errors)
    config = Config(
        server=draft.server,
        telemetry=draft.telemetry,
        llms=_llms(draft.llms),
        processors=FrozenMap((name, it) for name, it in draft.processors.items() if it is not None),
        stores=FrozenMap((name, it) for name, it in draft.stores.items() if it is not None),
        routes=tuple(_served(draft.routes)),
    )
    return config, tuple(problems.warnings)


def _served(read: Iterable[RouteConfig | None]) -> Iterable[RouteConfig]:
    """*read*, less those whose prefix another one before them has: nothing reaches them, as a warning says."""
    first: dict[str, RouteConfig] = {}
    for route in read:
        if route is not None:
            first.setdefault(route.path_prefix, route)
    return first.values()


def _llms(read: Mapping[str, LLMConfig | None]) -> Mapping[str, LLMConfig]:
    """*read*, with groups of those that are switched on."""
    llms = {name: llm for name, llm in read.items() if llm is not None}
    for name, llm in llms.items():
        if isinstance(llm, GroupConfig):
            members = tuple(it for it in llm.members if llms[it].enabled)
            ranks = tuple(Rank(llms[it].priority, llms[it].weight) for it in members)
            llms[name] = attrs.evolve(llm, members=members, ranks=ranks)
    return FrozenMap(llms)
