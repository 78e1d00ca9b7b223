"""The kinds of stores that are always there. Registered as a plugin: `type = "memory"`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmproxy_core.hookspecs import StoreType, hookimpl
from llmproxy_core.memory import MemoryConfig, MemoryStore
from llmproxy_core.services import Services


def _memory(config: MemoryConfig, services: Services) -> MemoryStore:
    return MemoryStore(config, services.now)


@hookimpl
def llmproxy_stores() -> Iterable[StoreType[Any]]:
    return [StoreType(name="memory", config=MemoryConfig, build=_memory)]
