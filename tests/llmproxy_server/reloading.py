"""A proxy with a configuration file, to be written anew while it runs."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import llmproxy_cache
import llmproxy_cost_limit

from llmproxy_core.exchange import Exchange
from llmproxy_core.plugins import Registry
from llmproxy_server.reload import Reloaded
from llmproxy_server.reload_local import LocalReloader
from llmproxy_server.server import Server
from llmproxy_server.source import Source
from tests.proxy import SECRET, STANDARD_PLUGINS

TIMEOUT_S = 20


def toml(mapping: Mapping[str, Any]) -> str:
    """*mapping* as a TOML file, a line for each key at the top."""
    return "".join(f"{json.dumps(key)} = {_value(value)}\n" for key, value in mapping.items())


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(it)}" for key, it in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


class Reloadable:
    """
    The proxy that *mapping* configures, from the file `proxy.toml` in *folder*, while it is entered.

    *plugins* come on top of `openai`, the groups, `cache` and `cost_limit`.
    """

    def __init__(
        self,
        folder: Path,
        mapping: Mapping[str, Any],
        *,
        plugins: Sequence[object] = (),
        env: Mapping[str, str] | None = None,
        server: Mapping[str, Any] | None = None,
    ) -> None:
        """*server* holds parameters of Server."""
        self.file = folder / "proxy.toml"
        self.registry = Registry.of(*STANDARD_PLUGINS, llmproxy_cache, llmproxy_cost_limit, *plugins)
        assert not self.registry.broken, self.registry.broken
        self.write(mapping)
        source = Source(self.file, {}, {"KEY": SECRET, **(env or {})}, folder)
        loaded = source.read().load(self.registry)
        self.exchanges: list[Exchange] = []
        self.server = Server(loaded.config, self.registry, observers=[self.exchanges.append], **(server or {}))
        self.reloader = LocalReloader(self.server, source, self.registry)
        self.server.reloader = self.reloader

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    def write(self, mapping: Mapping[str, Any]) -> None:
        """Write the file in one go, as a program that does it well."""
        server = {"host": "127.0.0.1", "port": 0, **mapping.get("server", {})}
        self.write_text(toml({**mapping, "server": server}))

    def write_text(self, text: str | bytes) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_bytes(text if isinstance(text, bytes) else text.encode())
        beside.replace(self.file)

    async def reload(self, mapping: Mapping[str, Any] | None = None, cause: str = "SIGHUP") -> Reloaded:
        """Write *mapping*, when it is given, and reload."""
        if mapping is not None:
            self.write(mapping)
        return await asyncio.wait_for(self.reloader.reload(cause), TIMEOUT_S)

    async def __aenter__(self) -> Self:
        await self.server.start()
        self.reloader.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.server.aclose()


__all__ = ["TIMEOUT_S", "Reloadable", "toml"]
