"""Reloading the server of this process."""

from __future__ import annotations

import asyncio
from functools import partial

from llmproxy_core.errors import ConfigError, Problem, raise_unless_bug
from llmproxy_core.plugins import Registry
from llmproxy_server.difference import difference
from llmproxy_server.generation import kept_settings
from llmproxy_server.loader import Loaded
from llmproxy_server.log_events import get_logger
from llmproxy_server.reload import Reloaded, about_to_end, read_aside, report, result_of, tell_health
from llmproxy_server.server import Server
from llmproxy_server.source import Source, with_lines
from llmproxy_server.watch import Watch

_log = get_logger()


class LocalReloader:
    """Reloads the server of this process: when it is asked to, and, once `begin` was called, when its files change."""

    def __init__(self, server: Server, source: Source, registry: Registry) -> None:
        self._server = server
        self._source = source
        self._registry = registry
        self._one = asyncio.Lock()
        self._watch = Watch(source.files, partial(self.reload, "file"), server.tasks, read=lambda: source.seen)

    def begin(self) -> None:
        """The first configuration is served: watch its files, if it says so."""
        self._watch_or_not()

    def _watch_or_not(self) -> None:
        if self._server.config.server.watch and not self._server.life.draining:
            self._watch.start()
        else:
            self._watch.stop()

    def stop(self) -> None:
        self._watch.stop()

    def _tell(self, done: Reloaded) -> None:
        if (upkeep := self._server.metering.upkeep) is not None:
            upkeep.reloaded(result_of(done))
        tell_health(self._server.health, done)

    async def reload(self, cause: str) -> Reloaded:
        """See Reloader. While the server starts it waits; while it drains it is refused."""
        await self._server.life.started()
        async with self._one:
            if self._server.life.draining:
                return about_to_end(self._server.number, cause)
            try:
                done = await self._reload()
            except BaseException as error:  # noqa: BLE001 - whatever it is, the proxy goes on, and somebody waits to be told
                raise_unless_bug(error)
                done = Reloaded(False, self._server.number, tuple(_as_problem(error).problems))
            else:
                self._watch_or_not()
            self._tell(done)
        report(done, cause, self._source.name)
        return done

    async def _reload(self) -> Reloaded:
        loaded = await read_aside(self._load)
        if self._server.is_serving(loaded.config):
            _, kept = kept_settings(self._server.config.server, loaded.config.server)
            return Reloaded(True, self._server.number, kept_settings=kept, unchanged=True, warnings=loaded.warnings)
        return await serve(self._server, loaded)

    def _load(self) -> Loaded:
        try:
            return self._source.read().load(self._registry)
        except BaseException as bug:
            raise_unless_bug(bug)
            raise _as_problem(bug) from bug


async def serve(server: Server, loaded: Loaded) -> Reloaded:
    """Have *server* serve *loaded*. ConfigError: nothing has changed."""
    found = difference(server.config, loaded.config)
    try:
        prepared = await server.prepare(loaded.config)
    except ConfigError as error:
        raise ConfigError(with_lines(error.problems, loaded)) from error
    if server.life.draining:
        await prepared.discard()
        raise ConfigError([Problem("", "the process is about to end")])
    renewed = server.certificate.digest != prepared.generation.certificate.digest
    server.commit(prepared)
    changes = [str(change) for change in found.taking_effect]
    if renewed:
        changes.append("the certificate was renewed")
    return Reloaded(True, server.number, kept_settings=prepared.kept, changes=tuple(changes), warnings=loaded.warnings)


def _as_problem(error: BaseException) -> ConfigError:
    """*error* itself, or what stands for a bug."""
    if isinstance(error, ConfigError):
        return error
    _log.error("the configuration could not be loaded", exc_info=error)
    message = f"could not be loaded ({type(error).__name__}): a mistake in llmproxy or in a plugin; the log has it"
    return ConfigError([Problem("", message)])
